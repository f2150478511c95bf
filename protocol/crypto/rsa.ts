// RSA-OAEP with SHA-256 and MGF1-SHA-256, by WebCrypto in Node and browsers alike: it is off the
// main thread in both, and its private operation is OpenSSL's or the browser's own. The label keeps
// one construction's ciphertexts from being opened as another's. PKCS#1 v1.5 is never used.
import { concatBytes, equalBytes, fromHex, u16, u32 } from "../bytes.js"
import { FormatError } from "../errors.js"
import { sha256 } from "#crypto-provider"

export interface RsaPrivateKey {
  readonly modulus: Uint8Array
  readonly key: CryptoKey
}

const algorithm = { name: "RSA-OAEP", hash: "SHA-256" }
const exponent = Uint8Array.of(1, 0, 1)

/** Makes a key of 3072 or 4096 bits with exponent 65537 and returns it as PKCS#8. */
export async function rsaGenerate(modulusBits: 3072 | 4096): Promise<Uint8Array> {
  const pair = await crypto.subtle.generateKey(
    { ...algorithm, modulusLength: modulusBits, publicExponent: exponent },
    true,
    ["encrypt", "decrypt"],
  )
  return new Uint8Array(await crypto.subtle.exportKey("pkcs8", pair.privateKey))
}

/** Throws FormatError for what is not a PKCS#8 RSA key with exponent 65537. */
export async function rsaImportPrivate(pkcs8: Uint8Array): Promise<RsaPrivateKey> {
  const modulus = pkcs8Modulus(pkcs8)
  try {
    const key = await crypto.subtle.importKey("pkcs8", new Uint8Array(pkcs8), algorithm, false, [
      "decrypt",
    ])
    return { modulus, key }
  } catch (error) {
    throw new FormatError("pkcs8", "not an RSA private key", { cause: error })
  }
}

export interface RsaWrapInput {
  /** n, big-endian, without leading zeros. */
  readonly modulus: Uint8Array
  readonly label: Uint8Array
  readonly secret: Uint8Array
  /** 32 bytes in place of random ones, only to reproduce vectors. */
  readonly seed?: Uint8Array
}

export async function rsaWrap({ modulus, label, secret, seed }: RsaWrapInput): Promise<Uint8Array> {
  if (seed !== undefined) return rawPublic(modulus, encodeOaep({ modulus, label, secret, seed }))
  const key = await crypto.subtle.importKey("spki", encodeSpki(modulus), algorithm, false, [
    "encrypt",
  ])
  const parameters = { name: "RSA-OAEP", label: new Uint8Array(label) }
  return new Uint8Array(await crypto.subtle.encrypt(parameters, key, new Uint8Array(secret)))
}

export interface RsaUnwrapInput {
  readonly key: RsaPrivateKey
  readonly label: Uint8Array
  readonly wrapped: Uint8Array
}

/**
 * Undefined for every failure alike. The caller goes on with a random secret instead of stopping, so
 * that nobody can tell this failure from a later one.
 */
export async function rsaUnwrap(input: RsaUnwrapInput): Promise<Uint8Array | undefined> {
  const parameters = { name: "RSA-OAEP", label: new Uint8Array(input.label) }
  try {
    return new Uint8Array(
      await crypto.subtle.decrypt(parameters, input.key.key, new Uint8Array(input.wrapped)),
    )
  } catch {
    return undefined
  }
}

/** EME-OAEP of RFC 8017 §7.1.1, with a given seed. */
function encodeOaep({ modulus, label, secret, seed }: Required<RsaWrapInput>): Uint8Array {
  const length = modulus.length
  const padding = length - secret.length - 2 * 32 - 2
  if (seed.length !== 32 || padding < 0) throw new RangeError("seed or secret of a wrong length")
  const db = concatBytes(sha256(label), new Uint8Array(padding), Uint8Array.of(1), secret)
  const maskedDb = xor(db, mgf1(seed, db.length))
  return concatBytes(Uint8Array.of(0), xor(seed, mgf1(maskedDb, 32)), maskedDb)
}

