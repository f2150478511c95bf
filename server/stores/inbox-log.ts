// The durable record of each inbox: its bundle, and a log of what happened to its chain. The log is
// synced before anything that depends on it is acknowledged, and it is the truth: a sequence number
// counts when the log has it.
//
// A record is 192 bytes: u8 kind ‖ u8 reason ‖ u16 before ‖ u16 after ‖ 2 zero ‖ u64 seq ‖ id 16 ‖
// H_hdr 32 ‖ H_env 32 ‖ u64 accepted ‖ u64 expires ‖ head after it 32 ‖ 16 zero ‖ MAC 32; before and
// after are how many records of the same append stand before and after it. All have one size so that
// the remains of a torn write are seen and overwritten; a record may stand in the log twice, because a
// step that failed half way is done again.
//
// A power cut may take any sectors of an append that was not synced, the first as well as the last. An
// append counts whole or not at all: what is left of one, at the end of the log, was never acknowledged.
import { join } from "node:path"
import {
  ByteReader,
  concatBytes,
  equalBytes,
  FormatError,
  fromHex,
  hmacSha256,
  maxBundleBytes,
  type Random,
  type TombstoneReason,
  toHex,
  u16,
  u64,
  utf8,
} from "../../protocol/index.js"
import {
  type Disk,
  type DiskFile,
  hasCode,
  readSmallFile,
  unlessMissing,
  writeSyncedFile,
} from "../disk.js"
import { deliveryIdOf, type InboxId, isInboxId } from "../ids.js"
import { openReserve } from "../reserve.js"
import type { ChainPlace } from "./relay-index.js"

export type LogRecord =
  | ({ readonly kind: "published" } & ChainPlace)
  | ({ readonly kind: "buried"; readonly reason: TombstoneReason } & ChainPlace)
  /** Everything up to `seq` is no longer listed. */
  | { readonly kind: "floor"; readonly seq: number; readonly head: Uint8Array }

export type LoggedPlace = Exclude<LogRecord, { readonly kind: "floor" }>

/** What the log comes to. */
export interface LoggedInbox {
  readonly bundle: Uint8Array
  readonly floorSeq: number
  readonly floorHead: Uint8Array
  /** By seq, without gaps from the floor on. */
  readonly places: readonly LoggedPlace[]
  /** Records that are not ours or are damaged, and seqs that are missing: none in a healthy log. */
  readonly damaged: number
}

export interface InboxLogs {
  /** False when the inbox was there. */
  create(inbox: InboxId, bundle: Uint8Array): Promise<boolean>
  /**
   * Notes that its owner closed it, or that they opened it again; durable when it resolves, and the same
   * when it was so before. What its chain had stays, so that it goes on where it was.
   */
  setClosed(inbox: InboxId, closed: boolean): Promise<void>
  isClosed(inbox: InboxId): Promise<boolean>
  list(): Promise<InboxId[]>
  read(inbox: InboxId): Promise<LoggedInbox | undefined>
  /** The greatest seq in the log, 0 where there is none. As a rule it reads the end of the log only. */
  lastSeq(inbox: InboxId): Promise<number>
  /**
   * Makes durable what the log has, and takes away the remains of an append. For whoever relies on a log
   * that an earlier process wrote: its last append may be in the kernel alone.
   */
  settle(inbox: InboxId): Promise<void>
  /** Makes the file that `append` may give up, if it is not there and there is room for it. */
  keepReserve(): Promise<void>
  /**
   * Durable when it resolves. One caller at a time for each inbox. Burials go in on a full disk, too:
   * they are what makes room on it.
   */
  append(inbox: InboxId, records: readonly LogRecord[]): Promise<void>
  /** Rewrites a log that is mostly history. One caller at a time for each inbox. */
  compact(inbox: InboxId): Promise<void>
}

const recordBytes = 192
const macAt = 160
const kinds = ["published", "buried", "floor"] as const
const reasons: readonly TombstoneReason[] = ["taken", "revoked", "expired", "lost", "removed"]
/** The unit in which a disk keeps or loses what is written to it. */
const sectorBytes = 512
/** More than one append ever has (chains.ts). */
const mostAppended = 256
/** A log may be of any length; it is read this much at a time. */
const readBytes = 512 * recordBytes
const tailBytes = 32 * recordBytes
const reserveName = "reserve"
const bundleName = "bundle"
const logName = "log.v1"
const closedName = "closed"

