// The HTTP interface, message by message: its type, its parser and its encoder side by side
// (docs/protocol.md, "HTTP interface"). Parsers take JSON already parsed, or bytes, and throw
// FormatError. In here bytes are Uint8Array and names are camelCase; on the wire bytes are base64url
// and names are snake_case. Records inside a message stay bytes: their own parsers judge them.
import { ByteReader, concatBytes, fromBase64url, toBase64url, u16, u32, utf8 } from "./bytes.js"
import { FormatError } from "./errors.js"
import { type JsonObject, JsonReader } from "./json.js"
import { encodeRestoration, readRestoration, type Restoration } from "./restoration.js"
import {
  maxBodyBytes,
  maxBundleBytes,
  maxEnvelopeBytes,
  maxLongPollSeconds,
  maxManifestBytes,
  maxParts,
  maxRequestBytes,
  MIB,
  recordBytes,
  type RelayLimits,
} from "./limits.js"

const hashBytes = 32
const tokenBytes = 32

// What is said in the request line and in headers.

/** A part's index in a path: canonical decimal below 2^31. */
export function parseIndex(text: string, field: string = "index"): number {
  const value = parseDecimal(text, field)
  if (value >= 2 ** 31) throw new FormatError(field, "out of range")
  return value
}

function parseDecimal(text: string, field: string): number {
  if (!/^(0|[1-9][0-9]{0,15})$/.test(text)) throw new FormatError(field, "not a canonical decimal")
  const value = Number(text)
  if (!Number.isSafeInteger(value)) throw new FormatError(field, "above 2^53 - 1")
  return value
}

/** The credential of an Authorization header. */
export function encodeBearer(token: Uint8Array): string {
  return `Bearer ${toBase64url(token)}`
}

export function parseBearer(header: string | undefined): Uint8Array {
  const match = /^Bearer ([A-Za-z0-9_-]{43})$/i.exec(header ?? "")
  if (match?.[1] === undefined) throw new FormatError("authorization", "no credential of 32 bytes")
  return fromBase64url(match[1], "authorization")
}

/** Bytes `first` to `last` of something, both included. */
export interface ByteRange {
  readonly first: number
  readonly last: number
}

export function encodeRange({ first, last }: ByteRange): string {
  return `bytes=${first}-${last}`
}

/**
 * One interval, `bytes=a-b` or `bytes=a-`, cut to `size` as RFC 9110 §14.1.2 says. Throws FormatError
 * for anything else and for what lies wholly beyond the end; both are answered with 416.
 */
export function parseRange(header: string, size: number): ByteRange {
  const match = /^bytes=([0-9]+)-([0-9]*)$/.exec(header)
  if (match === null) throw new FormatError("range", "not one interval of bytes")
  const [, from = "", to = ""] = match
  const first = parseDecimal(from, "range")
  const last = to === "" ? size - 1 : Math.min(parseDecimal(to, "range"), size - 1)
  if (first > last) throw new FormatError("range", "beyond the end")
  return { first, last }
}

export function encodeContentRange({ first, last }: ByteRange, size: number): string {
  return `bytes ${first}-${last}/${size}`
}

export function parseContentRange(header: string): ByteRange & { readonly size: number } {
  const match = /^bytes ([0-9]+)-([0-9]+)\/([0-9]+)$/.exec(header)
  if (match === null) throw new FormatError("content-range", "not an interval of known size")
  const [, from = "", to = "", whole = ""] = match
  const first = parseDecimal(from, "content-range")
  const last = parseDecimal(to, "content-range")
  const size = parseDecimal(whole, "content-range")
  if (first > last || last >= size) throw new FormatError("content-range", "not inside its size")
  return { first, last, size }
}

// GET /v1/relay

export interface RelayInfo {
  readonly name: string
  readonly version: string
  readonly protocol: readonly number[]
  readonly timeMs: number
  readonly origins: readonly string[]
  /** Ed25519; signs receipts, heads and the keys of minutes. */
  readonly signingKey: Uint8Array
  readonly kid: number
  readonly registration: "open" | "closed"
  /** Whether this very request came through a proxy, and one whose word the relay takes. */
  readonly proxy?: RelayProxy
  readonly limits: RelayLimits
}

