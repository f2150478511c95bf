// One who holds on to what all share: others get theirs without his letting go.
import { once } from "node:events"
import { connect, type Socket } from "node:net"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { encodeBearer, gridLength, type Identity, MIB, random } from "../../protocol/index.js"
import { ManualClock } from "../server/manual-clock.js"
import { personAt } from "../server/people.js"
import { makeDelivery, openRelay, type RelayUnderTest } from "../server/relay-under-test.js"
import { until } from "./raw-connection.js"

const moreThanThereAreBuffers = 60

describe("one network that takes all it can", () => {
  let under: RelayUnderTest
  let clock: ManualClock
  let alice: Identity
  let port: number
  let sockets: Socket[]

  beforeEach(async () => {
    clock = new ManualClock()
    sockets = []
    under = await openRelay({ ports: { clock } })
    port = Number(new URL((await under.relay.start()).url).port)
    alice = await personAt(0)
    await under.client.register(alice)
  })

  afterEach(async () => {
    for (const socket of sockets) socket.destroy()
    const removed = under.remove()
    // What a failed test left under way is cut off.
    clock.advance(60_000)
    await removed
  })

  /** Says this from another address than the rest of the test, and reads nothing. */
  async function begin(head: readonly string[], body: Uint8Array): Promise<Socket> {
    const socket = connect({ port, host: "127.0.0.1", localAddress: "127.77.3.9" })
    socket.on("error", () => undefined)
    sockets.push(socket)
    await once(socket, "connect")
    socket.write(`${[...head, "Host: relay.test"].join("\r\n")}\r\n\r\n`)
    await new Promise<void>((resolve) => socket.write(body, () => resolve()))
    return socket
  }

  /** The relay has done what it can with all that was said to it. */
  async function settle(): Promise<void> {
    for (let turn = 0; turn < 20; turn++) await under.client.get("/v1/relay").expect(200)
  }

  it("T42: of the room for bodies on their way in leaves enough for others", async () => {
    const { client } = under
    const held = await client.start([alice])
    const head = [
      `PUT /v1/uploads/${held.id}/parts/0 HTTP/1.1`,
      `Authorization: ${encodeBearer(held.token)}`,
      "Content-Type: application/octet-stream",
      `Content-Length: ${gridLength(0)}`,
    ]
    for (let at = 0; at < moreThanThereAreBuffers; at++) await begin(head, random(40_000))
    await settle()
    const { reply } = await client.send(makeDelivery([alice], { bodyLength: 700_000 }))
    expect(reply.receipts).toHaveLength(1)
  })

  it("T42: of the room for bodies on their way out leaves enough for others, and is ended when it does not go on", async () => {
    const { client } = under
    const delivery = makeDelivery([alice], { bodyLength: 12 * MIB })
    const { id } = await client.send(delivery)
    const session = await client.login(alice)
    const head = [`GET /v1/deliveries/${id}/body HTTP/1.1`, `Authorization: ${session}`]
    const before = clock.waiting
    for (let at = 0; at < moreThanThereAreBuffers; at++) {
      const socket = await begin(head, new Uint8Array(0))
      socket.pause()
    }
    await until(() => clock.waiting >= before + moreThanThereAreBuffers)
    await settle()
    const body = await client.bytes(`/v1/deliveries/${id}/body`, session)
    expect(Buffer.compare(body.body, delivery.body)).toBe(0)
    // While others wait half a minute each, and the last ones a mebibyte at a kibibyte a second. Then
    // no answer is at work and none holds the delivery any more.
    for (let minute = 0; minute < 40 && clock.waiting > before; minute++) {
      clock.advance(60_000)
      await settle()
    }
    expect(clock.waiting).toBeLessThanOrEqual(before)
  })
})
