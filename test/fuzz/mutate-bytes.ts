/** Hostile byte strings: a valid one with its layout, changed field by field and as bytes. */
import type { Draws } from "./random.js"

export type FieldKind = "magic" | "version" | "flags" | "reserved" | "number" | "opaque"

export interface Field {
  readonly at: number
  readonly length: number
  readonly kind: FieldKind
}

/** A valid encoding and where its fields are. */
export interface Sketch {
  readonly bytes: Uint8Array
  readonly fields: readonly Field[]
}

/** The layout front to back. Lengths must come to the whole: a layout that is off would mutate blindly. */
export function sketch(
  bytes: Uint8Array,
  layout: readonly (readonly [FieldKind, number])[],
): Sketch {
  let at = 0
  const fields = layout.map(([kind, length]): Field => {
    const field = { at, length, kind }
    at += length
    return field
  })
  if (at !== bytes.length) throw new RangeError(`a layout of ${at} for ${bytes.length} bytes`)
  return { bytes, fields: fields.filter((field) => field.length > 0) }
}

const smallEdges = [
  0, 1, 2, 3, 15, 16, 17, 127, 128, 255, 256, 383, 384, 385, 512, 1024, 1025, 16_383, 16_384,
  16_385, 65_535, 65_536, 131_071, 131_072, 131_073, 262_144, 262_145, 67_108_864, 67_108_880,
].map(BigInt)

const edgesOfNumbers: readonly bigint[] = [31, 32, 36, 48, 53, 63, 64]
  .map((exponent) => 2n ** BigInt(exponent))
  .flatMap((power) => [power - 2n, power - 1n, power, power + 1n])
  .concat(smallEdges)

export function edgeNumber(draws: Draws, near: bigint, width: number): bigint {
  const top = 2n ** BigInt(8 * width)
  const value = draws.chance(0.4)
    ? near + BigInt(draws.pick([-2, -1, 1, 2, 16, -16]))
    : draws.chance(0.85)
      ? draws.pick(edgesOfNumbers)
      : BigInt(draws.u32()) * BigInt(draws.u32())
  return ((value % top) + top) % top
}

export function readNumber(bytes: Uint8Array): bigint {
  let value = 0n
  for (const byte of bytes) value = value * 256n + BigInt(byte)
  return value
}

export function writeNumber(value: bigint, width: number): Uint8Array {
  const bytes = new Uint8Array(width)
  let left = value
  for (let i = width - 1; i >= 0; i--) {
    bytes[i] = Number(left & 255n)
    left >>= 8n
  }
  return bytes
}

function join(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts))
}

function replace(bytes: Uint8Array, at: number, length: number, by: Uint8Array): Uint8Array {
  return join(bytes.subarray(0, at), by, bytes.subarray(at + length))
}

function fillOf(draws: Draws, length: number): Uint8Array {
  return draws.chance(0.4)
    ? new Uint8Array(length).fill(draws.pick([0, 0, 0xff, 0x80, 0x2f]))
    : draws.bytes(length)
}

function mutateField(draws: Draws, bytes: Uint8Array, field: Field, others: readonly Sketch[]) {
  const { at, length, kind } = field
  const old = bytes.subarray(at, at + length)
  if (old.length < length) return flipBit(draws, bytes)
  const general = draws.below(20)
  if (general === 0) return replace(bytes, at, length, new Uint8Array(0))
  if (general === 1) return replace(bytes, at, 0, old)
  if (general === 2) return replace(bytes, at, length, fillOf(draws, length))
  const changed = old.slice()
  switch (kind) {
    case "number":
      changed.set(writeNumber(edgeNumber(draws, readNumber(old), length), length))
      break
    case "version":
      changed[0] = draws.pick([0, 2, 3, 127, 255])
      break
    case "flags": {
      const i = draws.below(length)
      changed[i] = (changed[i] ?? 0) ^ (1 << draws.below(8))
      break
    }
    case "reserved":
      changed[draws.below(length)] = draws.pick([1, 2, 128, 255])
      break
    case "magic":
      changed[draws.below(length)] = draws.pick([0, 0x4b, 0x6b, 0x20, draws.below(256)])
      break
    case "opaque": {
      const donor = draws.pick(others)
      const from = draws.below(Math.max(1, donor.bytes.length - length))
      const way = draws.below(3)
      if (way === 0) changed.set(donor.bytes.subarray(from, from + length))
      else if (way === 1) changed.fill(draws.pick([0, 0xff]))
      else changed[draws.below(length)] = draws.below(256)
    }
  }
  return replace(bytes, at, length, changed)
}