/**
 * `unset`: a proxy that the relay was not told of. `wrong`: it was told of other ones than there are.
 * Either way all who come through it count as one.
 */
export type RelayProxy = "none" | "trusted" | "unset" | "wrong"

const relayProxies: readonly RelayProxy[] = ["none", "trusted", "unset", "wrong"]

const anyCount = Number.MAX_SAFE_INTEGER

export function parseRelayInfo(value: unknown): RelayInfo {
  const info = new JsonReader(value, "relay")
  const limits = info.object("limits")
  return {
    name: info.line("name", 64),
    version: info.line("version", 64),
    protocol: info.counts("protocol", 64),
    timeMs: info.count("time_ms"),
    origins: info.lines("origins", 64, maxOriginCharacters),
    signingKey: info.bytes("signing_key", 32),
    kid: info.count("kid", 255),
    registration: info.oneOf("registration", ["open", "closed"]),
    // Older relays do not say.
    ...(info.has("proxy") && { proxy: info.oneOf("proxy", relayProxies) }),
    limits: {
      deliveryBytes: limits.count("delivery_bytes"),
      // Below one largest part nothing could be sent.
      requestBytes: limits.count("request_bytes", anyCount, MIB),
      parallelRequests: limits.count("parallel_requests", anyCount, 1),
      recipients: limits.count("recipients", anyCount, 1),
      manifestBytes: limits.count("manifest_bytes"),
      inboxBytes: limits.count("inbox_bytes"),
      inboxDeliveries: limits.count("inbox_deliveries"),
      keepMs: limits.count("keep_ms"),
      keepMaxMs: limits.count("keep_max_ms"),
      uploadMs: limits.count("upload_ms"),
      uploadMaxMs: limits.count("upload_max_ms"),
      longPollSeconds: limits.count("long_poll_seconds"),
      page: limits.count("page", anyCount, 1),
    },
  }
}

/** Of what a relay offers: what a client uses. The rest would only be more to send, announce or wait for. */
export function usableLimits(limits: RelayLimits): RelayLimits {
  return {
    ...limits,
    requestBytes: Math.min(limits.requestBytes, maxRequestBytes),
    recipients: Math.min(limits.recipients, maxRecipients),
    manifestBytes: Math.min(limits.manifestBytes, maxManifestBytes),
    longPollSeconds: Math.min(limits.longPollSeconds, maxLongPollSeconds),
  }
}

export function encodeRelayInfo(info: RelayInfo): JsonObject {
  const { limits } = info
  return {
    name: info.name,
    version: info.version,
    protocol: info.protocol,
    time_ms: info.timeMs,
    origins: info.origins,
    signing_key: toBase64url(info.signingKey),
    kid: info.kid,
    registration: info.registration,
    ...(info.proxy !== undefined && { proxy: info.proxy }),
    limits: {
      delivery_bytes: limits.deliveryBytes,
      request_bytes: limits.requestBytes,
      parallel_requests: limits.parallelRequests,
      recipients: limits.recipients,
      manifest_bytes: limits.manifestBytes,
      inbox_bytes: limits.inboxBytes,
      inbox_deliveries: limits.inboxDeliveries,
      keep_ms: limits.keepMs,
      keep_max_ms: limits.keepMaxMs,
      upload_ms: limits.uploadMs,
      upload_max_ms: limits.uploadMaxMs,
      long_poll_seconds: limits.longPollSeconds,
      page: limits.page,
    },
  }
}

// POST /v1/sessions/challenge

export const challengeNonceBytes: number = 36

export interface Challenge {
  /** The relay's X25519 public key of one minute. */
  readonly e: Uint8Array
  /** random 16 ‖ u32 minute ‖ MAC 16: what the relay knows it again by. */
  readonly nonce: Uint8Array
  /** By the relay's signing key, over the minute's statement (login.ts). */
  readonly signature: Uint8Array
  readonly kid: number
  readonly expiresMs: number
}

