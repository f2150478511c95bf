// Byte strings: joining, comparing, integers, text forms, and the reader that every binary parser
// is built on. All text forms have exactly one accepted spelling (docs/protocol.md, "Encodings").
import { FormatError } from "./errors.js"

export function concatBytes(...parts: readonly Uint8Array[]): Uint8Array {
  let length = 0
  for (const part of parts) length += part.length
  const joined = new Uint8Array(length)
  let offset = 0
  for (const part of parts) {
    joined.set(part, offset)
    offset += part.length
  }
  return joined
}

/** Compares in time that depends on the lengths alone. Lengths are never secret here. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false
  let difference = 0
  for (let i = 0; i < a.length; i++) difference |= (a[i] ?? 0) ^ (b[i] ?? 0)
  return difference === 0
}

export function isZero(bytes: Uint8Array): boolean {
  let seen = 0
  for (let i = 0; i < bytes.length; i++) seen |= bytes[i] ?? 0
  return seen === 0
}

const encoder = new TextEncoder()
const strictDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
// Only ever fed bytes below 128, where UTF-8 and ASCII are the same.
const asciiDecoder = new TextDecoder()

/** Up to here a look at each character costs less than a call of the encoder; most names are shorter. */
const shortText = 64

/** UTF-8 of `text`. A lone surrogate has no UTF-8 form, and TextEncoder would silently replace it. */
export function utf8(text: string): Uint8Array {
  return (text.length <= shortText ? asciiOf(text) : undefined) ?? encoded(text)
}

function asciiOf(text: string): Uint8Array | undefined {
  const bytes = new Uint8Array(text.length)
  for (let i = 0; i < bytes.length; i++) {
    const code = text.charCodeAt(i)
    if (code > 127) return undefined
    bytes[i] = code
  }
  return bytes
}

function encoded(text: string): Uint8Array {
  if (/\p{Surrogate}/u.test(text)) throw new RangeError("text holds half of a surrogate pair")
  return encoder.encode(text)
}

/** The inverse of `utf8`: refuses what is not UTF-8 and keeps a leading byte order mark. */
export function parseUtf8(bytes: Uint8Array, field: string): string {
  try {
    return strictDecoder.decode(bytes)
  } catch (error) {
    throw new FormatError(field, "not valid UTF-8", { cause: error })
  }
}

const hexDigits = encoder.encode("0123456789abcdef")

export function toHex(bytes: Uint8Array): string {
  const text = new Uint8Array(bytes.length * 2)
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i] ?? 0
    text[2 * i] = hexDigits[byte >> 4] ?? 0
    text[2 * i + 1] = hexDigits[byte & 15] ?? 0
  }
  return asciiDecoder.decode(text)
}

/** Lower-case hex only. */
export function fromHex(text: string, field: string = "hex"): Uint8Array {
  if (text.length % 2 !== 0) throw new FormatError(field, "an odd number of hex digits")
  const bytes = new Uint8Array(text.length / 2)
  for (let i = 0; i < bytes.length; i++) {
    bytes[i] = (hexValue(text, 2 * i, field) << 4) | hexValue(text, 2 * i + 1, field)
  }
  return bytes
}

function hexValue(text: string, index: number, field: string): number {
  const code = text.charCodeAt(index)
  if (code >= 48 && code <= 57) return code - 48
  if (code >= 97 && code <= 102) return code - 87
  throw new FormatError(field, `character ${index} is not a lower-case hex digit`)
}

const base64Alphabet = encoder.encode(
  "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
)
const base64Values = new Int8Array(128).fill(-1)
base64Alphabet.forEach((code, value) => (base64Values[code] = value))

/** base64url of RFC 4648 §5, without padding. */
export function toBase64url(bytes: Uint8Array): string {
  const length = Math.ceil((bytes.length * 4) / 3)
  const text = new Uint8Array(length)
  let at = 0
  for (let i = 0; i < bytes.length; i += 3) {
    const word = ((bytes[i] ?? 0) << 16) | ((bytes[i + 1] ?? 0) << 8) | (bytes[i + 2] ?? 0)
    for (let shift = 18; shift >= 0 && at < length; shift -= 6) {
      text[at++] = base64Alphabet[(word >> shift) & 63] ?? 0
    }
  }
  return asciiDecoder.decode(text)
}

