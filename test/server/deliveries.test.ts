import { EventEmitter, once } from "node:events"
import { get, type IncomingMessage } from "node:http"
import type supertest from "supertest"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import {
  encodeBearer,
  gridCount,
  type Identity,
  parseStatusReply,
  random,
  toHex,
} from "../../protocol/index.js"
import type { Disk } from "../../server/index.js"
import { nodeDisk } from "../../server/node-disk.js"
import type { ManualClock } from "./manual-clock.js"
import {
  leavesOf,
  makeDelivery,
  openRelay,
  openRelayWithInboxes,
  partOf,
  type RelayUnderTest,
  type SmallClient,
  type StartedUpload,
  type TestDelivery,
} from "./relay-under-test.js"

const dayMs = 86_400_000
const minuteMs = 60_000
const pieces = ["header", "envelope", "manifest", "leaves", "body", "parts/0"]

describe("deliveries", () => {
  let under: RelayUnderTest
  let alice: Identity
  let bob: Identity
  let clock: ManualClock
  let delivery: TestDelivery
  let sent: StartedUpload
  let session: string

  beforeEach(async () => {
    ;({ under, clock, alice, bob } = await openRelayWithInboxes())
    delivery = makeDelivery([alice, bob], { bodyLength: 3_000_000, manifestLength: 1_500_000 })
    sent = await under.client.send(delivery)
    session = await under.client.login(alice)
  })

  afterEach(() => under.remove())

  const piece = (name: string, as: string = session, range?: string) =>
    under.client.bytes(`/v1/deliveries/${sent.id}/${name}`, as, range)

  it("gives each piece as it was sent", async () => {
    expect(toHex((await piece("header")).body)).toBe(toHex(delivery.header))
    expect(toHex((await piece("envelope")).body)).toBe(toHex(delivery.envelopes[0] ?? random(1)))
    expect(Buffer.compare((await piece("manifest")).body, delivery.manifest)).toBe(0)
    expect(toHex((await piece("leaves")).body)).toBe(leavesOf(delivery.body).map(toHex).join(""))
    expect(Buffer.compare((await piece("body")).body, delivery.body)).toBe(0)
    for (let index = 0; index < gridCount(delivery.body.length); index++) {
      const part = await piece(`parts/${index}`)
      expect(Buffer.compare(part.body, partOf(delivery.body, index))).toBe(0)
    }
  })

  it("gives each recipient its own envelope", async () => {
    const reply = await piece("envelope", await under.client.login(bob))
    expect(toHex(reply.body)).toBe(toHex(delivery.envelopes[1] ?? random(1)))
  })

  it("serves one range of the body, across parts and at its edges", async () => {
    const size = delivery.body.length
    const ranges = [
      [0, 0],
      [0, size - 1],
      [131_071, 131_072],
      [100, 2_000_000],
      [size - 1, size - 1],
      [size - 5, size + 100],
    ] as const
    for (const [from, to] of ranges) {
      const reply = await piece("body", session, `bytes=${from}-${to}`)
      const last = Math.min(to, size - 1)
      expect(reply.status).toBe(206)
      expect(reply.headers["content-range"]).toBe(`bytes ${from}-${last}/${size}`)
      expect(Buffer.compare(reply.body, delivery.body.subarray(from, last + 1))).toBe(0)
    }
    const open = await piece("body", session, "bytes=2999990-")
    expect(open.body.length).toBe(10)
  })

  it("refuses ranges that cannot be served, are several, or are none", async () => {
    const bad = [
      "bytes=3000000-",
      "bytes=5-4",
      "bytes=0-1,3-4",
      "bytes=-5",
      "bytes=a-b",
      "bits=0-1",
      "bytes=99999999999999999999-",
      "",
    ]
    for (const range of bad) {
      const reply = await under.client
        .get(`/v1/deliveries/${sent.id}/body`, session)
        .set("Range", range)
      expect([range, reply.status, reply.body.code]).toEqual([range, 416, "range_not_satisfiable"])
      expect(reply.headers["content-range"]).toBe("bytes */3000000")
    }
  })

  it("refuses part indices that are not canonical or not there", async () => {
    for (const [index, status] of [
      ["01", 400],
      ["-1", 400],
      ["1e3", 400],
      ["2147483648", 400],
      ["7", 404],
      ["2147483647", 404],
    ] as const) {
      expect((await piece(`parts/${index}`)).status, index).toBe(status)
    }
  })

  it("shows nothing to a session of another inbox", async () => {
    const own = await under.client.send(makeDelivery([alice]))
    const other = await under.client.login(bob)
    for (const name of pieces) {
      const foreign = await under.client.get(`/v1/deliveries/${own.id}/${name}`, other)
      const unknown = await under.client.get(`/v1/deliveries/${"0".repeat(32)}/${name}`, other)
      expect([foreign.status, foreign.body.code]).toEqual([404, "not_found"])
      expect(foreign.body).toEqual(unknown.body)
    }
  })

  it("is gone from one inbox when its owner takes it, and from the disk when the last has", async () => {
    const { client } = under
    await client.delete(`/v1/deliveries/${sent.id}`, session).expect(204)
    for (const name of pieces) expect((await piece(name)).status).toBe(404)
    expect((await client.list(session)).entries).toMatchObject([{ kind: "gone", seq: 1 }])
    expect((await client.list(session)).used).toEqual({ bytes: 0, deliveries: 0 })
    const other = await client.login(bob)
    expect((await piece("body", other)).status).toBe(200)
    await client.delete(`/v1/deliveries/${sent.id}`, other).expect(204)
    const status = await client.get(
      `/v1/deliveries/${sent.id}/status`,
      encodeBearer(sent.deleteCap),
    )
    expect(parseStatusReply(status.body).recipients.map(({ state }) => state)).toEqual([
      "taken",
      "taken",
    ])
  })

  it("answers a repeated removal, and one of what never was, as the first", async () => {
    const { client } = under
    for (const id of [sent.id, sent.id, "0".repeat(32)]) {
      await client.delete(`/v1/deliveries/${id}`, session).expect(204)
    }
  })

  it("goes everywhere when its sender revokes it, and stays taken where it was taken", async () => {
    const { client } = under
    await client.delete(`/v1/deliveries/${sent.id}`, session).expect(204)
    const capability = encodeBearer(sent.deleteCap)
    await client.delete(`/v1/deliveries/${sent.id}`, capability).expect(204)
    await client.delete(`/v1/deliveries/${sent.id}`, capability).expect(204)
    const status = await client.get(`/v1/deliveries/${sent.id}/status`, capability).expect(200)
    expect(parseStatusReply(status.body).recipients).toEqual([
      { address: alice.bundle.address, state: "taken" },
      { address: bob.bundle.address, state: "revoked" },
    ])
    const other = await client.login(bob)
    expect((await piece("body", other)).status).toBe(404)
    expect((await client.list(other)).entries).toMatchObject([{ kind: "gone", seq: 1 }])
  })

  /** What `ask` is answered when the last recipient takes the delivery while the relay reads its links. */
  async function askedWhileTaken(
    ask: (client: SmallClient, sent: StartedUpload, delivery: TestDelivery) => supertest.Test,
  ): Promise<number> {
    const steps = new EventEmitter()
    const [reached, taken] = [once(steps, "reached"), once(steps, "taken")]
    let isArmed = false
    const disk: Disk = {
      ...nodeDisk,
      async open(path, access) {
        if (isArmed && path.endsWith("links.v1")) {
          isArmed = false
          steps.emit("reached")
          await taken
        }
        return nodeDisk.open(path, access)
      },
    }
    const slow = await openRelay({ ports: { disk } })
    try {
      const { client } = slow
      await client.register(alice)
      const made = makeDelivery([alice])
      const upload = await client.send(made)
      const owner = await client.login(alice)
      isArmed = true
      const asked = ask(client, upload, made).then(({ status }) => status)
      await reached
      await client.delete(`/v1/deliveries/${upload.id}`, owner).expect(204)
      steps.emit("taken")
      return await asked
    } finally {
      await slow.remove()
    }
  }

  it("is revoked also where its last recipient takes it at that very moment", async () => {
    const status = await askedWhileTaken((client, { id, deleteCap }) =>
      client.delete(`/v1/deliveries/${id}`, encodeBearer(deleteCap)),
    )
    expect(status).toBe(204)
  })

  it("has its receipts also where its last recipient takes it while it is finished again", async () => {
    const status = await askedWhileTaken((client, upload, { finish }) =>
      client.postFinish(upload, finish),
    )
    expect(status).toBe(200)
  })

  it("is not revoked by the wrong capability or by the upload's token", async () => {
    const { client } = under
    for (const credential of [random(32), sent.token]) {
      const bearer = encodeBearer(credential)
      const reply = await client.delete(`/v1/deliveries/${sent.id}`, bearer)
      const unknown = await client.delete(`/v1/deliveries/${"0".repeat(32)}`, bearer)
      expect([reply.status, reply.body.code]).toEqual([401, "unauthorized"])
      expect(reply.body).toEqual(unknown.body)
    }
    expect((await piece("body")).status).toBe(200)
  })

  it("tells its sender what became of it, and nobody else", async () => {
    const { client } = under
    const path = `/v1/deliveries/${sent.id}/status`
    const status = parseStatusReply((await client.get(path, encodeBearer(sent.deleteCap))).body)
    expect(status).toMatchObject({ id: sent.id, acceptedMs: clock.wallMs() })
    expect(status.recipients.map(({ state }) => state)).toEqual(["waiting", "waiting"])
    for (const credential of [encodeBearer(random(32)), session]) {
      const reply = await client.get(path, credential)
      expect([reply.status, reply.body.code]).toEqual([404, "not_found"])
    }
    expect((await client.get(path)).status).toBe(401)
  })

  it("expires for every reader at its time, without a sweep, and says so for thirty days more", async () => {
    const { client } = under
    clock.advance(14 * dayMs)
    session = await client.login(alice)
    for (const name of pieces) {
      const reply = await client.get(`/v1/deliveries/${sent.id}/${name}`, session)
      expect([reply.status, reply.body.code]).toEqual([410, "expired"])
    }
    const path = `/v1/deliveries/${sent.id}/status`
    const capability = encodeBearer(sent.deleteCap)
    const expectExpired = async () => {
      const status = parseStatusReply((await client.get(path, capability)).body)
      expect(status.recipients.map(({ state }) => state)).toEqual(["expired", "expired"])
      expect((await client.list(session)).entries).toMatchObject([{ kind: "gone", seq: 1 }])
    }
    await expectExpired()
    await under.relay.sweep()
    await expectExpired()
    expect((await piece("body")).status).toBe(410)
    clock.advance(30 * dayMs)
    await under.relay.sweep()
    expect((await client.get(path, capability)).status).toBe(404)
    session = await client.login(alice)
    const page = await client.list(session)
    expect(page.entries).toEqual([])
    expect(page.floor.seq).toBe(1)
  })

  it("keeps the reason it was seen to be gone for, whoever removes it once more before the sweep", async () => {
    const { client } = under
    clock.advance(14 * dayMs)
    session = await client.login(alice)
    const capability = encodeBearer(sent.deleteCap)
    const seen = async () => {
      const reply = await client.get(`/v1/deliveries/${sent.id}/status`, capability)
      const { recipients } = parseStatusReply(reply.body)
      return [recipients.map(({ state }) => state), (await client.list(session)).entries]
    }
    const before = await seen()
    expect(before[0]).toEqual(["expired", "expired"])
    await client.delete(`/v1/deliveries/${sent.id}`, session).expect(204)
    expect(await seen()).toEqual(before)
    await client.delete(`/v1/deliveries/${sent.id}`, capability).expect(204)
    expect(await seen()).toEqual(before)
  })

  it("is taken, and not expired, where its recipient was fetching it as its time was over", async () => {
    const { client } = under
    clock.advance(14 * dayMs - minuteMs)
    session = await client.login(alice)
    expect((await piece("body")).status).toBe(200)
    clock.advance(5 * minuteMs)
    await client.delete(`/v1/deliveries/${sent.id}`, session).expect(204)
    const capability = encodeBearer(sent.deleteCap)
    const reply = await client.get(`/v1/deliveries/${sent.id}/status`, capability)
    const { recipients } = parseStatusReply(reply.body)
    expect(recipients.map(({ state }) => state)).toEqual(["taken", "expired"])
  })

  it("lets one long request end, too, whose answer is read as slowly as may be, within an hour of expiry", async () => {
    // More than the connection takes on its own while nobody reads.
    const large = makeDelivery([alice], { bodyLength: 64 * 1024 ** 2 })
    const { id } = await under.client.send(large)
    clock.advance(14 * dayMs - 15 * minuteMs)
    session = await under.client.login(alice)
    const alarms = clock.waiting
    const { url } = await under.relay.start()
    const asked = get(`${url}/v1/deliveries/${id}/body`, { headers: { authorization: session } })
    const answer: IncomingMessage = (await once(asked, "response"))[0]
    const received: Buffer[] = []
    const chunks = answer.iterator({ destroyOnReturn: false })
    for (let minutes = -15; minutes < 55; minutes += 5) {
      clock.advance(5 * minuteMs)
      await under.relay.sweep()
      // Slow, but more than the connection can hold back for as long as a part may take.
      for (let size = 0; size < 2 * 1024 ** 2;) {
        const chunk: Buffer = (await chunks.next()).value
        received.push(chunk)
        size += chunk.length
      }
    }
    for await (const chunk of chunks) received.push(chunk)
    expect(Buffer.compare(Buffer.concat(received), large.body)).toBe(0)
    expect(clock.waiting).toBe(alarms)
    clock.advance(6 * minuteMs)
    session = await under.client.login(alice)
    expect((await under.client.get(`/v1/deliveries/${id}/body`, session)).status).toBe(410)
  })

  it("lets a download that began in time end, within an hour of expiry", async () => {
    clock.advance(14 * dayMs - minuteMs)
    session = await under.client.login(alice)
    expect((await piece("parts/0")).status).toBe(200)
    clock.advance(5 * minuteMs)
    await under.relay.sweep()
    expect((await piece("parts/1")).status).toBe(200)
    clock.advance(9 * minuteMs)
    await under.relay.sweep()
    expect((await piece("parts/2")).status).toBe(200)
    clock.advance(11 * minuteMs)
    expect((await piece("parts/3")).status).toBe(410)
  })
})
