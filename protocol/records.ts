// What a relay says for good about a delivery: the stamp for the recipient, the receipt for the
// sender, the signed head of an inbox's chain, and what stays of an entry that is gone
// (docs/protocol.md §9).
import { ByteReader, concatBytes, equalBytes, u16, u64, utf8 } from "./bytes.js"
import type { Random } from "./crypto/provider.js"
import { OpenError } from "./errors.js"
import { inboxIdBytes } from "./identity.js"
import { label, type LabelName } from "./labels.js"
import {
  ed25519Sign,
  ed25519Verify,
  gcmOpen,
  gcmSeal,
  hmacSha256,
  random as providerRandom,
  sha256,
} from "#crypto-provider"

export const stampBytes: number = 244
export const receiptBytes: number = 172
export const headBytes: number = 148
export const tombstoneBytes: number = 89

const dayMs = 86_400_000

/** Names one delivery to one inbox: exactly this header and envelope, from then to then. */
export interface DeliveryRecord {
  readonly headerHash: Uint8Array
  readonly envelopeHash: Uint8Array
  readonly acceptedMs: number
  readonly expiresMs: number
}

// The stamp, 244 bytes

export interface Stamp extends DeliveryRecord {
  readonly kid: number
  readonly inboxId: Uint8Array
  /** 0 for a share link, which stands in no chain. */
  readonly seq: number
  /** The chain's head after this entry; zeros for a share link. */
  readonly head: Uint8Array
}

/** Where a delivery came from, as the relay seals it into the stamp instead of keeping it. */
export interface StampSource {
  /** The class of brakes the upload passed, one byte. */
  readonly lane: number
  /** 16 bytes: what the upload was let in by. */
  readonly lineage: Uint8Array
  /** 16 bytes, zeros unless the operator switched it on. */
  readonly sourcePseudonym: Uint8Array
}

export interface EncodeStampInput extends Stamp {
  readonly source: StampSource
  /** 32 bytes, the key that `kid` names. */
  readonly kFrank: Uint8Array
  /** 32 bytes, of the day that `acceptedMs` lies in. */
  readonly kSrc: Uint8Array
  /** Draws "src_nonce". */
  readonly random?: Random | undefined
}

const stampSourceAt = 148
const stampMacAt = 212

/** The day that selects the key a stamp's source is sealed under. */
export function stampEpoch(acceptedMs: number): number {
  return Math.floor(acceptedMs / dayMs)
}

export function encodeStamp(input: EncodeStampInput): Uint8Array {
  const { source } = input
  checkLengths(input.inboxId, [input.headerHash, input.envelopeHash, input.head])
  if (source.lineage.length !== 16 || source.sourcePseudonym.length !== 16) {
    throw new RangeError("lineage and pseudonym are 16 bytes")
  }
  checkByte(source.lane)
  const open = concatBytes(
    prelude("KNHS", input.kid, 0),
    u64(input.acceptedMs),
    u64(input.expiresMs),
    input.inboxId,
    u64(input.seq),
    input.headerHash,
    input.envelopeHash,
    input.head,
  )
  const record = concatBytes(
    Uint8Array.of(source.lane),
    u64(stampEpoch(input.acceptedMs)).subarray(5),
    source.lineage,
    source.sourcePseudonym,
  )
  const nonce = (input.random ?? providerRandom)(12, "src_nonce")
  const sealed = gcmSeal({ key: input.kSrc, nonce, aad: open, plaintext: record })
  const macked = concatBytes(open, nonce, sealed)
  return concatBytes(macked, hmacSha256(input.kFrank, label("stamp"), macked))
}

/** To a client the source and the MAC are opaque: it checks that the rest names what it opened. */
export function parseStamp(bytes: Uint8Array): Stamp {
  const reader = new ByteReader(bytes, "stamp")
  const kid = readPrelude(reader, "KNHS", 0).kid
  const acceptedMs = reader.u64("accepted")
  const expiresMs = reader.u64("expires")
  const inboxId = reader.take(inboxIdBytes, "inbox")
  const seq = reader.u64("sequence")
  const headerHash = reader.take(32, "header hash")
  const envelopeHash = reader.take(32, "envelope hash")
  const head = reader.take(32, "head")
  reader.take(stampMacAt - stampSourceAt, "source")
  reader.take(32, "MAC")
  reader.end()
  return { kid, acceptedMs, expiresMs, inboxId, seq, headerHash, envelopeHash, head }
}

