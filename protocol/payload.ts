// The 512 bytes inside an envelope or a share link: the delivery secret, and who it says it is from
// (docs/protocol.md §6).
import { ByteReader, concatBytes, equalBytes, isZero, parseUtf8, u64, utf8 } from "./bytes.js"
import { type Bundle, type Identity, inboxIdBytes } from "./identity.js"
import { label } from "./labels.js"
import { maxHostBytes } from "./limits.js"
import {
  ed25519Sign,
  ed25519Verify,
  hkdfSha256,
  hmacSha256,
  sha256,
  x25519,
} from "#crypto-provider"

export const payloadBytes: number = 512
const modeAt = 1
const senderAt = 84
const tagAt = 148
const replyAt = 212

/** What an envelope holds about its delivery. */
export interface PayloadFields {
  /** The 32-byte delivery secret. */
  readonly ds: Uint8Array
  /** The sender's claim; 0 = not told. */
  readonly createdMs: number
  /** 1 for the first of a thread, 0 for none. */
  readonly threadSeq: number
  /** The header hash of the delivery before; zeros while `threadSeq` is 0 or 1. */
  readonly threadPrev: Uint8Array
  readonly replyTo?: ReplyTo | undefined
}

export interface ReplyTo {
  readonly inboxId: Uint8Array
  /** `host[:port]`; empty when it is not told. */
  readonly host: string
}

export type SenderMode = "deniable" | "signature"

/** Who seals, if they say so. "signature" can be shown to others as proof, "deniable" cannot. */
export interface Sender {
  readonly identity: Identity
  readonly mode: SenderMode
}

/** What the payload claims about its sender. */
export interface SenderClaim {
  readonly mode: SenderMode
  /** Nothing ties it to `senderKey` but a bundle that was checked by its hash. */
  readonly senderFingerprint: Uint8Array
  /** The X25519 auth key of a deniable sender, the Ed25519 key of one who signed. */
  readonly senderKey: Uint8Array
}

/** A claim that can be checked. */
export interface ClaimedSender extends SenderClaim {
  /** True when this bundle is the sender's: same fingerprint, same key, and the proof holds. */
  verify(bundle: Bundle): boolean
}

export type Authentication = { readonly mode: "none" } | ClaimedSender

/** What a proof of the sender is bound to: without it, a recipient could pass the proof on. */
export interface Binding {
  /** Zeros for a share link, which has no recipient. */
  readonly recipientFingerprint: Uint8Array
  readonly headerHash: Uint8Array
  readonly com: Uint8Array
}

export function encodePayload(fields: PayloadFields): Uint8Array {
  const { ds, createdMs, threadSeq, threadPrev, replyTo } = fields
  if (ds.length !== 32 || threadPrev.length !== 32) {
    throw new RangeError("ds and threadPrev are 32 bytes")
  }
  if (threadSeq <= 1 && !isZero(threadPrev)) {
    throw new RangeError("only a later delivery of a thread names the one before")
  }
  const payload = new Uint8Array(payloadBytes)
  payload[0] = 1
  payload.set(ds, 4)
  payload.set(u64(createdMs), 36)
  payload.set(u64(threadSeq), 44)
  payload.set(threadPrev, 52)
  if (replyTo) {
    if (replyTo.inboxId.length !== inboxIdBytes || isZero(replyTo.inboxId)) {
      throw new RangeError("a reply inbox is 20 bytes, not all zero")
    }
    const host = utf8(replyTo.host)
    if (host.length > maxHostBytes || !isHostText(replyTo.host)) {
      throw new RangeError("a reply host is at most 255 of a–z 0–9 . - _ : [ ]")
    }
    payload.set(replyTo.inboxId, replyAt)
    payload[replyAt + inboxIdBytes] = host.length
    payload.set(host, replyAt + inboxIdBytes + 1)
  }
  return payload
}

export interface ParsedPayload {
  readonly fields: PayloadFields
  readonly claim: SenderClaim | undefined
}

