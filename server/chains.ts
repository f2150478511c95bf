// Changes to the chains of inboxes: publishing, burying, and moving the floor. For each inbox they run
// one batch after the other, and each batch keeps the order that makes a receipt true:
//
//   the index assigns sequence numbers → the link records are synced beside the deliveries → the
//   inbox's log is synced → the index reveals the entries → whoever waits is answered.
//
// What breaks off on the way is taken up by the next batch (`finishUnrevealed`), with the numbers it
// was given, or by the rebuild of the index from the logs.
import {
  chainHead,
  encodeStamp,
  headerHash,
  type Random,
  RelayRefusal,
  type TombstoneReason,
  toHex,
} from "../protocol/index.js"
import { unlessMissing } from "./disk.js"
import { type DeliveryId, type InboxId, inboxIdBytesOf } from "./ids.js"
import { mendInbox } from "./inbox-mending.js"
import type { Log } from "./log.js"
import type { Counts } from "./operator/counts.js"
import { deliverySize } from "./reservations.js"
import type { BlobStore, Commit } from "./stores/blob-store.js"
import type { FolderLocks } from "./stores/folder-locks.js"
import type { InboxLogs, LogRecord } from "./stores/inbox-log.js"
import type {
  ChainEntry,
  ChainPlace,
  GoneEntry,
  RelayIndex,
  WaitingEntry,
  WaitingEntryWithEnvelope,
} from "./stores/relay-index.js"
import type { RelayKeys } from "./stores/relay-keys.js"

export interface Publication {
  readonly commit: Commit
  /** Which of the commit's links. */
  readonly slot: number
  readonly envelope: Uint8Array
}

export interface Chains {
  /**
   * The delivery's place in the inbox, visible and durable. When the inbox has exactly this header and
   * envelope already, that earlier place.
   */
  publish(inbox: InboxId, publication: Publication): Promise<ChainPlace>
  /** The entry is gone, durably. Nothing happens when it was, or never was. */
  bury(inbox: InboxId, id: DeliveryId, reason: TombstoneReason): Promise<void>
  /** Forgets the oldest entries as far as all of them are gone and expired before `expiredBeforeMs`. */
  raiseFloor(inbox: InboxId, expiredBeforeMs: number): Promise<void>
  /** Completes what an earlier run of the relay left invisible, and makes the index say what the log says. */
  mend(inbox: InboxId): Promise<void>
  /** Waits for all work begun. */
  idle(): Promise<void>
}

export interface ChainsNeeds {
  readonly index: RelayIndex
  readonly blobs: BlobStore
  readonly logs: InboxLogs
  readonly keys: RelayKeys
  readonly locks: FolderLocks
  readonly random: Random
  readonly counts: Pick<Counts, "delivered" | "ended">
  readonly log: Log
}

/** So that a burst does not make one write, and one wait for it, without end. */
const batchAtMost = 64

type Job =
  | { readonly kind: "publish"; readonly publication: Publication }
  | { readonly kind: "bury"; readonly id: DeliveryId; readonly reason: TombstoneReason }
  | { readonly kind: "floor"; readonly expiredBeforeMs: number }
  | { readonly kind: "mend" }

interface Waiting {
  readonly job: Job
  readonly resolve: (place: ChainPlace | undefined) => void
  readonly reject: (error: unknown) => void
}

export function createChains(needs: ChainsNeeds): Chains {
  const queues = new Map<InboxId, Waiting[]>()
  const running = new Set<Promise<void>>()

  function enqueue(inbox: InboxId, job: Job): Promise<ChainPlace | undefined> {
    return new Promise((resolve, reject) => {
      const queue = queues.get(inbox)
      if (queue !== undefined) {
        queue.push({ job, resolve, reject })
        return
      }
      const fresh: Waiting[] = [{ job, resolve, reject }]
      queues.set(inbox, fresh)
      const run = drain(inbox, fresh)
      running.add(run)
      void run.finally(() => running.delete(run))
    })
  }

  async function drain(inbox: InboxId, queue: Waiting[]): Promise<void> {
    while (queue.length > 0) await runBatch(needs, inbox, queue.splice(0, batchAtMost))
    queues.delete(inbox)
  }

  return {
    async publish(inbox, publication) {
      const place = await enqueue(inbox, { kind: "publish", publication })
      if (place === undefined) throw new Error("a publication without a place")
      return place
    },
    async bury(inbox, id, reason) {
      await enqueue(inbox, { kind: "bury", id, reason })
    },
    async raiseFloor(inbox, expiredBeforeMs) {
      await enqueue(inbox, { kind: "floor", expiredBeforeMs })
    },
    async mend(inbox) {
      await enqueue(inbox, { kind: "mend" })
    },
    async idle() {
      while (running.size > 0) await Promise.all(running)
    },
  }
}

