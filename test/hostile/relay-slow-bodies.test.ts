// Connections that begin a body and go on slowly or not at all.
import { connect, type Socket } from "node:net"
import { once } from "node:events"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { encodeBearer, gridLength, type Identity, random } from "../../protocol/index.js"
import { ManualClock } from "../server/manual-clock.js"
import { personAt } from "../server/people.js"
import {
  makeDelivery,
  openRelay,
  partOf,
  type RelayUnderTest,
  type StartedUpload,
} from "../server/relay-under-test.js"

const moreThanThereAreBuffers = 120

describe("bodies that come slowly", () => {
  let under: RelayUnderTest
  let clock: ManualClock
  let alice: Identity
  let url: string
  let sockets: Socket[]

  beforeEach(async () => {
    clock = new ManualClock()
    sockets = []
    under = await openRelay({ ports: { clock } })
    url = (await under.relay.start()).url
    alice = await personAt(0)
    await under.client.register(alice)
  })

  afterEach(async () => {
    for (const socket of sockets) socket.destroy()
    await under.remove()
  })

  /** A PUT of the first part that stops after so many bytes. */
  async function begin(upload: StartedUpload, bytes: number): Promise<Socket> {
    const { hostname, port } = new URL(url)
    const socket = connect(Number(port), hostname)
    socket.on("error", () => undefined)
    sockets.push(socket)
    await once(socket, "connect")
    const head = [
      `PUT /v1/uploads/${upload.id}/parts/0 HTTP/1.1`,
      `Host: ${hostname}:${port}`,
      `Authorization: ${encodeBearer(upload.token)}`,
      "Content-Type: application/octet-stream",
      `Content-Length: ${gridLength(0)}`,
    ]
    socket.write(`${head.join("\r\n")}\r\n\r\n`)
    await new Promise<void>((resolve) => socket.write(random(bytes), () => resolve()))
    return socket
  }

  /** Everybody has been heard, and then half a minute passes: less than any limit of their own. */
  async function letSecondsPass(): Promise<void> {
    for (let second = 0; second < 30; second++) {
      for (let turn = 0; turn < 5; turn++) await under.client.get("/v1/relay").expect(200)
      clock.advance(1000)
    }
  }

  for (const bytes of [1, 40_000, gridLength(0) - 1]) {
    it(`ones that stop after ${bytes} bytes keep no one else out for long`, async () => {
      const { client } = under
      const held = await client.start([alice])
      for (let at = 0; at < moreThanThereAreBuffers; at++) await begin(held, bytes)
      const delivery = makeDelivery([alice], { bodyLength: 700_000 })
      await letSecondsPass()
      expect((await client.send(delivery)).reply.receipts).toHaveLength(1)
    })
  }

  it("gives back the buffer of one who left while it waited for it", async () => {
    const { client } = under
    const held = await client.start([alice])
    for (let round = 0; round < 3; round++) {
      for (let at = 0; at < moreThanThereAreBuffers; at++) await begin(held, 40_000)
      for (const socket of sockets.splice(0)) socket.destroy()
    }
    const upload = await client.start([alice])
    const { body } = makeDelivery([alice], { bodyLength: 700_000 })
    await letSecondsPass()
    await client.putPart(upload, 0, partOf(body, 0)).expect(200)
  })
})
