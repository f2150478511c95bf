// The provider for Node: node:crypto, and BLAKE3 from a prebuilt native module. The only file of
// protocol/ that imports node:crypto.
import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  hash as hashOnce,
  hkdfSync,
  type KeyObject,
  randomFillSync,
  scrypt as nodeScrypt,
  sign,
  verify,
} from "node:crypto"
import { MessageChannel } from "node:worker_threads"
import blakeHash from "@napi-rs/blake-hash"
import { concatBytes, equalBytes } from "../bytes.js"
import { FormatError, OpenError } from "../errors.js"
import { isGoodEd25519Key, isSmallOrderEd25519 } from "./points.js"
import type {
  Aes128CbcMacInput,
  Aes128CtrInput,
  CryptoProvider,
  GcmOpenInput,
  GcmSealInput,
  HkdfInput,
  ScryptInput,
  X25519KeyPair,
} from "./provider.js"

// Buffers are handed on as plain Uint8Arrays over the same memory: Buffer's own slice and toString
// differ from Uint8Array's, and callers must not come to rely on them.
function plain(buffer: Buffer): Uint8Array {
  return new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength)
}

export function random(length: number): Uint8Array {
  return randomFillSync(new Uint8Array(length))
}

/** Up to here a copy costs less than a native hash object, which the collector has to free as well. */
const shortBytes = 1024
const message = new Uint8Array(shortBytes)

export function sha256(...parts: readonly Uint8Array[]): Uint8Array {
  let length = 0
  for (const part of parts) length += part.length
  if (length <= shortBytes) {
    let at = 0
    for (const part of parts) {
      message.set(part, at)
      at += part.length
    }
    return digestOf(hashOnce("sha256", message.subarray(0, length), "binary"))
  }
  const hash = createHash("sha256")
  for (const part of parts) hash.update(part)
  return plain(hash.digest())
}

/** A digest as a string costs half of one in a buffer, which lies outside of the heap. */
function digestOf(characters: string): Uint8Array {
  const digest = new Uint8Array(characters.length)
  putDigest(digest, 0, characters)
  return digest
}

function putDigest(into: Uint8Array, at: number, characters: string): void {
  for (let i = 0; i < characters.length; i++) into[at + i] = characters.charCodeAt(i)
}

export function blake3(...parts: readonly Uint8Array[]): Uint8Array {
  const hasher = new blakeHash.Blake3Hasher()
  for (const part of parts) hasher.update(part)
  return plain(hasher.digestBuffer())
}

const hmacBlockBytes = 64
const inner = new Uint8Array(hmacBlockBytes + shortBytes)
const outer = new Uint8Array(hmacBlockBytes + 32)

export function hmacSha256(key: Uint8Array, ...parts: readonly Uint8Array[]): Uint8Array {
  let end = hmacBlockBytes
  for (const part of parts) end += part.length
  if (key.length <= hmacBlockBytes && end <= inner.length) {
    // RFC 2104 by its two hashes, for the same reason: it is asked for once for each entry of a list.
    for (let i = 0; i < hmacBlockBytes; i++) {
      const byte = key[i] ?? 0
      inner[i] = byte ^ 0x36
      outer[i] = byte ^ 0x5c
    }
    let at = hmacBlockBytes
    for (const part of parts) {
      inner.set(part, at)
      at += part.length
    }
    putDigest(outer, hmacBlockBytes, hashOnce("sha256", inner.subarray(0, end), "binary"))
    return digestOf(hashOnce("sha256", outer, "binary"))
  }
  const hmac = createHmac("sha256", key)
  for (const part of parts) hmac.update(part)
  return digestOf(hmac.digest("binary"))
}

export function hkdfSha256({ ikm, salt, info, length }: HkdfInput): Uint8Array {
  return new Uint8Array(hkdfSync("sha256", ikm, salt, info, length))
}

const zeroNonce = new Uint8Array(12)
const nothing = new Uint8Array(0)

export function gcmSeal({ key, nonce, aad, plaintext }: GcmSealInput): Uint8Array {
  const cipher = createCipheriv("aes-256-gcm", key, nonce ?? zeroNonce)
  cipher.setAAD(aad ?? nothing)
  const body = cipher.update(plaintext)
  cipher.final()
  return concatBytes(body, cipher.getAuthTag())
}

