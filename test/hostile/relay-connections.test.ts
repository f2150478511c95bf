// Connections that are held, filled or left: what each may cost, and when it ends.
import { once } from "node:events"
import { connect, type Socket } from "node:net"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { ManualClock } from "../server/manual-clock.js"
import { openRelay, type RelayUnderTest } from "../server/relay-under-test.js"
import { answerOn, until } from "./raw-connection.js"

describe("a connection that asks for more than an answer", () => {
  let under: RelayUnderTest
  let clock: ManualClock
  let port: number
  let sockets: Socket[]

  beforeEach(async () => {
    clock = new ManualClock()
    sockets = []
    under = await openRelay({ ports: { clock } })
    port = Number(new URL((await under.relay.start()).url).port)
  })

  afterEach(async () => {
    for (const socket of sockets) socket.destroy()
    const removed = under.remove()
    // What a failed test left under way is cut off.
    clock.advance(10_000)
    await removed
  })

  function open(options: { readonly allowHalfOpen?: boolean } = {}): Socket {
    const socket = connect({ port, host: "127.0.0.1", ...options })
    sockets.push(socket)
    return socket
  }

  it("T42: a body that nobody asked for is not waited for once the answer is out", async () => {
    for (const route of ["GET /v1/relay", "GET /healthz", "GET /v1/probe"]) {
      const socket = open()
      const before = clock.waiting
      socket.write(`${route} HTTP/1.1\r\nHost: relay.test\r\nContent-Length: 1000000000\r\n\r\n`)
      const answer = answerOn(socket)
      await once(socket, "data")
      await until(() => clock.waiting > before)
      socket.write("x")
      clock.advance(10_000)
      expect((await answer).statuses).toEqual([200])
    }
  })

  it("T42: one that is told that it is no HTTP, and stays, is closed", async () => {
    const socket = open({ allowHalfOpen: true })
    const before = clock.waiting
    socket.write("no HTTP at all\r\n\r\n")
    socket.resume()
    await once(socket, "end")
    await until(() => clock.waiting > before)
    // Its own end of the connection is open, and the relay lets go of it all the same.
    clock.advance(10_000)
    socket.on("error", () => undefined)
    await until(() => {
      if (!socket.destroyed) socket.write("x")
      return socket.destroyed
    })
  })

  it("T42: of pipelined requests one is at work at a time, and the answers come in order", async () => {
    const socket = open()
    const before = clock.waiting
    const asked = [1, 2, 3, 4, 5]
    socket.write(asked.map((at) => getOneByte(at, `?wait=${at}`)).join(""))
    socket.write(`GET /healthz HTTP/1.1\r\nHost: relay.test\r\nConnection: close\r\n\r\n`)
    const answer = answerOn(socket)
    for (const seconds of asked) {
      await until(() => clock.waiting > before)
      for (let turn = 0; turn < 5; turn++) await under.client.get("/v1/relay").expect(200)
      expect(clock.waiting).toBe(before + 1)
      clock.advance(1000 * seconds)
    }
    const { statuses, text } = await answer
    expect(statuses).toEqual([206, 206, 206, 206, 206, 200])
    const ranges = [...text.matchAll(/Content-Range: bytes ([0-9]+)-/gi)].map(([, at]) =>
      Number(at),
    )
    expect(ranges).toEqual(asked)
  })

  it("whose relay stops meanwhile is told with the next answer that it ends", async () => {
    const socket = open()
    const before = clock.waiting
    socket.write(getOneByte(1, "?wait=45") + getOneByte(2) + getOneByte(3))
    const answer = answerOn(socket)
    await until(() => clock.waiting > before)
    const stopping = under.relay.stop()
    const { statuses, text } = await answer
    // The first began before; with the second it is told, and the third goes elsewhere.
    expect(statuses).toEqual([206, 206])
    expect(text.match(/^Connection: .*$/gim)).toEqual([
      "Connection: keep-alive",
      "Connection: close",
    ])
    clock.advance(10_000)
    await stopping
  })

  it("T42: thousands of pipelined requests are answered in order up to a thousand, and then the connection ends", async () => {
    for (const count of [1000, 3000]) {
      const socket = open()
      const asked = Array.from({ length: count }, (_, at) => at)
      const texts = asked.map((at) => getOneByte(at))
      socket.write(texts.join(""))
      const { text } = await answerOn(socket)
      const ranges = [...text.matchAll(/Content-Range: bytes ([0-9]+)-/gi)]
      // Of a connection that ends with something unread the last answers may be lost on the way.
      if (count === 1000) expect(ranges).toHaveLength(1000)
      expect(ranges.map(([, at]) => Number(at))).toEqual(asked.slice(0, ranges.length))
      expect(ranges.length).toBeLessThanOrEqual(1000)
      expect(text).not.toContain(" 503 ")
    }
  })
})

/** The answer says which byte it is. */
function getOneByte(at: number, query: string = ""): string {
  return `GET /v1/probe${query} HTTP/1.1\r\nHost: relay.test\r\nRange: bytes=${at}-${at}\r\n\r\n`
}
