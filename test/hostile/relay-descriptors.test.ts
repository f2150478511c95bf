// A relay that may have few files and sockets open, and gets more than that of connections.
import { spawn, spawnSync, type ChildProcess } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { Agent, request } from "node:http"
import { connect, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { text } from "node:stream/consumers"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { program } from "../../bench/processes.js"
import { FaultyDisk, systemError } from "../server/faulty-disk.js"
import { personAt } from "../server/people.js"
import { makeDelivery, openRelay } from "../server/relay-under-test.js"

const canLower = spawnSync("prlimit", ["--version"]).status === 0
if (!canLower)
  console.warn("left out: a want of descriptors at run time, because there is no prlimit")

describe("a relay with few descriptors", () => {
  let folder: string
  let relay: ChildProcess | undefined
  let sockets: Socket[]
  let log: string

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "knothole-descriptors-"))
    relay = undefined
    sockets = []
    log = ""
  })

  afterEach(async () => {
    for (const socket of sockets) socket.destroy()
    if (relay !== undefined && relay.exitCode === null) {
      const gone = once(relay, "exit")
      relay.kill("SIGKILL")
      await gone
    }
    rmSync(folder, { recursive: true, force: true })
  })

  /** Resolves to its port. */
  async function start(descriptors: number): Promise<number> {
    const run = `ulimit -n ${descriptors} && exec "$0" "$@"`
    const args = ["relay", "--data", join(folder, "data"), "--listen", "127.0.0.1:0"]
    const child = spawn("sh", ["-c", run, process.execPath, program, ...args], {
      stdio: ["ignore", "ignore", "pipe"],
    })
    relay = child
    return new Promise((resolve, reject) => {
      child.once("exit", () => reject(new Error(`the relay ended: ${log}`)))
      child.stderr.setEncoding("utf8").on("data", (piece: string) => {
        log += piece
        const [, port] = /^listening on http:\/\/127\.0\.0\.1:([0-9]+)/.exec(log) ?? []
        if (port !== undefined) resolve(Number(port))
      })
    })
  }

  async function openMany(port: number, count: number, localAddress: string): Promise<Socket[]> {
    const opened = Array.from({ length: count }, () => {
      const socket = connect({ port, host: "127.0.0.1", localAddress })
      socket.on("error", () => undefined)
      sockets.push(socket)
      return socket
    })
    await Promise.all(
      opened.map(
        (socket) =>
          new Promise<void>((resolve) => {
            socket.once("connect", resolve)
            socket.once("close", () => resolve())
          }),
      ),
    )
    return opened
  }

  it("T42: one network that opens all it can keeps nobody else out", async () => {
    const port = await start(400)
    const theirs = await openMany(port, 600, "127.77.3.9")
    for (let at = 0; at < 20; at++) expect(await ask(port, false, "/healthz")).toBe(200)
    const held = theirs.filter((socket) => !socket.destroyed)
    expect(held.length).toBeLessThanOrEqual(300)
    expect(held.length).toBeGreaterThan(200)
    expect(log).toContain('"event":"connections_refused"')
    expect(log).not.toContain("127.77")
  })

  it.runIf(canLower)(
    "T42: lives through a want of descriptors, and is as before when there are some again",
    async () => {
      const port = await start(400)
      // Fewer than it takes itself to keep some for its files.
      spawnSync("prlimit", ["--pid", String(relay?.pid), "--nofile=70:70"])
      const agent = new Agent({ keepAlive: true, maxSockets: 1 })
      expect(await ask(port, agent, "/healthz")).toBe(200)
      await openMany(port, 200, "127.77.3.9")
      await openMany(port, 200, "127.77.3.9")
      // A health check writes a file, and there may be no descriptor for it.
      expect([200, 503]).toContain(await ask(port, agent, "/healthz"))
      expect(await ask(port, agent, "/v1/relay")).toBe(200)
      for (const socket of sockets.splice(0)) socket.destroy()
      for (;;) if ((await ask(port, agent, "/healthz")) === 200) break
      agent.destroy()
      expect(await ask(port, false, "/healthz")).toBe(200)
      expect(relay?.exitCode).toBe(null)
      expect(log).not.toContain("127.77")
    },
  )

  for (const code of ["EMFILE", "ENFILE"]) {
    it(`answers 503 with Retry-After where a file cannot be opened for ${code}, and goes on afterwards`, async () => {
      const disk = new FaultyDisk()
      const under = await openRelay({ ports: { disk } })
      try {
        const { client } = under
        const alice = await personAt(0)
        await client.register(alice)
        const delivery = makeDelivery([alice])
        const upload = await client.start([alice], delivery.body.length)
        disk.before = (operation) => {
          if (["create", "open"].includes(operation)) throw systemError(code)
        }
        const replies = [
          await client.putPart(upload, 0, delivery.body),
          await client.postUpload([alice]),
          await client.postFinish(upload, delivery.finish),
        ]
        for (const reply of replies) {
          expect([reply.status, reply.body.code, reply.headers["retry-after"]]).toEqual([
            503,
            "busy",
            "1",
          ])
        }
        await client.get("/healthz").expect(503)
        disk.before = () => undefined
        await client.putPart(upload, 0, delivery.body).expect(200)
        await client.postFinish(upload, delivery.finish).expect(200)
      } finally {
        disk.before = () => undefined
        await under.remove()
      }
    })
  }
})

async function ask(port: number, agent: Agent | false, path: string): Promise<number> {
  const asking = request({ host: "127.0.0.1", port, path, agent })
  asking.end()
  const [answer] = await once(asking, "response")
  await text(answer)
  return answer.statusCode
}
