import { copyFileSync, cpSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import {
  chainHead,
  encodeBearer,
  encodeExtend,
  envelopeHash,
  headerHash,
  type Identity,
  parseHead,
  parseStamp,
  parseUploadState,
  toHex,
} from "../../protocol/index.js"
import { createRelay } from "../../server/index.js"
import { openTables } from "../../server/stores/embedded-tables.js"
import { type EmbeddedIndex, openEmbeddedIndex } from "../../server/stores/embedded-index.js"
import type { InboxListing, Tally, UploadEntry } from "../../server/stores/relay-index.js"
import { fillFolder } from "../shown/filled-folder.js"
import { FaultyDisk } from "./faulty-disk.js"
import { ManualClock } from "./manual-clock.js"
import { personAt } from "./people.js"
import { configFor, openRelay, type RelayUnderTest } from "./relay-under-test.js"
import { makeDelivery, partOf } from "./test-delivery.js"

const dayMs = 86_400_000

function loseIndex(under: RelayUnderTest): void {
  rmSync(join(under.folder, "index"), { recursive: true })
}

describe("the rebuild of a lost index", () => {
  let under: RelayUnderTest | undefined

  afterEach(async () => {
    await under?.remove()
    under = undefined
  })

  it("ends when the relay is told to stop, without an alarm, and is begun anew by the next start", async () => {
    under = await openRelay()
    const [alice, bob] = [await personAt(0), await personAt(1)]
    for (const person of [alice, bob]) {
      await under.client.register(person)
      await under.client.send(makeDelivery([person]))
    }
    await under.relay.stop()
    loseIndex(under)
    const log: string[] = []
    const disk = new FaultyDisk()
    let stopped: Promise<void> | undefined
    const relay = await createRelay(configFor(under.folder), {
      disk,
      writeLog: (line) => log.push(JSON.parse(line).event),
    })
    disk.before = () => {
      stopped ??= relay.stop()
    }
    await expect(relay.ready).rejects.toThrow(/aborted/)
    await stopped
    expect(log).not.toContain("recovery_failed")
    expect(log).not.toContain("index_rebuilt")
    under = await openRelay({ folder: under.folder })
    expect(under.log.map(({ event }) => event)).toContain("index_rebuilt")
    for (const person of [alice, bob]) {
      const { entries } = await under.client.list(await under.client.login(person))
      expect(entries).toMatchObject([{ kind: "waiting", seq: 1 }])
    }
  })
})

/** What an index says of the one inbox it has, and of the upload that one of its deliveries was. */
async function whatIsIn(index: EmbeddedIndex): Promise<{
  readonly listing: InboxListing | undefined
  readonly tally: Tally
  readonly upload: UploadEntry | undefined
}> {
  const [inbox] = await index.inboxes()
  if (inbox === undefined) throw new Error("no inbox")
  const query = { inbox, afterSeq: 0, limit: 1000, envelopes: true }
  // From the second time on nothing is new.
  await index.listing(query)
  const listing = await index.listing(query)
  const [id] = await index.waiting(inbox)
  if (id === undefined) throw new Error("nothing waits")
  return { listing, tally: await index.tally(), upload: await index.upload(id) }
}

describe("an inbox of more deliveries than are put into the index at once", () => {
  it("is rebuilt as it was, to the byte", async () => {
    const folder = mkdtempSync(join(tmpdir(), "knothole-pages-"))
    let index: EmbeddedIndex | undefined
    const openIndex: typeof openEmbeddedIndex = (options) => (index = openEmbeddedIndex(options))
    try {
      await fillFolder({ folder, deliveries: 600, perInbox: 600 })
      const filled = openEmbeddedIndex({ path: join(folder, "index"), now: Date.now })
      const before = await whatIsIn(filled)
      await filled.close()
      const relay = await createRelay(configFor(folder), { openIndex, writeLog: () => undefined })
      try {
        await relay.ready
        if (index === undefined) throw new Error("no index")
        const after = await whatIsIn(index)
        expect(after.listing).toEqual(before.listing)
        expect(after.tally).toEqual(before.tally)
        expect(after.tally.waiting.deliveries).toBe(600)
        expect(after.upload).toMatchObject({ state: "closed" })
      } finally {
        await relay.stop()
      }
    } finally {
      rmSync(folder, { recursive: true })
    }
  }, 60_000)
})

describe("an inbox that cannot be read to its end", () => {
  it("is not there after a rebuild, rather than there as if it ended early, and the operator is told", async () => {
    const folder = mkdtempSync(join(tmpdir(), "knothole-short-"))
    const log: string[] = []
    let index: EmbeddedIndex | undefined
    const openIndex: typeof openEmbeddedIndex = (options) => (index = openEmbeddedIndex(options))
    try {
      await fillFolder({ folder, deliveries: 300, perInbox: 300 })
      const filled = openEmbeddedIndex({ path: join(folder, "index"), now: Date.now })
      const [inbox] = await filled.inboxes()
      if (inbox === undefined) throw new Error("no inbox")
      const last = (await filled.waiting(inbox)).at(-1)
      await filled.close()
      rmSync(join(folder, "store", String(last), "links.v1"))
      const relay = await createRelay(configFor(folder), {
        openIndex,
        writeLog: (line) => log.push(line),
      })
      try {
        await relay.ready
        expect(await index?.chain(inbox)).toBeUndefined()
        expect(log.join("")).toContain("inbox_not_restored")
      } finally {
        await relay.stop()
      }
    } finally {
      rmSync(folder, { recursive: true })
    }
  }, 60_000)
})

describe("an index that lost its last writes", () => {
  let under: RelayUnderTest
  let clock: ManualClock
  let alice: Identity
  let copy: string

  beforeEach(async () => {
    copy = join(mkdtempSync(join(tmpdir(), "knothole-copy-")), "data.mdb")
    clock = new ManualClock()
    under = await openRelay({ ports: { clock } })
    alice = await personAt(0)
    await under.client.register(alice)
  })

  afterEach(async () => {
    await under.remove()
    rmSync(join(copy, ".."), { recursive: true })
  })

  const indexFile = (): string => join(under.folder, "index", "data.mdb")
  const restart = (): ReturnType<RelayUnderTest["restart"]> => under.restart({ ports: { clock } })
  const events = (): unknown[] => under.log.map(({ event }) => event)

  async function copyIndex(): Promise<void> {
    await under.relay.stop()
    copyFileSync(indexFile(), copy)
    under = await openRelay({ folder: under.folder, ports: { clock } })
  }

  /** In place, so that the relay takes it for the one it has closed. */
  async function putBack(): Promise<void> {
    await under.relay.stop()
    copyFileSync(copy, indexFile())
    under = await openRelay({ folder: under.folder, ports: { clock } })
    expect(events()).not.toContain("index_rebuilt")
  }

  it("gets what was accepted and what was taken meanwhile, and gives no number twice", async () => {
    const first = await under.client.send(makeDelivery([alice]))
    await copyIndex()
    const second = await under.client.send(makeDelivery([alice]))
    let session = await under.client.login(alice)
    await under.client.delete(`/v1/deliveries/${first.id}`, session).expect(204)
    const third = await under.client.send(makeDelivery([alice]))
    await under.client.delete(`/v1/deliveries/${third.id}`, session).expect(204)
    const before = await under.client.list(session, "?envelopes=1")
    await putBack()
    expect(events()).toContain("index_mended")
    expect(events()).not.toContain("delivery_lost")
    session = await under.client.login(alice)
    const after = await under.client.list(session, "?envelopes=1")
    expect(after.entries).toEqual(before.entries)
    expect(after.used).toEqual(before.used)
    const [head, headBefore] = [parseHead(after.head), parseHead(before.head)]
    expect([head.seq, toHex(head.head)]).toEqual([3, toHex(headBefore.head)])
    expect(after.entries).toMatchObject([
      { kind: "gone" },
      { kind: "waiting", id: second.id },
      { kind: "gone" },
    ])
    await under.client.send(makeDelivery([alice]))
    expect((await under.client.list(session)).entries.at(-1)).toMatchObject({ seq: 4 })
    under = await restart()
    expect(events()).not.toContain("index_mended")
  })

  it("knows again how far the inbox is forgotten, and counts nothing of that", async () => {
    await under.client.send(makeDelivery([alice]))
    await under.client.send(makeDelivery([alice]))
    await copyIndex()
    clock.advance(45 * dayMs)
    await under.relay.sweep()
    await under.client.send(makeDelivery([alice]))
    const before = await under.client.list(await under.client.login(alice))
    expect(before.floor.seq).toBe(2)
    await putBack()
    const after = await under.client.list(await under.client.login(alice))
    expect(after.floor).toEqual(before.floor)
    expect(after.entries).toEqual(before.entries)
    expect(after.used).toEqual(before.used)
  })

  it("knows that an upload was finished, and gives the same receipt", async () => {
    const delivery = makeDelivery([alice])
    const upload = await under.client.start([alice], delivery.body.length)
    await under.client.putBody(upload, delivery.body)
    await copyIndex()
    const finished = await under.client.postFinish(upload, delivery.finish).expect(200)
    await putBack()
    const state = await under.client.get(`/v1/uploads/${upload.id}`, encodeBearer(upload.token))
    expect(parseUploadState(state.body).state).toBe("final")
    const again = await under.client.postFinish(upload, delivery.finish).expect(200)
    expect(again.body).toEqual(finished.body)
    const page = await under.client.list(await under.client.login(alice))
    expect(page.entries).toHaveLength(1)
    // What the upload reserved is given back, and nothing holds back the time of the head.
    expect(page.used.deliveries).toBe(1)
    clock.advance(60_000)
    const later = await under.client.list(await under.client.login(alice))
    expect(parseHead(later.head).asOfMs).toBe(clock.wallMs())
  })

  it("knows that an upload was finished and its delivery taken, and holds nothing for it", async () => {
    under = await under.restart({ ports: { clock }, config: { inboxDeliveries: 1 } })
    const delivery = makeDelivery([alice])
    const upload = await under.client.start([alice], delivery.body.length)
    await under.client.putBody(upload, delivery.body)
    await copyIndex()
    await under.client.postFinish(upload, delivery.finish).expect(200)
    const session = await under.client.login(alice)
    await under.client.delete(`/v1/deliveries/${upload.id}`, session).expect(204)
    await putBack()
    const state = await under.client.get(`/v1/uploads/${upload.id}`, encodeBearer(upload.token))
    expect(parseUploadState(state.body).state).toBe("final")
    under = await under.restart({ ports: { clock }, config: { inboxDeliveries: 1 } })
    await under.client.send(makeDelivery([alice]))
  })

  it("knows the parts that were acknowledged meanwhile, and what was reserved for them", async () => {
    const delivery = makeDelivery([alice], { bodyLength: 1_500_000 })
    const upload = await under.client.start([alice], 200_000)
    const token = encodeBearer(upload.token)
    await under.client.putPart(upload, 0, partOf(delivery.body, 0)).expect(200)
    await copyIndex()
    await under.client.http
      .post(`/v1/uploads/${upload.id}/extend`)
      .set("Authorization", token)
      .send(encodeExtend({ reserveBytes: delivery.body.length }))
      .expect(200)
    await under.client.putBody(upload, delivery.body)
    await putBack()
    const reply = await under.client.get(`/v1/uploads/${upload.id}`, token)
    const { runs, reservedBytes } = parseUploadState(reply.body)
    expect(reservedBytes).toBe(delivery.body.length)
    expect(runs.map(({ first, leaves }) => [first, leaves.length / 32])).toEqual([[0, 5]])
    await under.client.postFinish(upload, delivery.finish).expect(200)
    const session = await under.client.login(alice)
    const body = await under.client.bytes(`/v1/deliveries/${upload.id}/body`, session)
    expect(Buffer.compare(body.body, delivery.body)).toBe(0)
  })

  it("asks for parts again that are not on the disk, whatever the index says", async () => {
    const delivery = makeDelivery([alice], { bodyLength: 300_000 })
    const upload = await under.client.start([alice], delivery.body.length)
    await under.client.putBody(upload, delivery.body)
    await under.relay.stop()
    const spool = join(under.folder, "spool", upload.id)
    const name = readdirSync(spool).find((each) => each.startsWith("p0-")) ?? ""
    rmSync(join(spool, name))
    under = await openRelay({ folder: under.folder, ports: { clock } })
    const reply = await under.client.get(`/v1/uploads/${upload.id}`, encodeBearer(upload.token))
    expect(parseUploadState(reply.body).runs).toMatchObject([{ first: 1 }])
    await under.client.putBody(upload, delivery.body)
    await under.client.postFinish(upload, delivery.finish).expect(200)
  })

  it("is put right, with an alarm, where somebody wrote other times into it", async () => {
    const { id } = await under.client.send(makeDelivery([alice]))
    await under.client.send(makeDelivery([alice]))
    await under.relay.stop()
    const tables = openTables(join(under.folder, "index"))
    const [first] = [...tables.entries.getRange({ limit: 1 })]
    if (first === undefined) throw new Error("no entry")
    await tables.entries.put(first.key, { ...first.value, expiresMs: 1 })
    await tables.root.close()
    under = await openRelay({ folder: under.folder, ports: { clock } })
    expect(under.log).toContainEqual(
      expect.objectContaining({ event: "index_contradicted", level: "alarm" }),
    )
    await under.relay.sweep()
    const { entries } = await under.client.list(await under.client.login(alice))
    expect(entries).toMatchObject([
      { kind: "waiting", id },
      { kind: "waiting", seq: 2 },
    ])
    under = await restart()
    expect(events()).not.toContain("index_contradicted")
  })

  it("gives no number twice though it lost them under a relay at work", async () => {
    const kept = mkdtempSync(join(tmpdir(), "knothole-behind-"))
    let current: EmbeddedIndex | undefined
    await under.relay.stop()
    under = await openRelay({
      folder: under.folder,
      ports: {
        clock,
        openIndex: (options) => {
          current = openEmbeddedIndex(options)
          return new Proxy(current, {
            get: (_, name) => Reflect.get(current ?? {}, name),
          })
        },
      },
    })
    try {
      const session = await under.client.login(alice)
      await under.client.send(makeDelivery([alice]))
      cpSync(join(under.folder, "index"), kept, { recursive: true })
      await under.client.send(makeDelivery([alice]))
      const seen = parseHead((await under.client.list(session)).head)
      await current?.close()
      current = openEmbeddedIndex({ path: kept, now: () => clock.wallMs() })
      const next = await under.client.send(makeDelivery([alice]))
      const page = await under.client.list(session, "?envelopes=1")
      expect(page.entries).toMatchObject([
        { seq: 1, kind: "waiting" },
        { seq: 2, kind: "waiting" },
        { seq: 3, kind: "waiting", id: next.id },
      ])
      // The chain folds, by way of the head that was seen before.
      let head: Uint8Array = new Uint8Array(32)
      for (const entry of page.entries) {
        if (entry.kind !== "waiting" || entry.envelope === undefined) throw new Error("not there")
        const { acceptedMs, expiresMs } = parseStamp(entry.stamp)
        head = chainHead({
          previous: head,
          seq: entry.seq,
          headerHash: headerHash(entry.header),
          envelopeHash: envelopeHash(entry.envelope),
          acceptedMs,
          expiresMs,
        })
        if (entry.seq === seen.seq) expect(toHex(head)).toBe(toHex(seen.head))
      }
      expect(toHex(head)).toBe(toHex(parseHead(page.head).head))
    } finally {
      await under.relay.stop().catch(() => undefined)
      rmSync(kept, { recursive: true })
    }
  })
})