/** Refuses padding, the other alphabet, white space, and left-over bits that are not zero. */
export function fromBase64url(text: string, field: string = "base64url"): Uint8Array {
  const tail = text.length % 4
  if (tail === 1) throw new FormatError(field, "no byte string has this length in base64url")
  const bytes = new Uint8Array(Math.floor((text.length * 3) / 4))
  let word = 0
  let bits = 0
  let at = 0
  for (let i = 0; i < text.length; i++) {
    const value = base64Values[text.charCodeAt(i)] ?? -1
    if (value < 0) throw new FormatError(field, `character ${i} is not base64url`)
    word = ((word << 6) | value) & 0xffff
    bits += 6
    if (bits >= 8) {
      bits -= 8
      bytes[at++] = word >> bits
    }
  }
  if ((word & ((1 << bits) - 1)) !== 0) throw new FormatError(field, "bits left over are not zero")
  return bytes
}

export function u16(value: number): Uint8Array {
  checkInteger(value, 0xffff)
  return Uint8Array.of(value >>> 8, value)
}

export function u32(value: number): Uint8Array {
  checkInteger(value, 0xffffffff)
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value)
}

/** Values above 2^53 − 1 cannot be held exactly, so the format does not use them. */
export function u64(value: number): Uint8Array {
  checkInteger(value, Number.MAX_SAFE_INTEGER)
  const high = Math.floor(value / 2 ** 32)
  const low = value >>> 0
  return Uint8Array.of(
    high >>> 24,
    high >>> 16,
    high >>> 8,
    high,
    low >>> 24,
    low >>> 16,
    low >>> 8,
    low,
  )
}

/** The same, into `view` at `at`. */
export function putU64(view: DataView, at: number, value: number): void {
  checkInteger(value, Number.MAX_SAFE_INTEGER)
  view.setUint32(at, Math.floor(value / 2 ** 32))
  view.setUint32(at + 4, value >>> 0)
}

function checkInteger(value: number, most: number): void {
  if (!Number.isInteger(value) || value < 0 || value > most) {
    throw new RangeError(`${value} is not an integer from 0 to ${most}`)
  }
}

/**
 * Reads a byte string from front to back. Every read is bounded, names its field in the FormatError
 * it throws, and returns views, not copies. Call `end` last: trailing bytes are a second encoding.
 */
export class ByteReader {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #what: string
  #offset = 0

  constructor(bytes: Uint8Array, what: string) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#what = what
  }

  get offset(): number {
    return this.#offset
  }

  get remaining(): number {
    return this.#bytes.length - this.#offset
  }

  take(length: number, field: string): Uint8Array {
    const start = this.#advance(length, field)
    return this.#bytes.subarray(start, start + length)
  }

  u8(field: string): number {
    return this.#view.getUint8(this.#advance(1, field))
  }

  u16(field: string): number {
    return this.#view.getUint16(this.#advance(2, field))
  }

  u32(field: string): number {
    return this.#view.getUint32(this.#advance(4, field))
  }

  u64(field: string): number {
    const start = this.#advance(8, field)
    const value = this.#view.getUint32(start) * 2 ** 32 + this.#view.getUint32(start + 4)
    if (!Number.isSafeInteger(value)) this.refuse(field, "above 2^53 - 1")
    return value
  }

  /** Reads ASCII that has to be there, such as a magic. */
  expectAscii(text: string, field: string): void {
    if (!equalBytes(this.take(text.length, field), encoder.encode(text))) {
      this.refuse(field, `not ${JSON.stringify(text)}`)
    }
  }

  expectU8(value: number, field: string): void {
    const found = this.u8(field)
    if (found !== value) this.refuse(field, `${found} where only ${value} is known`)
  }

  zeros(length: number, field: string): void {
    if (!isZero(this.take(length, field))) this.refuse(field, "reserved bytes are not zero")
  }

  end(): void {
    if (this.remaining !== 0) this.refuse("end", `${this.remaining} bytes too many`)
  }

  refuse(field: string, reason: string): never {
    throw new FormatError(`${this.#what}.${field}`, reason)
  }

  #advance(length: number, field: string): number {
    if (!Number.isInteger(length) || length < 0) throw new RangeError("a length is not negative")
    if (length > this.remaining) this.refuse(field, "cut short")
    const start = this.#offset
    this.#offset += length
    return start
  }
}
