// Uploads, their parts and what they reserve of the disk, in the embedded index.
import { equalBytes, gridLength, maxParts } from "../../protocol/index.js"
import { type DeliveryId, isDeliveryId } from "../ids.js"
import {
  addToTally,
  type Embedded,
  numbered,
  type Reclaims,
  snapshot,
  type StoredUpload,
} from "./embedded-tables.js"
import type { UploadClose, UploadIndex } from "./relay-index.js"

const nowhere = -1

export function embeddedUploads({ db, now, step }: Embedded): UploadIndex & Reclaims {
  const claims = new Map<string, { readonly owner: string; readonly untilMs: number }>()

  function dropUpload(id: DeliveryId): void {
    const known = db.uploads.get(id)
    if (known === undefined) return
    void db.due.remove([known.state === "open" ? known.expiresMs : known.dueMs, id])
    if (known.state === "open") {
      addToTally(db, { openUploads: -1 })
      for (const key of snapshot(db.parts.getKeys(numbered(id)))) void db.parts.remove(key)
    }
  }

  function closeNow({ id, dueMs }: UploadClose): void {
    dropUpload(id)
    void db.uploads.put(id, { state: "closed", dueMs })
    void db.due.put([dueMs, id], true)
  }

  return {
    startUpload(upload) {
      return step(() => {
        const known = db.uploads.get(upload.id)
        if (known !== undefined) return known
        addToTally(db, { openUploads: 1 })
        const stored: StoredUpload = { ...upload, state: "open", highest: nowhere, short: nowhere }
        void db.uploads.put(upload.id, stored)
        void db.due.put([upload.expiresMs, upload.id], true)
        return stored
      })
    },

    upload(id) {
      return step(() => db.uploads.get(id))
    },

    extendUpload(change) {
      return step(() => {
        const known = db.uploads.get(change.id)
        if (known?.state !== "open") return known
        const reservedBytes = Math.max(known.reservedBytes, change.reservedBytes)
        const expiresMs = Math.max(known.expiresMs, change.expiresMs)
        const stored = { ...known, reservedBytes, expiresMs }
        void db.uploads.put(change.id, stored)
        void db.due.remove([known.expiresMs, change.id])
        void db.due.put([expiresMs, change.id], true)
        return stored
      })
    },

    setPart(part) {
      return step(() => {
        const { id, index, leaf, lengthBytes } = part
        const upload = db.uploads.get(id)
        if (upload === undefined) return "unknown"
        if (upload.state === "closed") return "closed"
        const known = db.parts.get([id, index])
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
        void db.parts.put([id, index], { index, leaf, lengthBytes })
        if (isShort || index > upload.highest) {
          const highest = Math.max(upload.highest, index)
          void db.uploads.put(id, { ...upload, highest, short: isShort ? index : upload.short })
        }
        return "stored"
      })
    },

    removePart(part) {
      return step(() => {
        const { id, index, leaf } = part
        const upload = db.uploads.get(id)
        const known = db.parts.get([id, index])
        if (upload?.state !== "open" || known === undefined || !equalBytes(known.leaf, leaf)) return
        void db.parts.remove([id, index])
        const [last] = db.parts.getKeys({
          start: [id, Infinity],
          end: [id, nowhere],
          reverse: true,
          limit: 1,
        })
        const highest = last?.[1] ?? nowhere
        const short = upload.short === index ? nowhere : upload.short
        void db.uploads.put(id, { ...upload, highest, short })
      })
    },

    part(place) {
      return step(() => db.parts.get([place.id, place.index]))
    },

    parts(id) {
      return step(() => [...db.parts.getRange(numbered(id))].map(({ value }) => value))
    },

    closeUpload(close) {
      return step(() => closeNow(close))
    },

    closeUploads(closes) {
      return step(() => closes.forEach(closeNow))
    },

    forgetUpload(id) {
      return step(() => {
        dropUpload(id)
        void db.uploads.remove(id)
        void db.leases.remove(id)
      })
    },

    due(limit) {
      return step(() => {
        const range = db.due.getKeys({ start: [0, ""], end: [now(), "g"], limit })
        return [...range].map(([, id]) => id).filter(isDeliveryId)
      })
    },

    claim(claim) {
      const key = `${claim.what} ${claim.name}`
      const held = claims.get(key)
      if (held !== undefined && held.owner !== claim.owner && held.untilMs > now()) {
        return Promise.resolve(false)
      }
      claims.set(key, { owner: claim.owner, untilMs: claim.untilMs })
      return Promise.resolve(true)
    },

    unclaim(claim) {
      const key = `${claim.what} ${claim.name}`
      if (claims.get(key)?.owner === claim.owner) claims.delete(key)
      return Promise.resolve()
    },

    lease({ id, untilMs }) {
      return step(() => {
        if ((db.leases.get(id) ?? 0) < untilMs) void db.leases.put(id, untilMs)
      })
    },

    leasedUntil(id) {
      return step(() => {
        const untilMs = db.leases.get(id) ?? 0
        return untilMs > now() ? untilMs : undefined
      })
    },

    reserveRoom(reservation) {
      return step(() => {
        const { id, bytes, roomBytes, untilMs } = reservation
        let others = 0
        for (const { key, value } of db.room.getRange({})) {
          if (key !== id && value.untilMs > now()) others += value.bytes
        }
        if (others + bytes > roomBytes) return false
        void db.room.put(id, { bytes, untilMs })
        return true
      })
    },

    releaseRoom(id) {
      return step(() => void db.room.remove(id))
    },

    reclaimNow() {
      for (const [key, claim] of claims) if (claim.untilMs <= now()) claims.delete(key)
      for (const { key, value } of snapshot(db.room.getRange({}))) {
        if (value.untilMs <= now()) void db.room.remove(key)
      }
      for (const { key, value } of snapshot(db.leases.getRange({}))) {
        if (value <= now()) void db.leases.remove(key)
      }
    },
  }
}
