// The durable record of each inbox: its bundle, and a log of what happened to its chain. The log is
// synced before anything that depends on it is acknowledged, and it is the truth: a sequence number
// counts when the log has it.
//
// A record is 192 bytes: u8 kind ‖ u8 reason ‖ 6 zero ‖ u64 seq ‖ id 16 ‖ H_hdr 32 ‖ H_env 32 ‖
// u64 accepted ‖ u64 expires ‖ head after it 32 ‖ 16 zero ‖ MAC 32. All have one size so that the
// remains of a torn write are seen and overwritten; a record may stand in the log twice, because a
// step that failed half way is done again.
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

  async function appendOnce(inbox: InboxId, records: readonly LogRecord[]): Promise<void> {
    const bytes = concatBytes(...records.map((record) => encodeLog(record, recordKey, inbox)))
    const file = await disk.open(join(folderOf(inbox), logName), "update")
    try {
      const sizeBytes = await file.sizeBytes()
      const end = sizeBytes - (sizeBytes % recordBytes)
      if (end !== sizeBytes) await file.truncate(end)
      await file.write(bytes, end)
      await file.sync()
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
      const bytes = concatBytes(...records.map((record) => encodeLog(record, recordKey, inbox)))
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

function encodeLog(record: LogRecord, key: Uint8Array, inbox: InboxId): Uint8Array {
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
  const open = concatBytes(
    Uint8Array.of(kinds.indexOf(record.kind) + 1, reason),
    new Uint8Array(6),
    u64(record.seq),
    place,
    record.head,
    new Uint8Array(16),
  )
  return concatBytes(open, logMac(key, inbox, open))
}

function logMac(key: Uint8Array, inbox: InboxId, open: Uint8Array): Uint8Array {
  return hmacSha256(key, utf8(`${logName} ${inbox}\n`), open)
}

function parseLog(bytes: Uint8Array, key: Uint8Array, inbox: InboxId): LogRecord {
  const open = bytes.subarray(0, macAt)
  if (!equalBytes(logMac(key, inbox, open), bytes.subarray(macAt))) {
    throw new FormatError("log", "not ours")
  }
  const reader = new ByteReader(open, "log")
  const kind = kinds[reader.u8("kind") - 1] ?? reader.refuse("kind", "unknown")
  const reason = reader.u8("reason")
  reader.zeros(6, "reserved")
  const seq = reader.u64("seq")
  const id = reader.take(16, "id")
  const headerHash = reader.take(32, "header hash")
  const envelopeHash = reader.take(32, "envelope hash")
  const acceptedMs = reader.u64("accepted")
  const expiresMs = reader.u64("expires")
  const head = reader.take(32, "head")
  reader.zeros(16, "reserved")
  if (kind === "floor") return { kind, seq, head }
  const place = { seq, head, id: deliveryIdOf(id), headerHash, envelopeHash, acceptedMs, expiresMs }
  if (kind === "published") return { kind, ...place }
  return { kind, ...place, reason: reasons[reason - 1] ?? reader.refuse("reason", "unknown") }
}

function recordOrDamage(bytes: Uint8Array, key: Uint8Array, inbox: InboxId): LogRecord | undefined {
  try {
    return parseLog(bytes, key, inbox)
  } catch (error) {
    if (error instanceof FormatError) return undefined
    throw error
  }
}

/**
 * From the end back to the last publication: what was published before has smaller numbers, and so has
 * what was compacted before it. A floor says nothing of what stands above it.
 */
async function lastSeqOf(log: DiskFile, key: Uint8Array, inbox: InboxId): Promise<number> {
  const sizeBytes = await log.sizeBytes()
  let greatest = 0
  for (let end = sizeBytes - (sizeBytes % recordBytes); end > 0; end -= tailBytes) {
    const piece = new Uint8Array(Math.min(tailBytes, end))
    await log.read(piece, end - piece.length)
    for (let at = piece.length - recordBytes; at >= 0; at -= recordBytes) {
      const record = recordOrDamage(piece.subarray(at, at + recordBytes), key, inbox)
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
  for await (const piece of piecesOf(log)) {
    for (let at = 0; at < piece.length; at += recordBytes) {
      const record = recordOrDamage(piece.subarray(at, at + recordBytes), key, inbox)
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

/** Whole records only: what a torn write left at the end is not one. */
async function* piecesOf(log: DiskFile): AsyncGenerator<Uint8Array> {
  const sizeBytes = await log.sizeBytes()
  const end = sizeBytes - (sizeBytes % recordBytes)
  for (let position = 0; position < end; position += readBytes) {
    const piece = new Uint8Array(Math.min(readBytes, end - position))
    const count = await log.read(piece, position)
    yield piece.subarray(0, count - (count % recordBytes))
  }
}
