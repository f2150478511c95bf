// §2 to §4 of docs/protocol.md (files, body, header, manifest), written from that page alone; it
// shares no code with the project.

import { createCipheriv } from "node:crypto"
import { blake3 } from "@noble/hashes/blake3.js"
import {
  equal,
  FormatError,
  H,
  hkdf,
  hmac,
  insist,
  join,
  L,
  openGcm,
  Reader,
  sealGcm,
  u16,
  u32,
  u64,
  u8,
  utf8,
  zeros,
} from "./second-client-bytes.js"

// ---- §2 The MEGA grid and one file

/** The lengths of the cells of `sizeBytes`: a file's chunks, a body's parts. */
export function cells(sizeBytes: number): number[] {
  const lengths: number[] = []
  for (let at = 0, i = 0; at < sizeBytes; i += 1) {
    const length = Math.min((Math.min(i, 7) + 1) * 128 * 1024, sizeBytes - at)
    lengths.push(length)
    at += length
  }
  return lengths
}

export type FileKey = { key: Uint8Array; nonce: Uint8Array }

/** Seals and opens alike. `atByte` is a multiple of 16, which the start of every cell is. */
export function counterMode(
  { key, nonce }: FileKey,
  atByte: number,
  bytes: Uint8Array,
): Uint8Array {
  const cipher = createCipheriv("aes-128-ctr", key, join(nonce, u64(atByte / 16)))
  return new Uint8Array(cipher.update(bytes))
}

function lastBlockOfCbc(key: Uint8Array, start: Uint8Array, bytes: Uint8Array): Uint8Array {
  const cipher = createCipheriv("aes-128-cbc", key, start).setAutoPadding(false)
  return new Uint8Array(cipher.update(bytes).subarray(-16))
}

export const chunkMac = ({ key, nonce }: FileKey, plaintext: Uint8Array): Uint8Array =>
  lastBlockOfCbc(key, join(nonce, nonce), join(plaintext, zeros(-plaintext.length & 15)))

function metaMac(key: Uint8Array, macs: Uint8Array[]): Uint8Array {
  if (macs.length === 0) return zeros(8)
  const state = Buffer.from(lastBlockOfCbc(key, zeros(16), join(...macs)))
  const word = (i: number) => state.readUInt32BE(4 * i)
  return join(u32((word(0) ^ word(1)) >>> 0), u32((word(2) ^ word(3)) >>> 0))
}

// ---- §3 The body

function padme(size: number): number {
  if (size < 2) return size
  // Lengths of the binary text, because 32-bit operators would lose the upper bits of a large size.
  const exponent = size.toString(2).length - 1
  const unit = 2 ** (exponent - exponent.toString(2).length)
  return Math.ceil(size / unit) * unit
}

export const bodyLength = (contentBytes: number): number => Math.max(16384, padme(contentBytes))

export const leafOf = (index: number, part: Uint8Array): Uint8Array =>
  blake3(join(L("leaf"), u64(index), u64(part.length), part))

function tree(leaves: Uint8Array[]): Uint8Array {
  const [first] = leaves
  if (first === undefined) return H(L("empty"))
  if (leaves.length === 1) return first
  let split = 1
  while (split * 2 < leaves.length) split *= 2
  return H(L("node"), tree(leaves.slice(0, split)), tree(leaves.slice(split)))
}

export const bodyRoot = (bodyBytes: number, leaves: Uint8Array[]): Uint8Array =>
  H(L("root"), u64(bodyBytes), u64(leaves.length), tree(leaves))

// ---- §4 The delivery secret, the header, the manifest

export type DeliveryKeys = {
  commit: Uint8Array
  manifest: Uint8Array
  blinding: Uint8Array
  padding: FileKey
}

export function deliveryKeys(secret: Uint8Array, deliveryId: Uint8Array): DeliveryKeys {
  const K = (word: string, length: number) =>
    hkdf({ ikm: secret, salt: deliveryId, info: join(L("ds"), utf8(word)), length })
  const pad = K("pad", 24)
  return {
    commit: K("commit", 32),
    manifest: K("manifest", 32),
    blinding: K("open", 32),
    padding: { key: pad.slice(0, 16), nonce: pad.slice(16) },
  }
}

export type Header = {
  deliveryId: Uint8Array
  bodyBytes: number
  manifestBytes: number
  bodyRoot: Uint8Array
  manifestHash: Uint8Array
  openRoot: Uint8Array
  commit: Uint8Array
}

const HEADER_START = join(utf8("KNHH"), u8(1), u8(1), u16(0))
const MANIFEST_MAX_BYTES = 64 * 2 ** 20
const BODY_MAX_BYTES = 64 * 2 ** 30

