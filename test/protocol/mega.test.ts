import { readFileSync } from "node:fs"
import * as fc from "fast-check"
import { describe, expect, test } from "vitest"
import {
  applyCtr,
  chunkMac,
  composeMegaKey,
  decryptMegaFile,
  encryptMegaFile,
  FormatError,
  fromBase64url,
  fromHex,
  GIB,
  gridCount,
  gridIndex,
  gridLength,
  gridOffset,
  KIB,
  maxBodyBytes,
  maxPartBytes,
  maxParts,
  metaMac,
  MIB,
  OpenError,
  sha256,
  splitMegaKey,
  toBase64url,
  toHex,
} from "../../protocol/index.js"

interface MegaVectors {
  key: string
  nonce: string
  files: {
    size: number
    plaintextSha256: string
    ciphertextSha256: string
    chunks: number
    chunkMacs?: string[]
    chunkMacsSha256?: string
    metaMac: string
    compositeKey: string
  }[]
  ctr: { offset: number; initialCounterBlock: string }[]
}

// The cast: a file of this repository, whose form this interface describes.
const vectors = JSON.parse(
  readFileSync(new URL("../vectors/mega-vectors.json", import.meta.url), "utf8"),
) as MegaVectors

const key = fromHex(vectors.key)
const nonce = fromHex(vectors.nonce)

describe("MEGA's vectors", () => {
  test.each(vectors.files)("a file of $size bytes", (file) => {
    const plaintext = Uint8Array.from({ length: file.size }, (_, i) => i * 7 + (i >> 8))
    expect(toHex(sha256(plaintext))).toBe(file.plaintextSha256)
    const encrypted = encryptMegaFile(plaintext, { key, nonce })
    expect(toHex(sha256(encrypted.ciphertext))).toBe(file.ciphertextSha256)
    expect(encrypted.chunkMacs).toHaveLength(file.chunks)
    expect(gridCount(file.size)).toBe(file.chunks)
    // Long lists are given by the hash of their concatenation.
    if (file.chunkMacs) expect(encrypted.chunkMacs.map(toHex)).toEqual(file.chunkMacs)
    else expect(toHex(sha256(...encrypted.chunkMacs))).toBe(file.chunkMacsSha256)
    expect(toHex(encrypted.metaMac)).toBe(file.metaMac)
    expect(toBase64url(encrypted.composedKey)).toBe(file.compositeKey)
    const opened = decryptMegaFile(encrypted.ciphertext, fromBase64url(file.compositeKey))
    expect(toHex(sha256(opened))).toBe(file.plaintextSha256)
  })

  test.each(vectors.ctr)("the keystream at offset $offset", ({ offset, initialCounterBlock }) => {
    const keystream = applyCtr({ key, nonce, offset, data: new Uint8Array(16) })
    // The MAC of one block from a zero state is AES of the block, and AES of the counter block is
    // what the keystream has to be.
    const aes = chunkMac({ key, nonce: new Uint8Array(8), plaintext: fromHex(initialCounterBlock) })
    expect(toHex(keystream)).toBe(toHex(aes))
  })
})

// The second table was computed apart from the first, with another key, nonce and pattern.
describe("a second table of files", () => {
  const secondKey = fromHex("000102030405060708090a0b0c0d0e0f")
  const secondNonce = fromHex("1011121314151617")
  test.each([
    [1, "ca0ad35a0e5ee8b0", "075198bfe61765d3"],
    [16, "a5401193f3b73edf", "6c59f963ff523c13"],
    [131071, "09e6d20d2879b5b4", "b5b0ddd5e231228d"],
    [131072, "a29b4a35e8190f29", "4e01b9ed29379b8a"],
    [131073, "ce5f8f0c31c6b7b8", "b8e30b62f26e5590"],
    [393216, "7978d20f7ff61c1b", "b60b18de647a99fe"],
    [393217, "3a540244d3b6e425", "b2dbdda33203a393"],
    [1000000, "4a98c408caa197f0", "5c4e8e2970b3045b"],
    [4718593, "f90137ad45c00fe4", "6410eb5ef85f7f09"],
  ])("%i bytes", (size, mac, start) => {
    const plaintext = Uint8Array.from(
      { length: size },
      (_, i) => 7 * i + 13 * Math.floor(i / 256) + 29 * Math.floor(i / 65536),
    )
    const encrypted = encryptMegaFile(plaintext, { key: secondKey, nonce: secondNonce })
    expect(toHex(encrypted.metaMac)).toBe(mac)
    expect(toHex(sha256(encrypted.ciphertext).subarray(0, 8))).toBe(start)
  })
})

describe("the grid", () => {
  test("has the boundaries that MEGA's document lists", () => {
    const boundaries = [0, 128, 384, 768, 1280, 1920, 2688, 3584, 4608, 5632, 6656]
    expect(boundaries.map((_, index) => gridOffset(index))).toEqual(boundaries.map((n) => n * KIB))
  })

  test("every offset lies in the cell that the index names", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 36 }), (offset) => {
        const index = gridIndex(offset)
        expect(gridOffset(index)).toBeLessThanOrEqual(offset)
        expect(gridOffset(index + 1)).toBeGreaterThan(offset)
      }),
    )
  })

  test("the cells of any size add up to it, and none is empty", () => {
    const size = fc.oneof(
      fc.integer({ min: 0, max: 20 * MIB }),
      fc.constantFrom(384 * KIB, 6 * MIB),
    )
    fc.assert(
      fc.property(size, (bytes) => {
        const lengths = Array.from({ length: gridCount(bytes) }, (_, i) => gridLength(i, bytes))
        expect(lengths.reduce((sum, length) => sum + length, 0)).toBe(bytes)
        expect(lengths.every((length) => length > 0)).toBe(true)
        expect(gridLength(lengths.length, bytes)).toBe(0)
      }),
    )
  })

  test("its index undoes its offset, up to the largest body", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: maxParts }), (index) => {
        expect(gridIndex(gridOffset(index))).toBe(index)
      }),
    )
    expect(gridCount(maxBodyBytes)).toBe(maxParts)
    expect(gridCount(0)).toBe(0)
    expect(gridLength(maxParts)).toBe(maxPartBytes)
  })
})

