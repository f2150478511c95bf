// The dead drop from end to end, with real processes: `npm run demo`, or `npm run demo -- PATH` with one's own files;
// `npm run demo -- --redis` with the index in a Redis that it starts.
// It knows the program only by its command line, so that what it shows is what a person would see.
import { spawn } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { randomFillSync } from "node:crypto"
import { once } from "node:events"
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { createInterface } from "node:readline"
import { text as readAll } from "node:stream/consumers"
import { fileURLToPath } from "node:url"
import { showCount, showSize, showText } from "./program/display.js"

const KIB = 1024
const MIB = 1024 * KIB
const program = fileURLToPath(new URL("./main.cjs", import.meta.url))

/** What this run started and must not leave behind. */
const running = new Set<ChildProcess>()

const stopSignals = ["SIGINT", "SIGTERM"] as const
let stopped = false
for (const name of stopSignals) {
  process.on(name, () => {
    stopped = true
    // What waits for a child now fails, and takes the ordinary way out.
    for (const child of running) child.kill("SIGKILL")
  })
}

interface Wanted {
  readonly path: string | undefined
  readonly redis: boolean
}

function parseArguments(args: readonly string[]): Wanted {
  const redis = args.includes("--redis")
  const [named, ...others] = args.filter((arg) => arg !== "--redis")
  if (others.length > 0 || named?.startsWith("-") === true) {
    throw new Error("npm run demo -- [--redis] [PATH]")
  }
  return { path: named, redis }
}

async function main(wanted: Wanted): Promise<void> {
  const work = mkdtempSync(path.join(tmpdir(), "knothole-demo-"))
  try {
    const summary = await demonstrate(work, wanted)
    await step("What was started is stopped, the folder removed", async () => {
      await clearAway(work)
      return "nothing is left behind"
    })
    console.log(summary)
  } finally {
    await clearAway(work)
  }
}

async function clearAway(work: string): Promise<void> {
  for (const child of running) {
    const gone = once(child, "exit")
    child.kill("SIGKILL")
    await gone
  }
  rmSync(work, { recursive: true, force: true })
}

/** Answers what was shown, in a sentence. */
async function demonstrate(work: string, { path: named, redis }: Wanted): Promise<string> {
  const recipient = personIn(path.join(work, "recipient"))
  const sender = personIn(path.join(work, "sender"))
  const relayArgs = ["relay", "--data", path.join(work, "relay")]
  if (redis) {
    const { url } = await step("A Redis starts, on a socket of its own", async () => {
      const started = await startRedis(work)
      return { url: started, detail: started }
    })
    relayArgs.push("--redis", url)
  }

  const source = named === undefined ? path.join(work, "letters") : realpathSync(named)
  if (named === undefined) {
    await step("A folder to send is made up", () => {
      makeTree(source)
      return describeTree(listTree(source))
    })
  }
  const sent = listTree(source)

  const relayStarts = redis
    ? "A relay starts, with its index in that Redis"
    : "A relay starts, with the index that needs no server"
  let relay = await step(relayStarts, async () => {
    const started = await startRelay([...relayArgs, "--listen", "127.0.0.1:0"], work)
    return { ...started, detail: started.url }
  })

  const { address } = await step("The recipient opens an inbox, and goes offline", async () => {
    const result = await knothole(
      ["init", "--relay", relay.url, "--no-passphrase", "-q"],
      recipient,
    )
    return { address: result.trim(), detail: result.trim() }
  })

  const { id } = await step("A sender without an account sends", async (seconds) => {
    const result = await knothole(["send", source, "-r", address, "-q"], sender)
    if (existsSync(path.join(sender.home, "identities")))
      throw new Error("the sender got an identity")
    return { id: result.trim(), detail: `${describeTree(sent)}${rate(sent, seconds())}` }
  })

  relay = await step("The relay is stopped and started again", async () => {
    const { child, url } = relay
    const gone = once(child, "exit")
    child.kill("SIGTERM")
    const [code] = await gone
    if (code !== 0) throw new Error(`the relay ended with ${code}`)
    const again = await startRelay([...relayArgs, "--listen", new URL(url).host], work)
    return { ...again, detail: again.url }
  })

  await step("The recipient comes back and looks", async () => {
    const rows: unknown = JSON.parse(await knothole(["inbox", "--json"], recipient))
    if (!Array.isArray(rows) || rows.length !== 1) throw new Error("not one delivery waits")
    return showCount(rows.length, "delivery waits", "deliveries wait")
  })

  const received = path.join(work, "received")
  await step("The recipient picks it up", async (seconds) => {
    await knothole(["receive", "-o", received, "-q"], recipient)
    return `delivery ${id}${rate(sent, seconds())}`
  })

  await step("The sender asks what became of it", async () => {
    const state = (await knothole(["status", id, "-q"], sender)).trim()
    if (state !== "taken") throw new Error(`the delivery is ${state}, not taken`)
    return state
  })

  await step("Every name and every byte is compared", () => {
    const arrived = path.join(received, path.basename(source))
    const differences = compareTrees({ source, sent, arrived })
    if (differences.length > 0) {
      throw new Error(
        [`${differences.length} differ:`, ...differences.slice(0, 20).map(showText)].join("\n  "),
      )
    }
    return "all the same"
  })

  const leftOut = sent.filter((item) => item.kind === "other").length
  if (leftOut > 0) {
    console.log(
      `${showCount(leftOut, "link or device", "links and devices")} in ${showText(source)} cannot be sent and stayed behind.`,
    )
  }
  return `Done: ${describeTree(sent)}, left for someone who was not there, and picked up.`
}

