// What every adapter of the index port must do, under concurrent callers too. A factory hands in the
// adapter, so that one on a server of its own runs through the same tests.
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { chainHead, emptyChainHead, gridLength, sha256, utf8 } from "../../protocol/index.js"
import { type DeliveryId, deliveryIdOf, type InboxId, inboxIdOf } from "../../server/ids.js"
import type {
  GoneEntry,
  OpenUpload,
  RelayIndex,
  WaitingEntryWithEnvelope,
} from "../../server/stores/relay-index.js"

export interface IndexUnderTest {
  readonly index: RelayIndex
  close(): Promise<void>
}

const startMs = 1_700_000_000_000
const minuteMs = 60_000

function bytesOf(name: string, length: number = 32): Uint8Array {
  return sha256(utf8(name)).slice(0, length)
}

function delivery(name: string): DeliveryId {
  return deliveryIdOf(bytesOf(`delivery ${name}`, 16))
}

function inboxNamed(name: string): InboxId {
  return inboxIdOf(bytesOf(`inbox ${name}`, 20))
}

function upload(name: string, change: Partial<OpenUpload> = {}): OpenUpload {
  return {
    id: delivery(name),
    tokenHash: bytesOf(`token ${name}`),
    startHash: bytesOf(`start ${name}`),
    deleteHash: bytesOf(`delete ${name}`),
    recipients: [inboxNamed("alice")],
    createdMs: startMs,
    reservedBytes: 1000,
    expiresMs: startMs + minuteMs,
    ...change,
  }
}

function goneEntry(
  name: string,
  place: { readonly seq: number; readonly head: Uint8Array },
): GoneEntry {
  const { sizeBytes: _s, stamp: _t, header: _h, envelope: _e, ...rest } = waitingEntry(name, place)
  return { ...rest, kind: "gone", reason: "taken" }
}

function waitingEntry(
  name: string,
  { seq, head }: { readonly seq: number; readonly head: Uint8Array },
): WaitingEntryWithEnvelope {
  const place = {
    id: delivery(name),
    headerHash: bytesOf(`header hash ${name}`),
    envelopeHash: bytesOf(`envelope hash ${name}`),
    acceptedMs: startMs,
    expiresMs: startMs + 10 * minuteMs,
  }
  return {
    kind: "waiting",
    ...place,
    seq,
    head: chainHead({ previous: head, seq, ...place }),
    sizeBytes: 100,
    stamp: bytesOf(`stamp ${name}`),
    header: bytesOf(`header ${name}`),
    envelope: bytesOf(`envelope ${name}`),
  }
}

/** Appends one entry the way the relay does: again from where the chain is, whenever it has moved. */
async function append(index: RelayIndex, inbox: InboxId, name: string): Promise<number> {
  for (;;) {
    const chain = await index.chain(inbox)
    if (chain === undefined) throw new Error("no such inbox")
    const entry = waitingEntry(name, { seq: chain.seq + 1, head: chain.head })
    const outcome = await index.assign({ inbox, afterSeq: chain.seq, entries: [entry] })
    if (outcome === "assigned") return entry.seq
  }
}

async function appendVisible(index: RelayIndex, inbox: InboxId, name: string): Promise<number> {
  const seq = await append(index, inbox, name)
  await index.reveal({ inbox, seq })
  return seq
}