function mgf1(seed: Uint8Array, length: number): Uint8Array {
  const blocks: Uint8Array[] = []
  for (let i = 0; i * 32 < length; i++) blocks.push(sha256(seed, u32(i)))
  return concatBytes(...blocks).subarray(0, length)
}

function xor(a: Uint8Array, b: Uint8Array): Uint8Array {
  return a.map((byte, i) => byte ^ (b[i] ?? 0))
}

/** message^65537 mod n: 2^16 by squaring, then once more. Nothing here is a long-term secret. */
function rawPublic(modulus: Uint8Array, message: Uint8Array): Uint8Array {
  const n = toBigInt(modulus)
  const base = toBigInt(message)
  let value = base
  for (let i = 0; i < 16; i++) value = (value * value) % n
  value = (value * base) % n
  const result = new Uint8Array(modulus.length)
  for (let i = result.length - 1; i >= 0; i--) {
    result[i] = Number(value & 0xffn)
    value >>= 8n
  }
  return result
}

function toBigInt(bytes: Uint8Array): bigint {
  let value = 0n
  for (const byte of bytes) value = (value << 8n) | BigInt(byte)
  return value
}

// AlgorithmIdentifier { rsaEncryption, NULL }, as RFC 8017 appendix C has it.
const rsaIdentifier = fromHex("300d06092a864886f70d0101010500")

function encodeSpki(modulus: Uint8Array): Uint8Array<ArrayBuffer> {
  const numbers = der(0x30, concatBytes(derInteger(modulus), derInteger(exponent)))
  const bits = der(0x03, concatBytes(Uint8Array.of(0), numbers))
  return new Uint8Array(der(0x30, concatBytes(rsaIdentifier, bits)))
}

function derInteger(magnitude: Uint8Array): Uint8Array {
  const sign = (magnitude[0] ?? 0) >= 0x80 ? Uint8Array.of(0) : new Uint8Array(0)
  return der(0x02, concatBytes(sign, magnitude))
}

function der(tag: number, content: Uint8Array): Uint8Array {
  const { length } = content
  const prefix =
    length < 128
      ? Uint8Array.of(tag, length)
      : length < 256
        ? Uint8Array.of(tag, 0x81, length)
        : concatBytes(Uint8Array.of(tag, 0x82), u16(length))
  return concatBytes(prefix, content)
}

/** The modulus of PrivateKeyInfo { 0, rsaEncryption, RSAPrivateKey { 0, n, 65537, … } }. */
function pkcs8Modulus(pkcs8: Uint8Array): Uint8Array {
  const outer = new DerReader(pkcs8)
  const info = new DerReader(outer.next(0x30))
  const version = info.next(0x02)
  const identifier = der(0x30, info.next(0x30))
  const key = new DerReader(new DerReader(info.next(0x04)).next(0x30))
  const keyVersion = key.next(0x02)
  const n = key.next(0x02)
  const e = key.next(0x02)
  const zero = Uint8Array.of(0)
  if (
    !outer.atEnd ||
    !equalBytes(version, zero) ||
    !equalBytes(keyVersion, zero) ||
    !equalBytes(identifier, rsaIdentifier) ||
    !equalBytes(e, exponent)
  ) {
    throw new FormatError("pkcs8", "not an RSA private key with exponent 65537")
  }
  return n[0] === 0 ? n.slice(1) : n.slice()
}

/** Definite lengths of at most two bytes, which is all that keys of 4096 bits need. */
class DerReader {
  readonly #bytes: Uint8Array
  #offset = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  get atEnd(): boolean {
    return this.#offset === this.#bytes.length
  }

  next(tag: number): Uint8Array {
    if (this.#byte() !== tag) throw new FormatError("pkcs8", "not an RSA private key")
    let length = this.#byte()
    if (length === 0x81) length = this.#byte()
    else if (length === 0x82) length = this.#byte() * 256 + this.#byte()
    const start = this.#offset
    this.#offset += length
    if (length > 0xffff || this.#offset > this.#bytes.length) {
      throw new FormatError("pkcs8", "cut short")
    }
    return this.#bytes.subarray(start, this.#offset)
  }

  #byte(): number {
    const byte = this.#bytes[this.#offset++]
    if (byte === undefined) throw new FormatError("pkcs8", "cut short")
    return byte
  }
}