export function parseChallenge(value: unknown): Challenge {
  const challenge = new JsonReader(value, "challenge")
  return {
    e: challenge.bytes("e", 32),
    nonce: challenge.bytes("nonce", challengeNonceBytes),
    signature: challenge.bytes("signature", 64),
    kid: challenge.count("kid", 255),
    expiresMs: challenge.count("expires_ms"),
  }
}

export function encodeChallenge(challenge: Challenge): JsonObject {
  return {
    e: toBase64url(challenge.e),
    nonce: toBase64url(challenge.nonce),
    signature: toBase64url(challenge.signature),
    kid: challenge.kid,
    expires_ms: challenge.expiresMs,
  }
}

// The proof inside PUT /v1/inboxes/:address and POST /v1/sessions

export interface LoginProof {
  readonly origin: string
  readonly e: Uint8Array
  readonly nonce: Uint8Array
  /** The prover's ephemeral X25519 public key. */
  readonly c: Uint8Array
  readonly boxNonce: Uint8Array
  /** The transcript, boxed. */
  readonly proof: Uint8Array
}

export const maxOriginCharacters: number = 300

function readLoginProof(request: JsonReader): LoginProof {
  return {
    origin: request.text("origin", maxOriginCharacters),
    e: request.bytes("e", 32),
    nonce: request.bytes("nonce", challengeNonceBytes),
    c: request.bytes("c", 32),
    boxNonce: request.bytes("box_nonce", 24),
    proof: request.bytes("proof", 48),
  }
}

export function parseLoginProof(value: unknown): LoginProof {
  const request = new JsonReader(value, "proof")
  const proof = readLoginProof(request)
  request.end()
  return proof
}

export function encodeLoginProof(proof: LoginProof): JsonObject {
  return {
    origin: proof.origin,
    e: toBase64url(proof.e),
    nonce: toBase64url(proof.nonce),
    c: toBase64url(proof.c),
    box_nonce: toBase64url(proof.boxNonce),
    proof: toBase64url(proof.proof),
  }
}

// PUT /v1/inboxes/:address

export interface RegisterRequest {
  readonly bundle: Uint8Array
  readonly proof: LoginProof
}

export function parseRegisterRequest(value: unknown): RegisterRequest {
  const request = new JsonReader(value, "registration")
  const bundle = request.bytesUpTo("bundle", maxBundleBytes)
  const proof = readLoginProof(request)
  request.end()
  return { bundle, proof }
}

export function encodeRegisterRequest(request: RegisterRequest): JsonObject {
  return { bundle: toBase64url(request.bundle), ...encodeLoginProof(request.proof) }
}

export interface RegisterReply {
  readonly address: string
  readonly created: boolean
}

export function parseRegisterReply(value: unknown): RegisterReply {
  const reply = new JsonReader(value, "registered")
  return { address: reply.address("address"), created: reply.flag("created") }
}

export function encodeRegisterReply({ address, created }: RegisterReply): JsonObject {
  return { address, created }
}

// POST /v1/sessions

export interface SessionRequest {
  readonly address: string
  readonly proof: LoginProof
}

export function parseSessionRequest(value: unknown): SessionRequest {
  const request = new JsonReader(value, "session")
  const address = request.address("address")
  const proof = readLoginProof(request)
  request.end()
  return { address, proof }
}

export function encodeSessionRequest({ address, proof }: SessionRequest): JsonObject {
  return { address, ...encodeLoginProof(proof) }
}

export interface SessionReply {
  readonly token: Uint8Array
  /** When it ends unless it is used. */
  readonly expiresMs: number
  /** When it ends in any case. */
  readonly absoluteMs: number
  readonly mac: Uint8Array
}

export function parseSessionReply(value: unknown): SessionReply {
  const reply = new JsonReader(value, "session")
  return {
    token: reply.bytes("token", tokenBytes),
    expiresMs: reply.count("expires_ms"),
    absoluteMs: reply.count("absolute_ms"),
    mac: reply.bytes("mac", 32),
  }
}

