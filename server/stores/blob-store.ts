// The port to the blob store: uploads in progress, deliveries, and what is remembered of those that are
// gone. It is the truth that the index is rebuilt from.
//
// Callers rely on this: a method that says *durable* has synced the bytes and the names that lead to
// them when it resolves; a delivery exists from the moment `commit` has renamed its folder, whole, and
// never in part; a failure leaves the step undone, or done without having said so; records that were
// not written by this relay are refused with a FormatError.
import type { RecipientState } from "../../protocol/index.js"
import type { DiskSpace } from "../disk.js"
import type { DeliveryId, InboxId } from "../ids.js"
import type { OpenUpload, PartEntry } from "./relay-index.js"

/** The record that makes an upload a delivery. */
export interface Commit {
  readonly id: DeliveryId
  readonly tokenHash: Uint8Array
  readonly startHash: Uint8Array
  readonly deleteHash: Uint8Array
  readonly createdMs: number
  readonly acceptedMs: number
  readonly expiresMs: number
  /** The class of brakes the upload passed. */
  readonly lane: number
  readonly header: Uint8Array
  /** In the order of the start's recipients. */
  readonly links: readonly CommitLink[]
}

export interface CommitLink {
  readonly inbox: InboxId
  readonly envelopeHash: Uint8Array
  readonly envelopeBytes: number
}

/** A delivery's place in an inbox, beside the envelope for it. */
export interface Link {
  readonly seq: number
  readonly head: Uint8Array
  readonly stamp: Uint8Array
}

export interface StoredLink {
  readonly envelope: Uint8Array
  /** Undefined until it was published. It counts only when the inbox's log has its seq as well. */
  readonly link: Link | undefined
}

export interface StoredDelivery {
  readonly commit: Commit
  /** In the order of the commit's links. */
  readonly links: readonly StoredLink[]
}

/** What stays of a delivery whose last link is gone. */
export interface Ended {
  readonly commit: Commit
  /** In the order of the links. */
  readonly states: readonly RecipientState[]
  readonly forgetMs: number
}

export interface PartPlace {
  readonly id: DeliveryId
  readonly index: number
  readonly leaf: Uint8Array
}

/** A part under its own name. It must be kept, discarded or left. */
export interface WrittenPart {
  /** Begins to make it durable in the background, where it is not. */
  keep(): void
  /** Removes it, unless the same part is being kept: another one has its place. */
  discard(): Promise<void>
  /** Nothing: whether it counts is not known, and who finds that it does must find it. */
  leave(): Promise<void>
}

/** A manifest on its way to the disk. */
export interface ManifestFile {
  write(bytes: Uint8Array): Promise<void>
  /** Makes the contents durable. */
  finish(): Promise<void>
  /** Makes it the one that `commit` takes, in place of any other. Fails when it is not whole. */
  place(): Promise<void>
  /** Removes this one and no other. */
  discard(): Promise<void>
}

export interface BlobStore {
  // Uploads

  /** Durable; replaces what was saved of the upload before. */
  saveUpload(upload: OpenUpload): Promise<void>
  readUpload(id: DeliveryId): Promise<OpenUpload | undefined>
  uploads(): Promise<DeliveryId[]>
  /** When the upload's folder was last changed, for one whose record cannot be read. */
  uploadChangedMs(id: DeliveryId): Promise<number | undefined>
  /**
   * Resolves when the bytes stand under a name made of index and leaf; durable, where other processes may
   * finish the upload: none of them can know what became of a sync of this one.
   */
  writePart(part: PartPlace & { readonly bytes: Uint8Array }): Promise<WrittenPart>
  /** Names only; whether the contents are as the name says is for the caller to check. */
  partsOf(id: DeliveryId): Promise<PartPlace[]>
  /** Waits until the parts are durable, and names those that cannot be made so, or are not there. */
  syncParts(id: DeliveryId, parts: readonly PartEntry[]): Promise<PartEntry[]>
  removePart(part: PartPlace): Promise<void>
  stageManifest(id: DeliveryId): Promise<ManifestFile>
  /**
   * Turns the upload into a delivery, durable. The parts and the manifest are durable already. Gives
   * the commit that counts, which is an earlier one when this upload was committed before.
   */
  commit(input: {
    readonly commit: Commit
    readonly parts: readonly PartEntry[]
    readonly envelopes: readonly Uint8Array[]
  }): Promise<Commit>
  /** Makes commits that were renamed into place, and no more than that, durable. */
  syncStore(): Promise<void>
  dropUpload(id: DeliveryId): Promise<void>

  // Deliveries

  deliveries(): Promise<DeliveryId[]>
  isDelivery(id: DeliveryId): Promise<boolean>
  /** Whether every file of the delivery is there, as long as it has to be. Reads no contents. */
  isWhole(id: DeliveryId): Promise<boolean>
  readCommit(id: DeliveryId): Promise<Commit | undefined>
  readLinks(commit: Commit): Promise<StoredLink[]>
  /**
   * Commits with their links, many at once, undefined for each that is not there. What stands in one of
   * them is looked at by the call that is given for it, and refused by that.
   */
  readDeliveries(ids: readonly DeliveryId[]): Promise<(() => StoredDelivery | undefined)[]>
  /** Durable. */
  saveLink(id: DeliveryId, slot: number, link: Link): Promise<void>
  /** Bytes `from` to `to` of the 32-byte leaves, one behind the other. */
  readLeaves(
    id: DeliveryId,
    range: { readonly from: number; readonly to: number },
  ): Promise<Uint8Array>
  openManifest(id: DeliveryId): Promise<BlobReader>
  /** The stored part, in a delivery or an upload. */
  openPart(part: PartPlace, where: "spool" | "store"): Promise<BlobReader>

  /** Removes a delivery that is not whole; nothing is remembered of it. */
  dropDelivery(id: DeliveryId): Promise<void>
  /** Remembers the end, durable, and then removes the delivery. */
  end(ended: Ended): Promise<void>
  readEnded(id: DeliveryId): Promise<Ended | undefined>
  endedDeliveries(): Promise<DeliveryId[]>
  forgetEnded(id: DeliveryId): Promise<void>

  /** Removes leftovers that no record leads to; of those outside the trash only ones this old. */
  removeLeftovers(olderThanMs: number): Promise<number>
  space(): Promise<DiskSpace>
  /** Fails when nothing can be written. */
  probe(): Promise<void>
}

export interface BlobReader {
  /** Fills `into` from `position`, as far as the blob goes. */
  read(into: Uint8Array, position: number): Promise<number>
  sizeBytes(): Promise<number>
  close(): Promise<void>
}
