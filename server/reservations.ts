// What an upload holds before it is there: room on the disk, and a share of each inbox's quota.
import { chainPlacesPerDelivery, parseHeader, RelayRefusal } from "../protocol/index.js"
import { headroomBytes, type RelayConfig } from "./config.js"
import { addressOf, type DeliveryId, type InboxId } from "./ids.js"
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
  /**
   * For a manifest on its way, whose body is there: what the two of them take beyond what the upload
   * reserved. Refuses in the manner of `reserve`.
   */
  addManifest(upload: OpenUpload, sizes: ManifestSizes): Promise<void>
  /** Gives that back. */
  dropManifest(upload: OpenUpload): Promise<void>
  /** The delivery stands; its inboxes count it from now on. */
  forgetManifest(upload: OpenUpload): void
}

export interface ManifestSizes {
  readonly bodyLength: number
  readonly manifestLength: number
}

const noManifest: ManifestSizes = { bodyLength: 0, manifestLength: 0 }

export interface ReservationsNeeds {
  readonly index: RelayIndex
  readonly blobs: BlobStore
  readonly config: RelayConfig
}

export function createReservations({ index, blobs, config }: ReservationsNeeds): Reservations {
  const manifests = new Map<DeliveryId, ManifestSizes>()

  /** What the upload needs of each inbox. */
  function shareOf({ id, reservedBytes }: OpenUpload): number {
    const { bodyLength, manifestLength } = manifests.get(id) ?? noManifest
    return Math.max(reservedBytes, bodyLength + manifestLength)
  }

  /** And of the disk, where the body no longer needs its room when a manifest comes. */
  function roomOf({ id, reservedBytes }: OpenUpload): number {
    return Math.max(reservedBytes, (manifests.get(id) ?? noManifest).manifestLength)
  }

  /** Room on the disk first, then each inbox's share. A refusal gives back what this call took. */
  async function reserve(upload: OpenUpload, before: OpenUpload | undefined): Promise<void> {
    const { id, expiresMs: untilMs } = upload
    const { freeBytes, totalBytes } = await blobs.space()
    const roomBytes = freeBytes - headroomBytes(config, totalBytes)
    const bytes = roomOf(upload)
    if (!(await index.reserveRoom({ id, bytes, roomBytes, untilMs }))) throw relayFull()
    await reserveShares(upload, before)
  }

  async function reserveShares(upload: OpenUpload, before: OpenUpload | undefined): Promise<void> {
    const { id, recipients, expiresMs: untilMs } = upload
    const bytes = shareOf(upload)
    if (before === undefined) await checkChains(upload)
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
      throw inboxFull(inbox)
    }
  }

  /** What is gone is remembered for weeks, so an inbox that never fills up can grow without end. */
  async function checkChains({ id, recipients }: OpenUpload): Promise<void> {
    for (const inbox of recipients) {
      const chain = await index.chain(inbox)
      if (chain === undefined) continue
      if (chain.seq - chain.floorSeq < chainPlacesPerDelivery * config.inboxDeliveries) continue
      await index.releaseRoom(id)
      throw inboxFull(inbox)
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
    const { expiresMs: untilMs } = before
    const bytes = shareOf(before)
    const most = { bytes: Number.MAX_SAFE_INTEGER, deliveries: Number.MAX_SAFE_INTEGER }
    const roomBytes = Number.MAX_SAFE_INTEGER
    await index.reserveRoom({ id, bytes: roomOf(before), roomBytes, untilMs })
    for (const inbox of inboxes) {
      await index.reserveShare({ inbox, id, bytes, quota: most, untilMs })
    }
  }

  return {
    reserve,
    release: (upload) => unreserve(upload, undefined, upload.recipients),

    async addManifest(upload, sizes) {
      const { id, reservedBytes } = upload
      manifests.set(id, sizes)
      try {
        // What fits in the upload's own reservation was asked for already.
        if (sizes.manifestLength > reservedBytes) await reserve(upload, upload)
        else if (shareOf(upload) > reservedBytes) await reserveShares(upload, upload)
      } catch (error) {
        manifests.delete(id)
        await unreserve(upload, upload, upload.recipients)
        throw error
      }
    },

    async dropManifest(upload) {
      manifests.delete(upload.id)
      const current = await index.upload(upload.id)
      if (current?.state === "open") await unreserve(current, current, current.recipients)
    },

    forgetManifest(upload) {
      manifests.delete(upload.id)
    },
  }
}

/** What a delivery counts for in an inbox's quota. */
export function deliverySize(header: Uint8Array): number {
  const { bodyLength, manifestLength } = parseHeader(header)
  return bodyLength + manifestLength
}

function inboxFull(inbox: InboxId): RelayRefusal {
  return new RelayRefusal("inbox_full", {
    retryAfterSeconds: 3600,
    extras: { address: addressOf(inbox) },
  })
}
