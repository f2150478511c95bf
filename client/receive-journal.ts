/**
 * How far receiving one delivery has come, in the private folder it is received into. It holds no
 * secrets: the keys are in the manifest, which is fetched and verified again.
 *
 * Chunks that were checked and written are believed later if they were synced, or if this machine has
 * not been restarted since: a killed process loses nothing that it wrote, a power cut may.
 */
import { readFileSync } from "node:fs"
import {
  ByteReader,
  concatBytes,
  equalBytes,
  FormatError,
  fromHex,
  hkdfSha256,
  type Identity,
  parseUtf8,
  u32,
  utf8,
} from "../protocol/index.js"
import { AppendLog, createLog, type LogRecord, readLog, reopenLog } from "./append-log.js"

const magic = "KNHRCV1\n"
const types = {
  start: 1,
  boot: 2,
  done: 3,
  synced: 4,
  /** As earlier versions noted it: without a path, and in the words that people were told. */
  formerFailed: 5,
  placing: 6,
  placed: 7,
  renamed: 8,
  failed: 9,
  withdrawn: 10,
} as const

/**
 * Its content is not what its MACs say; its name is another entry's here; this disk does not store it
 * under any name. Journals hold their places in this list.
 */
const failureReasons = ["mac", "exists", "name"] as const

export type FailureReason = (typeof failureReasons)[number]

const formerReasons: ReadonlyMap<string, FailureReason> = new Map([
  ["its content does not match what the list of entries says; its sender made it so", "mac"],
  ["this file system takes its name for that of another entry", "exists"],
  ["this file system does not allow its name", "name"],
])

export interface FailedEntry {
  readonly entry: number
  readonly path: string
  readonly reason: FailureReason
}

/** Its path is undefined where an earlier version noted it. */
export type NotedFailure = Omit<FailedEntry, "path"> & { readonly path: string | undefined }

/** A path of the delivery, of a file or a folder, that this disk stores under another one. */
export interface RenamedPath {
  readonly path: string
  readonly stored: string
}

/** A run of chunks, or of parts that hold padding only. */
export interface DoneRun {
  readonly kind: "chunks" | "padding"
  readonly first: number
  readonly count: number
}

export type ReceiveStage = "fetching" | "placing" | "placed"

export class ReceiveJournal {
  readonly #log: AppendLog
  /** What does not have to be fetched again. */
  readonly done: DoneRun[] = []
  readonly failed: NotedFailure[] = []
  readonly #renamed = new Map<string, string>()
  /** Where things are or will be put, as names in the destination. */
  placedNames: readonly string[] = []
  stage: ReceiveStage = "fetching"
  #recorded = 0

  constructor(log: AppendLog) {
    this.#log = log
  }

