import * as fc from "fast-check"
import { describe, expect, test } from "vitest"
import {
  chainHead,
  concatBytes,
  ed25519PublicKey,
  ed25519Sign,
  emptyChainHead,
  encodeHead,
  encodeReceipt,
  encodeStamp,
  encodeTombstone,
  FormatError,
  headBytes,
  label,
  OpenError,
  openStampSource,
  parseHead,
  parseReceipt,
  parseStamp,
  parseTombstone,
  random,
  receiptBytes,
  stampBytes,
  stampEpoch,
  toHex,
  tombstoneBytes,
  type TombstoneReason,
  verifyHead,
  verifyReceipt,
  verifyStamp,
} from "../../protocol/index.js"

const signSeed = random(32)
const publicKey = ed25519PublicKey(signSeed)
const kFrank = random(32)
const kSrc = random(32)
const accepted = {
  headerHash: random(32),
  envelopeHash: random(32),
  acceptedMs: 1_767_225_600_010,
  expiresMs: 1_767_830_400_010,
}
const inboxId = random(20)
const source = { lane: 2, lineage: random(16), sourcePseudonym: random(16) }
const stamp = { ...accepted, kid: 3, inboxId, seq: 7, head: random(32) }
const head = {
  kid: 1,
  inboxId,
  asOfMs: 5,
  seq: 9,
  head: random(32),
  floorSeq: 4,
  restored: false,
}
const tombstone = { ...accepted, seq: 7, reason: "taken" as TombstoneReason }

const records: [string, number, Uint8Array, (bytes: Uint8Array) => unknown][] = [
  ["stamp", stampBytes, encodeStamp({ ...stamp, source, kFrank, kSrc }), parseStamp],
  [
    "receipt",
    receiptBytes,
    encodeReceipt({ ...accepted, kid: 1, inboxId, signSeed }),
    parseReceipt,
  ],
  ["head", headBytes, encodeHead({ ...head, signSeed }), parseHead],
  ["tombstone", tombstoneBytes, encodeTombstone(tombstone), parseTombstone],
]

describe.each(records)("the %s", (name, length, bytes, parse) => {
  test("has one length, and every other is refused", () => {
    expect(bytes).toHaveLength(length)
    expect(parse(bytes)).toBeDefined()
    for (let cut = 0; cut < length; cut++) {
      expect(() => parse(bytes.subarray(0, cut))).toThrow(FormatError)
    }
    expect(() => parse(new Uint8Array([...bytes, 0]))).toThrow(FormatError)
  })

  test("with any bit flipped is refused, or verifies no more", () => {
    const verify: Record<string, (changed: Uint8Array) => boolean> = {
      stamp: (changed) => verifyStamp(changed, kFrank),
      receipt: (changed) => verifyReceipt(changed, publicKey),
      head: (changed) => verifyHead(changed, publicKey),
      // A tombstone is checked by the chain: what it parses to must change with it.
      tombstone: (changed) => {
        try {
          return toHex(encodeTombstone(parseTombstone(changed))) !== toHex(changed)
        } catch (error) {
          expect(error).toBeInstanceOf(FormatError)
          return false
        }
      },
    }
    const holds = verify[name]
    for (let at = 0; at < length; at++) {
      const changed = bytes.slice()
      changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8))
      expect(holds?.(changed)).toBe(false)
    }
  })
})

test("parsing undoes encoding", () => {
  expect(parseStamp(records[0]?.[2] ?? new Uint8Array(0))).toEqual(stamp)
  expect(parseHead(encodeHead({ ...head, restored: true, signSeed }))).toEqual({
    ...head,
    restored: true,
  })
  for (const reason of ["taken", "revoked", "expired", "lost", "removed"] as const) {
    const bytes = encodeTombstone({ ...tombstone, reason })
    expect(parseTombstone(bytes)).toEqual({ ...tombstone, reason })
  }
  expect(encodeTombstone({ ...tombstone, reason: "removed" }).at(-1)).toBe(5)
})

