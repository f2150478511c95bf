// Reclaiming what has expired. The index only says where to look; what is removed is decided from the
// records on the disk. Nothing depends on the sweep but space: expiry holds without it.
import { type Random, toHex } from "../protocol/index.js"
import type { Chains } from "./chains.js"
import { type Deliveries, rememberMs } from "./deliveries.js"
import type { IdleInboxes } from "./idle-inboxes.js"
import type { DeliveryId } from "./ids.js"
import { failureFields, type Log } from "./log.js"
import { uploadGraceMs } from "./recovery.js"
import type { BlobStore } from "./stores/blob-store.js"
import type { FolderLocks } from "./stores/folder-locks.js"
import type { RelayIndex } from "./stores/relay-index.js"
import type { RelayKeys } from "./stores/relay-keys.js"
import { lockOfUpload } from "./uploads.js"

export interface SweepStores {
  readonly index: RelayIndex
  readonly blobs: BlobStore
  readonly chains: Chains
  readonly idle: Pick<IdleInboxes, "sweep">
  readonly deliveries: Pick<Deliveries, "remove">
  readonly keys: RelayKeys
  readonly locks: FolderLocks
  readonly log: Log
  readonly random: Random
}

/** More are left to the next sweep. */
const dueAtOnce = 10_000
const leftoverMs = 60 * 60_000
const claimMs = 60_000

export async function sweep(stores: SweepStores, nowMs: number): Promise<void> {
  const { index, blobs, chains, idle, keys, log } = stores
  for (const id of await index.due(dueAtOnce)) {
    try {
      await sweepOne(stores, id, nowMs)
    } catch (error) {
      // One delivery that cannot be removed keeps no other one.
      log("sweep_failed", failureFields(error), "alarm")
    }
  }
  for (const inbox of await index.inboxes()) {
    try {
      await chains.raiseFloor(inbox, nowMs - rememberMs)
    } catch (error) {
      log("inbox_sweep_failed", failureFields(error), "alarm")
    }
  }
  await idle.sweep(nowMs)
  await blobs.removeLeftovers(nowMs - leftoverMs)
  await keys.forgetSourceKeys(nowMs)
  await index.reclaim()
}

async function sweepOne(stores: SweepStores, id: DeliveryId, nowMs: number): Promise<void> {
  const { index, blobs, deliveries } = stores
  const commit = await blobs.readCommit(id)
  if (commit !== undefined) {
    const leasedMs = await index.leasedUntil(id)
    if (commit.expiresMs > nowMs) await index.closeUpload({ id, dueMs: commit.expiresMs })
    else if (leasedMs !== undefined) await index.closeUpload({ id, dueMs: leasedMs })
    else await deliveries.remove(commit, "expired")
    return
  }
  const ended = await blobs.readEnded(id)
  if (ended !== undefined) {
    if (ended.forgetMs > nowMs) {
      await index.closeUpload({ id, dueMs: ended.forgetMs })
      return
    }
    await blobs.forgetEnded(id)
    await index.forgetUpload(id)
    return
  }
  await stores.locks.run(lockOfUpload(id), () => sweepUpload(stores, id, nowMs))
}

async function sweepUpload(stores: SweepStores, id: DeliveryId, nowMs: number): Promise<void> {
  const { index, blobs, random } = stores
  const claim = { what: "upload", name: id, owner: toHex(random(16)) } as const
  // Being finished at this moment: the next sweep sees what became of it.
  if (!(await index.claim({ ...claim, untilMs: nowMs + claimMs }))) return
  try {
    const upload = await blobs.readUpload(id)
    if (upload !== undefined) {
      if (upload.expiresMs + uploadGraceMs > nowMs) return
      await blobs.dropUpload(id)
      await index.releaseRoom(id)
      for (const inbox of upload.recipients) await index.releaseShare({ inbox, id })
    }
    await index.forgetUpload(id)
  } finally {
    await index.unclaim(claim)
  }
}
