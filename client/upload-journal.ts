/**
 * What an upload must not forget if this process ends: its secrets, and the leaf of every part before
 * that part is first on the wire (docs/protocol.md §8). The secrets make it a file to protect: it is
 * 0600, and removed when the receipt is in hand.
 *
 * Without a file the same record lives in memory only, for sources that cannot be read twice.
 */
import {
  ByteReader,
  concatBytes,
  equalBytes,
  FormatError,
  fromHex,
  gridCount,
  headerBytes,
  maxParts,
  parseUtf8,
  putU64,
  random,
  toHex,
  u16,
  u32,
  utf8,
} from "../protocol/index.js"
import { AppendLog, createLog, type LogRecord, readLog, reopenLog } from "./append-log.js"
import type { ScannedEntry } from "./scan.js"

const magic = "KNHUPL1\n"
const types = { start: 1, entries: 2, upload: 3, macs: 4, leaf: 5, finish: 6 } as const

/** What is drawn once for a delivery and never again. */
export interface UploadSecrets {
  readonly ds: Uint8Array
  readonly deliveryId: Uint8Array
  readonly idempotencyKey: Uint8Array
  readonly deleteCapability: Uint8Array
}

export interface FileSecrets {
  readonly key: Uint8Array
  readonly nonce: Uint8Array
}

export interface StartedUpload {
  readonly id: string
  readonly token: Uint8Array
}

export interface FinishRecord {
  readonly header: Uint8Array
  readonly envelopes: readonly Uint8Array[]
}

const secretBytes = 16 + 8

export class UploadJournal {
  readonly secrets: UploadSecrets
  /** By index of the part. */
  readonly leaves: (Uint8Array | undefined)[] = []
  upload: StartedUpload | undefined
  finish: FinishRecord | undefined
  readonly #log: AppendLog | undefined
  /** Those of all entries one behind the other; folders have some too, unused. */
  #fileSecrets: Uint8Array
  #macs: Uint8Array
  #macKnown: Uint8Array

  constructor(log: AppendLog | undefined, secrets: UploadSecrets, fileSecrets: Uint8Array) {
    this.#log = log
    this.secrets = secrets
    this.#fileSecrets = fileSecrets
    this.#macs = new Uint8Array(0)
    this.#macKnown = new Uint8Array(0)
  }

  /** For how many entries there are secrets. */
  get entryCount(): number {
    return this.#fileSecrets.length / secretBytes
  }

  secretsOf(entry: number): FileSecrets {
    if (entry >= this.entryCount) throw new RangeError("no such entry")
    const from = secretBytes * entry
    return {
      key: this.#fileSecrets.subarray(from, from + 16),
      nonce: this.#fileSecrets.subarray(from + 16, from + secretBytes),
    }
  }

  /** One entry more, of a stream: a journal with streams has no file. */
  drawSecrets(): void {
    this.#fileSecrets = concatBytes(this.#fileSecrets, random(secretBytes))
  }

  hasMacs(firstChunk: number, count: number): boolean {
    for (let i = firstChunk; i < firstChunk + count; i++) if (this.#macKnown[i] !== 1) return false
    return true
  }

  macs(firstChunk: number, count: number): Uint8Array {
    return this.#macs.subarray(16 * firstChunk, 16 * (firstChunk + count))
  }

  /** False when one of them is known and differs: the source is not what it was. */
  addMacs(firstChunk: number, macs: Uint8Array): boolean {
    const count = macs.length / 16
    if (this.hasMacs(firstChunk, count)) return equalBytes(this.macs(firstChunk, count), macs)
    for (let i = 0; i < count; i++) {
      const mac = macs.subarray(16 * i, 16 * i + 16)
      if (this.hasMacs(firstChunk + i, 1) && !equalBytes(this.macs(firstChunk + i, 1), mac)) {
        return false
      }
    }
    this.#putMacs(firstChunk, macs)
    this.#log?.append(types.macs, concatBytes(u32(firstChunk), macs))
    return true
  }

  #putMacs(firstChunk: number, macs: Uint8Array): void {
    const end = firstChunk + macs.length / 16
    if (end > this.#macKnown.length) {
      const room = Math.max(end, 2 * this.#macKnown.length, 1024)
      this.#macs = grown(this.#macs, 16 * room)
      this.#macKnown = grown(this.#macKnown, room)
    }
    this.#macs.set(macs, 16 * firstChunk)
    this.#macKnown.fill(1, firstChunk, end)
  }

  /** False when another leaf is known for this part: it must not be sent. */
  addLeaf(part: number, leaf: Uint8Array): boolean {
    const known = this.leaves[part]
    if (known !== undefined) return equalBytes(known, leaf)
    this.leaves[part] = leaf
    this.#log?.append(types.leaf, concatBytes(u32(part), leaf))
    return true
  }

  /** Ends when everything added before is on stable storage. */
  async flush(): Promise<void> {
    await this.#log?.flush()
  }

  async started(upload: StartedUpload): Promise<void> {
    this.upload = upload
    this.#log?.append(types.upload, concatBytes(fromHex(upload.id), upload.token))
    await this.flush()
  }

  /** From here on the delivery is exactly these bytes and the manifest they name. */
  async finishing(finish: FinishRecord): Promise<void> {
    this.finish = finish
    this.#log?.append(
      types.finish,
      concatBytes(
        finish.header,
        Uint8Array.of(finish.envelopes.length),
        ...finish.envelopes.flatMap((envelope) => [u16(envelope.length), envelope]),
      ),
    )
    await this.flush()
  }