export function gcmOpen({ key, nonce, aad, ciphertext }: GcmOpenInput): Uint8Array {
  const length = ciphertext.length - 16
  if (length < 0) throw new OpenError()
  const decipher = createDecipheriv("aes-256-gcm", key, nonce ?? zeroNonce, { authTagLength: 16 })
  decipher.setAAD(aad ?? nothing)
  decipher.setAuthTag(ciphertext.subarray(length))
  const plaintext = decipher.update(ciphertext.subarray(0, length))
  try {
    decipher.final()
  } catch {
    // The tag is the only thing `final` checks in this mode.
    throw new OpenError()
  }
  return plain(plaintext)
}

// OpenSSL hands each piece to a new buffer. At this size the buffers stay in the processor's cache,
// which is what decides the speed of both modes (bench/).
const pieceBytes = 32 * 1024
const zeroBlock = new Uint8Array(16)

const { port1: nowhere, port2: otherEnd } = new MessageChannel()
nowhere.close()
otherEnd.close()
const transferred: ArrayBuffer[] = []
const worthGivingBack = 2048

/**
 * Frees the memory of a buffer at once; it is empty afterwards. node:crypto cannot write into a buffer
 * of ours, and the garbage collector notices its outputs late: by then tens of megabytes have been
 * touched for the first time, which costs as much as the encryption. Transferring a buffer through a
 * port that is closed detaches it here and delivers it nowhere. Node only, hence no part of the
 * provider's interface; the client uses it for what it reads from sockets.
 */
export function giveBack({ buffer, length }: Buffer): void {
  // A small one is not worth the call, and one that shares its memory is not ours to give.
  if (length < worthGivingBack || buffer.byteLength !== length) return
  if (!(buffer instanceof ArrayBuffer)) return
  transferred[0] = buffer
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- ports have no origin
  nowhere.postMessage(undefined, transferred)
}

export function aes128Ctr({ key, iv, skip = 0, data, out }: Aes128CtrInput): Uint8Array {
  const target = out ?? new Uint8Array(data.length)
  if (target.length !== data.length) throw new RangeError("out has another length than data")
  const cipher = createCipheriv("aes-128-ctr", key, iv)
  if (skip > 0) cipher.update(zeroBlock.subarray(0, skip))
  for (let offset = 0; offset < data.length; offset += pieceBytes) {
    const piece = cipher.update(data.subarray(offset, offset + pieceBytes))
    target.set(piece, offset)
    giveBack(piece)
  }
  return target
}

export function aes128CbcMac({ key, iv, data }: Aes128CbcMacInput): Uint8Array {
  if (data.length === 0) return iv.slice()
  // Its padding is never seen: only `final` would add it.
  const cipher = createCipheriv("aes-128-cbc", key, iv)
  const mac = new Uint8Array(16)
  const whole = data.length - (data.length % 16)
  for (let offset = 0; offset < whole; offset += pieceBytes) {
    const piece = cipher.update(data.subarray(offset, Math.min(offset + pieceBytes, whole)))
    putLastBlock(mac, piece)
    giveBack(piece)
  }
  if (whole < data.length) {
    const block = new Uint8Array(16)
    block.set(data.subarray(whole))
    putLastBlock(mac, cipher.update(block))
  }
  return mac
}

/** Byte by byte: a view costs several times as much. */
function putLastBlock(into: Uint8Array, blocks: Uint8Array): void {
  const from = blocks.length - 16
  for (let i = 0; i < 16; i++) into[i] = blocks[from + i] ?? 0
}

// RFC 8410: the DER of a private key of these curves is a fixed prefix and the 32 bytes. Public keys
// go in as JWK, which is several times faster; private ones do not, because their JWK has to name the
// public key too, which is what is not known yet.
const pkcs8Prefix = {
  x25519: Buffer.from("302e020100300506032b656e04220420", "hex"),
  ed25519: Buffer.from("302e020100300506032b657004220420", "hex"),
}
const jwkCurve = { x25519: "X25519", ed25519: "Ed25519" }
type Curve = keyof typeof pkcs8Prefix

