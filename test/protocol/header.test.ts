import { describe, expect, test } from "vitest"
import {
  checkKeyCommit,
  deriveDeliveryKeys,
  encodeHeader,
  FormatError,
  GIB,
  gridCount,
  type Header,
  headerBytes,
  headerHash,
  maxManifestBytes,
  OpenError,
  parseHeader,
  random,
  toHex,
} from "../../protocol/index.js"

const bodyLength = 5_767_168
const header: Header = {
  deliveryId: random(16),
  bodyLength,
  partCount: gridCount(bodyLength),
  manifestLength: 4112,
  bodyRoot: random(32),
  manifestHash: random(32),
  openRoot: random(32),
  keyCommit: random(32),
  notAfterMs: 1_767_225_600_000,
}
const bytes = encodeHeader(header)

test("parsing undoes encoding", () => {
  expect(bytes).toHaveLength(headerBytes)
  expect(parseHeader(bytes)).toEqual(header)
  const largest = { ...header, bodyLength: 64 * GIB, partCount: gridCount(64 * GIB) }
  expect(parseHeader(encodeHeader(largest))).toEqual(largest)
  const empty = { ...header, bodyLength: 0, partCount: 0, notAfterMs: 0, manifestLength: 0 }
  expect(parseHeader(encodeHeader(empty))).toEqual(empty)
})

test("T04 a header with any bit flipped is refused or has another hash, which no envelope fits", () => {
  const hash = toHex(headerHash(bytes))
  let refused = 0
  for (let bit = 0; bit < 8 * headerBytes; bit++) {
    const flipped = bytes.slice()
    flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
    expect(toHex(headerHash(flipped))).not.toBe(hash)
    try {
      // What still parses is another header, and encodes to other bytes than the first.
      expect(toHex(encodeHeader(parseHeader(flipped)))).toBe(toHex(flipped))
    } catch (error) {
      expect(error).toBeInstanceOf(FormatError)
      refused++
    }
  }
  // All of magic, version, profile, flags, part count and the reserved end, at the least.
  expect(refused).toBeGreaterThan(8 * (8 + 4 + 8))
})

test("T04 a header of any other length is refused", () => {
  for (let length = 0; length < headerBytes; length++) {
    expect(() => parseHeader(bytes.subarray(0, length))).toThrow(FormatError)
  }
  expect(() => parseHeader(new Uint8Array([...bytes, 0]))).toThrow(FormatError)
})

function changed(at: number, ...values: number[]): Uint8Array {
  const copy = bytes.slice()
  copy.set(values, at)
  return copy
}

describe("a header is refused for", () => {
  const tooLong = maxManifestBytes + 1
  test.each([
    ["another magic", changed(3, 0x49), "magic"],
    ["another version", changed(4, 2), "version"],
    ["another profile", changed(5, 2), "profile"],
    ["a flag", changed(7, 1), "flags"],
    ["a body above 64 GiB", changed(24, 0, 0, 0, 16, 0, 0, 0, 1), "body length"],
    ["a length above 2^53", changed(24, 1), "body length"],
    ["a part count that is not the grid's", changed(35, header.partCount + 1), "part count"],
    ["a manifest above 64 MiB", changed(36, tooLong >> 24, 0, 0, tooLong & 255), "manifest length"],
    ["a time above 2^53", changed(168, 1), "not after"],
    ["a reserved byte", changed(183, 1), "reserved"],
  ])("%s", (_, bad, field) => {
    expect(() => parseHeader(bad)).toThrow(expect.objectContaining({ field: `header.${field}` }))
  })
})

test("a header that would not parse is not encoded", () => {
  for (const wrong of [
    { partCount: header.partCount + 1 },
    { bodyLength: 64 * GIB + 1, partCount: gridCount(64 * GIB + 1) },
    { manifestLength: maxManifestBytes + 1 },
    { deliveryId: random(15) },
    { openRoot: random(31) },
    { notAfterMs: 2 ** 53 },
    { notAfterMs: 0.5 },
  ]) {
    expect(() => encodeHeader({ ...header, ...wrong })).toThrow(RangeError)
  }
})

test("the commitment in a header admits one secret", () => {
  const ds = random(32)
  const keys = deriveDeliveryKeys({ ds, deliveryId: header.deliveryId })
  const committed = { ...header, keyCommit: keys.commit }
  expect(checkKeyCommit({ ds, header: committed })).toEqual(keys)
  expect(() => checkKeyCommit({ ds: random(32), header: committed })).toThrow(OpenError)
  const moved = { ...committed, deliveryId: random(16) }
  expect(() => checkKeyCommit({ ds, header: moved })).toThrow(OpenError)
})

test("the four keys of a delivery differ, and so do those of another id", () => {
  const ds = random(32)
  const keys = deriveDeliveryKeys({ ds, deliveryId: header.deliveryId })
  const others = deriveDeliveryKeys({ ds, deliveryId: random(16) })
  const texts = [keys, others].flatMap((k) => Object.values(k).map((key: Uint8Array) => toHex(key)))
  expect(new Set(texts.map((text) => text.slice(0, 48))).size).toBe(8)
})
