// The file crypto of MEGA: AES-128-CTR, a CBC-MAC a chunk, and a 64-bit meta-MAC over those, on a grid
// of growing chunks. A file inside a body is a genuine MEGA file. Its MACs are a second check only:
// whoever knows the key can make two files with the same MACs, and the meta-MAC does not bind the
// length; the authority is the hash tree (tree.ts).
import { concatBytes, equalBytes } from "./bytes.js"
import { FormatError, OpenError } from "./errors.js"
import { KIB, maxBodyBytes, MIB } from "./limits.js"
import { aes128CbcMac, aes128Ctr } from "#crypto-provider"

// The grid: boundaries at 0, 128K, 384K, 768K, 1280K, 1920K, 2688K, 3584K, 4608K, then every 1024K.
// The first eight cells grow by 128K each, so cell i < 8 starts at the i-th triangular number.
const growingCells = 8
const unit = 128 * KIB
const growingBytes = gridOffset(growingCells)

/** Where cell `index` starts. */
export function gridOffset(index: number): number {
  if (index <= growingCells) return (unit * index * (index + 1)) / 2
  return growingBytes + (index - growingCells) * MIB
}

/** The cell that holds the byte at `offset`. */
export function gridIndex(offset: number): number {
  if (offset >= growingBytes) return growingCells + Math.floor((offset - growingBytes) / MIB)
  let index = 0
  while (gridOffset(index + 1) <= offset) index++
  return index
}

/** How many cells something of `size` bytes has; the last may be short, none is empty. */
export function gridCount(size: number): number {
  return size === 0 ? 0 : gridIndex(size - 1) + 1
}

/** The length of cell `index`, cut at `size` when that is given; 0 beyond it. */
export function gridLength(index: number, size: number = Infinity): number {
  return Math.max(0, Math.min(gridOffset(index + 1), size) - gridOffset(index))
}

// The key of a file: k 16 bytes, n 8, m 8; composed, (k XOR (n ‖ m)) ‖ n ‖ m.

export interface MegaKeyParts {
  readonly key: Uint8Array
  readonly nonce: Uint8Array
  readonly metaMac: Uint8Array
}

export function composeMegaKey({ key, nonce, metaMac }: MegaKeyParts): Uint8Array {
  checkLength("key", key, 16)
  checkLength("nonce", nonce, 8)
  checkLength("metaMac", metaMac, 8)
  const composed = concatBytes(key, nonce, metaMac)
  for (let i = 0; i < 16; i++) composed[i] = (composed[i] ?? 0) ^ (composed[16 + i] ?? 0)
  return composed
}

export function splitMegaKey(composedKey: Uint8Array): MegaKeyParts {
  if (composedKey.length !== 32) throw new FormatError("composed key", "not 32 bytes")
  const parts = composedKey.slice()
  for (let i = 0; i < 16; i++) parts[i] = (parts[i] ?? 0) ^ (parts[16 + i] ?? 0)
  return { key: parts.subarray(0, 16), nonce: parts.subarray(16, 24), metaMac: parts.subarray(24) }
}

// Encryption.

export interface CtrInput {
  readonly key: Uint8Array
  readonly nonce: Uint8Array
  /** Where in the file `data` starts. */
  readonly offset: number
  readonly data: Uint8Array
  /** Takes the result: as long as `data`, and may be `data`. */
  readonly out?: Uint8Array
}

/** Encrypts or decrypts, which is the same, from any byte of the file. */
export function applyCtr({ key, nonce, offset, data, out }: CtrInput): Uint8Array {
  checkLength("key", key, 16)
  checkLength("nonce", nonce, 8)
  const block = Math.floor(offset / 16)
  // The counter is 64 bits, so a block beyond 2^64 cannot be named, let alone reached.
  if (!Number.isSafeInteger(offset) || offset < 0) throw new RangeError("not an offset")
  const iv = new Uint8Array(16)
  iv.set(nonce)
  const view = new DataView(iv.buffer)
  view.setUint32(8, Math.floor(block / 2 ** 32))
  view.setUint32(12, block % 2 ** 32)
  const skip = offset % 16
  return aes128Ctr({ key, iv, skip, data, ...(out && { out }) })
}