/** Whether the relay that holds `kFrank` made this stamp. */
export function verifyStamp(bytes: Uint8Array, kFrank: Uint8Array): boolean {
  if (bytes.length !== stampBytes) return false
  const mac = hmacSha256(kFrank, label("stamp"), bytes.subarray(0, stampMacAt))
  return equalBytes(mac, bytes.subarray(stampMacAt))
}

/** Opens the source in a stamp. Throws OpenError when `kSrc` is not the key of that day. */
export function openStampSource(bytes: Uint8Array, kSrc: Uint8Array): StampSource {
  const { acceptedMs } = parseStamp(bytes)
  const record = gcmOpen({
    key: kSrc,
    nonce: bytes.subarray(stampSourceAt, stampSourceAt + 12),
    aad: bytes.subarray(0, stampSourceAt),
    ciphertext: bytes.subarray(stampSourceAt + 12, stampMacAt),
  })
  const reader = new ByteReader(record, "source")
  const lane = reader.u8("lane")
  const epoch = reader.take(3, "epoch")
  if (!equalBytes(epoch, u64(stampEpoch(acceptedMs)).subarray(5))) throw new OpenError()
  const lineage = reader.take(16, "lineage")
  const sourcePseudonym = reader.take(16, "pseudonym")
  reader.end()
  return { lane, lineage, sourcePseudonym }
}

// The receipt, 172 bytes. It has no sequence number: a stranger must not learn an inbox's traffic.

export interface Receipt extends DeliveryRecord {
  readonly kid: number
  readonly inboxId: Uint8Array
}

export interface EncodeReceiptInput extends Receipt {
  /** The relay's Ed25519 seed. */
  readonly signSeed: Uint8Array
}

export function encodeReceipt(input: EncodeReceiptInput): Uint8Array {
  checkLengths(input.inboxId, [input.headerHash, input.envelopeHash])
  const open = concatBytes(
    prelude("KNHR", input.kid, 0),
    input.inboxId,
    input.headerHash,
    input.envelopeHash,
    u64(input.acceptedMs),
    u64(input.expiresMs),
  )
  return signed("receipt", open, input.signSeed)
}

/** Does not verify the signature: `verifyReceipt`. */
export function parseReceipt(bytes: Uint8Array): Receipt {
  const reader = new ByteReader(bytes, "receipt")
  const kid = readPrelude(reader, "KNHR", 0).kid
  const inboxId = reader.take(inboxIdBytes, "inbox")
  const headerHash = reader.take(32, "header hash")
  const envelopeHash = reader.take(32, "envelope hash")
  const acceptedMs = reader.u64("accepted")
  const expiresMs = reader.u64("expires")
  reader.take(64, "signature")
  reader.end()
  return { kid, inboxId, headerHash, envelopeHash, acceptedMs, expiresMs }
}

export function verifyReceipt(bytes: Uint8Array, relayPublicKey: Uint8Array): boolean {
  return bytes.length === receiptBytes && verifySigned("receipt", bytes, relayPublicKey)
}

// The chain and its signed head, 148 bytes

export interface Head {
  readonly kid: number
  readonly inboxId: Uint8Array
  /** Every receipt accepted 5 s or more before this is in the chain. */
  readonly asOfMs: number
  readonly seq: number
  readonly head: Uint8Array
  /** The last sequence number no longer listed; 0 = none. */
  readonly floorSeq: number
  /** The relay says that it came back from a backup, so the chain may be shorter than it was. */
  readonly restored: boolean
}

export interface EncodeHeadInput extends Omit<Head, "restored"> {
  readonly restored?: boolean
  readonly signSeed: Uint8Array
}

/** The head of an inbox that nothing was delivered to. */
export function emptyChainHead(): Uint8Array {
  return new Uint8Array(32)
}

export interface ChainLink extends DeliveryRecord {
  readonly previous: Uint8Array
  /** Counts from 1. */
  readonly seq: number
}

export function chainHead(link: ChainLink): Uint8Array {
  return sha256(
    label("chain"),
    link.previous,
    u64(link.seq),
    link.headerHash,
    link.envelopeHash,
    u64(link.acceptedMs),
    u64(link.expiresMs),
  )
}

