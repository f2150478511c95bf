// The databases of the embedded index, and how one step changes several of them at once.
import { type Database, open, type RootDatabase } from "lmdb"
import type {
  Chain,
  ChainEntry,
  OpenUpload,
  PartEntry,
  Quota,
  Session,
  Tally,
} from "./relay-index.js"

export type StoredUpload =
  | ({
      readonly state: "open"
      /** The greatest index of its parts, and the index of the one that is short; or `nowhere`. */
      readonly highest: number
      readonly short: number
    } & OpenUpload)
  | { readonly state: "closed"; readonly dueMs: number }

export interface StoredInbox extends Chain {
  readonly used: Quota
  readonly held: Quota
  readonly listedSeq: number
}

export interface Reservation {
  readonly bytes: number
  readonly untilMs: number
}

export type StoredSession = Session & { readonly idleMs: number }

export interface Tables {
  readonly root: RootDatabase<string, string>
  readonly uploads: Database<StoredUpload, string>
  readonly parts: Database<PartEntry, [string, number]>
  readonly due: Database<true, [number, string]>
  readonly leases: Database<number, string>
  readonly room: Database<Reservation, string>
  readonly bundles: Database<Uint8Array, string>
  readonly inboxes: Database<StoredInbox, string>
  readonly shares: Database<Reservation, [string, string]>
  readonly accepting: Database<number, [string, string]>
  readonly entries: Database<ChainEntry, [string, number]>
  readonly envelopes: Database<Uint8Array, [string, number]>
  readonly seqById: Database<number, [string, string]>
  readonly seqByContent: Database<number, [string, string]>
  readonly sessions: Database<StoredSession, string>
  readonly sessionsOf: Database<true, [string, string]>
  readonly spent: Database<number, string>
  /** What only takes up room, for a moment (embedded-index.ts). */
  readonly spare: Database<Uint8Array, number>
  /** One value, under "all". */
  readonly tally: Database<Tally, string>
}

/** What every part of the index is made from. */
export interface Embedded {
  readonly db: Tables
  readonly now: () => number
  /** Runs one step in a write transaction; what it throws undoes it. */
  readonly step: <T>(step: () => T) => Promise<T>
}

/** A part of the index that holds things which end. */
export interface Reclaims {
  /** Frees their space. Runs inside a step. */
  reclaimNow(): void
}

export function openTables(path: string): Tables {
  const root = open<string, string>({ path, noSync: true, maxDbs: 32, name: "relay" })
  return {
    root,
    uploads: root.openDB({ name: "uploads" }),
    parts: root.openDB({ name: "parts" }),
    due: root.openDB({ name: "due" }),
    leases: root.openDB({ name: "leases" }),
    room: root.openDB({ name: "room" }),
    bundles: root.openDB({ name: "bundles" }),
    inboxes: root.openDB({ name: "inboxes" }),
    shares: root.openDB({ name: "shares" }),
    accepting: root.openDB({ name: "accepting" }),
    entries: root.openDB({ name: "entries" }),
    envelopes: root.openDB({ name: "envelopes" }),
    seqById: root.openDB({ name: "seq-by-id" }),
    seqByContent: root.openDB({ name: "seq-by-content" }),
    sessions: root.openDB({ name: "sessions" }),
    sessionsOf: root.openDB({ name: "sessions-of" }),
    spent: root.openDB({ name: "spent" }),
    spare: root.openDB({ name: "spare" }),
    tally: root.openDB({ name: "tally" }),
  }
}

/** Empties every database. */
export function clearTables({ root, ...databases }: Tables): void {
  for (const database of Object.values(databases)) database.clearSync()
  void root.remove("marker")
}

// The tally changes in the step that changes what it counts, so the two agree after a crash as well.

export function readTally({ tally, inboxes, uploads }: Tables): Tally {
  const known = tally.get("all")
  if (known !== undefined) return known
  // Of an index that was made before there was a tally: counted once.
  const states = [...inboxes.getRange({})].map(({ value }) => value.used)
  const open = [...uploads.getRange({})].filter(({ value }) => value.state === "open")
  return {
    inboxes: states.length,
    waiting: {
      bytes: states.reduce((sum, { bytes }) => sum + bytes, 0),
      deliveries: states.reduce((sum, { deliveries }) => sum + deliveries, 0),
    },
    openUploads: open.length,
  }
}

/** To be called before the change that it counts. */
export function addToTally(
  db: Tables,
  change: { readonly inboxes?: number; readonly openUploads?: number; readonly waiting?: Quota },
): void {
  const { inboxes, waiting, openUploads } = readTally(db)
  void db.tally.put("all", {
    inboxes: inboxes + (change.inboxes ?? 0),
    waiting: {
      bytes: waiting.bytes + (change.waiting?.bytes ?? 0),
      deliveries: waiting.deliveries + (change.waiting?.deliveries ?? 0),
    },
    openUploads: openUploads + (change.openUploads ?? 0),
  })
}

interface KeyRange<K> {
  readonly start: [string, K]
  readonly end: [string, K]
}

// The keys of one owner, from a lowest to a highest: hex digits sort below "g", numbers below Infinity.

export function named(owner: string): KeyRange<string> {
  return { start: [owner, ""], end: [owner, "g"] }
}

export function numbered(owner: string, from: number = 0, to: number = Infinity): KeyRange<number> {
  return { start: [owner, from], end: [owner, to] }
}

/** A range is read to its end before its database is changed: a walk would trip over its own removals. */
export function snapshot<T>(range: Iterable<T>): T[] {
  return [...range]
}
