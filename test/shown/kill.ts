/**
 * One transfer of 1 GiB while sender, relay and recipient are killed with SIGKILL at moments drawn from
 * a seed: at least three each while scanning, sending, finishing, starting the relay, fetching and
 * putting files in place. Ends when the recipient has everything, and shows what was sent again.
 *
 *   npm run shown -- kill [SEED] [MIB]
 */
import { spawn, spawnSync, type ChildProcess } from "node:child_process"
import { once } from "node:events"
import {
  createWriteStream,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { createHash, randomBytes } from "node:crypto"
import { tmpdir } from "node:os"
import path from "node:path"
import {
  freePort,
  mustRun,
  personEnv,
  program,
  startServer,
  stopServer,
} from "../../bench/processes.js"
import { startCountingProxy } from "./counting-proxy.js"
import { atLeast, atMost, exactly, showFigures } from "./figures.js"

const seed = process.argv[2] ?? "1"
const mib = Number(process.argv[3] ?? 1024)

/** Uniform in [0, 1), the same for the same seed. */
let draws = 0
const draw = (): number =>
  createHash("sha256").update(`${seed}/${draws++}`).digest().readUInt32BE(0) / 2 ** 32

// One in-flight window, which is what one kill may cost: four requests of 1 MiB up, four of 4 MiB down.
const windowUp = 4 * 2 ** 20
const windowDown = 4 * 4 * 2 ** 20

const work = mkdtempSync(path.join(tmpdir(), "knothole-kill-"))
const source = path.join(work, "tree")
const kills: Record<string, number> = {}

async function makeTree(): Promise<void> {
  const files = 4000
  for (let i = 0; i < files; i++) {
    // Many names at the top, so that putting them in place is many moves.
    const folder = i % 8 === 0 ? source : path.join(source, `folder ${i % 40}`)
    mkdirSync(folder, { recursive: true })
    const size = i % 10 === 0 ? 0 : Math.floor(draw() * 2 * ((mib * 2 ** 20 * 0.4) / (files * 0.9)))
    writeFileSync(path.join(folder, `file ${i}`), randomBytes(size))
  }
  const large = createWriteStream(path.join(source, "large.bin"))
  for (let i = 0; i < mib * 0.6; i++)
    if (!large.write(randomBytes(2 ** 20))) await once(large, "drain")
  large.end()
  await once(large, "close")
}

const relayPort = await freePort()
const proxyPort = await freePort()
const origin = `http://127.0.0.1:${proxyPort}`
const relayArgs = [
  "relay",
  "--listen",
  `127.0.0.1:${relayPort}`,
  "--data",
  path.join(work, "relay"),
  "--public-url",
  origin,
]
let relay: ChildProcess | undefined

function count(what: string): void {
  kills[what] = (kills[what] ?? 0) + 1
}

async function killHard(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill("SIGKILL")
  await once(child, "exit")
}

/** Starts the relay; `killsWhileStarting` times it is killed a drawn moment after its start first. */
async function startRelay(killsWhileStarting: number): Promise<void> {
  for (let i = 0; i < killsWhileStarting; i++) {
    const child = spawn(process.execPath, [program, ...relayArgs], { stdio: "ignore" })
    await new Promise((resolve) => setTimeout(resolve, 20 + draw() * 600))
    if (child.exitCode !== null) throw new Error(`the relay ended by itself with ${child.exitCode}`)
    await killHard(child)
    count("relay starting")
  }
  relay = await startServer(process.execPath, [program, ...relayArgs], /listening on/)
}

/** A kill to come. `atBytes` strikes when so much has passed the proxy; `phase` that long after it began. */
type Strike =
  | { who: "client" | "relay"; atBytes: number }
  | { who: "client" | "relay"; phase: string; afterMs: number }

let onProgress: (() => void) | undefined
const { counts, server: proxy } = await startCountingProxy({
  port: proxyPort,
  target: relayPort,
  onProgress: () => onProgress?.(),
})

/**
 * Runs a command until it ends by itself, killing it or the relay as the strikes say, in their order. A
 * killed command is run again, which is all that a person would do; a killed relay is started again
 * while the command goes on trying.
 */
async function runThrough(options: {
  name: string
  args: string[]
  env: NodeJS.ProcessEnv
  strikes: Strike[]
  passed: () => number
}): Promise<number> {
  const { name, args, env, passed } = options
  const strikes = [...options.strikes]
  for (;;) {
    const child = spawn(process.execPath, [program, ...args, "--json"], {
      env,
      stdio: ["ignore", "pipe", "pipe"],
    })
    let stderr = ""
    let phase = ""
    let restarting: Promise<void> | undefined
    let killed = false
    const strike = (now: Strike) => {
      if (killed || child.exitCode !== null || strikes[0] !== now) return
      strikes.shift()
      count(`${name}: ${now.who} ${"phase" in now ? `while ${now.phase}` : "at a byte"}`)
      if (now.who === "client") {
        killed = true
        child.kill("SIGKILL")
        return
      }
      const before = restarting ?? Promise.resolve()
      restarting = before.then(async () => {
        if (relay !== undefined) await killHard(relay)
        await startRelay(draw() < 0.3 ? 1 : 0)
        // The command is still in that phase, asking again: the next strike may fall there too.
        consider()
      })
    }
    const consider = () => {
      const [next] = strikes
      if (next === undefined) return
      if ("phase" in next) {
        if (next.phase === phase) setTimeout(() => strike(next), next.afterMs)
      } else if (passed() >= next.atBytes) {
        strike(next)
      }
    }
    onProgress = () => {
      const [next] = strikes
      if (next !== undefined && "atBytes" in next) consider()
    }
    let rest = ""
    const onText = (text: string) => {
      const lines = (rest + text).split("\n")
      rest = lines.pop() ?? ""
      for (const line of lines) {
        const now = /"phase":"([^"]+)"/.exec(line)?.[1]
        if (now === undefined) continue
        phase = now
        consider()
      }
    }
    child.stdout.setEncoding("utf8").on("data", onText)
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr = (stderr + text).slice(-4000)
      onText(text)
    })
    const [code] = (await once(child, "close")) as [number | null]
    onProgress = undefined
    await restarting
    if (code === 0 || !killed) {
      if (code !== 0) console.error(`${name} ended with ${code}:\n${stderr}`)
      if (strikes.length > 0) console.error(`${name} was over before`, strikes)
      return code ?? -1
    }
  }
}

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => path.join(folder, name))
    .filter((file) => statSync(file).isFile())
}

