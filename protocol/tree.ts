// The hash tree over a body's parts, in the shape of RFC 6962: a tree over n leaves splits at the
// largest power of two below n. Leaves are BLAKE3 because they cover all bytes; nodes are SHA-256.
import { u64 } from "./bytes.js"
import { FormatError } from "./errors.js"
import { label } from "./labels.js"
import { blake3, sha256 } from "#crypto-provider"

const hashBytes = 32

/** Binds the part's place and length: a part cannot stand for another one or for a longer one. */
export function leafHash(input: { readonly index: number; readonly part: Uint8Array }): Uint8Array {
  return blake3(label("leaf"), u64(input.index), u64(input.part.length), input.part)
}

export function nodeHash(left: Uint8Array, right: Uint8Array): Uint8Array {
  return sha256(label("node"), left, right)
}

/** The leaves in order, as a list or as one buffer of 32 bytes each. */
export type Leaves = Uint8Array | readonly Uint8Array[]

/** One leaf is its own root; none has the root H(L(empty)). */
export function treeRoot(leaves: Leaves): Uint8Array {
  const leafCount = countLeaves(leaves)
  if (leafCount === 0) return sha256(label("empty"))
  if (leafCount === 1) return leafAt(leaves, 0).slice()
  // Level by level: pairing neighbours and carrying an odd last one up gives the same shape as the
  // recursion. The first level is hashed into a buffer half the size of the leaves, the others in
  // place, and each node from one scratch message, so nothing is allocated a node but its digest.
  const message = new Uint8Array(16 + 2 * hashBytes)
  message.set(label("node"))
  let count = Math.ceil(leafCount / 2)
  const level = new Uint8Array(count * hashBytes)
  for (let i = 0; i + 1 < leafCount; i += 2) {
    message.set(leafAt(leaves, i), 16)
    message.set(leafAt(leaves, i + 1), 16 + hashBytes)
    level.set(sha256(message), (i / 2) * hashBytes)
  }
  if (leafCount % 2 === 1) level.set(leafAt(leaves, leafCount - 1), (count - 1) * hashBytes)
  while (count > 1) {
    const pairs = Math.floor(count / 2)
    for (let i = 0; i < pairs; i++) {
      message.set(level.subarray(i * 2 * hashBytes, (i + 1) * 2 * hashBytes), 16)
      level.set(sha256(message), i * hashBytes)
    }
    if (count % 2 === 1) {
      level.copyWithin(pairs * hashBytes, (count - 1) * hashBytes, count * hashBytes)
    }
    count = pairs + (count % 2)
  }
  return level.slice(0, hashBytes)
}

/** What the header holds: the tree bound to the body's length and number of parts. */
export function bodyRoot(input: {
  readonly bodyLength: number
  readonly leaves: Leaves
}): Uint8Array {
  const count = countLeaves(input.leaves)
  return sha256(label("root"), u64(input.bodyLength), u64(count), treeRoot(input.leaves))
}

/** The siblings from leaf `index` up to the root. */
export function inclusionPath(leaves: Leaves, index: number): Uint8Array[] {
  const count = countLeaves(leaves)
  if (!Number.isInteger(index) || index < 0 || index >= count) throw new RangeError("no such leaf")
  const path: Uint8Array[] = []
  for (let from = 0, to = count; to - from > 1;) {
    const middle = from + splitOf(to - from)
    const inLeft = index < middle
    const [siblingFrom, siblingTo] = inLeft ? [middle, to] : [from, middle]
    path.push(treeRoot(slice(leaves, siblingFrom, siblingTo)))
    if (inLeft) to = middle
    else from = middle
  }
  return path.reverse()
}

/**
 * The root that `leaf` at `index` of `count` leads to. Which side each sibling stands on follows from
 * the two numbers. Throws FormatError when there is no such leaf or the path has another length.
 */
export function rootFromPath(input: {
  readonly leaf: Uint8Array
  readonly index: number
  readonly count: number
  readonly path: readonly Uint8Array[]
}): Uint8Array {
  const { leaf, index, count, path } = input
  if (index >= count) throw new FormatError("path", "an index that is not below the count")
  // From the root down: true where the leaf is in the left half.
  const sides: boolean[] = []
  for (let from = 0, to = count; to - from > 1;) {
    const middle = from + splitOf(to - from)
    sides.push(index < middle)
    if (index < middle) to = middle
    else from = middle
  }
  if (sides.length !== path.length) throw new FormatError("path", "of a wrong length")
  return path.reduce((below, sibling) => {
    return sides.pop() === true ? nodeHash(below, sibling) : nodeHash(sibling, below)
  }, leaf)
}

/** The largest power of two below `count`. */
function splitOf(count: number): number {
  let split = 1
  while (split * 2 < count) split *= 2
  return split
}

function countLeaves(leaves: Leaves): number {
  if (!(leaves instanceof Uint8Array)) return leaves.length
  if (leaves.length % hashBytes !== 0) throw new RangeError("leaves are 32 bytes each")
  return leaves.length / hashBytes
}

function slice(leaves: Leaves, from: number, to: number): Leaves {
  if (leaves instanceof Uint8Array) return leaves.subarray(from * hashBytes, to * hashBytes)
  return leaves.slice(from, to)
}

function leafAt(leaves: Leaves, index: number): Uint8Array {
  const leaf =
    leaves instanceof Uint8Array
      ? leaves.subarray(index * hashBytes, (index + 1) * hashBytes)
      : leaves[index]
  if (leaf?.length !== hashBytes) throw new RangeError("a leaf is 32 bytes")
  return leaf
}