export function openInboxLogs(input: {
  readonly disk: Disk
  readonly path: string
  readonly recordKey: Uint8Array
  readonly random: Random
}): InboxLogs {
  const { disk, path, recordKey, random } = input
  const reserve = openReserve({ disk, path: join(path, reserveName), random })
  const folderOf = (inbox: InboxId) => join(path, inbox)

  async function read(inbox: InboxId): Promise<LoggedInbox | undefined> {
    const folder = folderOf(inbox)
    const bundle = await readSmallFile(disk, join(folder, bundleName), maxBundleBytes)
    const log = await unlessMissing(disk.open(join(folder, logName), "read"), undefined)
    if (log === undefined) return undefined
    try {
      return bundle && { bundle, ...(await foldLog(log, recordKey, inbox)) }
    } finally {
      await log.close()
    }
  }

  /** How long each log was when this process had synced it. */
  const settledBytes = new Map<InboxId, number>()

  /** The length of what counts, which is all there is when it resolves, and durable. */
  async function settleLog(log: DiskFile, inbox: InboxId): Promise<number> {
    const sizeBytes = await log.sizeBytes()
    if (settledBytes.get(inbox) === sizeBytes) return sizeBytes
    const end = await endOf(log, recordKey, inbox)
    if (end !== sizeBytes) await log.truncate(end)
    await log.sync()
    settledBytes.set(inbox, end)
    return end
  }

  async function appendOnce(inbox: InboxId, records: readonly LogRecord[]): Promise<void> {
    const bytes = encodeAppend(records, recordKey, inbox)
    const file = await disk.open(join(folderOf(inbox), logName), "update")
    try {
      const end = await settleLog(file, inbox)
      settledBytes.delete(inbox)
      try {
        await file.write(bytes, end)
        await file.sync()
      } catch (error) {
        // Written again in the same place: a page that failed to sync counts as clean until then.
        await file.truncate(end).catch(() => undefined)
        throw error
      }
      settledBytes.set(inbox, end + bytes.length)
    } finally {
      await file.close()
    }
  }

  return {
    async create(inbox, bundle) {
      const target = folderOf(inbox)
      if ((await unlessMissing(disk.stat(target), undefined)) !== undefined) {
        // Perhaps by an attempt that failed before its name was durable.
        await disk.syncFolder(path)
        return false
      }
      // Made whole under another name first: an inbox without its log or bundle is never seen.
      const fresh = join(path, `new-${toHex(random(16))}`)
      await disk.makeFolder(fresh)
      try {
        await writeSyncedFile(disk, join(fresh, bundleName), bundle)
        await writeSyncedFile(disk, join(fresh, logName), new Uint8Array(0))
        await disk.syncFolder(fresh)
        await disk.rename(fresh, target)
      } catch (error) {
        await removeFresh(disk, fresh)
        if (hasCode(error, "EEXIST", "ENOTEMPTY")) return false
        throw error
      }
      await disk.syncFolder(path)
      return true
    },

    async setClosed(inbox, closed) {
      const mark = join(folderOf(inbox), closedName)
      if (!closed) await unlessMissing(disk.unlink(mark), undefined)
      else if ((await unlessMissing(disk.stat(mark), undefined)) === undefined) {
        await writeSyncedFile(disk, mark, new Uint8Array(0))
      }
      await disk.syncFolder(folderOf(inbox))
    },

    async isClosed(inbox) {
      const mark = join(folderOf(inbox), closedName)
      return (await unlessMissing(disk.stat(mark), undefined)) !== undefined
    },

    async list() {
      return (await disk.list(path)).filter(isInboxId)
    },

    read,

    async lastSeq(inbox) {
      const file = await unlessMissing(disk.open(join(folderOf(inbox), logName), "read"), undefined)
      if (file === undefined) return 0
      try {
        return await lastSeqOf(file, recordKey, inbox)
      } finally {
        await file.close()
      }
    },

    async settle(inbox) {
      const path = join(folderOf(inbox), logName)
      const log = await unlessMissing(disk.open(path, "update"), undefined)
      if (log === undefined) return
      try {
        await settleLog(log, inbox)
      } finally {
        await log.close()
      }
    },

    keepReserve: () => reserve.keep(),

    append(inbox, records) {
      const step = () => appendOnce(inbox, records)
      return records.every(({ kind }) => kind === "buried") ? reserve.spendOn(step) : step()
    },

    async compact(inbox) {
      const logged = await read(inbox)
      if (logged === undefined) return
      const { floorSeq, floorHead, places } = logged
      const records: LogRecord[] = [{ kind: "floor", seq: floorSeq, head: floorHead }, ...places]
      // Each as an append of its own: the file gets its name when it is whole.
      const bytes = concatBytes(
        ...records.map((record) => encodeAppend([record], recordKey, inbox)),
      )
      const folder = folderOf(inbox)
      const fresh = join(folder, "log.new")
      await unlessMissing(disk.unlink(fresh), undefined)
      await writeSyncedFile(disk, fresh, bytes)
      await disk.rename(fresh, join(folder, logName))
      await disk.syncFolder(folder)
    },
  }
}

