import { once } from "node:events"
import { type ClientRequest, createServer, request, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { afterEach, beforeEach, expect, test } from "vitest"
import { RelayRefusal } from "../../protocol/index.js"
import { createApp } from "../../server/app.js"
import { type Handler } from "../../server/http/method-table.js"
import { ClientGone, receiveBody } from "../../server/http/requests.js"
import { createSources } from "../../server/http/source.js"
import { createCounts } from "../../server/operator/counts.js"
import { ManualClock } from "./manual-clock.js"

const log = (): void => undefined

let clock: ManualClock
let server: Server
let handle: Handler

beforeEach(async () => {
  clock = new ManualClock()
  const app = createApp({
    always: [{ path: "/body", methods: { PUT: (req, res) => handle(req, res) } }],
    indexed: [],
    isReady: () => true,
    refusal: () => new RelayRefusal("rebuilding"),
    doubt: undefined,
    sources: createSources({ trusted: undefined, log, clock }),
    counts: createCounts(),
    log,
    clock,
  })
  server = createServer(app).listen(0, "127.0.0.1")
  await once(server, "listening")
})

afterEach(async () => {
  const closed = once(server, "close")
  server.close()
  await closed
})

/** Sends the beginning of a body. */
function begin(): ClientRequest {
  // A TCP server's address is an object with a port.
  const { port } = server.address() as AddressInfo
  const headers = { "content-length": 100_000 }
  const asked = request({ port, method: "PUT", path: "/body", headers })
  asked.on("error", () => undefined)
  asked.write("the first of it")
  return asked
}

/** Says that it sends a body, and is gone before anybody asks for that. */
async function leave(work: Handler): Promise<void> {
  const begun = new Promise<void>((resolve) => {
    handle = async (req, res) => {
      resolve()
      // Not by `once`, which would fail with the error that comes before.
      await new Promise<void>((closed) => req.once("close", closed))
      await work(req, res)
    }
  })
  const asked = begin()
  await begun
  asked.destroy()
}

test("nobody waits for the body of a client that has left", async () => {
  const outcome = new Promise<unknown>((resolve) => {
    void leave((req, res) => {
      const received = receiveBody(req, res, { clock, lengthBytes: 100_000, take: () => undefined })
      // A minute later it would be found to be too slow.
      clock.advance(60_000)
      return received.catch((error: unknown) => {
        resolve(error)
        throw error
      })
    })
  })
  expect(await outcome).toBeInstanceOf(ClientGone)
  expect(clock.waiting).toBe(0)
})

test("the rest of a refused body is waited for no longer than its client is there", async () => {
  handle = () => {
    throw new RelayRefusal("unauthorized")
  }
  const gone = new Promise<void>((resolve) => {
    server.once("connection", (socket) => socket.once("close", () => resolve()))
  })
  const asked = begin()
  await once(asked, "response")
  expect(clock.waiting).toBe(1)
  asked.destroy()
  await gone
  expect(clock.waiting).toBe(0)
})
