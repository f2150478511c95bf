/**
 * How long a relay takes to start over a folder full of deliveries: with its index there, and with its
 * index lost. The folder is made by the relay's own stores, without waiting for the disk; what is
 * measured is a real relay's process, from its start to its word that it is whole.
 *
 *   npm run shown -- rebuild [DELIVERIES]
 */
import { spawn, type ChildProcess } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { createInterface } from "node:readline"
import { cpuSecondsOf, freePort, program, stopServer } from "../../bench/processes.js"
import { hasRedis, RedisServers } from "../redis/servers.js"
import { fillFolder } from "./filled-folder.js"
import { atLeast, atMost, exactly, showFigures } from "./figures.js"

const deliveries = Number(process.argv[2] ?? 10_000)
const perInbox = 500
const rounds = 3

const work = mkdtempSync(path.join(tmpdir(), "knothole-rebuild-"))
const folder = path.join(work, "relay")

interface Start {
  /** From the process's start until it listens, and until everything is answered. */
  readonly listensSeconds: number
  readonly readySeconds: number
  /** By its own log; 0 where there was nothing to rebuild. */
  readonly rebuildSeconds: number
  readonly rebuilt: number
  readonly cpuSeconds: number
  /** Of its own memory, looked at often; not of the index's file, which the kernel keeps in memory for it. */
  readonly peakMiB: number
}

async function startRelay(settings: readonly string[] = []): Promise<Start> {
  const port = await freePort()
  const startedMs = performance.now()
  const seconds = (): number => (performance.now() - startedMs) / 1000
  const listen = ["--listen", `127.0.0.1:${port}`, "--data", folder]
  const args = [program, "relay", ...listen, ...settings]
  const relay: ChildProcess = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "pipe"] })
  let listensSeconds = Number.NaN
  let rebuildSeconds = 0
  let rebuilt = 0
  let peakMiB = 0
  try {
    if (relay.stderr === null) throw new Error("the relay has no log")
    const said = createInterface({ input: relay.stderr })
    said.on("line", (line) => {
      if (line.startsWith("listening on")) listensSeconds = seconds()
      if (!line.includes('"index_rebuilt"')) return
      const { count, durationMs }: { count: number; durationMs: number } = JSON.parse(line)
      rebuilt = count
      rebuildSeconds = durationMs / 1000
    })
    while ((await statusOf(`http://127.0.0.1:${port}/v1/inbox`)) !== 401) {
      if (relay.exitCode !== null) throw new Error(`the relay ended with ${relay.exitCode}`)
      peakMiB = Math.max(peakMiB, ownMiBOf(relay.pid))
      await new Promise((resolve) => setTimeout(resolve, 25))
    }
    const readySeconds = seconds()
    return {
      listensSeconds,
      readySeconds,
      rebuildSeconds,
      rebuilt,
      cpuSeconds: cpuSecondsOf(relay.pid),
      peakMiB: Math.max(peakMiB, ownMiBOf(relay.pid)),
    }
  } finally {
    await stopServer(relay)
  }
}

function ownMiBOf(pid: number | undefined): number {
  try {
    const line = /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))
    return Number(line?.[1] ?? 0) / 1024
  } catch {
    // Not there yet, or gone.
    return 0
  }
}

/** 503 while the index is not whole; 401, for want of a session, when it is; 0 before it listens. */
async function statusOf(url: string): Promise<number> {
  try {
    const reply = await fetch(url)
    await reply.arrayBuffer()
    return reply.status
  } catch {
    return 0
  }
}

async function startsOnRedis(): Promise<
  readonly { readonly what: string; readonly starts: readonly Start[] }[]
> {
  const servers = new RedisServers()
  try {
    const redis = await servers.server()
    const empty: Start[] = []
    const there: Start[] = []
    for (let round = 0; round < rounds; round++) {
      await redis.admin.flushall()
      empty.push(await startRelay(["--redis", redis.url]))
      there.push(await startRelay(["--redis", redis.url]))
      console.log(`round ${round + 1} of ${rounds} on Redis`, empty.at(-1), there.at(-1))
    }
    return [
      { what: "which is empty", starts: empty },
      { what: "which is there", starts: there },
    ]
  } finally {
    await servers.close()
  }
}

const rounded = (value: number): number => Number(value.toFixed(2))

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN

try {
  await fillFolder({ folder, deliveries, perInbox })
  const lost: Start[] = []
  const kept: Start[] = []
  for (let round = 0; round < rounds; round++) {
    rmSync(path.join(folder, "index"), { recursive: true, force: true })
    lost.push(await startRelay())
    kept.push(await startRelay())
    console.log(`round ${round + 1} of ${rounds}`, lost.at(-1), kept.at(-1))
  }
  const onRedis = hasRedis("the starts with the index in a Redis") ? await startsOnRedis() : []
  const rates = lost.map(({ rebuilt, rebuildSeconds }) => rebuilt / rebuildSeconds)
  showFigures(
    "rebuild",
    [
      exactly("deliveries rebuilt", Math.min(...lost.map(({ rebuilt }) => rebuilt)), deliveries),
      atLeast("deliveries a second", Math.round(median(rates)), 10_000),
      atMost(
        "start with the index lost, s",
        rounded(median(lost.map(({ readySeconds }) => readySeconds))),
        deliveries / 2000,
        "s",
      ),
      exactly("rebuilds with the index there", kept.filter(({ rebuilt }) => rebuilt > 0).length, 0),
      atMost(
        "start with the index there, s",
        rounded(median(kept.map(({ readySeconds }) => readySeconds))),
        deliveries / 2000,
        "s",
      ),
      ...onRedis.flatMap(({ what, starts }) =>
        atMost(
          `start with the index in a Redis, ${what}, s`,
          rounded(median(starts.map(({ readySeconds }) => readySeconds))),
          deliveries / 2000,
          "s",
        ),
      ),
      atMost(
        "peak of its own memory, MiB",
        Math.round(Math.max(...lost.map((one) => one.peakMiB))),
        250,
      ),
    ],
    { deliveries, perInbox, lost, kept, onRedis },
  )
} finally {
  rmSync(work, { recursive: true, force: true })
}
