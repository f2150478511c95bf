// Bringing the index and the blob store together. The blob store is right; where the two differ, the
// index is changed, and what the index says is missing from the disk is said to be lost, aloud.
import {
  gridLength,
  headerHash,
  leafHash,
  type Random,
  RelayRefusal,
  toHex,
} from "../protocol/index.js"
import { type Chains, lockOfChain } from "./chains.js"
import { type Deliveries, rememberMs } from "./deliveries.js"
import { unlessMissing } from "./disk.js"
import { eachAtMost, nextTurn } from "./gate.js"
import type { DeliveryId, InboxId } from "./ids.js"
import { restoreInbox } from "./inbox-mending.js"
import { failureFields, type Log } from "./log.js"
import type { Publishing } from "./publishing.js"
import type { BlobStore, Commit, PartPlace } from "./stores/blob-store.js"
import type { InboxLogs } from "./stores/inbox-log.js"
import { readOrAlarm } from "./stores/maced-record.js"
import type { FolderLocks } from "./stores/folder-locks.js"
import { IndexUnavailable } from "./stores/index-errors.js"
import type { OpenUpload, RelayIndex, UploadClose } from "./stores/relay-index.js"

export interface RecoveryNeeds {
  readonly index: RelayIndex
  readonly blobs: BlobStore
  readonly logs: InboxLogs
  readonly chains: Chains
  readonly locks: FolderLocks
  readonly publishing: Publishing
  readonly deliveries: Pick<Deliveries, "endIfDone">
  readonly log: Log
  readonly random: Random
  readonly nowMs: () => number
}

/** Small files are read many at a time: each takes a few turns of the thread pool. */
const readsAtOnce = 32
/** Each reads as many small files at a time. */
const inboxesAtOnce = 4
/** Each has a part in memory. */
const uploadsAtOnce = 4
const closesAtOnce = 256
/** So many steps of the index that wait for nothing take less than a long request. */
const stepsAtOnce = 100
const claimMs = 60_000
/** How long an upload outlives its end, for a finish that is under way. */
export const uploadGraceMs: number = 60 * 60_000

export interface RebuildOptions {
  /** Aborted when the index is no longer the caller's to write; the rebuild then ends with its reason. */
  readonly signal: AbortSignal
  /** Called often: of all deliveries that are stored, how many are in the index. */
  readonly onProgress: (progress: { readonly done: number; readonly total: number }) => void
}

/** Makes an empty index say what the blob store holds. Nobody else may use the index meanwhile. */
export async function rebuildIndex(
  needs: RecoveryNeeds,
  { signal, onProgress }: RebuildOptions,
): Promise<void> {
  const { index, blobs, logs, log, nowMs } = needs
  const startedMs = nowMs()
  const stored = new Set(await blobs.deliveries())
  /** Those that are not yet in each of their inboxes. */
  const left = new Set(stored)
  /** Of those with several recipients, in how many inboxes they are missing. */
  const missing = new Map<DeliveryId, number>()
  const placed = async (commits: readonly Commit[]): Promise<void> => {
    const whole = commits.filter(({ id, links }) => {
      const still = (missing.get(id) ?? links.length) - 1
      if (still > 0) missing.set(id, still)
      else missing.delete(id)
      return still === 0
    })
    await index.closeUploads(whole.map(({ id, expiresMs }) => ({ id, dueMs: expiresMs })))
    for (const { id } of whole) left.delete(id)
    onProgress({ done: stored.size - left.size, total: stored.size })
    signal.throwIfAborted()
  }
  await placed([])
  await index.clear()
  await eachAtMost(inboxesAtOnce, await logs.list(), async (inbox) => {
    try {
      // Another relay may be in the middle of a change that began before the index was lost.
      await needs.locks.run(lockOfChain(inbox), () => restoreInbox(needs, inbox, placed))
    } catch (error) {
      signal.throwIfAborted()
      if (isForLater(error)) throw error
      // One inbox that cannot be read keeps no other one from being served. It is not there rather than
      // there in part: a chain that ends early would be signed as the whole of it.
      await index.removeInbox(inbox)
      log("inbox_not_restored", failureFields(error), "alarm")
    }
  })
  const count = stored.size - left.size
  await closeEnded(needs, stored, signal)
  await eachAtMost(uploadsAtOnce, await blobs.uploads(), async (id) => {
    signal.throwIfAborted()
    // Renamed while the folder was copied.
    await (stored.has(id) ? blobs.dropUpload(id) : restoreUpload(needs, id))
  })
  await eachAtMost(readsAtOnce, left, async (id) => {
    signal.throwIfAborted()
    await finishStored(needs, id, new Set())
  })
  log("index_rebuilt", { count, durationMs: nowMs() - startedMs })
}

