// X-Wing, the hybrid of ML-KEM-768 and X25519 (draft-connolly-cfrg-xwing-kem-10; eprint 2024/039).
// Put together here from @noble/post-quantum's ML-KEM and the provider's X25519, because the library's
// own combination does X25519 in JavaScript and expands the key at every call.
import { sha3_256, shake256 } from "@noble/hashes/sha3.js"
import { ml_kem768 } from "@noble/post-quantum/ml-kem.js"
import { concatBytes, utf8 } from "../bytes.js"
import { FormatError } from "../errors.js"
import { random as providerRandom, x25519, x25519PublicKey } from "#crypto-provider"
import type { Random } from "./provider.js"

export const xwingPublicKeyBytes: number = 1216
export const xwingCiphertextBytes: number = 1120
const mlKemPublicKeyBytes = 1184
const mlKemCiphertextBytes = 1088
const combinerLabel = utf8("\\.//^\\")

/** An expanded key pair: made once an identity, used for each envelope. */
export interface XwingKeys {
  readonly publicKey: Uint8Array
  /** Throws FormatError for a ciphertext of a wrong length or with a low-order X25519 part. */
  decapsulate(ciphertext: Uint8Array): Uint8Array
}

/** Expands the 32-byte seed that is the secret key. */
export function xwingExpand(seed: Uint8Array): XwingKeys {
  if (seed.length !== 32) throw new RangeError("an X-Wing seed is 32 bytes")
  const expanded = shake256(seed, { dkLen: 96 })
  const mlKem = ml_kem768.keygen(expanded.subarray(0, 64))
  const prepared = ml_kem768.prepare(mlKem.publicKey)
  const secret = expanded.subarray(64)
  const ownPublic = x25519PublicKey(secret)
  return {
    publicKey: concatBytes(mlKem.publicKey, ownPublic),
    decapsulate(ciphertext) {
      if (ciphertext.length !== xwingCiphertextBytes) {
        throw new FormatError("X-Wing ciphertext", "of a wrong length")
      }
      const theirs = ciphertext.subarray(mlKemCiphertextBytes)
      const mlKemShared = prepared.decapsulate(
        ciphertext.subarray(0, mlKemCiphertextBytes),
        mlKem.secretKey,
      )
      return combine(mlKemShared, x25519(secret, theirs), theirs, ownPublic)
    },
  }
}

export interface XwingEncapsulated {
  readonly ciphertext: Uint8Array
  readonly sharedSecret: Uint8Array
}

/** Draws 64 bytes named "xwing_eseed": ML-KEM's message, then the ephemeral X25519 secret. */
export function xwingEncapsulate(
  publicKey: Uint8Array,
  random: Random = providerRandom,
): XwingEncapsulated {
  if (publicKey.length !== xwingPublicKeyBytes) {
    throw new FormatError("X-Wing key", "of a wrong length")
  }
  const seed = random(64, "xwing_eseed")
  const mlKem = encapsulateMlKem(publicKey.subarray(0, mlKemPublicKeyBytes), seed.subarray(0, 32))
  const theirs = publicKey.subarray(mlKemPublicKeyBytes)
  const ephemeral = seed.subarray(32)
  const ephemeralPublic = x25519PublicKey(ephemeral)
  const shared = x25519(ephemeral, theirs)
  return {
    ciphertext: concatBytes(mlKem.cipherText, ephemeralPublic),
    sharedSecret: combine(mlKem.sharedSecret, shared, ephemeralPublic, theirs),
  }
}

/**
 * Coefficients below the modulus, which FIPS 203 §7.2 asks to be checked before use. 768 of them in
 * 12 bits each, then 32 bytes that may be anything.
 */
export function isGoodXwingKey(publicKey: Uint8Array): boolean {
  if (publicKey.length !== xwingPublicKeyBytes) return false
  for (let i = 0; i < mlKemPublicKeyBytes - 32; i += 3) {
    const [a = 0, b = 0, c = 0] = publicKey.subarray(i, i + 3)
    if ((a | ((b & 15) << 8)) >= 3329 || ((b >> 4) | (c << 4)) >= 3329) return false
  }
  return true
}

function encapsulateMlKem(publicKey: Uint8Array, message: Uint8Array) {
  try {
    return ml_kem768.encapsulate(publicKey, message)
  } catch (error) {
    throw new FormatError("X-Wing key", "not an ML-KEM-768 key", { cause: error })
  }
}

function combine(
  mlKemShared: Uint8Array,
  x25519Shared: Uint8Array,
  x25519Ciphertext: Uint8Array,
  x25519Public: Uint8Array,
): Uint8Array {
  return sha3_256(
    concatBytes(mlKemShared, x25519Shared, x25519Ciphertext, x25519Public, combinerLabel),
  )
}
