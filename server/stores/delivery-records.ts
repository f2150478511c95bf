// The records on the disk, as values and as bytes: an upload's, a delivery's commit, its links, and what
// is remembered of its end; the last login to an inbox, and the days the relay counts.
import {
  ByteReader,
  concatBytes,
  equalBytes,
  FormatError,
  hmacSha256,
  type JsonObject,
  maxEnvelopeBytes,
  type RecipientState,
  recordBytes,
  toHex,
  u64,
  utf8,
} from "../../protocol/index.js"
import type { DeliveryId, InboxId } from "../ids.js"
import type { Commit, CommitLink, Ended, Link } from "./blob-store.js"
import { DamagedRecord, encodeRecord, openRecord } from "./maced-record.js"
import { Fields } from "./record-fields.js"
import type { OpenUpload } from "./relay-index.js"

export function encodeUpload(key: Uint8Array, upload: OpenUpload): Uint8Array {
  return encodeRecord(
    { key, kind: "upload.v1", name: upload.id },
    {
      id: upload.id,
      token_hash: toHex(upload.tokenHash),
      start_hash: toHex(upload.startHash),
      delete_hash: toHex(upload.deleteHash),
      recipients: upload.recipients.map((inbox) => ({ inbox })),
      created_ms: upload.createdMs,
      reserved_bytes: upload.reservedBytes,
      expires_ms: upload.expiresMs,
    },
  )
}

export function parseUpload(key: Uint8Array, id: DeliveryId, bytes: Uint8Array): OpenUpload {
  return openRecord({ key, kind: "upload.v1", name: id }, bytes, (value) =>
    readUploadFields(new Fields(value, "upload")),
  )
}

function readUploadFields(fields: Fields): OpenUpload {
  return {
    id: fields.deliveryId("id"),
    tokenHash: fields.bytes("token_hash", 32),
    startHash: fields.bytes("start_hash", 32),
    deleteHash: fields.bytes("delete_hash", 32),
    recipients: fields.list("recipients", (item) => item.inboxId("inbox")),
    createdMs: fields.count("created_ms"),
    reservedBytes: fields.count("reserved_bytes"),
    expiresMs: fields.count("expires_ms"),
  }
}

function commitFields(commit: Commit): JsonObject {
  return {
    id: commit.id,
    token_hash: toHex(commit.tokenHash),
    start_hash: toHex(commit.startHash),
    delete_hash: toHex(commit.deleteHash),
    created_ms: commit.createdMs,
    accepted_ms: commit.acceptedMs,
    expires_ms: commit.expiresMs,
    lane: commit.lane,
    header: toHex(commit.header),
    links: commit.links.map(({ inbox, envelopeHash, envelopeBytes }) => ({
      inbox,
      envelope_hash: toHex(envelopeHash),
      envelope_bytes: envelopeBytes,
    })),
  }
}

function readCommitFields(fields: Fields): Commit {
  return {
    id: fields.deliveryId("id"),
    tokenHash: fields.bytes("token_hash", 32),
    startHash: fields.bytes("start_hash", 32),
    deleteHash: fields.bytes("delete_hash", 32),
    createdMs: fields.count("created_ms"),
    acceptedMs: fields.count("accepted_ms"),
    expiresMs: fields.count("expires_ms"),
    lane: fields.count("lane"),
    header: fields.bytes("header", recordBytes.header),
    links: fields.list("links", (link) => ({
      inbox: link.inboxId("inbox"),
      envelopeHash: link.bytes("envelope_hash", 32),
      envelopeBytes: link.count("envelope_bytes"),
    })),
  }
}

export function encodeCommit(key: Uint8Array, commit: Commit): Uint8Array {
  return encodeRecord({ key, kind: "commit.v1", name: commit.id }, commitFields(commit))
}

export function parseCommit(key: Uint8Array, id: DeliveryId, bytes: Uint8Array): Commit {
  return openRecord({ key, kind: "commit.v1", name: id }, bytes, (value) =>
    readCommitFields(new Fields(value, "commit")),
  )
}

/** The day, as the relay counts them, on which an inbox's owner was last there. */
export function encodeLogin(key: Uint8Array, inbox: InboxId, servedDay: number): Uint8Array {
  return encodeRecord({ key, kind: "login.v1", name: inbox }, { served_day: servedDay })
}

