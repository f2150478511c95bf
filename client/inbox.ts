import type { Bundle, Identity, Manifest } from "../protocol/index.js"
import type { OnProgress } from "./progress.js"
import type { RelayOptions } from "./relay.js"

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
