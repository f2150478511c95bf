/**
 * The systemd unit as shipped: understood by systemd, rated as the install page says, and wide enough
 * for what the relay really asks of the kernel. systemd does not run here, so the last is watched from
 * outside: every system call of a relay at work is looked up in the unit's filter.
 */
import { spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { readSystemCalls, type SystemCall } from "../durability/system-calls.js"
import {
  freePort,
  mustRun,
  personEnv,
  program,
  startServer,
  stopServer,
} from "../../bench/processes.js"
import { checkout } from "./installed.js"

const missing = ["systemd-analyze --version", "strace -V"].filter((line) => {
  const [command = "", ...args] = line.split(" ")
  return spawnSync(command, args).status !== 0
})
if (missing.length > 0 && process.env["CI"] !== undefined) {
  throw new Error(`not installed, and CI needs it: ${missing.join(", ")}`)
}
if (missing.length > 0)
  console.warn(`left out: the systemd unit, for want of ${missing.join(", ")}`)

const shipped = readFileSync(path.join(checkout, "deploy/knothole.service"), "utf8")

describe.runIf(missing.length === 0)("the systemd unit", () => {
  const work = mkdtempSync(path.join(tmpdir(), "knothole-service-"))
  const unit = path.join(work, "knothole.service")

  beforeAll(() => {
    // systemd looks whether the program is there; what is installed here is Node.
    const here = shipped.replace("/opt/knothole/bin/knothole", process.execPath)
    expect(here).not.toBe(shipped)
    writeFileSync(unit, here)
  })
  afterAll(() => rmSync(work, { recursive: true, force: true }))

  test("is understood by systemd without a remark", () => {
    const run = spawnSync("systemd-analyze", ["verify", unit], { encoding: "utf8" })
    expect(run).toMatchObject({ status: 0, stdout: "", stderr: "" })
  })

  test("is as closed as the install page says", () => {
    const args = ["security", "--offline=true", "--no-pager", unit]
    const { stdout } = spawnSync("systemd-analyze", args, { encoding: "utf8" })
    const [, exposure = "none"] = /Overall exposure level.*: ([0-9.]+)/.exec(stdout) ?? []
    const page = readFileSync(path.join(checkout, "docs/install.md"), "utf8")
    const [, promised = "?"] = /exposure \*\*([0-9.]+),/.exec(page) ?? []
    expect(Number(exposure)).toBeLessThanOrEqual(Number(promised))
  })

  test("is told of the proxy wherever a page or file tells it the name that only a proxy can serve", () => {
    const proxied = ["README.md", "docs/install.md", "docker-compose.yml"]
    proxied.push("deploy/Caddyfile", "deploy/nginx.conf")
    for (const name of proxied) {
      const lines = readFileSync(path.join(checkout, name), "utf8").split("\n")
      const naming = lines.flatMap((line, at) =>
        /public.url[= :]+['"]?https/i.test(line) ? [at] : [],
      )
      expect([name, naming.length]).not.toEqual([name, 0])
      for (const at of naming) {
        const near = lines.slice(at, at + 2).join("\n")
        expect([name, near]).toEqual([name, expect.stringMatching(/trusted.proxies/i)])
      }
    }
  })

  test("lets through every system call and address family of a relay at work", async () => {
    const calls = await callsOfARelayAtWork(work)
    const allowed = filterOf(shipped)
    const denied = new Set(calls.map((call) => call.name).filter((name) => !allowed.has(name)))
    // Node raises its own limit of open files at start and goes on where it may not.
    denied.delete("setrlimit")
    denied.delete("prlimit64")
    expect([...denied]).toEqual([])
    expect(calls.length).toBeGreaterThan(1000)

    const families = /^RestrictAddressFamilies=(.*)$/m.exec(shipped)?.[1]?.split(" ") ?? []
    const sockets = calls.filter((call) => call.name === "socket" || call.name === "socketpair")
    const used = new Set(sockets.map((call) => call.args.split(",")[0]))
    expect([...used].filter((family) => !families.includes(family ?? ""))).toEqual([])
    expect(used).toContain("AF_INET")
  }, 120_000)

  test("leaves the relay the time to drain, and more", () => {
    const seconds = Number(/^TimeoutStopSec=(\d+)$/m.exec(shipped)?.[1])
    const source = readFileSync(path.join(checkout, "server/http-server.ts"), "utf8")
    const drainMs = Number(/const drainMs = ([0-9_]+)/.exec(source)?.[1]?.replaceAll("_", ""))
    expect(seconds * 1000).toBeGreaterThanOrEqual(2 * drainMs)
  })
})

/** What `SystemCallFilter=` lets through: its lines in order, groups unfolded by systemd itself. */
function filterOf(unit: string): Set<string> {
  const allowed = new Set<string>()
  for (const [, line = ""] of unit.matchAll(/^SystemCallFilter=(.*)$/gm)) {
    const takesAway = line.startsWith("~")
    for (const word of line.replace("~", "").split(" ")) {
      for (const name of unfold(word)) {
        if (takesAway) allowed.delete(name)
        else allowed.add(name)
      }
    }
  }
  return allowed
}

function unfold(word: string): string[] {
  if (!word.startsWith("@")) return [word]
  const run = spawnSync("systemd-analyze", ["syscall-filter", word], { encoding: "utf8" })
  if (run.status !== 0) throw new Error(run.stderr)
  const lines = run.stdout.split("\n").map((line) => line.trim())
  const words = lines.filter((line) => line !== "" && line !== word && !line.startsWith("#"))
  return words.flatMap(unfold)
}

/** From its start over an inbox, a delivery and its pickup to the end of its drain. */
async function callsOfARelayAtWork(work: string): Promise<SystemCall[]> {
  const port = await freePort()
  const trace = path.join(work, "trace")
  const relayArgs = ["relay", "--listen", `127.0.0.1:${port}`, "--data", path.join(work, "data")]
  const relay = await startServer(
    "strace",
    ["-f", "-I2", "-s", "16", "-o", trace, process.execPath, program, ...relayArgs],
    /listening on/,
  )
  const person = { env: personEnv(path.join(work, "person")) }
  const knothole = (...args: string[]) => mustRun(process.execPath, [program, ...args], person)
  const folder = path.join(work, "letters")
  mkdirSync(folder)
  for (let count = 0; count < 20; count++) {
    writeFileSync(path.join(folder, `${count}`), new Uint8Array(count * 100_000))
  }
  const { stdout } = await knothole(
    "init",
    "--relay",
    `http://127.0.0.1:${port}`,
    "--no-passphrase",
  )
  await knothole("send", folder, "-r", stdout.trim())
  await knothole("receive", "-o", path.join(work, "received"))
  await stopServer(relay)
  return readSystemCalls(readFileSync(trace, "utf8"))
}
