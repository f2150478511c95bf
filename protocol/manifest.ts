// The sealed list of what a delivery holds, and the commitment to each entry of it
// (docs/protocol.md §4.2, §4.3). Everything here may come from a hostile sender: counts and lengths
// are held against what is there before anything is allocated for them.
import { ByteReader, concatBytes, equalBytes, parseUtf8, putU64, u64, utf8 } from "./bytes.js"
import { FormatError, OpenError } from "./errors.js"
import { checkKeyCommit, type DeliverySecret, deriveDeliveryKeys, type Header } from "./header.js"
import { label } from "./labels.js"
import { maxBodyBytes, maxEntries, maxManifestPlainBytes, maxNoteBytes } from "./limits.js"
import { gridCount, metaMac } from "./mega.js"
import { paddedBodyLength, paddedManifestLength } from "./padding.js"
import { checkPath, checkPaths, checkTree, pathKey } from "./paths.js"
import { treeRoot } from "./tree.js"
import { gcmOpen, gcmSeal, hmacSha256, sha256 } from "#crypto-provider"

export interface FileEntry {
  readonly type: "file"
  /** UTF-8 as the sender had it, components separated by "/". */
  readonly path: Uint8Array
  readonly size: number
  readonly executable: boolean
  /** 0 = not told, which is the default: times identify. */
  readonly mtimeMs: number
  /** 16 random bytes, for this file alone. */
  readonly key: Uint8Array
  /** 8 random bytes. */
  readonly nonce: Uint8Array
  /** 16 bytes for each chunk of the grid, in one buffer. */
  readonly chunkMacs: Uint8Array
}

export interface DirectoryEntry {
  readonly type: "directory"
  readonly path: Uint8Array
  readonly mtimeMs: number
}

export type Entry = FileEntry | DirectoryEntry

/** Where in the body the file starts; for a directory, the file behind it. */
interface Placed {
  readonly bodyOffset: number
}

export interface OpenedFileEntry extends FileEntry, Placed {
  readonly metaMac: Uint8Array
}

export interface OpenedDirectoryEntry extends DirectoryEntry, Placed {}

export type OpenedEntry = OpenedFileEntry | OpenedDirectoryEntry

export interface Manifest {
  readonly note: string
  readonly entries: readonly OpenedEntry[]
  readonly contentLength: number
}

// One entry

const fileType = 1
const directoryType = 2
const executableFlag = 1
/** All of an entry but its path and chunk MACs. */
const entryFixedBytes = 1 + 1 + 2 + 8 + 8 + 8 + 16 + 8 + 8 + 4 + 2
/** Its length in the manifest, and a path of one byte. */
const smallestEntryBytes = 4 + entryFixedBytes + 1

function entryLength(entry: Entry): number {
  const macs = entry.type === "file" ? entry.chunkMacs.length : 0
  return entryFixedBytes + entry.path.length + macs
}

function sizeOf(entry: Entry): number {
  return entry.type === "file" ? entry.size : 0
}

/**
 * An entry as it stands in the manifest, without its length. `bodyOffset` is the sum of the sizes
 * before it; the meta-MAC follows from the rest.
 */
export function encodeEntry(entry: Entry, bodyOffset: number): Uint8Array {
  const bytes = new Uint8Array(entryLength(entry))
  writeEntry(bytes, entry, bodyOffset)
  return bytes
}

/** The same, into `bytes`, which is as long as the entry and holds zeros. */
function writeEntry(bytes: Uint8Array, entry: Entry, bodyOffset: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const isFile = entry.type === "file"
  bytes[0] = isFile ? fileType : directoryType
  bytes[1] = isFile && entry.executable ? executableFlag : 0
  view.setUint16(2, entry.path.length)
  bytes.set(entry.path, 4)
  let at = 4 + entry.path.length
  putU64(view, at, sizeOf(entry))
  putU64(view, at + 8, entry.mtimeMs)
  putU64(view, at + 16, bodyOffset)
  at += 24
  if (isFile) {
    checkFile(entry)
    bytes.set(entry.key, at)
    bytes.set(entry.nonce, at + 16)
    bytes.set(metaMac(entry), at + 24)
    view.setUint32(at + 32, entry.chunkMacs.length / 16)
    bytes.set(entry.chunkMacs, at + 36)
  }
}