export function encodeSessionReply(reply: SessionReply): JsonObject {
  return {
    token: toBase64url(reply.token),
    expires_ms: reply.expiresMs,
    absolute_ms: reply.absoluteMs,
    mac: toBase64url(reply.mac),
  }
}

// GET /v1/sessions

export interface SessionEntry {
  /** The first 16 bytes of the token's SHA-256, in hex. */
  readonly id: string
  readonly createdMs: number
  readonly lastUsedMs: number
  readonly current: boolean
}

export function parseSessionList(value: unknown): SessionEntry[] {
  return new JsonReader(value, "sessions").list("sessions", 10_000, (item, index) => {
    const entry = new JsonReader(item, `sessions.${index}`)
    return {
      id: entry.id("id"),
      createdMs: entry.count("created_ms"),
      lastUsedMs: entry.count("last_used_ms"),
      current: entry.flag("current"),
    }
  })
}

export function encodeSessionList(sessions: readonly SessionEntry[]): JsonObject {
  return {
    sessions: sessions.map(({ id, createdMs, lastUsedMs, current }) => ({
      id,
      created_ms: createdMs,
      last_used_ms: lastUsedMs,
      current,
    })),
  }
}

// POST /v1/uploads

/** Envelopes are counted in one byte when the upload is finished. */
export const maxRecipients: number = 255

export interface StartUpload {
  readonly recipients: readonly string[]
  /** The most the padded body may come to. */
  readonly reserveBytes: number
  /** SHA-256 of the delete capability. */
  readonly deleteHash: Uint8Array
}

export function parseStartUpload(value: unknown): StartUpload {
  const request = new JsonReader(value, "upload")
  const recipients = request.addresses("recipients", maxRecipients)
  if (recipients.length === 0) request.refuse("recipients", "nobody to send to")
  if (new Set(recipients).size !== recipients.length) {
    request.refuse("recipients", "the same inbox twice")
  }
  const start = {
    recipients,
    reserveBytes: request.count("reserve_bytes", maxBodyBytes),
    deleteHash: request.bytes("delete_hash", hashBytes),
  }
  request.end()
  return start
}

export function encodeStartUpload(start: StartUpload): JsonObject {
  return {
    recipients: start.recipients,
    reserve_bytes: start.reserveBytes,
    delete_hash: toBase64url(start.deleteHash),
  }
}

export interface StartUploadReply {
  readonly id: string
  readonly token: Uint8Array
  readonly reservedBytes: number
  readonly requestBytes: number
  readonly expiresMs: number
}

export function parseStartUploadReply(value: unknown): StartUploadReply {
  const reply = new JsonReader(value, "upload")
  return {
    id: reply.id("id"),
    token: reply.bytes("token", tokenBytes),
    reservedBytes: reply.count("reserved_bytes"),
    requestBytes: reply.count("request_bytes", Number.MAX_SAFE_INTEGER, MIB),
    expiresMs: reply.count("expires_ms"),
  }
}

export function encodeStartUploadReply(reply: StartUploadReply): JsonObject {
  return {
    id: reply.id,
    token: toBase64url(reply.token),
    reserved_bytes: reply.reservedBytes,
    request_bytes: reply.requestBytes,
    expires_ms: reply.expiresMs,
  }
}

// POST /v1/uploads/:id/extend

export interface Extend {
  readonly reserveBytes: number
}

export function parseExtend(value: unknown): Extend {
  const request = new JsonReader(value, "extend")
  const reserveBytes = request.count("reserve_bytes", maxBodyBytes)
  request.end()
  return { reserveBytes }
}

export function encodeExtend({ reserveBytes }: Extend): JsonObject {
  return { reserve_bytes: reserveBytes }
}

export interface ExtendReply {
  readonly reservedBytes: number
  readonly expiresMs: number
}

