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

// What one kill may cost: four requests in flight of 1 MiB up, four of 4 MiB down. A killed receiver also reads again what it had not yet synced.
const windowUp = 4 * 2 ** 20
const windowDown = 32 * 2 ** 20

const work = mkdtempSync(path.join(tmpdir(), "knothole-kill-"))
const source = path.join(work, "tree")
const kills: Record<string, number> = {}

async function makeTree(): Promise<void> {
  const files = 4000
  for (let i = 0; i < files; i++) {
    const folder = path.join(source, `folder ${i % 40}`)
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

let onProgress: (() => void) | undefined
const { counts, server: proxy } = await startCountingProxy({
  port: proxyPort,
  target: relayPort,
  onProgress: () => onProgress?.(),
})

type Plan =
  | { who: "client" | "relay"; phase: string; afterMs: number }
  | { who: "client" | "relay"; direction: "up" | "down"; atBytes: number }

/** Runs one command, killing as planned. Answers its exit code, or undefined when it was killed. */
async function attempt(
  args: string[],
  env: NodeJS.ProcessEnv,
  plan: Plan | undefined,
  name: string,
): Promise<number | undefined> {
  const child = spawn(process.execPath, [program, ...args, "--json"], {
    env,
    stdio: ["ignore", "pipe", "pipe"],
  })
  let killed = false
  let stderr = ""
  const strike = () => {
    if (killed || plan === undefined) return
    killed = true
    count(
      `${name}: ${plan.who} ${"phase" in plan ? `while ${plan.phase}` : `at a byte going ${plan.direction}`}`,
    )
    if (plan.who === "client") child.kill("SIGKILL")
    else if (relay !== undefined) relay.kill("SIGKILL")
  }
  if (plan !== undefined && "atBytes" in plan) {
    onProgress = () => {
      const now = plan.direction === "up" ? counts.partBytesUp : counts.bodyBytesDown
      if (now >= plan.atBytes) strike()
    }
  }
  let rest = ""
  const onText = (text: string) => {
    const lines = (rest + text).split("\n")
    rest = lines.pop() ?? ""
    for (const line of lines) {
      if (plan !== undefined && "phase" in plan && line.includes(`"phase":"${plan.phase}"`))
        setTimeout(strike, plan.afterMs)
    }
  }
  child.stdout.setEncoding("utf8").on("data", onText)
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr = (stderr + text).slice(-4000)
    onText(text)
  })
  const ended = once(child, "close") as Promise<[number | null]>
  if (plan?.who === "relay") {
    // A relay that was killed comes back, sometimes killed again on the way; the client's own retries meet it there.
    const dead = relay === undefined ? Promise.resolve() : once(relay, "exit").then(() => undefined)
    await Promise.race([ended, dead])
    if (killed) await startRelay(draw() < 0.4 ? 1 : 0)
  }
  const [code] = await ended
  onProgress = undefined
  if (code !== 0 && !killed) throw new Error(`${args.join(" ")} ended with ${code}:\n${stderr}`)
  return code ?? undefined
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
  const send = ["send", source, "-r", address]
  const bodyBytes = mib * 2 ** 20

  const repeat = <T>(times: number, make: () => T): T[] => Array.from({ length: times }, make)
  const up: Plan[] = [
    ...repeat(3, (): Plan => ({ who: "client", phase: "scanning", afterMs: draw() * 60 })),
    ...repeat(4, (): Plan => ({ who: "client", direction: "up", atBytes: draw() * bodyBytes })),
    ...repeat(4, (): Plan => ({ who: "relay", direction: "up", atBytes: draw() * bodyBytes })),
    ...repeat(3, (): Plan => ({ who: "client", phase: "finishing", afterMs: draw() * 80 })),
    ...repeat(3, (): Plan => ({ who: "relay", phase: "finishing", afterMs: draw() * 80 })),
  ]
  // In the order of the bytes at which they strike, so that each has its turn.
  const moment = (plan: Plan): number =>
    "atBytes" in plan ? plan.atBytes : plan.phase === "scanning" ? -1 : Number.MAX_VALUE
  up.sort((a, b) => moment(a) - moment(b))
  let sent: number | undefined
  for (const plan of [...up, undefined]) {
    sent = await attempt(send, sender, plan, "send")
    if (sent === 0 && plan !== undefined && "phase" in plan)
      console.log(`the send was done before the kill (${plan.who} while ${plan.phase})`)
    if (sent === 0) break
  }

  const into = path.join(work, "received")
  const receive = ["receive", "-o", into]
  const down: Plan[] = [
    ...repeat(3, (): Plan => ({ who: "client", direction: "down", atBytes: draw() * bodyBytes })),
    ...repeat(3, (): Plan => ({ who: "relay", direction: "down", atBytes: draw() * bodyBytes })),
  ].toSorted((a, b) => moment(a) - moment(b))
  const placing = repeat(3, (): Plan => ({
    who: "client",
    phase: "putting in place",
    afterMs: draw() * 30,
  }))
  let received: number | undefined
  for (const plan of [...down, ...placing, undefined]) {
    received = await attempt(receive, recipient, plan, "receive")
    if (received === 0) break
  }

  const difference = spawnSync("diff", ["-r", source, path.join(into, "tree")], {
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
      exactly("exit code of the last send", sent ?? -1, 0),
      exactly("exit code of the last receive", received ?? -1, 0),
      exactly("exit code of diff -r", difference.status ?? -1, 0),
      atLeast("kills of the sender while scanning", total("send: client while scanning"), 3),
      atLeast("kills of the sender while sending", total("send: client at a byte"), 3),
      atLeast("kills of the relay while sending", total("send: relay at a byte"), 3),
      atLeast("kills while finishing, sender and relay", total("while finishing"), 3),
      atLeast("kills of the relay while starting", total("relay starting"), 3),
      atLeast("kills of the recipient while fetching", total("receive: client at a byte"), 3),
      atLeast("kills of the relay while fetching", total("receive: relay at a byte"), 3),
      atLeast("kills of the recipient while putting in place", total("while putting in place"), 3),
      atMost(
        "MiB sent again",
        mebi(counts.partBytesUp - bodySize),
        mebi(windowUp) * total("send:"),
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
