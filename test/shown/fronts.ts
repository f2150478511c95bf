/**
 * One file up to a relay and down again through Caddy and through nginx, each with the configuration that is
 * shipped, and directly: what a front costs, and that doctor finds nothing at it.
 *
 *   npm run shown -- fronts [MIB]
 */
import { spawnSync } from "node:child_process"
import { randomFillSync } from "node:crypto"
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import {
  freePort,
  mustRun,
  personEnv,
  program,
  run,
  startServer,
  stopServer,
} from "../../bench/processes.js"
import { frontNames, hasProgram, originAt, startRealFront } from "../fronts/real-fronts.js"
import { exactly, type Figure, showFigures } from "./figures.js"

const mib = Number(process.argv[2] ?? "1024")
const work = mkdtempSync(path.join(tmpdir(), "knothole-fronts-"))
const figures: Figure[] = []
const measured: Record<string, object> = {}

function writeSource(): string {
  const file = path.join(work, "source.bin")
  const piece = new Uint8Array(1 << 20)
  const handle = openSync(file, "w")
  for (let at = 0; at < mib; at++) writeSync(handle, randomFillSync(piece))
  closeSync(handle)
  return file
}

/** Up and down again, each person in a home of their own. */
async function transfer(name: string, origin: string, env: Readonly<Record<string, string>>) {
  const home = (person: string) => ({ ...personEnv(path.join(work, name, person)), ...env })
  const ours = (args: readonly string[], person: string) =>
    mustRun(process.execPath, [program, ...args], { env: home(person) })
  const { stdout } = await ours(["init", "--relay", origin, "--no-passphrase", "-q"], "ann")
  const sent = await ours(["send", source, "-r", stdout.trim(), "-q"], "bob")
  const into = path.join(work, name, "received")
  const received = await ours(["receive", "-o", into, "-q"], "ann")
  const isSame = spawnSync("cmp", [source, path.join(into, "source.bin")]).status === 0
  rmSync(into, { recursive: true })
  const rate = (seconds: number) => `${(mib / seconds).toFixed(0)} MiB/s`
  measured[name] = { up: rate(sent.seconds), down: rate(received.seconds) }
  console.log(`${name}: ${mib} MiB up ${rate(sent.seconds)}, down ${rate(received.seconds)}`)
  figures.push(exactly(`${name}: the file came as it was`, isSame ? "yes" : "no", "yes"))
}

async function withRelay(
  name: string,
  publicUrls: readonly string[],
  use: (relayPort: number) => Promise<void>,
): Promise<void> {
  const port = await freePort()
  const where = ["--listen", `127.0.0.1:${port}`, "--data", path.join(work, name, "relay")]
  const known = publicUrls.flatMap((url) => ["--public-url", url])
  const args = [program, "relay", ...where, ...known, "--registration", "open"]
  const proxies = publicUrls.length === 0 ? [] : ["--trusted-proxies", "1"]
  const relay = await startServer(process.execPath, [...args, ...proxies], /listening on/)
  try {
    await use(port)
  } finally {
    await stopServer(relay)
    rmSync(path.join(work, name), { recursive: true, force: true })
  }
}

const source = writeSource()
try {
  await withRelay("directly", [], (port) => transfer("directly", `http://127.0.0.1:${port}`, {}))
  for (const name of frontNames) {
    if (!hasProgram(name)) {
      figures.push(exactly(`${name} is installed`, "no", "yes"))
      continue
    }
    const port = await freePort()
    await withRelay(name, [originAt(port)], async (relayPort) => {
      const folder = path.join(work, `${name}-front`)
      const front = await startRealFront(name, {
        folder,
        port,
        upstreams: `127.0.0.1:${relayPort}`,
      })
      try {
        await transfer(name, front.origin, front.env)
        const env = { ...personEnv(path.join(work, name, "bob")), ...front.env }
        const looked = await run(process.execPath, [program, "doctor", front.origin], { env })
        figures.push(exactly(`${name}: doctor's exit`, looked.code ?? -1, 0))
      } finally {
        await front.stop()
      }
    })
  }
} finally {
  rmSync(work, { recursive: true, force: true })
}
showFigures("fronts", figures, { mib, ...measured })
