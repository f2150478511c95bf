// What becomes of a delivery: listing, the pieces of it, its end. Knows nothing of HTTP.
import {
  encodeHead,
  encodeTombstone,
  equalBytes,
  type Header,
  headerHash,
  type InboxEntry,
  type InboxPage,
  type InboxQuery,
  parseHeader,
  type RecipientState,
  RelayRefusal,
  type Restoration,
  sha256,
  type StatusReply,
  type TombstoneReason,
} from "../protocol/index.js"
import type { Chains } from "./chains.js"
import type { Clock } from "./clock.js"
import { headLagMs } from "./clock-watch.js"
import { unlessMissing } from "./disk.js"
import { addressOf, type DeliveryId, type InboxId, inboxIdBytesOf } from "./ids.js"
import type { BlobReader, BlobStore, Commit } from "./stores/blob-store.js"
import type { ChainEntry, InboxListing, RelayIndex, WaitingEntry } from "./stores/relay-index.js"
import type { RelayKeys } from "./stores/relay-keys.js"
import type { Publishing } from "./publishing.js"

const minuteMs = 60_000
const leaseMs = 10 * minuteMs
/**
 * While an answer is on its way. By the clock and not by the request or the part: one request may ask
 * for a whole body, and what takes a part is up to the recipient's line.
 */
const renewEveryMs = leaseMs / 2
/** However long a download goes on, its delivery is gone this long after it expired. */
const graceMs = 60 * minuteMs
/** How long it is remembered, past expiry, what became of a delivery. */
export const rememberMs: number = 30 * 24 * 60 * minuteMs

/** A delivery that waits in the inbox of whoever asks. */
export interface OwnDelivery {
  readonly id: DeliveryId
  readonly inbox: InboxId
  readonly entry: WaitingEntry
  readonly header: Header
}

export interface Deliveries {
  list(inbox: InboxId, query: InboxQuery, signal: AbortSignal): Promise<InboxPage>
  /** Refuses what is not in this inbox, whether or not it is in another one. */
  own(inbox: InboxId, id: DeliveryId): Promise<OwnDelivery>
  envelope(delivery: OwnDelivery): Promise<Uint8Array>
  manifest(delivery: OwnDelivery): Promise<BlobReader>
  /** Leaves of the parts from `first` to `last`, one behind the other. */
  leaves(
    delivery: OwnDelivery,
    range: { readonly first: number; readonly last: number },
  ): Promise<Uint8Array>
  part(
    delivery: OwnDelivery,
    part: { readonly index: number; readonly leaf: Uint8Array },
  ): Promise<BlobReader>
  /**
   * Keeps the sweep away from now until the result is called, and ten minutes longer for the next
   * request; but not for ever.
   */
  holdLease(delivery: OwnDelivery): Promise<() => void>
  /** For the holder of the delete capability. */
  status(id: DeliveryId, capability: Uint8Array): Promise<StatusReply>
  /** The recipient removes its own copy. */
  discard(inbox: InboxId, id: DeliveryId): Promise<void>
  /** The recipient removes everything that waits in the inbox. */
  discardAll(inbox: InboxId): Promise<void>
  /** The sender removes it for everybody. False when this is not its delete capability. */
  revoke(id: DeliveryId, capability: Uint8Array): Promise<boolean>
  /** Buries what is left of a delivery and removes it. */
  remove(commit: Commit, reason: TombstoneReason): Promise<void>
  /** Removes a delivery that waits for nobody any more. */
  endIfDone(id: DeliveryId): Promise<void>
}

export interface DeliveriesNeeds {
  readonly index: RelayIndex
  readonly blobs: BlobStore
  readonly chains: Chains
  readonly keys: RelayKeys
  readonly publishing: Publishing
  readonly clock: Clock
  readonly nowMs: () => number
  /** A time not later than now before which nothing will be accepted any more, in no later run either. */
  readonly signableMs: () => Promise<number>
  /** Rejects where the index may not say what the disk says; asked anew each time. */
  readonly trustIndex: () => Promise<void>
  readonly restoration: Restoration | undefined
}

