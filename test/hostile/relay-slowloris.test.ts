// Connections on which nothing happens, or next to nothing, in real time: when they end is Node's to
// say and the system's, with the bounds that the relay has set.
import { once } from "node:events"
import { connect, type Socket } from "node:net"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { openRelay, type RelayUnderTest } from "../server/relay-under-test.js"

const several = 200
/** Ten seconds for headers, five for an answered connection, and five between two looks. */
const boundMs = 15_000
/** What a machine with other work may take on top. */
const slackMs = 10_000

function drip(socket: Socket, piece: string): () => void {
  const timer = setInterval(() => socket.write(piece), 500)
  return () => clearInterval(timer)
}

describe("connections on which next to nothing happens", () => {
  let under: RelayUnderTest
  let port: number
  const sockets: Socket[] = []

  beforeAll(async () => {
    under = await openRelay()
    port = Number(new URL((await under.relay.start()).url).port)
  })

  afterAll(async () => {
    for (const socket of sockets) socket.destroy()
    await under.remove()
  })

  /** When it was closed after it was opened. */
  async function hold(begin: (socket: Socket) => (() => void) | void): Promise<number> {
    const socket = connect(port, "127.0.0.1")
    sockets.push(socket)
    socket.on("error", () => undefined)
    await once(socket, "connect")
    const openedMs = performance.now()
    const stop = begin(socket)
    socket.resume()
    await once(socket, "close")
    stop?.()
    return performance.now() - openedMs
  }

  const kinds: Readonly<Record<string, (socket: Socket) => (() => void) | void>> = {
    "say nothing": () => undefined,
    "send a header a byte at a time": (socket) => {
      socket.write("GET /v1/relay HTTP/1.1\r\nHost: relay.test\r\nX-Slow: ")
      return drip(socket, "x")
    },
    "send one header after another": (socket) => {
      socket.write("GET /v1/relay HTTP/1.1\r\nHost: relay.test\r\n")
      let count = 0
      const timer = setInterval(() => socket.write(`X-${count++}: x\r\n`), 500)
      return () => clearInterval(timer)
    },
    "stay after an answer": (socket) => {
      socket.write("GET /v1/relay HTTP/1.1\r\nHost: relay.test\r\n\r\n")
    },
    "send a body in chunks without end": (socket) => {
      socket.write(
        "PUT /v1/probe HTTP/1.1\r\nHost: relay.test\r\nTransfer-Encoding: chunked\r\n\r\n",
      )
      return drip(socket, "1\r\nx\r\n")
    },
    "send a body that nobody asked for": (socket) => {
      socket.write(
        "GET /v1/relay HTTP/1.1\r\nHost: relay.test\r\nContent-Length: 1000000000\r\n\r\n",
      )
      return drip(socket, "x")
    },
  }

  it(`T42: are closed within ${boundMs / 1000} seconds, whatever they do, and others are answered meanwhile`, async () => {
    const over = new AbortController()
    const holding = Promise.all(
      Object.entries(kinds).flatMap(([kind, begin]) =>
        Array.from({ length: several / Object.keys(kinds).length }, async () => ({
          kind,
          heldMs: await hold(begin),
        })),
      ),
    ).finally(() => over.abort())
    let answered = 0
    while (!over.signal.aborted) {
      await under.client.get("/healthz").expect(200)
      answered += 1
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    expect(answered).toBeGreaterThan(20)
    const longest = new Map<string, number>()
    for (const { kind, heldMs } of await holding) {
      longest.set(kind, Math.max(heldMs, longest.get(kind) ?? 0))
    }
    for (const [kind, heldMs] of longest) {
      expect([kind, heldMs <= boundMs + slackMs]).toEqual([kind, true])
    }
  }, 60_000)
})