describe("encryption", () => {
  test("may be done in pieces cut anywhere", () => {
    const data = Uint8Array.from({ length: 70_000 }, (_, i) => i ^ (i >> 7))
    const whole = applyCtr({ key, nonce, offset: 0, data })
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: data.length }), { maxLength: 6 }), (cuts) => {
        const out = new Uint8Array(data.length)
        const edges = [0, ...cuts.sort((a, b) => a - b), data.length]
        edges.slice(1).forEach((to, i) => {
          const from = edges[i] ?? 0
          const piece = data.subarray(from, to)
          applyCtr({ key, nonce, offset: from, data: piece, out: out.subarray(from, to) })
        })
        expect(Buffer.compare(out, whole)).toBe(0)
      }),
      { numRuns: 30 },
    )
  })

  test("works in place and undoes itself", () => {
    const data = Uint8Array.from({ length: 100_003 }, (_, i) => i)
    const copy = data.slice()
    expect(applyCtr({ key, nonce, offset: 5, data: copy, out: copy })).toBe(copy)
    expect(Buffer.compare(copy, data)).not.toBe(0)
    applyCtr({ key, nonce, offset: 5, data: copy, out: copy })
    expect(Buffer.compare(copy, data)).toBe(0)
  })

  test("carries the counter from its low word into its high one", () => {
    const offset = 64 * GIB - 16
    const both = applyCtr({ key, nonce, offset, data: new Uint8Array(32) })
    const high = applyCtr({ key, nonce, offset: 64 * GIB, data: new Uint8Array(16) })
    expect(both.subarray(16)).toEqual(high)
  })

  test("misuse is refused before any byte is touched", () => {
    const data = new Uint8Array(16)
    expect(() => applyCtr({ key: nonce, nonce, offset: 0, data })).toThrow(RangeError)
    expect(() => applyCtr({ key, nonce: key, offset: 0, data })).toThrow(RangeError)
    expect(() => applyCtr({ key, nonce, offset: -1, data })).toThrow(RangeError)
    expect(() => applyCtr({ key, nonce, offset: 0.5, data })).toThrow(RangeError)
    const out = new Uint8Array(15)
    expect(() => applyCtr({ key, nonce, offset: 0, data, out })).toThrow(RangeError)
  })
})

const bytesOf = (length: number) => fc.uint8Array({ minLength: length, maxLength: length })

describe("keys and MACs", () => {
  test("a composed key splits into what it was made of", () => {
    fc.assert(
      fc.property(bytesOf(16), bytesOf(8), bytesOf(8), (k, n, m) => {
        const composed = composeMegaKey({ key: k, nonce: n, metaMac: m })
        expect(splitMegaKey(composed)).toEqual({ key: k, nonce: n, metaMac: m })
      }),
    )
    expect(() => splitMegaKey(new Uint8Array(31))).toThrow(FormatError)
  })

  test("chunk MACs in one buffer and in a list give one meta-MAC", () => {
    fc.assert(
      fc.property(fc.array(bytesOf(16), { maxLength: 20 }), (chunkMacs) => {
        const joined = new Uint8Array(Buffer.concat(chunkMacs))
        expect(metaMac({ key, chunkMacs: joined })).toEqual(metaMac({ key, chunkMacs }))
      }),
    )
  })

  test("a chunk's MAC is over all of it, in blocks filled up with zeros", () => {
    const plaintext = Uint8Array.from({ length: 70_001 }, (_, i) => i)
    const mac = chunkMac({ key, nonce, plaintext })
    const padded = new Uint8Array(70_016)
    padded.set(plaintext)
    expect(chunkMac({ key, nonce, plaintext: padded })).toEqual(mac)
    for (const at of [0, 32_768, 70_000]) {
      const changed = plaintext.slice()
      changed[at] = (changed[at] ?? 0) ^ 1
      expect(chunkMac({ key, nonce, plaintext: changed })).not.toEqual(mac)
    }
  })

  test("a changed ciphertext or key does not open", () => {
    const plaintext = Uint8Array.from({ length: 1000 }, (_, i) => i)
    const { ciphertext, composedKey } = encryptMegaFile(plaintext, { key, nonce })
    for (const at of [0, 500, 999]) {
      const changed = ciphertext.slice()
      changed[at] = (changed[at] ?? 0) ^ 0x80
      expect(() => decryptMegaFile(changed, composedKey)).toThrow(OpenError)
    }
    for (let at = 0; at < 32; at++) {
      const changed = composedKey.slice()
      changed[at] = (changed[at] ?? 0) ^ 1
      expect(() => decryptMegaFile(ciphertext, changed)).toThrow(OpenError)
    }
  })
})
