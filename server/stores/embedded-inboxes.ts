// Inboxes, their chains and their quotas, in the embedded index.
import { EventEmitter } from "node:events"
import { concatBytes, equalBytes, sha256, toHex } from "../../protocol/index.js"
import { type DeliveryId, type InboxId, isDeliveryId } from "../ids.js"
import { goneFrom, unlessExpired } from "./chain-entries.js"
import {
  addToTally,
  type Embedded,
  named,
  numbered,
  type Reclaims,
  snapshot,
  type StoredInbox,
} from "./embedded-tables.js"
import type {
  GoneEntry,
  InboxIndex,
  Quota,
  RestoredEntry,
  WaitingEntry,
  WaitingEntryWithEnvelope,
} from "./relay-index.js"

const none: Quota = { bytes: 0, deliveries: 0 }
const zeroHead = new Uint8Array(32)

export function embeddedInboxes({ db, now, step }: Embedded): InboxIndex & Reclaims {
  const watchers = new EventEmitter()
  // One listener for each waiting long poll.
  watchers.setMaxListeners(0)

  function putEntry(inbox: InboxId, entry: GoneEntry | WaitingEntryWithEnvelope): void {
    void db.seqById.put([inbox, entry.id], entry.seq)
    void db.seqByContent.put([inbox, contentKey(entry)], entry.seq)
    if (entry.kind === "waiting") {
      const { envelope, ...bare } = entry
      void db.envelopes.put([inbox, entry.seq], envelope)
      void db.entries.put([inbox, entry.seq], bare)
    } else {
      void db.entries.put([inbox, entry.seq], entry)
    }
  }

  /** Forgets the entries above `after`, through `last`. */
  function dropEntries(inbox: InboxId, after: number, last: number): void {
    const range = numbered(inbox, after + 1, last + 1)
    for (const { key, value } of snapshot(db.entries.getRange(range))) {
      void db.entries.remove(key)
      void db.envelopes.remove(key)
      // A later entry of the same delivery or content keeps its own reference.
      if (db.seqById.get([inbox, value.id]) === value.seq) {
        void db.seqById.remove([inbox, value.id])
      }
      if (db.seqByContent.get([inbox, contentKey(value)]) === value.seq) {
        void db.seqByContent.remove([inbox, contentKey(value)])
      }
    }
  }

  function areAssigned(inbox: InboxId, entries: readonly WaitingEntryWithEnvelope[]): boolean {
    return entries.every(({ seq, id, head }) => {
      const known = db.entries.get([inbox, seq])
      return known?.id === id && equalBytes(known.head, head)
    })
  }

  function withEnvelope(inbox: InboxId, entry: WaitingEntry): WaitingEntryWithEnvelope {
    const envelope = db.envelopes.get([inbox, entry.seq])
    if (envelope === undefined) throw new Error("an entry without its envelope")
    return { ...entry, envelope }
  }

  /** Removes an upload's share and says what is held without it. */
  function takeShare(inbox: InboxId, id: DeliveryId, held: Quota): Quota {
    const share = db.shares.get([inbox, id])
    if (share === undefined) return held
    void db.shares.remove([inbox, id])
    return subtract(held, share.bytes)
  }

  function dropEndedShares(inbox: string): boolean {
    let dropped = false
    for (const { key, value } of snapshot(db.shares.getRange(named(inbox)))) {
      if (value.untilMs > now()) continue
      void db.shares.remove(key)
      dropped = true
    }
    return dropped
  }

  function heldBy(inbox: string): Quota {
    return [...db.shares.getRange(named(inbox))].reduce(
      (held, { value }) => add(held, value.bytes),
      none,
    )
  }

  /** The inbox with these entries put behind its own, visible; they are nobody's share any more. */
  function extended(
    inbox: InboxId,
    state: StoredInbox,
    entries: readonly RestoredEntry[],
  ): StoredInbox {
    let { seq, head, used, held } = state
    // Most inboxes have none of either, and to ask for each entry takes as long as to put it.
    const shared = idsIn(db.shares, inbox)
    const accepted = idsIn(db.accepting, inbox)
    for (const entry of entries) {
      putEntry(inbox, entry)
      if (entry.kind === "waiting") used = add(used, entry.sizeBytes)
      if (shared.has(entry.id)) held = takeShare(inbox, entry.id, held)
      if (accepted.has(entry.id)) void db.accepting.remove([inbox, entry.id])
      ;({ seq, head } = entry)
    }
    // What was listed before is not on disk: better to call nothing new than everything.
    return { ...state, seq, head, visibleSeq: seq, visibleHead: head, listedSeq: seq, used, held }
  }

  return {
    openInbox(inbox, bundle) {
      return step(() => {
        if (db.inboxes.get(inbox) !== undefined) return false
        addToTally(db, { inboxes: 1 })
        void db.bundles.put(inbox, bundle)
        void db.inboxes.put(inbox, emptyInbox(0, zeroHead))
        return true
      })
    },

    bundle(inbox) {
      return step(() => db.bundles.get(inbox))
    },

    chain(inbox) {
      return step(() => db.inboxes.get(inbox))
    },

    inboxes() {
      // The keys of this database were InboxIds when they were put in.
      return step(() => [...db.inboxes.getKeys({})] as InboxId[])
    },

    removeInbox(inbox) {
      return step(() => {
        const state = db.inboxes.get(inbox)
        if (state !== undefined)
          addToTally(db, { inboxes: -1, waiting: difference(none, state.used) })
        dropEntries(inbox, 0, Infinity)
        for (const { key } of snapshot(db.shares.getRange(named(inbox)))) void db.shares.remove(key)
        for (const { key } of snapshot(db.accepting.getRange(named(inbox)))) {
          void db.accepting.remove(key)
        }
        void db.bundles.remove(inbox)
        void db.inboxes.remove(inbox)
      })
    },

    restoreInbox(restored) {
      return step(() => {
        const { inbox, bundle, floorSeq, floorHead, entries } = restored
        dropEntries(inbox, 0, Infinity)
        const before = db.inboxes.get(inbox)
        const state = extended(inbox, emptyInbox(floorSeq, floorHead), entries)
        addToTally(db, {
          inboxes: before === undefined ? 1 : 0,
          waiting: difference(state.used, before?.used ?? none),
        })
        void db.bundles.put(inbox, bundle)
        void db.inboxes.put(inbox, { ...state, held: heldBy(inbox) })
      })
    },

    restoreEntries({ inbox, afterSeq, entries }) {
      return step(() => {
        const before = db.inboxes.get(inbox)
        if (before?.seq !== afterSeq || before.visibleSeq !== afterSeq) return
        const state = extended(inbox, before, entries)
        addToTally(db, { waiting: difference(state.used, before.used) })
        void db.inboxes.put(inbox, state)
      })
    },

    reserveShare(reservation) {
      return step(() => {
        const { inbox, id, bytes, quota, untilMs } = reservation
        const state = db.inboxes.get(inbox)
        if (state === undefined) return "unknown"
        const earlier = db.shares.get([inbox, id])
        let held = earlier === undefined ? state.held : subtract(state.held, earlier.bytes)
        const fits = () =>
          state.used.bytes + held.bytes + bytes <= quota.bytes &&
          state.used.deliveries + held.deliveries < quota.deliveries
        if (!fits()) {
          dropEndedShares(inbox)
          held = heldBy(inbox)
          if (db.shares.get([inbox, id]) !== undefined) held = subtract(held, earlier?.bytes ?? 0)
          if (!fits()) {
            void db.inboxes.put(inbox, { ...state, held: heldBy(inbox) })
            return "full"
          }
        }
        void db.shares.put([inbox, id], { bytes, untilMs })
        void db.inboxes.put(inbox, { ...state, held: add(held, bytes) })
        return "reserved"
      })
    },

    releaseShare({ inbox, id }) {
      return step(() => {
        const state = db.inboxes.get(inbox)
        if (state !== undefined) {
          void db.inboxes.put(inbox, { ...state, held: takeShare(inbox, id, state.held) })
        }
      })
    },

    beginAccepting(accepting) {
      const { inbox, id, acceptedMs } = accepting
      return step(() => void db.accepting.put([inbox, id], acceptedMs))
    },

    endAccepting({ inbox, id }) {
      return step(() => void db.accepting.remove([inbox, id]))
    },

    accepting(inbox) {
      return step(() =>
        [...db.accepting.getRange(named(inbox))].flatMap(({ key: [, id], value }) =>
          isDeliveryId(id) ? [{ id, acceptedMs: value }] : [],
        ),
      )
    },

    assign(change) {
      return step(() => {
        const { inbox, afterSeq, entries } = change
        const state = db.inboxes.get(inbox)
        if (state === undefined) return "unknown"
        if (areAssigned(inbox, entries)) return "assigned"
        if (state.seq !== afterSeq) return "moved"
        let { seq, head, used, held } = state
        for (const entry of entries) {
          seq += 1
          if (entry.seq !== seq) throw new RangeError("entries are numbered without gaps")
          head = entry.head
          used = add(used, entry.sizeBytes)
          held = takeShare(inbox, entry.id, held)
          putEntry(inbox, entry)
        }
        addToTally(db, { waiting: difference(used, state.used) })
        void db.inboxes.put(inbox, { ...state, seq, head, used, held })
        return "assigned"
      })
    },

    async reveal({ inbox, seq }) {
      await step(() => {
        const state = db.inboxes.get(inbox)
        if (state === undefined || seq <= state.visibleSeq) return
        for (let each = state.visibleSeq + 1; each <= seq; each++) {
          const entry = db.entries.get([inbox, each])
          if (entry === undefined) throw new RangeError("only what was assigned can be revealed")
          void db.accepting.remove([inbox, entry.id])
        }
        const visibleHead = db.entries.get([inbox, seq])?.head ?? state.visibleHead
        void db.inboxes.put(inbox, { ...state, visibleSeq: seq, visibleHead })
      })
      watchers.emit(inbox)
    },

    unrevealed(inbox) {
      return step(() => {
        const state = db.inboxes.get(inbox)
        if (state === undefined || state.seq === state.visibleSeq) return []
        const range = numbered(inbox, state.visibleSeq + 1)
        return [...db.entries.getRange(range)].flatMap(({ value }) =>
          value.kind === "waiting" ? [withEnvelope(inbox, value)] : [],
        )
      })
    },

    entryByContent(content) {
      return step(() => {
        const seq = db.seqByContent.get([content.inbox, contentKey(content)])
        return seq === undefined ? undefined : db.entries.get([content.inbox, seq])
      })
    },

    entryById({ inbox, id }) {
      return step(() => {
        const seq = db.seqById.get([inbox, id])
        return seq === undefined ? undefined : db.entries.get([inbox, seq])
      })
    },

    entriesAfter(query) {
      return step(() => {
        const { inbox, seq, limit } = query
        const end = (db.inboxes.get(inbox)?.visibleSeq ?? 0) + 1
        const range = { ...numbered(inbox, seq + 1, end), limit }
        return snapshot(db.entries.getRange(range)).map(({ value }) => value)
      })
    },

    envelope(place) {
      return step(() => db.envelopes.get([place.inbox, place.seq]))
    },

    waiting(inbox) {
      return step(() => {
        const range = numbered(inbox, 0, (db.inboxes.get(inbox)?.visibleSeq ?? 0) + 1)
        return [...db.entries.getRange(range)].flatMap(({ value }) =>
          value.kind === "waiting" ? [value.id] : [],
        )
      })
    },

    listing(query) {
      return step(() => {
        const { inbox, limit } = query
        const state = db.inboxes.get(inbox)
        if (state === undefined) return undefined
        const after = Math.max(query.afterSeq, state.floorSeq)
        const range = { ...numbered(inbox, after + 1, state.visibleSeq + 1), limit: limit + 1 }
        const found = [...db.entries.getRange(range)].map(({ value }) => value)
        const entries = found
          .slice(0, limit)
          .map((entry) => unlessExpired(entry, now()))
          .map((entry) =>
            query.envelopes && entry.kind === "waiting" ? withEnvelope(inbox, entry) : entry,
          )
        const { listedSeq } = state
        const last = entries.at(-1)?.seq ?? 0
        if (last > listedSeq) void db.inboxes.put(inbox, { ...state, listedSeq: last })
        const accepting = [...db.accepting.getRange(named(inbox))].map(({ value }) => value)
        return {
          chain: state,
          entries,
          more: found.length > limit,
          used: state.used,
          listedSeq,
          acceptingMs: accepting.length > 0 ? Math.min(...accepting) : undefined,
        }
      })
    },

    bury(change) {
      return step(() => {
        const { inbox, seqs } = change
        const state = db.inboxes.get(inbox)
        if (state === undefined) return
        let { used } = state
        for (const { seq, reason } of seqs) {
          const entry = db.entries.get([inbox, seq])
          if (entry?.kind !== "waiting") continue
          void db.entries.put([inbox, seq], goneFrom(entry, reason))
          void db.envelopes.remove([inbox, seq])
          used = subtract(used, entry.sizeBytes)
        }
        addToTally(db, { waiting: difference(used, state.used) })
        void db.inboxes.put(inbox, { ...state, used })
      })
    },

    raiseFloor(change) {
      return step(() => {
        const { inbox, seq, head } = change
        const state = db.inboxes.get(inbox)
        if (state === undefined || seq <= state.floorSeq) return
        dropEntries(inbox, state.floorSeq, seq)
        void db.inboxes.put(inbox, { ...state, floorSeq: seq, floorHead: head })
      })
    },

    watch(inbox, changed) {
      watchers.on(inbox, changed)
      return () => watchers.off(inbox, changed)
    },

    reclaimNow() {
      for (const { key, value } of snapshot(db.inboxes.getRange({}))) {
        if (dropEndedShares(key)) void db.inboxes.put(key, { ...value, held: heldBy(key) })
      }
    },
  }
}

function idsIn(
  database: Embedded["db"]["shares"] | Embedded["db"]["accepting"],
  inbox: InboxId,
): Set<string> {
  return new Set([...database.getKeys(named(inbox))].map(([, id]) => id))
}

function emptyInbox(floorSeq: number, floorHead: Uint8Array): StoredInbox {
  return {
    seq: floorSeq,
    head: floorHead,
    visibleSeq: floorSeq,
    visibleHead: floorHead,
    floorSeq,
    floorHead,
    used: none,
    held: none,
    listedSeq: floorSeq,
  }
}

function add(quota: Quota, bytes: number): Quota {
  return { bytes: quota.bytes + bytes, deliveries: quota.deliveries + 1 }
}

function subtract(quota: Quota, bytes: number): Quota {
  return { bytes: quota.bytes - bytes, deliveries: quota.deliveries - 1 }
}

function difference(after: Quota, before: Quota): Quota {
  return { bytes: after.bytes - before.bytes, deliveries: after.deliveries - before.deliveries }
}

function contentKey(content: {
  readonly headerHash: Uint8Array
  readonly envelopeHash: Uint8Array
}): string {
  return toHex(sha256(concatBytes(content.headerHash, content.envelopeHash)))
}
