// The provider for browsers: the noble packages, because WebCrypto has only promises, and BLAKE3 in
// WebAssembly. None of the JavaScript in here is sure to take constant time. RSA, the one operation on
// a long-lived secret that others can have repeated at will, is WebCrypto's (rsa.ts).
import { cbc, ctr, gcm } from "@noble/ciphers/aes.js"
import { ed25519, x25519 as nobleX25519 } from "@noble/curves/ed25519.js"
import { hkdf } from "@noble/hashes/hkdf.js"
import { hmac } from "@noble/hashes/hmac.js"
import { scryptAsync } from "@noble/hashes/scrypt.js"
import { sha256 as nobleSha256, sha512 } from "@noble/hashes/sha2.js"
import { createBLAKE3 } from "hash-wasm"
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

// getRandomValues gives no more than this at once.
const mostRandomBytes = 65_536

export function random(length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  for (let offset = 0; offset < length; offset += mostRandomBytes) {
    crypto.getRandomValues(bytes.subarray(offset, offset + mostRandomBytes))
  }
  return bytes
}

export function sha256(...parts: readonly Uint8Array[]): Uint8Array {
  const hash = nobleSha256.create()
  for (const part of parts) hash.update(part)
  return hash.digest()
}

// One hasher for all calls: each call runs from init to digest without giving up the thread.
const blake3Hasher = await createBLAKE3()

export function blake3(...parts: readonly Uint8Array[]): Uint8Array {
  blake3Hasher.init()
  for (const part of parts) blake3Hasher.update(part)
  return blake3Hasher.digest("binary")
}

export function hmacSha256(key: Uint8Array, ...parts: readonly Uint8Array[]): Uint8Array {
  const mac = hmac.create(nobleSha256, key)
  for (const part of parts) mac.update(part)
  return mac.digest()
}

export function hkdfSha256({ ikm, salt, info, length }: HkdfInput): Uint8Array {
  return hkdf(nobleSha256, ikm, salt, info, length)
}

const zeroNonce = new Uint8Array(12)
const nothing = new Uint8Array(0)

export function gcmSeal({ key, nonce, aad, plaintext }: GcmSealInput): Uint8Array {
  return gcm(key, nonce ?? zeroNonce, aad ?? nothing).encrypt(plaintext)
}

export function gcmOpen({ key, nonce, aad, ciphertext }: GcmOpenInput): Uint8Array {
  const cipher = gcm(key, nonce ?? zeroNonce, aad ?? nothing)
  try {
    return cipher.decrypt(ciphertext)
  } catch {
    // Key and nonce were accepted above, so what is left is a short ciphertext or a wrong tag.
    throw new OpenError()
  }
}

export function aes128Ctr({ key, iv, skip = 0, data, out }: Aes128CtrInput): Uint8Array {
  const target = out ?? new Uint8Array(data.length)
  if (target.length !== data.length) throw new RangeError("out has another length than data")
  const cipher = ctr(key, iv)
  if (skip === 0) target.set(cipher.encrypt(data))
  else target.set(cipher.encrypt(concatBytes(new Uint8Array(skip), data)).subarray(skip))
  return target
}

const pieceBytes = 32 * 1024

export function aes128CbcMac({ key, iv, data }: Aes128CbcMacInput): Uint8Array {
  let state = iv.slice()
  for (let offset = 0; offset < data.length; offset += pieceBytes) {
    const piece = data.subarray(offset, offset + pieceBytes)
    const padded = new Uint8Array(Math.ceil(piece.length / 16) * 16)
    padded.set(piece)
    state = cbc(key, state, { disablePadding: true }).encrypt(padded).slice(-16)
  }
  return state
}

export function x25519PublicKey(secret: Uint8Array): Uint8Array {
  if (secret.length !== 32) throw new RangeError("a secret key is 32 bytes")
  return nobleX25519.getPublicKey(secret)
}

export function x25519(secret: Uint8Array, publicKey: Uint8Array): Uint8Array {
  if (secret.length !== 32) throw new RangeError("a secret key is 32 bytes")
  if (publicKey.length !== 32) throw new FormatError("x25519 key", "not 32 bytes")
  try {
    return nobleX25519.getSharedSecret(secret, publicKey)
  } catch (error) {
    // With lengths right, the library throws for one reason: the result is zero.
    throw new FormatError("x25519 key", "of low order", { cause: error })
  }
}

export function x25519KeyPair(draw: CryptoProvider["random"] = random): X25519KeyPair {
  const secret = draw(32)
  return { secret, publicKey: x25519PublicKey(secret) }
}

export function ed25519PublicKey(seed: Uint8Array): Uint8Array {
  return ed25519.getPublicKey(seed)
}

export function ed25519Sign(seed: Uint8Array, message: Uint8Array): Uint8Array {
  return ed25519.sign(message, seed)
}

/**
 * From the library's points, not by its `verify`: that multiplies by the cofactor, which accepts
 * signatures that node:crypto refuses.
 */
export function ed25519Verify(
  publicKey: Uint8Array,
  message: Uint8Array,
  signature: Uint8Array,
): boolean {
  if (signature.length !== 64) return false
  const r = signature.subarray(0, 32)
  if (!isGoodEd25519Key(publicKey) || isSmallOrderEd25519(r)) return false
  const { Point } = ed25519
  const order = Point.Fn.ORDER
  const s = littleEndian(signature.subarray(32))
  if (s >= order) return false
  const k = littleEndian(sha512(concatBytes(r, publicKey, message))) % order
  const expected = Point.BASE.multiplyUnsafe(s).subtract(
    Point.fromBytes(publicKey).multiplyUnsafe(k),
  )
  return equalBytes(expected.toBytes(), r)
}

function littleEndian(bytes: Uint8Array): bigint {
  let value = 0n
  for (let i = bytes.length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i] ?? 0)
  return value
}

export function scrypt({ password, salt, logN, length }: ScryptInput): Promise<Uint8Array> {
  const N = 2 ** logN
  return scryptAsync(password, salt, { N, r: 8, p: 1, dkLen: length, maxmem: 128 * N * 8 + 4096 })
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
