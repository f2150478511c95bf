// How much is added so that lengths say little, and what the added bytes of a body are.
import { minBodyBytes, minManifestPlainBytes } from "./limits.js"
import { applyCtr } from "./mega.js"

/**
 * Padmé (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with
 * PURBs", 2019): keeps only as many leading bits of a length as its exponent's exponent needs. Adds
 * less than 12 %. In arithmetic, not shifts: lengths reach 2^36.
 */
export function padme(length: number): number {
  if (!Number.isSafeInteger(length) || length < 0) throw new RangeError("not a length")
  if (length < 2) return length
  const exponent = bitLength(length) - 1
  const kept = bitLength(exponent)
  const step = 2 ** (exponent - kept)
  return Math.ceil(length / step) * step
}

/** ⌊log2 n⌋ + 1, exactly: Math.log2 rounds up just below powers of two. */
function bitLength(n: number): number {
  return n.toString(2).length
}

export function paddedBodyLength(contentLength: number): number {
  return Math.max(minBodyBytes, padme(contentLength))
}

/** For the plaintext of a manifest of which `used` bytes mean something. */
export function paddedManifestLength(used: number): number {
  return Math.max(minManifestPlainBytes, padme(used))
}

/**
 * Padding of a body from `offset` bytes after its content's end. `key` is K("pad", 24): AES key and
 * nonce, of which the keystream is the padding, so that it looks like file bytes and needs no store.
 */
export function paddingBytes(input: {
  readonly key: Uint8Array
  readonly offset: number
  readonly length: number
}): Uint8Array {
  const zeros = new Uint8Array(input.length)
  return applyCtr({
    key: input.key.subarray(0, 16),
    nonce: input.key.subarray(16),
    offset: input.offset,
    data: zeros,
    out: zeros,
  })
}
