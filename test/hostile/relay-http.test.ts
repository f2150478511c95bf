import { connect } from "node:net"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import {
  encodeBearer,
  gridLength,
  type Identity,
  parseUploadState,
  random,
} from "../../protocol/index.js"
import { ManualClock } from "../server/manual-clock.js"
import { personAt } from "../server/people.js"
import { openRelay, type RelayUnderTest, type StartedUpload } from "../server/relay-under-test.js"
import { answerOn, say, until } from "./raw-connection.js"

describe("HTTP that is not as it should be", () => {
  let under: RelayUnderTest
  let alice: Identity
  let port: number
  let upload: StartedUpload
  let clock: ManualClock

  beforeEach(async () => {
    clock = new ManualClock()
    under = await openRelay({ ports: { clock } })
    const { url } = await under.relay.start()
    port = Number(new URL(url).port)
    alice = await personAt(0)
    await under.client.register(alice)
    upload = await under.client.start([alice])
  })

  afterEach(() => under.remove())

  const putHead = (...headers: readonly string[]) =>
    [
      `PUT /v1/uploads/${upload.id}/parts/0 HTTP/1.1`,
      "Host: relay.test",
      `Authorization: ${encodeBearer(upload.token)}`,
      "Content-Type: application/octet-stream",
      ...headers,
      "",
      "",
    ].join("\r\n")

  async function arrivedParts(): Promise<number> {
    const reply = await under.client.get(`/v1/uploads/${upload.id}`, encodeBearer(upload.token))
    return parseUploadState(reply.body).runs.length
  }

  it("T43: a body shorter than its Content-Length stores nothing", async () => {
    const socket = connect(port, "127.0.0.1")
    socket.write(putHead("Content-Length: 100"))
    socket.end(random(50))
    const { statuses } = await answerOn(socket)
    expect(statuses.every((status) => status === 400)).toBe(true)
    expect(await arrivedParts()).toBe(0)
  })

  it("T43: what follows a body of its declared length is no part of it, and closes the connection", async () => {
    const head = putHead("Content-Length: 100")
    const { statuses } = await say(port, head, new Uint8Array(150).fill(1))
    expect(statuses.at(-1)).toBe(400)
    const part = await under.client.putPart(upload, 0, new Uint8Array(150).fill(1))
    expect(part.status).not.toBe(200)
  })

  it("T43: both Content-Length and Transfer-Encoding, or one of them twice, are refused and the connection closed", async () => {
    for (const headers of [
      ["Content-Length: 5", "Transfer-Encoding: chunked"],
      ["Transfer-Encoding: chunked", "Content-Length: 5"],
      ["Content-Length: 5", "Content-Length: 5"],
      ["Content-Length: 5", "Content-Length: 6"],
      ["Content-Length: 5, 5"],
      ["Content-Length: +5"],
      ["Content-Length: 0x5"],
      ["Content-Length: -1"],
      ["Transfer-Encoding: identity"],
      ["Transfer-Encoding: gzip, chunked"],
    ]) {
      const { statuses, text } = await say(port, putHead(...headers), "0\r\n\r\n")
      expect([headers, statuses[0]]).toEqual([headers, 400])
      expect(text).toMatch(/^Connection: close/im)
    }
    expect(await arrivedParts()).toBe(0)
  })

  it("T43: Transfer-Encoding alone is refused and the connection closed", async () => {
    const { statuses, text } = await say(
      port,
      putHead("Transfer-Encoding: chunked"),
      "5\r\nhello\r\n0\r\n\r\n",
    )
    expect(statuses).toEqual([400])
    expect(text).toContain("application/problem+json")
    expect(await arrivedParts()).toBe(0)
  })

  it("T43: a body without a length is asked for one", async () => {
    const { statuses, text } = await say(port, putHead("Connection: close"))
    expect(statuses).toEqual([411])
    expect(text).toContain('"length_required"')
  })

  it("T43: a body announced with 100-continue is asked for only when it is wanted", async () => {
    const body = random(100)
    const wanted = connect(port, "127.0.0.1")
    wanted.write(putHead("Content-Length: 100", "Expect: 100-continue", "Connection: close"))
    const text = await new Promise<string>((resolve) =>
      wanted.once("data", (data) => resolve(String(data))),
    )
    expect(text).toBe("HTTP/1.1 100 Continue\r\n\r\n")
    wanted.write(body)
    expect((await answerOn(wanted)).statuses).toEqual([200])

    const unwanted = putHead("Content-Length: 2000000", "Expect: 100-continue", "Connection: close")
    const refused = await say(port, unwanted)
    expect(refused.statuses).toEqual([413])
    const other = await say(
      port,
      putHead("Content-Length: 5", "Expect: 200-maybe", "Connection: close"),
    )
    expect(other.statuses).toEqual([400])
  })

  it("T43: what is not HTTP is told so, in the form of every refusal", async () => {
    const { statuses, text } = await say(port, "hello there\r\n\r\n")
    expect(statuses).toEqual([400])
    expect(text).toContain('"code":"bad_request"')
    expect(text).toMatch(/^X-Content-Type-Options: nosniff/im)
  })

  it("T43: headers without end are refused before they are kept", async () => {
    const { statuses } = await say(
      port,
      `GET /v1/relay HTTP/1.1\r\nHost: x\r\nX-Long: ${"x".repeat(9000)}`,
    )
    expect(statuses[0]).toBe(400)
  })

  it("says nothing in the middle of an answer about what cannot be read after it", async () => {
    const before = clock.waiting
    const socket = connect(port, "127.0.0.1")
    socket.write("GET /v1/probe?pause=1000 HTTP/1.1\r\nHost: relay.test\r\n\r\n")
    const answer = answerOn(socket)
    // Half of the body is out by then.
    await until(() => clock.waiting > before)
    socket.write("no HTTP at all\r\n\r\n")
    const { statuses, text } = await answer
    expect(statuses).toEqual([200])
    expect(text).not.toContain("bad_request")
    expect((await say(port, "no HTTP at all\r\n\r\n")).statuses).toEqual([400])
  })

  it("T43: an upgrade or a tunnel is not granted", async () => {
    const socket = connect(port, "127.0.0.1")
    socket.write(
      "GET /v1/relay HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    )
    expect((await answerOn(socket)).statuses).toEqual([])
    expect(
      (await say(port, "CONNECT other.test:443 HTTP/1.1\r\nHost: x\r\n\r\n")).statuses,
    ).toEqual([])
  })

  it("cuts off a body that comes slower than a kibibyte a second over a minute, and no faster one", async () => {
    const slow = connect(port, "127.0.0.1")
    slow.write(putHead("Content-Length: 200000"))
    const answer = answerOn(slow)
    slow.write(random(gridLength(0)))
    // Its first part is whole: the relay has read what came in this minute.
    while ((await arrivedParts()) === 0);
    clock.advance(60_000)
    expect(slow.destroyed).toBe(false)
    clock.advance(60_000)
    const { statuses, text } = await answer
    expect(statuses).toEqual([408])
    expect(text).toContain('"too_slow"')
    expect(await arrivedParts()).toBe(1)
  })

  it("closes a connection that a refused body keeps busy", async () => {
    const socket = connect(port, "127.0.0.1")
    const before = clock.waiting
    socket.write(
      putHead("Content-Length: 1000").replace(encodeBearer(upload.token), encodeBearer(random(32))),
    )
    const answer = answerOn(socket)
    await until(() => clock.waiting > before)
    clock.advance(10_000)
    expect((await answer).statuses).toEqual([401])
  })
})
