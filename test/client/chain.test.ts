import { describe, expect, test } from "vitest"
import { FloorMoved, ListingCheck, pairOf } from "../../client/chain.js"
import { Untrustworthy } from "../../client/index.js"
import {
  chainHead,
  ed25519PublicKey,
  emptyChainHead,
  encodeHead,
  encodeHeader,
  encodeStamp,
  encodeTombstone,
  envelopeHash,
  headerHash,
  type InboxEntry,
  type InboxPage,
  maxInboxDeliveries,
  parseStamp,
  toHex,
  u64,
} from "../../protocol/index.js"
import { found } from "./small-relay.js"

const filled = (length: number, value: number) => new Uint8Array(length).fill(value)

const signSeed = filled(32, 1)
const inboxId = filled(20, 2)
const owner = {
  origin: "https://relay.example",
  inboxId,
  signingKey: ed25519PublicKey(signSeed),
}
const header = encodeHeader({
  deliveryId: filled(16, 1),
  bodyLength: 16 * 1024,
  partCount: 1,
  manifestLength: 4096 + 16,
  bodyRoot: filled(32, 1),
  manifestHash: filled(32, 2),
  openRoot: filled(32, 3),
  keyCommit: filled(32, 4),
  notAfterMs: 0,
})
const envelope = filled(984, 5)
const source = { lane: 0, lineage: filled(16, 0), sourcePseudonym: filled(16, 0) }
const keys = { kFrank: filled(32, 6), kSrc: filled(32, 7) }
const record = {
  headerHash: headerHash(header),
  envelopeHash: envelopeHash(envelope),
  acceptedMs: 1,
  expiresMs: 2,
}

/** An honest relay's chain: what waits, and of every `goneEach`th what was taken. */
class Chain {
  #head = emptyChainHead()
  #seq = 0
  floor = { seq: 0, head: emptyChainHead() }

  next(goneEach = Infinity): InboxEntry {
    const seq = ++this.#seq
    this.#head = chainHead({ ...record, previous: this.#head, seq })
    if (seq % goneEach === 0) {
      return { kind: "gone", seq, tombstone: encodeTombstone({ ...record, seq, reason: "taken" }) }
    }
    const stamp = encodeStamp({
      ...record,
      kid: 1,
      inboxId,
      seq,
      head: this.#head,
      source,
      ...keys,
    })
    return { kind: "waiting", seq, id: toHex(u64(seq)).padStart(32, "0"), stamp, header, envelope }
  }

  page(entries: InboxEntry[]): InboxPage {
    const head = encodeHead({
      kid: 1,
      inboxId,
      asOfMs: 3,
      seq: this.#seq,
      head: this.#head,
      floorSeq: this.floor.seq,
      signSeed,
    })
    const used = { bytes: 0, deliveries: 0 }
    return { head, floor: this.floor, entries, more: true, used, newAfter: 0 }
  }

  pageOf(count: number, goneEach?: number): InboxPage {
    return this.page(Array.from({ length: count }, () => this.next(goneEach)))
  }
}

const nothing = { remembered: undefined, known: [] }

describe("a listing that is checked page by page", () => {
  test("grows while it is listed", () => {
    const chain = new Chain()
    const check = new ListingCheck(owner, nothing)
    for (let page = 0; page < 3; page++) check.add(chain.pageOf(4))
    const { waiting, head } = check.end()
    expect(waiting.map(({ seq }) => seq)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
    expect(head.seq).toBe(12)
  })

  test("keeps what became of deliveries that were known, and no other tombstone", () => {
    const [chain, again] = [new Chain(), new Chain()]
    const strangers = new ListingCheck(owner, nothing)
    strangers.add(chain.pageOf(6, 2))
    expect(strangers.end()).toMatchObject({ gone: [], waiting: { length: 3 } })
    const known = new ListingCheck(owner, {
      remembered: undefined,
      known: [{ pair: pairOf(record) }],
    })
    known.add(again.pageOf(6, 2))
    expect(known.end().gone.map(({ seq }) => seq)).toEqual([2, 4, 6])
  })

  test("is to be begun anew when the floor was raised between two pages", () => {
    const chain = new Chain()
    const entries = Array.from({ length: 4 }, () => chain.next())
    const check = new ListingCheck(owner, nothing)
    check.add(chain.page(entries.slice(0, 2)))
    const first = found(entries[0])
    if (first.kind !== "waiting") throw new Error("it waits")
    chain.floor = { seq: 1, head: parseStamp(first.stamp).head }
    expect(() => check.add(chain.page(entries.slice(2)))).toThrow(FloorMoved)
    const anew = new ListingCheck(owner, nothing)
    anew.add(chain.page(entries.slice(1)))
    expect(anew.end().waiting).toHaveLength(3)
  })

  test("T17 holds no more than an inbox does, and not all of their envelopes", () => {
    const chain = new Chain()
    const check = new ListingCheck(owner, nothing)
    for (let page = 0; page < maxInboxDeliveries / 1000; page++) check.add(chain.pageOf(1000))
    const { waiting } = check.end()
    expect(waiting).toHaveLength(maxInboxDeliveries)
    expect(waiting.filter((listed) => listed.envelope !== undefined)).toHaveLength(10_000)
    expect(() => check.add(chain.pageOf(1))).toThrow(Untrustworthy)
  }, 60_000)
})
