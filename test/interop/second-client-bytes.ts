// §1 of docs/protocol.md, written from that page alone; it shares no code with the project.

import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  hkdfSync,
  randomBytes,
  timingSafeEqual,
} from "node:crypto"

/** Bytes that are not what the page says they must be. */
export class FormatError extends Error {
  override name = "FormatError"
}

export function insist(holds: boolean, what: string): asserts holds {
  if (!holds) throw new FormatError(what)
}

export const join = (...parts: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts))
export const zeros = (length: number): Uint8Array => new Uint8Array(length)
export const random = (length: number): Uint8Array => new Uint8Array(randomBytes(length))
export const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text)

const integer = (width: number) => (value: number) =>
  Uint8Array.from({ length: width }, (_, i) =>
    Number((BigInt(value) >> BigInt(8 * (width - 1 - i))) & 255n),
  )
export const u8: (value: number) => Uint8Array = integer(1)
export const u16: (value: number) => Uint8Array = integer(2)
export const u32: (value: number) => Uint8Array = integer(4)
export const u64: (value: number) => Uint8Array = integer(8)

export const equal = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && timingSafeEqual(a, b)

export const H = (...inputs: Uint8Array[]): Uint8Array =>
  new Uint8Array(
    createHash("sha256")
      .update(join(...inputs))
      .digest(),
  )

export const hmac = (key: Uint8Array, message: Uint8Array): Uint8Array =>
  new Uint8Array(createHmac("sha256", key).update(message).digest())

export const hkdf = (from: {
  ikm: Uint8Array
  salt: Uint8Array
  info: Uint8Array
  length: number
}): Uint8Array => new Uint8Array(hkdfSync("sha256", from.ikm, from.salt, from.info, from.length))

/** The label `kh/v1/name`, 16 bytes. */
export const L = (name: string): Uint8Array => join(utf8(`kh/v1/${name}`), zeros(10 - name.length))

export type Gcm = { key: Uint8Array; aad: Uint8Array }

export function sealGcm({ key, aad }: Gcm, plaintext: Uint8Array): Uint8Array {
  const cipher = createCipheriv("aes-256-gcm", key, zeros(12)).setAAD(aad)
  return join(cipher.update(plaintext), cipher.final(), cipher.getAuthTag())
}

export function openGcm({ key, aad }: Gcm, sealed: Uint8Array): Uint8Array {
  insist(sealed.length >= 16, "no room for a tag")
  const cipher = createDecipheriv("aes-256-gcm", key, zeros(12), { authTagLength: 16 })
  cipher.setAAD(aad).setAuthTag(sealed.subarray(-16))
  try {
    return join(cipher.update(sealed.subarray(0, -16)), cipher.final())
  } catch {
    throw new FormatError("does not open")
  }
}

/** Reads a layout from front to back; `end` refuses what is left over. */
export class Reader {
  readonly #bytes: Uint8Array
  #at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  take(length: number): Uint8Array {
    insist(this.#at + length <= this.#bytes.length, "ends too early")
    this.#at += length
    return this.#bytes.slice(this.#at - length, this.#at)
  }

  number(width: number): number {
    const value = this.take(width).reduce((sum, byte) => sum * 256 + byte, 0)
    insist(value <= Number.MAX_SAFE_INTEGER, "an integer above 2^53 - 1")
    return value
  }

  expect(...bytes: Uint8Array[]): void {
    const wanted = join(...bytes)
    insist(equal(this.take(wanted.length), wanted), "not the bytes that must stand here")
  }

  /** How many bytes were read so far. */
  get position(): number {
    return this.#at
  }

  end(): void {
    insist(this.#at === this.#bytes.length, "trailing bytes")
  }
}
