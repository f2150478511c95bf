/**
 * As many idle connections as are asked for (10,000), from four networks, on one relay: what they cost it
 * in memory, how soon they are closed, and whether somebody else is answered meanwhile.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { request } from "node:http"
import { connect, type Socket } from "node:net"
import { once } from "node:events"
import { tmpdir } from "node:os"
import path from "node:path"
import { freePort, ownMiBOf, program, startServer, stopServer } from "../../bench/processes.js"
import { atLeast, atMost, exactly, showFigures } from "./figures.js"

const count = Number(process.argv[2] ?? 10_000)
const networks = ["127.77.3.9", "127.77.4.9", "127.77.5.9", "127.77.6.9"]
/** Ten seconds for headers, and five between two looks. */
const boundSeconds = 15
/** So many are on their way to be accepted at once. */
const atOnce = 100

const folder = mkdtempSync(path.join(tmpdir(), "knothole-idle-"))
const hostname = "127.0.0.1"
const port = await freePort()
const args = ["relay", "--data", path.join(folder, "data"), "--listen", `${hostname}:${port}`]
const relay = await startServer(process.execPath, [program, ...args], /^listening on /m)
try {
  const emptyMiB = ownMiBOf(relay.pid)
  let most = 0
  const open = new Set<Socket>()
  let mostMiB = 0
  let longestSeconds = 0
  const closed: Promise<void>[] = []

  const hold = async (at: number): Promise<void> => {
    const localAddress = networks[at % networks.length]
    const socket: Socket = connect({ port, host: hostname, localAddress })
    socket.on("error", () => undefined)
    await once(socket, "connect")
    const openedMs = performance.now()
    open.add(socket)
    most = Math.max(most, open.size)
    socket.resume()
    closed.push(
      once(socket, "close").then(() => {
        open.delete(socket)
        longestSeconds = Math.max(longestSeconds, (performance.now() - openedMs) / 1000)
      }),
    )
  }

  for (let at = 0; at < count; at += atOnce) {
    await Promise.all(
      Array.from({ length: Math.min(atOnce, count - at) }, (_, beyond) => hold(at + beyond)),
    )
  }
  let asked = 0
  let answered = 0
  let slowestMs = 0
  while (open.size > 0) {
    asked += 1
    const askedMs = performance.now()
    const asking = request(`http://${hostname}:${port}/healthz`, { agent: false }).end()
    const [answer] = await once(asking, "response")
    answer.resume()
    await once(answer, "end")
    if (answer.statusCode === 200) answered += 1
    slowestMs = Math.max(slowestMs, performance.now() - askedMs)
    mostMiB = Math.max(mostMiB, ownMiBOf(relay.pid))
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  await Promise.all(closed)
  showFigures(
    "idle-sockets",
    [
      atLeast("connections held at once", most, count),
      atMost("longest that one was held", Math.ceil(longestSeconds), boundSeconds + 5, "s"),
      atMost("relay's memory for them", Math.round(mostMiB - emptyMiB), 200, "MiB"),
      exactly(`of ${asked} health checks meanwhile answered with 200`, answered, asked),
      atMost("longest that one of them took", Math.round(slowestMs), 2000, "ms"),
    ],
    { emptyMiB, mostMiB, longestSeconds },
  )
} finally {
  await stopServer(relay)
  rmSync(folder, { recursive: true, force: true })
}