let steps = 0

/** Prints what is done, then how long it took and what came of it. */
async function step<T extends string | { detail: string }>(
  title: string,
  action: (seconds: () => number) => T | Promise<T>,
): Promise<T> {
  if (stopped) throw new Error("stopped")
  steps += 1
  process.stdout.write(`${String(steps).padStart(2)}  ${title.padEnd(54)}`)
  const startedMs = performance.now()
  const seconds = () => (performance.now() - startedMs) / 1000
  const result = await action(seconds)
  const detail = typeof result === "string" ? result : result.detail
  process.stdout.write(`${seconds().toFixed(2).padStart(7)} s  ${detail}\n`)
  return result
}

interface Person {
  readonly home: string
  readonly env: NodeJS.ProcessEnv
}

/** A person with nothing but a home of their own; no setting of whoever runs the demo reaches them. */
function personIn(home: string): Person {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("KNOTHOLE_"))
  return { home, env: { ...Object.fromEntries(inherited), KNOTHOLE_HOME: home } }
}

/** Runs one command to its end and answers its stdout. */
async function knothole(args: string[], person: Person): Promise<string> {
  const child = spawn(process.execPath, [program, ...args], {
    env: person.env,
    stdio: ["ignore", "pipe", "pipe"],
  })
  remember(child)
  const [stdout, stderr, [code, signal]] = await Promise.all([
    readAll(child.stdout),
    readAll(child.stderr),
    once(child, "close"),
  ])
  if (code !== 0) {
    throw new Error(`'knothole ${args.join(" ")}' ended with ${code ?? signal}:\n${stderr}`)
  }
  return stdout
}

async function startRelay(
  args: string[],
  home: string,
): Promise<{ child: ChildProcess; url: string }> {
  const child = spawn(process.execPath, [program, ...args], {
    env: personIn(home).env,
    stdio: ["ignore", "ignore", "pipe"],
  })
  remember(child)
  const lines = createInterface(child.stderr)
  const said: string[] = []
  // The relay's log goes on for as long as it runs; it has to be read, and is of no use here.
  const url = await new Promise<string>((resolve, reject) => {
    lines.on("line", (line) => {
      const match = /^listening on (\S+)/.exec(line)
      if (match?.[1] !== undefined) resolve(match[1])
      else if (said.length < 50) said.push(line)
    })
    lines.once("close", () => reject(new Error(`the relay did not start:\n${said.join("\n")}`)))
  })
  return { child, url }
}

/** Its URL. It keeps no file: the relay has all that matters. */
async function startRedis(work: string): Promise<string> {
  const socket = path.join(work, "redis.sock")
  const settings = ["--port", "0", "--unixsocket", socket, "--dir", work, "--save", ""]
  const child = spawn("redis-server", [...settings, "--maxmemory-policy", "noeviction"], {
    stdio: ["ignore", "pipe", "ignore"],
  })
  remember(child)
  const said: string[] = []
  await new Promise<void>((resolve, reject) => {
    child.once("error", (error: NodeJS.ErrnoException) => {
      const missing = "redis-server is not installed; install Redis, or leave out --redis"
      reject(error.code === "ENOENT" ? new Error(missing) : error)
    })
    const lines = createInterface(child.stdout)
    lines.on("line", (line) => {
      said.push(line)
      if (line.includes("eady to accept connections")) resolve()
    })
    lines.once("close", () => reject(new Error(`Redis did not start:\n${said.join("\n")}`)))
  })
  return `redis+unix://${socket}`
}

function remember(child: ChildProcess): void {
  running.add(child)
  child.once("exit", () => running.delete(child))
  // It never ran.
  child.once("error", () => running.delete(child))
}

interface TreeItem {
  /** Below the root, in the bytes the file system has, each shown as one Latin-1 character. */
  readonly name: string
  readonly kind: "file" | "folder" | "other"
  readonly sizeBytes: number
  readonly changedMs: number
}

