// Bringing the index and the blob store together. The blob store is right; where the two differ, the
// index is changed, and what the index says is missing from the disk is said to be lost, aloud.
import {
  gridLength,
  headerHash,
  leafHash,
  maxPartBytes,
  type Random,
  toHex,
} from "../protocol/index.js"
import { type Chains, deliverySize } from "./chains.js"
import type { Deliveries } from "./deliveries.js"
import { eachAtMost } from "./gate.js"
import type { DeliveryId, InboxId } from "./ids.js"
import { failureFields, type Log } from "./log.js"
import type { BlobStore, Commit } from "./stores/blob-store.js"
import { DamagedRecord } from "./stores/maced-record.js"
import type { InboxLogs, LoggedInbox } from "./stores/inbox-log.js"
import type {
  GoneEntry,
  OpenUpload,
  RelayIndex,
  WaitingEntryWithEnvelope,
} from "./stores/relay-index.js"
import type { Publishing } from "./publishing.js"

export interface RecoveryNeeds {
  readonly index: RelayIndex
  readonly blobs: BlobStore
  readonly logs: InboxLogs
  readonly chains: Chains
  readonly publishing: Publishing
  readonly deliveries: Pick<Deliveries, "endIfDone">
  readonly log: Log
  readonly random: Random
  readonly nowMs: () => number
}

/** Small files are read many at a time: each takes a few turns of the thread pool. */
const readsAtOnce = 16
const claimMs = 60_000
/** How long an upload outlives its end, for a finish that is under way. */
export const uploadGraceMs: number = 60 * 60_000

export interface RebuildOptions {
  /** Aborted when the index is no longer the caller's to write; the rebuild then ends with its reason. */
  readonly signal: AbortSignal
  /** Called often. `total` is how many deliveries are stored, and what `done` comes to, nearly. */
  readonly onProgress: (progress: { readonly done: number; readonly total: number }) => void
}

/** Makes an empty index say what the blob store holds. Nobody else may use the index meanwhile. */
export async function rebuildIndex(
  needs: RecoveryNeeds,
  { signal, onProgress }: RebuildOptions,
): Promise<void> {
  const { index, blobs, logs, log, nowMs } = needs
  const startedMs = nowMs()
  const total = (await blobs.deliveries()).length
  let deliveries = 0
  onProgress({ done: 0, total })
  signal.throwIfAborted()
  await index.clear()
  for (const inbox of await logs.list()) {
    signal.throwIfAborted()
    deliveries += await tryRestoreInbox(needs, inbox)
    onProgress({ done: deliveries, total })
  }
  await eachAtMost(readsAtOnce, await blobs.endedDeliveries(), async (id) => {
    // Its end was begun, or a copy of the folder has it before and after: what the inboxes say decides.
    if (await blobs.isDelivery(id)) {
      await blobs.forgetEnded(id)
      return
    }
    const ended = await readOrAlarm(log, () => blobs.readEnded(id))
    if (ended !== undefined) await index.closeUpload({ id, dueMs: ended.forgetMs })
  })
  for (const id of await blobs.uploads()) {
    signal.throwIfAborted()
    await restoreUpload(needs, id)
  }
  signal.throwIfAborted()
  await reconcile(needs)
  log("index_rebuilt", { count: deliveries, durationMs: nowMs() - startedMs })
}

/**
 * For a folder that was copied, perhaps while a relay worked in it: what was being removed, or put
 * there, may have been copied in part. Inboxes that name it will say that it is lost.
 */
export async function dropTorn({ blobs, log }: RecoveryNeeds): Promise<void> {
  let count = 0
  await eachAtMost(readsAtOnce, await blobs.deliveries(), async (id) => {
    // What has no record of ours is left to whoever looks into it.
    const isWhole = await readOrAlarm(log, () => blobs.isWhole(id))
    if (isWhole !== false) return
    await blobs.dropDelivery(id)
    count += 1
  })
  if (count > 0) log("copied_in_part", { count }, "warning")
}

