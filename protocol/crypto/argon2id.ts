// Argon2id (RFC 9106) in WebAssembly: Node has none of its own before version 24.
import { argon2id as hashWasmArgon2id } from "hash-wasm"

export interface Argon2idInput {
  /** Not empty: the library refuses an empty password, and the format has no use for one. */
  readonly password: Uint8Array
  readonly salt: Uint8Array
  readonly memoryKib: number
  readonly passes: number
  readonly lanes: number
  readonly length: number
}

export function argon2id(input: Argon2idInput): Promise<Uint8Array> {
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
