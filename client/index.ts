/**
 * The face of the client library: send, pick up, and what both need. Signatures first; every
 * function takes an AbortSignal where it may wait, and keeps what it must remember in a
 * `ClientState` that the caller opened.
 */
import type { Bundle, Identity, Manifest } from "../protocol/index.js"

export {
  DeliveryGone,
  DestinationExists,
  DiskFull,
  Locked,
  NotARelay,
  RelayUnreachable,
  SourceChanged,
  SourceUnusable,
  UnknownInbox,
  Untrustworthy,
} from "./errors.js"

// ---- progress

export type Phase =
  | "asking the relay"
  | "fetching keys"
  | "scanning"
  | "sealing and sending"
  | "finishing"
  | "waiting for the relay"
  | "listing"
  | "opening"
  | "fetching"
  | "syncing"
  | "putting in place"

export type ProgressEvent =
  | { kind: "phase"; phase: Phase }
  /** `alreadyThere` bytes were at the other side before this run: leave them out of rates. */
  | { kind: "bytes"; done: number; total: number | undefined; alreadyThere: number }
  /** How many of something countable (files scanned, rows opened). */
  | { kind: "count"; done: number; total: number | undefined }
  | { kind: "notice"; text: string }
  | { kind: "retry"; reason: string; delayMs: number; attempt: number }

export type OnProgress = (event: ProgressEvent) => void

// ---- state

/** A folder of this client's own: journals, pins, caches, records of what was sent. */
export interface ClientState {
  readonly folder: string
}
/** Makes the folder (0700) when it is not there. */
export declare function openState(folder: string): ClientState

// ---- send

export type Source =
  | { kind: "path"; path: string }
  | { kind: "stream"; name: string; stream: AsyncIterable<Uint8Array> }

export interface SendOptions {
  /** `knot1…@host`, drop-page links, or bare addresses together with `relay`. */
  recipients: readonly string[]
  /** Origin for recipients that name no host. */
  relay?: string
  sources: readonly Source[]
  note?: string
  /** Wish for the end of keeping, by the sender's clock. */
  notAfterMs?: number
  sender?: { identity: Identity; mode: "deniable" | "signature"; replyHost?: string }
  state: ClientState
  /** Do not resume what an earlier call left unfinished; start over. */
  fresh?: boolean
  /** Carry modification times (they identify; off by default). */
  times?: boolean
  requestBytes?: number
  /** Requests in flight, 1 to 6. */
  parallel?: number
  signal?: AbortSignal
  onProgress?: OnProgress
}

export interface SentDelivery {
  id: string
  origin: string
  addresses: string[]
  receipts: { address: string; receipt: Uint8Array }[]
  expiresMs: number
  entries: number
  contentBytes: number
  /** Bytes of parts that this call put on the wire, repeats included. */
  sentBytes: number
  resumed: boolean
  skipped: { path: string; reason: string }[]
}
export interface SendResult {
  deliveries: SentDelivery[]
}
export declare function send(options: SendOptions): Promise<SendResult>

// ---- what was sent

export interface SentRecord {
  id: string
  origin: string
  addresses: string[]
  receipts: { address: string; receipt: Uint8Array }[]
  acceptedMs: number
  expiresMs: number
  entries: number
  contentBytes: number
}
export interface DeliveryStatus {
  id: string
  acceptedMs: number
  expiresMs: number
  recipients: {
    address: string
    state: "waiting" | "taken" | "revoked" | "expired" | "lost" | "removed"
  }[]
}
export interface SentOptions {
  id: string
  state: ClientState
  signal?: AbortSignal
  onProgress?: OnProgress
}
export declare function listSent(state: ClientState): Promise<SentRecord[]>
export declare function deliveryStatus(options: SentOptions): Promise<DeliveryStatus>
/** Deletes the delivery for all its recipients. */
export declare function revokeDelivery(options: SentOptions): Promise<void>
/** Erases the local record; the delivery stays at the relay, out of this client's reach. */
export declare function forgetSent(options: { id: string; state: ClientState }): Promise<void>

// ---- relay

export interface RelayFacts {
  origin: string
  version: string
  signingKey: Uint8Array
  registration: "open" | "closed"
  limits: { [name: string]: number }
  /** Relay's clock minus this machine's. */
  clockAheadMs: number
}
export interface RelayOptions {
  relay: string
  state: ClientState
  signal?: AbortSignal
  onProgress?: OnProgress
}
/** Asks what the relay is, and holds its signing key against the pinned one. */
export declare function relayInfo(options: RelayOptions): Promise<RelayFacts>
/** The owner's explicit yes to a relay key that changed: forgets the pinned one. */
export declare function forgetPin(options: { relay: string; state: ClientState }): Promise<void>
/** A bundle from the relay, checked against the address. */
export declare function fetchBundle(options: RelayOptions & { address: string }): Promise<Bundle>
/** Opens an inbox for this identity at the relay; `created` is false when it was there already. */
export declare function registerInbox(
  options: RelayOptions & { identity: Identity },
): Promise<{ address: string; created: boolean }>

// ---- inbox

export type Sender =
  /** Anonymous, or somebody whose bundle the caller did not supply. */
  | { kind: "unverified" }
  | { kind: "deniable" | "signed"; fingerprint: Uint8Array }
  /** Claims a sender and does not verify as that sender: must not be received. */
  | { kind: "refused" }

export interface InboxRow {
  id: string
  seq: number
  receivedMs: number
  expiresMs: number
  /** Content, or the padded body where the delivery cannot be opened. */
  sizeBytes: number
  entries: number
  note: string
  sender: Sender
  isNew: boolean
  /** The same sealed delivery is also there under this id. */
  duplicateOf?: string
  problem?: string
}

export interface OpenInboxOptions extends RelayOptions {
  identity: Identity
  /** The bundles of people this owner knows, by fingerprint; without one a sender is unverified. */
  senders?: (fingerprint: Uint8Array) => Bundle | undefined
}
export declare function openInbox(options: OpenInboxOptions): Promise<Inbox>

export interface ListOptions {
  onRow?: (row: InboxRow) => void
  onProgress?: OnProgress
  signal?: AbortSignal
}
export interface ReceiveOptions {
  into: string
  /** Leave the relay's copy. */
  keep?: boolean
  onExisting?: "fail" | "overwrite" | "rename"
  executable?: boolean
  times?: boolean
  parallel?: number
  signal?: AbortSignal
  onProgress?: OnProgress
}
export interface ReceiveResult {
  id: string
  /** What was put into the folder: the top-level names of the delivery, as paths. */
  paths: string[]
  files: number
  bytes: number
  note: string
  resumed: boolean
  /** Entries that were left out; when there are any, the relay's copy stays. */
  failed: { path: string; reason: string }[]
  /** Bytes of the body that this call fetched, repeats included. */
  fetchedBytes: number
}
export interface OpenDelivery {
  id: string
  receivedMs: number
  expiresMs: number
  sender: Sender
  manifest: Manifest
  /** A verified piece of one file. */
  read(options: {
    entry: number
    offset: number
    length: number
    signal?: AbortSignal
  }): Promise<Uint8Array>
}
export interface Inbox {
  list(options?: ListOptions): Promise<InboxRow[]>
  open(id: string, options?: { signal?: AbortSignal }): Promise<OpenDelivery>
  receive(id: string, options: ReceiveOptions): Promise<ReceiveResult>
  /** Deletes the relay's copy in this inbox. */
  discard(id: string, options?: { signal?: AbortSignal }): Promise<void>
  close(): void
}