/** What a crash, or an index that lags behind, left undone. Safe at any time, under any load. */
export async function reconcile(needs: RecoveryNeeds): Promise<void> {
  const { index, blobs, logs, chains, log } = needs
  for (const inbox of await logs.list()) {
    if ((await index.chain(inbox)) === undefined) await tryRestoreInbox(needs, inbox)
  }
  const waiting = new Map<DeliveryId, InboxId[]>()
  const accepting = new Set<DeliveryId>()
  for (const inbox of await index.inboxes()) {
    for (const { id } of await index.accepting(inbox)) accepting.add(id)
    if ((await index.unrevealed(inbox)).length > 0) await chains.settle(inbox)
    for (const id of await index.waiting(inbox)) {
      waiting.set(id, [...(waiting.get(id) ?? []), inbox])
    }
  }
  // Listed after the index was asked: what is waiting there was on the disk before.
  const stored = new Set(await blobs.deliveries())
  for (const [id, inboxes] of waiting) {
    if (!stored.has(id) && !(await blobs.isDelivery(id))) await buryLost(needs, id, inboxes)
  }
  await eachAtMost(readsAtOnce, stored, async (id) => {
    const isClosed = (await index.upload(id))?.state === "closed"
    if (isClosed && waiting.has(id) && !accepting.has(id)) return
    const commit = await readOrAlarm(log, () => blobs.readCommit(id))
    if (commit === undefined) return
    try {
      await finishCommit(needs, commit)
    } catch (error) {
      log("delivery_not_published", failureFields(error), "alarm")
    }
  })
  for (const id of await blobs.uploads()) {
    if ((await index.upload(id)) === undefined) await restoreUpload(needs, id)
  }
  for (const inbox of await index.inboxes()) await endStaleAccepting(needs, inbox)
}

/** A committed delivery is published, whatever became of the request that committed it. */
async function finishCommit(
  { index, publishing, deliveries }: RecoveryNeeds,
  commit: Commit,
): Promise<void> {
  const { id } = commit
  await index.closeUpload({ id, dueMs: commit.expiresMs })
  await index.releaseRoom(id)
  const header = headerHash(commit.header)
  const entries = await Promise.all(
    commit.links.map(({ inbox, envelopeHash }) =>
      index.entryByContent({ inbox, headerHash: header, envelopeHash }),
    ),
  )
  if (entries.includes(undefined)) await publishing.publish(commit)
  await deliveries.endIfDone(id)
}

async function buryLost(
  { index, chains, log }: RecoveryNeeds,
  id: DeliveryId,
  inboxes: readonly InboxId[],
): Promise<void> {
  // Taken or expired while this looked: then it is gone in the index by now as well.
  for (const inbox of inboxes) {
    const entry = await index.entryById({ inbox, id })
    if (entry?.kind !== "waiting") continue
    log("delivery_lost", {}, "alarm")
    await chains.bury(inbox, id, "lost")
  }
}

/** One inbox that cannot be read keeps no other one from being served. */
async function tryRestoreInbox(needs: RecoveryNeeds, inbox: InboxId): Promise<number> {
  try {
    return await restoreInbox(needs, inbox)
  } catch (error) {
    needs.log("inbox_not_restored", failureFields(error), "alarm")
    return 0
  }
}

/** Gives the index an inbox as its log has it; says how many deliveries wait there. */
async function restoreInbox(needs: RecoveryNeeds, inbox: InboxId): Promise<number> {
  const { index, logs, chains, log } = needs
  const logged = await logs.read(inbox)
  if (logged === undefined) {
    log("inbox_record_missing", {}, "alarm")
    return 0
  }
  if (logged.damaged > 0) log("inbox_record_damaged", { count: logged.damaged }, "alarm")
  const lost: DeliveryId[] = []
  const entries: (GoneEntry | WaitingEntryWithEnvelope)[] = []
  await eachAtMost(readsAtOnce, logged.places.entries(), async ([at, place]) => {
    if (place.kind === "buried") {
      entries[at] = { ...place, kind: "gone" }
      return
    }
    const entry = await waitingEntry(needs, inbox, place)
    if (entry === undefined) lost.push(place.id)
    entries[at] = entry ?? { ...place, kind: "gone", reason: "lost" }
  })
  const { bundle, floorSeq, floorHead } = logged
  await index.restoreInbox({ inbox, bundle, floorSeq, floorHead, entries })
  for (const id of lost) {
    log("delivery_lost", {}, "alarm")
    await appendLost(needs, inbox, logged, id)
  }
  await chains.settle(inbox)
  return entries.filter(({ kind }) => kind === "waiting").length
}