export function parseExtendReply(value: unknown): ExtendReply {
  const reply = new JsonReader(value, "extend")
  return { reservedBytes: reply.count("reserved_bytes"), expiresMs: reply.count("expires_ms") }
}

export function encodeExtendReply({ reservedBytes, expiresMs }: ExtendReply): JsonObject {
  return { reserved_bytes: reservedBytes, expires_ms: expiresMs }
}

// PUT /v1/uploads/:id/parts/:first

/** The relay's own leaves of the parts it just stored, 32 bytes each, in order. */
export interface PartsReply {
  readonly leaves: Uint8Array
}

export function parsePartsReply(value: unknown): PartsReply {
  return { leaves: readLeaves(new JsonReader(value, "parts")) }
}

export function encodePartsReply({ leaves }: PartsReply): JsonObject {
  return { leaves: toBase64url(leaves) }
}

function readLeaves(object: JsonReader): Uint8Array {
  const leaves = object.bytesUpTo("leaves", maxParts * hashBytes)
  if (leaves.length === 0 || leaves.length % hashBytes !== 0) {
    object.refuse("leaves", "not whole hashes")
  }
  return leaves
}

// GET /v1/uploads/:id

/** Consecutive parts that have arrived. */
export interface PartRun {
  readonly first: number
  readonly leaves: Uint8Array
}

export interface UploadState {
  readonly state: "open" | "final"
  readonly reservedBytes: number
  readonly expiresMs: number
  /** Ascending, without overlap. */
  readonly runs: readonly PartRun[]
}

export function parseUploadState(value: unknown): UploadState {
  const reply = new JsonReader(value, "upload")
  let next = 0
  return {
    state: reply.oneOf("state", ["open", "final"]),
    reservedBytes: reply.count("reserved_bytes"),
    expiresMs: reply.count("expires_ms"),
    runs: reply.list("runs", maxParts, (item, index) => {
      const run = new JsonReader(item, `upload.runs.${index}`)
      const first = run.count("first", maxParts - 1, next)
      const leaves = readLeaves(run)
      next = first + leaves.length / hashBytes
      if (next > maxParts) run.refuse("leaves", "more parts than the largest body has")
      return { first, leaves }
    }),
  }
}

export function encodeUploadState(upload: UploadState): JsonObject {
  return {
    state: upload.state,
    reserved_bytes: upload.reservedBytes,
    expires_ms: upload.expiresMs,
    runs: upload.runs.map(({ first, leaves }) => ({ first, leaves: toBase64url(leaves) })),
  }
}

// POST /v1/uploads/:id/finish

/** The request is binary: a manifest can be 64 MiB, and base64 in JSON would double that in memory. */
export interface Finish {
  readonly header: Uint8Array
  readonly manifest: Uint8Array
  /** In the order of the start's recipients. */
  readonly envelopes: readonly Uint8Array[]
}

const finishPrefixBytes = 8 + recordBytes.header + 4

/** The most a finish can come to, for a relay to refuse a longer one unread. */
export function maxFinishBytes(manifestBytes: number, recipients: number): number {
  return finishPrefixBytes + manifestBytes + recipients * (2 + maxEnvelopeBytes)
}

export function encodeFinish({ header, manifest, envelopes }: Finish): Uint8Array {
  if (header.length !== recordBytes.header) throw new RangeError("a header is 184 bytes")
  if (envelopes.length === 0 || envelopes.length > maxRecipients) {
    throw new RangeError("a finish has 1 to 255 envelopes")
  }
  return concatBytes(
    utf8("KNHF"),
    Uint8Array.of(1, 0, 0, envelopes.length),
    header,
    u32(manifest.length),
    manifest,
    ...envelopes.flatMap((envelope) => [u16(envelope.length), envelope]),
  )
}

