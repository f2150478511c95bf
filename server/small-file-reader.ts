// Many small files at once. Handing one file to Node's pool of threads, which takes four calls, costs
// several times what the calls do; a thread that is handed hundreds of names and makes the calls itself
// reads a hundred thousand files in a second or two, and the relay's own thread has its hands free.
import { Worker } from "node:worker_threads"
import { type Disk, readOneByOne } from "./disk.js"

/** What a thread is asked. One long text is handed over in a fraction of the time of many short ones. */
export interface ReadTask {
  /** One behind the other, with `betweenPaths` between. */
  readonly paths: string
  readonly mostBytes: number
}

/** What no path holds. */
export const betweenPaths = "\0"

/** And what it answers: the files, one behind the other, and where each ends; -1 for one that is not there. */
export type ReadResult =
  | { readonly bytes: Uint8Array; readonly ends: Int32Array }
  | { readonly message: string; readonly code: string | undefined }

export interface SmallFileReader {
  read(paths: readonly string[], mostBytes: number): Promise<(Uint8Array | undefined)[]>
}

/** With fewer files a thread is not worth starting. */
const worthThread = 32
/** To start a thread takes as long as it takes to read a thousand files that are in memory. */
const threadsAtFirst = 2
/** Where they are not: the disk is kept busy by the ones that wait. */
const threadsAtMost = 4
const slowFileMs = 0.5
/** A thread takes some megabytes, and is wanted when a relay starts. */
const idleMs = 2_000
const threadYoungMiB = 4

interface Job {
  readonly paths: readonly string[]
  readonly mostBytes: number
  readonly resolve: (files: (Uint8Array | undefined)[]) => void
  readonly reject: (error: unknown) => void
}

/** By `disk` goes what is not worth a thread, and everything where there can be none. */
export function createSmallFileReader(disk: Pick<Disk, "open">): SmallFileReader {
  const queue: Job[] = []
  const idle: Worker[] = []
  let threads = 0
  let threadsWanted = threadsAtFirst
  let cannotStart = false
  let stopIdle: NodeJS.Timeout | undefined

  async function readHere({ paths, mostBytes, resolve, reject }: Job): Promise<void> {
    try {
      resolve(await readOneByOne(disk, paths, mostBytes))
    } catch (error) {
      reject(error)
    }
  }

  function next(): void {
    const job = queue[0]
    if (job === undefined) {
      stopIdle ??= setTimeout(stopThreads, idleMs).unref()
      return
    }
    if (cannotStart) {
      queue.shift()
      void readHere(job).finally(next)
      return
    }
    const worker = idle.pop() ?? (threads < threadsWanted ? start() : undefined)
    if (worker === undefined) return
    queue.shift()
    clearTimeout(stopIdle)
    stopIdle = undefined
    give(worker, job)
  }

  function start(): Worker {
    threads += 1
    const worker = new Worker(new URL("./small-file-worker.js", import.meta.url), {
      resourceLimits: { maxYoungGenerationSizeMb: threadYoungMiB },
    })
    // Whoever waits for its answer hears of it (`give`).
    return worker.on("error", () => undefined)
  }

  function give(worker: Worker, job: Job): void {
    // A job that is under way holds the process; a thread that waits for one does not.
    const done = (): void => {
      worker.off("message", answered).off("error", failed).off("exit", failed)
      worker.unref()
    }
    worker.ref()
    const startedMs = performance.now()
    const answered = (result: ReadResult): void => {
      done()
      idle.push(worker)
      const isSlow = performance.now() - startedMs > slowFileMs * job.paths.length
      threadsWanted = isSlow ? threadsAtMost : threadsAtFirst
      if ("message" in result) job.reject(systemErrorOf(result))
      else job.resolve(filesOf(result))
      next()
    }
    const failed = (): void => {
      done()
      threads -= 1
      cannotStart = true
      void readHere(job).finally(next)
    }
    worker.on("message", answered).on("error", failed).on("exit", failed)
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- threads have no origin
    worker.postMessage(taskOf(job))
  }

  function stopThreads(): void {
    stopIdle = undefined
    for (const worker of idle.splice(0)) {
      threads -= 1
      void worker.terminate()
    }
  }

  return {
    read(paths, mostBytes) {
      return new Promise((resolve, reject) => {
        const job = { paths, mostBytes, resolve, reject }
        if (paths.length < worthThread) {
          void readHere(job)
          return
        }
        queue.push(job)
        next()
      })
    },
  }
}

function taskOf({ paths, mostBytes }: Job): ReadTask {
  return { paths: paths.join(betweenPaths), mostBytes }
}

function filesOf({
  bytes,
  ends,
}: Extract<ReadResult, { readonly bytes: Uint8Array }>): (Uint8Array | undefined)[] {
  let from = 0
  return Array.from(ends, (end) => {
    if (end < 0) return undefined
    const file = bytes.subarray(from, end)
    from = end
    return file
  })
}

/** The system's code does not come through from one thread to another. */
function systemErrorOf({
  message,
  code,
}: {
  readonly message: string
  readonly code: string | undefined
}): Error {
  return Object.assign(new Error(message), code === undefined ? {} : { code })
}
