// What is kept in Redis as bytes, and how its replies are read. Somebody else may have written what is
// there: all of it is parsed, and what does not parse is a DamagedRecord.
import {
  ByteReader,
  concatBytes,
  FormatError,
  fromHex,
  parseUtf8,
  type TombstoneReason,
  u16,
  u32,
  u64,
} from "../../protocol/index.js"
import { deliveryIdOf, type InboxId, inboxIdOf } from "../ids.js"
import { DamagedRecord } from "./maced-record.js"
import type {
  ChainEntry,
  ChainPlace,
  GoneEntry,
  OpenUpload,
  PartEntry,
  WaitingEntry,
} from "./relay-index.js"

const version = 1

// An entry of a chain. Scripts read its kind, id, head and size by their places (redis-inboxes.ts):
// version 1, kind 1, id 16, header hash 32, envelope hash 32, head 32, accepted 8, expires 8; then of
// one that waits size 8, stamp with its length before it, header with its length; of one that is gone
// its reason 1. Its seq is the name of the field.
const waitingKind = 1
const goneKind = 2

/** By their numbers, which begin at 1. */
const reasons: readonly TombstoneReason[] = ["taken", "revoked", "expired", "lost", "removed"]

export function reasonNumber(reason: TombstoneReason): number {
  return reasons.indexOf(reason) + 1
}

export function encodeEntry(entry: WaitingEntry | GoneEntry): Uint8Array {
  if (entry.kind === "gone") {
    return concatBytes(encodePlace(entry, goneKind), Uint8Array.of(reasonNumber(entry.reason)))
  }
  const { sizeBytes, stamp, header } = entry
  const place = encodePlace(entry, waitingKind)
  return concatBytes(place, u64(sizeBytes), u16(stamp.length), stamp, u32(header.length), header)
}

function encodePlace(place: ChainPlace, kind: number): Uint8Array {
  return concatBytes(
    Uint8Array.of(version, kind),
    fromHex(place.id),
    place.headerHash,
    place.envelopeHash,
    place.head,
    u64(place.acceptedMs),
    u64(place.expiresMs),
  )
}

/** Throws FormatError. */
export function parseEntry(bytes: Uint8Array, seq: number): ChainEntry {
  const reader = new ByteReader(bytes, "redis.entry")
  if (reader.u8("version") !== version) throw new FormatError("redis.entry", "another version")
  const kind = reader.u8("kind")
  const place = {
    seq,
    id: deliveryIdOf(reader.take(16, "id")),
    headerHash: reader.take(32, "header hash"),
    envelopeHash: reader.take(32, "envelope hash"),
    head: reader.take(32, "head"),
    acceptedMs: reader.u64("accepted"),
    expiresMs: reader.u64("expires"),
  }
  if (kind === waitingKind) {
    const sizeBytes = reader.u64("size")
    const stamp = reader.take(reader.u16("stamp length"), "stamp")
    const header = reader.take(reader.u32("header length"), "header")
    reader.end()
    return { kind: "waiting", ...place, sizeBytes, stamp, header }
  }
  const reason = reasons[reader.u8("reason") - 1]
  reader.end()
  if (kind !== goneKind || reason === undefined)
    throw new FormatError("redis.entry", "no such kind")
  return { kind: "gone", ...place, reason }
}

// What of an open upload never changes.

export type FixedUpload = Omit<OpenUpload, "id" | "reservedBytes" | "expiresMs">

export function encodeUpload(upload: FixedUpload): Uint8Array {
  return concatBytes(
    Uint8Array.of(version),
    upload.tokenHash,
    upload.startHash,
    upload.deleteHash,
    u64(upload.createdMs),
    u16(upload.recipients.length),
    ...upload.recipients.map((inbox) => fromHex(inbox)),
  )
}

/** Throws FormatError. */
export function parseUpload(bytes: Uint8Array): FixedUpload {
  const reader = new ByteReader(bytes, "redis.upload")
  if (reader.u8("version") !== version) throw new FormatError("redis.upload", "another version")
  const tokenHash = reader.take(32, "token hash")
  const startHash = reader.take(32, "start hash")
  const deleteHash = reader.take(32, "delete hash")
  const createdMs = reader.u64("created")
  const count = reader.u16("recipients")
  const recipients: InboxId[] = []
  for (let at = 0; at < count; at++) recipients.push(inboxIdOf(reader.take(20, "recipient")))
  reader.end()
  return { tokenHash, startHash, deleteHash, recipients, createdMs }
}

export function encodePart({ leaf, lengthBytes }: Omit<PartEntry, "index">): Uint8Array {
  return concatBytes(leaf, u32(lengthBytes))
}

/** Throws FormatError. */
export function parsePart(bytes: Uint8Array, index: number): PartEntry {
  const reader = new ByteReader(bytes, "redis.part")
  const leaf = reader.take(32, "leaf")
  const lengthBytes = reader.u32("length")
  reader.end()
  return { index, leaf, lengthBytes }
}

/** One value of a reply, which is bytes, a list of such, a number or nothing. */
export class Reply {
  readonly #value: unknown

  constructor(value: unknown) {
    this.#value = value
  }

  isNothing(): boolean {
    return this.#value === null || this.#value === undefined
  }

  bytes(): Uint8Array {
    if (!(this.#value instanceof Uint8Array)) throw new FormatError("redis", "not bytes")
    // A copy: a Buffer of the client's may be a window on more than this value.
    return new Uint8Array(this.#value)
  }

  /** Of a length that was agreed on. */
  bytesOf(length: number): Uint8Array {
    const bytes = this.bytes()
    if (bytes.length !== length) throw new FormatError("redis", `not ${length} bytes`)
    return bytes
  }

  text(): string {
    return parseUtf8(this.bytes(), "redis")
  }

  count(): number {
    const value = typeof this.#value === "number" ? String(this.#value) : this.text()
    const count = Number(value)
    if (!/^[0-9]{1,16}$/.test(value) || !Number.isSafeInteger(count)) {
      throw new FormatError("redis", "not a count")
    }
    return count
  }

  list(): Reply[] {
    if (!Array.isArray(this.#value)) throw new FormatError("redis", "not a list")
    return this.#value.map((item) => new Reply(item))
  }

  /** A list of exactly this many. */
  fields(count: number): Reply[] {
    const list = this.list()
    if (list.length !== count) throw new FormatError("redis", `not ${count} values`)
    return list
  }

  /** A list in groups of `size`. */
  groups(size: number): Reply[][] {
    const list = this.list()
    if (list.length % size !== 0) throw new FormatError("redis", `not in groups of ${size}`)
    const groups: Reply[][] = []
    for (let at = 0; at < list.length; at += size) groups.push(list.slice(at, at + size))
    return groups
  }
}

/** Item `at` of a list whose length was checked. */
export function item(list: readonly Reply[], at: number): Reply {
  return list[at] ?? new Reply(undefined)
}

/** What `parse` gives; DamagedRecord where what is in Redis is not what the relay put there. */
export function parsed<T>(what: string, parse: () => T): T {
  try {
    return parse()
  } catch (error) {
    if (!(error instanceof FormatError)) throw error
    throw new DamagedRecord(`redis ${what}`, { cause: error })
  }
}
