// Two relays on one data folder and one Redis, set up as docs/operating.md says, behind a real front.
import { existsSync, readdirSync } from "node:fs"
import path from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { freePort } from "../../bench/processes.js"
import { patternBytes, readTree, writeTree } from "../client/folders.js"
import { hasProgram, originAt, type RealFront, startRealFront } from "../fronts/real-fronts.js"
import { blocksOf, blockWith } from "../packaging/pasted.js"
import { type Running, type Started, Workshop } from "../program/processes.js"
import { hasRedis, RedisServers } from "../redis/servers.js"

const what = "two relays behind Caddy"
const hasCaddy = hasProgram("caddy")
if (!hasCaddy && process.env["CI"] !== undefined) {
  throw new Error("caddy is not installed, and CI needs it")
}
if (!hasCaddy) console.warn(`left out: ${what}, because caddy is not installed`)

const section = blocksOf("docs/operating.md").filter(({ heading }) => heading === "Two relays")

describe.runIf(hasCaddy && hasRedis(what))(what, () => {
  const workshop = new Workshop()
  const servers = new RedisServers()
  const data = path.join(workshop.folder, "relay", "data")
  let commands: string[][]
  let relays: Started[]
  let front: RealFront
  let address = ""

  async function startRelay(at: number): Promise<Started> {
    const running = workshop.start("relay", commands[at] ?? [])
    const url = await Promise.race([
      running.stderr.waitFor(/^listening on (\S+)/m),
      running.ended.then(({ stderr }) => Promise.reject(new Error(stderr))),
    ])
    return { ...running, url }
  }

  beforeAll(async () => {
    const redis = await servers.server()
    const port = await freePort()
    const onePort = await freePort()
    const twoPort = await freePort()
    // What is put in the place of what stands there is what everybody has to put there.
    const here = (text: string): string =>
      text
        .replaceAll("127.0.0.1:8787", `127.0.0.1:${onePort}`)
        .replaceAll("127.0.0.1:8788", `127.0.0.1:${twoPort}`)
        .replaceAll("redis://127.0.0.1:6379", redis.url)
        .replaceAll("https://drop.example.org", originAt(port))
        .replaceAll("/var/lib/knothole", data)
    const lines = here(blockWith(section, "knothole relay")).trim().split("\n")
    commands = lines.map((line) => [...line.split(" ").slice(1), "--registration", "open"])
    expect(commands).toHaveLength(2)
    const [, upstreams = ""] =
      /^KNOTHOLE_RELAY="(.+)"$/.exec(here(blockWith(section, "KNOTHOLE_RELAY"))) ?? []
    relays = [await startRelay(0), await startRelay(1)]
    front = await startRealFront("caddy", {
      folder: path.join(workshop.folder, "caddy"),
      port,
      upstreams,
    })
    const init = ["init", "--relay", front.origin, "--no-passphrase", "-q"]
    const opened = await workshop.run("ann", init, { env: front.env })
    expect(opened).toMatchObject({ code: 0 })
    address = opened.stdout.trim()
  }, 60_000)

  afterAll(async () => {
    await front?.stop()
    await workshop.close()
    await servers.close()
  })

  async function kill(at: number): Promise<void> {
    relays[at]?.child.kill("SIGKILL")
    await relays[at]?.ended
  }

  /** Until `count` parts have arrived. */
  async function partsArrived(sending: Running, count: number): Promise<void> {
    const spool = path.join(data, "spool")
    const names = (): string[] =>
      readdirSync(spool, { recursive: true, encoding: "utf8" }).filter((name) =>
        path.basename(name).startsWith("p"),
      )
    while (names().length < count) {
      if (sending.child.exitCode !== null) throw new Error("it was over before a relay was killed")
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }

  it("bring a transfer to its end when either of them is killed in the middle of it", async () => {
    const { env } = front
    for (const at of [0, 1]) {
      const source = writeTree(path.join(workshop.folder, `tree-${at}`), {
        large: patternBytes(60_000_000, at + 5),
        small: patternBytes(1000, at),
      })
      const sending = workshop.start("bob", ["send", source, "-r", address, "-q"], { env })
      await partsArrived(sending, 15)
      await kill(at)
      const sent = await sending.ended
      expect(sent, sent.stderr).toMatchObject({ code: 0 })
      relays[at] = await startRelay(at)
      const into = path.join(workshop.folder, `received-${at}`)
      const receiving = workshop.start("ann", ["receive", "-o", into, "-q"], { env })
      await partsFetched(receiving, into)
      await kill(1 - at)
      const received = await receiving.ended
      expect(received, received.stderr).toMatchObject({ code: 0 })
      relays[1 - at] = await startRelay(1 - at)
      expect(readTree(path.join(into, `tree-${at}`))).toEqual(readTree(source))
    }
  }, 180_000)

  it("say in their status where they listen, and that their index is in a Redis", async () => {
    for (const [at, command] of commands.entries()) {
      const socket = command.indexOf("--operator-socket")
      const where = socket === -1 ? ["--data", data] : command.slice(socket, socket + 2)
      const status = await workshop.run("relay", ["relay", "status", ...where])
      expect(status).toMatchObject({ code: 0 })
      expect(status.stdout).toContain(relays[at]?.url)
      expect(status.stdout).toMatch(/^index +redis, ready$/m)
    }
  })

  it("let in no relay with the index in the folder, nor with another Redis", async () => {
    const data = commands[0]?.slice(1).slice(2, 4) ?? []
    const alone = ["relay", "--listen", "127.0.0.1:0", ...data]
    const other = await servers.server()
    for (const args of [alone, [...alone, "--redis", other.url]]) {
      const ended = await workshop.run("relay", args)
      expect(ended.code).not.toBe(0)
      expect(ended.stderr).toMatch(
        /in use by a relay with --redis .*: stop it, or give this one the same/,
      )
    }
  })
})

/** Until it has begun to write what it fetches. */
async function partsFetched(receiving: Running, into: string): Promise<void> {
  while (!existsSync(into) || readdirSync(into).length === 0) {
    if (receiving.child.exitCode !== null) throw new Error("it was over before a relay was killed")
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
