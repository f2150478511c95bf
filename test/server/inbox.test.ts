import { afterEach, beforeEach, describe, expect, it } from "vitest"
import {
  chainHead,
  envelopeHash,
  headerHash,
  type Identity,
  type InboxPage,
  parseHead,
  parseRelayInfo,
  parseStamp,
  parseTombstone,
  toHex,
  verifyHead,
} from "../../protocol/index.js"
import type { ManualClock } from "./manual-clock.js"
import {
  makeDelivery,
  openRelayWithInboxes,
  redisUrl,
  type RelayUnderTest,
} from "./relay-under-test.js"

/** The chain's head as a client computes it from a whole listing. */
function foldedHead({ floor, entries }: InboxPage): Uint8Array {
  let head = floor.head
  for (const entry of entries) {
    const place = entry.kind === "gone" ? parseTombstone(entry.tombstone) : parseStamp(entry.stamp)
    head = chainHead({ previous: head, ...place })
  }
  return head
}

describe("the inbox", () => {
  let under: RelayUnderTest
  let alice: Identity
  let bob: Identity
  let clock: ManualClock
  let session: string

  beforeEach(async () => {
    ;({ under, clock, alice, bob } = await openRelayWithInboxes())
    session = await under.client.login(alice)
  })

  afterEach(() => under.remove())

  it("begins empty, with a head of nothing", async () => {
    const page = await under.client.list(session)
    expect(page).toMatchObject({ entries: [], more: false, used: { bytes: 0, deliveries: 0 } })
    expect(parseHead(page.head)).toMatchObject({ seq: 0, floorSeq: 0, restored: false })
  })

  it("lists what waits in order, chained to a head that the relay signs", async () => {
    const { client } = under
    const deliveries = Array.from({ length: 5 }, () => makeDelivery([alice]))
    for (const delivery of deliveries) {
      await client.send(delivery)
      clock.advance(10)
    }
    const page = await client.list(session, "?envelopes=1")
    expect(page.entries.map(({ seq }) => seq)).toEqual([1, 2, 3, 4, 5])
    for (const [at, entry] of page.entries.entries()) {
      if (entry.kind !== "waiting") throw new Error("gone")
      const stamp = parseStamp(entry.stamp)
      const delivery = deliveries[at] ?? makeDelivery([alice])
      expect(toHex(stamp.headerHash)).toBe(toHex(headerHash(delivery.header)))
      expect(toHex(stamp.envelopeHash)).toBe(toHex(envelopeHash(entry.envelope ?? stamp.head)))
    }
    const { signingKey } = parseRelayInfo((await client.get("/v1/relay")).body)
    expect(verifyHead(page.head, signingKey)).toBe(true)
    const head = parseHead(page.head)
    expect(head).toMatchObject({ seq: 5, asOfMs: clock.wallMs() })
    expect(toHex(head.head)).toBe(toHex(foldedHead(page)))
    const used = deliveries.map(({ body, manifest }) => body.length + manifest.length)
    expect(page.used).toEqual({ bytes: used.reduce((sum, each) => sum + each), deliveries: 5 })
  })

  it("keeps the chain whole when entries go, and forgets the oldest only when all of them may", async () => {
    const { client } = under
    const ids: string[] = []
    for (let at = 0; at < 4; at++) ids.push((await client.send(makeDelivery([alice]))).id)
    for (const at of [0, 1, 3]) await client.delete(`/v1/deliveries/${ids[at]}`, session)
    const page = await client.list(session)
    expect(page.entries.map(({ kind }) => kind)).toEqual(["gone", "gone", "waiting", "gone"])
    const head = toHex(parseHead(page.head).head)
    expect(toHex(foldedHead(page))).toBe(head)
    // Past the time tombstones are kept, but for the sweep of the third, which was never taken.
    clock.advance(13 * 86_400_000)
    await under.relay.sweep()
    session = await client.login(alice)
    expect((await client.list(session)).floor.seq).toBe(0)
    clock.advance(31 * 86_400_000)
    await under.relay.sweep()
    await under.relay.sweep()
    session = await client.login(alice)
    const later = await client.list(session)
    expect(later.entries).toEqual([])
    expect(later.floor.seq).toBe(4)
    expect(toHex(later.floor.head)).toBe(head)
    expect(parseHead(later.head)).toMatchObject({ seq: 4, floorSeq: 4 })
    under = await under.restart()
    const after = await under.client.list(session)
    expect(after.floor).toEqual(later.floor)
    await under.client.send(makeDelivery([alice]))
    expect((await under.client.list(session)).entries).toMatchObject([{ seq: 5 }])
  })

  it("gives pages, from where it is asked to", async () => {
    const { client } = under
    for (let at = 0; at < 5; at++) await client.send(makeDelivery([alice]))
    const first = await client.list(session, "?limit=2")
    expect([first.entries.map(({ seq }) => seq), first.more]).toEqual([[1, 2], true])
    const second = await client.list(session, "?after=2&limit=2")
    expect([second.entries.map(({ seq }) => seq), second.more]).toEqual([[3, 4], true])
    const third = await client.list(session, "?after=4&limit=2")
    expect([third.entries.map(({ seq }) => seq), third.more]).toEqual([[5], false])
    expect((await client.list(session, "?limit=5000")).entries).toHaveLength(5)
    expect(first.newAfter).toBe(0)
    expect((await client.list(session)).newAfter).toBe(5)
  })

  it("refuses queries with unknown, repeated or malformed parameters", async () => {
    for (const query of [
      "after=-1",
      "after=01",
      "after=1&after=2",
      "limit=0",
      "limit=x",
      "envelopes=2",
      "wait=1.5",
      "other=1",
      "after=9007199254740992",
    ]) {
      const reply = await under.client.get(`/v1/inbox?${query}`, session)
      expect([query, reply.status, reply.body.code]).toEqual([query, 400, "bad_request"])
    }
  })

  it("answers a waiting client as soon as something arrives", async () => {
    const { client } = under
    const waiting = client.list(session, "?wait=30")
    await client.send(makeDelivery([bob]))
    await client.send(makeDelivery([alice]))
    expect((await waiting).entries).toHaveLength(1)
    expect((await client.list(session, "?wait=30")).entries).toHaveLength(1)
  })

  it("answers with nothing when the time is over, and leaves no alarm set", async () => {
    const before = clock.waiting
    const waiting = under.client.list(session, "?wait=30&after=0")
    while (clock.waiting === before) await new Promise((resolve) => setImmediate(resolve))
    clock.advance(29_999)
    const slow = Promise.race([waiting, Promise.resolve("still waiting")])
    expect(await slow).toBe("still waiting")
    clock.advance(1)
    expect((await waiting).entries).toEqual([])
    expect(clock.waiting).toBe(before)
  })

  // Of the listener that drains; the small client's own does not, and a Redis is left at once.
  it.skipIf(redisUrl !== undefined)("ends the waiting when the relay stops", async () => {
    const before = clock.waiting
    const waiting = under.client.list(session, "?wait=30")
    while (clock.waiting === before) await new Promise((resolve) => setImmediate(resolve))
    const stopped = under.restart()
    expect((await waiting).entries).toEqual([])
    under = await stopped
  })

  it("lets many wait at once, without a word on stderr about it", async () => {
    const warned: string[] = []
    const onWarning = ({ message }: Error) => warned.push(message)
    process.on("warning", onWarning)
    try {
      const before = clock.waiting
      const asked = Array.from({ length: 12 }, () => under.client.list(session, "?wait=30"))
      while (clock.waiting < before + 12) await new Promise((resolve) => setImmediate(resolve))
      await under.client.send(makeDelivery([alice]))
      for (const page of await Promise.all(asked)) expect(page.entries).toHaveLength(1)
    } finally {
      process.off("warning", onWarning)
    }
    expect(warned).toEqual([])
  })

  it("shows what is new since anybody listed, and only the owner's own", async () => {
    const { client } = under
    await client.send(makeDelivery([bob]))
    const page = await client.list(session)
    expect(page.entries).toEqual([])
    expect((await client.get("/v1/inbox")).status).toBe(401)
  })
})