function flipBit(draws: Draws, bytes: Uint8Array): Uint8Array {
  if (bytes.length === 0) return bytes
  const changed = bytes.slice()
  const at = draws.below(bytes.length)
  changed[at] = (changed[at] ?? 0) ^ (1 << draws.below(8))
  return changed
}

/** A place to cut: the border of a field as a rule, where a parser moves on to something else. */
function cutOf(draws: Draws, { bytes, fields }: Sketch): number {
  const field = draws.chance(0.7) && fields.length > 0 ? draws.pick(fields) : undefined
  return field ? field.at + (draws.chance(0.5) ? field.length : 0) : draws.below(bytes.length + 1)
}

// Beyond this an input only costs time: the largest record here is a few KiB.
const mostGrownBytes = 32 * 1024

function mutateWhole(draws: Draws, bytes: Uint8Array, own: Sketch, others: readonly Sketch[]) {
  switch (draws.below(8)) {
    case 0:
      return bytes.subarray(0, Math.min(bytes.length, cutOf(draws, own)))
    case 1:
      return join(bytes, fillOf(draws, draws.pick([1, 2, 4, 8, 16, 32, 64])))
    case 2: {
      const other = draws.pick(others)
      return join(bytes.subarray(0, cutOf(draws, own)), other.bytes.subarray(cutOf(draws, other)))
    }
    case 3: {
      const [from = 0, to = 0] = [cutOf(draws, own), cutOf(draws, own)].sort((a, b) => a - b)
      return replace(bytes, from, to - from, new Uint8Array(0))
    }
    case 4: {
      const [from = 0, to = 0] = [cutOf(draws, own), cutOf(draws, own)].sort((a, b) => a - b)
      return replace(bytes, to, 0, bytes.subarray(from, to))
    }
    case 5: {
      if (own.fields.length === 0) return flipBit(draws, bytes)
      const one = draws.pick(own.fields)
      const two = draws.pick(own.fields.filter(({ length }) => length === one.length))
      const end = Math.max(one.at, two.at) + one.length
      if (one === two || end > bytes.length) return flipBit(draws, bytes)
      const changed = bytes.slice()
      changed.set(bytes.subarray(two.at, two.at + two.length), one.at)
      changed.set(bytes.subarray(one.at, one.at + one.length), two.at)
      return changed
    }
    case 6:
      if (!draws.chance(0.1)) return flipBit(draws, bytes)
      return join(
        ...Array.from(
          { length: Math.min(64, Math.floor(mostGrownBytes / Math.max(1, bytes.length))) },
          () => bytes,
        ),
      )
    default:
      return flipBit(draws, bytes)
  }
}

/** `others` are valid values of the same target, to splice with; `own` may be among them. */
export function mutateBytes(draws: Draws, own: Sketch, others: readonly Sketch[]): Uint8Array {
  let bytes = own.bytes
  const count = draws.chance(0.03) ? 0 : draws.chance(0.6) ? 1 : draws.between(2, 5)
  for (let i = 0; i < count; i++) {
    bytes =
      own.fields.length > 0 && draws.chance(0.6)
        ? mutateField(draws, bytes, draws.pick(own.fields), others)
        : mutateWhole(draws, bytes, own, others)
  }
  return bytes.slice()
}

/** For a target whose valid values are these. */
export function fromSketches(sketches: readonly Sketch[]): {
  readonly seeds: readonly Uint8Array[]
  readonly make: (draws: Draws) => Uint8Array
} {
  return {
    seeds: sketches.map(({ bytes }) => bytes),
    make: (draws) => mutateBytes(draws, draws.pick(sketches), sketches),
  }
}