export const encodeHeader = (header: Header): Uint8Array =>
  join(
    HEADER_START,
    header.deliveryId,
    u64(header.bodyBytes),
    u32(cells(header.bodyBytes).length),
    u32(header.manifestBytes),
    header.bodyRoot,
    header.manifestHash,
    header.openRoot,
    header.commit,
    u64(0),
    zeros(8),
  )

export function parseHeader(bytes: Uint8Array): Header {
  const from = new Reader(bytes)
  from.expect(HEADER_START)
  const deliveryId = from.take(16)
  const bodyBytes = from.number(8)
  insist(bodyBytes >= 16384 && bodyBytes <= BODY_MAX_BYTES, "a body of no allowed length")
  insist(from.number(4) === cells(bodyBytes).length, "part count is not the grid's")
  const manifestBytes = from.number(4)
  insist(manifestBytes <= MANIFEST_MAX_BYTES + 16, "the manifest is too large")
  const [bodyRoot, manifestHash, openRoot] = [from.take(32), from.take(32), from.take(32)]
  const commit = from.take(32)
  from.number(8) // not_after_ms asks something of the relay, nothing of a recipient
  from.expect(zeros(8))
  from.end()
  return { deliveryId, bodyBytes, manifestBytes, bodyRoot, manifestHash, openRoot, commit }
}

export const headerHash = (header: Uint8Array): Uint8Array => H(L("header"), header)

export type FileEntry = FileKey & {
  kind: "file"
  path: string
  executable: boolean
  sizeBytes: number
  modifiedMs: number
  macs: Uint8Array[]
}
export type Entry = FileEntry | { kind: "folder"; path: string; modifiedMs: number }
export type Manifest = { note: string; entries: Entry[] }

const sizeOf = (entry: Entry): number => (entry.kind === "file" ? entry.sizeBytes : 0)
export const contentLength = (entries: Entry[]): number =>
  entries.reduce((sum, entry) => sum + sizeOf(entry), 0)

function encodeEntry(entry: Entry, bodyOffset: number): Uint8Array {
  const path = utf8(entry.path)
  const file = entry.kind === "file" ? entry : undefined
  return join(
    u8(file ? 1 : 2),
    u8(file?.executable ? 1 : 0),
    u16(path.length),
    path,
    u64(sizeOf(entry)),
    u64(entry.modifiedMs),
    u64(bodyOffset),
    file ? join(file.key, file.nonce, metaMac(file.key, file.macs)) : zeros(32),
    u32(file?.macs.length ?? 0),
    ...(file?.macs ?? []),
    u16(0),
  )
}

// A byte order mark is part of the name it stands in; without `ignoreBOM` it would vanish.
const decodeUtf8 = (bytes: Uint8Array): string => {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw new FormatError("not UTF-8")
  }
}

function parseEntry(
  bytes: Uint8Array,
  { bodyOffset, roomBytes }: { bodyOffset: number; roomBytes: number },
): Entry {
  const from = new Reader(bytes)
  const type = from.number(1)
  insist(type === 1 || type === 2, "an entry of unknown type")
  const flags = from.number(1)
  insist(flags <= (type === 1 ? 1 : 0), "an unknown flag")
  const path = decodeUtf8(from.take(from.number(2)))
  const sizeBytes = from.number(8)
  insist(sizeBytes <= roomBytes, "entries do not tile the content")
  const modifiedMs = from.number(8)
  insist(from.number(8) === bodyOffset, "entries do not tile the content")
  if (type === 2) {
    insist(sizeBytes === 0, "a folder with a size")
    from.expect(zeros(32), u32(0), u16(0))
    from.end()
    return { kind: "folder", path, modifiedMs }
  }
  const [key, nonce, meta] = [from.take(16), from.take(8), from.take(8)]
  const chunkCount = from.number(4)
  insist(chunkCount === cells(sizeBytes).length, "chunk count is not the grid's")
  const macs = Array.from({ length: chunkCount }, () => from.take(16))
  insist(equal(meta, metaMac(key, macs)), "the meta-MAC is not that of the chunk MACs")
  from.expect(u16(0))
  from.end()
  return { kind: "file", path, executable: flags === 1, sizeBytes, modifiedMs, key, nonce, macs }
}