/** Gives views of `bytes`, not copies. */
export function parseFinish(bytes: Uint8Array): Finish {
  const reader = new ByteReader(bytes, "finish")
  reader.expectAscii("KNHF", "magic")
  reader.expectU8(1, "version")
  reader.zeros(2, "reserved")
  const count = reader.u8("envelope_count")
  if (count === 0) reader.refuse("envelope_count", "no envelope")
  const header = reader.take(recordBytes.header, "header")
  const manifestLength = reader.u32("manifest_len")
  if (manifestLength > maxManifestBytes) reader.refuse("manifest_len", "too large")
  const manifest = reader.take(manifestLength, "manifest")
  const envelopes: Uint8Array[] = []
  for (let i = 0; i < count; i++) {
    const length = reader.u16(`envelopes.${i}.len`)
    if (length > maxEnvelopeBytes) reader.refuse(`envelopes.${i}.len`, "too large")
    envelopes.push(reader.take(length, `envelopes.${i}`))
  }
  reader.end()
  return { header, manifest, envelopes }
}

export interface FinishReply {
  readonly id: string
  readonly receipts: readonly { readonly address: string; readonly receipt: Uint8Array }[]
}

export function parseFinishReply(value: unknown): FinishReply {
  const reply = new JsonReader(value, "finished")
  return {
    id: reply.id("id"),
    receipts: reply.list("receipts", maxRecipients, (item, index) => {
      const receipt = new JsonReader(item, `finished.receipts.${index}`)
      return {
        address: receipt.address("address"),
        receipt: receipt.bytes("receipt", recordBytes.receipt),
      }
    }),
  }
}

export function encodeFinishReply({ id, receipts }: FinishReply): JsonObject {
  return {
    id,
    receipts: receipts.map(({ address, receipt }) => ({ address, receipt: toBase64url(receipt) })),
  }
}

// GET /v1/inbox

export interface InboxQuery {
  /** Entries with a greater seq are wanted. */
  readonly after: number
  readonly limit: number
  /** How long to wait for one when there is none yet. */
  readonly waitSeconds: number
  readonly envelopes: boolean
}

/** `query` is everything after the question mark. What is left out takes the value in `defaults`. */
export function parseInboxQuery(query: URLSearchParams, defaults: InboxQuery): InboxQuery {
  const values = new Map<string, string>()
  for (const [name, value] of query) {
    if (!["after", "limit", "wait", "envelopes"].includes(name)) {
      throw new FormatError("query", "an unknown parameter")
    }
    if (values.has(name)) throw new FormatError(`query.${name}`, "given twice")
    values.set(name, value)
  }
  const number = (name: string, otherwise: number) => {
    const text = values.get(name)
    return text === undefined ? otherwise : parseDecimal(text, `query.${name}`)
  }
  const envelopes = number("envelopes", defaults.envelopes ? 1 : 0)
  if (envelopes > 1) throw new FormatError("query.envelopes", "not 0 or 1")
  const limit = number("limit", defaults.limit)
  if (limit === 0) throw new FormatError("query.limit", "nothing asked for")
  return {
    after: number("after", defaults.after),
    limit,
    waitSeconds: number("wait", defaults.waitSeconds),
    envelopes: envelopes === 1,
  }
}

export function encodeInboxQuery(query: InboxQuery): string {
  return new URLSearchParams({
    after: String(query.after),
    limit: String(query.limit),
    ...(query.waitSeconds > 0 && { wait: String(query.waitSeconds) }),
    ...(query.envelopes && { envelopes: "1" }),
  }).toString()
}

/** A delivery that waits. */
export interface WaitingEntry {
  readonly kind: "waiting"
  readonly seq: number
  readonly id: string
  readonly stamp: Uint8Array
  readonly header: Uint8Array
  /** There when the query asked for envelopes. */
  readonly envelope?: Uint8Array
}

/** One that was taken, revoked or lost, or has expired: what the chain needs of it. */
export interface GoneEntry {
  readonly kind: "gone"
  readonly seq: number
  readonly tombstone: Uint8Array
}

export type InboxEntry = WaitingEntry | GoneEntry