/** Throws FormatError, which whoever opened the payload turns into OpenError. */
export function parsePayload(payload: Uint8Array): ParsedPayload {
  const reader = new ByteReader(payload, "payload")
  if (payload.length !== payloadBytes) reader.refuse("length", `not ${payloadBytes} bytes`)
  reader.expectU8(1, "version")
  const mode = parseMode(reader)
  reader.zeros(2, "reserved")
  const ds = reader.take(32, "ds")
  const createdMs = reader.u64("created")
  const threadSeq = reader.u64("thread sequence")
  const threadPrev = reader.take(32, "thread previous")
  if (threadSeq <= 1 && !isZero(threadPrev)) {
    reader.refuse("thread previous", "set without a delivery before")
  }
  let claim: SenderClaim | undefined
  if (mode === "none") {
    reader.zeros(replyAt - senderAt, "sender")
  } else {
    const senderFingerprint = reader.take(32, "sender fingerprint")
    claim = { mode, senderFingerprint, senderKey: reader.take(32, "sender key") }
    reader.take(32, "tag")
    if (mode === "deniable") reader.zeros(32, "tag")
    else reader.take(32, "signature")
  }
  const inboxId = reader.take(inboxIdBytes, "reply inbox")
  const hostBytes = reader.take(reader.u8("host length"), "reply host")
  const host = parseUtf8(hostBytes, "payload.reply host")
  if (!isHostText(host)) reader.refuse("reply host", "has a character that no host has")
  if (isZero(inboxId) && host !== "") reader.refuse("reply host", "set without an inbox")
  reader.zeros(reader.remaining, "rest")
  const replyTo = isZero(inboxId) ? undefined : { inboxId, host }
  return { fields: { ds, createdMs, threadSeq, threadPrev, replyTo }, claim }
}

function parseMode(reader: ByteReader): "none" | SenderMode {
  switch (reader.u8("mode")) {
    case 0:
      return "none"
    case 1:
      return "deniable"
    case 2:
      return "signature"
    default:
      return reader.refuse("mode", "unknown")
  }
}

function isHostText(host: string): boolean {
  return /^[a-z0-9.\-_:[\]]*$/.test(host)
}

/** Writes a deniable sender's claim and tag into `payload`. Both ends of the DH can make the tag. */
export function tagPayload(
  payload: Uint8Array,
  sender: Identity,
  recipientAuthKey: Uint8Array,
  binding: Binding,
): void {
  payload[modeAt] = 1
  payload.set(sender.bundle.fingerprint, senderAt)
  payload.set(sender.bundle.authKey, senderAt + 32)
  const dh = x25519(sender.authSeed, recipientAuthKey)
  payload.set(deniableTag(payload, dh, binding), tagAt)
}

/** Writes a signing sender's claim and signature into `payload`. */
export function signPayload(payload: Uint8Array, sender: Identity, binding: Binding): void {
  const { signKey, fingerprint } = sender.bundle
  if (sender.signSeed === undefined || signKey === undefined) {
    throw new RangeError("this identity has no key to sign with")
  }
  payload[modeAt] = 2
  payload.set(fingerprint, senderAt)
  payload.set(signKey, senderAt + 32)
  payload.set(ed25519Sign(sender.signSeed, signedMessage(payload, binding)), tagAt)
}

/** `authSeed` is the recipient's; a share link has none and takes no deniable sender. */
export function claimedSender(
  payload: Uint8Array,
  claim: SenderClaim,
  binding: Binding,
  authSeed: Uint8Array | undefined,
): ClaimedSender {
  const verify = (bundle: Bundle): boolean => {
    const key = claim.mode === "deniable" ? bundle.authKey : bundle.signKey
    if (key === undefined || !equalBytes(key, claim.senderKey)) return false
    if (!equalBytes(bundle.fingerprint, claim.senderFingerprint)) return false
    if (claim.mode === "signature") {
      const signature = payload.subarray(tagAt, tagAt + 64)
      return ed25519Verify(key, signedMessage(payload, binding), signature)
    }
    if (authSeed === undefined) return false
    const tag = deniableTag(payload, x25519(authSeed, key), binding)
    return equalBytes(tag, payload.subarray(tagAt, tagAt + 32))
  }
  return { ...claim, verify }
}

function deniableTag(payload: Uint8Array, dh: Uint8Array, binding: Binding): Uint8Array {
  const senderFingerprint = payload.subarray(senderAt, senderAt + 32)
  const key = hkdfSha256({
    ikm: dh,
    salt: binding.com,
    info: concatBytes(label("auth-dh"), senderFingerprint, binding.recipientFingerprint),
    length: 32,
  })
  return hmacSha256(key, binding.headerHash, hashWithoutTag(payload))
}

function signedMessage(payload: Uint8Array, binding: Binding): Uint8Array {
  return concatBytes(
    label("auth-sig"),
    binding.recipientFingerprint,
    binding.com,
    binding.headerHash,
    hashWithoutTag(payload),
  )
}

function hashWithoutTag(payload: Uint8Array): Uint8Array {
  return sha256(
    payload.subarray(0, tagAt),
    new Uint8Array(replyAt - tagAt),
    payload.subarray(replyAt),
  )
}
