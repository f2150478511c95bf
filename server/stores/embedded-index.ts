// The index inside the relay's own process, on LMDB. One relay has it to itself (data-folder.ts holds
// the lock), so claims, shared secrets and watchers are kept in memory.
//
// Each step is one synchronous write transaction, which LMDB commits whole or not at all. It is not
// synced: a commit is in the kernel when the step resolves, so it outlives the process, and after a
// power cut the whole index is thrown away and rebuilt (recovery.ts).
import { EventEmitter } from "node:events"
import { type Database, open, type RootDatabase } from "lmdb"
import {
  concatBytes,
  equalBytes,
  gridLength,
  maxParts,
  sha256,
  toHex,
} from "../../protocol/index.js"
import { type DeliveryId, type InboxId, isDeliveryId } from "../ids.js"
import type {
  Chain,
  ChainEntry,
  Claim,
  GoneEntry,
  InboxListing,
  OpenUpload,
  PartEntry,
  Quota,
  RelayIndex,
  Session,
  SetPartOutcome,
  UploadEntry,
  WaitingEntry,
  WaitingEntryWithEnvelope,
} from "./relay-index.js"

type StoredUpload =
  | ({
      readonly state: "open"
      readonly highest: number
      readonly short: number
    } & OpenUpload)
  | { readonly state: "closed"; readonly dueMs: number }

interface StoredInbox extends Chain {
  readonly used: Quota
  readonly held: Quota
  readonly listedSeq: number
}

interface Reservation {
  readonly bytes: number
  readonly untilMs: number
}

// A lowest and a highest key of one owner: hex digits sort below "g", numbers below Infinity.
const named = (owner: string) => ({ start: [owner, ""], end: [owner, "g"] })
const numbered = (owner: string, from: number = 0, to: number = Infinity) => ({
  start: [owner, from],
  end: [owner, to],
})

const none: Quota = { bytes: 0, deliveries: 0 }
const zeroHead = new Uint8Array(32)
/** A session's last use is noted no more often: a page of pieces would else be a page of writes. */
const noteUseEveryMs = 15_000
const nowhere = -1

export interface EmbeddedIndexOptions {
  /** A folder of its own. */
  readonly path: string
  readonly now: () => number
}

export class EmbeddedIndex implements RelayIndex {
  readonly #root: RootDatabase<string, string>
  readonly #now: () => number
  readonly #uploads: Database<StoredUpload, string>
  readonly #parts: Database<PartEntry, [string, number]>
  readonly #due: Database<true, [number, string]>
  readonly #leases: Database<number, string>
  readonly #room: Database<Reservation, string>
  readonly #bundles: Database<Uint8Array, string>
  readonly #inboxes: Database<StoredInbox, string>
  readonly #shares: Database<Reservation, [string, string]>
  readonly #accepting: Database<number, [string, string]>
  readonly #entries: Database<ChainEntry, [string, number]>
  readonly #envelopes: Database<Uint8Array, [string, number]>
  readonly #seqById: Database<number, [string, string]>
  readonly #seqByContent: Database<number, [string, string]>
  readonly #sessions: Database<Session & { readonly idleMs: number }, string>
  readonly #sessionsOf: Database<true, [string, string]>
  readonly #spent: Database<number, string>
  readonly #claims = new Map<string, { readonly owner: string; readonly untilMs: number }>()
  readonly #secrets = new Map<string, { readonly value: Uint8Array; readonly untilMs: number }>()
  readonly #watchers = new EventEmitter()

