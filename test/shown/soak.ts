/**
 * A relay under a steady mixed load for so many minutes, looked at every second: the memory as the
 * kernel counts it must not go on growing, nor may descriptors or files. Keeps the curve.
 *
 *   npm run soak -- [--minutes 15] [--redis]
 */
import {
  type Dirent,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { parseArgs } from "node:util"
import {
  cpuSecondsOf,
  descriptorsOf,
  freePort,
  ownMiBOf,
  program,
  residentMiBOf,
  startServer,
  stopServer,
} from "../../bench/processes.js"
import { errorCode } from "../../client/error-code.js"
import { SoakLoad } from "../../bench/soak-load.js"
import { RedisServers } from "../redis/servers.js"
import { atLeast, atMost, exactly, showFigures } from "./figures.js"

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "15" },
    /** The index is in a Redis of its own, which is not what is looked at. */
    redis: { type: "boolean", default: false },
  },
})
const minutes = Number(values.minutes)
if (!(minutes > 0)) throw new RangeError("--minutes is a number")

const sampleEveryMs = 1_000
const growthBound = 1.1
/** Where uploads and deliveries are, and what is being removed of them. */
const kinds = ["spool", "store", "trash"]

interface Sample {
  readonly seconds: number
  readonly residentMiB: number
  /** Without the index's pages. */
  readonly ownMiB: number
  readonly cpuSeconds: number
  readonly descriptors: number
  /** Uploads, deliveries and what is being removed. */
  readonly storedFiles: number
  readonly storedMiB: number
  /** What is remembered of inboxes and of deliveries that are gone. */
  readonly rememberedMiB: number
  readonly indexMiB: number
  readonly loopDelayMs: number
}

const work = mkdtempSync(path.join(tmpdir(), "knothole-soak-"))
const data = path.join(work, "data")
const origin = `http://127.0.0.1:${await freePort()}`
const metrics = `http://127.0.0.1:${await freePort()}`
const redisServers = new RedisServers()
const redis = values.redis ? await redisServers.server({ appendonly: "yes" }) : undefined
const name = redis === undefined ? "soak" : "soak-redis"
// Expiries are among the rest: some of what is sent is left lying.
const settings = [
  "--operator-listen",
  new URL(metrics).host,
  "--keep",
  "1m",
  "--disk-headroom",
  "0",
  ...(redis === undefined ? [] : ["--redis", redis.url]),
]
const relay = await startServer(
  process.execPath,
  [program, "relay", "--data", data, "--listen", new URL(origin).host, ...settings],
  /listening on/,
)
let alarms = 0
relay.stderr?.on("data", (text: string) => {
  alarms += text.split('"level":"alarm"').length - 1
})

try {
  const load = await SoakLoad.begin(origin)
  const samples: Sample[] = []
  const startedMs = performance.now()
  for (let at = 1; performance.now() - startedMs < minutes * 60_000; at++) {
    const dueMs = startedMs + at * sampleEveryMs
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, dueMs - performance.now())))
    samples.push(await look((performance.now() - startedMs) / 1000))
  }
  await load.end()
  await stopServer(relay)
  const left = kinds.flatMap((name) => filesBelow(path.join(data, name)))
  keepCurve(samples)
  const { counts, surprises } = load
  const thirds = [0, 1, 2].map((third) =>
    samples.slice((third * samples.length) / 3, ((third + 1) * samples.length) / 3),
  )
  const peak = (third: number, of: (sample: Sample) => number): number =>
    Math.max(...(thirds[third] ?? []).map(of))
  const growth = (of: (sample: Sample) => number): number =>
    Number((peak(2, of) / peak(1, of)).toFixed(3))
  const last = samples.at(-1)
  const gone = (counts["deliveries"] ?? 0) + (counts["uploads given up"] ?? 0)
  showFigures(
    name,
    [
      atMost("memory: peak of the last third / of the middle one", growth(resident), growthBound),
      atMost(
        "descriptors: the same",
        growth(({ descriptors }) => descriptors),
        growthBound,
      ),
      exactly("files of uploads and deliveries left when all is taken", left.length, 0),
      atMost(
        "KiB remembered for each delivery, index included",
        Math.ceil((((last?.indexMiB ?? 0) + (last?.rememberedMiB ?? 0)) * 1024) / gone),
        16,
        "KiB",
      ),
      atLeast("deliveries carried", counts["deliveries"] ?? 0, Math.floor(minutes * 100)),
      exactly("answers that were not as they should be", surprises.length, 0),
      exactly("alarms", alarms, 0),
      exactly("the relay's exit code", relay.exitCode ?? -1, 0),
    ],
    {
      minutes,
      counts,
      surprises,
      left: left.slice(0, 20),
      peakMiB: [0, 1, 2].map((third) => peak(third, resident)),
    },
  )
} finally {
  await stopServer(relay)
  await redisServers.close()
  rmSync(work, { recursive: true, force: true })
}