function checkFile({ size, key, nonce, chunkMacs }: FileEntry): void {
  if (size > maxBodyBytes) throw new FormatError("entry.size", "above 64 GiB")
  if (key.length !== 16 || nonce.length !== 8) {
    throw new RangeError("a file's key is 16 bytes and its nonce 8")
  }
  if (chunkMacs.length !== 16 * gridCount(size)) {
    throw new RangeError("chunk MACs are 16 bytes for each chunk of the grid")
  }
}

/**
 * A file as it stands in the manifest, `bytes`. What is asked for is cut out when it is asked for: five
 * views of each of 262,144 entries would take ten times the memory of what they show.
 */
class OpenedFile implements OpenedFileEntry {
  readonly type = "file"
  readonly bytes: Uint8Array
  readonly size: number
  readonly mtimeMs: number
  readonly bodyOffset: number
  readonly executable: boolean

  constructor(bytes: Uint8Array, told: Pick<OpenedFileEntry, "size" | "mtimeMs" | "bodyOffset">) {
    this.bytes = bytes
    this.size = told.size
    this.mtimeMs = told.mtimeMs
    this.bodyOffset = told.bodyOffset
    this.executable = bytes[1] === executableFlag
  }

  get #afterPath(): number {
    return 4 + pathLengthOf(this.bytes)
  }

  get path(): Uint8Array {
    return this.bytes.subarray(4, this.#afterPath)
  }

  get key(): Uint8Array {
    return this.#behindPath(24, 16)
  }

  get nonce(): Uint8Array {
    return this.#behindPath(40, 8)
  }

  get metaMac(): Uint8Array {
    return this.#behindPath(48, 8)
  }

  get chunkMacs(): Uint8Array {
    return this.#behindPath(60, 16 * gridCount(this.size))
  }

  #behindPath(offset: number, length: number): Uint8Array {
    const from = this.#afterPath + offset
    return this.bytes.subarray(from, from + length)
  }
}

function pathLengthOf(bytes: Uint8Array): number {
  return ((bytes[2] ?? 0) << 8) | (bytes[3] ?? 0)
}

/** Strict: accepts what `encodeEntry` makes and nothing else. `what` names the entry in errors. */
export function parseEntry(bytes: Uint8Array, what: string = "entry"): OpenedEntry {
  return readEntry(bytes, what).entry
}

function readEntry(bytes: Uint8Array, what: string): { entry: OpenedEntry; text: string } {
  const reader = new ByteReader(bytes, what)
  const type = reader.u8("type")
  if (type !== fileType && type !== directoryType) reader.refuse("type", "unknown")
  const flags = reader.u8("flags")
  if (flags > (type === fileType ? executableFlag : 0)) {
    reader.refuse("flags", "unknown bits are set")
  }
  const path = reader.take(reader.u16("path length"), "path")
  const text = checkPath(path, `${what}.path`)
  const size = reader.u64("size")
  const mtimeMs = reader.u64("time")
  const bodyOffset = reader.u64("body offset")
  if (type === directoryType) {
    if (size !== 0) reader.refuse("size", "a directory has none")
    reader.zeros(16 + 8 + 8 + 4, "keys")
    reader.zeros(2, "extension")
    reader.end()
    return { entry: { type: "directory", path, mtimeMs, bodyOffset }, text }
  }
  if (size > maxBodyBytes) reader.refuse("size", "above 64 GiB")
  const key = reader.take(16, "key")
  reader.take(8, "nonce")
  const mac = reader.take(8, "meta-MAC")
  const chunkCount = reader.u32("chunk count")
  if (chunkCount !== gridCount(size)) reader.refuse("chunk count", "not the grid's for this size")
  const chunkMacs = reader.take(16 * chunkCount, "chunk MACs")
  reader.zeros(2, "extension")
  reader.end()
  if (!equalBytes(mac, metaMac({ key, chunkMacs }))) {
    reader.refuse("meta-MAC", "does not follow from the chunk MACs")
  }
  return { entry: new OpenedFile(bytes, { size, mtimeMs, bodyOffset }), text }
}

// The commitment to the note and to each entry

/** The index that stands for the note: no entry has it. */
const noteIndex = new Uint8Array(8).fill(255)