  constructor({ path, now }: EmbeddedIndexOptions) {
    this.#now = now
    const root = open<string, string>({ path, noSync: true, maxDbs: 32, name: "relay" })
    this.#root = root
    this.#uploads = root.openDB({ name: "uploads" })
    this.#parts = root.openDB({ name: "parts" })
    this.#due = root.openDB({ name: "due" })
    this.#leases = root.openDB({ name: "leases" })
    this.#room = root.openDB({ name: "room" })
    this.#bundles = root.openDB({ name: "bundles" })
    this.#inboxes = root.openDB({ name: "inboxes" })
    this.#shares = root.openDB({ name: "shares" })
    this.#accepting = root.openDB({ name: "accepting" })
    this.#entries = root.openDB({ name: "entries" })
    this.#envelopes = root.openDB({ name: "envelopes" })
    this.#seqById = root.openDB({ name: "seq-by-id" })
    this.#seqByContent = root.openDB({ name: "seq-by-content" })
    this.#sessions = root.openDB({ name: "sessions" })
    this.#sessionsOf = root.openDB({ name: "sessions-of" })
    this.#spent = root.openDB({ name: "spent" })
    // One listener for each waiting long poll.
    this.#watchers.setMaxListeners(0)
  }

  marker(): Promise<string | undefined> {
    return this.#step(() => this.#root.get("marker"))
  }

  setMarker(marker: string): Promise<void> {
    return this.#step(() => void this.#root.put("marker", marker))
  }

