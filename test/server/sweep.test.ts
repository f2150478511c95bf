import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { encodeBearer, type Identity, random, toHex } from "../../protocol/index.js"
import { FaultyDisk, systemError } from "./faulty-disk.js"
import { ManualClock } from "./manual-clock.js"
import { personAt } from "./people.js"
import { makeDelivery, openRelay, type RelayUnderTest } from "./relay-under-test.js"

const hourMs = 3_600_000
const dayMs = 24 * hourMs

describe("the sweep", () => {
  let under: RelayUnderTest
  let alice: Identity
  let clock: ManualClock
  let disk: FaultyDisk

  beforeEach(async () => {
    clock = new ManualClock()
    disk = new FaultyDisk()
    under = await openRelay({ ports: { clock, disk } })
    alice = await personAt(0)
    await under.client.register(alice)
  })

  afterEach(() => under.remove())

  const inFolder = (name: string) => readdirSync(join(under.folder, name))

  it("removes unfinished uploads an hour past their end, and gives back what they held", async () => {
    const { client } = under
    const upload = await client.start([alice], 10_000_000)
    await client.putPart(upload, 0, random(1000)).expect(200)
    clock.advance(24 * hourMs)
    await under.relay.sweep()
    expect(inFolder("spool")).toEqual([upload.id])
    clock.advance(hourMs)
    await under.relay.sweep()
    expect(inFolder("spool")).toEqual([])
    expect(inFolder("trash")).toEqual([])
  })

  it("goes on, and so does a restart, when the log of one inbox cannot be read", async () => {
    const bob = await personAt(1)
    await under.client.register(bob)
    await under.client.send(makeDelivery([alice]))
    await under.client.send(makeDelivery([bob]))
    const path = join(under.folder, "inboxes", toHex(alice.bundle.inboxId))
    renameSync(join(path, "log.v1"), join(path, "aside"))
    mkdirSync(join(path, "log.v1"))
    clock.advance(45 * dayMs)
    await under.relay.sweep()
    expect(under.log.map(({ event }) => event)).toContain("sweep_failed")
    await under.relay.sweep()
    await under.relay.stop()
    rmSync(join(under.folder, "index-state"))
    under = await openRelay({ folder: under.folder, ports: { clock, disk } })
    expect(under.log.map(({ event }) => event)).toContain("inbox_not_restored")
    await under.relay.reconcile()
    const { floor } = await under.client.list(await under.client.login(bob))
    expect(floor.seq).toBe(1)
    await expect(under.client.register(alice)).rejects.toThrow(/internal/)
  })

  it("refuses a sender who fills an inbox with what it takes back again", async () => {
    under = await under.restart({ config: { inboxDeliveries: 1 }, ports: { clock, disk } })
    const { client } = under
    for (let time = 0; time < 10; time++) {
      const sent = await client.send(makeDelivery([alice]))
      await client.delete(`/v1/deliveries/${sent.id}`, encodeBearer(sent.deleteCap)).expect(204)
    }
    const reply = await client.postUpload([alice])
    expect([reply.status, reply.body.code]).toEqual([507, "inbox_full"])
    clock.advance(45 * dayMs)
    await under.relay.sweep()
    await client.send(makeDelivery([alice]))
  })

  it("removes deliveries that expired and no other one", async () => {
    const { client } = under
    const short = await client.send(
      makeDelivery([alice], { notAfterMs: clock.wallMs() + 2 * hourMs }),
    )
    const long = await client.send(makeDelivery([alice]))
    clock.advance(2 * hourMs - 1)
    await under.relay.sweep()
    expect(inFolder("store").sort()).toEqual([short.id, long.id].sort())
    clock.advance(1)
    await under.relay.sweep()
    expect(inFolder("store")).toEqual([long.id])
    expect(inFolder("ended")).toEqual([short.id])
    const session = await client.login(alice)
    const page = await client.list(session)
    expect(page.entries.map(({ kind }) => kind)).toEqual(["gone", "waiting"])
    expect(page.used.deliveries).toBe(1)
  })

  it("decides from the records on the disk: an index that was emptied makes it remove nothing", async () => {
    const sent = await under.client.send(makeDelivery([alice]))
    const upload = await under.client.start([alice])
    await under.relay.stop()
    rmSync(join(under.folder, "index"), { recursive: true })
    under = await openRelay({ folder: under.folder, ports: { clock } })
    await under.relay.sweep()
    expect(inFolder("store")).toEqual([sent.id])
    expect(inFolder("spool")).toEqual([upload.id])
    clock.advance(14 * dayMs)
    await under.relay.sweep()
    expect(inFolder("store")).toEqual([])
    expect(inFolder("spool")).toEqual([])
  })

  it("goes on with the others when one delivery cannot be removed, and comes back to it", async () => {
    await under.client.send(makeDelivery([alice]))
    await under.client.send(makeDelivery([alice]))
    clock.advance(14 * dayMs)
    let isBroken = true
    disk.before = (operation) => {
      if (operation !== "rename" || !isBroken) return
      isBroken = false
      throw systemError("EIO")
    }
    await under.relay.sweep()
    expect(under.log).toContainEqual(
      expect.objectContaining({ event: "sweep_failed", level: "alarm", system: "EIO" }),
    )
    expect(inFolder("store")).toHaveLength(1)
    await under.relay.sweep()
    await under.relay.reconcile()
    expect(inFolder("store")).toEqual([])
  })

  it("forgets a delivery's end thirty days past its expiry", async () => {
    const { client } = under
    const sent = await client.send(makeDelivery([alice]))
    const capability = encodeBearer(sent.deleteCap)
    await client.delete(`/v1/deliveries/${sent.id}`, capability).expect(204)
    clock.advance(44 * dayMs - 1)
    await under.relay.sweep()
    expect((await client.get(`/v1/deliveries/${sent.id}/status`, capability)).status).toBe(200)
    clock.advance(1)
    await under.relay.sweep()
    expect((await client.get(`/v1/deliveries/${sent.id}/status`, capability)).status).toBe(404)
    expect(inFolder("ended")).toEqual([])
  })

  it("destroys the key of a day's sources thirty days later", async () => {
    await under.client.send(makeDelivery([alice]))
    const keys = inFolder("keys").filter((name) => name.startsWith("source-"))
    expect(keys).toHaveLength(1)
    clock.advance(30 * dayMs)
    await under.relay.sweep()
    expect(inFolder("keys")).toContain(keys[0])
    clock.advance(dayMs)
    await under.relay.sweep()
    expect(inFolder("keys").filter((name) => name.startsWith("source-"))).toEqual([])
  })

  it("leaves alone what it does not know", async () => {
    for (const folder of ["spool", "store", "ended", "inboxes"]) {
      const path = join(under.folder, folder, `foreign-${toHex(random(4))}`)
      await disk.makeFolder(path)
    }
    clock.advance(90 * dayMs)
    await under.relay.sweep()
    await under.relay.reconcile()
    for (const folder of ["spool", "store", "ended", "inboxes"]) {
      expect(inFolder(folder).some((name) => name.startsWith("foreign-"))).toBe(true)
    }
  })

  it("makes room on a full disk, where even a record of the end does not fit before", async () => {
    const { client } = under
    const sent = await client.send(makeDelivery([alice]))
    const session = await client.login(alice)
    const store = join(under.folder, "store", sent.id)
    let hasRoom = false
    disk.before = (operation) => {
      if (operation === "removeFolder") hasRoom = true
      if (operation === "create" && !hasRoom) throw systemError("ENOSPC")
    }
    await client.delete(`/v1/deliveries/${sent.id}`, session).expect(204)
    expect(existsSync(store)).toBe(false)
    const status = await client.get(
      `/v1/deliveries/${sent.id}/status`,
      encodeBearer(sent.deleteCap),
    )
    expect(status.body.recipients[0].state).toBe("taken")
  })
})
