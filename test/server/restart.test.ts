import { randomUUID } from "node:crypto"
import { EventEmitter, once } from "node:events"
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import {
  encodeBearer,
  parseFinishReply,
  parseHead,
  parseReceipt,
  parseUploadState,
  random,
  toHex,
} from "../../protocol/index.js"
import { createRelay } from "../../server/index.js"
import { FaultyDisk, killAtNth, systemError } from "./faulty-disk.js"
import { ManualClock } from "./manual-clock.js"
import { personAt } from "./people.js"
import {
  configFor,
  makeDelivery,
  openRelay,
  partOf,
  type RelayUnderTest,
  SmallClient,
} from "./relay-under-test.js"

/** Closes a relay whose disk is dead, as far as that can be done, and forgets it. */
async function abandon(under: RelayUnderTest): Promise<void> {
  await under.relay.stop().catch(() => undefined)
}

function loseIndex(under: RelayUnderTest): void {
  rmSync(join(under.folder, "index"), { recursive: true })
}

describe("a relay that starts again", () => {
  let under: RelayUnderTest | undefined

  afterEach(async () => {
    await under?.remove()
    under = undefined
  })

  for (const index of ["kept", "lost"] as const) {
    describe(`with its index ${index}`, () => {
      it("has every delivery, chain and tombstone it had before", async () => {
        under = await openRelay()
        const [alice, bob] = [await personAt(0), await personAt(1)]
        for (const person of [alice, bob]) await under.client.register(person)
        const deliveries = [
          makeDelivery([alice, bob], { bodyLength: 300_000 }),
          makeDelivery([alice]),
          makeDelivery([bob, alice]),
        ]
        const ids: string[] = []
        for (const delivery of deliveries) ids.push((await under.client.send(delivery)).id)
        let session = await under.client.login(alice)
        await under.client.delete(`/v1/deliveries/${ids[1]}`, session).expect(204)
        const before = await under.client.list(session, "?envelopes=1")
        await under.relay.stop()
        if (index === "lost") loseIndex(under)
        under = await openRelay({ folder: under.folder })
        session = await under.client.login(alice)
        const after = await under.client.list(session, "?envelopes=1")
        expect(after.entries).toEqual(before.entries)
        expect(after.used).toEqual(before.used)
        const [head, headBefore] = [parseHead(after.head), parseHead(before.head)]
        expect([head.seq, toHex(head.head)]).toEqual([headBefore.seq, toHex(headBefore.head)])
        const body = await under.client.bytes(`/v1/deliveries/${ids[0]}/body`, session)
        expect(Buffer.compare(body.body, deliveries[0]?.body ?? random(1))).toBe(0)
        await under.client.send(makeDelivery([alice]))
        expect((await under.client.list(session)).entries.at(-1)).toMatchObject({ seq: 4 })
      })

      it("lets an upload go on where it was, and forgets a part that was damaged meanwhile", async () => {
        under = await openRelay()
        const alice = await personAt(0)
        await under.client.register(alice)
        const delivery = makeDelivery([alice], { bodyLength: 1_500_000 })
        const upload = await under.client.start([alice], delivery.body.length)
        for (const at of [0, 1, 2]) {
          await under.client.putPart(upload, at, partOf(delivery.body, at)).expect(200)
        }
        await under.relay.stop()
        if (index === "lost") {
          loseIndex(under)
          const spool = join(under.folder, "spool", upload.id)
          const name = readdirSync(spool).find((each) => each.startsWith("p1-")) ?? ""
          writeFileSync(join(spool, name), random(1000))
        }
        under = await openRelay({ folder: under.folder })
        const reply = await under.client.get(`/v1/uploads/${upload.id}`, encodeBearer(upload.token))
        const { runs } = parseUploadState(reply.body)
        const arrived = runs.flatMap(({ first, leaves }) =>
          Array.from({ length: leaves.length / 32 }, (_, at) => first + at),
        )
        expect(arrived).toEqual(index === "lost" ? [0, 2] : [0, 1, 2])
        await under.client.putBody(upload, delivery.body)
        await under.client.postFinish(upload, delivery.finish).expect(200)
      })

      it("publishes a delivery or drops it cleanly, wherever its finish was killed", async () => {
        under = await openRelay()
        const alice = await personAt(0)
        await under.client.register(alice)
        // For the key of the day.
        await under.client.send(makeDelivery([alice]))
        let isThrough = false
        let n = 0
        let published = 0
        while (!isThrough) {
          n += 1
          await under.relay.stop()
          const disk = new FaultyDisk()
          under = await openRelay({ folder: under.folder, ports: { disk } })
          const delivery = makeDelivery([alice], { bodyLength: 150_000 })
          const upload = await under.client.start([alice], delivery.body.length)
          await under.client.putBody(upload, delivery.body)
          const session = await under.client.login(alice)
          const before = (await under.client.list(session)).entries
          killAtNth(disk, n)
          const finished = await under.client.postFinish(upload, delivery.finish)
          isThrough = finished.status === 200
          // A receipt, or nothing to be seen.
          const seen = (await under.client.list(session)).entries
          expect(seen.length, `operation ${n}`).toBe(before.length + (isThrough ? 1 : 0))
          await abandon(under)
          if (index === "lost") loseIndex(under)
          under = await openRelay({ folder: under.folder })
          const later = await under.client.login(alice)
          const { entries, head } = await under.client.list(later)
          const isPublished = entries.length === before.length + 1
          expect(entries.slice(0, before.length), `operation ${n}`).toEqual(before)
          expect(parseHead(head).seq, `operation ${n}`).toBe(entries.length)
          if (isThrough) expect(isPublished).toBe(true)
          if (isPublished) published += 1
          const again = await under.client.postFinish(upload, delivery.finish)
          expect(again.status, `operation ${n}`).toBe(200)
          if (isThrough) expect(again.body).toEqual(finished.body)
          const all = (await under.client.list(later)).entries
          expect(all.length, `operation ${n}`).toBe(before.length + 1)
          if (isPublished) expect(all).toEqual(entries)
          const body = await under.client.bytes(`/v1/deliveries/${upload.id}/body`, later)
          expect(Buffer.compare(body.body, delivery.body), `operation ${n}`).toBe(0)
        }
        // Killed before the commit's rename it was dropped, after it was published.
        expect(published).toBeGreaterThan(3)
        expect(n - published).toBeGreaterThan(10)
      }, 300_000)

      it("has taken a delivery, or not, wherever the taking was killed", async () => {
        under = await openRelay()
        const alice = await personAt(0)
        await under.client.register(alice)
        let isThrough = false
        for (let n = 1; !isThrough; n++) {
          await under.relay.stop()
          const disk = new FaultyDisk()
          under = await openRelay({ folder: under.folder, ports: { disk } })
          const sent = await under.client.send(makeDelivery([alice]))
          const session = await under.client.login(alice)
          killAtNth(disk, n)
          const taken = await under.client.delete(`/v1/deliveries/${sent.id}`, session)
          // With the last operations the answer is out before the files are gone.
          isThrough = taken.status === 204
          await abandon(under)
          if (index === "lost") loseIndex(under)
          under = await openRelay({ folder: under.folder })
          const later = await under.client.login(alice)
          const entry = (await under.client.list(later)).entries.at(-1)
          if (isThrough) expect(entry?.kind).toBe("gone")
          const body = await under.client.bytes(`/v1/deliveries/${sent.id}/body`, later)
          expect(body.status, `operation ${n}`).toBe(entry?.kind === "waiting" ? 200 : 404)
          await under.client.delete(`/v1/deliveries/${sent.id}`, later).expect(204)
          const status = await under.client.get(
            `/v1/deliveries/${sent.id}/status`,
            encodeBearer(sent.deleteCap),
          )
          expect(status.body.recipients[0].state, `operation ${n}`).toBe("taken")
        }
        await under.relay.sweep()
        expect(readdirSync(join(under.folder, "store"))).toEqual([])
        expect(readdirSync(join(under.folder, "trash"))).toEqual([])
      }, 300_000)
    })
  }

  it("remembers what became of a delivery whose files a power cut left in part", async () => {
    under = await openRelay()
    const alice = await personAt(0)
    await under.client.register(alice)
    const sent = await under.client.send(makeDelivery([alice]))
    const session = await under.client.login(alice)
    await under.client.delete(`/v1/deliveries/${sent.id}`, session).expect(204)
    await under.relay.stop()
    loseIndex(under)
    // That it was moved away was undone; that some of its files were removed was not.
    const folder = join(under.folder, "store", sent.id)
    mkdirSync(folder)
    writeFileSync(join(folder, "leaves"), random(32))
    under = await openRelay({ folder: under.folder })
    const bearer = encodeBearer(sent.deleteCap)
    const status = await under.client.get(`/v1/deliveries/${sent.id}/status`, bearer).expect(200)
    expect(status.body.recipients[0].state).toBe("taken")
    expect(readdirSync(join(under.folder, "store"))).toEqual([])
  })

  it("gives no new place to a delivery that came back after its inbox had forgotten it", async () => {
    const clock = new ManualClock()
    under = await openRelay({ ports: { clock } })
    const alice = await personAt(0)
    await under.client.register(alice)
    const sent = await under.client.send(makeDelivery([alice]))
    const folder = join(under.folder, "store", sent.id)
    cpSync(folder, `${under.folder}-aside`, { recursive: true })
    for (const days of [15, 31]) {
      clock.advance(days * 86_400_000)
      await under.relay.sweep()
    }
    await under.relay.stop()
    // A power cut undid that it was moved away.
    cpSync(`${under.folder}-aside`, folder, { recursive: true })
    rmSync(`${under.folder}-aside`, { recursive: true })
    loseIndex(under)
    under = await openRelay({ folder: under.folder, ports: { clock } })
    const page = await under.client.list(await under.client.login(alice))
    expect([page.floor.seq, parseHead(page.head).seq, page.entries]).toEqual([1, 1, []])
    expect(readdirSync(join(under.folder, "store"))).toEqual([])
  })

  it("rebuilds an index that belongs to another folder", async () => {
    under = await openRelay()
    const alice = await personAt(0)
    await under.client.register(alice)
    const sent = await under.client.send(makeDelivery([alice]))
    await under.relay.stop()
    const state = join(under.folder, "index-state")
    const { boot } = JSON.parse(readFileSync(state, "utf8"))
    writeFileSync(state, JSON.stringify({ marker: "another's", boot, clean: true }))
    under = await openRelay({ folder: under.folder })
    expect(under.log.map(({ event }) => event)).toContain("index_rebuilt")
    const page = await under.client.list(await under.client.login(alice))
    expect(page.entries).toMatchObject([{ id: sent.id }])
  })

  it("answers 503 until the index is whole again", async () => {
    under = await openRelay()
    await under.relay.stop()
    loseIndex(under)
    const rebuild = new EventEmitter()
    const allowed = once(rebuild, "allowed")
    const disk = new FaultyDisk()
    const list = disk.list.bind(disk)
    disk.list = async (path) => {
      if (path.endsWith("inboxes")) await allowed
      return list(path)
    }
    const relay = await createRelay(configFor(under.folder), { disk, writeLog: () => undefined })
    const client = new SmallClient(relay)
    try {
      const reply = await client.get("/v1/inbox", encodeBearer(random(32)))
      expect([reply.status, reply.body.code]).toEqual([503, "rebuilding"])
      expect(reply.headers["retry-after"]).toBe("2")
      expect((await client.get("/v1/relay")).status).toBe(200)
      const health = await client.get("/healthz")
      expect([health.status, health.text]).toEqual([200, "ok, and rebuilding the index\n"])
      rebuild.emit("allowed")
      await relay.ready
      expect((await client.get("/v1/inbox", encodeBearer(random(32)))).status).toBe(401)
    } finally {
      rebuild.emit("allowed")
      client.close()
      await relay.stop()
    }
  })

  it("says that a delivery is lost when its folder is, and goes on with the chain", async () => {
    under = await openRelay()
    const alice = await personAt(0)
    await under.client.register(alice)
    const lost = await under.client.send(makeDelivery([alice]))
    const kept = await under.client.send(makeDelivery([alice]))
    rmSync(join(under.folder, "store", lost.id), { recursive: true })
    await under.relay.reconcile()
    expect(under.log).toContainEqual(
      expect.objectContaining({ event: "delivery_lost", level: "alarm" }),
    )
    const session = await under.client.login(alice)
    const { entries } = await under.client.list(session)
    expect(entries).toMatchObject([
      { kind: "gone", seq: 1 },
      { kind: "waiting", seq: 2, id: kept.id },
    ])
    await under.relay.stop()
    loseIndex(under)
    under = await openRelay({ folder: under.folder })
    expect((await under.client.list(await under.client.login(alice))).entries).toEqual(entries)
  })

  it("refuses records that it did not write, says so, and removes nothing on their word", async () => {
    under = await openRelay()
    const alice = await personAt(0)
    await under.client.register(alice)
    const sent = await under.client.send(makeDelivery([alice]))
    const path = join(under.folder, "store", sent.id, "commit.v1")
    const original = readFileSync(path, "utf8")
    const { expires_ms: expiresMs } = JSON.parse(original.split("\n")[0] ?? "")
    writeFileSync(path, original.replace(String(expiresMs), "1"))
    const bearer = encodeBearer(sent.deleteCap)
    const reply = await under.client.get(`/v1/deliveries/${sent.id}/status`, bearer)
    expect([reply.status, reply.body.code]).toEqual([500, "internal"])
    await under.relay.stop()
    loseIndex(under)
    under = await openRelay({ folder: under.folder })
    expect(under.log).toContainEqual(
      expect.objectContaining({ event: "record_refused", level: "alarm" }),
    )
    await under.relay.sweep()
    expect(readdirSync(join(under.folder, "store"))).toEqual([sent.id])
  })

  it("keeps out of a folder that another relay uses, others can read, or a later version wrote", async () => {
    under = await openRelay()
    const { folder } = under
    await expect(createRelay(configFor(folder))).rejects.toThrow(/in use by another relay/)
    await under.relay.stop()
    chmodSync(folder, 0o755)
    await expect(createRelay(configFor(folder))).rejects.toThrow(/chmod 700/)
    chmodSync(folder, 0o700)
    writeFileSync(join(folder, "version"), "2\n")
    await expect(createRelay(configFor(folder))).rejects.toThrow(/newer version/)
    writeFileSync(join(folder, "version"), "1\n")
    under = await openRelay({ folder })
  })

  describe("does not move into a folder of other files, and touches nothing there", () => {
    let folder: string

    beforeEach(() => {
      folder = mkdtempSync(join(tmpdir(), "knothole-others-"))
    })
    afterEach(() => rmSync(folder, { recursive: true, force: true }))

    function put(...path: string[]): void {
      mkdirSync(join(folder, ...path.slice(0, -1)), { recursive: true })
      writeFileSync(join(folder, ...path), "mine\n")
    }

    async function refusesAsItIs(): Promise<void> {
      const before = readdirSync(folder, { recursive: true })
      await expect(createRelay(configFor(folder))).rejects.toThrow(
        `${folder} holds other files and is no relay's data folder; name an empty or new one with --data`,
      )
      expect(readdirSync(folder, { recursive: true })).toEqual(before)
    }

    it("whatever they are called", async () => {
      put("index", "mine.txt")
      put("store", "mine.txt")
      put("spool", "mine", "mine.txt")
      await refusesAsItIs()
    })

    it("before it asks to close them to others", async () => {
      put("src", "main.c")
      chmodSync(folder, 0o755)
      await refusesAsItIs()
    })

    it("though it has a version of its own", async () => {
      put("index", "mine.txt")
      writeFileSync(join(folder, "version"), "1\n")
      await refusesAsItIs()
    })

    it("but into one with what a mount point has, or a start that was killed left behind", async () => {
      put("lost+found", "#1")
      writeFileSync(join(folder, "lock"), "{}")
      utimesSync(join(folder, "lock"), new Date(0), new Date(0))
      put(`lock-${randomUUID()}`)
      const own = await openRelay({ folder })
      await own.remove()
    })
  })

  it("says at its start that a disk has no more than the head-room it is to keep", async () => {
    const diskHeadroomBytes = Number.MAX_SAFE_INTEGER
    under = await openRelay({ config: { diskHeadroomBytes } })
    await under.relay.start()
    const line = under.log.find(({ event }) => event === "no_room_for_uploads")
    expect(line).toMatchObject({ level: "warning", wantedBytes: diskHeadroomBytes })
    expect(line?.bytes).toBeGreaterThan(0)
  })

  it("lives beside another one in the same process", async () => {
    under = await openRelay()
    const other = await openRelay()
    const alice = await personAt(0)
    await under.client.register(alice)
    expect((await other.client.get(`/v1/inboxes/${alice.bundle.address}`)).status).toBe(404)
    await other.remove()
    await under.client.login(alice)
  })

  it("deletes nothing while the clock jumps about, and goes on when it has been steady for an hour", async () => {
    const clock = new ManualClock()
    under = await openRelay({ ports: { clock } })
    const alice = await personAt(0)
    await under.client.register(alice)
    const sent = await under.client.send(makeDelivery([alice]))
    clock.jump(30 * 86_400_000)
    await under.relay.sweep()
    expect(under.log.map(({ event }) => event)).toContain("clock_jumped")
    let session = await under.client.login(alice)
    expect((await under.client.list(session)).entries).toMatchObject([{ kind: "waiting" }])
    clock.advance(59 * 60_000)
    await under.relay.sweep()
    expect(readdirSync(join(under.folder, "store"))).toEqual([sent.id])
    clock.advance(2 * 60_000)
    await under.relay.sweep()
    expect(readdirSync(join(under.folder, "store"))).toEqual([])
    session = await under.client.login(alice)
    expect((await under.client.list(session)).entries).toMatchObject([{ kind: "gone" }])
  })

  it("notices a clock that was set back while it was off, and takes a long absence as none", async () => {
    under = await openRelay({ ports: { clock: new ManualClock(2_000_000_000_000) } })
    await under.relay.sweep()
    under = await under.restart({ ports: { clock: new ManualClock(1_900_000_000_000) } })
    expect(under.log.map(({ event }) => event)).toContain("clock_behind")
    under = await under.restart({ ports: { clock: new ManualClock(2_005_000_000_000) } })
    expect(under.log.map(({ event }) => event)).not.toContain("clock_behind")
  })

  it("accepts nothing before the time of a head it signed, though it crashed and the clock was set back a little", async () => {
    const clock = new ManualClock()
    const disk = new FaultyDisk()
    under = await openRelay({ ports: { clock, disk } })
    const alice = await personAt(0)
    await under.client.register(alice)
    clock.advance(3 * 60_000)
    const signed = parseHead((await under.client.list(await under.client.login(alice))).head)
    expect(signed.asOfMs).toBe(clock.wallMs())
    killAtNth(disk, 1)
    await abandon(under)
    under = await openRelay({
      folder: under.folder,
      ports: { clock: new ManualClock(clock.wallMs() - 2 * 60_000) },
    })
    const { reply } = await under.client.send(makeDelivery([alice]))
    const { acceptedMs } = parseReceipt(reply.receipts[0]?.receipt ?? random(1))
    expect(acceptedMs).toBeGreaterThan(signed.asOfMs - 5000)
  })

  it("signs heads that lag behind while it cannot note the time, and lists all the same", async () => {
    const clock = new ManualClock()
    const disk = new FaultyDisk()
    under = await openRelay({ ports: { clock, disk } })
    const alice = await personAt(0)
    await under.client.register(alice)
    const session = await under.client.login(alice)
    const startedMs = clock.wallMs()
    clock.advance(10 * 60_000)
    disk.before = (operation) => {
      if (operation === "create") throw systemError("EROFS")
    }
    const signed = parseHead((await under.client.list(session)).head)
    expect(signed.asOfMs).toBe(startedMs + 4999)
    expect(under.log.map(({ event }) => event)).toContain("clock_not_noted")
    disk.before = () => undefined
    clock.advance(10_000)
    expect(parseHead((await under.client.list(session)).head).asOfMs).toBe(clock.wallMs())
  })

  it("gives the same receipt it gave before the restart", async () => {
    under = await openRelay()
    const alice = await personAt(0)
    await under.client.register(alice)
    const delivery = makeDelivery([alice])
    const sent = await under.client.send(delivery)
    under = await under.restart()
    const again = await under.client.postFinish(sent, delivery.finish).expect(200)
    expect(parseFinishReply(again.body)).toEqual(sent.reply)
  })
})