/** Whoever changes a chain holds it. */
export function lockOfChain(inbox: InboxId): string {
  return `chain-${inbox}`
}

async function runBatch(needs: ChainsNeeds, inbox: InboxId, batch: Waiting[]): Promise<void> {
  try {
    // By a lock of the folder and not by a claim that ends with the time: whoever slept over the end of
    // one would write to the log over what was written since.
    await needs.locks.run(lockOfChain(inbox), async () => {
      const isSweepOnly = batch.every(({ job }) => job.kind === "floor")
      await (isSweepOnly ? finishUnrevealed(needs, inbox) : catchUp(needs, inbox))
      if (batch.some(({ job }) => job.kind === "mend")) await mendInbox(needs, inbox)
      await publishAll(needs, inbox, batch)
      await buryAll(needs, inbox, batch)
      for (const { job } of batch) {
        if (job.kind === "floor") await raiseFloor(needs, inbox, job.expiredBeforeMs)
      }
    })
    // Publications have been answered by now; to answer again does nothing.
    for (const { resolve } of batch) resolve(undefined)
  } catch (error) {
    for (const { reject } of batch) reject(error)
  }
}

async function publishAll(needs: ChainsNeeds, inbox: InboxId, batch: Waiting[]): Promise<void> {
  const { index } = needs
  const fresh = new Map<
    string,
    { readonly publication: Publication; readonly waiting: Waiting[] }
  >()
  for (const waiting of batch) {
    if (waiting.job.kind !== "publish") continue
    const { publication } = waiting.job
    const { commit, slot } = publication
    const content = contentOf(commit, slot)
    const known = await index.entryByContent({ inbox, ...content })
    if (known !== undefined) {
      await dropShare(index, inbox, commit.id)
      waiting.resolve(known)
      continue
    }
    const key = `${toHex(content.headerHash)} ${toHex(content.envelopeHash)}`
    const same = fresh.get(key)
    if (same === undefined) fresh.set(key, { publication, waiting: [waiting] })
    else same.waiting.push(waiting)
  }
  if (fresh.size === 0) return
  const jobs = [...fresh.values()]
  const entries = await assignAll(
    needs,
    inbox,
    jobs.map(({ publication }) => publication),
  )
  await publishEntries(needs, inbox, entries)
  needs.counts.delivered(entries.length)
  for (const [at, { waiting }] of jobs.entries()) {
    const entry = entries[at]
    if (entry === undefined) throw new Error("an entry for each publication")
    for (const { job, resolve } of waiting) {
      // The same content by way of another upload: it takes no place and no share.
      if (job.kind === "publish" && job.publication.commit.id !== entry.id) {
        await dropShare(index, inbox, job.publication.commit.id)
      }
      resolve(entry)
    }
  }
}

/**
 * An index that lost its last writes would give the numbers that the log has given already, to other
 * deliveries: two heads for one number, which is how a relay that lies is known.
 */
async function catchUp(needs: ChainsNeeds, inbox: InboxId): Promise<void> {
  const chain = await needs.index.chain(inbox)
  if (chain === undefined) return
  const lastSeq = await needs.logs.lastSeq(inbox)
  // Before what is unfinished there: it was finished, and has others behind it.
  if (lastSeq > chain.seq) await mendInbox(needs, inbox)
  await finishUnrevealed(needs, inbox)
  if (lastSeq < chain.visibleSeq) await mendInbox(needs, inbox)
}

async function dropShare(index: RelayIndex, inbox: InboxId, id: DeliveryId): Promise<void> {
  await index.endAccepting({ inbox, id })
  await index.releaseShare({ inbox, id })
}

function contentOf(
  { header, links }: Commit,
  slot: number,
): { readonly headerHash: Uint8Array; readonly envelopeHash: Uint8Array } {
  const link = links[slot]
  if (link === undefined) throw new RangeError("the commit has no such link")
  return { headerHash: headerHash(header), envelopeHash: link.envelopeHash }
}

async function assignAll(
  needs: ChainsNeeds,
  inbox: InboxId,
  publications: readonly Publication[],
): Promise<WaitingEntryWithEnvelope[]> {
  for (;;) {
    const chain = await needs.index.chain(inbox)
    if (chain === undefined) throw new RelayRefusal("no_such_inbox")
    if (chain.seq > chain.visibleSeq) {
      // A step of whoever had the inbox before, which was given up and came through after all.
      await finishUnrevealed(needs, inbox)
      continue
    }
    const entries: WaitingEntryWithEnvelope[] = []
    let { seq, head } = chain
    for (const publication of publications) {
      const entry = await makeEntry(needs, inbox, publication, { seq: seq + 1, previous: head })
      entries.push(entry)
      ;({ seq, head } = entry)
    }
    const outcome = await needs.index.assign({ inbox, afterSeq: chain.seq, entries })
    if (outcome === "assigned") return entries
    if (outcome === "unknown") throw new RelayRefusal("no_such_inbox")
  }
}

