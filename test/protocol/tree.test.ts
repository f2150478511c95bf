import { readFileSync } from "node:fs"
import * as fc from "fast-check"
import { expect, test } from "vitest"
import {
  blake3,
  bodyRoot,
  concatBytes,
  FormatError,
  fromHex,
  inclusionPath,
  label,
  leafHash,
  nodeHash,
  rootFromPath,
  sha256,
  toHex,
  treeRoot,
  u64,
  utf8,
} from "../../protocol/index.js"

/** RFC 6962 §2.1, as it is written. */
function naiveRoot(leaves: readonly Uint8Array[]): Uint8Array {
  const [first] = leaves
  if (first === undefined) return sha256(utf8("kh/v1/empty"), new Uint8Array(5))
  if (leaves.length === 1) return first
  let split = 1
  while (split * 2 < leaves.length) split *= 2
  return nodeHash(naiveRoot(leaves.slice(0, split)), naiveRoot(leaves.slice(split)))
}

const hashes = (count: number) => Array.from({ length: count }, (_, i) => sha256(u64(i)))

test("the root has RFC 6962's shape for every count, from a list and from one buffer", () => {
  for (let count = 0; count <= 70; count++) {
    const leaves = hashes(count)
    const expected = toHex(naiveRoot(leaves))
    expect(toHex(treeRoot(leaves))).toBe(expected)
    expect(toHex(treeRoot(concatBytes(...leaves)))).toBe(expected)
  }
})

test("leaves handed over are not changed", () => {
  const joined = concatBytes(...hashes(9))
  const before = joined.slice()
  treeRoot(joined)
  treeRoot(joined.subarray(0, 32)).fill(0)
  expect(joined).toEqual(before)
})

test("a leaf binds its place and its length", () => {
  const part = utf8("part")
  const leaf = leafHash({ index: 3, part })
  expect(leaf).toEqual(blake3(label("leaf"), u64(3), u64(4), part))
  expect(leafHash({ index: 4, part })).not.toEqual(leaf)
  expect(leafHash({ index: 3, part: concatBytes(part, new Uint8Array(1)) })).not.toEqual(leaf)
})

test("the path of each leaf leads to the root, and from no other place", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 40 }), fc.nat(), fc.nat(), (count, a, b) => {
      const leaves = hashes(count)
      const index = a % count
      const root = toHex(treeRoot(leaves))
      const path = inclusionPath(concatBytes(...leaves), index)
      expect(inclusionPath(leaves, index)).toEqual(path)
      const leaf = leaves[index] ?? new Uint8Array()
      expect(toHex(rootFromPath({ leaf, index, count, path }))).toBe(root)
      const other = b % count
      if (other === index) return
      try {
        expect(toHex(rootFromPath({ leaf, index: other, count, path }))).not.toBe(root)
      } catch (error) {
        expect(error).toBeInstanceOf(FormatError)
      }
    }),
  )
})

test("a path of another length, or to a leaf that is not there, is refused", () => {
  const leaves = hashes(5)
  const leaf = leaves[2] ?? new Uint8Array()
  const path = inclusionPath(leaves, 2)
  const from = (index: number, count: number, siblings: Uint8Array[]) => () =>
    rootFromPath({ leaf, index, count, path: siblings })
  expect(from(2, 5, path.slice(1))).toThrow(FormatError)
  expect(from(2, 5, [...path, leaf])).toThrow(FormatError)
  expect(from(5, 5, path)).toThrow(FormatError)
  expect(from(0, 0, [])).toThrow(FormatError)
  expect(() => inclusionPath(leaves, 5)).toThrow(RangeError)
})

test("leaves of a wrong length are misuse", () => {
  expect(() => treeRoot(new Uint8Array(33))).toThrow(RangeError)
  expect(() => treeRoot([new Uint8Array(32), new Uint8Array(31)])).toThrow(RangeError)
})

test("roots of the format's vectors", () => {
  // The cast: a file of this repository, of which this is the form.
  const { deliveries } = JSON.parse(
    readFileSync(new URL("../vectors/format-vectors.json", import.meta.url), "utf8"),
  ) as {
    deliveries: { leaves: string[]; leaf_tree: string; body_len: number; body_root: string }[]
  }
  expect(deliveries.length).toBeGreaterThan(0)
  for (const delivery of deliveries) {
    const leaves = delivery.leaves.map((leaf) => fromHex(leaf))
    expect(toHex(treeRoot(leaves))).toBe(delivery.leaf_tree)
    expect(toHex(bodyRoot({ bodyLength: delivery.body_len, leaves }))).toBe(delivery.body_root)
  }
})