function resident({ residentMiB }: Sample): number {
  return residentMiB
}

async function look(seconds: number): Promise<Sample> {
  const { pid } = relay
  const index = measure(path.join(data, "index"))
  const stored = measure(...kinds.map((name) => path.join(data, name)))
  return {
    seconds,
    residentMiB: residentMiBOf(pid),
    ownMiB: ownMiBOf(pid),
    cpuSeconds: cpuSecondsOf(pid),
    descriptors: descriptorsOf(pid),
    storedFiles: stored.files,
    storedMiB: stored.mib,
    rememberedMiB: measure(data).mib - stored.mib - index.mib,
    indexMiB: index.mib,
    loopDelayMs: await loopDelayMs(),
  }
}

/** The mean delay of the relay's event loop since it was asked last. */
async function loopDelayMs(): Promise<number> {
  const text = await (await fetch(`${metrics}/metrics`)).text()
  return Number(/^nodejs_eventloop_lag_mean_seconds (\S+)/m.exec(text)?.[1] ?? Number.NaN) * 1000
}

/** All below these folders, in the space that the file system gives it. */
function measure(...folders: readonly string[]): { readonly files: number; readonly mib: number } {
  let files = 0
  let blocks = 0
  for (const file of folders.flatMap(filesBelow)) {
    const facts = statSync(file, { throwIfNoEntry: false })
    if (facts === undefined) continue
    files += 1
    blocks += facts.blocks
  }
  return { files, mib: (blocks * 512) / 2 ** 20 }
}

/** As far as they are there: folders come and go under whoever looks. */
function filesBelow(folder: string): string[] {
  let entries: Dirent[]
  try {
    entries = readdirSync(folder, { withFileTypes: true })
  } catch (error) {
    if (errorCode(error) === "ENOENT") return []
    throw error
  }
  return entries.flatMap((entry) => {
    const at = path.join(folder, entry.name)
    if (entry.isDirectory()) return filesBelow(at)
    return entry.isFile() ? [at] : []
  })
}

function keepCurve(samples: readonly Sample[]): void {
  const [first] = samples
  if (first === undefined) return
  mkdirSync("test-results", { recursive: true })
  const names = Object.keys(first)
  const rows = samples.map((sample) =>
    Object.values(sample).map((value: number) => Number(value.toFixed(2))),
  )
  const csv = [names.join(","), ...rows.map((row) => row.join(","))].join("\n")
  writeFileSync(`test-results/${name}.csv`, `${csv}\n`)
  writeFileSync(`test-results/${name}.svg`, drawCurve(samples))
}

/** Memory over time, with the thirds that are compared. */
function drawCurve(samples: readonly Sample[]): string {
  const [width, height, margin] = [900, 300, 50]
  const seconds = samples.at(-1)?.seconds ?? 1
  const most = Math.max(...samples.map(resident)) * 1.15
  const x = (at: number): string => (margin + (at / seconds) * (width - 2 * margin)).toFixed(1)
  const y = (mib: number): string =>
    (height - margin - (mib / most) * (height - 2 * margin)).toFixed(1)
  const curve = (of: (sample: Sample) => number, colour: string): string => {
    const points = samples.map((sample) => `${x(sample.seconds)},${y(of(sample))}`).join(" ")
    return `<polyline fill="none" stroke="${colour}" points="${points}"/>`
  }
  const thirds = [1, 2].map((third) => {
    const at = x((seconds * third) / 3)
    return `<line x1="${at}" x2="${at}" y1="${margin}" y2="${height - margin}" stroke="#ccc"/>`
  })
  const marks = [0, 0.5, 1].map((share) => {
    const mib = Math.round(most * share)
    return `<text x="${margin - 6}" y="${y(mib)}" text-anchor="end">${mib}</text>`
  })
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">
<rect width="${width}" height="${height}" fill="#fff"/>
${thirds.join("\n")}
${marks.join("\n")}
<text x="${margin}" y="${margin - 20}">The relay's memory in MiB over ${Math.round(seconds)} s: resident, and without the pages of its index</text>
${curve(resident, "#06c")}
${curve(({ ownMiB }) => ownMiB, "#c60")}
</svg>
`
}