  clear(): Promise<void> {
    return this.#step(() => {
      this.#claims.clear()
      for (const database of this.#databases()) database.clearSync()
      void this.#root.remove("marker")
    })
  }

  // Uploads

  startUpload(upload: OpenUpload): Promise<UploadEntry> {
    return this.#step(() => {
      const known = this.#uploads.get(upload.id)
      if (known !== undefined) return known
      const stored: StoredUpload = { ...upload, state: "open", highest: nowhere, short: nowhere }
      void this.#uploads.put(upload.id, stored)
      void this.#due.put([upload.expiresMs, upload.id], true)
      return stored
    })
  }

  upload(id: DeliveryId): Promise<UploadEntry | undefined> {
    return this.#step(() => this.#uploads.get(id))
  }

  extendUpload(change: {
    readonly id: DeliveryId
    readonly reservedBytes: number
    readonly expiresMs: number
  }): Promise<UploadEntry | undefined> {
    return this.#step(() => {
      const known = this.#uploads.get(change.id)
      if (known?.state !== "open") return known
      const reservedBytes = Math.max(known.reservedBytes, change.reservedBytes)
      const expiresMs = Math.max(known.expiresMs, change.expiresMs)
      const stored = { ...known, reservedBytes, expiresMs }
      void this.#uploads.put(change.id, stored)
      void this.#due.remove([known.expiresMs, change.id])
      void this.#due.put([expiresMs, change.id], true)
      return stored
    })
  }

  setPart(part: PartEntry & { readonly id: DeliveryId }): Promise<SetPartOutcome> {
    return this.#step(() => {
      const { id, index, leaf, lengthBytes } = part
      const upload = this.#uploads.get(id)
      if (upload === undefined) return "unknown"
      if (upload.state === "closed") return "closed"
      const known = this.#parts.get([id, index])
      if (known !== undefined) {
        return known.lengthBytes === lengthBytes && equalBytes(known.leaf, leaf)
          ? "same"
          : "differs"
      }
      const isShort = lengthBytes < gridLength(index)
      if (lengthBytes > gridLength(index) || lengthBytes === 0 || index >= maxParts) {
        return "misplaced"
      }
      if (upload.short !== nowhere && (isShort || index > upload.short)) return "misplaced"
      if (isShort && upload.highest > index) return "misplaced"
      void this.#parts.put([id, index], { index, leaf, lengthBytes })
      if (isShort || index > upload.highest) {
        const highest = Math.max(upload.highest, index)
        void this.#uploads.put(id, { ...upload, highest, short: isShort ? index : upload.short })
      }
      return "stored"
    })
  }

  removePart(part: {
    readonly id: DeliveryId
    readonly index: number
    readonly leaf: Uint8Array
  }): Promise<void> {
    return this.#step(() => {
      const { id, index, leaf } = part
      const upload = this.#uploads.get(id)
      const known = this.#parts.get([id, index])
      if (upload?.state !== "open" || known === undefined || !equalBytes(known.leaf, leaf)) return
      void this.#parts.remove([id, index])
      const [last] = this.#parts.getKeys({
        start: [id, Infinity],
        end: [id, nowhere],
        reverse: true,
        limit: 1,
      })
      const highest = last?.[1] ?? nowhere
      const short = upload.short === index ? nowhere : upload.short
      void this.#uploads.put(id, { ...upload, highest, short })
    })
  }

  part(place: { readonly id: DeliveryId; readonly index: number }): Promise<PartEntry | undefined> {
    return this.#step(() => this.#parts.get([place.id, place.index]))
  }

  parts(id: DeliveryId): Promise<PartEntry[]> {
    return this.#step(() => [...this.#parts.getRange(numbered(id))].map(({ value }) => value))
  }

  closeUpload({ id, dueMs }: { readonly id: DeliveryId; readonly dueMs: number }): Promise<void> {
    return this.#step(() => {
      this.#dropUpload(id)
      void this.#uploads.put(id, { state: "closed", dueMs })
      void this.#due.put([dueMs, id], true)
    })
  }

  forgetUpload(id: DeliveryId): Promise<void> {
    return this.#step(() => {
      this.#dropUpload(id)
      void this.#uploads.remove(id)
      void this.#leases.remove(id)
    })
  }

  due(limit: number): Promise<DeliveryId[]> {
    return this.#step(() => {
      const range = this.#due.getKeys({ start: [0, ""], end: [this.#now(), "g"], limit })
      return [...range].map(([, id]) => id).filter(isDeliveryId)
    })
  }

  claim(claim: Claim & { readonly untilMs: number }): Promise<boolean> {
    const key = `${claim.what} ${claim.name}`
    const held = this.#claims.get(key)
    if (held !== undefined && held.owner !== claim.owner && held.untilMs > this.#now()) {
      return Promise.resolve(false)
    }
    this.#claims.set(key, { owner: claim.owner, untilMs: claim.untilMs })
    return Promise.resolve(true)
  }

  unclaim(claim: Claim): Promise<void> {
    const key = `${claim.what} ${claim.name}`
    if (this.#claims.get(key)?.owner === claim.owner) this.#claims.delete(key)
    return Promise.resolve()
  }

  lease({ id, untilMs }: { readonly id: DeliveryId; readonly untilMs: number }): Promise<void> {
    return this.#step(() => {
      if ((this.#leases.get(id) ?? 0) < untilMs) void this.#leases.put(id, untilMs)
    })
  }

  leasedUntil(id: DeliveryId): Promise<number | undefined> {
    return this.#step(() => {
      const untilMs = this.#leases.get(id) ?? 0
      return untilMs > this.#now() ? untilMs : undefined
    })
  }

  // The one budget

  reserveRoom(reservation: {
    readonly id: DeliveryId
    readonly bytes: number
    readonly roomBytes: number
    readonly untilMs: number
  }): Promise<boolean> {
    return this.#step(() => {
      const { id, bytes, roomBytes, untilMs } = reservation
      let others = 0
      for (const { key, value } of this.#room.getRange({})) {
        if (key !== id && value.untilMs > this.#now()) others += value.bytes
      }
      if (others + bytes > roomBytes) return false
      void this.#room.put(id, { bytes, untilMs })
      return true
    })
  }

  releaseRoom(id: DeliveryId): Promise<void> {
    return this.#step(() => void this.#room.remove(id))
  }

  // Inboxes

  openInbox(inbox: InboxId, bundle: Uint8Array): Promise<boolean> {
    return this.#step(() => {
      if (this.#inboxes.get(inbox) !== undefined) return false
      void this.#bundles.put(inbox, bundle)
      void this.#inboxes.put(inbox, emptyInbox(0, zeroHead))
      return true
    })
  }

  bundle(inbox: InboxId): Promise<Uint8Array | undefined> {
    return this.#step(() => this.#bundles.get(inbox))
  }

  chain(inbox: InboxId): Promise<Chain | undefined> {
    return this.#step(() => this.#inboxes.get(inbox))
  }

  inboxes(): Promise<InboxId[]> {
    // The keys of this database were InboxIds when they were put in.
    return this.#step(() => [...this.#inboxes.getKeys({})] as InboxId[])
  }

  restoreInbox(restored: {
    readonly inbox: InboxId
    readonly bundle: Uint8Array
    readonly floorSeq: number
    readonly floorHead: Uint8Array
    readonly entries: readonly (GoneEntry | WaitingEntryWithEnvelope)[]
  }): Promise<void> {
    return this.#step(() => {
      const { inbox, bundle, entries } = restored
      this.#dropEntries(inbox, 0, Infinity)
      const state = emptyInbox(restored.floorSeq, restored.floorHead)
      let { used } = state
      for (const entry of entries) {
        this.#putEntry(inbox, entry)
        if (entry.kind === "waiting") used = add(used, entry.sizeBytes)
      }
      const last = entries.at(-1)
      const seq = last?.seq ?? restored.floorSeq
      const head = last?.head ?? restored.floorHead
      const held = this.#heldBy(inbox)
      void this.#bundles.put(inbox, bundle)
      void this.#inboxes.put(inbox, {
        ...state,
        seq,
        head,
        visibleSeq: seq,
        visibleHead: head,
        // What was listed before is not on disk: better to call nothing new than everything.
        listedSeq: seq,
        used,
        held,
      })
    })
  }

  reserveShare(reservation: {
    readonly inbox: InboxId
    readonly id: DeliveryId
    readonly bytes: number
    readonly quota: Quota
    readonly untilMs: number
  }): Promise<"reserved" | "full" | "unknown"> {
    return this.#step(() => {
      const { inbox, id, bytes, quota, untilMs } = reservation
      const state = this.#inboxes.get(inbox)
      if (state === undefined) return "unknown"
      const earlier = this.#shares.get([inbox, id])
      let held = earlier === undefined ? state.held : subtract(state.held, earlier.bytes)
      const fits = () =>
        state.used.bytes + held.bytes + bytes <= quota.bytes &&
        state.used.deliveries + held.deliveries < quota.deliveries
      if (!fits()) {
        this.#dropEndedShares(inbox)
        held = this.#heldBy(inbox)
        if (this.#shares.get([inbox, id]) !== undefined) held = subtract(held, earlier?.bytes ?? 0)
        if (!fits()) {
          void this.#inboxes.put(inbox, { ...state, held: this.#heldBy(inbox) })
          return "full"
        }
      }
      void this.#shares.put([inbox, id], { bytes, untilMs })
      void this.#inboxes.put(inbox, { ...state, held: add(held, bytes) })
      return "reserved"
    })
  }

  releaseShare({ inbox, id }: { readonly inbox: InboxId; readonly id: DeliveryId }): Promise<void> {
    return this.#step(() => {
      const state = this.#inboxes.get(inbox)
      if (state !== undefined) {
        void this.#inboxes.put(inbox, { ...state, held: this.#takeShare(inbox, id, state.held) })
      }
    })
  }

  beginAccepting(accepting: {
    readonly inbox: InboxId
    readonly id: DeliveryId
    readonly acceptedMs: number
  }): Promise<void> {
    const { inbox, id, acceptedMs } = accepting
    return this.#step(() => void this.#accepting.put([inbox, id], acceptedMs))
  }

  endAccepting({ inbox, id }: { readonly inbox: InboxId; readonly id: DeliveryId }): Promise<void> {
    return this.#step(() => void this.#accepting.remove([inbox, id]))
  }

  accepting(inbox: InboxId): Promise<{ readonly id: DeliveryId; readonly acceptedMs: number }[]> {
    return this.#step(() =>
      [...this.#accepting.getRange(named(inbox))].flatMap(({ key: [, id], value }) =>
        isDeliveryId(id) ? [{ id, acceptedMs: value }] : [],
      ),
    )
  }

  assign(change: {
    readonly inbox: InboxId
    readonly afterSeq: number
    readonly entries: readonly WaitingEntryWithEnvelope[]
  }): Promise<"assigned" | "moved" | "unknown"> {
    return this.#step(() => {
      const { inbox, afterSeq, entries } = change
      const state = this.#inboxes.get(inbox)
      if (state === undefined) return "unknown"
      if (this.#areAssigned(inbox, entries)) return "assigned"
      if (state.seq !== afterSeq) return "moved"
      let { seq, head, used, held } = state
      for (const entry of entries) {
        seq += 1
        if (entry.seq !== seq) throw new RangeError("entries are numbered without gaps")
        head = entry.head
        used = add(used, entry.sizeBytes)
        held = this.#takeShare(inbox, entry.id, held)
        this.#putEntry(inbox, entry)
      }
      void this.#inboxes.put(inbox, { ...state, seq, head, used, held })
      return "assigned"
    })
  }

  async reveal({ inbox, seq }: { readonly inbox: InboxId; readonly seq: number }): Promise<void> {
    await this.#step(() => {
      const state = this.#inboxes.get(inbox)
      if (state === undefined || seq <= state.visibleSeq) return
      for (let each = state.visibleSeq + 1; each <= seq; each++) {
        const entry = this.#entries.get([inbox, each])
        if (entry === undefined) throw new RangeError("only what was assigned can be revealed")
        void this.#accepting.remove([inbox, entry.id])
      }
      const visibleHead = this.#entries.get([inbox, seq])?.head ?? state.visibleHead
      void this.#inboxes.put(inbox, { ...state, visibleSeq: seq, visibleHead })
    })
    this.#watchers.emit(inbox)
  }

  unrevealed(inbox: InboxId): Promise<WaitingEntryWithEnvelope[]> {
    return this.#step(() => {
      const state = this.#inboxes.get(inbox)
      if (state === undefined || state.seq === state.visibleSeq) return []
      const range = numbered(inbox, state.visibleSeq + 1)
      return [...this.#entries.getRange(range)].flatMap(({ value }) =>
        value.kind === "waiting" ? [this.#withEnvelope(inbox, value)] : [],
      )
    })
  }

  entryByContent(content: {
    readonly inbox: InboxId
    readonly headerHash: Uint8Array
    readonly envelopeHash: Uint8Array
  }): Promise<ChainEntry | undefined> {
    return this.#step(() => {
      const seq = this.#seqByContent.get([content.inbox, contentKey(content)])
      return seq === undefined ? undefined : this.#entries.get([content.inbox, seq])
    })
  }

  entryById({
    inbox,
    id,
  }: {
    readonly inbox: InboxId
    readonly id: DeliveryId
  }): Promise<ChainEntry | undefined> {
    return this.#step(() => {
      const seq = this.#seqById.get([inbox, id])
      return seq === undefined ? undefined : this.#entries.get([inbox, seq])
    })
  }

  entriesAfter(query: {
    readonly inbox: InboxId
    readonly seq: number
    readonly limit: number
  }): Promise<ChainEntry[]> {
    return this.#step(() => {
      const { inbox, seq, limit } = query
      const end = (this.#inboxes.get(inbox)?.visibleSeq ?? 0) + 1
      const range = { ...numbered(inbox, seq + 1, end), limit }
      return snapshot(this.#entries.getRange(range)).map(({ value }) => value)
    })
  }

  envelope(place: {
    readonly inbox: InboxId
    readonly seq: number
  }): Promise<Uint8Array | undefined> {
    return this.#step(() => this.#envelopes.get([place.inbox, place.seq]))
  }

  waiting(inbox: InboxId): Promise<DeliveryId[]> {
    return this.#step(() => {
      const range = numbered(inbox, 0, (this.#inboxes.get(inbox)?.visibleSeq ?? 0) + 1)
      return [...this.#entries.getRange(range)].flatMap(({ value }) =>
        value.kind === "waiting" ? [value.id] : [],
      )
    })
  }

  listing(query: {
    readonly inbox: InboxId
    readonly afterSeq: number
    readonly limit: number
    readonly envelopes: boolean
  }): Promise<InboxListing | undefined> {
    return this.#step(() => {
      const { inbox, limit } = query
      const state = this.#inboxes.get(inbox)
      if (state === undefined) return undefined
      const after = Math.max(query.afterSeq, state.floorSeq)
      const range = { ...numbered(inbox, after + 1, state.visibleSeq + 1), limit: limit + 1 }
      const found = [...this.#entries.getRange(range)].map(({ value }) => value)
      const entries = found
        .slice(0, limit)
        .map((entry) => unlessExpired(entry, this.#now()))
        .map((entry) =>
          query.envelopes && entry.kind === "waiting" ? this.#withEnvelope(inbox, entry) : entry,
        )
      const { listedSeq } = state
      const last = entries.at(-1)?.seq ?? 0
      if (last > listedSeq) void this.#inboxes.put(inbox, { ...state, listedSeq: last })
      const accepting = [...this.#accepting.getRange(named(inbox))].map(({ value }) => value)
      return {
        chain: state,
        entries,
        more: found.length > limit,
        used: state.used,
        listedSeq,
        acceptingMs: accepting.length > 0 ? Math.min(...accepting) : undefined,
      }
    })
  }

  bury(change: {
    readonly inbox: InboxId
    readonly seqs: readonly { readonly seq: number; readonly reason: GoneEntry["reason"] }[]
  }): Promise<void> {
    return this.#step(() => {
      const { inbox, seqs } = change
      const state = this.#inboxes.get(inbox)
      if (state === undefined) return
      let { used } = state
      for (const { seq, reason } of seqs) {
        const entry = this.#entries.get([inbox, seq])
        if (entry?.kind !== "waiting") continue
        void this.#entries.put([inbox, seq], goneFrom(entry, reason))
        void this.#envelopes.remove([inbox, seq])
        used = subtract(used, entry.sizeBytes)
      }
      void this.#inboxes.put(inbox, { ...state, used })
    })
  }

  raiseFloor(change: {
    readonly inbox: InboxId
    readonly seq: number
    readonly head: Uint8Array
  }): Promise<void> {
    return this.#step(() => {
      const { inbox, seq, head } = change
      const state = this.#inboxes.get(inbox)
      if (state === undefined || seq <= state.floorSeq) return
      this.#dropEntries(inbox, state.floorSeq, seq)
      void this.#inboxes.put(inbox, { ...state, floorSeq: seq, floorHead: head })
    })
  }

  watch(inbox: InboxId, changed: () => void): () => void {
    this.#watchers.on(inbox, changed)
    return () => this.#watchers.off(inbox, changed)
  }

  // Sessions

  addSession(session: Session & { readonly idleMs: number }): Promise<void> {
    return this.#step(() => {
      const id = sessionId(session.tokenHash)
      void this.#sessions.put(id, session)
      void this.#sessionsOf.put([session.inbox, id], true)
    })
  }

  useSession(use: {
    readonly tokenHash: Uint8Array
    readonly idleMs: number
  }): Promise<Session | undefined> {
    return this.#step(() => {
      const id = sessionId(use.tokenHash)
      const session = this.#sessions.get(id)
      if (session === undefined || !equalBytes(session.tokenHash, use.tokenHash)) return undefined
      if (this.#hasEnded(session)) return undefined
      const lastUsedMs = this.#now()
      if (lastUsedMs - session.lastUsedMs >= noteUseEveryMs) {
        void this.#sessions.put(id, { ...session, lastUsedMs, idleMs: use.idleMs })
      }
      return session
    })
  }

  sessions(inbox: InboxId): Promise<Session[]> {
    return this.#step(() =>
      [...this.#sessionsOf.getKeys(named(inbox))].flatMap(([, id]) => {
        const session = this.#sessions.get(id)
        return session === undefined || this.#hasEnded(session) ? [] : [session]
      }),
    )
  }

  endSession({ inbox, id }: { readonly inbox: InboxId; readonly id: DeliveryId }): Promise<void> {
    return this.#step(() => {
      if (this.#sessions.get(id)?.inbox === inbox) this.#dropSession(inbox, id)
    })
  }

  spend({
    value,
    untilMs,
  }: {
    readonly value: Uint8Array
    readonly untilMs: number
  }): Promise<boolean> {
    return this.#step(() => {
      const key = toHex(value)
      if ((this.#spent.get(key) ?? 0) > this.#now()) return false
      void this.#spent.put(key, untilMs)
      return true
    })
  }

  sharedSecret(secret: {
    readonly name: string
    readonly candidate: Uint8Array
    readonly untilMs: number
  }): Promise<Uint8Array> {
    const known = this.#secrets.get(secret.name)
    if (known !== undefined && known.untilMs > this.#now()) return Promise.resolve(known.value)
    const value = new Uint8Array(secret.candidate)
    this.#secrets.set(secret.name, { value, untilMs: secret.untilMs })
    return Promise.resolve(value)
  }

  reclaim(): Promise<void> {
    return this.#step(() => {
      const now = this.#now()
      for (const [key, claim] of this.#claims) if (claim.untilMs <= now) this.#claims.delete(key)
      for (const [name, secret] of this.#secrets) {
        if (secret.untilMs <= now) this.#secrets.delete(name)
      }
      for (const { key, value } of snapshot(this.#room.getRange({}))) {
        if (value.untilMs <= now) void this.#room.remove(key)
      }
      for (const { key, value } of snapshot(this.#leases.getRange({}))) {
        if (value <= now) void this.#leases.remove(key)
      }
      for (const { key, value } of snapshot(this.#spent.getRange({}))) {
        if (value <= now) void this.#spent.remove(key)
      }
      for (const { key, value } of snapshot(this.#sessions.getRange({}))) {
        if (this.#hasEnded(value)) this.#dropSession(value.inbox, key)
      }
      for (const { key, value } of snapshot(this.#inboxes.getRange({}))) {
        if (this.#dropEndedShares(key)) {
          void this.#inboxes.put(key, { ...value, held: this.#heldBy(key) })
        }
      }
    })
  }

  close(): Promise<void> {
    return this.#root.close()
  }

  /** Runs one step in a write transaction; what it throws undoes it. */
  #step<T>(step: () => T): Promise<T> {
    try {
      return Promise.resolve(this.#root.transactionSync(step))
    } catch (error) {
      return Promise.reject(error instanceof Error ? error : new Error(String(error)))
    }
  }

  #databases(): { clearSync(): void }[] {
    return [
      this.#uploads,
      this.#parts,
      this.#due,
      this.#leases,
      this.#room,
      this.#bundles,
      this.#inboxes,
      this.#shares,
      this.#accepting,
      this.#entries,
      this.#envelopes,
      this.#seqById,
      this.#seqByContent,
      this.#sessions,
      this.#sessionsOf,
      this.#spent,
    ]
  }

  #dropUpload(id: DeliveryId): void {
    const known = this.#uploads.get(id)
    if (known === undefined) return
    void this.#due.remove([known.state === "open" ? known.expiresMs : known.dueMs, id])
    if (known.state === "open") {
      for (const key of snapshot(this.#parts.getKeys(numbered(id)))) void this.#parts.remove(key)
    }
  }

  #putEntry(inbox: InboxId, entry: GoneEntry | WaitingEntryWithEnvelope): void {
    void this.#seqById.put([inbox, entry.id], entry.seq)
    void this.#seqByContent.put([inbox, contentKey(entry)], entry.seq)
    if (entry.kind === "waiting") {
      const { envelope, ...bare } = entry
      void this.#envelopes.put([inbox, entry.seq], envelope)
      void this.#entries.put([inbox, entry.seq], bare)
    } else {
      void this.#entries.put([inbox, entry.seq], entry)
    }
  }

  /** Forgets the entries above `after`, through `last`. */
  #dropEntries(inbox: InboxId, after: number, last: number): void {
    const range = numbered(inbox, after + 1, last + 1)
    for (const { key, value } of snapshot(this.#entries.getRange(range))) {
      void this.#entries.remove(key)
      void this.#envelopes.remove(key)
      // A later entry of the same delivery or content keeps its own reference.
      if (this.#seqById.get([inbox, value.id]) === value.seq) {
        void this.#seqById.remove([inbox, value.id])
      }
      if (this.#seqByContent.get([inbox, contentKey(value)]) === value.seq) {
        void this.#seqByContent.remove([inbox, contentKey(value)])
      }
    }
  }

  #areAssigned(inbox: InboxId, entries: readonly WaitingEntryWithEnvelope[]): boolean {
    return entries.every(({ seq, id, head }) => {
      const known = this.#entries.get([inbox, seq])
      return known?.id === id && equalBytes(known.head, head)
    })
  }

  #withEnvelope(inbox: InboxId, entry: WaitingEntry): WaitingEntryWithEnvelope {
    const envelope = this.#envelopes.get([inbox, entry.seq])
    if (envelope === undefined) throw new Error("an entry without its envelope")
    return { ...entry, envelope }
  }

  /** Removes an upload's share and says what is held without it. */
  #takeShare(inbox: InboxId, id: DeliveryId, held: Quota): Quota {
    const share = this.#shares.get([inbox, id])
    if (share === undefined) return held
    void this.#shares.remove([inbox, id])
    return subtract(held, share.bytes)
  }

  #dropEndedShares(inbox: string): boolean {
    let dropped = false
    for (const { key, value } of snapshot(this.#shares.getRange(named(inbox)))) {
      if (value.untilMs > this.#now()) continue
      void this.#shares.remove(key)
      dropped = true
    }
    return dropped
  }

  #heldBy(inbox: string): Quota {
    return [...this.#shares.getRange(named(inbox))].reduce(
      (held, { value }) => add(held, value.bytes),
      none,
    )
  }

  #hasEnded(session: Session & { readonly idleMs: number }): boolean {
    const now = this.#now()
    return now >= session.absoluteMs || now >= session.lastUsedMs + session.idleMs
  }

  #dropSession(inbox: InboxId, id: string): void {
    void this.#sessions.remove(id)
    void this.#sessionsOf.remove([inbox, id])
  }
}

/** A range is read to its end before its database is changed: a walk would trip over its own removals. */
function snapshot<T>(range: Iterable<T>): T[] {
  return [...range]
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

function contentKey(content: {
  readonly headerHash: Uint8Array
  readonly envelopeHash: Uint8Array
}): string {
  return toHex(sha256(concatBytes(content.headerHash, content.envelopeHash)))
}

function sessionId(tokenHash: Uint8Array): string {
  return toHex(tokenHash.subarray(0, 16))
}

function goneFrom(entry: WaitingEntry, reason: GoneEntry["reason"]): GoneEntry {
  const { seq, head, id, headerHash, envelopeHash, acceptedMs, expiresMs } = entry
  return { kind: "gone", seq, head, id, headerHash, envelopeHash, acceptedMs, expiresMs, reason }
}

/** Expiry holds for every reader, whether or not the sweep has come by. */
function unlessExpired(entry: ChainEntry, now: number): ChainEntry {
  return entry.kind === "waiting" && entry.expiresMs <= now ? goneFrom(entry, "expired") : entry
}