export interface InboxPage {
  /** The signed head record. */
  readonly head: Uint8Array
  /** The last entry no longer listed, and the chain's head after it. */
  readonly floor: { readonly seq: number; readonly head: Uint8Array }
  /** By ascending seq. */
  readonly entries: readonly InboxEntry[]
  readonly more: boolean
  readonly used: { readonly bytes: number; readonly deliveries: number }
  /** Entries with a greater seq have not been listed in any session before. */
  readonly newAfter: number
  /** Of a relay whose heads have flag 1. */
  readonly restored?: Restoration
}

const maxPage = 10_000

export function parseInboxPage(value: unknown): InboxPage {
  const page = new JsonReader(value, "inbox")
  const floor = page.object("floor")
  const used = page.object("used")
  let next = 1
  return {
    head: page.bytes("head", recordBytes.head),
    floor: { seq: floor.count("seq"), head: floor.bytes("head", hashBytes) },
    entries: page.list("entries", maxPage, (item, index) => {
      const entry = parseInboxEntry(new JsonReader(item, `inbox.entries.${index}`), next)
      next = entry.seq + 1
      return entry
    }),
    more: page.flag("more"),
    used: { bytes: used.count("bytes"), deliveries: used.count("deliveries") },
    newAfter: page.count("new_after"),
    ...(page.has("restored") && { restored: readRestoration(page.object("restored")) }),
  }
}

function parseInboxEntry(entry: JsonReader, leastSeq: number): InboxEntry {
  const seq = entry.count("seq", Number.MAX_SAFE_INTEGER, leastSeq)
  if (entry.has("tombstone")) {
    return { kind: "gone", seq, tombstone: entry.bytes("tombstone", recordBytes.tombstone) }
  }
  return {
    kind: "waiting",
    seq,
    id: entry.id("id"),
    stamp: entry.bytes("stamp", recordBytes.stamp),
    header: entry.bytes("header", recordBytes.header),
    ...(entry.has("envelope") && { envelope: entry.bytesUpTo("envelope", maxEnvelopeBytes) }),
  }
}

export function encodeInboxPage(page: InboxPage): JsonObject {
  return {
    head: toBase64url(page.head),
    floor: { seq: page.floor.seq, head: toBase64url(page.floor.head) },
    entries: page.entries.map(encodeInboxEntry),
    more: page.more,
    used: { bytes: page.used.bytes, deliveries: page.used.deliveries },
    new_after: page.newAfter,
    ...(page.restored && { restored: encodeRestoration(page.restored) }),
  }
}

function encodeInboxEntry(entry: InboxEntry): JsonObject {
  if (entry.kind === "gone") {
    return { seq: entry.seq, tombstone: toBase64url(entry.tombstone) }
  }
  return {
    seq: entry.seq,
    id: entry.id,
    stamp: toBase64url(entry.stamp),
    header: toBase64url(entry.header),
    ...(entry.envelope && { envelope: toBase64url(entry.envelope) }),
  }
}

// GET /v1/deliveries/:id/status

const recipientStates = ["waiting", "taken", "revoked", "expired", "lost", "removed"] as const
export type RecipientState = (typeof recipientStates)[number]

export interface StatusReply {
  readonly id: string
  readonly acceptedMs: number
  readonly expiresMs: number
  readonly recipients: readonly { readonly address: string; readonly state: RecipientState }[]
}

export function parseStatusReply(value: unknown): StatusReply {
  const status = new JsonReader(value, "status")
  return {
    id: status.id("id"),
    acceptedMs: status.count("accepted_ms"),
    expiresMs: status.count("expires_ms"),
    recipients: status.list("recipients", maxRecipients, (item, index) => {
      const recipient = new JsonReader(item, `status.recipients.${index}`)
      return {
        address: recipient.address("address"),
        state: recipient.oneOf("state", recipientStates),
      }
    }),
  }
}

export function encodeStatusReply(status: StatusReply): JsonObject {
  return {
    id: status.id,
    accepted_ms: status.acceptedMs,
    expires_ms: status.expiresMs,
    recipients: status.recipients.map(({ address, state }) => ({ address, state })),
  }
}