/** r_i: what hides entry `index` as long as it is not shown. */
export function entryBlinding(blinding: Uint8Array, index: number): Uint8Array {
  return hmacSha256(blinding, u64(index))
}

export function noteBlinding(blinding: Uint8Array): Uint8Array {
  return hmacSha256(blinding, noteIndex)
}

/** `entry` is encoded; `r` is its blinding. */
export function entryLeaf(input: {
  readonly index: number
  readonly r: Uint8Array
  readonly entry: Uint8Array
}): Uint8Array {
  return sha256(label("oleaf"), u64(input.index), input.r, sha256(input.entry))
}

/** `note` is UTF-8. An empty note has a leaf too. */
export function noteLeaf(input: { readonly r: Uint8Array; readonly note: Uint8Array }): Uint8Array {
  return sha256(label("oleaf"), noteIndex, input.r, sha256(input.note))
}

export function openRootOf(input: {
  readonly entryCount: number
  readonly noteLeaf: Uint8Array
  /** The root of the tree over the entries' leaves. */
  readonly entriesRoot: Uint8Array
}): Uint8Array {
  return sha256(label("oroot"), u64(input.entryCount), input.noteLeaf, input.entriesRoot)
}

/** Collects the leaves of all entries in one buffer. */
class Commitment {
  readonly #blinding: Uint8Array
  readonly #noteLeaf: Uint8Array
  readonly #leaves: Uint8Array
  #count = 0

  constructor(blinding: Uint8Array, note: Uint8Array, entryCount: number) {
    this.#blinding = blinding
    this.#noteLeaf = noteLeaf({ r: noteBlinding(blinding), note })
    this.#leaves = new Uint8Array(32 * entryCount)
  }

