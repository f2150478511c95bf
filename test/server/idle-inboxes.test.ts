import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { basename, join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { encodeBearer, encodeRegisterRequest, type Identity, toHex } from "../../protocol/index.js"
import { FaultyDisk, systemError } from "./faulty-disk.js"
import { ManualClock } from "./manual-clock.js"
import { personAt } from "./people.js"
import { makeDelivery, openRelay, type RelayUnderTest } from "./relay-under-test.js"

const hourMs = 3_600_000
const dayMs = 24 * hourMs

const turn = () => new Promise((resolve) => setImmediate(resolve))

/** Takes its time over the removal of an inbox. */
class SlowDisk extends FaultyDisk {
  /** How many have begun. */
  removals = 0
  letGo: () => void = () => undefined
  beforeRemoval: () => Promise<void> = () => Promise.resolve()

  override async rename(from: string, to: string): Promise<void> {
    if (basename(to).startsWith("inbox-")) {
      this.removals += 1
      await this.beforeRemoval()
    }
    await super.rename(from, to)
  }
}

describe("an inbox whose owner stays away", () => {
  let under: RelayUnderTest
  let alice: Identity
  let clock: ManualClock
  let disk: SlowDisk

  beforeEach(async () => {
    // Never later than the files' own times, by which the sweep knows what was left behind.
    clock = new ManualClock(1_700_000_000_000)
    disk = new SlowDisk()
    under = await openRelay({ ports: { clock, disk } })
    alice = await personAt(0)
    await under.client.register(alice)
  })

  afterEach(() => under.remove())

  /** The relay is there for so many days. */
  async function serve(days: number): Promise<void> {
    for (let day = 0; day < days; day++) {
      clock.advance(dayMs)
      await under.relay.sweep()
    }
  }

  async function registration(identity: Identity) {
    const { address, bytes } = identity.bundle
    const { fields: proof } = await under.client.proof(identity)
    const request = encodeRegisterRequest({ bundle: bytes, proof })
    return under.client.http.put(`/v1/inboxes/${address}`).send(request)
  }

  const folderOf = (identity: Identity) =>
    join(under.folder, "inboxes", toHex(identity.bundle.inboxId))
  const inboxes = () =>
    readdirSync(join(under.folder, "inboxes")).filter((name) => name !== "reserve")
  const bundleStatus = async () =>
    (await under.client.get(`/v1/inboxes/${alice.bundle.address}`)).status
  const uploadOutcome = async () => {
    const reply = await under.client.postUpload([alice])
    return [reply.status, reply.body.code]
  }
  /** How many folders were synced by a login. */
  async function syncs(): Promise<number> {
    const before = disk.operations.length
    await under.client.login(alice)
    return disk.operations.slice(before).filter((one) => one === "syncFolder").length
  }
  const closed = [404, "no_such_inbox"]

  it("takes nothing new after 180 days without a login, and does on the last of them", async () => {
    await serve(180)
    expect(await uploadOutcome()).toEqual([201, undefined])
    expect(await bundleStatus()).toBe(200)
    await serve(1)
    expect(await uploadOutcome()).toEqual(closed)
    expect(await bundleStatus()).toBe(404)
  })

  it("is what it was with a login, also when it was closed before", async () => {
    await serve(150)
    await under.client.login(alice)
    await serve(180)
    expect(await bundleStatus()).toBe(200)
    await serve(1)
    expect(await bundleStatus()).toBe(404)
    await under.client.login(alice)
    expect(await bundleStatus()).toBe(200)
    await serve(100)
    expect(await uploadOutcome()).toEqual([201, undefined])
  })

  it("is what it was when its owner opens it again, and of an open one nothing is lost", async () => {
    await serve(170)
    const sent = await under.client.send(makeDelivery([alice]))
    await serve(12)
    expect(await bundleStatus()).toBe(404)
    await under.client.register(alice)
    expect(await bundleStatus()).toBe(200)
    const { entries } = await under.client.list(await under.client.login(alice))
    expect(entries).toMatchObject([{ kind: "waiting", id: sent.id }])
  })

  it("goes when nothing is left in it, a week after it was closed, and can be opened anew", async () => {
    await serve(187)
    expect(inboxes()).toEqual([toHex(alice.bundle.inboxId)])
    await serve(1)
    expect(inboxes()).toEqual([])
    expect(readdirSync(join(under.folder, "trash"))).toEqual([])
    await under.relay.reconcile()
    const { fields } = await under.client.proof(alice)
    const login = await under.client.postSession(alice.bundle.address, fields)
    expect([login.status, login.body.code]).toEqual([401, "unauthorized"])
    await under.client.register(alice)
    await under.client.send(makeDelivery([alice]))
    const { entries } = await under.client.list(await under.client.login(alice))
    expect(entries).toMatchObject([{ kind: "waiting", seq: 1 }])
  })

  it("keeps what waits until that expires, tells the sender so, and goes thirty days later", async () => {
    const bob = await personAt(1)
    await serve(179)
    await under.client.register(bob)
    const sent = await under.client.send(makeDelivery([alice, bob]))
    const states = async () => {
      const bearer = encodeBearer(sent.deleteCap)
      const reply = await under.client.get(`/v1/deliveries/${sent.id}/status`, bearer)
      return reply.body.recipients?.map(({ state }: { state: string }) => state)
    }
    await serve(13)
    expect(await bundleStatus()).toBe(404)
    expect(await states()).toEqual(["waiting", "waiting"])
    await serve(1)
    expect(await states()).toEqual(["expired", "expired"])
    expect(readdirSync(join(under.folder, "store"))).toEqual([])
    await serve(29)
    expect(await states()).toEqual(["expired", "expired"])
    expect(inboxes()).toHaveLength(2)
    await serve(1)
    expect(inboxes()).toEqual([toHex(bob.bundle.inboxId)])
    expect(under.log.map(({ level }) => level)).not.toContain("alarm")
  })

  it("stays although the clock leaps years ahead, is wrong at the start, or the relay was off", async () => {
    await serve(170)
    clock.jump(3 * 365 * dayMs)
    await under.relay.sweep()
    for (let hour = 0; hour < 3; hour++) {
      clock.advance(hourMs)
      await under.relay.sweep()
    }
    expect(under.log.map(({ event }) => event)).toContain("clock_steady")
    expect(await bundleStatus()).toBe(200)
    for (let time = 0; time < 3; time++) {
      clock.advance(365 * dayMs)
      under = await under.restart()
      await under.relay.sweep()
      expect(await bundleStatus()).toBe(200)
    }
    await serve(9)
    expect(await bundleStatus()).toBe(404)
  })

  it("is remembered over restarts and without the index", async () => {
    await serve(100)
    await under.relay.stop()
    rmSync(join(under.folder, "index"), { recursive: true })
    under = await openRelay({ folder: under.folder, ports: { clock } })
    await serve(80)
    expect(await bundleStatus()).toBe(200)
    await serve(1)
    expect(await bundleStatus()).toBe(404)
  })

  it("is counted from today where its record is missing, is not ours, or the count was lost", async () => {
    const record = join(folderOf(alice), "login.v1")
    await serve(170)
    const ours = readFileSync(record, "utf8")
    for (const spoil of [
      async () => rmSync(record),
      async () => writeFileSync(record, ours.replace('"served_day":0', '"served_day":1')),
      async () => {
        await under.relay.stop()
        rmSync(join(under.folder, "days"))
        under = await openRelay({ folder: under.folder, ports: { clock } })
      },
    ]) {
      await spoil()
      await serve(20)
      expect(await bundleStatus()).toBe(200)
    }
  })

  it("is written down once a day, before the login is answered", async () => {
    await serve(1)
    expect(await syncs()).toBe(1)
    expect(await syncs()).toBe(0)
    await serve(1)
    expect(await syncs()).toBe(1)
  })

  it("may log in when there is no room to write that down", async () => {
    await serve(1)
    disk.before = (operation) => {
      if (operation === "create") throw systemError("ENOSPC")
    }
    await under.client.login(alice)
    expect(under.log.map(({ event }) => event)).toContain("login_not_recorded")
    disk.before = () => undefined
  })

  /** The first sync after the inbox is gone from the disk. */
  function failRemovalOnce(): void {
    disk.before = (operation) => {
      if (operation !== "syncFolder" || inboxes().length > 0) return
      disk.before = () => undefined
      throw systemError("EIO")
    }
  }

  it("goes from the index when a relay ended between the disk and the index", async () => {
    await serve(187)
    failRemovalOnce()
    await serve(1)
    expect(under.log.map(({ event }) => event)).toContain("inbox_sweep_failed")
    expect(inboxes()).toEqual([])
    await serve(1)
    await under.client.register(alice)
    expect(await bundleStatus()).toBe(200)
    expect(inboxes()).toEqual([toHex(alice.bundle.inboxId)])
  })

  it("is opened anew for an owner who comes while it is removed, and lets nobody log in to nothing", async () => {
    const comings = [
      async () => (await registration(alice)).status,
      async () => {
        const { fields } = await under.client.proof(alice)
        return (await under.client.postSession(alice.bundle.address, fields)).status
      },
    ]
    const outcomes: number[] = []
    for (const come of comings) {
      await serve(187)
      const held = new Promise<void>((resolve) => (disk.letGo = resolve))
      disk.beforeRemoval = () => held
      const removal = serve(1)
      while (disk.removals === 0) await turn()
      const coming = come()
      // Until the owner waits for nothing but the removal.
      for (let at = 0; at < 500; at++) await turn()
      disk.letGo()
      await removal
      outcomes.push(await coming)
      if (outcomes.length === 1) {
        expect(await bundleStatus()).toBe(200)
        await under.client.login(alice)
      }
      disk.removals = 0
    }
    expect(outcomes).toEqual([201, 401])
    expect(under.log.map(({ event }) => event)).not.toContain("login_not_recorded")
  })

  it("is opened anew also where only the index still has it", async () => {
    await serve(187)
    failRemovalOnce()
    await serve(1)
    expect((await registration(alice)).status).toBe(201)
    expect(inboxes()).toEqual([toHex(alice.bundle.inboxId)])
    await under.client.send(makeDelivery([alice]))
    const { entries } = await under.client.list(await under.client.login(alice))
    expect(entries).toMatchObject([{ kind: "waiting", seq: 1 }])
  })
})