/** What has ended is no upload any more. */
async function closeEnded(
  { index, blobs, log }: RecoveryNeeds,
  stored: ReadonlySet<DeliveryId>,
  signal: AbortSignal,
): Promise<void> {
  let closes: UploadClose[] = []
  await eachAtMost(readsAtOnce, await blobs.endedDeliveries(), async (id) => {
    signal.throwIfAborted()
    // Its end was begun, or a copy of the folder has it before and after: what the inboxes say decides.
    if (stored.has(id)) {
      if ((await readOrAlarm(log, () => blobs.isWhole(id))) !== false) {
        await blobs.forgetEnded(id)
        return
      }
      // A power cut may undo that its folder was moved away, and not that files in it were removed.
      await blobs.dropDelivery(id)
    }
    const ended = await readOrAlarm(log, () => blobs.readEnded(id))
    if (ended === undefined) return
    closes.push({ id, dueMs: ended.forgetMs })
    if (closes.length < closesAtOnce) return
    const full = closes
    closes = []
    await index.closeUploads(full)
  })
  await index.closeUploads(closes)
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
  const { index, blobs, logs, log } = needs
  const inboxes = new Set([...(await logs.list()), ...(await index.inboxes())])
  const waiting = new Map<DeliveryId, InboxId[]>()
  const accepting = new Set<DeliveryId>()
  for (const inbox of inboxes) {
    for (const { id } of await index.accepting(inbox)) accepting.add(id)
    try {
      await needs.chains.mend(inbox)
    } catch (error) {
      // Who has it is at work on it: what the index says of it is not to be believed yet.
      if (isForLater(error)) throw error
      log("inbox_not_restored", failureFields(error), "alarm")
    }
    for (const id of await index.waiting(inbox)) {
      waiting.set(id, [...(waiting.get(id) ?? []), inbox])
    }
    await nextTurn()
  }
  // Listed after the index was asked: what is waiting there was on the disk before.
  const stored = new Set(await blobs.deliveries())
  for (const [id, places] of waiting) {
    if (!stored.has(id) && !(await blobs.isDelivery(id))) await buryLost(needs, id, places)
  }
  await eachInTurns(stored, async (id) => {
    const isClosed = (await index.upload(id))?.state === "closed"
    if (isClosed && waiting.has(id) && !accepting.has(id)) return
    await finishStored(needs, id, accepting)
  })
  await eachInTurns(await blobs.endedDeliveries(), async (id) => {
    if ((await index.upload(id))?.state !== "closed") await closeOneEnded(needs, id)
  })
  await eachAtMost(uploadsAtOnce, await blobs.uploads(), (id) => mendUpload(needs, id))
  for (const inbox of await index.inboxes()) await endStaleAccepting(needs, inbox)
}

/** Not a fault of the inbox: the index is away, or another relay is at work on the inbox. */
function isForLater(error: unknown): boolean {
  return (
    error instanceof IndexUnavailable || (error instanceof RelayRefusal && error.code === "busy")
  )
}

/** Many at once, and between some of them and the next everything else has its turn. */
async function eachInTurns<T>(items: Iterable<T>, work: (item: T) => Promise<void>): Promise<void> {
  const all = [...items]
  for (let at = 0; at < all.length; at += stepsAtOnce) {
    await eachAtMost(readsAtOnce, all.slice(at, at + stepsAtOnce), work)
    await nextTurn()
  }
}

/** A stored delivery is published, whatever became of the request that committed it. */
async function finishStored(
  needs: RecoveryNeeds,
  id: DeliveryId,
  accepting: ReadonlySet<DeliveryId>,
): Promise<void> {
  const { index, blobs, chains, publishing, deliveries, log, nowMs } = needs
  const commit = await readOrAlarm(log, () => blobs.readCommit(id))
  if (commit === undefined) return
  try {
    await index.closeUpload({ id, dueMs: commit.expiresMs })
    await index.releaseRoom(id)
    const header = headerHash(commit.header)
    const entries = await Promise.all(
      commit.links.map(({ inbox, envelopeHash }) =>
        index.entryByContent({ inbox, headerHash: header, envelopeHash }),
      ),
    )
    if (entries.includes(undefined) && commit.expiresMs + rememberMs <= nowMs()) {
      // A power cut brought it back after an inbox had forgotten it: there is no new place for it.
      for (const { inbox } of commit.links) await chains.bury(inbox, id, "expired")
      await blobs.dropDelivery(id)
      return
    }
    // For an entry that is there it ends the acceptance and gives the share back.
    if (entries.includes(undefined) || accepting.has(id)) await publishing.publish(commit)
    await deliveries.endIfDone(id)
  } catch (error) {
    if (error instanceof IndexUnavailable) throw error
    log("delivery_not_published", failureFields(error), "alarm")
  }
}

