/**
 * Receiving one delivery: fetch, check, write into a private folder beside the destination, sync, put
 * in place, and only then delete the relay's copy. Run again after any interruption it goes on where it
 * stopped. Nothing that was not verified is ever under a name of the delivery (docs/protocol.md §7).
 */
import {
  closeSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  realpathSync,
  type Stats,
  statfsSync,
} from "node:fs"
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  open,
  readdir,
  rm,
  rmdir,
  statfs,
  utimes,
  writeFile,
} from "node:fs/promises"
import path from "node:path"
import {
  countFolders,
  equalBytes,
  gridCount,
  gridIndex,
  gridLength,
  gridOffset,
  headerHash,
  KIB,
  type Manifest,
  maxEntries,
  MIB,
  type OpenedEntry,
  parseUtf8,
} from "../protocol/index.js"
import {
  checkPart,
  deleteCopy,
  fetchLeaves,
  fetchRange,
  type OpenedDelivery,
  PartsSink,
  type Sender,
} from "./delivery.js"
import { chooseEntries, choiceHash, choiceName } from "./entry-choice.js"
import {
  CannotMakeFolder,
  DestinationExists,
  DestinationNotFolder,
  DiskFull,
  type Unlike,
  Untrustworthy,
} from "./errors.js"
import { type Placement, placeFiles, planUnits, segmentsOf, type Unit } from "./layout.js"
import { makeFolder } from "./make-folder.js"
import {
  checkWritable,
  existingNames,
  type OnExisting,
  placeAll,
  planPlacing,
  unlikeNames,
} from "./placing.js"
import { errorCode } from "./error-code.js"
import { syncFolder } from "./private-files.js"
import { asError, type CallOptions, notice, say } from "./progress.js"
import {
  type FailedEntry,
  type FailureReason,
  isStartOf,
  journalStart,
  type ReceiveJournal,
  type RenamedPath,
  reopenReceiveJournal,
  saysPlaced,
  startReceiveJournal,
} from "./receive-journal.js"
import { callOf } from "./relay.js"
import { SealingPool } from "./sealer.js"
import type { InboxSession } from "./session.js"
import { Slots } from "./slots.js"
import { type Lock, takeLock } from "./state.js"
import { eachOf, syncTree } from "./sync-files.js"
import {
  foldedEntries,
  isRefusedName,
  isTakenName,
  makeNamed,
  namesFor,
  type NameTraits,
  tryNames,
} from "./stored-names.js"
import { createNamed, type FailedPiece, type OpenPiece } from "./unit-work.js"

export interface ReceiveOptions extends CallOptions {
  into: string
  /**
   * Only the entries of these paths, folders with all that lies in them: only the parts that hold them
   * are fetched, which shows the relay where they are. They stand under their whole paths, in folders
   * that may be there already. The relay's copy stays.
   */
  entries?: readonly string[]
  /** Leave the relay's copy. */
  keep?: boolean
  onExisting?: OnExisting
  /** Give files that were executable at the sender that permission. */
  executable?: boolean
  /** Give files the times the sender told, if it told any. */
  times?: boolean
  /** Requests in flight. */
  parallel?: number
}

export interface ReceiveResult {
  readonly id: string
  /** What was put into the folder: the top-level names of the delivery, or the entries asked for, as paths. */
  readonly paths: readonly string[]
  readonly files: number
  readonly bytes: number
  readonly note: string
  /** Undefined when an earlier call had put everything in place and only the cleaning up was left. */
  readonly sender: Sender | undefined
  readonly resumed: boolean
  /** Entries that this disk does not store under their own path, and where in the folder they are. */
  readonly renamed: readonly { readonly path: string; readonly stored: string }[]
  /** Entries that were left out; when there are any, the relay's copy stays. */
  readonly failed: readonly { readonly path: string; readonly reason: string }[]
  /** Bytes of the body that this call fetched. */
  readonly fetchedBytes: number
}

const defaultParallel = 4
const mostParallel = 6
/** The most that one request asks for: so much that asking costs nothing beside it. */
const mostWindowBytes = 8 * MIB
/** Requests for each connection, as far as the parts go: so that all have something to do to the end. */
const turns = 4
/** Parts that wait for a neighbour or are being opened. */
const spareSlots = 6
/** How much may be written before the disk is asked to keep it: what a power cut can cost. */
const syncEveryBytes = 64 * MIB
/** Syncs under way at once: the disk merges what it gets together. */
const syncsAtOnce = 8

/** What is left when everything is in place and only the cleaning up was cut off. */
export async function finishReceived(
  session: InboxSession,
  id: string,
  options: ReceiveOptions,
): Promise<ReceiveResult | undefined> {
  const place = new Place(options.into, id)
  const owner = { identity: session.identity, origin: session.relay.client.origin, id }
  const isOurs = (start: Uint8Array) => isStartOf(start, owner)
  // Only looked at before the lock is ours: to reopen a journal cuts off what is written to it meanwhile.
  if (!(await saysPlaced(place.journalFile, isOurs))) return undefined
  const lock = await place.lock()
  try {
    const journal = await reopenReceiveJournal(place.journalFile, isOurs)
    await journal?.close()
    if (journal?.stage !== "placed") return undefined
    const failed = journal.failed.flatMap(({ path, reason }) =>
      path === undefined ? [] : [{ path, reason: failureText[reason] }],
    )
    // Paths that an earlier version did not note are in the relay's copy, which stayed because of them.
    if (failed.length < journal.failed.length) return undefined
    if (options.keep !== true && failed.length === 0) await deleteCopy(session, id, options)
    await place.clear()
    return {
      id,
      paths: journal.placedNames.map((name) => path.join(place.named, name)),
      files: 0,
      bytes: 0,
      note: "",
      sender: undefined,
      resumed: true,
      renamed: journal.renamed,
      failed,
      fetchedBytes: 0,
    }
  } finally {
    await lock.release()
    await place.clearIfUnused()
  }
}