async function appendLost(
  { logs }: RecoveryNeeds,
  inbox: InboxId,
  { places }: LoggedInbox,
  id: DeliveryId,
): Promise<void> {
  const place = places.find((candidate) => candidate.id === id && candidate.kind === "published")
  if (place === undefined) return
  await logs.append(inbox, [{ ...place, kind: "buried", reason: "lost" }])
}

async function waitingEntry(
  { blobs, log }: RecoveryNeeds,
  inbox: InboxId,
  place: LoggedInbox["places"][number],
): Promise<WaitingEntryWithEnvelope | undefined> {
  const commit = await readOrAlarm(log, () => blobs.readCommit(place.id))
  if (commit === undefined) return undefined
  const slot = commit.links.findIndex((link) => link.inbox === inbox)
  const stored = (await readOrAlarm(log, () => blobs.readLinks(commit)))?.[slot]
  if (stored?.link?.seq !== place.seq) return undefined
  const { header } = commit
  return {
    ...place,
    kind: "waiting",
    sizeBytes: deliverySize(header),
    stamp: stored.link.stamp,
    header,
    envelope: stored.envelope,
  }
}

/** Takes up an upload that the index does not know: its record says what it may be, its files what it has. */
async function restoreUpload(needs: RecoveryNeeds, id: DeliveryId): Promise<void> {
  const { index, blobs, log, nowMs } = needs
  // Renamed while the folder was copied.
  if (await blobs.isDelivery(id)) return blobs.dropUpload(id)
  const upload = await readOrAlarm(log, () => blobs.readUpload(id))
  if (upload === undefined) {
    // Broken off before it had a record. The folder's age is all there is to go by.
    const changedMs = await blobs.uploadChangedMs(id)
    if (changedMs !== undefined && changedMs + uploadGraceMs < nowMs()) await blobs.dropUpload(id)
    return
  }
  if (upload.expiresMs + uploadGraceMs <= nowMs()) {
    await blobs.dropUpload(id)
    return
  }
  await index.startUpload(upload)
  await reserveAgain(needs, upload)
  const buffer = new Uint8Array(maxPartBytes)
  for (const part of await blobs.partsOf(id)) {
    const blob = await blobs.openPart(part, "spool")
    let lengthBytes: number
    try {
      lengthBytes = await blob.read(buffer.subarray(0, gridLength(part.index)), 0)
    } finally {
      await blob.close()
    }
    const leaf = leafHash({ index: part.index, part: buffer.subarray(0, lengthBytes) })
    const isWhole = lengthBytes > 0 && toHex(leaf) === toHex(part.leaf)
    const outcome = isWhole ? await index.setPart({ ...part, lengthBytes }) : "misplaced"
    // Not what its name says, or the loser of two for one place.
    if (outcome !== "stored" && outcome !== "same") await blobs.removePart(part)
  }
}

/** What was granted stays granted: limits that were lowered since apply to new uploads only. */
async function reserveAgain({ index }: RecoveryNeeds, upload: OpenUpload): Promise<void> {
  const { id, reservedBytes: bytes, expiresMs: untilMs } = upload
  const most = Number.MAX_SAFE_INTEGER
  await index.reserveRoom({ id, bytes, roomBytes: most, untilMs })
  for (const inbox of upload.recipients) {
    const quota = { bytes: most, deliveries: most }
    await index.reserveShare({ inbox, id, bytes, quota, untilMs })
  }
}

/** An acceptance that nobody is at work on and that left no commit: a finish that broke off before. */
async function endStaleAccepting(
  { index, blobs, random, nowMs }: RecoveryNeeds,
  inbox: InboxId,
): Promise<void> {
  for (const { id } of await index.accepting(inbox)) {
    const claim = { what: "upload", name: id, owner: toHex(random(16)) } as const
    if (!(await index.claim({ ...claim, untilMs: nowMs() + claimMs }))) continue
    try {
      if (!(await blobs.isDelivery(id))) await index.endAccepting({ inbox, id })
    } finally {
      await index.unclaim(claim)
    }
  }
}

/** A record that was not written by this relay decides nothing, and its operator should know. */
export async function readOrAlarm<T>(
  log: Log,
  read: () => Promise<T | undefined>,
): Promise<T | undefined> {
  try {
    return await read()
  } catch (error) {
    if (!(error instanceof DamagedRecord)) throw error
    log("record_refused", failureFields(error), "alarm")
    return undefined
  }
}
