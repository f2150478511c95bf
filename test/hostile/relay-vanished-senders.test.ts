// Senders who go away: what they had on the disk, in memory and of the limits comes back.
import { once } from "node:events"
import { readdirSync } from "node:fs"
import { get } from "node:http"
import { connect } from "node:net"
import { join } from "node:path"
import { text } from "node:stream/consumers"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import {
  encodeBearer,
  gridLength,
  type Identity,
  parseRelayStatus,
  type RelayStatus,
  random,
} from "../../protocol/index.js"
import { ManualClock } from "../server/manual-clock.js"
import { personAt } from "../server/people.js"
import {
  makeDelivery,
  openRelay,
  type RelayUnderTest,
  type StartedUpload,
} from "../server/relay-under-test.js"

const inboxBytes = 4 * 1024 ** 2
const hourMs = 3_600_000

describe("senders who go away", () => {
  let under: RelayUnderTest
  let clock: ManualClock
  let alice: Identity
  let port: number

  beforeEach(async () => {
    clock = new ManualClock()
    under = await openRelay({ ports: { clock }, config: { inboxBytes } })
    port = Number(new URL((await under.relay.start()).url).port)
    alice = await personAt(0)
    await under.client.register(alice)
  })

  afterEach(() => under.remove())

  async function status(): Promise<RelayStatus> {
    const socketPath = join(under.folder, "operator.sock")
    const [answer] = await once(get("http://relay/status", { socketPath }), "response")
    return parseRelayStatus(JSON.parse(await text(answer)))
  }

  /** Says the beginning of a request and is gone. */
  async function sayAndGo(upload: StartedUpload, request: string, body: Uint8Array): Promise<void> {
    const socket = connect(port, "127.0.0.1")
    await once(socket, "connect")
    const head = [
      request,
      "Host: relay.test",
      `Authorization: ${encodeBearer(upload.token)}`,
      "Content-Type: application/octet-stream",
    ]
    socket.write(`${head.join("\r\n")}\r\n\r\n`)
    await new Promise<void>((resolve) => socket.write(body, () => resolve()))
    // The relay has read it.
    for (let turn = 0; turn < 5; turn++) await under.client.get("/v1/relay").expect(200)
    socket.resetAndDestroy()
  }

  /** What is in the upload's folder when nobody is at work there any more. */
  async function settled({ id }: StartedUpload): Promise<string[]> {
    for (;;) {
      await under.client.get("/v1/relay").expect(200)
      const names = readdirSync(join(under.folder, "spool", id))
      if (!names.some((name) => name.startsWith("t-"))) return names.sort()
    }
  }

  async function hasRoom(): Promise<boolean> {
    const reply = await under.client.postUpload([alice], { reserveBytes: inboxBytes })
    if (reply.status === 201) return true
    expect([reply.status, reply.body.code, reply.headers["retry-after"]]).toEqual([
      507,
      "inbox_full",
      "3600",
    ])
    return false
  }

  it("in the middle of a part and of a manifest leave nothing half behind, and can come back", async () => {
    const { client } = under
    const delivery = makeDelivery([alice], { bodyLength: 200_000, manifestLength: 200_000 })
    const upload = await client.start([alice], 1024 ** 2)
    for (const bytes of [1, 40_000, gridLength(0) - 1]) {
      const put = `PUT /v1/uploads/${upload.id}/parts/0 HTTP/1.1\r\nContent-Length: ${gridLength(0)}`
      await sayAndGo(upload, put, random(bytes))
      expect(await settled(upload)).toEqual(["upload.v1"])
    }
    await client.putBody(upload, delivery.body)
    const post = `POST /v1/uploads/${upload.id}/finish HTTP/1.1\r\nContent-Length: ${delivery.finish.length}`
    for (const bytes of [100, 100_000, delivery.finish.length - 1]) {
      await sayAndGo(upload, post, delivery.finish.subarray(0, bytes))
      expect((await settled(upload)).filter((name) => !/^p[01]-/.test(name))).toEqual(["upload.v1"])
    }
    await client.postFinish(upload, delivery.finish).expect(200)
    expect(await status()).toMatchObject({ openUploads: 0, waiting: { deliveries: 1 } })
  })

  it("between start and finish leave what they reserved to others: at once when they give up, else when their time is over", async () => {
    const { client } = under
    const upload = await client.start([alice], inboxBytes)
    await client.putPart(upload, 0, random(gridLength(0))).expect(200)
    expect(await hasRoom()).toBe(false)
    await client.delete(`/v1/uploads/${upload.id}`, encodeBearer(upload.token)).expect(204)
    expect(await hasRoom()).toBe(true)
    // That one is never heard of again.
    expect(await hasRoom()).toBe(false)
    expect((await status()).openUploads).toBe(1)
    clock.advance(24 * hourMs)
    expect(await hasRoom()).toBe(true)
    for (let hour = 0; hour < 49; hour++) {
      clock.advance(hourMs)
      await under.relay.sweep()
    }
    expect(await status()).toMatchObject({ openUploads: 0, waiting: { deliveries: 0, bytes: 0 } })
    expect(readdirSync(join(under.folder, "spool"))).toEqual([])
    expect(readdirSync(join(under.folder, "trash"))).toEqual([])
    const sent = await client.send(makeDelivery([alice]))
    expect(sent.reply.receipts).toHaveLength(1)
  })
})
