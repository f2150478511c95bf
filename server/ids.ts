// Names inside the relay. Only the parsers here make them, so no text of a stranger ever reaches a
// path, a key of the index or a log.
import {
  encodeAddress,
  FormatError,
  fromHex,
  parseAddress,
  RelayRefusal,
  toHex,
} from "../protocol/index.js"

/** 32 lower-case hex characters: an upload, and the delivery it becomes. */
export type DeliveryId = string & { readonly brand: "DeliveryId" }

/** 40 lower-case hex characters: the first 20 bytes of the fingerprint of an inbox's bundle. */
export type InboxId = string & { readonly brand: "InboxId" }

const deliveryIdPattern = /^[0-9a-f]{32}$/
const inboxIdPattern = /^[0-9a-f]{40}$/

export function isDeliveryId(text: string): text is DeliveryId {
  return deliveryIdPattern.test(text)
}

export function isInboxId(text: string): text is InboxId {
  return inboxIdPattern.test(text)
}

/** An id in a path. Anything else names nothing here. */
export function parsePathId(text: string): DeliveryId {
  if (!isDeliveryId(text)) throw new RelayRefusal("not_found")
  return text
}

export function deliveryIdOf(bytes: Uint8Array): DeliveryId {
  const text = toHex(bytes)
  if (!isDeliveryId(text)) throw new RangeError("a delivery id is 16 bytes")
  return text
}

export function inboxIdOf(bytes: Uint8Array): InboxId {
  const text = toHex(bytes)
  if (!isInboxId(text)) throw new RangeError("an inbox id is 20 bytes")
  return text
}

export function inboxIdBytesOf(inbox: InboxId): Uint8Array {
  return fromHex(inbox)
}

/** The bare address `knot1…`. Throws FormatError for anything else, an address with a host too. */
export function parseInboxAddress(text: string): InboxId {
  const { inboxId, address } = parseAddress(text)
  if (address !== text) throw new RelayRefusal("bad_request", { detail: "not a bare address" })
  return inboxIdOf(inboxId)
}

/** Such an address in a path. Anything else names nothing here. */
export function parsePathInbox(text: string): InboxId {
  try {
    return parseInboxAddress(text)
  } catch (error) {
    if (!(error instanceof FormatError || error instanceof RelayRefusal)) throw error
    throw new RelayRefusal("not_found")
  }
}

export function addressOf(inbox: InboxId): string {
  return encodeAddress(inboxIdBytesOf(inbox))
}
