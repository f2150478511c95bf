/** Where units are worked on: two threads, or none when there is too little to do. */
import { Worker } from "node:worker_threads"
import { postedTask } from "./posted-task.js"
import type { Slots } from "./slots.js"
import {
  type OpenResult,
  type OpenTask,
  type SealResult,
  type SealTask,
  type ThreadData,
  type UnitResult,
  type UnitTask,
  UnitWorker,
} from "./unit-work.js"

/** Two threads keep up with a gigabyte a second of ciphertext; the main thread does the rest. */
const threads = 2
/** Below this, starting a thread takes longer than the work. */
const worthThreadsBytes = 8 * 1024 * 1024
/** Queued at a thread: the one it works on and the next, so that it never waits for us. */
const queueLength = 2

/** A thread makes little that lives longer than a unit; left alone, its heap takes 48 MiB before it looks. */
const threadYoungMiB = 8

interface Waiting {
  resolve: (result: UnitResult) => void
  reject: (error: Error) => void
}

interface Thread {
  worker: Worker
  waiting: Waiting[]
  /** Also when it ended by itself. */
  ended: Promise<void>
}

export class SealingPool {
  readonly #slots: Slots
  readonly #threads: Thread[] = []
  readonly #writeTurn = new Int32Array(new SharedArrayBuffer(4))
  /** Does the work until there turns out to be enough for threads. */
  #inline: UnitWorker | undefined
  #inlineBytes = 0
  #idle: (() => void)[] = []
  #failed: Error | undefined

  /** `workBytes` is what is known of the work to come; of a stream, nothing is. */
  constructor(slots: Slots, workBytes: number) {
    this.#slots = slots
    this.#inline = new UnitWorker(slots.views, this.#writeTurn)
    if (workBytes >= worthThreadsBytes) this.#startThreads()
  }

  #startThreads(): void {
    this.#inline?.close()
    this.#inline = undefined
    for (let i = 0; i < threads; i++) this.#threads.push(this.#start())
  }

  #start(): Thread {
    const workerData: ThreadData = { buffers: this.#slots.buffers, writeTurn: this.#writeTurn }
    const worker = new Worker(new URL("./sealing-worker.js", import.meta.url), {
      workerData,
      resourceLimits: { maxYoungGenerationSizeMb: threadYoungMiB },
    })
    const ended = new Promise<void>((resolve) => {
      worker.once("exit", () => resolve())
    })
    const thread: Thread = { worker, waiting: [], ended }
    worker.on("message", (result: UnitResult) => {
      thread.waiting.shift()?.resolve(result)
      for (const wake of this.#idle.splice(0)) wake()
    })
    const fail = (error: Error) => {
      this.#failed ??= error
      for (const { reject } of thread.waiting.splice(0)) reject(error)
      for (const wake of this.#idle.splice(0)) wake()
    }
    worker.on("error", fail)
    worker.on("exit", () => fail(new Error("a sealing thread ended")))
    return thread
  }

  /** Ends when the task is taken on; the result comes with the inner promise. */
  async seal(task: SealTask): Promise<{ result: Promise<SealResult> }> {
    const { result } = await this.#run(task)
    return { result: result.then(asSealed) }
  }

  async open(task: OpenTask): Promise<{ result: Promise<OpenResult> }> {
    const { result } = await this.#run(task)
    return { result: result.then(asOpened) }
  }

  async #run(task: UnitTask): Promise<{ result: Promise<UnitResult> }> {
    if (this.#inline) {
      this.#inlineBytes += task.segments.reduce((sum, { length }) => sum + length, 0)
      if (this.#inlineBytes < worthThreadsBytes) {
        return { result: Promise.resolve(this.#inline.run(task)) }
      }
      this.#startThreads()
    }
    for (;;) {
      if (this.#failed) throw this.#failed
      const [first, ...rest] = this.#threads
      if (first === undefined) throw new Error("the pool is closed")
      const thread = rest.reduce(
        (best, other) => (other.waiting.length < best.waiting.length ? other : best),
        first,
      )
      if (thread.waiting.length < queueLength) {
        const result = new Promise<UnitResult>((resolve, reject) => {
          thread.waiting.push({ resolve, reject })
        })
        // oxlint-disable-next-line unicorn/require-post-message-target-origin -- threads have no origin
        thread.worker.postMessage(postedTask(task))
        return { result }
      }
      await new Promise<void>((resolve) => this.#idle.push(resolve))
    }
  }

  /** Lets the tasks under way end, then closes every file they had open. */
  async close(): Promise<void> {
    this.#inline?.close()
    await Promise.all(
      this.#threads.splice(0).map(async ({ worker, ended }) => {
        // oxlint-disable-next-line unicorn/require-post-message-target-origin -- threads have no origin
        worker.postMessage("close")
        await ended
      }),
    )
  }
}

function asSealed(result: UnitResult): SealResult {
  if (result.kind === "opened") throw new TypeError("a seal task was answered as an open task")
  return result
}

function asOpened(result: UnitResult): OpenResult {
  if (result.kind !== "opened") throw new TypeError("an open task was answered as a seal task")
  return result
}