export function describeIndex(
  name: string,
  openIndex: (now: () => number) => Promise<IndexUnderTest>,
): void {
  describe(`the index contract, ${name}`, () => {
    let now = startMs
    let index: RelayIndex
    let close: () => Promise<void>
    const alice = inboxNamed("alice")

    beforeEach(async () => {
      now = startMs
      const opened = await openIndex(() => now)
      index = opened.index
      close = () => opened.close()
    })

    afterEach(() => close())

    const list = (afterSeq: number = 0, limit: number = 100, envelopes: boolean = false) =>
      index.listing({ inbox: alice, afterSeq, limit, envelopes })

    const session = (name: string, change: object = {}) => ({
      tokenHash: bytesOf(`session ${name}`),
      inbox: alice,
      createdMs: now,
      lastUsedMs: now,
      absoluteMs: now + 60 * minuteMs,
      idleMs: 15 * minuteMs,
      ...change,
    })
    const use = (name: string) =>
      index.useSession({ tokenHash: bytesOf(`session ${name}`), idleMs: 15 * minuteMs })

    describe("uploads", () => {
      it("stores an upload once and gives every concurrent caller the same one", async () => {
        const answers = await Promise.all(
          Array.from({ length: 20 }, (_, at) =>
            index.startUpload(upload("one", { reservedBytes: at })),
          ),
        )
        const reserved = answers.map((answer) => answer.state === "open" && answer.reservedBytes)
        expect(new Set(reserved).size).toBe(1)
        expect(await index.upload(delivery("one"))).toMatchObject({ state: "open" })
        expect(await index.upload(delivery("other"))).toBeUndefined()
      })

      it("lets reservation and end grow and never shrink", async () => {
        const { id } = upload("one")
        await index.startUpload(upload("one"))
        await Promise.all(
          [500, 2000, 1500].map((reservedBytes) =>
            index.extendUpload({ id, reservedBytes, expiresMs: startMs + reservedBytes }),
          ),
        )
        expect(await index.upload(id)).toMatchObject({
          reservedBytes: 2000,
          expiresMs: startMs + minuteMs,
        })
      })

      it("lets exactly one of concurrent different parts win its place", async () => {
        const { id } = upload("one")
        await index.startUpload(upload("one"))
        const outcomes = await Promise.all(
          Array.from({ length: 50 }, (_, at) =>
            index.setPart({ id, index: 0, leaf: bytesOf(`leaf ${at}`), lengthBytes: 10 }),
          ),
        )
        expect(outcomes.filter((outcome) => outcome === "stored")).toHaveLength(1)
        expect(outcomes.filter((outcome) => outcome === "differs")).toHaveLength(49)
        expect(await index.parts(id)).toHaveLength(1)
      })

      it("takes the same part any number of times and counts it once", async () => {
        const { id } = upload("one")
        await index.startUpload(upload("one"))
        const part = { id, index: 3, leaf: bytesOf("leaf"), lengthBytes: gridLength(3) }
        const outcomes = await Promise.all(Array.from({ length: 50 }, () => index.setPart(part)))
        expect(outcomes.filter((outcome) => outcome === "stored")).toHaveLength(1)
        expect(outcomes.filter((outcome) => outcome === "same")).toHaveLength(49)
        expect(await index.parts(id)).toHaveLength(1)
        expect(await index.part({ id, index: 3 })).toMatchObject({ lengthBytes: gridLength(3) })
      })

      it("takes a short part only as the last one", async () => {
        const { id } = upload("one")
        await index.startUpload(upload("one"))
        const set = (at: number, lengthBytes: number) =>
          index.setPart({ id, index: at, leaf: bytesOf(`leaf ${at}`), lengthBytes })
        expect(await set(0, gridLength(0))).toBe("stored")
        expect(await set(2, 100)).toBe("stored")
        expect(await set(3, gridLength(3))).toBe("misplaced")
        expect(await set(1, 100)).toBe("misplaced")
        expect(await set(1, gridLength(1) + 1)).toBe("misplaced")
        expect(await set(1, 0)).toBe("misplaced")
        expect(await set(1, gridLength(1))).toBe("stored")
      })

      it("gives parts in order and forgets only the one with that leaf", async () => {
        const { id } = upload("one")
        await index.startUpload(upload("one"))
        for (const at of [10, 2, 1]) {
          const leaf = bytesOf(`leaf ${at}`)
          await index.setPart({ id, index: at, leaf, lengthBytes: gridLength(at) })
        }
        await index.removePart({ id, index: 2, leaf: bytesOf("leaf other") })
        expect((await index.parts(id)).map((part) => part.index)).toEqual([1, 2, 10])
        await index.removePart({ id, index: 10, leaf: bytesOf("leaf 10") })
        expect((await index.parts(id)).map((part) => part.index)).toEqual([1, 2])
        expect(await index.setPart({ id, index: 3, leaf: bytesOf("leaf 3"), lengthBytes: 5 })).toBe(
          "stored",
        )
      })

      it("takes no part for an upload that is closed or not there", async () => {
        const { id } = upload("one")
        const part = { id, index: 0, leaf: bytesOf("leaf"), lengthBytes: 5 }
        expect(await index.setPart(part)).toBe("unknown")
        await index.startUpload(upload("one"))
        await index.setPart(part)
        await index.closeUpload({ id, dueMs: startMs + 5 })
        expect(await index.setPart(part)).toBe("closed")
        expect(await index.parts(id)).toEqual([])
        await index.forgetUpload(id)
        expect(await index.upload(id)).toBeUndefined()
      })

      it("closes many at once as it closes one", async () => {
        await index.startUpload(upload("one"))
        const closes = ["one", "two"].map((name) => ({ id: delivery(name), dueMs: startMs + 5 }))
        for (const _ of [1, 2]) await index.closeUploads(closes)
        for (const { id, dueMs } of closes) {
          expect(await index.upload(id)).toEqual({ state: "closed", dueMs })
        }
        expect((await index.tally()).openUploads).toBe(0)
        await index.closeUploads([])
      })

      it("names what is due, and the latest time counts", async () => {
        await index.startUpload(upload("first"))
        await index.startUpload(upload("second"))
        await index.closeUpload({ id: delivery("third"), dueMs: startMs + 1 })
        expect(await index.due(10)).toEqual([])
        await index.extendUpload({
          id: delivery("second"),
          reservedBytes: 0,
          expiresMs: startMs + 3 * minuteMs,
        })
        now += 2 * minuteMs
        expect(await index.due(10)).toEqual([delivery("third"), delivery("first")])
        await index.closeUpload({ id: delivery("third"), dueMs: now + 1 })
        expect(await index.due(10)).toEqual([delivery("first")])
        await index.forgetUpload(delivery("first"))
        expect(await index.due(10)).toEqual([])
      })

      it("gives a claim to one owner until it is given back or has ended", async () => {
        const claim = (owner: string) =>
          index.claim({ what: "upload", name: delivery("one"), owner, untilMs: now + 1000 })
        const answers = await Promise.all(["a", "b", "c"].map(claim))
        expect(answers.filter(Boolean)).toHaveLength(1)
        const winner = ["a", "b", "c"].find((_, at) => answers[at] === true) ?? ""
        expect(await claim(winner)).toBe(true)
        await index.unclaim({ what: "upload", name: delivery("one"), owner: "someone else" })
        expect(await claim("d")).toBe(false)
        await index.unclaim({ what: "upload", name: delivery("one"), owner: winner })
        expect(await claim("d")).toBe(true)
        now += 1001
        expect(await claim("e")).toBe(true)
      })

      it("prolongs a lease and never shortens it", async () => {
        const id = delivery("one")
        expect(await index.leasedUntil(id)).toBeUndefined()
        await index.lease({ id, untilMs: startMs + 100 })
        await index.lease({ id, untilMs: startMs + 50 })
        expect(await index.leasedUntil(id)).toBe(startMs + 100)
        now += 100
        expect(await index.leasedUntil(id)).toBeUndefined()
      })
    })

    describe("the budget", () => {
      it("never gives concurrent callers more room than there is", async () => {
        const granted = await Promise.all(
          Array.from({ length: 20 }, (_, at) =>
            index.reserveRoom({
              id: delivery(String(at)),
              bytes: 10,
              roomBytes: 55,
              untilMs: startMs + minuteMs,
            }),
          ),
        )
        expect(granted.filter(Boolean)).toHaveLength(5)
      })

      it("counts a repeated reservation once, and gives back what ended or was released", async () => {
        const reserve = (name: string, bytes: number) =>
          index.reserveRoom({
            id: delivery(name),
            bytes,
            roomBytes: 100,
            untilMs: startMs + minuteMs,
          })
        expect(await reserve("one", 60)).toBe(true)
        expect(await reserve("one", 60)).toBe(true)
        expect(await reserve("two", 60)).toBe(false)
        expect(await reserve("one", 30)).toBe(true)
        expect(await reserve("two", 60)).toBe(true)
        await index.releaseRoom(delivery("two"))
        expect(await reserve("three", 70)).toBe(true)
        now += minuteMs
        expect(await reserve("four", 100)).toBe(true)
      })

      it("never shares out more of an inbox than its quota", async () => {
        await index.openInbox(alice, bytesOf("bundle"))
        const share = (name: string, bytes: number) =>
          index.reserveShare({
            inbox: alice,
            id: delivery(name),
            bytes,
            quota: { bytes: 100, deliveries: 3 },
            untilMs: startMs + minuteMs,
          })
        const outcomes = await Promise.all(
          Array.from({ length: 10 }, (_, at) => share(String(at), 10)),
        )
        expect(outcomes.filter((outcome) => outcome === "reserved")).toHaveLength(3)
        expect(await share("0", 80)).toBe("reserved")
        expect(await share("0", 81)).toBe("full")
        await index.releaseShare({ inbox: alice, id: delivery("0") })
        await index.releaseShare({ inbox: alice, id: delivery("0") })
        expect(await share("big", 80)).toBe("reserved")
        now += minuteMs
        expect(await share("later", 100)).toBe("reserved")
        expect(
          await index.reserveShare({
            inbox: inboxNamed("nobody"),
            id: delivery("0"),
            bytes: 1,
            quota: { bytes: 100, deliveries: 3 },
            untilMs: startMs + minuteMs,
          }),
        ).toBe("unknown")
      })

      it("turns a share into use when its delivery is assigned", async () => {
        await index.openInbox(alice, bytesOf("bundle"))
        const quota = { bytes: 250, deliveries: 5 }
        const share = (name: string, bytes: number) =>
          index.reserveShare({
            inbox: alice,
            id: delivery(name),
            bytes,
            quota,
            untilMs: startMs + 100 * minuteMs,
          })
        await share("one", 200)
        expect(await share("two", 100)).toBe("full")
        await appendVisible(index, alice, "one")
        expect(await share("two", 100)).toBe("reserved")
        const listing = await index.listing({
          inbox: alice,
          afterSeq: 0,
          limit: 10,
          envelopes: false,
        })
        expect(listing?.used).toEqual({ bytes: 100, deliveries: 1 })
      })
    })

    describe("inboxes", () => {
      it("opens an inbox once", async () => {
        const opened = await Promise.all(
          Array.from({ length: 10 }, () => index.openInbox(alice, bytesOf("bundle"))),
        )
        expect(opened.filter(Boolean)).toHaveLength(1)
        expect(Buffer.from((await index.bundle(alice)) ?? [])).toEqual(
          Buffer.from(bytesOf("bundle")),
        )
        expect(await index.bundle(inboxNamed("nobody"))).toBeUndefined()
        expect(await index.chain(inboxNamed("nobody"))).toBeUndefined()
        expect(await index.inboxes()).toEqual([alice])
      })

      it("numbers concurrent deliveries without gaps and chains each to the one before", async () => {
        await index.openInbox(alice, bytesOf("bundle"))
        const names = Array.from({ length: 30 }, (_, at) => String(at))
        const seqs = await Promise.all(names.map((each) => append(index, alice, each)))
        expect([...seqs].sort((a, b) => a - b)).toEqual(names.map((_, at) => at + 1))
        await index.reveal({ inbox: alice, seq: 30 })
        const listing = await list()
        let head = emptyChainHead()
        for (const entry of listing?.entries ?? []) {
          head = chainHead({ previous: head, ...entry })
          expect(Buffer.from(entry.head)).toEqual(Buffer.from(head))
        }
        expect(Buffer.from(listing?.chain.visibleHead ?? [])).toEqual(Buffer.from(head))
      })

      it("assigns the same entries once, however often it is told to", async () => {
        await index.openInbox(alice, bytesOf("bundle"))
        const entries = [waitingEntry("one", { seq: 1, head: emptyChainHead() })]
        const outcomes = await Promise.all(
          Array.from({ length: 5 }, () => index.assign({ inbox: alice, afterSeq: 0, entries })),
        )
        expect(outcomes).toEqual(Array.from({ length: 5 }, () => "assigned"))
        expect(await index.chain(alice)).toMatchObject({ seq: 1, visibleSeq: 0 })
        const other = [waitingEntry("two", { seq: 1, head: emptyChainHead() })]
        expect(await index.assign({ inbox: alice, afterSeq: 0, entries: other })).toBe("moved")
        expect(await index.assign({ inbox: inboxNamed("nobody"), afterSeq: 0, entries })).toBe(
          "unknown",
        )
      })

      it("lists nothing that was not revealed", async () => {
        await index.openInbox(alice, bytesOf("bundle"))
        await append(index, alice, "one")
        await append(index, alice, "two")
        expect((await list())?.entries).toEqual([])
        expect(await index.waiting(alice)).toEqual([])
        expect(await index.unrevealed(alice)).toHaveLength(2)
        await index.reveal({ inbox: alice, seq: 1 })
        expect((await list())?.entries.map(({ id }) => id)).toEqual([delivery("one")])
        expect((await list())?.chain).toMatchObject({ seq: 2, visibleSeq: 1 })
        expect((await index.unrevealed(alice)).map(({ id }) => id)).toEqual([delivery("two")])
        await index.reveal({ inbox: alice, seq: 2 })
        await index.reveal({ inbox: alice, seq: 1 })
        expect((await list())?.chain).toMatchObject({ visibleSeq: 2 })
        expect(await index.waiting(alice)).toEqual([delivery("one"), delivery("two")])
      })

      it("lists from where it is asked to, a page at a time, with envelopes when wanted", async () => {
        await index.openInbox(alice, bytesOf("bundle"))
        for (const each of ["one", "two", "three"]) await appendVisible(index, alice, each)
        const first = await list(0, 2)
        expect(first?.entries.map(({ seq }) => seq)).toEqual([1, 2])
        expect(first?.more).toBe(true)
        expect(first?.entries[0]).not.toHaveProperty("envelope")
        const rest = await list(2, 2, true)
        expect(rest?.entries.map(({ seq }) => seq)).toEqual([3])
        expect(rest?.more).toBe(false)
        expect(rest?.entries[0]).toHaveProperty("envelope")
        expect((await list(3))?.entries).toEqual([])
      })

      it("says how far earlier listings went", async () => {
        await index.openInbox(alice, bytesOf("bundle"))
        await appendVisible(index, alice, "one")
        expect((await list())?.listedSeq).toBe(0)
        expect((await list())?.listedSeq).toBe(1)
        await appendVisible(index, alice, "two")
        expect((await list(1))?.listedSeq).toBe(1)
        expect((await list(1))?.listedSeq).toBe(2)
      })

      it("shows an expired entry as gone without any sweep", async () => {
        await index.openInbox(alice, bytesOf("bundle"))
        await appendVisible(index, alice, "one")
        now += 10 * minuteMs
        expect((await list())?.entries).toMatchObject([{ kind: "gone", reason: "expired" }])
      })

      it("finds an entry by its id and by its content", async () => {
        await index.openInbox(alice, bytesOf("bundle"))
        await appendVisible(index, alice, "one")
        const { headerHash, envelopeHash } = waitingEntry("one", { seq: 1, head: emptyChainHead() })
        expect(await index.entryById({ inbox: alice, id: delivery("one") })).toMatchObject({
          seq: 1,
          kind: "waiting",
        })
        expect(
          await index.entryByContent({ inbox: alice, headerHash, envelopeHash }),
        ).toMatchObject({ seq: 1 })
        expect(await index.entryById({ inbox: alice, id: delivery("two") })).toBeUndefined()
        expect(
          await index.entryByContent({ inbox: alice, headerHash, envelopeHash: headerHash }),
        ).toBeUndefined()
      })

      it("buries an entry once, keeps the first reason, and gives its share back once", async () => {
        await index.openInbox(alice, bytesOf("bundle"))
        await appendVisible(index, alice, "one")
        await appendVisible(index, alice, "two")
        await Promise.all(
          Array.from({ length: 5 }, () =>
            index.bury({ inbox: alice, seqs: [{ seq: 1, reason: "taken" }] }),
          ),
        )
        await index.bury({ inbox: alice, seqs: [{ seq: 1, reason: "revoked" }] })
        const listing = await list()
        expect(listing?.entries).toMatchObject([
          { kind: "gone", reason: "taken", seq: 1 },
          { kind: "waiting", seq: 2 },
        ])
        expect(listing?.used).toEqual({ bytes: 100, deliveries: 1 })
      })

      it("forgets what is below the floor", async () => {
        await index.openInbox(alice, bytesOf("bundle"))
        await appendVisible(index, alice, "one")
        await appendVisible(index, alice, "two")
        await index.bury({ inbox: alice, seqs: [{ seq: 1, reason: "taken" }] })
        const head = (await index.entryById({ inbox: alice, id: delivery("one") }))?.head
        if (head === undefined) throw new Error("no entry")
        await index.raiseFloor({ inbox: alice, seq: 1, head })
        await index.raiseFloor({ inbox: alice, seq: 1, head })
        const listing = await list()
        expect(listing?.chain).toMatchObject({ floorSeq: 1 })
        expect(listing?.entries.map(({ seq }) => seq)).toEqual([2])
        expect(await index.entryById({ inbox: alice, id: delivery("one") })).toBeUndefined()
      })

      it("forgets an inbox with all that is in it, and keeps the others", async () => {
        for (const inbox of [alice, inboxNamed("bob")]) {
          await index.openInbox(inbox, bytesOf("bundle"))
          await appendVisible(index, inbox, "one")
          await index.beginAccepting({ inbox, id: delivery("two"), acceptedMs: startMs })
          const quota = { bytes: 1000, deliveries: 10 }
          const id = delivery("two")
          await index.reserveShare({ inbox, id, bytes: 1, quota, untilMs: startMs + minuteMs })
        }
        await index.removeInbox(alice)
        await index.removeInbox(alice)
        expect(await index.inboxes()).toEqual([inboxNamed("bob")])
        expect(await index.chain(alice)).toBeUndefined()
        expect(await list()).toBeUndefined()
        // Opened anew it begins with nothing of what was.
        await index.openInbox(alice, bytesOf("bundle"))
        expect((await list())?.entries).toEqual([])
        expect(await index.accepting(alice)).toEqual([])
        expect(await index.entryById({ inbox: alice, id: delivery("one") })).toBeUndefined()
        const bobs = { inbox: inboxNamed("bob"), id: delivery("one") }
        expect(await index.entryById(bobs)).toMatchObject({ kind: "waiting", seq: 1 })
      })

      it("says since when something is being accepted, until it is visible", async () => {
        await index.openInbox(alice, bytesOf("bundle"))
        await index.beginAccepting({ inbox: alice, id: delivery("one"), acceptedMs: startMs + 7 })
        await index.beginAccepting({ inbox: alice, id: delivery("two"), acceptedMs: startMs + 5 })
        expect((await list())?.acceptingMs).toBe(startMs + 5)
        await index.endAccepting({ inbox: alice, id: delivery("two") })
        expect((await list())?.acceptingMs).toBe(startMs + 7)
        expect(await index.accepting(alice)).toEqual([
          { id: delivery("one"), acceptedMs: startMs + 7 },
        ])
        await appendVisible(index, alice, "one")
        expect((await list())?.acceptingMs).toBeUndefined()
      })

      it("wakes who watches an inbox when something becomes visible there", async () => {
        await index.openInbox(alice, bytesOf("bundle"))
        let woken = 0
        const woke = new Promise<void>((resolve) => {
          const stop = index.watch(alice, () => {
            woken += 1
            stop()
            resolve()
          })
        })
        const seq = await append(index, alice, "one")
        expect(woken).toBe(0)
        await index.reveal({ inbox: alice, seq })
        await woke
        await appendVisible(index, alice, "two")
        expect(woken).toBe(1)
      })

      it("takes an inbox back as the blob store has it", async () => {
        await index.openInbox(alice, bytesOf("bundle"))
        await appendVisible(index, alice, "lost")
        const one = goneEntry("one", { seq: 5, head: bytesOf("floor") })
        const two = waitingEntry("two", { seq: 6, head: one.head })
        await index.restoreInbox({
          inbox: alice,
          bundle: bytesOf("bundle"),
          floorSeq: 4,
          floorHead: bytesOf("floor"),
          entries: [one, two],
        })
        const listing = await list(0, 10, true)
        expect(listing?.chain).toMatchObject({ seq: 6, visibleSeq: 6, floorSeq: 4 })
        expect(listing?.entries).toMatchObject([
          { seq: 5, kind: "gone" },
          { seq: 6, kind: "waiting" },
        ])
        expect(listing?.used).toEqual({ bytes: 100, deliveries: 1 })
        expect(await index.entryById({ inbox: alice, id: delivery("lost") })).toBeUndefined()
      })

      it("takes an inbox back page by page, each page once and in its order", async () => {
        const floorHead = emptyChainHead()
        const one = waitingEntry("one", { seq: 1, head: floorHead })
        const two = goneEntry("two", { seq: 2, head: one.head })
        const three = waitingEntry("three", { seq: 3, head: two.head })
        const begin = { inbox: alice, bundle: bytesOf("bundle"), floorSeq: 0, floorHead }
        await index.restoreInbox({ ...begin, entries: [one] })
        await index.restoreEntries({ inbox: alice, afterSeq: 2, entries: [three] })
        expect((await list())?.chain).toMatchObject({ seq: 1, visibleSeq: 1 })
        for (const _ of [1, 2]) {
          await index.restoreEntries({
            inbox: alice,
            afterSeq: 1,
            entries: [two, three],
          })
        }
        const listing = await list(0, 10, true)
        expect(listing?.chain).toMatchObject({ seq: 3, visibleSeq: 3 })
        expect(Buffer.from(three.head).equals(listing?.chain.visibleHead ?? bytesOf(""))).toBe(true)
        expect(listing?.entries).toMatchObject([
          { seq: 1, kind: "waiting" },
          { seq: 2, kind: "gone", reason: "taken" },
          { seq: 3, kind: "waiting" },
        ])
        expect(listing?.used).toEqual({ bytes: 200, deliveries: 2 })
        expect((await index.tally()).waiting).toEqual(listing?.used)
        expect(await append(index, alice, "four")).toBe(4)
      })

      it("gives up shares and acceptances of what it takes back, and keeps the others", async () => {
        await index.openInbox(alice, bytesOf("bundle"))
        const quota = { bytes: 30, deliveries: 9 }
        const untilMs = startMs + minuteMs
        const reserve = (name: string) =>
          index.reserveShare({ inbox: alice, id: delivery(name), bytes: 10, quota, untilMs })
        for (const name of ["one", "two", "three"]) {
          expect(await reserve(name)).toBe("reserved")
          await index.beginAccepting({ inbox: alice, id: delivery(name), acceptedMs: startMs })
        }
        const floorHead = emptyChainHead()
        const one = goneEntry("one", { seq: 1, head: floorHead })
        const begin = { inbox: alice, bundle: bytesOf("bundle"), floorSeq: 0, floorHead }
        await index.restoreInbox({ ...begin, entries: [one] })
        await index.restoreEntries({
          inbox: alice,
          afterSeq: 1,
          entries: [goneEntry("two", { seq: 2, head: one.head })],
        })
        expect(await index.accepting(alice)).toEqual([
          { id: delivery("three"), acceptedMs: startMs },
        ])
        // Of thirty bytes only the third one's ten are held.
        for (const name of ["four", "five"]) expect(await reserve(name)).toBe("reserved")
        expect(await reserve("six")).toBe("full")
      })
    })

    describe("sessions and secrets", () => {
      it("knows a session until it was idle too long", async () => {
        await index.addSession(session("one"))
        expect(await use("two")).toBeUndefined()
        now += 14 * minuteMs
        expect(await use("one")).toMatchObject({ inbox: alice })
        now += 14 * minuteMs
        expect(await use("one")).toMatchObject({ inbox: alice })
        now += 15 * minuteMs
        expect(await use("one")).toBeUndefined()
        expect(await index.sessions(alice)).toEqual([])
      })

      it("ends a session at its absolute end however much it is used", async () => {
        await index.addSession(session("one"))
        for (let minutes = 10; minutes < 60; minutes += 10) {
          now += 10 * minuteMs
          expect(await use("one")).toBeDefined()
        }
        now += 10 * minuteMs
        expect(await use("one")).toBeUndefined()
      })

      it("ends a session for its own inbox only", async () => {
        await index.addSession(session("one"))
        const id = deliveryIdOf(bytesOf("session one").subarray(0, 16))
        await index.endSession({ inbox: inboxNamed("bob"), id })
        expect(await index.sessions(alice)).toHaveLength(1)
        await index.endSession({ inbox: alice, id })
        expect(await use("one")).toBeUndefined()
        expect(await index.sessions(alice)).toEqual([])
      })

      it("lets exactly one of concurrent callers spend a value, until it has ended", async () => {
        const spend = () => index.spend({ value: bytesOf("T"), untilMs: startMs + minuteMs })
        const answers = await Promise.all(Array.from({ length: 20 }, spend))
        expect(answers.filter(Boolean)).toHaveLength(1)
        now += minuteMs
        expect(await spend()).toBe(true)
      })

      it("gives all concurrent callers one secret of a name", async () => {
        const secrets = await Promise.all(
          Array.from({ length: 10 }, (_, at) =>
            index.sharedSecret({
              name: "minute 1",
              candidate: bytesOf(`candidate ${at}`),
              untilMs: startMs + minuteMs,
            }),
          ),
        )
        expect(new Set(secrets.map((secret) => Buffer.from(secret).toString("hex"))).size).toBe(1)
      })

      it("frees what has ended and nothing else", async () => {
        await index.openInbox(alice, bytesOf("bundle"))
        await index.addSession(session("old"))
        await index.lease({ id: delivery("one"), untilMs: startMs + 1 })
        await index.spend({ value: bytesOf("T"), untilMs: startMs + 1 })
        now += 20 * minuteMs
        await index.addSession(session("young"))
        await index.reclaim()
        expect(await use("young")).toBeDefined()
        expect(await index.sessions(alice)).toHaveLength(1)
      })
    })

    it("keeps a tally of what is there", async () => {
      expect(await index.tally()).toEqual({
        inboxes: 0,
        waiting: { bytes: 0, deliveries: 0 },
        openUploads: 0,
      })
      for (const _ of [1, 2]) await index.openInbox(alice, bytesOf("bundle"))
      for (const name of ["one", "one", "two", "three"]) await index.startUpload(upload(name))
      for (const _ of [1, 2]) await index.closeUpload({ id: delivery("one"), dueMs: now })
      await index.forgetUpload(delivery("two"))
      await Promise.all(["one", "four", "five"].map((name) => appendVisible(index, alice, name)))
      const first = await index.entryById({ inbox: alice, id: delivery("one") })
      const seqs = [{ seq: first?.seq ?? 0, reason: "taken" as const }]
      for (const _ of [1, 2]) await index.bury({ inbox: alice, seqs })
      const expected = {
        inboxes: 1,
        waiting: { bytes: 200, deliveries: 2 },
        openUploads: 1,
      }
      expect(await index.tally()).toEqual(expected)
      const { floorSeq, floorHead } = { floorSeq: 0, floorHead: emptyChainHead() }
      const entry = waitingEntry("six", { seq: 1, head: floorHead })
      const restored = { inbox: alice, bundle: bytesOf("bundle"), floorSeq, floorHead }
      for (const _ of [1, 2]) await index.restoreInbox({ ...restored, entries: [entry] })
      expect(await index.tally()).toEqual({ ...expected, waiting: { bytes: 100, deliveries: 1 } })
      for (const _ of [1, 2]) await index.removeInbox(alice)
      const none = { inboxes: 0, waiting: { bytes: 0, deliveries: 0 } }
      expect(await index.tally()).toEqual({ ...none, openUploads: 1 })
      await index.clear()
      expect(await index.tally()).toEqual({ ...none, openUploads: 0 })
    })

    it("remembers its marker until it is emptied, and forgets everything then", async () => {
      expect(await index.marker()).toBeUndefined()
      await index.setMarker("mine")
      await index.openInbox(alice, bytesOf("bundle"))
      await index.startUpload(upload("one"))
      expect(await index.marker()).toBe("mine")
      await index.clear()
      expect(await index.marker()).toBeUndefined()
      expect(await index.inboxes()).toEqual([])
      expect(await index.upload(delivery("one"))).toBeUndefined()
    })
  })
}
