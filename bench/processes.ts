/** Processes that a measurement starts: their wall time, and the peak memory the kernel counted for each. */
import { spawn, type ChildProcess } from "node:child_process"
import { once } from "node:events"
import { readdirSync, readFileSync } from "node:fs"
import { createServer } from "node:net"

export const program: string = `${process.cwd()}/dist/client/main.cjs`

export type Finished = {
  code: number | null
  stdout: string
  stderr: string
  seconds: number
  /** Of its own, in user and in kernel mode; not of processes that it started. */
  cpuSeconds: number
  peakMiB: number
}

/** The kernel's high-water mark of a living process, in MiB; 0 when it is gone. */
export function peakMiBOf(pid: number | undefined): number {
  return statusMiBOf(pid, "VmHWM")
}

/** What of a living process is in memory now, in MiB; 0 when it is gone. */
export function residentMiBOf(pid: number | undefined): number {
  return statusMiBOf(pid, "VmRSS")
}

/** The same without the pages of files that it maps. */
export function ownMiBOf(pid: number | undefined): number {
  return statusMiBOf(pid, "RssAnon")
}

function statusMiBOf(pid: number | undefined, name: "VmHWM" | "VmRSS" | "RssAnon"): number {
  if (pid === undefined) return 0
  try {
    const text = readFileSync(`/proc/${pid}/status`, "utf8")
    const line = new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(text)
    return line?.[1] === undefined ? 0 : Number(line[1]) / 1024
  } catch {
    return 0
  }
}

/** How many descriptors a living process has open; 0 when it is gone. */
export function descriptorsOf(pid: number | undefined): number {
  if (pid === undefined) return 0
  try {
    return readdirSync(`/proc/${pid}/fd`).length
  } catch {
    return 0
  }
}

/** Clock ticks of /proc are a hundredth of a second on every Linux that Node runs on. */
const ticksPerSecond = 100

/** The processor time of a living process with all its threads; 0 when it is gone. */
export function cpuSecondsOf(pid: number | undefined): number {
  if (pid === undefined) return 0
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8")
    // Behind the name, which may hold anything: state is the first, utime and stime the 12th and 13th.
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ")
    return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
  } catch {
    return 0
  }
}

/** Runs a program to its end. Both marks only grow, so reading them often misses at most its last 50 ms. */
export async function run(
  command: string,
  args: readonly string[],
  options: { env?: NodeJS.ProcessEnv; cwd?: string } = {},
): Promise<Finished> {
  const started = performance.now()
  const child = spawn(command, args, { ...options, stdio: ["ignore", "pipe", "pipe"] })
  let stdout = ""
  let stderr = ""
  let peakMiB = 0
  let cpuSeconds = 0
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text))
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text))
  const watch = setInterval(() => {
    peakMiB = Math.max(peakMiB, peakMiBOf(child.pid))
    cpuSeconds = Math.max(cpuSeconds, cpuSecondsOf(child.pid))
  }, 50)
  const [code] = (await once(child, "close")) as [number | null]
  clearInterval(watch)
  const seconds = (performance.now() - started) / 1000
  return { code, stdout, stderr, seconds, cpuSeconds, peakMiB }
}

export async function mustRun(
  command: string,
  args: readonly string[],
  options: { env?: NodeJS.ProcessEnv; cwd?: string } = {},
): Promise<Finished> {
  const finished = await run(command, args, options)
  if (finished.code !== 0) {
    throw new Error(
      `${command} ${args.join(" ")} ended with ${finished.code}:\n${finished.stderr.slice(-4000)}`,
    )
  }
  return finished
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const address = server.address()
  server.close()
  await once(server, "close")
  if (address === null || typeof address === "string") throw new Error("no port was given")
  return address.port
}

/** Starts a server and waits until it says on stderr that it listens. */
export async function startServer(
  command: string,
  args: readonly string[],
  says: RegExp,
  env: NodeJS.ProcessEnv = process.env,
): Promise<ChildProcess> {
  const child = spawn(command, args, { env, stdio: ["ignore", "ignore", "pipe"] })
  await new Promise<void>((resolve, reject) => {
    let text = ""
    child.stderr.setEncoding("utf8").on("data", (piece: string) => {
      text = (text + piece).slice(-8000)
      if (says.test(text)) resolve()
    })
    child.once("exit", (code) => reject(new Error(`${command} ended with ${code}:\n${text}`)))
  })
  return child
}

export async function stopServer(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill("SIGTERM")
  await once(child, "exit")
}

/** An environment in which Knothole keeps everything of one person below `home`. */
export const personEnv = (home: string): NodeJS.ProcessEnv => ({
  ...process.env,
  HOME: home,
  KNOTHOLE_HOME: `${home}/knothole`,
})
