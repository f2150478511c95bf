// Clocks that jump, and ends that come in the middle of something.
import { readdirSync, rmSync } from "node:fs"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { concatBytes, type Identity } from "../../protocol/index.js"
import { createRelay } from "../../server/index.js"
import { FaultyDisk } from "../server/faulty-disk.js"
import { ManualClock } from "../server/manual-clock.js"
import { personAt } from "../server/people.js"
import {
  configFor,
  openRelay,
  type RelayUnderTest,
  SmallClient,
} from "../server/relay-under-test.js"
import { makeDelivery, partOf, type TestDelivery } from "../server/test-delivery.js"

const minuteMs = 60_000
const hourMs = 60 * minuteMs
const dayMs = 24 * hourMs

describe("a relay whose clock or time is against it", () => {
  let under: RelayUnderTest
  let clock: ManualClock
  let disk: FaultyDisk
  let alice: Identity

  beforeEach(async () => {
    clock = new ManualClock()
    disk = new FaultyDisk()
    under = await openRelay({ ports: { clock, disk } })
    alice = await personAt(0)
    await under.client.register(alice)
  })

  afterEach(() => under.remove())

  const inFolder = (name: string): string[] => readdirSync(join(under.folder, name))
  const events = (): unknown[] => under.log.map(({ event }) => event)

  /** The first half of the body, and then what is done when there is that much, and then the rest. */
  async function fetchInHalves(
    id: string,
    { body }: TestDelivery,
    meanwhile: () => Promise<void>,
  ): Promise<void> {
    const session = await under.client.login(alice)
    const half = Math.floor(body.length / 2)
    const path = `/v1/deliveries/${id}/body`
    const first = await under.client.bytes(path, session, `bytes=0-${half - 1}`)
    expect(first.status).toBe(206)
    await meanwhile()
    // It was idle for longer than a session lasts, if the clock is believed.
    const later = await under.client.login(alice)
    const second = await under.client.bytes(path, later, `bytes=${half}-${body.length - 1}`)
    expect(second.status).toBe(206)
    expect(Buffer.compare(concatBytes(first.body, second.body), body)).toBe(0)
  }

  for (const [name, jumpMs] of [
    ["30 days ahead", 30 * dayMs],
    ["30 days back", -30 * dayMs],
  ] as const) {
    it(`T28 deletes nothing while the clock is ${name}, during a download too, and goes on with expiry after`, async () => {
      const delivery = makeDelivery([alice], { bodyLength: 300_000 })
      const { id } = await under.client.send(delivery)
      const upload = await under.client.start([alice])
      await fetchInHalves(id, delivery, async () => {
        clock.jump(jumpMs)
        await under.relay.sweep()
        clock.advance(30 * minuteMs)
        await under.relay.sweep()
        expect(events()).toContain("sweep_paused")
      })
      expect([inFolder("store"), inFolder("spool")]).toEqual([[id], [upload.id]])
      clock.advance(31 * minuteMs)
      expect(events()).not.toContain("clock_steady")
      await under.relay.sweep()
      expect(events()).toContain("clock_steady")
      // By the clock that is now believed the one is over its time, and by the other it is not.
      expect(inFolder("store")).toEqual(jumpMs > 0 ? [] : [id])
      // Where the clock was set back time passes at half its speed until it has caught up.
      if (jumpMs < 0) clock.advance(2 * 14 * dayMs)
      await under.relay.sweep()
      expect([inFolder("store"), inFolder("spool")]).toEqual([[], []])
      const { entries } = await under.client.list(await under.client.login(alice))
      expect(entries).toMatchObject([{ kind: "gone" }])
    })
  }

  it("T28 takes a leap second for what it is", async () => {
    const { id } = await under.client.send(makeDelivery([alice]))
    clock.advance(14 * dayMs - 2000)
    for (const jumpMs of [1000, -1000, -1000, 1000]) {
      clock.jump(jumpMs)
      await under.relay.sweep()
      expect(inFolder("store")).toEqual([id])
    }
    clock.advance(4000)
    await under.relay.sweep()
    expect(inFolder("store")).toEqual([])
    expect(events()).not.toContain("clock_jumped")
  })

  it("T28 believes no jump that is noticed only by the next start, back from what was noted", async () => {
    const { id } = await under.client.send(makeDelivery([alice]))
    await under.relay.sweep()
    const back = new ManualClock(clock.wallMs() - 30 * dayMs)
    under = await under.restart({ ports: { clock: back, disk } })
    expect(events()).toContain("clock_behind")
    await under.relay.sweep()
    expect(events()).toContain("sweep_paused")
    expect(inFolder("store")).toEqual([id])
  })

  it("T29 lets a download end that was under way as its delivery expired, within its lease", async () => {
    const delivery = makeDelivery([alice], { bodyLength: 300_000 })
    const { id } = await under.client.send(delivery)
    clock.advance(14 * dayMs - minuteMs)
    await fetchInHalves(id, delivery, async () => {
      clock.advance(2 * minuteMs)
      await under.relay.sweep()
      expect(inFolder("store")).toEqual([id])
    })
    clock.advance(11 * minuteMs)
    const session = await under.client.login(alice)
    const late = await under.client.get(`/v1/deliveries/${id}/body`, session)
    expect([late.status, late.body.code]).toEqual([410, "expired"])
    await under.relay.sweep()
    expect(inFolder("store")).toEqual([])
  })

  it("T29 refuses the parts of an upload whose time is over, and leaves nothing of it behind", async () => {
    const { client } = under
    under = await under.restart({ config: { inboxDeliveries: 1 } })
    const delivery = makeDelivery([alice], { bodyLength: 300_000 })
    const upload = await under.client.start([alice], delivery.body.length)
    await under.client.putPart(upload, 0, partOf(delivery.body, 0)).expect(200)
    clock.advance(24 * hourMs)
    for (const reply of [
      await under.client.putPart(upload, 1, partOf(delivery.body, 1)),
      await under.client.postFinish(upload, delivery.finish),
    ]) {
      expect([reply.status, reply.body.code]).toEqual([410, "upload_expired"])
    }
    clock.advance(hourMs)
    await under.relay.sweep()
    for (const folder of ["spool", "store", "trash"]) expect(inFolder(folder)).toEqual([])
    await under.client.send(makeDelivery([alice]))
    client.close()
  })

  for (const operation of ["create", "rename", "syncFolder"] as const) {
    it(`T29 makes a delivery of an upload whose time is over in the middle of its finish (${operation}), or nothing`, async () => {
      const delivery = makeDelivery([alice], { bodyLength: 300_000 })
      const upload = await under.client.start([alice], delivery.body.length)
      await under.client.putBody(upload, delivery.body)
      let swept: Promise<void> | undefined
      disk.before = (next) => {
        if (next !== operation || swept !== undefined) return
        // An upload is kept an hour past its end for this; so that it goes, more than that passes.
        clock.advance(26 * hourMs)
        swept = under.relay.sweep()
      }
      const finished = await under.client.postFinish(upload, delivery.finish)
      await swept
      expect(swept).toBeDefined()
      await under.relay.sweep()
      await under.relay.reconcile()
      expect([inFolder("spool"), inFolder("trash")]).toEqual([[], []])
      const session = await under.client.login(alice)
      const { entries, used } = await under.client.list(session)
      if (finished.status === 200) {
        expect(entries).toMatchObject([{ id: upload.id, kind: "waiting" }])
        const body = await under.client.bytes(`/v1/deliveries/${upload.id}/body`, session)
        expect(Buffer.compare(body.body, delivery.body)).toBe(0)
      } else {
        expect(finished.status).toBe(410)
        expect(inFolder("store")).toEqual([])
        expect([entries, used]).toEqual([[], { bytes: 0, deliveries: 0 }])
      }
    })
  }

  it("T30 loses nothing of uploads that begin, go on and end while the sweep runs", async () => {
    const sending = new AbortController()
    const sweeping = (async () => {
      let sweeps = 0
      for (; !sending.signal.aborted; sweeps++) {
        await under.relay.sweep()
        await under.relay.reconcile()
      }
      return sweeps
    })()
    const deliveries = Array.from({ length: 12 }, () =>
      makeDelivery([alice], { bodyLength: 300_000 }),
    )
    const sent = await Promise.all(
      deliveries.map(async (delivery) => ({ delivery, ...(await under.client.send(delivery)) })),
    ).finally(() => sending.abort())
    expect(await sweeping).toBeGreaterThan(1)
    const session = await under.client.login(alice)
    expect((await under.client.list(session)).entries).toHaveLength(deliveries.length)
    for (const { id, delivery } of sent) {
      const body = await under.client.bytes(`/v1/deliveries/${id}/body`, session)
      expect(Buffer.compare(body.body, delivery.body)).toBe(0)
    }
  })

  it("T30 sweeps nothing before a lost index is whole again, and then what is due", async () => {
    const kept = await under.client.send(makeDelivery([alice]))
    const due = await under.client.send(
      makeDelivery([alice], { notAfterMs: clock.wallMs() + hourMs }),
    )
    const upload = await under.client.start([alice])
    await under.relay.stop()
    rmSync(join(under.folder, "index"), { recursive: true })
    clock.advance(2 * hourMs)
    const ownDisk = new FaultyDisk()
    let sweep: Promise<void> | undefined
    const seen: string[][] = []
    const relay = await createRelay(configFor(under.folder), {
      clock,
      disk: ownDisk,
      writeLog: () => undefined,
    })
    ownDisk.before = () => {
      sweep ??= relay.sweep()
      seen.push(inFolder("store"))
    }
    await relay.ready
    ownDisk.before = () => undefined
    for (const store of seen) expect(store.sort()).toEqual([kept.id, due.id].sort())
    await sweep
    expect(sweep).toBeDefined()
    expect([inFolder("store"), inFolder("spool")]).toEqual([[kept.id], [upload.id]])
    const client = new SmallClient(relay)
    const { entries } = await client.list(await client.login(alice))
    expect(entries).toMatchObject([{ id: kept.id, kind: "waiting" }, { kind: "gone" }])
    client.close()
    await relay.stop()
  })
})