function checkPaths(entries: Entry[]): void {
  const paths = new Set(entries.map((entry) => entry.path))
  insist(paths.size === entries.length, "two entries of one path")
  const files = new Set(entries.filter((entry) => entry.kind === "file").map(({ path }) => path))
  for (const { path } of entries) {
    const components = path.split("/")
    insist(utf8(path).length <= 1024 && components.length <= 64, "a path too long")
    for (const component of components) {
      insist(!["", ".", ".."].includes(component), "a path component of no name")
      insist(!component.includes("\0"), "a NUL in a path")
      insist(utf8(component).length <= 255, "a path component too long")
    }
    for (let slash = path.indexOf("/"); slash >= 0; slash = path.indexOf("/", slash + 1))
      insist(!files.has(path.slice(0, slash)), "an entry lies in a file")
  }
}

const manifestLength = (bytesSoFar: number): number => Math.max(4096, padme(bytesSoFar))

function openRootOf(blinding: Uint8Array, note: Uint8Array, entries: Uint8Array[]): Uint8Array {
  const opening = (index: Uint8Array, content: Uint8Array) =>
    H(L("oleaf"), index, hmac(blinding, index), H(content))
  const noteLeaf = opening(new Uint8Array(8).fill(255), note)
  const leaves = entries.map((entry, i) => opening(u64(i), entry))
  return H(L("oroot"), u64(entries.length), noteLeaf, tree(leaves))
}

const manifestGcm = (
  keys: DeliveryKeys,
  header: Pick<Header, "deliveryId" | "bodyRoot" | "openRoot">,
) => ({
  key: keys.manifest,
  aad: join(L("manif"), header.deliveryId, header.bodyRoot, header.openRoot),
})

/** Seals the manifest and completes the header that binds it. */
export function sealManifest(
  manifest: Manifest,
  about: { keys: DeliveryKeys; deliveryId: Uint8Array; bodyRoot: Uint8Array },
): { header: Uint8Array; sealed: Uint8Array } {
  checkPaths(manifest.entries)
  const note = utf8(manifest.note)
  insist(note.length <= 16384 && manifest.entries.length <= 262_144, "too much for one delivery")
  let offset = 0
  const entries: Uint8Array[] = []
  for (const entry of manifest.entries) {
    entries.push(encodeEntry(entry, offset))
    offset += sizeOf(entry)
  }
  const content = join(
    utf8("KNHM"),
    u8(1),
    zeros(3),
    u64(offset),
    u32(entries.length),
    u32(note.length),
    note,
    ...entries.flatMap((entry) => [u32(entry.length), entry]),
  )
  const plaintext = join(content, zeros(manifestLength(content.length) - content.length))
  insist(plaintext.length <= MANIFEST_MAX_BYTES, "too much for one manifest")
  const openRoot = openRootOf(about.keys.blinding, note, entries)
  const bound = { deliveryId: about.deliveryId, bodyRoot: about.bodyRoot, openRoot }
  const sealed = sealGcm(manifestGcm(about.keys, bound), plaintext)
  const header = encodeHeader({
    ...bound,
    bodyBytes: bodyLength(offset),
    manifestBytes: sealed.length,
    manifestHash: H(sealed),
    commit: about.keys.commit,
  })
  return { header, sealed }
}

/** Step 2 of §7: everything a manifest must satisfy before a byte of the body is asked for. */
export function openManifest(sealed: Uint8Array, header: Header, keys: DeliveryKeys): Manifest {
  insist(sealed.length === header.manifestBytes, "not the manifest's length")
  insist(equal(H(sealed), header.manifestHash), "not the manifest of this header")
  const plaintext = openGcm(manifestGcm(keys, header), sealed)
  const from = new Reader(plaintext)
  from.expect(utf8("KNHM"), u8(1), zeros(3))
  const contentBytes = from.number(8)
  insist(header.bodyBytes === bodyLength(contentBytes), "the body is not padded as it must be")
  const entryCount = from.number(4)
  const noteBytes = from.number(4)
  insist(entryCount <= 262_144 && noteBytes <= 16384, "above a limit")
  const note = from.take(noteBytes)
  const entries: Entry[] = []
  const encoded: Uint8Array[] = []
  let offset = 0
  for (let i = 0; i < entryCount; i += 1) {
    const bytes = from.take(from.number(4))
    const entry = parseEntry(bytes, { bodyOffset: offset, roomBytes: contentBytes - offset })
    offset += sizeOf(entry)
    entries.push(entry)
    encoded.push(bytes)
  }
  insist(offset === contentBytes, "entries do not tile the content")
  insist(
    plaintext.length === manifestLength(from.position),
    "the manifest is not padded as it must be",
  )
  from.expect(zeros(plaintext.length - from.position))
  checkPaths(entries)
  const openRoot = openRootOf(keys.blinding, note, encoded)
  insist(equal(openRoot, header.openRoot), "entries and note are not those committed to")
  return { note: decodeUtf8(note), entries }
}
