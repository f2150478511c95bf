// A relay on a disk in memory and an index in a real folder, which can end at any moment as a process
// does that is killed.
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createRelay, type Relay } from "../../server/index.js"
import { type EmbeddedIndex, openEmbeddedIndex } from "../../server/stores/embedded-index.js"
import { Draws } from "../fuzz/random.js"
import { ManualClock } from "../server/manual-clock.js"
import { configFor } from "../server/relay-under-test.js"
import { type DiskState, emptyDisk, MemoryDisk } from "./memory-disk.js"
import { Wire } from "./wire.js"

/** The index's file, in pages; equal pages of two moments are one array. */
export type IndexImage = readonly Uint8Array[]

const pageBytes = 4096

/** A place for the real files, in memory where the system has such a place. */
export function makeScratch(): string {
  return mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "knothole-faults-"))
}

export interface SubjectOptions {
  readonly scratch: string
  readonly disk?: DiskState
  /** None means that there is no index. */
  readonly index?: IndexImage | undefined
  readonly wallMs: number
  readonly seed: string
  /** Which start of the machine it is. */
  readonly boot?: string
  /** Operations on the disk that run at once come in many orders. */
  readonly shuffled?: boolean
  /** After each change of disk or index. */
  readonly changed?: (subject: Subject) => void
  readonly prepare?: (disk: MemoryDisk) => void
}

export class Subject {
  readonly clock: ManualClock
  readonly disk: MemoryDisk
  readonly log: Record<string, unknown>[] = []
  /** Changes of disk and index so far. */
  changes = 0
  #relay: Relay | undefined
  #wire: Wire | undefined
  #ended = false
  readonly #indexFile: string
  readonly #options: SubjectOptions
  readonly #draws: Draws
  #index: IndexImage | undefined
  #indexHead = ""

  constructor(options: SubjectOptions) {
    this.#options = options
    this.#draws = new Draws(options.seed, "relay")
    this.clock = new ManualClock(options.wallMs)
    const folder = join(options.scratch, "relay")
    const indexFolder = join(folder, "index")
    rmSync(folder, { recursive: true, force: true })
    mkdirSync(indexFolder, { recursive: true })
    this.#indexFile = join(indexFolder, "data.mdb")
    if (options.index !== undefined) writeFileSync(this.#indexFile, Buffer.concat(options.index))
    this.#index = options.index
    const draws = new Draws(options.seed, "turns")
    this.disk = new MemoryDisk({
      state: options.disk ?? emptyDisk,
      root: options.scratch,
      realFolder: indexFolder,
      nowMs: () => this.clock.wallMs(),
      ...(options.shuffled === true && { turn: () => turns(draws.below(3)) }),
    })
    this.disk.changed = () => this.#change()
    options.prepare?.(this.disk)
  }

  get relay(): Relay {
    if (this.#relay === undefined) throw new RangeError("the relay is not there")
    return this.#relay
  }

  get wire(): Wire {
    if (this.#wire === undefined) throw new RangeError("the relay is not there")
    return this.#wire
  }

  /** What the log said that an operator has to see. */
  alarms(): string[] {
    return this.log.filter(({ level }) => level === "alarm").map(({ event }) => String(event))
  }

  /** Rejects when the relay does not come up. */
  async start(): Promise<void> {
    const folder = join(this.#options.scratch, "relay")
    this.#relay = await createRelay(configFor(folder), {
      clock: this.clock,
      disk: this.disk,
      random: (length) => this.#draws.bytes(length),
      bootId: () => this.#options.boot ?? "boot",
      openIndex: (options) => this.#watched(openEmbeddedIndex(options)),
      writeLog: (line) => {
        if (!this.#ended) this.log.push(JSON.parse(line))
      },
    })
    await this.#relay.ready
    this.#wire = new Wire(this.#relay.app, () => this.changes)
  }

  /** The index's file as the kernel has it now. */
  readIndex(): IndexImage | undefined {
    this.#lookAtIndex()
    return this.#index
  }

  /** The same, since the last step. */
  get index(): IndexImage | undefined {
    return this.#index
  }

  /** Another process on what is there, for one that could not start. */
  async restart(): Promise<void> {
    await this.#relay?.stop().catch(() => undefined)
    await this.start()
  }

  /** The process is gone; nothing that it was about to do happens any more. */
  async kill(): Promise<void> {
    this.#ended = true
    this.disk.changed = () => undefined
    this.disk.fault = () => ({ code: "EKILLED" })
    this.#wire?.close()
    await this.#relay?.stop().catch(() => undefined)
  }

  /** The relay stops as it should. */
  async stop(): Promise<void> {
    await this.relay.stop()
    this.#wire?.close()
  }

  #change(): void {
    if (this.#ended) return
    this.changes += 1
    this.#options.changed?.(this)
  }

  /** Each of its steps is done when its method returns, although it says so later. */
  #watched(index: EmbeddedIndex): EmbeddedIndex {
    if (this.#options.changed === undefined) return index
    const look = (): void => {
      if (!this.#ended && this.#lookAtIndex()) this.#change()
    }
    return new Proxy(index, {
      get: (target, name, receiver) => {
        const method: unknown = Reflect.get(target, name, receiver)
        if (typeof method !== "function" || name === "close" || name === "watch") return method
        return (...args: unknown[]) => {
          // What the index's own method gives is handed on as it is.
          const result: unknown = Reflect.apply(method, target, args)
          look()
          if (result instanceof Promise) void result.then(look, () => undefined)
          return result
        }
      },
    })
  }

  /** Whether the file changed since the last look. */
  #lookAtIndex(): boolean {
    if (!readdirSync(join(this.#indexFile, "..")).includes("data.mdb")) {
      const wasThere = this.#index !== undefined
      this.#index = undefined
      this.#indexHead = ""
      return wasThere
    }
    const bytes = readFileSync(this.#indexFile)
    // LMDB's two first pages name the last transaction.
    const head = bytes.toString("latin1", 0, 2 * pageBytes)
    if (head === this.#indexHead) return false
    this.#indexHead = head
    const before = this.#index ?? []
    const pages: Uint8Array[] = []
    for (let at = 0; at < bytes.length; at += pageBytes) {
      const page = bytes.subarray(at, at + pageBytes)
      const known = before[at / pageBytes]
      pages.push(known !== undefined && page.equals(known) ? known : new Uint8Array(page))
    }
    this.#index = pages
    return true
  }
}

async function turns(count: number): Promise<void> {
  for (let at = 0; at < count; at++) await new Promise<void>((resolve) => setImmediate(resolve))
}