export function encodeHead(input: EncodeHeadInput): Uint8Array {
  checkLengths(input.inboxId, [input.head])
  const open = concatBytes(
    prelude("KNHI", input.kid, input.restored === true ? 1 : 0),
    input.inboxId,
    u64(input.asOfMs),
    u64(input.seq),
    input.head,
    u64(input.floorSeq),
  )
  return signed("head", open, input.signSeed)
}

/** Does not verify the signature: `verifyHead`. */
export function parseHead(bytes: Uint8Array): Head {
  const reader = new ByteReader(bytes, "head")
  const { kid, flags } = readPrelude(reader, "KNHI", 1)
  const inboxId = reader.take(inboxIdBytes, "inbox")
  const asOfMs = reader.u64("as of")
  const seq = reader.u64("sequence")
  const head = reader.take(32, "head")
  const floorSeq = reader.u64("floor")
  if (floorSeq > seq) reader.refuse("floor", "above the sequence number")
  reader.take(64, "signature")
  reader.end()
  return { kid, inboxId, asOfMs, seq, head, floorSeq, restored: flags === 1 }
}

export function verifyHead(bytes: Uint8Array, relayPublicKey: Uint8Array): boolean {
  return bytes.length === headBytes && verifySigned("head", bytes, relayPublicKey)
}

// The tombstone, 89 bytes: what the chain needs of an entry that is gone

export type TombstoneReason = "taken" | "revoked" | "expired" | "lost" | "removed"

/** In the order of their numbers on the wire, which begin at 1. */
const tombstoneReasons: readonly TombstoneReason[] = [
  "taken",
  "revoked",
  "expired",
  "lost",
  "removed",
]

export interface Tombstone extends DeliveryRecord {
  readonly seq: number
  readonly reason: TombstoneReason
}

export function encodeTombstone(tombstone: Tombstone): Uint8Array {
  const { headerHash, envelopeHash } = tombstone
  if (headerHash.length !== 32 || envelopeHash.length !== 32) {
    throw new RangeError("a hash is 32 bytes")
  }
  return concatBytes(
    u64(tombstone.seq),
    headerHash,
    envelopeHash,
    u64(tombstone.acceptedMs),
    u64(tombstone.expiresMs),
    Uint8Array.of(tombstoneReasons.indexOf(tombstone.reason) + 1),
  )
}

export function parseTombstone(bytes: Uint8Array): Tombstone {
  const reader = new ByteReader(bytes, "tombstone")
  const seq = reader.u64("sequence")
  const headerHash = reader.take(32, "header hash")
  const envelopeHash = reader.take(32, "envelope hash")
  const acceptedMs = reader.u64("accepted")
  const expiresMs = reader.u64("expires")
  const reason = tombstoneReasons[reader.u8("reason") - 1] ?? reader.refuse("reason", "unknown")
  reader.end()
  return { seq, headerHash, envelopeHash, acceptedMs, expiresMs, reason }
}

// What the records share

function checkLengths(inboxId: Uint8Array, hashes: readonly Uint8Array[]): void {
  if (inboxId.length !== inboxIdBytes) throw new RangeError("an inbox id is 20 bytes")
  if (hashes.some((hash) => hash.length !== 32)) throw new RangeError("a hash is 32 bytes")
}

function checkByte(value: number): void {
  if (!Number.isInteger(value) || value < 0 || value > 255) {
    throw new RangeError(`${value} is not one byte`)
  }
}

function prelude(magic: string, kid: number, flags: number): Uint8Array {
  checkByte(kid)
  return concatBytes(utf8(magic), Uint8Array.of(1, kid), u16(flags))
}

function readPrelude(
  reader: ByteReader,
  magic: string,
  knownFlags: number,
): { kid: number; flags: number } {
  reader.expectAscii(magic, "magic")
  reader.expectU8(1, "version")
  const kid = reader.u8("kid")
  const flags = reader.u16("flags")
  if ((flags & ~knownFlags) !== 0) reader.refuse("flags", "unknown bits are set")
  return { kid, flags }
}

function signed(name: LabelName, open: Uint8Array, seed: Uint8Array): Uint8Array {
  return concatBytes(open, ed25519Sign(seed, concatBytes(label(name), open)))
}

function verifySigned(name: LabelName, bytes: Uint8Array, publicKey: Uint8Array): boolean {
  const open = bytes.subarray(0, bytes.length - 64)
  return ed25519Verify(publicKey, concatBytes(label(name), open), bytes.subarray(open.length))
}