// Making a private KeyObject costs more than using it, and long-lived keys are used again and again.
// Each lives as long as the array it was made from, and is made anew if that array was overwritten.
interface KnownKey {
  readonly secret: Uint8Array
  readonly key: KeyObject
}
const knownKeys = {
  x25519: new WeakMap<Uint8Array, KnownKey>(),
  ed25519: new WeakMap<Uint8Array, KnownKey>(),
}

function privateKey(curve: Curve, secret: Uint8Array): KeyObject {
  if (secret.length !== 32) throw new RangeError("a secret key is 32 bytes")
  const known = knownKeys[curve].get(secret)
  if (known !== undefined && equalBytes(known.secret, secret)) return known.key
  const der = Buffer.concat([pkcs8Prefix[curve], secret])
  const key = createPrivateKey({ key: der, format: "der", type: "pkcs8" })
  der.fill(0)
  knownKeys[curve].set(secret, { secret: secret.slice(), key })
  return key
}

function publicKeyObject(curve: Curve, bytes: Uint8Array): KeyObject {
  if (bytes.length !== 32) throw new FormatError(`${curve} key`, "not 32 bytes")
  const x = Buffer.from(bytes.buffer, bytes.byteOffset, 32).toString("base64url")
  return createPublicKey({ key: { kty: "OKP", crv: jwkCurve[curve], x }, format: "jwk" })
}

function publicBytes(key: KeyObject): Uint8Array {
  const der = createPublicKey(key).export({ format: "der", type: "spki" })
  return new Uint8Array(der.subarray(-32))
}

export function x25519PublicKey(secret: Uint8Array): Uint8Array {
  return publicBytes(privateKey("x25519", secret))
}

export function x25519(secret: Uint8Array, publicKey: Uint8Array): Uint8Array {
  const own = privateKey("x25519", secret)
  const other = publicKeyObject("x25519", publicKey)
  try {
    return plain(diffieHellman({ privateKey: own, publicKey: other }))
  } catch (error) {
    // With both keys well formed, OpenSSL fails for one reason: the result is zero.
    throw new FormatError("x25519 key", "of low order", { cause: error })
  }
}

export function x25519KeyPair(draw: CryptoProvider["random"] = random): X25519KeyPair {
  const secret = draw(32)
  return { secret, publicKey: x25519PublicKey(secret) }
}

export function ed25519PublicKey(seed: Uint8Array): Uint8Array {
  return publicBytes(privateKey("ed25519", seed))
}

export function ed25519Sign(seed: Uint8Array, message: Uint8Array): Uint8Array {
  return plain(sign(null, message, privateKey("ed25519", seed)))
}

export function ed25519Verify(
  publicKey: Uint8Array,
  message: Uint8Array,
  signature: Uint8Array,
): boolean {
  if (signature.length !== 64) return false
  if (!isGoodEd25519Key(publicKey) || isSmallOrderEd25519(signature.subarray(0, 32))) return false
  // OpenSSL refuses S ≥ L and compares the encoding of R, so R is canonical.
  return verify(null, message, publicKeyObject("ed25519", publicKey), signature)
}

export function scrypt({ password, salt, logN, length }: ScryptInput): Promise<Uint8Array> {
  const N = 2 ** logN
  // OpenSSL counts a little more than the 128·N·r bytes of the algorithm.
  const options = { N, r: 8, p: 1, maxmem: 128 * N * 8 + 1024 * 1024 }
  return new Promise((resolve, reject) => {
    nodeScrypt(password, salt, length, options, (error, key) => {
      if (error) reject(error)
      else resolve(plain(key))
    })
  })
}

export const provider: CryptoProvider = {
  random,
  sha256,
  blake3,
  hmacSha256,
  hkdfSha256,
  gcmSeal,
  gcmOpen,
  aes128Ctr,
  aes128CbcMac,
  x25519PublicKey,
  x25519,
  x25519KeyPair,
  ed25519PublicKey,
  ed25519Sign,
  ed25519Verify,
  scrypt,
}
