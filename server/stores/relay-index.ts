// The port to the index: what the relay must find quickly and change atomically. Everything in it can
// be rebuilt from the blob store, or may be forgotten (sessions, leases, reservations).
//
// What every adapter promises, under any number of concurrent callers in any number of processes:
// - each method is one atomic step; callers never read and then write what they read;
// - each method may run twice with the same arguments and has then the effect of running once;
// - each touches one upload, one inbox, one session or the one budget, never two of them, so that an
//   adapter on a cluster can keep each of those on one node;
// - what has an end is gone for every reader from that moment on, whether or not its space has been
//   reclaimed; `reclaim` only frees space;
// - a method that rejects changed nothing, or changed what it was to change.
//
// Bytes handed in are not kept by reference and bytes handed out are the caller's own.
import type { TombstoneReason } from "../../protocol/index.js"
import type { DeliveryId, InboxId } from "../ids.js"

export interface OpenUpload {
  readonly id: DeliveryId
  /** SHA-256 of the upload token. */
  readonly tokenHash: Uint8Array
  /** SHA-256 of the request that started it, to tell a retry from another request. */
  readonly startHash: Uint8Array
  readonly recipients: readonly InboxId[]
  /** SHA-256 of the delete capability. */
  readonly deleteHash: Uint8Array
  readonly createdMs: number
  readonly reservedBytes: number
  readonly expiresMs: number
}

/** An upload that was finished or given up takes no part any more. */
export type UploadEntry =
  ({ readonly state: "open" } & OpenUpload) | { readonly state: "closed"; readonly dueMs: number }

export interface UploadClose {
  readonly id: DeliveryId
  readonly dueMs: number
}

export interface PartEntry {
  readonly index: number
  readonly leaf: Uint8Array
  readonly lengthBytes: number
}

/**
 * `stored` now, the `same` was there, another one `differs`, or the part does not fit the ones around
 * it: a part shorter than its place on the grid can only be the last (`misplaced`).
 */
export type SetPartOutcome = "stored" | "same" | "differs" | "misplaced" | "closed" | "unknown"

/** A delivery's place in one inbox's chain. */
export interface ChainPlace {
  readonly seq: number
  /** The chain's head after it. */
  readonly head: Uint8Array
  readonly id: DeliveryId
  readonly headerHash: Uint8Array
  readonly envelopeHash: Uint8Array
  readonly acceptedMs: number
  readonly expiresMs: number
}

export interface WaitingEntry extends ChainPlace {
  readonly kind: "waiting"
  /** What it counts for in the inbox's quota. */
  readonly sizeBytes: number
  readonly stamp: Uint8Array
  readonly header: Uint8Array
}

/** Also with its envelope, where that was asked for or is being stored. */
export interface WaitingEntryWithEnvelope extends WaitingEntry {
  readonly envelope: Uint8Array
}

export interface GoneEntry extends ChainPlace {
  readonly kind: "gone"
  readonly reason: TombstoneReason
}

export type ChainEntry = WaitingEntry | GoneEntry

/** Where a chain stands. `visible` is as far as listings and signed heads go. */
export interface Chain {
  readonly seq: number
  readonly head: Uint8Array
  readonly visibleSeq: number
  readonly visibleHead: Uint8Array
  readonly floorSeq: number
  readonly floorHead: Uint8Array
}

export interface Quota {
  readonly bytes: number
  readonly deliveries: number
}

export interface InboxListing {
  readonly chain: Chain
  /** By ascending seq; none is invisible, none at or below the floor. */
  readonly entries: readonly (ChainEntry | WaitingEntryWithEnvelope)[]
  readonly more: boolean
  readonly used: Quota
  /** Entries with a greater seq were in no listing before this one. */
  readonly listedSeq: number
  /** The earliest moment at which something was accepted that is not visible yet. */
  readonly acceptingMs: number | undefined
}

export interface Session {
  readonly tokenHash: Uint8Array
  readonly inbox: InboxId
  readonly createdMs: number
  readonly lastUsedMs: number
  /** It ends then in any case. */
  readonly absoluteMs: number
}

export interface RestoredInbox {
  readonly inbox: InboxId
  readonly bundle: Uint8Array
  readonly floorSeq: number
  readonly floorHead: Uint8Array
  /** The entries above the floor, in order: all, or as many as make a page. */
  readonly entries: readonly RestoredEntry[]
}

export type RestoredEntry = GoneEntry | WaitingEntryWithEnvelope

