// A recipient shows the operator what was delivered: all of it, one entry, or the note, and nothing
// else (docs/protocol.md §9). The relay's own stamp proves that it accepted exactly this header, and
// the header commits to the rest, so a report can neither be made up nor disowned.
import { ByteReader, concatBytes, equalBytes, parseUtf8, u16, u32, u64, utf8 } from "./bytes.js"
import { FormatError, OpenError } from "./errors.js"
import { deriveDeliveryKeys, type Header, headerBytes, headerHash, parseHeader } from "./header.js"
import { maxEntries, maxManifestPlainBytes, maxNoteBytes } from "./limits.js"
import {
  encodeEntry,
  entryBlinding,
  entryLeaf,
  entryLeaves,
  type Manifest,
  noteBlinding,
  noteLeaf,
  type OpenedEntry,
  openManifest,
  openRootOf,
  parseEntry,
} from "./manifest.js"
import { parseStamp, type Stamp, stampBytes, verifyStamp } from "./records.js"
import { inclusionPath, rootFromPath, treeRoot } from "./tree.js"

export type ReportReason = "spam" | "malware" | "unlawful" | "harassment" | "other"

/** In the order of their numbers on the wire, which begin at 1. */
const reasons: readonly ReportReason[] = ["spam", "malware", "unlawful", "harassment", "other"]

interface ReportBase {
  readonly reason: ReportReason
  /** As the relay handed it out, 244 bytes. */
  readonly stamp: Uint8Array
  /** 184 bytes. */
  readonly header: Uint8Array
}

export interface DeliveryReport extends ReportBase {
  readonly kind: "delivery"
  readonly ds: Uint8Array
}

export interface EntryReport extends ReportBase {
  readonly kind: "entry"
  readonly index: number
  readonly entryCount: number
  readonly noteLeaf: Uint8Array
  /** The entry's blinding. */
  readonly r: Uint8Array
  /** Encoded. */
  readonly entry: Uint8Array
  /** The siblings from the entry's leaf up. */
  readonly path: readonly Uint8Array[]
}

export interface NoteReport extends ReportBase {
  readonly kind: "note"
  readonly entryCount: number
  readonly r: Uint8Array
  /** UTF-8. */
  readonly note: Uint8Array
  /** The root of the tree over the entries. */
  readonly entriesRoot: Uint8Array
}

export type Report = DeliveryReport | EntryReport | NoteReport

export interface MakeReportInput extends ReportBase {
  readonly ds: Uint8Array
  readonly manifest: Manifest
  readonly about:
    | { readonly kind: "delivery" }
    | { readonly kind: "entry"; readonly index: number }
    | { readonly kind: "note" }
}

/** From what a recipient has in hand. */
export function makeReport(input: MakeReportInput): Report {
  const { reason, stamp, header, ds, manifest, about } = input
  const base = { reason, stamp, header }
  if (about.kind === "delivery") return { ...base, kind: "delivery", ds }
  const { deliveryId } = parseHeader(header)
  const { blinding } = deriveDeliveryKeys({ ds, deliveryId })
  const note = utf8(manifest.note)
  const entryCount = manifest.entries.length
  const leaves = entryLeaves(blinding, manifest.entries)
  const noteR = noteBlinding(blinding)
  if (about.kind === "note") {
    return { ...base, kind: "note", entryCount, r: noteR, note, entriesRoot: treeRoot(leaves) }
  }
  const { index } = about
  const entry = manifest.entries[index]
  if (entry === undefined) throw new RangeError("there is no such entry")
  return {
    ...base,
    kind: "entry",
    index,
    entryCount,
    noteLeaf: noteLeaf({ r: noteR, note }),
    r: entryBlinding(blinding, index),
    entry: encodeEntry(entry, entry.bodyOffset),
    path: inclusionPath(leaves, index),
  }
}

export function encodeReport(report: Report): Uint8Array {
  const { stamp, header } = report
  if (stamp.length !== stampBytes || header.length !== headerBytes) {
    throw new RangeError("a stamp is 244 bytes and a header 184")
  }
  return concatBytes(
    utf8("KNHP"),
    Uint8Array.of(1, kindNumbers[report.kind]),
    u16(reasons.indexOf(report.reason) + 1),
    stamp,
    header,
    ...encodeShown(report),
  )
}

const kindNumbers: Readonly<Record<Report["kind"], number>> = { delivery: 1, entry: 2, note: 3 }

function encodeShown(report: Report): readonly Uint8Array[] {
  if (report.kind === "delivery") return [report.ds]
  if (report.kind === "note") {
    const { entryCount, r, note, entriesRoot } = report
    return [u64(entryCount), r, u32(note.length), note, entriesRoot]
  }
  const { index, entryCount, entry, path } = report
  return [
    u64(index),
    u64(entryCount),
    report.noteLeaf,
    report.r,
    u32(entry.length),
    entry,
    Uint8Array.of(path.length),
    ...path,
  ]
}