async function makeEntry(
  { keys, random }: ChainsNeeds,
  inbox: InboxId,
  { commit, slot, envelope }: Publication,
  { seq, previous }: { readonly seq: number; readonly previous: Uint8Array },
): Promise<WaitingEntryWithEnvelope> {
  const { id, acceptedMs, expiresMs, header } = commit
  const place = { ...contentOf(commit, slot), acceptedMs, expiresMs }
  const head = chainHead({ previous, seq, ...place })
  const stamp = encodeStamp({
    ...place,
    kid: keys.kid,
    inboxId: inboxIdBytesOf(inbox),
    seq,
    head,
    // Nothing about the source is kept: there are no tickets or invitations yet to name.
    source: {
      lane: commit.lane,
      lineage: new Uint8Array(16),
      sourcePseudonym: new Uint8Array(16),
    },
    kFrank: keys.frankKey,
    kSrc: await keys.sourceKey(acceptedMs),
    random,
  })
  const sizeBytes = deliverySize(header)
  return { kind: "waiting", ...place, id, seq, head, sizeBytes, stamp, header, envelope }
}

/** Makes assigned entries durable and then visible. Doing it twice does no harm. */
async function publishEntries(
  { index, blobs, logs }: ChainsNeeds,
  inbox: InboxId,
  entries: readonly WaitingEntryWithEnvelope[],
): Promise<void> {
  const last = entries.at(-1)
  if (last === undefined) return
  await Promise.all(entries.map((entry) => saveLink(blobs, inbox, entry)))
  await logs.append(
    inbox,
    entries.map((entry) => ({ kind: "published", ...placeOf(entry) })),
  )
  await index.reveal({ inbox, seq: last.seq })
}

async function saveLink(blobs: BlobStore, inbox: InboxId, entry: WaitingEntry): Promise<void> {
  const commit = await blobs.readCommit(entry.id)
  // Removed by hand under the relay. The number is taken all the same, and the next look at the blob
  // store buries the entry as lost.
  if (commit === undefined) return
  const slot = commit.links.findIndex((link) => link.inbox === inbox)
  await unlessMissing(blobs.saveLink(entry.id, slot, entry), undefined)
}

async function finishUnrevealed(needs: ChainsNeeds, inbox: InboxId): Promise<void> {
  await publishEntries(needs, inbox, await needs.index.unrevealed(inbox))
}

function placeOf(entry: ChainPlace): ChainPlace {
  const { seq, head, id, headerHash, envelopeHash, acceptedMs, expiresMs } = entry
  return { seq, head, id, headerHash, envelopeHash, acceptedMs, expiresMs }
}

async function buryAll(
  { index, logs, counts }: ChainsNeeds,
  inbox: InboxId,
  batch: readonly Waiting[],
): Promise<void> {
  const graves = new Map<number, GoneEntry>()
  for (const { job } of batch) {
    if (job.kind !== "bury") continue
    const entry = await index.entryById({ inbox, id: job.id })
    if (entry?.kind !== "waiting" || graves.has(entry.seq)) continue
    graves.set(entry.seq, { kind: "gone", ...placeOf(entry), reason: job.reason })
  }
  if (graves.size === 0) return
  const records = [...graves.values()].map((entry): LogRecord => ({ ...entry, kind: "buried" }))
  await logs.append(inbox, records)
  await index.bury({
    inbox,
    seqs: [...graves.values()].map(({ seq, reason }) => ({ seq, reason })),
  })
  for (const { reason } of graves.values()) counts.ended(reason)
}

async function raiseFloor(
  { index, logs }: ChainsNeeds,
  inbox: InboxId,
  expiredBeforeMs: number,
): Promise<void> {
  const page = 1000
  let passed = 0
  for (;;) {
    const chain = await index.chain(inbox)
    if (chain === undefined) return
    const entries = await index.entriesAfter({ inbox, seq: chain.floorSeq, limit: page })
    const kept = entries.findIndex((entry) => !isPast(entry, expiredBeforeMs))
    const past = kept === -1 ? entries : entries.slice(0, kept)
    const last = past.at(-1)
    if (last === undefined) break
    // The floor is durable before anything below it is forgotten.
    await logs.append(inbox, [{ kind: "floor", seq: last.seq, head: last.head }])
    await index.raiseFloor({ inbox, seq: last.seq, head: last.head })
    passed += past.length
    if (past.length < page) break
  }
  if (passed > 0) await logs.compact(inbox)
}

function isPast(entry: ChainEntry, expiredBeforeMs: number): boolean {
  return entry.kind === "gone" && entry.expiresMs <= expiredBeforeMs
}
