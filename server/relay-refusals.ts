// Refusals that more than one rule of the relay gives.
import { RelayRefusal } from "../protocol/index.js"
import { addressOf, type InboxId } from "./ids.js"

const mostMissing = 1000

/** Someone else is at work on this upload and will be done soon. */
export function busy(): RelayRefusal {
  return new RelayRefusal("busy", { retryAfterSeconds: 1 })
}

/** The index is gone, full or failing over: the same request is good again when it is back. */
export function indexUnavailable(): RelayRefusal {
  return new RelayRefusal("index_unavailable", { retryAfterSeconds: 5 })
}

/** The disk fails, and what was asked for did not happen. */
export function diskUnavailable(): RelayRefusal {
  return new RelayRefusal("disk_unavailable", { retryAfterSeconds: 30 })
}

export function tooLarge(limit: number): RelayRefusal {
  return new RelayRefusal("too_large", { extras: { limit } })
}

export function relayFull(): RelayRefusal {
  return new RelayRefusal("relay_full", { retryAfterSeconds: 3600 })
}

export function noSuchInbox(inbox: InboxId): RelayRefusal {
  return new RelayRefusal("no_such_inbox", { extras: { address: addressOf(inbox) } })
}

export function partsMissing(missing: readonly number[]): RelayRefusal {
  return new RelayRefusal("parts_missing", {
    detail: `${missing.length} parts have not arrived`,
    extras: { missing: missing.slice(0, mostMissing) },
  })
}