export interface ChunkMacInput {
  readonly key: Uint8Array
  readonly nonce: Uint8Array
  /** One whole chunk of the file. */
  readonly plaintext: Uint8Array
}

/** CBC-MAC of one chunk from n ‖ n, zero-padded: 16 bytes. */
export function chunkMac({ key, nonce, plaintext }: ChunkMacInput): Uint8Array {
  checkLength("key", key, 16)
  checkLength("nonce", nonce, 8)
  return aes128CbcMac({ key, iv: concatBytes(nonce, nonce), data: plaintext })
}

/** The chunk MACs in order, as a list or as one buffer of 16 bytes each. */
export interface MetaMacInput {
  readonly key: Uint8Array
  readonly chunkMacs: Uint8Array | readonly Uint8Array[]
}

/**
 * Folds the chunk MACs: a ← AES(a XOR mac), from zero, which is their CBC-MAC; then the four 32-bit
 * words w of a give (w0 XOR w1) ‖ (w2 XOR w3). Eight zeros for no chunks, as MEGA's document implies;
 * its clients disagree about the empty file.
 */
export function metaMac({ key, chunkMacs }: MetaMacInput): Uint8Array {
  checkLength("key", key, 16)
  let folded: Uint8Array = new Uint8Array(16)
  if (chunkMacs instanceof Uint8Array) {
    if (chunkMacs.length % 16 !== 0) throw new RangeError("chunk MACs are 16 bytes each")
    folded = aes128CbcMac({ key, iv: folded, data: chunkMacs })
  } else {
    for (const mac of chunkMacs) checkLength("chunk MAC", mac, 16)
    folded = aes128CbcMac({ key, iv: folded, data: concatBytes(...chunkMacs) })
  }
  const half = new Uint8Array(8)
  for (let i = 0; i < 8; i++) {
    const at = i < 4 ? i : i + 4
    half[i] = (folded[at] ?? 0) ^ (folded[at + 4] ?? 0)
  }
  return half
}

// Whole files in memory.

export interface EncryptedMegaFile {
  readonly ciphertext: Uint8Array
  readonly chunkMacs: Uint8Array[]
  readonly metaMac: Uint8Array
  readonly composedKey: Uint8Array
}

/** `key` is 16 bytes, `nonce` 8, both random and used for this file alone. */
export function encryptMegaFile(
  plaintext: Uint8Array,
  { key, nonce }: Omit<MegaKeyParts, "metaMac">,
): EncryptedMegaFile {
  if (plaintext.length > maxBodyBytes) throw new RangeError("a file is 64 GiB at most")
  const ciphertext = applyCtr({ key, nonce, offset: 0, data: plaintext })
  const chunkMacs = macChunks(plaintext, { key, nonce })
  const mac = metaMac({ key, chunkMacs })
  const composedKey = composeMegaKey({ key, nonce, metaMac: mac })
  return { ciphertext, chunkMacs, metaMac: mac, composedKey }
}

/**
 * Throws OpenError when the meta-MAC does not match. That alone proves little (see above): use it for
 * files whose integrity is known otherwise, or for MEGA's own.
 */
export function decryptMegaFile(ciphertext: Uint8Array, composedKey: Uint8Array): Uint8Array {
  const { key, nonce, metaMac: expected } = splitMegaKey(composedKey)
  const plaintext = applyCtr({ key, nonce, offset: 0, data: ciphertext })
  const chunkMacs = macChunks(plaintext, { key, nonce })
  if (!equalBytes(metaMac({ key, chunkMacs }), expected)) throw new OpenError()
  return plaintext
}

function macChunks(
  plaintext: Uint8Array,
  { key, nonce }: Omit<MegaKeyParts, "metaMac">,
): Uint8Array[] {
  return Array.from({ length: gridCount(plaintext.length) }, (_, index) =>
    chunkMac({
      key,
      nonce,
      plaintext: plaintext.subarray(gridOffset(index), gridOffset(index + 1)),
    }),
  )
}

function checkLength(name: string, bytes: Uint8Array, length: number): void {
  if (bytes.length !== length) throw new RangeError(`${name} is ${length} bytes`)
}
