import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs"
import { EventEmitter, once } from "node:events"
import { get, request } from "node:http"
import { createServer, Server } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { text as readAll } from "node:stream/consumers"
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest"
import { parseRelayStatus, type RelayStatus } from "../../protocol/index.js"
import { createRelay } from "../../server/index.js"
import { FaultyDisk } from "./faulty-disk.js"
import { ManualClock } from "./manual-clock.js"
import { personAt } from "./people.js"
import { configFor, makeDelivery, openRelay, type RelayUnderTest } from "./relay-under-test.js"

async function askStatus(socketPath: string): Promise<RelayStatus> {
  const answer = await new Promise<string>((resolve, reject) => {
    get({ socketPath, path: "/status" }, (res) => void readAll(res).then(resolve, reject)).once(
      "error",
      reject,
    )
  })
  return parseRelayStatus(JSON.parse(answer))
}

describe("the operator's socket", () => {
  let under: RelayUnderTest | undefined
  let elsewhere = ""

  beforeEach(() => {
    elsewhere = mkdtempSync(join(tmpdir(), "knothole-socket-"))
  })

  afterEach(async () => {
    await under?.remove()
    under = undefined
    rmSync(elsewhere, { recursive: true })
  })

  it("is for the relay's own user, and goes when the relay goes", async () => {
    under = await openRelay()
    const socket = join(under.folder, "operator.sock")
    expect(existsSync(socket)).toBe(false)
    await under.relay.start()
    expect(statSync(socket).mode & 0o777).toBe(0o600)
    expect(await askStatus(socket)).toMatchObject({ inboxes: 0, index: { state: "ready" } })
    await under.relay.stop()
    expect(existsSync(socket)).toBe(false)
  })

  it("is for nobody else from its first moment, wherever it is and whatever the umask", async () => {
    const operatorSocket = join(elsewhere, "s")
    // oxlint-disable-next-line typescript/unbound-method -- applied to the server it is called on
    const { listen } = Server.prototype
    const modes: number[] = []
    // Before whoever called it can do anything about the mode.
    const spy = vi.spyOn(Server.prototype, "listen").mockImplementation(function (
      this: Server,
      ...args: unknown[]
    ) {
      Reflect.apply(listen, this, args)
      if (args[0] === operatorSocket) modes.push(statSync(operatorSocket).mode & 0o077)
      return this
    })
    const umask = process.umask(0)
    try {
      under = await openRelay({ config: { operatorSocket } })
      await under.relay.start()
      expect(modes).toEqual([0])
      expect(statSync(operatorSocket).mode & 0o777).toBe(0o600)
      expect(process.umask()).toBe(0)
    } finally {
      process.umask(umask)
      spy.mockRestore()
    }
  })

  it("takes no place from what lives there, nor from what is no socket", async () => {
    const operatorSocket = join(elsewhere, "s")
    const living = createServer((socket) => socket.end())
    await new Promise<void>((resolve) => living.listen(operatorSocket, resolve))
    under = await openRelay({ config: { operatorSocket } })
    await expect(under.relay.start()).rejects.toThrow(
      /another relay answers on .*: stop it, or say/,
    )
    await new Promise((resolve) => living.close(resolve))
    writeFileSync(operatorSocket, "precious")
    await expect(under.relay.start()).rejects.toThrow(/is in the way of the operator's socket/)
    expect(statSync(operatorSocket).size).toBe(8)
  })

  it("tells of an alarm about the clock, and when the sweep last ran", async () => {
    const clock = new ManualClock()
    under = await openRelay({ ports: { clock } })
    await under.relay.start()
    const socket = join(under.folder, "operator.sock")
    expect(await askStatus(socket)).toMatchObject({ clockAlarm: false, lastSweepMs: undefined })
    await under.relay.sweep()
    const { lastSweepMs = 0 } = await askStatus(socket)
    expect(Math.abs(lastSweepMs - clock.wallMs())).toBeLessThan(1000)
    clock.jump(3_600_000)
    expect(await askStatus(socket)).toMatchObject({ clockAlarm: true })
  })

  it("takes the operator's word for the clock", async () => {
    const clock = new ManualClock()
    under = await openRelay({ ports: { clock } })
    await under.relay.start()
    const socketPath = join(under.folder, "operator.sock")
    clock.jump(3_600_000)
    const confirm = () =>
      new Promise<unknown>((resolve, reject) => {
        request({ socketPath, path: "/clock", method: "POST" }, (res) => {
          readAll(res).then((text) => resolve(JSON.parse(text)), reject)
        })
          .once("error", reject)
          .end()
      })
    expect(await confirm()).toEqual({ was_doubted: true })
    expect(await askStatus(socketPath)).toMatchObject({ clockAlarm: false })
    expect(await confirm()).toEqual({ was_doubted: false })
    expect(under.log.map(({ event }) => event)).toContain("clock_confirmed")
  })

  it("tells how far a rebuild of the index is", async () => {
    under = await openRelay()
    const alice = await personAt(0)
    await under.client.register(alice)
    for (const _ of [1, 2]) await under.client.send(makeDelivery([alice]))
    await under.relay.stop()
    rmSync(join(under.folder, "index"), { recursive: true })
    // The rebuild ends with the uploads.
    const disk = new FaultyDisk()
    const rest = new EventEmitter()
    const allowed = once(rest, "allowed")
    let isHeld = false
    const list = disk.list.bind(disk)
    disk.list = async (path) => {
      if (path.endsWith("spool")) {
        isHeld = true
        await allowed
      }
      return list(path)
    }
    const relay = await createRelay(configFor(under.folder), { disk, writeLog: () => undefined })
    try {
      await relay.start()
      await vi.waitUntil(() => isHeld)
      const status = await askStatus(join(under.folder, "operator.sock"))
      expect(status.index).toEqual({
        kind: "embedded",
        state: "rebuilding",
        rebuilt: { done: 2, total: 2 },
      })
      rest.emit("allowed")
      await relay.ready
      const whole = await askStatus(join(under.folder, "operator.sock"))
      expect(whole.index).toEqual({ kind: "embedded", state: "ready", rebuilt: undefined })
    } finally {
      rest.emit("allowed")
      await relay.stop()
    }
  })

  it("tells of a proxy that speaks and is not trusted", async () => {
    under = await openRelay()
    await under.relay.start()
    const socket = join(under.folder, "operator.sock")
    await under.client.get("/v1/relay").expect(200)
    expect(await askStatus(socket)).toMatchObject({ proxyProblem: undefined })
    await under.client.get("/v1/relay").set("X-Forwarded-For", "192.0.2.1").expect(200)
    await under.client.get("/v1/relay").expect(200)
    expect(await askStatus(socket)).toMatchObject({ proxyProblem: "unset" })
  })

  it("counts what is there, by the store, after every kind of change and after a restart", async () => {
    under = await openRelay()
    const [alice, bob] = [await personAt(0), await personAt(1)]
    for (const person of [alice, bob]) await under.client.register(person)
    await under.client.register(alice)
    const toBoth = makeDelivery([alice, bob], { bodyLength: 300_000 })
    const [first, second] = [makeDelivery([alice]), makeDelivery([bob])]
    const sent = []
    for (const delivery of [toBoth, first, second]) sent.push(await under.client.send(delivery))
    await under.client.start([alice])
    const session = await under.client.login(alice)
    await under.client.delete(`/v1/deliveries/${sent[1]?.id}`, session).expect(204)
    const sizeOf = (delivery: typeof first) => delivery.body.length + delivery.manifest.length
    const expected = {
      inboxes: 2,
      waiting: { deliveries: 3, bytes: 2 * sizeOf(toBoth) + sizeOf(second) },
      openUploads: 1,
    }
    for (const index of ["kept", "lost"]) {
      await under.relay.start()
      expect(await askStatus(join(under.folder, "operator.sock"))).toMatchObject(expected)
      await under.relay.stop()
      if (index === "lost") rmSync(join(under.folder, "index"), { recursive: true })
      under = await openRelay({ folder: under.folder })
    }
    await under.relay.start()
    expect(await askStatus(join(under.folder, "operator.sock"))).toMatchObject(expected)
  })
})