  async close(): Promise<void> {
    await this.#log?.close()
  }

  /**
   * What a journal read from a file says, applied in order. `chunkCount` is how many chunks the sources
   * have now: MACs beyond them, of sources that were longer then, are not remembered.
   */
  replay(records: readonly LogRecord[], chunkCount: number): void {
    for (const { type, payload } of records) {
      const reader = new ByteReader(payload, "upload journal")
      switch (type) {
        case types.upload:
          this.upload = parseStarted(payload)
          break
        case types.macs: {
          const firstChunk = reader.u32("chunk")
          const macs = reader.take(reader.remaining, "MACs")
          if (macs.length % 16 !== 0) reader.refuse("MACs", "not whole")
          if (firstChunk + macs.length / 16 <= chunkCount) this.#putMacs(firstChunk, macs)
          break
        }
        case types.leaf: {
          const part = reader.u32("part")
          if (part >= maxParts) reader.refuse("part", "beyond the largest body")
          this.leaves[part] = reader.take(32, "leaf")
          reader.end()
          break
        }
        case types.finish: {
          const header = reader.take(headerBytes, "header")
          const envelopes: Uint8Array[] = []
          for (let left = reader.u8("envelopes"); left > 0; left--) {
            envelopes.push(reader.take(reader.u16("length"), "envelope"))
          }
          this.finish = { header, envelopes }
          reader.end()
          break
        }
        default:
          throw new FormatError("upload journal", `a record of unknown type ${type}`)
      }
    }
  }
}

export function drawUploadSecrets(): UploadSecrets {
  return {
    ds: random(32),
    deliveryId: random(16),
    idempotencyKey: random(16),
    deleteCapability: random(32),
  }
}

/** A new journal in place of whatever was there; without a file, one in memory. */
export async function startUploadJournal(
  file: string | undefined,
  entries: readonly ScannedEntry[],
): Promise<UploadJournal> {
  const secrets = drawUploadSecrets()
  const fileSecrets = random(secretBytes * entries.length)
  const log = file === undefined ? undefined : await createLog(file, magic)
  if (log) {
    log.append(types.start, encodeStart(secrets, entries.length))
    for (let from = 0; from < entries.length; from += entriesInRecord) {
      const batch = entries.slice(from, from + entriesInRecord)
      log.append(types.entries, encodeEntries(batch, fileSecrets.subarray(secretBytes * from)))
    }
    await log.flush()
  }
  return new UploadJournal(log, secrets, fileSecrets)
}

export type Reopened =
  | { kind: "none" }
  | {
      kind: "resumed"
      journal: UploadJournal
      /** Those of the first run, in its order, as they are now. */
      entries: readonly ScannedEntry[]
      /** There now, and not when the sending began: they are no part of it. */
      addedLater: readonly ScannedEntry[]
    }
  /** `path` is the first entry that is not what it was. */
  | { kind: "changed"; journal: UploadJournal; path: string }

/** The journal an earlier run left behind, held against what the sources are now. */
export async function reopenUploadJournal(
  file: string,
  entries: readonly ScannedEntry[],
): Promise<Reopened> {
  const reopened = await reopenLog(file, magic)
  if (reopened === undefined) return { kind: "none" }
  const { log, records } = reopened
  try {
    const [start, ...rest] = records
    if (start === undefined || start.type !== types.start) {
      await log.close()
      return { kind: "none" }
    }
    const known: Uint8Array[] = []
    const drawn: Uint8Array[] = []
    let next = 0
    for (; rest[next]?.type === types.entries; next++) {
      parseEntries(rest[next]?.payload ?? new Uint8Array(0), known, drawn)
    }
    const { secrets, entryCount } = parseStart(start.payload)
    if (known.length !== entryCount) {
      // Cut off before anything was sent: those that are missing would pass for added later.
      await log.close()
      return { kind: "none" }
    }
    const journal = new UploadJournal(log, secrets, concatBytes(...drawn))
    const first = new Set(known.map(pathOf))
    const addedLater = entries.filter((entry) => !first.has(entry.path))
    const kept = addedLater.length === 0 ? entries : entries.filter(({ path }) => first.has(path))
    const chunkCount = kept.reduce((sum, { mark }) => sum + gridCount(mark.size), 0)
    journal.replay(rest.slice(next), chunkCount)
    const path = firstDifference(known, kept)
    return path === undefined
      ? { kind: "resumed", journal, entries: kept, addedLater }
      : { kind: "changed", journal, path }
  } catch (error) {
    await log.close()
    if (error instanceof FormatError) return { kind: "none" }
    throw error
  }
}