async function removeFresh(disk: Disk, fresh: string): Promise<void> {
  try {
    for (const name of await disk.list(fresh)) await disk.unlink(join(fresh, name))
    await disk.removeFolder(fresh)
  } catch {
    // The sweep removes what is left; the caller has the first failure to report.
  }
}

function encodeAppend(records: readonly LogRecord[], key: Uint8Array, inbox: InboxId): Uint8Array {
  return concatBytes(
    ...records.map((record, before) => {
      const after = records.length - before - 1
      const open = encodeOpen(record, { before, after })
      return concatBytes(open, logMac(key, inbox, open))
    }),
  )
}

function encodeOpen(
  record: LogRecord,
  { before, after }: { readonly before: number; readonly after: number },
): Uint8Array {
  const reason = record.kind === "buried" ? reasons.indexOf(record.reason) + 1 : 0
  const place =
    record.kind === "floor"
      ? new Uint8Array(96)
      : concatBytes(
          fromHex(record.id),
          record.headerHash,
          record.envelopeHash,
          u64(record.acceptedMs),
          u64(record.expiresMs),
        )
  return concatBytes(
    Uint8Array.of(kinds.indexOf(record.kind) + 1, reason),
    u16(before),
    u16(after),
    new Uint8Array(2),
    u64(record.seq),
    place,
    record.head,
    new Uint8Array(16),
  )
}

function logMac(key: Uint8Array, inbox: InboxId, open: Uint8Array): Uint8Array {
  return hmacSha256(key, utf8(`${logName} ${inbox}\n`), open)
}

/** With its place in its append. */
interface Logged {
  readonly record: LogRecord
  readonly before: number
  readonly after: number
}

function parseLog(bytes: Uint8Array, key: Uint8Array, inbox: InboxId): Logged {
  const open = bytes.subarray(0, macAt)
  if (!equalBytes(logMac(key, inbox, open), bytes.subarray(macAt))) {
    throw new FormatError("log", "not ours")
  }
  const reader = new ByteReader(open, "log")
  const kind = kinds[reader.u8("kind") - 1] ?? reader.refuse("kind", "unknown")
  const reason = reader.u8("reason")
  const before = reader.u16("before")
  const after = reader.u16("after")
  reader.zeros(2, "reserved")
  const seq = reader.u64("seq")
  const id = reader.take(16, "id")
  const headerHash = reader.take(32, "header hash")
  const envelopeHash = reader.take(32, "envelope hash")
  const acceptedMs = reader.u64("accepted")
  const expiresMs = reader.u64("expires")
  const head = reader.take(32, "head")
  reader.zeros(16, "reserved")
  if (kind === "floor") return { before, after, record: { kind, seq, head } }
  const place = { seq, head, id: deliveryIdOf(id), headerHash, envelopeHash, acceptedMs, expiresMs }
  if (kind === "published") return { before, after, record: { kind, ...place } }
  const why = reasons[reason - 1] ?? reader.refuse("reason", "unknown")
  return { before, after, record: { kind, ...place, reason: why } }
}

/** Undefined for one that is not ours, or damaged. */
function parseIfOurs(bytes: Uint8Array, key: Uint8Array, inbox: InboxId): Logged | undefined {
  try {
    return parseLog(bytes, key, inbox)
  } catch (error) {
    if (!(error instanceof FormatError)) throw error
    return undefined
  }
}

