// The disk as the model's relay has it: the real one, one operation after the other, on which the relay
// can die at any operation, space can run out, and files are as old as the relay's clock says.
import { cpSync, lstatSync } from "node:fs"
import { join } from "node:path"
import { setImmediate as nextTurn } from "node:timers/promises"
import type { Clock, Disk, DiskFile, FileFacts } from "../../server/index.js"
import { nodeDisk } from "../../server/node-disk.js"
import { systemError } from "../server/faulty-disk.js"

/** The kernel's times of files lag behind by as much as one of its ticks. */
const tickMs = 10
const lockedMs = 10_000
/** Turns of the event loop in which others may ask for the disk before it is decided who is next. */
const turnsToChoose = 4

interface Waiting {
  run(): Promise<void>
  fail(error: Error): void
}

export class ModelDisk implements Disk {
  /** What the disk says it has left, whatever has been written. */
  freeBytes: number
  /** How much can still be written; what is removed makes room. */
  roomBytes = Number.POSITIVE_INFINITY
  /** Which of so many operations that wait for the disk is next; without it the first that came. */
  choose: ((count: number) => number) | undefined
  readonly #clock: Clock
  /** From which real moment on the clock said what. */
  readonly #times: { readonly fromMs: number; readonly wallMs: number }[] = []
  /** Files of a folder that was carried over, by what the copy is to be taken for. */
  readonly #carried = new Map<string, string>()
  #waiting: Waiting[] = []
  #isRunning = false
  #left = Number.POSITIVE_INFINITY
  #die: () => void = () => undefined
  #state: "alive" | "dying" | "gone" = "alive"

  constructor(clock: Clock, freeBytes: number) {
    this.#clock = clock
    this.freeBytes = freeBytes
    this.noteTime()
  }

  /** The process that had it is no more. */
  get isGone(): boolean {
    return this.#state === "gone"
  }

  /** After `operations` more of them there is no other, and `die` is called. */
  killAfter(operations: number, die: () => void): void {
    this.#left = operations
    this.#die = die
  }

  /** What waits for the disk of a dead process fails, so that the test can put the rest of it away. */
  bury(): void {
    this.#state = "gone"
    for (const waiting of this.#waiting.splice(0)) waiting.fail(systemError("EKILLED"))
  }

  /** Copies a dead process's folder, as that very folder to whoever opens it on `into`. */
  carry(from: string, to: string, into: ModelDisk): void {
    cpSync(from, to, {
      recursive: true,
      preserveTimestamps: true,
      // Sockets, and who has the index open, end with the process.
      filter: (path) => !lstatSync(path).isSocket() && !path.endsWith("lock.mdb"),
    })
    for (const name of ["version", join("index", "data.mdb")]) {
      const [before, after] = [identityOf(join(from, name)), identityOf(join(to, name))]
      if (before === undefined || after === undefined) continue
      into.#carried.set(after, this.#carried.get(before) ?? before)
    }
    into.#times.unshift(...this.#times)
  }

  /** The same disk, for the process that comes after this one. */
  handOver(): ModelDisk {
    const next = new ModelDisk(this.#clock, this.freeBytes)
    for (const [copy, original] of this.#carried) next.#carried.set(copy, original)
    next.#times.unshift(...this.#times)
    return next
  }

  /** To be told of each change of the clock. */
  noteTime(): void {
    this.#times.push({ fromMs: Date.now(), wallMs: this.#clock.wallMs() })
  }

  create(path: string): Promise<DiskFile> {
    return this.#step(async () => this.#wrap(await nodeDisk.create(path)))
  }

  open(path: string, access: "read" | "update"): Promise<DiskFile> {
    return this.#step(async () => this.#wrap(await nodeDisk.open(path, access)))
  }

  readSmallFiles(paths: readonly string[], mostBytes: number): Promise<(Uint8Array | undefined)[]> {
    return this.#step(() => nodeDisk.readSmallFiles(paths, mostBytes))
  }

  rename(from: string, to: string): Promise<void> {
    return this.#step(() => nodeDisk.rename(from, to))
  }

  unlink(path: string): Promise<void> {
    return this.#step(async () => {
      const { sizeBytes } = await nodeDisk.stat(path)
      await nodeDisk.unlink(path)
      this.roomBytes += sizeBytes
    })
  }

  makeFolder(path: string): Promise<void> {
    return this.#step(() => nodeDisk.makeFolder(path))
  }

  removeFolder(path: string): Promise<void> {
    return this.#step(() => nodeDisk.removeFolder(path))
  }

  list(path: string): Promise<string[]> {
    return this.#step(() => nodeDisk.list(path))
  }

  stat(path: string): Promise<FileFacts> {
    return this.#step(async () => {
      const facts = await nodeDisk.stat(path)
      // Whoever starts the next process waits until a lock that says nothing is nobody's.
      if (path.endsWith("/lock")) return { ...facts, modifiedMs: facts.modifiedMs - lockedMs }
      return {
        ...facts,
        identity: this.#carried.get(facts.identity) ?? facts.identity,
        modifiedMs: this.#wallAt(facts.modifiedMs + tickMs),
      }
    })
  }

  /** Only a power cut would show whether it was done, and this machine has none. */
  syncFolder(): Promise<void> {
    return this.#step(() => Promise.resolve())
  }

  space(): ReturnType<Disk["space"]> {
    const freeBytes = Math.min(this.freeBytes, this.roomBytes)
    return this.#step(() => Promise.resolve({ freeBytes, totalBytes: 2 ** 40 }))
  }

  #wallAt(realMs: number): number {
    const since = this.#times.findLast(({ fromMs }) => fromMs <= realMs) ?? this.#times[0]
    return since?.wallMs ?? this.#clock.wallMs()
  }

  #step<T>(work: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#state === "gone") {
        reject(systemError("EKILLED"))
        return
      }
      const run = async (): Promise<void> => {
        try {
          resolve(await work())
        } catch (error) {
          reject(error)
        }
      }
      this.#waiting.push({ run, fail: reject })
      if (!this.#isRunning) void this.#runAll()
    })
  }

  async #runAll(): Promise<void> {
    this.#isRunning = true
    while (this.#waiting.length > 0 && this.#state === "alive") {
      if (this.choose !== undefined) {
        for (let turn = 0; turn < turnsToChoose; turn++) await nextTurn()
      }
      if (this.#left === 0) {
        // Neither done nor failed: whoever waits for it is gone as well.
        this.#state = "dying"
        this.#die()
        break
      }
      this.#left -= 1
      const [next] = this.#waiting.splice(this.choose?.(this.#waiting.length) ?? 0, 1)
      await next?.run()
    }
    this.#isRunning = false
  }

  #wrap(file: DiskFile): DiskFile {
    return {
      read: (into, position) => this.#step(() => file.read(into, position)),
      write: (bytes, position) =>
        this.#step(async () => {
          if (bytes.length > this.roomBytes) throw systemError("ENOSPC")
          this.roomBytes -= bytes.length
          await file.write(bytes, position)
        }),
      sizeBytes: () => this.#step(() => file.sizeBytes()),
      truncate: (sizeBytes) => this.#step(() => file.truncate(sizeBytes)),
      sync: () => this.#step(() => Promise.resolve()),
      async close() {
        // No operation of its own to die at: real descriptors are given back whoever is dead.
        await file.close()
      },
    }
  }
}

function identityOf(path: string): string | undefined {
  const facts = lstatSync(path, { bigint: true, throwIfNoEntry: false })
  return facts && `${facts.ino}-${facts.birthtimeNs}`
}
