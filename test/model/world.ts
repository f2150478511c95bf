// A relay and what it stands in: its clock, its disk, its index, and the processes it dies and starts in.
import { createCipheriv, createHash } from "node:crypto"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { get } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { text as readAll } from "node:stream/consumers"
import { setImmediate as nextTurn, setTimeout as pause } from "node:timers/promises"
import type { Random, RelayStatus } from "../../protocol/index.js"
import { parseRelayStatus } from "../../protocol/index.js"
import { createRelay, type Relay, type RelayPorts } from "../../server/index.js"
import { openEmbeddedIndex } from "../../server/stores/embedded-index.js"
import { openRedisIndex } from "../../server/stores/redis-index.js"
import type { RelayIndex } from "../../server/stores/relay-index.js"
import { systemError } from "../server/faulty-disk.js"
import { ManualClock } from "../server/manual-clock.js"
import { configFor, SmallClient } from "../server/relay-under-test.js"
import type { Backend } from "./backends.js"
import { ModelDisk } from "./model-disk.js"

/** The same bytes for the same seed, whoever asks for how many. */
export function seededRandom(seed: string): Random {
  const key = createHash("sha256").update(seed).digest().subarray(0, 16)
  const cipher = createCipheriv("aes-128-ctr", key, new Uint8Array(16))
  return (length) => new Uint8Array(cipher.update(new Uint8Array(length)))
}

/** Small enough to meet each limit within a few commands. */
export const limits = {
  deliveryBytes: 600_000,
  inboxBytes: 1_200_000,
  inboxDeliveries: 6,
} as const

/** What the disk has left at first. */
export const roomBytes = 5_000_000

/** How long a process goes on without its disk. */
const lastWordsMs = 20

interface Running {
  readonly relay: Relay
  readonly client: SmallClient
  readonly disk: ModelDisk
  /** Once it listens, for its operator. */
  started?: Promise<unknown>
}

/** The index as a process has it that is gone when its disk says so: nothing more is asked of it. */
function mortal<T extends RelayIndex>(index: T, disk: ModelDisk): T {
  return new Proxy(index, {
    get(target, name, receiver) {
      const value: unknown = Reflect.get(target, name, receiver)
      if (typeof value !== "function" || name === "close" || name === "watch") return value
      return (...args: unknown[]): unknown =>
        disk.isGone ? Promise.reject(systemError("EKILLED")) : Reflect.apply(value, target, args)
    },
  })
}

export class World {
  readonly clock = new ManualClock(Date.now())
  readonly random: Random
  readonly backend: Backend
  /** Each line of the log, parsed. */
  readonly log: Record<string, unknown>[] = []
  readonly #root: string
  #folder: string
  #generation = 0
  #running: Running | undefined

  constructor(backend: Backend, seed: string) {
    this.backend = backend
    this.random = seededRandom(seed)
    this.#root = mkdtempSync(join(tmpdir(), "kh-model-"))
    this.#folder = join(this.#root, "0")
  }

  get client(): SmallClient {
    return this.#now.client
  }

  get disk(): ModelDisk {
    return this.#now.disk
  }

  get relay(): Relay {
    return this.#now.relay
  }

  get #now(): Running {
    if (this.#running === undefined) throw new Error("no relay is running")
    return this.#running
  }

  async open(disk: ModelDisk = new ModelDisk(this.clock, roomBytes)): Promise<void> {
    const ports: RelayPorts = {
      clock: this.clock,
      disk,
      random: this.random,
      openIndex: (options) => mortal(openEmbeddedIndex(options), disk),
      openRedis: async (options) => mortal(await openRedisIndex(options), disk),
      writeLog: (line) => this.log.push(JSON.parse(line)),
    }
    const config = configFor(this.#folder, { ...limits, ...this.backend.config() })
    const relay = await createRelay(config, ports)
    try {
      await relay.ready
    } catch (error) {
      await relay.stop().catch(() => undefined)
      throw error
    }
    this.#running = { relay, disk, client: new SmallClient(relay) }
  }

  /** Stops the relay as its operator does. */
  async stop(): Promise<void> {
    const { relay, client, disk } = this.#now
    this.#running = undefined
    this.#disk = disk.handOver()
    await relay.stop()
    client.close()
  }

  /** Both clocks go on; what was set for that time happens. */
  async advance(ms: number): Promise<void> {
    this.clock.advance(ms)
    this.#running?.disk.noteTime()
    await nextTurn()
  }

  /** The event loop goes round once. */
  async turn(): Promise<void> {
    await nextTurn()
  }

  /** Somebody sets the wall clock. */
  jump(ms: number): void {
    this.clock.jump(ms)
    this.#running?.disk.noteTime()
  }

  /**
   * Runs `work` in a relay that dies after so many operations of its disk, or else when `work` is done.
   * Gives what it came to, if it came to something before: what the relay says without waiting for its
   * disk it has said. The folder is then as the dead process left it.
   */
  async dieDuring<T>(work: () => Promise<T>, operations: number): Promise<T | undefined> {
    const dying = this.#now
    let result: { readonly value: T } | undefined
    const died = new Promise<void>((resolve) => dying.disk.killAfter(operations, resolve))
    const working = work().then(
      (value) => {
        result = { value }
      },
      () => undefined,
    )
    await Promise.race([died.then(() => pause(lastWordsMs)), working])
    const known = result
    await this.#leave(dying)
    await working
    return known?.value
  }

  async #leave({ relay, client, disk }: Running): Promise<void> {
    this.#running = undefined
    const before = this.#folder
    const next = this.#carryOver(disk)
    disk.bury()
    await relay.stop().catch(() => undefined)
    client.close()
    rmSync(before, { recursive: true, force: true })
    this.#disk = next
  }

  #disk: ModelDisk | undefined

  #carryOver(disk: ModelDisk): ModelDisk {
    const next = new ModelDisk(this.clock, disk.freeBytes)
    this.#generation += 1
    const folder = join(this.#root, String(this.#generation))
    disk.carry(this.#folder, folder, next)
    this.#folder = folder
    return next
  }

  /** The time that the last relay noted in its folder. */
  notedMs(): number {
    return Number(readFileSync(join(this.#folder, "clock"), "utf8"))
  }

  /** Starts a relay on what the last one left. With `operations` it dies once more on the way, if it gets that far. */
  async start(options: { readonly indexLost?: boolean; readonly dies?: number } = {}) {
    if (options.indexLost === true) await this.backend.lose(this.#folder)
    const disk = this.#disk ?? new ModelDisk(this.clock, roomBytes)
    this.#disk = undefined
    if (options.dies === undefined) return this.open(disk)
    const died = new Promise<"died">((resolve) =>
      disk.killAfter(options.dies ?? 0, () => resolve("died")),
    )
    const opening = this.open(disk)
    const outcome = await Promise.race([died, opening.then(() => "open" as const)])
    if (outcome === "open") return undefined
    const next = this.#carryOver(disk)
    disk.bury()
    await opening.catch(() => undefined)
    return this.open(next)
  }

  /** What the operator is told. */
  async status(): Promise<RelayStatus> {
    this.#now.started ??= this.relay.start()
    await this.#now.started
    const socketPath = join(this.#folder, "operator.sock")
    const answer = await new Promise<string>((resolve, reject) => {
      get({ socketPath, path: "/status" }, (res) => void readAll(res).then(resolve, reject)).once(
        "error",
        reject,
      )
    })
    return parseRelayStatus(JSON.parse(answer))
  }

  async close(): Promise<void> {
    if (this.#running !== undefined) await this.stop().catch(() => undefined)
    rmSync(this.#root, { recursive: true, force: true })
  }
}