try {
  await makeTree()
  await startRelay(3)
  const recipient = personEnv(path.join(work, "recipient"))
  const sender = personEnv(path.join(work, "sender"))
  const init = await mustRun(
    process.execPath,
    [program, "init", "--relay", origin, "--no-passphrase", "--quiet"],
    { env: recipient },
  )
  const address = init.stdout.trim()
  const bodyBytes = mib * 2 ** 20
  const repeat = (times: number, make: () => Strike): Strike[] =>
    Array.from({ length: times }, make)
  const byBytes = (count_: number): Strike[] =>
    [
      ...repeat(count_, () => ({ who: "client", atBytes: draw() * bodyBytes })),
      ...repeat(count_, () => ({ who: "relay", atBytes: draw() * bodyBytes })),
    ].toSorted((a, b) => ("atBytes" in a && "atBytes" in b ? a.atBytes - b.atBytes : 0))

  const sources = readdirSync(source).map((name) => path.join(source, name))
  const sent = await runThrough({
    name: "send",
    args: ["send", ...sources, "-r", address],
    env: sender,
    passed: () => counts.partBytesUp,
    strikes: [
      ...repeat(3, () => ({ who: "client", phase: "scanning", afterMs: draw() * 40 })),
      ...byBytes(4),
      ...repeat(3, () => ({ who: "client", phase: "finishing", afterMs: draw() * 25 })),
      ...repeat(3, () => ({ who: "relay", phase: "waiting for the relay", afterMs: draw() * 25 })),
    ],
  })

  const into = path.join(work, "received")
  const received = await runThrough({
    name: "receive",
    args: ["receive", "-o", into],
    env: recipient,
    passed: () => counts.bodyBytesDown,
    strikes: [
      ...byBytes(3),
      ...repeat(4, () => ({ who: "client", phase: "putting in place", afterMs: draw() * 6 })),
    ],
  })

  const difference = spawnSync("diff", ["-r", source, into], {
    encoding: "utf8",
  })
  // A sweep runs at every start.
  if (relay !== undefined) await stopServer(relay)
  await startRelay(0)
  if (relay !== undefined) await stopServer(relay)
  const stray = ["spool", "store", "trash"].flatMap((name) =>
    filesBelow(path.join(work, "relay", name)),
  )

  const total = (part: string) =>
    Object.entries(kills).reduce(
      (sum, [what, times]) => (what.includes(part) ? sum + times : sum),
      0,
    )
  const bodySize = Math.min(counts.partBytesUp, bodyBytes)
  showFigures(
    "kill",
    [
      exactly("exit code of the last send", sent, 0),
      exactly("exit code of the last receive", received, 0),
      exactly("exit code of diff -r", difference.status ?? -1, 0),
      atLeast("kills of the sender while scanning", total("send: client while scanning"), 3),
      atLeast("kills of the sender while sending", total("send: client at a byte"), 3),
      atLeast("kills of the relay while sending", total("send: relay at a byte"), 3),
      atLeast("kills of the sender while finishing", total("send: client while finishing"), 3),
      atLeast("kills of the relay while finishing", total("send: relay while waiting"), 3),
      atLeast("kills of the relay while starting", total("relay starting"), 3),
      atLeast("kills of the recipient while fetching", total("receive: client at a byte"), 3),
      atLeast("kills of the relay while fetching", total("receive: relay at a byte"), 3),
      atLeast("kills of the recipient while putting in place", total("while putting in place"), 3),
      atMost(
        "MiB sent again",
        mebi(counts.partBytesUp - bodySize),
        mebi(windowUp) * (total("send:") - total("while scanning")),
        "MiB",
      ),
      atMost(
        "MiB fetched again",
        mebi(counts.bodyBytesDown - bodySize),
        mebi(windowDown) * total("receive:"),
        "MiB",
      ),
      exactly("stray files at the relay after a sweep", stray.length, 0),
    ],
    {
      seed,
      kills,
      counts,
      stray: stray.slice(0, 20),
      difference: difference.stdout.slice(0, 2000),
    },
  )
} finally {
  proxy.close()
  if (relay !== undefined) await killHard(relay)
  rmSync(work, { recursive: true, force: true })
}

function mebi(bytes: number): number {
  return Number((bytes / 2 ** 20).toFixed(2))
}