/** How much there is of everything, for whoever runs the relay. */
export interface Tally {
  readonly inboxes: number
  /** Places in inboxes that a delivery takes, of every age. */
  readonly waiting: Quota
  readonly openUploads: number
}

export interface RelayIndex extends UploadIndex, InboxIndex, SessionIndex {
  // Whose index this is. A marker that differs from the data folder's says that it was emptied or
  // belongs to another relay.
  marker(): Promise<string | undefined>
  setMarker(marker: string): Promise<void>
  /** Forgets everything. */
  clear(): Promise<void>

  /** Kept as things change: asking costs the same however much there is. */
  tally(): Promise<Tally>
  /** Frees the space of what has ended. */
  reclaim(): Promise<void>
  close(): Promise<void>
}

/** Uploads, their parts, and the one budget of the disk they share. */
export interface UploadIndex {
  /** Stores the upload unless its id is known; gives what is stored. */
  startUpload(upload: OpenUpload): Promise<UploadEntry>
  upload(id: DeliveryId): Promise<UploadEntry | undefined>
  /** Reservation and end only ever grow. Gives what is stored then. */
  extendUpload(change: {
    readonly id: DeliveryId
    readonly reservedBytes: number
    readonly expiresMs: number
  }): Promise<UploadEntry | undefined>
  /** First write wins: of concurrent different parts for one place exactly one is `stored`. */
  setPart(part: PartEntry & { readonly id: DeliveryId }): Promise<SetPartOutcome>
  /** Forgets a part, if it is the one with this leaf. */
  removePart(part: {
    readonly id: DeliveryId
    readonly index: number
    readonly leaf: Uint8Array
  }): Promise<void>
  part(place: { readonly id: DeliveryId; readonly index: number }): Promise<PartEntry | undefined>
  /** By ascending index. */
  parts(id: DeliveryId): Promise<PartEntry[]>
  /**
   * Ends an upload, known before or not: its parts are forgotten, and `due` names it from `dueMs` on.
   * Again with another `dueMs` moves only that.
   */
  closeUpload(close: UploadClose): Promise<void>
  /** The same of many, each a step of its own: none depends on another. */
  closeUploads(closes: readonly UploadClose[]): Promise<void>
  forgetUpload(id: DeliveryId): Promise<void>
  /** Uploads past their end and deliveries past theirs: hints for the sweep, which asks the disk. */
  due(limit: number): Promise<DeliveryId[]>

  /** Keeps others off one upload or one inbox until `untilMs`. The same owner may renew. */
  claim(claim: Claim & { readonly untilMs: number }): Promise<boolean>
  unclaim(claim: Claim): Promise<void>

  /** While it lasts, the sweep leaves the delivery alone. Only ever prolonged. */
  lease(lease: { readonly id: DeliveryId; readonly untilMs: number }): Promise<void>
  leasedUntil(id: DeliveryId): Promise<number | undefined>

  // The one budget

  /**
   * Reserves room on the disk for an upload, up to `roomBytes` for all of them together; an earlier
   * reservation of the same upload is replaced. False changes nothing.
   */
  reserveRoom(reservation: {
    readonly id: DeliveryId
    readonly bytes: number
    readonly roomBytes: number
    readonly untilMs: number
  }): Promise<boolean>
  releaseRoom(id: DeliveryId): Promise<void>
}

/** Inboxes, their chains and their quotas. */
export interface InboxIndex {
  /** True the first time. */
  openInbox(inbox: InboxId, bundle: Uint8Array): Promise<boolean>
  bundle(inbox: InboxId): Promise<Uint8Array | undefined>
  chain(inbox: InboxId): Promise<Chain | undefined>
  inboxes(): Promise<InboxId[]>
  /** Forgets an inbox and all that is in it. */
  removeInbox(inbox: InboxId): Promise<void>
  /**
   * Replaces what is known of an inbox, but for what is reserved in it. The entries are visible at once,
   * and each takes the place of its upload's share and of its acceptance.
   */
  restoreInbox(restored: RestoredInbox): Promise<void>
  /**
   * More entries of the same kind, waiting or gone, if the chain stands at `afterSeq` and is visible that
   * far; else nothing happens.
   */
  restoreEntries(more: {
    readonly inbox: InboxId
    readonly afterSeq: number
    readonly entries: readonly RestoredEntry[]
  }): Promise<void>

