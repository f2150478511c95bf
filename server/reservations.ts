// What an upload holds before it is there: room on the disk, and a share of each inbox's quota.
import { RelayRefusal } from "../protocol/index.js"
import { headroomBytes, type RelayConfig } from "./config.js"
import { addressOf, type InboxId } from "./ids.js"
import { noSuchInbox, relayFull } from "./relay-refusals.js"
import type { BlobStore } from "./stores/blob-store.js"
import type { OpenUpload, RelayIndex } from "./stores/relay-index.js"

export interface Reservations {
  /**
   * Reserves what `upload` says, in place of what it had `before`. Refuses, and leaves things as they
   * were, where there is no room.
   */
  reserve(upload: OpenUpload, before: OpenUpload | undefined): Promise<void>
  /** Gives everything back. */
  release(upload: OpenUpload): Promise<void>
}

export interface ReservationsNeeds {
  readonly index: RelayIndex
  readonly blobs: BlobStore
  readonly config: RelayConfig
}

export function createReservations({ index, blobs, config }: ReservationsNeeds): Reservations {
  /** Room on the disk first, then each inbox's share. A refusal gives back what this call took. */
  async function reserve(upload: OpenUpload, before: OpenUpload | undefined): Promise<void> {
    const { id, recipients, reservedBytes: bytes, expiresMs: untilMs } = upload
    const { freeBytes, totalBytes } = await blobs.space()
    const roomBytes = freeBytes - headroomBytes(config, totalBytes)
    if (!(await index.reserveRoom({ id, bytes, roomBytes, untilMs }))) throw relayFull()
    const quota = { bytes: config.inboxBytes, deliveries: config.inboxDeliveries }
    const reserved: InboxId[] = []
    for (const inbox of recipients) {
      const outcome = await index.reserveShare({ inbox, id, bytes, quota, untilMs })
      if (outcome === "reserved") {
        reserved.push(inbox)
        continue
      }
      await unreserve(upload, before, reserved)
      if (outcome === "unknown") throw noSuchInbox(inbox)
      throw new RelayRefusal("inbox_full", {
        retryAfterSeconds: 3600,
        extras: { address: addressOf(inbox) },
      })
    }
  }

  async function unreserve(
    { id }: OpenUpload,
    before: OpenUpload | undefined,
    inboxes: readonly InboxId[],
  ): Promise<void> {
    if (before === undefined) {
      await index.releaseRoom(id)
      for (const inbox of inboxes) await index.releaseShare({ inbox, id })
      return
    }
    const { reservedBytes: bytes, expiresMs: untilMs } = before
    const most = { bytes: Number.MAX_SAFE_INTEGER, deliveries: Number.MAX_SAFE_INTEGER }
    await index.reserveRoom({ id, bytes, roomBytes: Number.MAX_SAFE_INTEGER, untilMs })
    for (const inbox of inboxes) {
      await index.reserveShare({ inbox, id, bytes, quota: most, untilMs })
    }
  }

  return {
    reserve,
    release: (upload) => unreserve(upload, undefined, upload.recipients),
  }
}