/** Where the log ends, without the remains of an append that a power cut or a dead process left. */
async function endOf(log: DiskFile, key: Uint8Array, inbox: InboxId): Promise<number> {
  const count = Math.floor((await log.sizeBytes()) / recordBytes)
  const first = Math.max(0, count - mostAppended)
  const tail = new Uint8Array((count - first) * recordBytes)
  await log.read(tail, first * recordBytes)
  const bytesAt = (at: number): Uint8Array =>
    tail.subarray((at - first) * recordBytes, (at - first + 1) * recordBytes)
  const areLost = (from: number, to: number): boolean => {
    for (let at = from; at < to; at++) {
      if (parseIfOurs(bytesAt(at), key, inbox) === undefined && !isUnwritten(bytesAt(at), at)) {
        return false
      }
    }
    return true
  }

  let last = count - 1
  let known: Logged | undefined
  while (last >= first && known === undefined) {
    known = parseIfOurs(bytesAt(last), key, inbox)
    if (known === undefined) last -= 1
  }
  // What is damaged in another way than by sectors that were never written may have been acknowledged.
  if (!areLost(last + 1, count)) return count * recordBytes
  // No append is as long as this.
  if (known === undefined) return first > 0 ? count * recordBytes : 0
  const start = Math.max(first, last - known.before)
  let isWhole = known.after === 0
  for (let at = start; at < last; at++) {
    if (parseIfOurs(bytesAt(at), key, inbox) === undefined) isWhole = false
  }
  if (isWhole) return (last + 1) * recordBytes
  return (areLost(start, last) ? start : count) * recordBytes
}

/** Whether a sector of it, or what the record has of that sector, is all zeros. */
function isUnwritten(bytes: Uint8Array, at: number): boolean {
  const intoSector = (at * recordBytes) % sectorBytes
  const border = Math.min(recordBytes, sectorBytes - intoSector)
  return [bytes.subarray(0, border), bytes.subarray(border)].some(
    (piece) => piece.length > 0 && piece.every((byte) => byte === 0),
  )
}

/**
 * From the end back to the last publication: what was published before has smaller numbers, and so has
 * what was compacted before it. A floor says nothing of what stands above it.
 */
async function lastSeqOf(log: DiskFile, key: Uint8Array, inbox: InboxId): Promise<number> {
  let greatest = 0
  for (let end = await endOf(log, key, inbox); end > 0; end -= tailBytes) {
    const piece = new Uint8Array(Math.min(tailBytes, end))
    await log.read(piece, end - piece.length)
    for (let at = piece.length - recordBytes; at >= 0; at -= recordBytes) {
      const record = parseIfOurs(piece.subarray(at, at + recordBytes), key, inbox)?.record
      greatest = Math.max(greatest, record?.seq ?? 0)
      if (record?.kind === "published") return greatest
    }
  }
  return greatest
}

async function foldLog(
  log: DiskFile,
  key: Uint8Array,
  inbox: InboxId,
): Promise<Omit<LoggedInbox, "bundle">> {
  let floorSeq = 0
  let floorHead = new Uint8Array(32)
  let damaged = 0
  const places = new Map<number, LoggedPlace>()
  for await (const piece of piecesOf(log, await endOf(log, key, inbox))) {
    for (let at = 0; at < piece.length; at += recordBytes) {
      const record = parseIfOurs(piece.subarray(at, at + recordBytes), key, inbox)?.record
      if (record === undefined) {
        damaged += 1
      } else if (record.kind === "floor") {
        if (record.seq >= floorSeq) {
          floorSeq = record.seq
          floorHead = new Uint8Array(record.head)
        }
      } else if (record.kind === "buried" || !places.has(record.seq)) {
        // What is buried stays so, even when its publication stands in the log a second time.
        places.set(record.seq, record)
      }
    }
  }
  const listed = [...places.values()]
    .filter(({ seq }) => seq > floorSeq)
    .sort((a, b) => a.seq - b.seq)
  const gaps = (listed.at(-1)?.seq ?? floorSeq) - floorSeq - listed.length
  return { floorSeq, floorHead, places: listed, damaged: damaged + gaps }
}

async function* piecesOf(log: DiskFile, end: number): AsyncGenerator<Uint8Array> {
  for (let position = 0; position < end; position += readBytes) {
    const piece = new Uint8Array(Math.min(readBytes, end - position))
    const count = await log.read(piece, position)
    yield piece.subarray(0, count - (count % recordBytes))
  }
}