export function createDeliveries(needs: DeliveriesNeeds): Deliveries {
  const { index, blobs, chains, keys, clock, nowMs, signableMs, trustIndex, restoration } = needs

  async function listing(inbox: InboxId, query: InboxQuery): Promise<InboxListing> {
    const { after: afterSeq, limit, envelopes } = query
    const found = await index.listing({ inbox, afterSeq, limit, envelopes })
    if (found === undefined) throw new RelayRefusal("no_such_inbox")
    return found
  }

  /** Waits for something after `query.after`, or until the time is over or nobody wants to know. */
  async function waitForNews(
    inbox: InboxId,
    query: InboxQuery,
    signal: AbortSignal,
  ): Promise<void> {
    let stop: (() => void) | undefined
    const news = new Promise<void>((resolve) => {
      const unwatch = index.watch(inbox, resolve)
      const cancel = clock.after(query.waitSeconds * 1000, resolve)
      const onAbort = (): void => resolve()
      signal.addEventListener("abort", onAbort)
      stop = () => {
        unwatch()
        cancel()
        signal.removeEventListener("abort", onAbort)
      }
    })
    try {
      // Watched first and asked then: what comes in between is not missed.
      const chain = await index.chain(inbox)
      if (chain !== undefined && chain.visibleSeq > query.after) return
      if (!signal.aborted) await news
    } finally {
      stop?.()
    }
  }

  function page(inbox: InboxId, found: InboxListing, latestMs: number): InboxPage {
    const { chain, entries, more, used, listedSeq, acceptingMs } = found
    const asOfMs = Math.min(latestMs, (acceptingMs ?? Infinity) + headLagMs - 1)
    return {
      head: encodeHead({
        kid: keys.kid,
        inboxId: inboxIdBytesOf(inbox),
        asOfMs,
        seq: chain.visibleSeq,
        head: chain.visibleHead,
        floorSeq: chain.floorSeq,
        restored: restoration !== undefined,
        signSeed: keys.signSeed,
      }),
      ...(restoration && { restored: restoration }),
      floor: { seq: chain.floorSeq, head: chain.floorHead },
      entries: entries.map(pageEntry),
      more,
      used,
      newAfter: listedSeq,
    }
  }

  async function own(inbox: InboxId, id: DeliveryId): Promise<OwnDelivery> {
    const entry = await index.entryById({ inbox, id })
    const visibleSeq = (await index.chain(inbox))?.visibleSeq ?? 0
    if (entry === undefined || entry.seq > visibleSeq) throw new RelayRefusal("not_found")
    if (entry.kind === "gone") {
      throw new RelayRefusal(entry.reason === "expired" ? "expired" : "not_found")
    }
    if (entry.expiresMs <= nowMs() && (await index.leasedUntil(id)) === undefined) {
      throw new RelayRefusal("expired")
    }
    return { id, inbox, entry, header: parseHeader(entry.header) }
  }

  /** A recipient's entry: its own, or the one its content had in the inbox before. */
  async function entryOf(commit: Commit, slot: number): Promise<ChainEntry | undefined> {
    const link = commit.links[slot]
    if (link === undefined) throw new RangeError("the commit has no such link")
    const { inbox, envelopeHash } = link
    const entry = await index.entryById({ inbox, id: commit.id })
    if (entry !== undefined) return entry
    return index.entryByContent({ inbox, headerHash: headerHash(commit.header), envelopeHash })
  }

  /** What is known of an entry the chain has forgotten is what was noted at its end. */
  async function states(
    commit: Commit,
    noted: readonly RecipientState[] = [],
  ): Promise<RecipientState[]> {
    return Promise.all(
      commit.links.map(async (_, slot) => {
        const entry = await entryOf(commit, slot)
        if (entry?.kind === "gone") return entry.reason
        if (entry === undefined && noted[slot] !== undefined) return noted[slot]
        return (entry ?? commit).expiresMs <= nowMs() ? "expired" : "waiting"
      }),
    )
  }

  async function endIfDone(id: DeliveryId): Promise<void> {
    const commit = await blobs.readCommit(id)
    if (commit === undefined) return
    const entries = await Promise.all(
      commit.links.map(({ inbox }) => index.entryById({ inbox, id: commit.id })),
    )
    if (entries.some((entry) => entry?.kind === "waiting")) return
    // An inbox without an entry for this delivery had the same content before it, or is to get it yet.
    const known = await Promise.all(commit.links.map((_, slot) => entryOf(commit, slot)))
    if (known.includes(undefined)) return
    // Of a second copy, what is said later is what the chain says of the first.
    const expiresMs = Math.min(...known.map((entry) => (entry ?? commit).expiresMs))
    const forgetMs = expiresMs + rememberMs
    await blobs.end({ commit, states: await states(commit), forgetMs })
    await index.closeUpload({ id, dueMs: forgetMs })
  }

  async function remove(commit: Commit, asked: TombstoneReason): Promise<void> {
    try {
      // Every inbox gets its entry before it gets the tombstone: the chain has no holes.
      await needs.publishing.publish(commit)
    } catch (error) {
      // Its last recipient took it meanwhile, and it went with that: there is nothing left to remove.
      if (await blobs.isDelivery(commit.id)) throw error
      return
    }
    for (const { inbox } of commit.links) await bury(inbox, commit.id, asked)
    await endIfDone(commit.id)
  }

  async function discard(inbox: InboxId, id: DeliveryId): Promise<void> {
    await bury(inbox, id, "taken")
    await endIfDone(id)
  }

  /** What everybody saw expire stays expired: a tombstone's reason does not change before the sweep. */
  async function bury(inbox: InboxId, id: DeliveryId, asked: TombstoneReason): Promise<void> {
    const entry = await index.entryById({ inbox, id })
    const isOver =
      entry !== undefined &&
      entry.expiresMs <= nowMs() &&
      (await index.leasedUntil(id)) === undefined
    await chains.bury(inbox, id, isOver ? "expired" : asked)
  }

  async function renewLease({ id, entry }: OwnDelivery): Promise<void> {
    const now = nowMs()
    // Long before expiry nothing would remove it anyway.
    if (entry.expiresMs - now > leaseMs) return
    const untilMs = Math.min(now + leaseMs, entry.expiresMs + graceMs)
    await index.lease({ id, untilMs })
  }

  return {
    async list(inbox, query, signal) {
      if (query.waitSeconds > 0) await waitForNews(inbox, query, signal)
      // Taken before the index is asked: what is accepted while it answers is not in what it says.
      const latestMs = await signableMs()
      const found = await listing(inbox, query)
      // After it: an index that lost its last writes a moment ago was not doubted when this began, and a
      // head that was signed is not taken back.
      await trustIndex()
      return page(inbox, found, latestMs)
    },

    own,

    async envelope({ inbox, entry }) {
      const envelope = await index.envelope({ inbox, seq: entry.seq })
      if (envelope === undefined) throw new RelayRefusal("not_found")
      return envelope
    },

    manifest: ({ id }) => orGone(blobs.openManifest(id)),

    leaves: ({ id }, { first, last }) =>
      orGone(blobs.readLeaves(id, { from: 32 * first, to: 32 * (last + 1) })),

    part: ({ id }, { index: at, leaf }) => orGone(blobs.openPart({ id, index: at, leaf }, "store")),

    async holdLease(delivery) {
      await renewLease(delivery)
      let cancel = clock.after(renewEveryMs, renew)
      function renew(): void {
        cancel = clock.after(renewEveryMs, renew)
        // When one fails the lease before it still has time for another.
        renewLease(delivery).catch(() => undefined)
      }
      return () => cancel()
    },

    async status(id, capability) {
      const ended = await blobs.readEnded(id)
      const commit = ended?.commit ?? (await blobs.readCommit(id))
      if (commit === undefined || !equalBytes(commit.deleteHash, sha256(capability))) {
        throw new RelayRefusal("not_found")
      }
      const current = await states(commit, ended?.states)
      return {
        id,
        acceptedMs: commit.acceptedMs,
        expiresMs: commit.expiresMs,
        recipients: commit.links.map(({ inbox }, slot) => ({
          address: addressOf(inbox),
          state: current[slot] ?? "lost",
        })),
      }
    },

    discard,

    async discardAll(inbox) {
      for (const id of await index.waiting(inbox)) await discard(inbox, id)
    },

    async revoke(id, capability) {
      const deleteHash = sha256(capability)
      const commit = await blobs.readCommit(id)
      if (commit === undefined) {
        const ended = await blobs.readEnded(id)
        return ended !== undefined && equalBytes(ended.commit.deleteHash, deleteHash)
      }
      if (!equalBytes(commit.deleteHash, deleteHash)) return false
      await remove(commit, "revoked")
      return true
    },

    remove,
    endIfDone,
  }
}

/** A delivery that was removed while its pieces were being fetched. */
async function orGone<T>(read: Promise<T>): Promise<T> {
  const found = await unlessMissing(read, undefined)
  if (found === undefined) throw new RelayRefusal("not_found")
  return found
}

function pageEntry(entry: InboxListing["entries"][number]): InboxEntry {
  if (entry.kind === "gone") {
    return { kind: "gone", seq: entry.seq, tombstone: encodeTombstone(entry) }
  }
  const { seq, id, stamp, header } = entry
  const waiting = { kind: "waiting", seq, id, stamp, header } as const
  return "envelope" in entry ? { ...waiting, envelope: entry.envelope } : waiting
}
