// Argon2id (RFC 9106) in WebAssembly: Node has none of its own before version 24. Loaded when it is
// needed: most runs meet no passphrase.

export interface Argon2idInput {
  /** Not empty: the library refuses an empty password, and the format has no use for one. */
  readonly password: Uint8Array
  readonly salt: Uint8Array
  readonly memoryKib: number
  readonly passes: number
  readonly lanes: number
  readonly length: number
}

export async function argon2id(input: Argon2idInput): Promise<Uint8Array> {
  const { argon2id: hashWasmArgon2id } = await import("hash-wasm")
  return hashWasmArgon2id({
    password: input.password,
    salt: input.salt,
    memorySize: input.memoryKib,
    iterations: input.passes,
    parallelism: input.lanes,
    hashLength: input.length,
    outputType: "binary",
  })
}
