// What happens to a finish while another one, or the client's leaving, gets in its way.
import { once } from "node:events"
import { readdirSync } from "node:fs"
import { connect } from "node:net"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { encodeBearer, type Identity, toHex } from "../../protocol/index.js"
import type { Disk, DiskFile } from "../../server/index.js"
import { nodeDisk } from "../../server/node-disk.js"
import { ManualClock } from "../server/manual-clock.js"
import { personAt } from "../server/people.js"
import { makeDelivery, openRelay, type RelayUnderTest } from "../server/relay-under-test.js"

/** Stands still before an operation until the test lets it go on. */
class Pause {
  readonly reached: Promise<void>
  readonly #over: Promise<void>
  #reach: () => void = () => undefined
  #resume: () => void = () => undefined

  constructor() {
    this.reached = new Promise((resolve) => (this.#reach = resolve))
    this.#over = new Promise((resolve) => (this.#resume = resolve))
  }

  wait(): Promise<void> {
    this.#reach()
    return this.#over
  }

  end(): void {
    this.#resume()
  }
}

describe("a finish that something gets in the way of", () => {
  let under: RelayUnderTest
  let clock: ManualClock
  let alice: Identity
  let beforeCreate: Pause | undefined
  let beforeManifestSync: Pause | undefined
  let openFiles: number
  const manifestLength = 5_008

  const watched = (file: DiskFile): DiskFile => {
    let writtenBytes = 0
    let isOpen = true
    openFiles += 1
    return {
      ...file,
      async write(bytes, position) {
        writtenBytes += bytes.length
        await file.write(bytes, position)
      },
      async sync() {
        if (writtenBytes === manifestLength) await beforeManifestSync?.wait()
        await file.sync()
      },
      async close() {
        if (isOpen) openFiles -= 1
        isOpen = false
        await file.close()
      },
    }
  }

  const disk: Disk = {
    ...nodeDisk,
    async create(path) {
      await beforeCreate?.wait()
      return watched(await nodeDisk.create(path))
    },
  }

  beforeEach(async () => {
    beforeCreate = undefined
    beforeManifestSync = undefined
    openFiles = 0
    clock = new ManualClock()
    under = await openRelay({ ports: { clock, disk } })
    alice = await personAt(0)
    await under.client.register(alice)
  })

  afterEach(() => under.remove())

  it("keeps its manifest when it takes minutes and another one is tried meanwhile", async () => {
    const { client } = under
    const delivery = makeDelivery([alice], { manifestLength })
    const upload = await client.start([alice])
    await client.putBody(upload, delivery.body)
    beforeManifestSync = new Pause()
    const first = client.postFinish(upload, delivery.finish).then((reply) => reply)
    await beforeManifestSync.reached
    for (let second = 0; second < 200; second += 10) {
      clock.advance(10_000)
      await client.get("/v1/relay").expect(200)
    }
    const second = await client.postFinish(upload, delivery.finish)
    expect([second.status, second.body.code]).toEqual([503, "busy"])
    beforeManifestSync.end()
    expect((await first).status).toBe(200)
    const session = await client.login(alice)
    const manifest = await client.bytes(`/v1/deliveries/${upload.id}/manifest`, session)
    expect(toHex(manifest.body)).toBe(toHex(delivery.manifest))
    expect(clock.waiting).toBe(0)
  })

  it("keeps its manifest when its time was over before it knew", async () => {
    const { client } = under
    const delivery = makeDelivery([alice], { manifestLength })
    const upload = await client.start([alice])
    await client.putBody(upload, delivery.body)
    beforeManifestSync = new Pause()
    const first = client.postFinish(upload, delivery.finish).then((reply) => reply)
    await beforeManifestSync.reached
    // The machine slept: the wall clock moved and no timer rang.
    clock.jump(200_000)
    expect((await client.postFinish(upload, delivery.finish)).status).toBe(503)
    beforeManifestSync.end()
    expect((await first).status).toBe(200)
    const session = await client.login(alice)
    const manifest = await client.bytes(`/v1/deliveries/${upload.id}/manifest`, session)
    expect(toHex(manifest.body)).toBe(toHex(delivery.manifest))
  })

  it("closes and removes the manifest of a client that left while it was being made", async () => {
    const { client } = under
    const { url } = await under.relay.start()
    const delivery = makeDelivery([alice], { manifestLength })
    const upload = await client.start([alice])
    await client.putBody(upload, delivery.body)
    const spool = join(under.folder, "spool", upload.id)
    await expect.poll(() => openFiles).toBe(0)
    const before = readdirSync(spool)
    beforeCreate = new Pause()
    const { hostname, port } = new URL(url)
    const socket = connect(Number(port), hostname)
    await once(socket, "connect")
    const head = [
      `POST /v1/uploads/${upload.id}/finish HTTP/1.1`,
      `Host: ${hostname}:${port}`,
      `Authorization: ${encodeBearer(upload.token)}`,
      "Content-Type: application/octet-stream",
      `Content-Length: ${delivery.finish.length}`,
    ]
    socket.write(`${head.join("\r\n")}\r\n\r\n`)
    socket.write(delivery.finish.subarray(0, 1000))
    await beforeCreate.reached
    socket.destroy()
    for (let turn = 0; turn < 20; turn++) await client.get("/v1/relay").expect(200)
    beforeCreate.end()
    beforeCreate = undefined
    await expect.poll(() => readdirSync(spool)).toEqual(before)
    await expect.poll(() => openFiles).toBe(0)
    // The claim is given back last of all.
    const again = async () => (await client.postFinish(upload, delivery.finish)).status
    await expect.poll(again).toBe(200)
  })
})