test("another relay's key verifies nothing", () => {
  const [made, receipt, signedHead] = records.map(([, , bytes]) => bytes)
  const other = ed25519PublicKey(random(32))
  expect(verifyStamp(made ?? new Uint8Array(0), random(32))).toBe(false)
  expect(verifyReceipt(receipt ?? new Uint8Array(0), other)).toBe(false)
  expect(verifyHead(signedHead ?? new Uint8Array(0), other)).toBe(false)
})

test("a signature for one kind of record is none for another", () => {
  const open = encodeHead({ ...head, signSeed }).subarray(0, headBytes - 64)
  const sign = (name: "head" | "receipt") =>
    concatBytes(open, ed25519Sign(signSeed, concatBytes(label(name), open)))
  expect(verifyHead(sign("head"), publicKey)).toBe(true)
  expect(verifyHead(sign("receipt"), publicKey)).toBe(false)
})

describe("the stamp's source", () => {
  const bytes = encodeStamp({ ...stamp, source, kFrank, kSrc })

  test("opens with the key of its day, and looks random to everyone else", () => {
    expect(openStampSource(bytes, kSrc)).toEqual(source)
    expect(() => openStampSource(bytes, random(32))).toThrow(OpenError)
    expect(toHex(bytes)).not.toContain(toHex(source.lineage))
    const again = encodeStamp({ ...stamp, source, kFrank, kSrc })
    expect(toHex(again.subarray(148, 212))).not.toBe(toHex(bytes.subarray(148, 212)))
  })

  test("is bound to the stamp it is in", () => {
    const other = encodeStamp({ ...stamp, seq: 8, source, kFrank, kSrc })
    other.set(bytes.subarray(148, 212), 148)
    expect(() => openStampSource(other, kSrc)).toThrow(OpenError)
  })

  test("the day is the one of acceptance, in UTC", () => {
    expect(stampEpoch(0)).toBe(0)
    expect(stampEpoch(86_399_999)).toBe(0)
    expect(stampEpoch(86_400_000)).toBe(1)
  })
})

describe("the chain", () => {
  test("every field moves the head", () => {
    const link = { ...accepted, previous: emptyChainHead(), seq: 1 }
    const heads = [
      link,
      { ...link, previous: random(32) },
      { ...link, seq: 2 },
      { ...link, headerHash: random(32) },
      { ...link, envelopeHash: random(32) },
      { ...link, acceptedMs: 1 },
      { ...link, expiresMs: 1 },
    ].map((each) => toHex(chainHead(each)))
    expect(new Set(heads).size).toBe(heads.length)
  })

  test("folds over waiting and gone entries alike", () => {
    // A stamp and the tombstone that takes its place give the same next head.
    const previous = random(32)
    const fromStamp = chainHead({ ...parseStamp(records[0]?.[2] ?? new Uint8Array(0)), previous })
    const fromTombstone = chainHead({ ...parseTombstone(encodeTombstone(tombstone)), previous })
    expect(fromStamp).toEqual(fromTombstone)
  })
})

test("what a record cannot say is misuse", () => {
  expect(() => encodeReceipt({ ...accepted, kid: 256, inboxId, signSeed })).toThrow(RangeError)
  const shortInbox = { ...accepted, kid: 1, inboxId: random(19), signSeed }
  expect(() => encodeReceipt(shortInbox)).toThrow(RangeError)
  expect(() => encodeHead({ ...head, head: random(31), signSeed })).toThrow(RangeError)
  const wideLane = { ...stamp, source: { ...source, lane: 256 }, kFrank, kSrc }
  expect(() => encodeStamp(wideLane)).toThrow(RangeError)
  expect(() => encodeTombstone({ ...tombstone, headerHash: random(31) })).toThrow(RangeError)
  expect(() => encodeTombstone({ ...tombstone, seq: -1 })).toThrow(RangeError)
})

test("a head whose floor lies above it is refused", () => {
  const nonsense = encodeHead({ ...head, floorSeq: 10, signSeed })
  expect(() => parseHead(nonsense)).toThrow(FormatError)
})

test("random bytes are no record", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 0, maxLength: 300 }), (bytes) => {
      for (const [name, , , parse] of records) {
        if (name !== "tombstone") expect(() => parse(bytes)).toThrow(FormatError)
      }
    }),
  )
})