  /** Reserves a share of the inbox's quota for an upload, in the manner of `reserveRoom`. */
  reserveShare(reservation: {
    readonly inbox: InboxId
    readonly id: DeliveryId
    readonly bytes: number
    readonly quota: Quota
    readonly untilMs: number
  }): Promise<"reserved" | "full" | "unknown">
  releaseShare(share: { readonly inbox: InboxId; readonly id: DeliveryId }): Promise<void>

  /** From now on listings know that something accepted at that time may not be visible yet. */
  beginAccepting(accepting: {
    readonly inbox: InboxId
    readonly id: DeliveryId
    readonly acceptedMs: number
  }): Promise<void>
  endAccepting(accepting: { readonly inbox: InboxId; readonly id: DeliveryId }): Promise<void>
  /** What was begun and not ended. */
  accepting(inbox: InboxId): Promise<{ readonly id: DeliveryId; readonly acceptedMs: number }[]>

  /**
   * Appends entries whose seq follow `afterSeq`, if that is where the chain stands; else `moved`. They
   * stay invisible until `reveal`. Each takes the place of its upload's share of the quota.
   */
  assign(change: {
    readonly inbox: InboxId
    readonly afterSeq: number
    readonly entries: readonly WaitingEntryWithEnvelope[]
  }): Promise<"assigned" | "moved" | "unknown">
  /** Makes the chain visible through `seq` and wakes those who wait for it. */
  reveal(change: { readonly inbox: InboxId; readonly seq: number }): Promise<void>
  /** Assigned and not visible, in order. */
  unrevealed(inbox: InboxId): Promise<WaitingEntryWithEnvelope[]>

  /** The entry for exactly this header and envelope. */
  entryByContent(content: {
    readonly inbox: InboxId
    readonly headerHash: Uint8Array
    readonly envelopeHash: Uint8Array
  }): Promise<ChainEntry | undefined>
  entryById(place: {
    readonly inbox: InboxId
    readonly id: DeliveryId
  }): Promise<ChainEntry | undefined>
  /** Visible entries from just above `seq` on, as they are stored: without regard to expiry. */
  entriesAfter(query: {
    readonly inbox: InboxId
    readonly seq: number
    readonly limit: number
  }): Promise<ChainEntry[]>
  /** The envelope of an entry that waits. */
  envelope(place: {
    readonly inbox: InboxId
    readonly seq: number
  }): Promise<Uint8Array | undefined>
  /** Visible ids that wait, of every age. */
  waiting(inbox: InboxId): Promise<DeliveryId[]>
  listing(query: {
    readonly inbox: InboxId
    readonly afterSeq: number
    readonly limit: number
    readonly envelopes: boolean
  }): Promise<InboxListing | undefined>
  /** Turns waiting entries into gone ones; entries gone already keep their reason. */
  bury(change: {
    readonly inbox: InboxId
    readonly seqs: readonly { readonly seq: number; readonly reason: TombstoneReason }[]
  }): Promise<void>
  /** Forgets the entries up to `seq`, which are all gone. */
  raiseFloor(change: {
    readonly inbox: InboxId
    readonly seq: number
    readonly head: Uint8Array
  }): Promise<void>
  /** Calls `changed` after each `reveal` of this inbox, by whichever process. The result ends that. */
  watch(inbox: InboxId, changed: () => void): () => void
}

/** Sessions, and what all processes of a relay share. */
export interface SessionIndex {
  addSession(session: Session & { readonly idleMs: number }): Promise<void>
  /** The session of this token while it lasts; notes that it was used. */
  useSession(use: {
    readonly tokenHash: Uint8Array
    readonly idleMs: number
  }): Promise<Session | undefined>
  sessions(inbox: InboxId): Promise<Session[]>
  /** `id` is the first 16 bytes of the token's hash. Nothing happens when it is another inbox's. */
  endSession(end: { readonly inbox: InboxId; readonly id: DeliveryId }): Promise<void>
  /** True for the first who spends `value`, until `untilMs`. */
  spend(spent: { readonly value: Uint8Array; readonly untilMs: number }): Promise<boolean>
  /** The secret of that name; the first candidate becomes it. Never on disk. */
  sharedSecret(secret: {
    readonly name: string
    readonly candidate: Uint8Array
    readonly untilMs: number
  }): Promise<Uint8Array>
}

export interface Claim {
  readonly what: "upload" | "inbox"
  readonly name: DeliveryId | InboxId
  /** Random, one for each attempt. */
  readonly owner: string
}