/** A walk of its own, which shares nothing with the one that is being shown. The root itself comes first. */
function listTree(root: string): TreeItem[] {
  const items: TreeItem[] = []
  const visit = (name: string) => {
    const status = lstatSync(placeOf(root, name))
    const kind = status.isFile() ? "file" : status.isDirectory() ? "folder" : "other"
    const sizeBytes = kind === "file" ? status.size : 0
    items.push({ name, kind, sizeBytes, changedMs: status.mtimeMs })
    if (kind !== "folder") return
    for (const child of readdirSync(placeOf(root, name), { encoding: "buffer" })) {
      visit(`${name}/${child.toString("latin1")}`)
    }
  }
  visit("")
  return items
}

function placeOf(root: string, name: string): Buffer {
  return Buffer.concat([Buffer.from(root), Buffer.from(name, "latin1")])
}

function describeTree(items: readonly TreeItem[]): string {
  const files = items.filter((item) => item.kind === "file")
  const folders = items.filter((item) => item.kind === "folder")
  return `${showCount(files.length, "file")}, ${showCount(folders.length, "folder")}, ${showSize(totalBytes(items))}`
}

function totalBytes(items: readonly TreeItem[]): number {
  return items.reduce((sum, item) => sum + item.sizeBytes, 0)
}

function rate(items: readonly TreeItem[], seconds: number): string {
  return ` (${showSize(totalBytes(items) / seconds)}/s)`
}

function compareTrees(options: {
  source: string
  sent: readonly TreeItem[]
  arrived: string
}): string[] {
  const { source, sent, arrived } = options
  if (!existsSync(arrived)) return [`nothing arrived at ${arrived}`]
  const found = new Map(listTree(arrived).map((item) => [item.name, item]))
  const differences: string[] = []
  for (const item of sent) {
    if (item.kind === "other") continue
    const other = found.get(item.name)
    found.delete(item.name)
    if (other === undefined) differences.push(`${item.name}: missing`)
    else if (other.kind !== item.kind) differences.push(`${item.name}: a ${other.kind}`)
    else if (item.kind === "file") {
      const original = placeOf(source, item.name)
      if (sameBytes(original, placeOf(arrived, item.name))) continue
      const isAsSent = lstatSync(original).mtimeMs === item.changedMs
      differences.push(`${item.name}: ${isAsSent ? "other bytes" : "changed since it was sent"}`)
    }
  }
  for (const name of found.keys()) differences.push(`${name}: was not sent`)
  return differences
}

const ours = Buffer.allocUnsafe(MIB)
const theirs = Buffer.allocUnsafe(MIB)

function sameBytes(one: Buffer, other: Buffer): boolean {
  const first = openSync(one, "r")
  try {
    const second = openSync(other, "r")
    try {
      for (;;) {
        const read = fill(first, ours)
        if (fill(second, theirs) !== read) return false
        if (ours.compare(theirs, 0, read, 0, read) !== 0) return false
        if (read < ours.length) return true
      }
    } finally {
      closeSync(second)
    }
  } finally {
    closeSync(first)
  }
}

/** Reads until the buffer is full or the file ends. */
function fill(descriptor: number, buffer: Buffer): number {
  let filled = 0
  while (filled < buffer.length) {
    const read = readSync(descriptor, buffer, filled, buffer.length - filled, null)
    if (read === 0) break
    filled += read
  }
  return filled
}

/** About 64 MiB: many small files, a few large ones, sizes at the edges of the chunk grid, names in several scripts. */
function makeTree(root: string): void {
  const write = (name: string, sizeBytes: number) => {
    const file = path.join(root, name)
    mkdirSync(path.dirname(file), { recursive: true })
    writeFileSync(file, randomFillSync(Buffer.allocUnsafe(sizeBytes)))
  }
  for (const size of [0, 1, 15, 16, 17, 128 * KIB - 1, 128 * KIB, 128 * KIB + 1, 384 * KIB]) {
    write(`edges/${size} bytes.bin`, size)
  }
  for (let index = 0; index < 400; index++) {
    write(`notes/${2020 + (index % 7)}/note ${index}.txt`, 100 + ((index * 7919) % (48 * KIB)))
  }
  for (let index = 0; index < 8; index++) write(`photos/IMG_${1000 + index}.jpg`, 2 * MIB + index)
  write("Übersicht, отчёт, 概要.pdf", 700 * KIB)
  write("film.mkv", 36 * MIB + 12_345)
  mkdirSync(path.join(root, "empty folder"), { recursive: true })
}

try {
  await main(parseArguments(process.argv.slice(2)))
} catch (error) {
  const reason = error instanceof Error ? error.message : String(error)
  console.error(stopped ? "\ndemo: stopped" : `\ndemo: ${reason}`)
  process.exitCode = stopped ? 130 : 1
}