export async function receiveDelivery(
  session: InboxSession,
  opened: OpenedDelivery,
  options: ReceiveOptions,
): Promise<ReceiveResult> {
  const { id } = opened.listed
  const paths = opened.manifest.entries.map((entry) => parseUtf8(entry.path, "path"))
  const choice = options.entries && chooseEntries(id, paths, options.entries)
  const place = new Place(options.into, id, choice)
  refuseOwnNames(id, paths)
  const folderCount = checkFolders(opened, paths, choice)
  try {
    await place.make()
    const lock = await place.lock()
    try {
      const receiving = { place, paths, choice, folderCount }
      return await new Receiving(session, opened, options, receiving).run()
    } finally {
      await lock.release()
    }
  } catch (error) {
    const code = errorCode(error)
    if (code !== "ENOSPC" && code !== "EDQUOT") throw error
    throw diskFull(place.into, { cause: error })
  } finally {
    await place.clearIfUnused()
  }
}

/** Another delivery's private folder, planted, would be taken for one that was received half. */
function refuseOwnNames(id: string, paths: readonly string[]): void {
  for (const name of paths) {
    // Folded as a file system may fold it.
    if (!name.normalize("NFKC").toLowerCase().startsWith(privatePrefix)) continue
    throw new Untrustworthy(
      `delivery ${id} holds a name that begins with ${privatePrefix}, as only folders of this program's own do; it is not received. Discard it`,
    )
  }
}

/**
 * As many as a list of entries could hold. Paths name folders for next to nothing, up to 63 each, and
 * nobody sends so many (docs/protocol.md §7). Answers with how many there are.
 */
function checkFolders(
  { listed, manifest }: OpenedDelivery,
  paths: readonly string[],
  choice: ReadonlySet<number> | undefined,
): number {
  const askedFor: string[] = []
  for (const [index, name] of paths.entries()) {
    if (choice !== undefined && !choice.has(index)) continue
    askedFor.push(manifest.entries[index]?.type === "directory" ? `${name}/` : name)
  }
  const count = countFolders(askedFor)
  if (count <= maxEntries) return count
  throw new Untrustworthy(
    `delivery ${listed.id} would make ${count} folders for ${askedFor.length} entries, more than the ${maxEntries} of the largest tree; it is not received. Receive single entries of it, or discard it`,
  )
}

interface Shortage {
  readonly needed: number
  readonly free: number
}

function diskFull(
  into: string,
  facts: { bytes?: Shortage; inodes?: Shortage; cause?: unknown; isKept?: boolean },
): DiskFull {
  const { bytes, cause } = facts
  const kept = facts.isKept === true ? "What was fetched is kept, and the" : "The"
  return new DiskFull(
    "here",
    `the disk that holds ${into} has no room${lackOf(into, facts)}, or receive into another folder. ` +
      `${kept} delivery still waits at the relay`,
    { cause, ...(bytes && { neededBytes: bytes.needed, freeBytes: bytes.free }) },
  )
}

function lackOf(into: string, { bytes, inodes }: { bytes?: Shortage; inodes?: Shortage }): string {
  if (bytes !== undefined) {
    const [needed, free] = [Math.ceil(bytes.needed / MIB), Math.floor(bytes.free / MIB)]
    return `: ${needed} MiB are needed and ${free} are free; make room`
  }
  if (inodes !== undefined) {
    return ` for so many files, whatever their size: ${inodes.needed} are needed, folders included, and ${inodes.free} are left ('df -i' shows it); remove some`
  }
  return hasNoInodes(into)
    ? " for another file, whatever its size ('df -i' shows it); remove some"
    : "; make room"
}

/** More than a receiving has for itself: those of its lock and its trials are free again when this is asked. */
const fewInodes = 16

/** Without one left, a disk says of the next file only that there is no space. */
function hasNoInodes(into: string): boolean {
  try {
    const { files, ffree } = statfsSync(into)
    return files > 0 && ffree < fewInodes
  } catch (error) {
    if (errorCode(error) === "ENOENT") return hasNoInodes(path.dirname(into))
    throw error
  }
}

/** Windows asks before it opens or runs what has it: 3 is the Internet. */
const zoneMark = "[ZoneTransfer]\r\nZoneId=3\r\n"

/** How private folders are named, and nothing that a delivery puts beside them. */
const privatePrefix = ".knothole-"

/** The destination and the private folder in it. */
class Place {
  /** As it was named. */
  readonly named: string
  /**
   * The folder that name stood for at the beginning: it may be a link, and what becomes of the link
   * afterwards leads nothing of this elsewhere.
   */
  readonly into: string
  readonly folder: string
  readonly tree: string
  readonly journalFile: string
  readonly #lockFile: string

  /** What is received of a delivery in parts does not get in the way of all of it. */
  constructor(into: string, id: string, choice?: ReadonlySet<number>) {
    const part = choice === undefined ? "" : `-${choiceName(choice)}`
    this.named = path.resolve(into)
    this.into = realPathOf(this.named)
    this.folder = path.join(this.into, `${privatePrefix}${id}${part}`)
    this.tree = path.join(this.folder, "tree")
    this.journalFile = path.join(this.folder, "journal")
    this.#lockFile = path.join(this.folder, "lock")
  }

  async make(): Promise<void> {
    await makeDestination(this.into)
    await checkWritable(this.into)
    try {
      await mkdir(this.folder, { mode: 0o700 })
      return
    } catch (error) {
      const code = errorCode(error) ?? ""
      // The folder above was there just now. Both are what mkdir says where the system makes no folders.
      if (code === "ENOENT" || code === "EPERM") throw new CannotMakeFolder(this.folder, this.into)
      if (code !== "EEXIST") throw error
    }
    const stats = await lstat(this.folder)
    // A link of this name would lead everything elsewhere.
    if (!stats.isDirectory()) throw new DestinationExists([this.folder])
    const fresh = await this.#freshFolder()
    // What others could write to may hold anything. Not every file system knows owners and modes: what
    // counts is whether a folder made now would be better guarded.
    if (stats.uid !== fresh.uid || (stats.mode & ~fresh.mode & 0o077) !== 0) {
      throw new DestinationExists([this.folder])
    }
  }