  add(entry: Uint8Array): void {
    const index = this.#count++
    const r = entryBlinding(this.#blinding, index)
    this.#leaves.set(entryLeaf({ index, r, entry }), 32 * index)
  }

  root(): Uint8Array {
    return openRootOf({
      entryCount: this.#count,
      noteLeaf: this.#noteLeaf,
      entriesRoot: treeRoot(this.#leaves),
    })
  }
}

/** The leaves of all entries, for whoever shows one of them: 32 bytes each. */
export function entryLeaves(blinding: Uint8Array, entries: readonly OpenedEntry[]): Uint8Array {
  const leaves = new Uint8Array(32 * entries.length)
  entries.forEach((entry, index) => {
    const r = entryBlinding(blinding, index)
    leaves.set(entryLeaf({ index, r, entry: encodeEntry(entry, entry.bodyOffset) }), 32 * index)
  })
  return leaves
}

// The manifest

const prefixBytes = 8 + 8 + 4 + 4

export interface SealManifestInput extends DeliverySecret {
  readonly bodyRoot: Uint8Array
  readonly note: string
  /** Walked through several times, so that a long list need not be in memory: the same each time. */
  readonly entries: Iterable<Entry>
}

export interface SealedManifest {
  readonly ciphertext: Uint8Array
  readonly manifestHash: Uint8Array
  readonly openRoot: Uint8Array
  readonly contentLength: number
}

/**
 * Seals once: under one `ds` and `deliveryId` the key and nonce are always the same, so a second,
 * different manifest under them would give both away. Throws FormatError for paths that may not be
 * and for more than the format holds.
 */
export function sealManifest(input: SealManifestInput): SealedManifest {
  const { ds, deliveryId, bodyRoot, entries } = input
  const keys = deriveDeliveryKeys({ ds, deliveryId })
  const note = utf8(input.note)
  if (note.length > maxNoteBytes) throw new FormatError("note", "over 16 KiB")
  let entryCount = 0
  let used = prefixBytes + note.length
  let contentLength = 0
  for (const entry of entries) {
    entryCount++
    used += 4 + entryLength(entry)
    contentLength += sizeOf(entry)
  }
  if (entryCount > maxEntries) {
    throw new FormatError("entries", `${entryCount} where a delivery holds ${maxEntries}`)
  }
  if (used > maxManifestPlainBytes) {
    throw new FormatError("entries", "their names and keys fill more than 64 MiB")
  }
  if (contentLength > maxBodyBytes) throw new FormatError("entries", "more than 64 GiB in all")
  checkPaths(entries)

  const plaintext = new Uint8Array(paddedManifestLength(used))
  const view = new DataView(plaintext.buffer)
  plaintext.set(utf8("KNHM"))
  plaintext[4] = 1
  putU64(view, 8, contentLength)
  view.setUint32(16, entryCount)
  view.setUint32(20, note.length)
  plaintext.set(note, prefixBytes)
  const commitment = new Commitment(keys.blinding, note, entryCount)
  let at = prefixBytes + note.length
  let bodyOffset = 0
  for (const entry of entries) {
    const length = entryLength(entry)
    const encoded = plaintext.subarray(at + 4, at + 4 + length)
    view.setUint32(at, length)
    writeEntry(encoded, entry, bodyOffset)
    commitment.add(encoded)
    at += 4 + length
    bodyOffset += sizeOf(entry)
  }
  const openRoot = commitment.root()
  const aad = manifestAad({ deliveryId, bodyRoot, openRoot })
  const ciphertext = gcmSeal({ key: keys.manifest, aad, plaintext })
  return { ciphertext, manifestHash: sha256(ciphertext), openRoot, contentLength }
}

function manifestAad(bound: Pick<Header, "deliveryId" | "bodyRoot" | "openRoot">): Uint8Array {
  return concatBytes(label("manif"), bound.deliveryId, bound.bodyRoot, bound.openRoot)
}

export interface OpenManifestInput {
  readonly ds: Uint8Array
  /** From a header whose hash is the one in an opened envelope. */
  readonly header: Header
  readonly ciphertext: Uint8Array
}

/**
 * Throws OpenError when this is not the manifest that the header names, and FormatError when its
 * sender made it wrong. The entries hold views into one buffer.
 */
export function openManifest({ ds, header, ciphertext }: OpenManifestInput): Manifest {
  const keys = checkKeyCommit({ ds, header })
  if (ciphertext.length !== header.manifestLength) throw new OpenError()
  if (!equalBytes(sha256(ciphertext), header.manifestHash)) throw new OpenError()
  const plaintext = gcmOpen({ key: keys.manifest, aad: manifestAad(header), ciphertext })

  const reader = new ByteReader(plaintext, "manifest")
  reader.expectAscii("KNHM", "magic")
  reader.expectU8(1, "version")
  reader.zeros(3, "reserved")
  const contentLength = reader.u64("content length")
  const entryCount = reader.u32("entry count")
  const noteLength = reader.u32("note length")
  if (noteLength > maxNoteBytes) reader.refuse("note length", "over 16 KiB")
  const noteText = reader.take(noteLength, "note")
  const note = parseUtf8(noteText, "manifest.note")
  if (entryCount > maxEntries) reader.refuse("entry count", `above ${maxEntries}`)
  if (entryCount * smallestEntryBytes > reader.remaining) {
    reader.refuse("entry count", "more than there is room for")
  }
  if (header.bodyLength !== paddedBodyLength(contentLength)) {
    reader.refuse("content length", "does not pad to the body's length")
  }

  const commitment = new Commitment(keys.blinding, noteText, entryCount)
  const entries: OpenedEntry[] = []
  const pathKeys: string[] = []
  let bodyOffset = 0
  for (let index = 0; index < entryCount; index++) {
    const bytes = reader.take(reader.u32("entry length"), "entry")
    const { entry, text } = readEntry(bytes, `entry ${index}`)
    if (entry.bodyOffset !== bodyOffset) {
      reader.refuse(`entry ${index}.body offset`, "not where the entry before it ends")
    }
    bodyOffset += sizeOf(entry)
    if (bodyOffset > contentLength) reader.refuse(`entry ${index}.size`, "beyond the content")
    commitment.add(bytes)
    entries.push(entry)
    pathKeys.push(pathKey(text, entry.type))
  }
  if (bodyOffset !== contentLength) reader.refuse("content length", "more than the entries fill")
  if (plaintext.length !== paddedManifestLength(reader.offset)) {
    reader.refuse("length", "not the padded one")
  }
  reader.zeros(reader.remaining, "padding")
  checkTree(pathKeys)
  if (!equalBytes(commitment.root(), header.openRoot)) {
    reader.refuse("open root", "the header's is not that of these entries")
  }
  return { note, entries, contentLength }
}