export function parseLogin(key: Uint8Array, inbox: InboxId, bytes: Uint8Array): number {
  return openRecord({ key, kind: "login.v1", name: inbox }, bytes, (value) =>
    new Fields(value, "login").count("served_day"),
  )
}

export interface Days {
  /** The latest that was counted, in whole days since 1970. */
  readonly day: number
  readonly count: number
}

export function encodeDays(key: Uint8Array, { day, count }: Days): Uint8Array {
  return encodeRecord({ key, kind: "days.v1", name: "relay" }, { day, count })
}

export function parseDays(key: Uint8Array, bytes: Uint8Array): Days {
  return openRecord({ key, kind: "days.v1", name: "relay" }, bytes, (value) => {
    const fields = new Fields(value, "days")
    return { day: fields.count("day"), count: fields.count("count") }
  })
}

const states: readonly RecipientState[] = [
  "waiting",
  "taken",
  "revoked",
  "expired",
  "lost",
  "removed",
]

export function encodeEnded(key: Uint8Array, ended: Ended): Uint8Array {
  return encodeRecord(
    { key, kind: "ended.v1", name: ended.commit.id },
    {
      commit: commitFields(ended.commit),
      states: ended.states.map((state) => ({ state })),
      forget_ms: ended.forgetMs,
    },
  )
}

export function parseEnded(key: Uint8Array, id: DeliveryId, bytes: Uint8Array): Ended {
  return openRecord({ key, kind: "ended.v1", name: id }, bytes, (value) =>
    readEndedFields(new Fields(value, "ended")),
  )
}

function readEndedFields(fields: Fields): Ended {
  return {
    commit: readCommitFields(fields.object("commit")),
    states: fields.list("states", (item) => {
      const text = item.text("state")
      const state = states.find((candidate) => candidate === text)
      if (state === undefined) throw new FormatError("ended.states", "unknown")
      return state
    }),
    forgetMs: fields.count("forget_ms"),
  }
}

// links.v1: a slot for each link, in order. A slot begins with 512 bytes that are zero until the link
// is published, then are written once, in place: u64 seq ‖ head 32 ‖ stamp 244 ‖ zeros ‖ MAC 32. The
// envelope follows. The file has its full size from the start, so publishing changes no metadata.

const linkBytes = 512
const linkMacAt = linkBytes - 32
export const slotBytes: number = 4096

export function slotOffset(slot: number): number {
  return slot * slotBytes
}

export function encodeSlots(envelopes: readonly Uint8Array[]): Uint8Array {
  const slots = new Uint8Array(envelopes.length * slotBytes)
  envelopes.forEach((envelope, slot) => {
    if (envelope.length > maxEnvelopeBytes) throw new RangeError("an envelope is too long")
    slots.set(envelope, slotOffset(slot) + linkBytes)
  })
  return slots
}

export function encodeLink(key: Uint8Array, place: LinkPlace, link: Link): Uint8Array {
  const open = new Uint8Array(linkMacAt)
  open.set(concatBytes(u64(link.seq), link.head, link.stamp))
  return concatBytes(open, linkMac(key, place, open))
}

export interface LinkPlace {
  readonly id: DeliveryId
  readonly slot: number
}

/** A link that is not whole, because its write was torn, is one that was never published. */
export function parseSlot(
  key: Uint8Array,
  place: LinkPlace,
  slots: Uint8Array,
  { envelopeBytes }: CommitLink,
): { readonly envelope: Uint8Array; readonly link: Link | undefined } {
  const at = slotOffset(place.slot)
  const slot = slots.subarray(at, at + slotBytes)
  if (slot.length !== slotBytes) throw new DamagedRecord("links.v1")
  const envelope = slot.subarray(linkBytes, linkBytes + envelopeBytes)
  const open = slot.subarray(0, linkMacAt)
  const mac = slot.subarray(linkMacAt, linkBytes)
  if (!equalBytes(mac, linkMac(key, place, open))) return { envelope, link: undefined }
  const reader = new ByteReader(open, "link")
  const seq = reader.u64("seq")
  const head = reader.take(32, "head").slice()
  const stamp = reader.take(recordBytes.stamp, "stamp").slice()
  return { envelope, link: { seq, head, stamp } }
}

function linkMac(key: Uint8Array, { id, slot }: LinkPlace, open: Uint8Array): Uint8Array {
  return hmacSha256(key, utf8(`links.v1 ${id} ${slot}\n`), open)
}