  async #freshFolder(): Promise<Stats> {
    const folder = await mkdtemp(path.join(this.into, privatePrefix))
    try {
      return await lstat(folder)
    } finally {
      await rmdir(folder)
    }
  }

  async lock(): Promise<Lock> {
    return takeLock(this.#lockFile, "receiving this delivery here")
  }

  /**
   * For who holds the lock. The journal goes last: as long as there is something to clean up, it says so.
   * The folder goes when it is empty and the lock is released, if nobody has begun anything in it by then.
   */
  async clear(): Promise<void> {
    const kept = [this.journalFile, this.#lockFile]
    for (const name of await readdir(this.folder)) {
      const file = path.join(this.folder, name)
      if (!kept.includes(file)) await rm(file, { recursive: true, force: true })
    }
    await rm(this.journalFile, { force: true })
  }

  /** Nothing was begun, or all is done, so nothing has to be kept for another run. */
  async clearIfUnused(): Promise<void> {
    try {
      await rmdir(this.folder)
    } catch (error) {
      const code = errorCode(error) ?? ""
      if (!["ENOTEMPTY", "EEXIST", "ENOENT", "ENOTDIR"].includes(code)) throw error
    }
  }
}

function realPathOf(folder: string): string {
  try {
    return realpathSync(folder)
  } catch (error) {
    if (!["ENOENT", "ENOTDIR"].includes(errorCode(error) ?? "")) throw error
    return folder
  }
}

async function makeDestination(folder: string): Promise<void> {
  try {
    makeFolder(folder)
  } catch (error) {
    if (!["EEXIST", "ENOTDIR"].includes(errorCode(error) ?? "")) throw error
    throw new DestinationNotFolder(await firstThatIsThere(folder))
  }
}

/** `folder`, or of the folders it is in the nearest that there is anything of the name of. */
async function firstThatIsThere(folder: string): Promise<string> {
  try {
    await lstat(folder)
    return folder
  } catch (error) {
    if (!["ENOENT", "ENOTDIR"].includes(errorCode(error) ?? "")) throw error
    return firstThatIsThere(path.dirname(folder))
  }
}

/** A part between the first byte asked for and the last unit that needs it. */
interface PartInHand {
  readonly slot: number
  /** Units that still need it. */
  users: number
  verified: boolean
}

interface PendingUnit {
  readonly unit: Unit
  missingParts: number
}

class Receiving {
  readonly #session: InboxSession
  readonly #opened: OpenedDelivery
  readonly #options: ReceiveOptions
  readonly #place: Place
  readonly #manifest: Manifest
  readonly #paths: readonly string[]
  /** The entries that are asked for; undefined for all. */
  readonly #choice: ReadonlySet<number> | undefined
  /** Of what is asked for, those included that have no entry of their own. */
  readonly #folderCount: number
  readonly #placement: Placement
  readonly #bodyLength: number
  /** Of the parts that this receiving is about, those that are there included. */
  readonly #goalBytes: number
  readonly #windowBytes: number
  readonly #umask: number
  readonly #stop = new AbortController()
  readonly #slots: Slots
  readonly #parts = new Map<number, PartInHand>()
  readonly #unitsOfPart = new Map<number, PendingUnit[]>()
  /** Chunks of each entry that are still to come. */
  readonly #chunksLeft: number[]
  readonly #created = new Set<number>()
  readonly #failed = new Map<number, FailureReason>()
  /** Those that the journal does not know of yet. */
  readonly #newFailures: FailedEntry[] = []
  /** Where each entry is stored in the tree, components separated by `/`. */
  readonly #stored: string[]
  #traits: NameTraits = { foldsCase: false, foldsForm: false, isWindowsLike: false }
  /** Folders of the delivery and where each is stored; undefined for those that are left out. */
  readonly #folders = new Map<string, string | undefined>([["", ""]])
  /** Entries written to since the last sync. */
  #unsynced = new Set<number>()
  #unsyncedBytes = 0
  #syncing: Promise<void> | undefined
  #resumed = false
  #error: Error | undefined
  #doneBytes = 0
  #thereBytes = 0
  #fetchedBytes = 0

  constructor(
    session: InboxSession,
    opened: OpenedDelivery,
    options: ReceiveOptions,
    receiving: {
      place: Place
      paths: readonly string[]
      choice: ReadonlySet<number> | undefined
      folderCount: number
    },
  ) {
    const { place, paths, choice, folderCount } = receiving
    this.#session = session
    this.#opened = opened
    this.#options = options
    this.#place = place
    this.#manifest = opened.manifest
    this.#paths = paths
    this.#placement = placeFiles(opened.manifest.entries.map(sizeOf))
    this.#choice = choice
    this.#folderCount = folderCount
    this.#chunksLeft = this.#placement.files.map(({ chunkCount }) => chunkCount)
    this.#bodyLength = opened.listed.header.bodyLength
    this.#goalBytes = choice === undefined ? this.#bodyLength : this.#bytesOfParts(choice)
    this.#umask = process.umask()
    this.#stored = [...this.#paths]
    const share = Math.ceil(this.#bodyLength / (turns * this.#parallel))
    this.#windowBytes = Math.min(Math.max(share, MIB), mostWindowBytes)
    this.#slots = new Slots(this.#parallel * Math.ceil(this.#windowBytes / MIB) + spareSlots)
  }

  get #parallel(): number {
    return Math.max(1, Math.min(this.#options.parallel ?? defaultParallel, mostParallel))
  }

  #isAskedFor(entry: number): boolean {
    return this.#choice === undefined || this.#choice.has(entry)
  }

  /** Of all parts that share bytes with these entries. */
  #bytesOfParts(entries: ReadonlySet<number>): number {
    const parts = new Set<number>()
    for (const entry of entries) {
      const { bodyOffset, size } = this.#placement.files[entry] ?? { bodyOffset: 0, size: 0 }
      if (size === 0) continue
      for (const part of rangeOfParts(bodyOffset, bodyOffset + size)) parts.add(part)
    }
    return [...parts].reduce((sum, part) => sum + gridLength(part, this.#bodyLength), 0)
  }

  async run(): Promise<ReceiveResult> {
    const { listed } = this.#opened
    const { identity, relay } = this.#session
    const start = journalStart({
      identity,
      origin: relay.client.origin,
      id: listed.id,
      headerHash: headerHash(listed.headerBytes),
      choice: this.#choice && choiceHash(this.#choice),
    })
    const file = this.#place.journalFile
    let journal = await reopenReceiveJournal(file, (found) => equalBytes(found, start))
    this.#resumed = journal !== undefined
    const { signal } = this.#options
    const onAbort = () => this.#fail(signal?.reason)
    if (signal?.aborted === true) onAbort()
    signal?.addEventListener("abort", onAbort, { once: true })
    try {
      for (const { entry, reason } of journal?.failed ?? []) this.#failed.set(entry, reason)
      if (!isPlacing(journal)) {
        this.#traits = tryNames(this.#place.folder)
        await this.#checkDestination(journal)
      }
      if (journal === undefined) {
        await this.#checkRoom(this.#contentLength)
        await rm(this.#place.tree, { recursive: true, force: true })
        await rm(file, { recursive: true, force: true })
        journal = await startReceiveJournal(file, start)
      }
      await journal.noteBoot()
      if (journal.stage === "fetching") {
        await this.#fetch(journal)
        await this.#settle(journal)
      }
      return await this.#putInPlace(journal)
    } catch (error) {
      if (!(error instanceof DestinationExists) || journal === undefined) throw error
      throw error.with({ kept: this.#place.folder })
    } finally {
      signal?.removeEventListener("abort", onAbort)
      await journal?.close()
    }
  }

  /** Before anything is fetched. Once something may be in place, the plan tells it from what is in the way. */
  async #checkDestination(journal: ReceiveJournal | undefined): Promise<void> {
    const { onExisting = "fail" } = this.#options
    const { into } = this.#place
    const renamed = journal?.renamed ?? []
    if (onExisting === "fail") {
      const existing = await existingNames(into, this.#namesToBe(renamed))
      if (existing.length > 0) throw new DestinationExists(existing)
    }
    const entersFolders = onExisting === "overwrite" || this.#choice !== undefined
    if (onExisting === "rename" || !entersFolders) return
    const stored = new Map(renamed.map((one) => [one.path, one.stored]))
    const unlike = await unlikeNames({
      into,
      wanted: this.#entriesToBe(),
      storedAs: (name) => this.#nameToBe(name, stored),
      signal: this.#stop.signal,
    })
    if (unlike.size > 0) throw new DestinationExists([...unlike.keys()], { unlike })
  }

  *#entriesToBe(): Generator<{ name: string; sent: Unlike["sent"] }> {
    const leftOut = foldedEntries(this.#pathsAskedFor(), this.#traits)
    for (const [index, { type }] of this.#manifest.entries.entries()) {
      if (!this.#isAskedFor(index) || this.#failed.has(index) || leftOut.has(index)) continue
      yield { name: this.#paths[index] ?? "", sent: type === "file" ? "a file" : "a folder" }
    }
  }

  /** Names that have to be free: at the top, or of files where their folders may be there. */
  #namesToBe(renamed: readonly RenamedPath[]): string[] {
    const stored = new Map(renamed.map((one) => [one.path, one.stored]))
    const names = new Set<string>()
    for (const [index, name] of this.#paths.entries()) {
      if (!this.#isAskedFor(index) || this.#failed.has(index)) continue
      if (this.#choice === undefined) names.add(topOf(name))
      else if (this.#manifest.entries[index]?.type === "file") names.add(name)
    }
    return Array.from(names, (name) => this.#nameToBe(name, stored))
  }

  /** As what this disk will store a path, as far as that is known before something is made of it. */
  #nameToBe(name: string, stored: ReadonlyMap<string, string>): string {
    const known = stored.get(name)
    if (known !== undefined) return known
    const slash = name.lastIndexOf("/")
    const [first = ""] = namesFor(name.slice(slash + 1), this.#traits.isWindowsLike)
    return slash === -1 ? first : `${this.#nameToBe(name.slice(0, slash), stored)}/${first}`
  }

  /** Of what is asked for. */
  get #contentLength(): number {
    if (this.#choice === undefined) return this.#placement.contentLength
    return [...this.#choice].reduce(
      (sum, entry) => sum + (this.#placement.files[entry]?.size ?? 0),
      0,
    )
  }

  // ---- fetching

  async #fetch(journal: ReceiveJournal): Promise<void> {
    say(this.#options, { kind: "phase", phase: "fetching" })
    makeFolder(this.#place.tree, 0o700)
    await this.#makeFolders(journal)
    const done = await this.#believedDone(journal)
    await this.#makeEmptyFiles(journal)
    await this.#journalFailures(journal)
    this.#passOver(done.chunks)
    const bytesToGo = this.#planUnits(done.chunks)
    const wanted = this.#wantedParts(done.padding)
    if (this.#resumed) await this.#checkRoom(bytesToGo)
    this.#thereBytes =
      this.#goalBytes - wanted.reduce((sum, part) => sum + gridLength(part, this.#bodyLength), 0)
    this.#report()
    if (wanted.length === 0) return
    const call = { signal: this.#stop.signal, onProgress: this.#options.onProgress }
    const leaves = await fetchLeaves(this.#session, this.#opened.listed, call)
    const pool = new SealingPool(this.#slots, bytesToGo)
    try {
      const windows = windowsOf(wanted, this.#bodyLength, this.#windowBytes)
      const work = new Set<Promise<void>>()
      const next = windows.values()
      // Slots are taken in the order of the body, window after window, so that the part a unit waits
      // for is never behind one that waits for the unit.
      let turn: Promise<void> = Promise.resolve()
      const fetchNext = async () => {
        for (const window of next) {
          if (this.#error !== undefined) return
          turn = turn.then(() => this.#takeSlots(window))
          await turn
          await this.#fetchWindow(window, leaves, { journal, pool, work })
        }
      }
      await Promise.all(
        Array.from({ length: this.#parallel }, async () =>
          fetchNext().catch((error: unknown) => this.#fail(error)),
        ),
      )
      while (work.size > 0) await Promise.all(work)
      if (this.#error !== undefined) throw this.#error
    } finally {
      await pool.close()
      await this.#syncing
    }
  }

  /**
   * Puts the units that are still to be opened at the parts they need, and nowhere else: each is given up
   * with the last of its parts. Returns how many bytes they are.
   */
  #planUnits(done: ReadonlySet<number>): number {
    let bytes = 0
    for (const unit of planUnits(this.#placement, (_from, _to, chunk) => !done.has(chunk))) {
      const unitParts = rangeOfParts(unit.bodyOffset, unit.bodyOffset + unit.length)
      const pending = { unit, missingParts: unitParts.length }
      for (const part of unitParts) {
        const users = this.#unitsOfPart.get(part) ?? []
        users.push(pending)
        this.#unitsOfPart.set(part, users)
      }
      bytes += unit.length
    }
    return bytes
  }

  /** What was not asked for counts as done. */
  #passOver(done: Set<number>): void {
    for (const [entry, { firstChunk, chunkCount }] of this.#placement.files.entries()) {
      if (this.#isAskedFor(entry)) continue
      for (let chunk = firstChunk; chunk < firstChunk + chunkCount; chunk++) done.add(chunk)
    }
  }

  #fail(error: unknown): void {
    if (this.#error !== undefined) return
    this.#error = asError(error)
    this.#stop.abort(this.#error)
    this.#slots.end(new Error("the download has ended"))
  }

  async #takeSlots(window: readonly number[]): Promise<void> {
    for (const part of window) {
      const users = this.#unitsOfPart.get(part)?.length ?? 0
      this.#parts.set(part, { slot: await this.#slots.acquire(), users, verified: false })
    }
  }

  async #fetchWindow(
    window: readonly number[],
    leaves: Uint8Array,
    work: UnitContext,
  ): Promise<void> {
    const first = window[0]
    const last = window.at(-1)
    if (first === undefined || last === undefined) return
    const origin = this.#session.relay.client.origin
    const sink = new PartsSink({
      first,
      last,
      bodyLength: this.#bodyLength,
      origin,
      bufferOf: (part, length) => this.#slots.view(this.#partInHand(part).slot, length),
      onPart: (part, bytes) => {
        checkPart(leaves, part, bytes, origin)
        this.#fetchedBytes += bytes.length
        this.#verified(part, bytes.length, work)
      },
    })
    await fetchRange(this.#session, this.#opened.listed, sink, {
      signal: this.#stop.signal,
      onProgress: this.#options.onProgress,
    })
  }

  #partInHand(part: number): PartInHand {
    const inHand = this.#parts.get(part)
    if (inHand === undefined) throw new RangeError("a part that was not asked for")
    return inHand
  }

  #verified(part: number, length: number, work: UnitContext): void {
    const inHand = this.#partInHand(part)
    inHand.verified = true
    this.#doneBytes += length
    this.#report()
    const users = this.#unitsOfPart.get(part) ?? []
    this.#unitsOfPart.delete(part)
    if (users.length === 0) {
      this.#parts.delete(part)
      this.#slots.release(inHand.slot)
      const run = { kind: "padding", first: part, count: 1 } as const
      this.#track(work.work, work.journal.noteDone(run))
      return
    }
    for (const pending of users) {
      pending.missingParts--
      if (pending.missingParts === 0) this.#track(work.work, this.#openUnit(pending.unit, work))
    }
  }

  #track(work: Set<Promise<void>>, done: Promise<void>): void {
    const tracked = done
      .catch((error: unknown) => this.#fail(error))
      .finally(() => work.delete(tracked))
    work.add(tracked)
  }

  /** Also when the call has been called off meanwhile: what is verified need not be fetched again. */
  async #openUnit(unit: Unit, { journal, pool }: UnitContext): Promise<void> {
    const from = unit.bodyOffset
    const to = from + unit.length
    const segments = segmentsOf(from, to, (part) => this.#partInHand(part).slot)
    const pieces = unit.pieces.map((piece) => this.#pieceOf(piece, journal))
    const { result } = await pool.open({ kind: "open", pieces, segments })
    const { failed, renamed } = await result
    for (const part of rangeOfParts(from, to)) {
      const inHand = this.#partInHand(part)
      inHand.users--
      if (inHand.users > 0) continue
      this.#parts.delete(part)
      this.#slots.release(inHand.slot)
    }
    for (const { piece, name } of renamed) {
      const entry = unit.pieces[piece]?.file
      if (entry !== undefined) this.#storeAs(entry, name, journal)
    }
    for (const failure of failed) this.#noteFailure(unit, failure)
    // Before its chunks are: they would be taken for those of a file that is there.
    await this.#journalFailures(journal)
    for (const piece of unit.pieces) {
      this.#chunksLeft[piece.file] = (this.#chunksLeft[piece.file] ?? 0) - piece.chunkCount
      this.#unsynced.add(piece.file)
    }
    await journal.noteDone({ kind: "chunks", first: unit.firstChunk, count: unit.chunkCount })
    this.#unsyncedBytes += unit.length
    if (this.#unsyncedBytes >= syncEveryBytes) this.#syncInBackground(journal)
  }

  #pieceOf(piece: Unit["pieces"][number], journal: ReceiveJournal): OpenPiece {
    const entry = this.#manifest.entries[piece.file]
    const place = this.#placement.files[piece.file]
    if (entry?.type !== "file" || place === undefined) throw new RangeError("no such file")
    const isWhole = piece.chunkCount === place.chunkCount
    const target = this.#targetOf(piece.file, { isWhole, size: entry.size, journal })
    // One literal, no spread: V8 gives each object that is made by one a shape of its own.
    return {
      path: this.#pathOf(piece.file),
      target,
      isWindowsLike: this.#traits.isWindowsLike,
      fileOffset: piece.fileOffset,
      length: piece.length,
      key: entry.key,
      nonce: entry.nonce,
      chunkMacs: entry.chunkMacs.subarray(16 * piece.chunk, 16 * (piece.chunk + piece.chunkCount)),
      mode: target === "new" ? this.#modeOf(entry) : undefined,
    }
  }

  #targetOf(
    entry: number,
    file: { isWhole: boolean; size: number; journal: ReceiveJournal },
  ): OpenPiece["target"] {
    if (this.#failed.has(entry)) return "nowhere"
    if (file.isWhole) return "new"
    try {
      this.#createOnce(entry, file.size, file.journal)
      return "there"
    } catch (error) {
      const refusal = nameRefusal(error)
      if (refusal === undefined) throw error
      this.#leaveOut(entry, refusal)
      return "nowhere"
    }
  }

  /** A file that several units write to is made before the first of them, at its full length. */
  #createOnce(entry: number, size: number, journal: ReceiveJournal): void {
    if (this.#created.has(entry)) return
    const descriptor = this.#create(entry, journal)
    try {
      ftruncateSync(descriptor, size)
    } finally {
      closeSync(descriptor)
    }
    this.#created.add(entry)
  }

  #create(entry: number, journal: ReceiveJournal, mode?: number): number {
    const file = this.#pathOf(entry)
    const { descriptor, name } = createNamed(file, this.#traits.isWindowsLike, mode)
    this.#storeAs(entry, name, journal)
    return descriptor
  }

  #storeAs(entry: number, name: string, journal: ReceiveJournal): void {
    const stored = this.#stored[entry] ?? ""
    const renamed = stored.slice(0, stored.lastIndexOf("/") + 1) + name
    if (renamed === stored) return
    this.#stored[entry] = renamed
    journal.noteRenamed({ path: this.#paths[entry] ?? "", stored: renamed })
  }

  #leaveOut(entry: number, reason: FailureReason): void {
    if (this.#failed.has(entry)) return
    this.#failed.set(entry, reason)
    this.#newFailures.push({ entry, path: this.#paths[entry] ?? "", reason })
  }

  async #journalFailures(journal: ReceiveJournal): Promise<void> {
    await journal.noteFailed(this.#newFailures.splice(0))
  }

  #noteFailure(unit: Unit, failure: FailedPiece): void {
    const piece = unit.pieces[failure.piece]
    if (piece === undefined) throw new RangeError("no such piece")
    switch (failure.reason) {
      case "full":
        throw diskFull(this.#place.into, { cause: new Error(failure.detail), isKept: true })
      case "io":
        throw new Error(`cannot write ${this.#pathOf(piece.file)}: ${failure.detail}`)
      case "mac":
      case "exists":
      case "name":
        this.#leaveOut(piece.file, failure.reason)
    }
  }

  #wantedParts(paddingDone: ReadonlySet<number>): number[] {
    const wanted: number[] = []
    const count = gridCount(this.#bodyLength)
    for (let part = 0; part < count; part++) {
      // Padding is fetched like the rest: stopping early would tell the relay where it begins. Who asks
      // for some entries tells it where those are in any case.
      const isPadding =
        this.#choice === undefined && gridOffset(part) >= this.#placement.contentLength
      if (this.#unitsOfPart.has(part) || (isPadding && !paddingDone.has(part))) wanted.push(part)
    }
    return wanted
  }

  #report(): void {
    say(this.#options, {
      kind: "bytes",
      done: this.#thereBytes + this.#doneBytes,
      total: this.#goalBytes,
      alreadyThere: this.#thereBytes,
    })
  }

  // ---- the private folder

  #pathOf(entry: number): string {
    return `${this.#place.tree}/${this.#stored[entry] ?? ""}`
  }

  #modeOf(entry: OpenedEntry): number {
    const all = entry.type === "file" && (!entry.executable || this.#options.executable !== true)
    return (all ? 0o666 : 0o777) & ~this.#umask
  }

  /** All folders, so that every entry knows where it will be stored. */
  async #makeFolders(journal: ReceiveJournal): Promise<void> {
    const known = new Map(journal.renamed.map(({ path, stored }) => [path, stored]))
    for (const index of foldedEntries(this.#pathsAskedFor(), this.#traits)) {
      this.#leaveOut(index, "exists")
    }
    let paused = 0
    for (const [index, entry] of this.#manifest.entries.entries()) {
      // A path may name many folders, and making one takes longer than looking at an entry.
      if (index + this.#folders.size - paused >= 1000) {
        paused = index + this.#folders.size
        await new Promise((resolve) => setImmediate(resolve))
      }
      this.#stop.signal.throwIfAborted()
      if (this.#failed.has(index) || !this.#isAskedFor(index)) continue
      const name = this.#paths[index] ?? ""
      const slash = name.lastIndexOf("/")
      const parent = slash === -1 ? "" : name.slice(0, slash)
      const folder = entry.type === "directory" ? name : parent
      const stored = this.#storedFolder(folder, journal)
      if (stored === undefined) {
        this.#leaveOut(index, "name")
      } else if (entry.type === "directory") {
        this.#stored[index] = stored
      } else {
        const own = known.get(name)
        if (own !== undefined) this.#stored[index] = own
        else if (stored !== parent) this.#stored[index] = stored + name.slice(slash)
      }
    }
  }

  /** Those of entries that are not asked for are empty, which collides with nothing that has a name. */
  #pathsAskedFor(): readonly string[] {
    if (this.#choice === undefined) return this.#paths
    return this.#paths.map((name, index) => (this.#isAskedFor(index) ? name : ""))
  }

  /** Makes a folder of the delivery and those above it; undefined when the file system will not have it. */
  #storedFolder(folder: string, journal: ReceiveJournal): string | undefined {
    if (this.#folders.has(folder)) return this.#folders.get(folder)
    const slash = folder.lastIndexOf("/")
    const above = this.#storedFolder(slash === -1 ? "" : folder.slice(0, slash), journal)
    const made = above === undefined ? undefined : this.#makeFolder(above, folder.slice(slash + 1))
    // The same text, without a copy of it for each of many folders.
    const stored = made === folder ? folder : made
    this.#folders.set(folder, stored)
    if (stored !== undefined && stored !== folder) journal.noteRenamed({ path: folder, stored })
    return stored
  }

  #makeFolder(above: string, wanted: string): string | undefined {
    const under = above === "" ? "" : `${above}/`
    const make = (name: string) => {
      const folder = `${this.#place.tree}/${under}${name}`
      try {
        mkdirSync(folder, { mode: 0o700 })
      } catch (error) {
        // One that a run before this made, in the private folder that is nobody else's.
        const isThere = this.#resumed && errorCode(error) === "EEXIST"
        if (!isThere || !lstatSync(folder).isDirectory()) throw error
      }
    }
    try {
      return under + makeNamed(wanted, this.#traits.isWindowsLike, make).name
    } catch (error) {
      if (nameRefusal(error) === undefined) throw error
      return undefined
    }
  }

  /** Files that have no bytes to wait for. */
  async #makeEmptyFiles(journal: ReceiveJournal): Promise<void> {
    for (const [index, entry] of this.#manifest.entries.entries()) {
      if (index % 1000 === 999) await new Promise((resolve) => setImmediate(resolve))
      this.#stop.signal.throwIfAborted()
      if (entry.type === "directory" || entry.size > 0) continue
      if (this.#failed.has(index) || !this.#isAskedFor(index)) continue
      try {
        closeSync(this.#create(index, journal, this.#modeOf(entry)))
        this.#unsynced.add(index)
      } catch (error) {
        const refusal = nameRefusal(error)
        if (refusal === undefined) throw error
        this.#leaveOut(index, refusal)
      }
    }
  }

  /**
   * What the journal says is done, as far as the files are really there, under exactly these names: a
   * file system may find one under another name as well. All other files go, so that every file made
   * from here on is a new one.
   */
  async #believedDone(
    journal: ReceiveJournal,
  ): Promise<{ chunks: Set<number>; padding: Set<number> }> {
    const chunks = new Set<number>()
    const padding = new Set<number>()
    for (const { kind, first, count } of journal.done) {
      const into = kind === "chunks" ? chunks : padding
      for (let at = first; at < first + count; at++) into.add(at)
    }
    const left = await filesBelow(this.#place.tree)
    for (const [index, place] of this.#placement.files.entries()) {
      const entry = this.#manifest.entries[index]
      if (entry?.type !== "file" || place.chunkCount === 0) continue
      const range = { first: place.firstChunk, end: place.firstChunk + place.chunkCount }
      let missing = 0
      for (let chunk = range.first; chunk < range.end; chunk++) if (!chunks.has(chunk)) missing++
      if (missing < place.chunkCount && !this.#failed.has(index)) {
        const file = this.#pathOf(index)
        if (left.has(file) && (await hasSize(file, place.size))) {
          left.delete(file)
          this.#created.add(index)
          // Whatever the journal says of earlier runs, nobody promised that this file was synced.
          this.#unsynced.add(index)
        } else {
          for (let chunk = range.first; chunk < range.end; chunk++) chunks.delete(chunk)
          missing = place.chunkCount
        }
      }
      this.#chunksLeft[index] = missing
    }
    for (const file of left) await rm(file)
    return { chunks, padding }
  }

  /** A block for each file and folder on top: small files take more than they hold. */
  async #checkRoom(bytesToGo: number): Promise<void> {
    const { bavail, bsize, files, ffree } = await statfs(this.#place.into)
    const isKept = this.#resumed
    const toMake = this.#countToMake()
    const bytes = { needed: bytesToGo + toMake * 4 * KIB, free: bavail * bsize }
    if (bytes.free < bytes.needed) throw diskFull(this.#place.into, { bytes, isKept })
    // A file system that makes inodes as it needs them counts none.
    const inodes = { needed: toMake, free: ffree }
    if (files > 0 && inodes.free < inodes.needed) {
      throw diskFull(this.#place.into, { inodes, isKept })
    }
  }

  /** Files, and folders where none are there yet. */
  #countToMake(): number {
    let count = this.#resumed ? 0 : this.#folderCount
    for (const [index, { type }] of this.#manifest.entries.entries()) {
      if (type !== "file" || !this.#isAskedFor(index)) continue
      const isThere = this.#resumed && (this.#chunksLeft[index] === 0 || this.#created.has(index))
      if (!isThere && !this.#failed.has(index)) count++
    }
    return count
  }

  // ---- syncing

  #syncInBackground(journal: ReceiveJournal): void {
    if (this.#syncing) return
    this.#syncing = this.#sync(journal)
      .catch((error: unknown) => this.#fail(error))
      .finally(() => (this.#syncing = undefined))
  }

  /** Ends when everything noted as done before the call is on the disk, and what is in `folders`. */
  async #sync(journal: ReceiveJournal, folders: readonly string[] = []): Promise<void> {
    const { recorded } = journal
    const entries = [...this.#unsynced]
    this.#unsynced = new Set()
    this.#unsyncedBytes = 0
    const files = entries
      .filter((entry) => !this.#failed.has(entry))
      .map((entry) => this.#pathOf(entry))
    await this.#orStartOver(syncTree(this.#place.tree, { files, folders }, this.#stop.signal))
    await journal.noteSynced(recorded)
  }

  /**
   * After a sync that failed nobody knows what the disk holds, and the next one may succeed without
   * having written it. So another run must not believe what this one noted.
   */
  async #orStartOver(syncing: Promise<void>): Promise<void> {
    try {
      await syncing
    } catch (error) {
      await rm(this.#place.journalFile, { force: true })
      throw error
    }
  }

  /** All bytes are there: drop what failed, set modes and times, and get everything onto the disk. */
  async #settle(journal: ReceiveJournal): Promise<void> {
    say(this.#options, { kind: "phase", phase: "syncing" })
    for (const [entry, reason] of this.#failed) {
      // A name that collides is the name of another entry's file.
      if (reason === "mac") await rm(this.#pathOf(entry), { force: true })
    }
    if (this.#failed.size > 0) await this.#removeUnneededFolders()
    // Before the times: a stream is a part of its file, and writing to it is writing to that.
    if (process.platform === "win32") await this.#markAsForeign()
    for (const [index, entry] of this.#manifest.entries.entries()) {
      if (entry.type === "directory" || this.#failed.has(index)) continue
      if (!this.#isAskedFor(index)) continue
      const isSmall = (this.#placement.files[index]?.chunkCount ?? 0) <= 1
      const isTimed = this.#options.times === true && entry.mtimeMs > 0
      // A file of one chunk got its mode from whoever wrote it.
      if (isSmall && !isTimed) continue
      await this.#finishFile(index, entry)
    }
    const deepestFirst = [...this.#folders.values()]
      .filter((folder) => folder !== undefined)
      .sort((a, b) => b.length - a.length)
      .map((folder) => `${this.#place.tree}/${folder}`)
    // Called off is not failed: the next run syncs all folders again.
    await this.#sync(journal, deepestFirst)
    // The tree itself stays private until it is empty.
    for (const folder of deepestFirst.slice(0, -1)) {
      this.#stop.signal.throwIfAborted()
      await chmod(folder, 0o777 & ~this.#umask)
    }
    if (this.#options.times === true) await this.#setFolderTimes()
  }

  /** Those that no entry asked for and that stayed empty, because what was to lie in them was left out. */
  async #removeUnneededFolders(): Promise<void> {
    const entries = [...this.#paths.keys()].filter((index) => !this.#failed.has(index))
    const asked = new Set(entries.map((index) => this.#paths[index]))
    const unneeded = [...this.#folders].filter(([folder]) => folder !== "" && !asked.has(folder))
    for (const [folder, stored] of unneeded.sort(([a], [b]) => b.length - a.length)) {
      if (stored === undefined) continue
      try {
        await rmdir(`${this.#place.tree}/${stored}`)
        this.#folders.set(folder, undefined)
      } catch (error) {
        if (!["ENOTEMPTY", "EEXIST"].includes(errorCode(error) ?? "")) throw error
      }
    }
  }

  /** By the stream that browsers and mail programs write. No name holds a colon here: it ends the name. */
  async #markAsForeign(): Promise<void> {
    for (const [index, { type }] of this.#manifest.entries.entries()) {
      if (type !== "file" || this.#failed.has(index) || !this.#isAskedFor(index)) continue
      this.#stop.signal.throwIfAborted()
      try {
        await writeFile(`${this.#pathOf(index)}:Zone.Identifier`, zoneMark)
      } catch (error) {
        // What a disk without streams, such as FAT, says of such a name.
        if (!["ENOENT", "EINVAL", "ENOTSUP"].includes(errorCode(error) ?? "")) throw error
        notice(
          this.#options,
          `${this.#place.into} is on a disk that cannot mark files as coming from elsewhere; Windows will not ask before it opens them`,
        )
        return
      }
    }
  }

  async #finishFile(index: number, entry: OpenedEntry): Promise<void> {
    const handle = await open(this.#pathOf(index), "r+")
    try {
      await handle.chmod(this.#modeOf(entry))
      if (this.#options.times === true && entry.mtimeMs > 0) {
        await handle.utimes(entry.mtimeMs / 1000, entry.mtimeMs / 1000)
      }
    } finally {
      await handle.close()
    }
    this.#unsynced.add(index)
  }

  async #setFolderTimes(): Promise<void> {
    for (const [index, entry] of this.#manifest.entries.entries()) {
      if (entry.type !== "directory" || entry.mtimeMs === 0 || this.#failed.has(index)) continue
      if (!this.#isAskedFor(index)) continue
      await utimes(this.#pathOf(index), entry.mtimeMs / 1000, entry.mtimeMs / 1000)
    }
  }

  // ---- the end

  async #putInPlace(journal: ReceiveJournal): Promise<ReceiveResult> {
    const { into, tree } = this.#place
    const { listed } = this.#opened
    if (journal.stage !== "placed") {
      say(this.#options, { kind: "phase", phase: "putting in place" })
      this.#options.signal?.throwIfAborted()
      const plan = await planPlacing({
        tree,
        into,
        onExisting: this.#options.onExisting ?? "fail",
        entersFolders: this.#choice !== undefined,
        isBegun: isPlacing(journal),
      })
      const renamed = [...plan.names].filter(([own, found]) => own !== found).map(([own]) => own)
      await journal.notePlacing(this.#placedAs(plan.names, journal), renamed)
      await placeAll(plan)
      const folders = new Set([...plan.moves.map(({ to }) => path.dirname(to)), into])
      await this.#orStartOver(eachOf([...folders], syncsAtOnce, async (one) => syncFolder(one)))
      await journal.notePlaced()
    }
    const failed = [...this.#failed].map(([entry, reason]) => ({
      path: this.#paths[entry] ?? "",
      reason: failureText[reason],
    }))
    // What could not be put in place can still be had, or reported, from the relay's copy.
    const mayGo = this.#options.keep !== true && this.#choice === undefined
    if (mayGo && failed.length === 0) {
      await deleteCopy(this.#session, listed.id, callOf(this.#options))
    }
    await this.#place.clear()
    return {
      id: listed.id,
      paths: journal.placedNames.map((name) => path.join(this.#place.named, name)),
      files: this.#manifest.entries.filter(
        ({ type }, index) => type === "file" && this.#isAskedFor(index) && !this.#failed.has(index),
      ).length,
      bytes: this.#contentLength,
      note: this.#manifest.note,
      sender: this.#opened.sender,
      resumed: this.#resumed,
      renamed: journal.renamed,
      failed,
      fetchedBytes: this.#fetchedBytes,
    }
  }

  /** What is told of as put in place: the top-level names, or the paths that were asked for. */
  #placedAs(tops: ReadonlyMap<string, string>, journal: ReceiveJournal): string[] {
    const { entries } = this.#options
    if (entries === undefined) return [...tops.values()]
    const leftOut = new Set([...this.#failed.keys()].map((entry) => this.#paths[entry]))
    const renamed = new Map(journal.renamed.map(({ path, stored }) => [path, stored]))
    return [...new Set(entries)].flatMap((name) => {
      if (leftOut.has(name)) return []
      const stored = renamed.get(name) ?? this.#stored[this.#paths.indexOf(name)] ?? name
      const top = topOf(stored)
      const placed = tops.get(top)
      return placed === undefined ? [] : [placed + stored.slice(top.length)]
    })
  }
}

/** Something of it may be in place. */
function isPlacing(journal: ReceiveJournal | undefined): boolean {
  return journal !== undefined && journal.stage !== "fetching"
}

interface UnitContext {
  readonly journal: ReceiveJournal
  readonly pool: SealingPool
  readonly work: Set<Promise<void>>
}

const failureText: Readonly<Record<FailureReason, string>> = {
  mac: "its content does not match what the list of entries says; its sender made it so",
  exists: "this file system takes its name for that of another entry",
  name: "this file system does not allow its name",
}

/** Why a name could not be made, when that is the name's fault alone. */
function nameRefusal(error: unknown): FailureReason | undefined {
  if (isTakenName(error)) return "exists"
  return isRefusedName(error) ? "name" : undefined
}

function sizeOf(entry: OpenedEntry): number {
  return entry.type === "file" ? entry.size : 0
}

function rangeOfParts(from: number, to: number): number[] {
  const first = gridIndex(from)
  return Array.from({ length: gridIndex(to - 1) - first + 1 }, (_, index) => first + index)
}

/** Runs of neighbouring parts, each about as long as a request asks for. */
function windowsOf(parts: readonly number[], bodyLength: number, windowBytes: number): number[][] {
  const windows: number[][] = []
  let bytes = 0
  for (const part of parts) {
    const length = gridLength(part, bodyLength)
    const window = windows.at(-1)
    if (window && window.at(-1) === part - 1 && bytes + length <= windowBytes) {
      window.push(part)
      bytes += length
    } else {
      windows.push([part])
      bytes = length
    }
  }
  return windows
}

function topOf(name: string): string {
  return name.split("/", 1)[0] ?? name
}

/** All that is no folder. */
async function filesBelow(folder: string): Promise<Set<string>> {
  const found = new Set<string>()
  const folders = [folder]
  for (let at = folders.pop(); at !== undefined; at = folders.pop()) {
    for (const entry of await readdir(at, { withFileTypes: true })) {
      const file = `${at}/${entry.name}`
      if (entry.isDirectory()) folders.push(file)
      else found.add(file)
    }
  }
  return found
}

async function hasSize(file: string, size: number): Promise<boolean> {
  try {
    const stats = await lstat(file)
    return stats.isFile() && stats.size === size
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false
    throw error
  }
}