  get renamed(): RenamedPath[] {
    return Array.from(this.#renamed, ([path, stored]) => ({ path, stored }))
  }

  /** How many runs have been noted so far, for `synced`. */
  get recorded(): number {
    return this.#recorded
  }

  /** Written, not yet synced. */
  async noteDone(run: DoneRun): Promise<void> {
    this.#recorded++
    const kind = run.kind === "chunks" ? 0 : 1
    this.#log.append(types.done, concatBytes(Uint8Array.of(kind), u32(run.first), u32(run.count)))
    await this.#log.write()
  }

  /** The first `recorded` runs are on stable storage. */
  async noteSynced(recorded: number): Promise<void> {
    this.#log.append(types.synced, u32(recorded))
    await this.#log.flush()
  }

  async noteFailed(failures: readonly FailedEntry[]): Promise<void> {
    if (failures.length === 0) return
    for (const failure of failures) {
      this.failed.push(failure)
      this.#log.append(types.failed, encodeFailed(failure))
    }
    await this.#log.flush()
  }

  /** Written with whatever is written next. */
  noteRenamed({ path, stored }: RenamedPath): void {
    if (this.#renamed.get(path) === stored) return
    this.#renamed.set(path, stored)
    this.#log.append(types.renamed, utf8(JSON.stringify([path, stored])))
  }

  /** `withdrawn` are names that an earlier run meant to give, and now others are given in their place. */
  async notePlacing(names: readonly string[], withdrawn: readonly string[]): Promise<void> {
    this.stage = "placing"
    if (this.#withdraw(withdrawn)) {
      this.#log.append(types.withdrawn, utf8(JSON.stringify(withdrawn)))
    }
    const known = new Set(this.placedNames)
    const fresh = names.filter((name) => !known.has(name))
    this.placedNames = [...this.placedNames, ...fresh]
    this.#log.append(types.placing, utf8(JSON.stringify(fresh)))
    await this.#log.flush()
  }

  #withdraw(names: readonly string[]): boolean {
    const former = new Set(names)
    const left = this.placedNames.filter((name) => !former.has(name))
    const isLess = left.length < this.placedNames.length
    this.placedNames = left
    return isLess
  }

  async notePlaced(): Promise<void> {
    this.stage = "placed"
    this.#log.append(types.placed, new Uint8Array(0))
    await this.#log.flush()
  }

  async noteBoot(): Promise<void> {
    this.#log.append(types.boot, utf8(bootId()))
    await this.#log.flush()
  }

  async close(): Promise<void> {
    await this.#log.close()
  }

  replay(records: readonly LogRecord[]): void {
    const runs: { run: DoneRun; boot: string; synced: boolean }[] = []
    let boot = ""
    for (const { type, payload } of records) {
      const reader = new ByteReader(payload, "receive journal")
      switch (type) {
        case types.boot:
          boot = parseUtf8(payload, "boot")
          break
        case types.done: {
          const kind = reader.u8("kind") === 0 ? "chunks" : "padding"
          const run = { kind, first: reader.u32("first"), count: reader.u32("count") } as const
          runs.push({ run, boot, synced: false })
          reader.end()
          break
        }
        case types.synced: {
          const count = reader.u32("count")
          for (const entry of runs.slice(0, count)) entry.synced = true
          reader.end()
          break
        }
        case types.failed:
          this.failed.push(parseFailed(reader))
          break
        case types.formerFailed:
          this.failed.push(parseFormerFailed(reader))
          break
        case types.renamed: {
          const [path, stored] = parseNames(payload)
          if (path === undefined || stored === undefined) {
            throw new FormatError("receive journal", "a renaming without two names")
          }
          this.#renamed.set(path, stored)
          break
        }
        case types.placing:
          this.stage = "placing"
          this.placedNames = [...this.placedNames, ...parseNames(payload)]
          break
        case types.withdrawn:
          this.#withdraw(parseNames(payload))
          break
        case types.placed:
          this.stage = "placed"
          break
        default:
          throw new FormatError("receive journal", `a record of unknown type ${type}`)
      }
    }
    this.#recorded = runs.length
    const now = bootId()
    for (const { run, boot: then, synced } of runs) {
      if (synced || (then === now && now !== "")) this.done.push(run)
    }
  }
}

/**
 * What a journal begins with: H_hdr, and a MAC that only this identity can make. A journal says what
 * need not be fetched and checked any more, so one that came from anybody else must not be believed.
 * `choice` is the hash of a choice of entries: a journal of some is none of all.
 */
export function journalStart(delivery: {
  identity: Identity
  origin: string
  id: string
  headerHash: Uint8Array
  choice?: Uint8Array | undefined
}): Uint8Array {
  const { identity, origin, id, headerHash, choice } = delivery
  const mac = hkdfSha256({
    ikm: identity.authSeed,
    salt: new Uint8Array(0),
    // No label of the protocol: this never leaves the machine.
    info: concatBytes(
      choice === undefined
        ? utf8("knothole client receive journal v1")
        : concatBytes(utf8("knothole client receive journal v1, entries "), choice),
      identity.bundle.inboxId,
      headerHash,
      fromHex(id),
      utf8(origin),
    ),
    length: 32,
  })
  return concatBytes(headerHash, mac)
}

/** True for a start that this identity made for this delivery, whatever its header. */
export function isStartOf(
  start: Uint8Array,
  delivery: { identity: Identity; origin: string; id: string },
): boolean {
  return equalBytes(start, journalStart({ ...delivery, headerHash: start.subarray(0, 32) }))
}

/** Undefined when there is none that begins with what `isOurs` knows. */
export async function reopenReceiveJournal(
  file: string,
  isOurs: (start: Uint8Array) => boolean,
): Promise<ReceiveJournal | undefined> {
  const reopened = await reopenLog(file, magic)
  if (reopened === undefined) return undefined
  const { log, records } = reopened
  const [first, ...rest] = records
  const journal = new ReceiveJournal(log)
  try {
    if (first?.type === types.start && isOurs(first.payload)) {
      journal.replay(rest)
      return journal
    }
  } catch (error) {
    if (!(error instanceof FormatError)) throw error
  }
  await journal.close()
  return undefined
}

export async function startReceiveJournal(
  file: string,
  start: Uint8Array,
): Promise<ReceiveJournal> {
  const log = await createLog(file, magic)
  log.append(types.start, start)
  return new ReceiveJournal(log)
}

/** Whether everything is in place. The journal may be another process's: it is only looked at. */
export async function saysPlaced(
  file: string,
  isOurs: (start: Uint8Array) => boolean,
): Promise<boolean> {
  const [first, ...rest] = (await readLog(file, magic)) ?? []
  if (first?.type !== types.start || !isOurs(first.payload)) return false
  return rest.some(({ type }) => type === types.placed)
}

function encodeFailed({ entry, path, reason }: FailedEntry): Uint8Array {
  return concatBytes(u32(entry), Uint8Array.of(failureReasons.indexOf(reason)), utf8(path))
}

function parseFailed(reader: ByteReader): NotedFailure {
  const entry = reader.u32("entry")
  const reason = knownReason(failureReasons[reader.u8("reason")])
  return { entry, path: parseUtf8(reader.take(reader.remaining, "path"), "path"), reason }
}

function parseFormerFailed(reader: ByteReader): NotedFailure {
  const entry = reader.u32("entry")
  const text = parseUtf8(reader.take(reader.remaining, "reason"), "reason")
  return { entry, path: undefined, reason: knownReason(formerReasons.get(text)) }
}

function knownReason(reason: FailureReason | undefined): FailureReason {
  if (reason === undefined) throw new FormatError("receive journal", "a reason nobody writes")
  return reason
}

function parseNames(payload: Uint8Array): string[] {
  const text = parseUtf8(payload, "names")
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw new FormatError("receive journal", "names are JSON", { cause: error })
  }
  if (!Array.isArray(value)) throw new FormatError("receive journal", "names are a list")
  return value.filter((name) => typeof name === "string")
}

/** Another after each start of the machine; empty where there is none to ask for. */
function bootId(): string {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()
  } catch {
    return ""
  }
}