/** One that ended while the index lagged behind, and for which it may still hold something. */
async function closeOneEnded({ index, blobs, log }: RecoveryNeeds, id: DeliveryId): Promise<void> {
  const ended = await readOrAlarm(log, () => blobs.readEnded(id))
  if (ended === undefined || (await blobs.isDelivery(id))) return
  await index.closeUpload({ id, dueMs: ended.forgetMs })
  await index.releaseRoom(id)
  for (const { inbox } of ended.commit.links) await index.releaseShare({ inbox, id })
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

/** Takes up an upload that the index does not know: its record says what it may be, its files what it has. */
async function restoreUpload(needs: RecoveryNeeds, id: DeliveryId): Promise<void> {
  const { index, blobs, log, nowMs } = needs
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
  for (const part of await blobs.partsOf(id)) await takePart(needs, part)
}

/** A part that is on the disk and not in the index: its bytes say whether it is what its name says. */
async function takePart({ index, blobs }: RecoveryNeeds, part: PartPlace): Promise<void> {
  const buffer = new Uint8Array(gridLength(part.index))
  const blob = await unlessMissing(blobs.openPart(part, "spool"), undefined)
  if (blob === undefined) return
  let lengthBytes: number
  try {
    lengthBytes = await blob.read(buffer, 0)
  } finally {
    await blob.close()
  }
  const leaf = leafHash({ index: part.index, part: buffer.subarray(0, lengthBytes) })
  const isWhole = lengthBytes > 0 && toHex(leaf) === toHex(part.leaf)
  const outcome = isWhole ? await index.setPart({ ...part, lengthBytes }) : "misplaced"
  // Not what its name says, or the loser of two for one place.
  if (outcome === "differs" || outcome === "misplaced") await blobs.removePart(part)
}

/** An upload of which the index knows less than the disk, or more. */
async function mendUpload(needs: RecoveryNeeds, id: DeliveryId): Promise<void> {
  const { index, blobs, log } = needs
  const known = await index.upload(id)
  if (known === undefined) {
    if (!(await blobs.isDelivery(id))) return restoreUpload(needs, id)
    // Renamed while the folder was copied.
    return blobs.dropUpload(id)
  }
  if (known.state === "closed") return
  // The index first: what it knows then was on the disk before.
  const parts = await index.parts(id)
  const stored = await blobs.partsOf(id)
  const upload = await readOrAlarm(log, () => blobs.readUpload(id))
  // Finished or given up meanwhile.
  if (upload === undefined) return
  const names = new Set(stored.map(partName))
  const unknown = new Set(parts.map(partName))
  const lostParts = parts.filter((part) => !names.has(partName(part)))
  const newParts = stored.filter((part) => !unknown.has(partName(part)))
  const isExtended =
    upload.reservedBytes > known.reservedBytes || upload.expiresMs > known.expiresMs
  if (lostParts.length + newParts.length === 0 && !isExtended) return
  await withUploadClaim(needs, id, async () => {
    if (isExtended) {
      await index.extendUpload(upload)
      await reserveAgain(needs, upload)
    }
    for (const part of newParts) await takePart(needs, part)
    for (const { index: at, leaf } of lostParts) await index.removePart({ id, index: at, leaf })
  })
}

function partName({ index, leaf }: { readonly index: number; readonly leaf: Uint8Array }): string {
  return `${index} ${toHex(leaf)}`
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
async function endStaleAccepting(needs: RecoveryNeeds, inbox: InboxId): Promise<void> {
  const { index, blobs } = needs
  for (const { id } of await index.accepting(inbox)) {
    await withUploadClaim(needs, id, async () => {
      if (!(await blobs.isDelivery(id))) await index.endAccepting({ inbox, id })
    })
  }
}

/** Leaves it to the next time while somebody else is at work on the upload. */
async function withUploadClaim(
  { index, random, nowMs }: RecoveryNeeds,
  id: DeliveryId,
  work: () => Promise<void>,
): Promise<void> {
  const claim = { what: "upload", name: id, owner: toHex(random(16)) } as const
  if (!(await index.claim({ ...claim, untilMs: nowMs() + claimMs }))) return
  try {
    await work()
  } finally {
    await index.unclaim(claim)
  }
}