/** Strict, but proves nothing: `verifyReport`. */
export function parseReport(bytes: Uint8Array): Report {
  const reader = new ByteReader(bytes, "report")
  reader.expectAscii("KNHP", "magic")
  reader.expectU8(1, "version")
  const kind = reader.u8("kind")
  const reason = reasons[reader.u16("reason") - 1] ?? reader.refuse("reason", "unknown")
  const stamp = reader.take(stampBytes, "stamp")
  const header = reader.take(headerBytes, "header")
  const report = readShown(reader, kind, { reason, stamp, header })
  reader.end()
  return report
}

function readShown(reader: ByteReader, kind: number, base: ReportBase): Report {
  switch (kind) {
    case 1:
      return { ...base, kind: "delivery", ds: reader.take(32, "ds") }
    case 2: {
      const index = reader.u64("index")
      const entryCount = readEntryCount(reader)
      if (index >= entryCount) reader.refuse("index", "not below the entry count")
      const shownNoteLeaf = reader.take(32, "note leaf")
      const r = reader.take(32, "blinding")
      const length = reader.u32("entry length")
      if (length > maxManifestPlainBytes) reader.refuse("entry length", "above 64 MiB")
      const entry = reader.take(length, "entry")
      const depth = reader.u8("depth")
      const path = Array.from({ length: depth }, () => reader.take(32, "path"))
      return { ...base, kind: "entry", index, entryCount, noteLeaf: shownNoteLeaf, r, entry, path }
    }
    case 3: {
      const entryCount = readEntryCount(reader)
      const r = reader.take(32, "blinding")
      const length = reader.u32("note length")
      if (length > maxNoteBytes) reader.refuse("note length", "over 16 KiB")
      const note = reader.take(length, "note")
      return { ...base, kind: "note", entryCount, r, note, entriesRoot: reader.take(32, "tree") }
    }
    default:
      return reader.refuse("kind", "unknown")
  }
}

function readEntryCount(reader: ByteReader): number {
  const entryCount = reader.u64("entry count")
  if (entryCount > maxEntries) reader.refuse("entry count", `above ${maxEntries}`)
  return entryCount
}

export interface VerifyReportInput {
  readonly report: Uint8Array
  /** The key that a stamp's kid names, if the relay still has it. */
  readonly frankKey: (kid: number) => Uint8Array | undefined
  /** The manifest's ciphertext, for a report of a whole delivery. */
  readonly manifest?: Uint8Array | undefined
}

/** What a report proves about the delivery that this relay accepted. */
export type VerifiedReport = {
  readonly reason: ReportReason
  readonly stamp: Stamp
  readonly header: Header
} & (
  | { readonly kind: "delivery"; readonly ds: Uint8Array; readonly manifest: Manifest }
  | { readonly kind: "entry"; readonly index: number; readonly entry: OpenedEntry }
  | { readonly kind: "note"; readonly note: string }
)

/**
 * Throws FormatError, whose field names what does not hold. What it leaves to the caller: whether the
 * stamp is recent enough to act on, and the body, whose parts are checked against `bodyRoot` and
 * whose chunks one by one, as a client does; a chunk that fails does not discredit the others.
 */
export function verifyReport(input: VerifyReportInput): VerifiedReport {
  const report = parseReport(input.report)
  const stamp = parseStamp(report.stamp)
  const frankKey = input.frankKey(stamp.kid)
  if (frankKey === undefined || !verifyStamp(report.stamp, frankKey)) {
    throw new FormatError("report.stamp", "not made by this relay")
  }
  if (!equalBytes(headerHash(report.header), stamp.headerHash)) {
    throw new FormatError("report.header", "not the one that was stamped")
  }
  const header = parseHeader(report.header)
  const base = { reason: report.reason, stamp, header }
  if (report.kind === "delivery") {
    const manifest = openReported(report.ds, header, input.manifest)
    return { ...base, kind: "delivery", ds: report.ds, manifest }
  }
  if (report.kind === "note") {
    const note = parseUtf8(report.note, "report.note")
    checkOpenRoot(header, { ...report, noteLeaf: noteLeaf(report) })
    return { ...base, kind: "note", note }
  }
  const { index, r, entryCount: count, path } = report
  const entry = parseEntry(report.entry)
  const end = entry.bodyOffset + (entry.type === "file" ? entry.size : 0)
  if (end > header.bodyLength) throw new FormatError("entry.size", "beyond the body")
  const leaf = entryLeaf({ index, r, entry: report.entry })
  checkOpenRoot(header, { ...report, entriesRoot: rootFromPath({ leaf, index, count, path }) })
  return { ...base, kind: "entry", index, entry }
}

function openReported(
  ds: Uint8Array,
  header: Header,
  ciphertext: Uint8Array | undefined,
): Manifest {
  if (ciphertext === undefined) throw new RangeError("this report needs the delivery's manifest")
  try {
    return openManifest({ ds, header, ciphertext })
  } catch (error) {
    if (error instanceof OpenError) {
      throw new FormatError("report.ds", "does not open this delivery", { cause: error })
    }
    throw error
  }
}

function checkOpenRoot(header: Header, shown: Parameters<typeof openRootOf>[0]): void {
  if (!equalBytes(openRootOf(shown), header.openRoot)) {
    throw new FormatError("report.path", "does not lead to the header's open root")
  }
}