/** The upload that a journal is about, whoever is writing to it; undefined before the relay named one. */
export async function uploadOf(file: string): Promise<string | undefined> {
  const records = await readLog(file, magic)
  const started = records?.find(({ type }) => type === types.upload)
  return started && parseStarted(started.payload).id
}

function firstDifference(
  known: readonly Uint8Array[],
  entries: readonly ScannedEntry[],
): string | undefined {
  for (const [index, entry] of entries.entries()) {
    const record = known[index]
    if (record === undefined || !equalBytes(record, encodeScanned(entry))) return entry.from
  }
  const gone = known[entries.length]
  return gone && pathOf(gone)
}

const entriesInRecord = 1000
const scannedFixedBytes = 26

function pathOf(scanned: Uint8Array): string {
  return parseUtf8(scanned.subarray(scannedFixedBytes), "path")
}

/** Everything about an entry that the manifest or a mark holds, in one byte string. */
function encodeScanned(entry: ScannedEntry): Uint8Array {
  const name = utf8(entry.path)
  const bytes = new Uint8Array(scannedFixedBytes + name.length)
  putScanned(new DataView(bytes.buffer), 0, entry)
  bytes.set(name, scannedFixedBytes)
  return bytes
}

/** All but the path. */
function putScanned(view: DataView, at: number, { type, executable, mark }: ScannedEntry): void {
  view.setUint8(at, type === "file" ? 1 : 2)
  view.setUint8(at + 1, executable ? 1 : 0)
  putU64(view, at + 2, mark.size)
  // A folder's time and number say nothing about what is sent of it, and change with its neighbours.
  if (type !== "file") return
  view.setBigInt64(at + 10, mark.mtimeNs)
  view.setBigUint64(at + 18, mark.ino)
}

/** Each entry with its length before it and its secrets behind it. */
function encodeEntries(entries: readonly ScannedEntry[], secrets: Uint8Array): Uint8Array {
  const names = entries.map(({ path }) => utf8(path))
  const fixed = 2 + scannedFixedBytes + secretBytes
  const bytes = new Uint8Array(names.reduce((sum, { length }) => sum + length + fixed, 0))
  const view = new DataView(bytes.buffer)
  let at = 0
  for (const [index, entry] of entries.entries()) {
    const name = names[index] ?? new Uint8Array(0)
    view.setUint16(at, scannedFixedBytes + name.length)
    putScanned(view, at + 2, entry)
    at += 2 + scannedFixedBytes
    bytes.set(name, at)
    at += name.length
    bytes.set(secrets.subarray(secretBytes * index, secretBytes * (index + 1)), at)
    at += secretBytes
  }
  return bytes
}

/** Takes the entries and their secrets apart. */
function parseEntries(payload: Uint8Array, scanned: Uint8Array[], secrets: Uint8Array[]): void {
  const reader = new ByteReader(payload, "upload journal")
  while (reader.remaining > 0) {
    scanned.push(reader.take(reader.u16("length"), "entry"))
    secrets.push(reader.take(secretBytes, "secrets"))
  }
}

function encodeStart(secrets: UploadSecrets, entryCount: number): Uint8Array {
  return concatBytes(
    secrets.ds,
    secrets.deliveryId,
    secrets.idempotencyKey,
    secrets.deleteCapability,
    u32(entryCount),
  )
}

function parseStart(payload: Uint8Array): { secrets: UploadSecrets; entryCount: number } {
  const reader = new ByteReader(payload, "upload journal")
  const secrets = {
    ds: reader.take(32, "ds"),
    deliveryId: reader.take(16, "delivery id"),
    idempotencyKey: reader.take(16, "idempotency key"),
    deleteCapability: reader.take(32, "delete capability"),
  }
  const entryCount = reader.u32("entries")
  reader.end()
  return { secrets, entryCount }
}

function parseStarted(payload: Uint8Array): StartedUpload {
  const reader = new ByteReader(payload, "upload journal")
  const upload = { id: toHex(reader.take(16, "id")), token: reader.take(32, "token") }
  reader.end()
  return upload
}

function grown(bytes: Uint8Array, length: number): Uint8Array {
  const larger = new Uint8Array(length)
  larger.set(bytes)
  return larger
}
