/** What tests of an index put into it. */
import { chainHead, emptyChainHead, random, sha256, utf8 } from "../../protocol/index.js"
import { type DeliveryId, deliveryIdOf, type InboxId, inboxIdOf } from "../../server/ids.js"
import type {
  OpenUpload,
  RelayIndex,
  WaitingEntryWithEnvelope,
} from "../../server/stores/relay-index.js"

export const hourMs = 3_600_000

export function bytesOf(name: string, length: number = 32): Uint8Array {
  return sha256(utf8(name)).slice(0, length)
}

export function someInbox(): InboxId {
  return inboxIdOf(random(20))
}

export function someDelivery(): DeliveryId {
  return deliveryIdOf(random(16))
}

export function someUpload(inbox: InboxId): OpenUpload {
  const hash = random(32)
  return {
    id: someDelivery(),
    tokenHash: hash,
    startHash: hash,
    deleteHash: hash,
    recipients: [inbox],
    createdMs: Date.now(),
    reservedBytes: 1000,
    expiresMs: Date.now() + hourMs,
  }
}

export function entryAfter(
  { seq, head }: { readonly seq: number; readonly head: Uint8Array },
  id: DeliveryId = someDelivery(),
): WaitingEntryWithEnvelope {
  const place = {
    id,
    headerHash: random(32),
    envelopeHash: random(32),
    acceptedMs: Date.now(),
    expiresMs: Date.now() + hourMs,
  }
  const fresh = chainHead({ previous: head, seq: seq + 1, ...place })
  return {
    kind: "waiting",
    ...place,
    seq: seq + 1,
    head: fresh,
    sizeBytes: 100,
    stamp: random(90),
    header: random(300),
    envelope: random(1200),
  }
}

/** An inbox in which one delivery waits. */
export async function inboxWithOne(
  index: RelayIndex,
): Promise<{ readonly inbox: InboxId; readonly entry: WaitingEntryWithEnvelope }> {
  const inbox = someInbox()
  await index.openInbox(inbox, bytesOf("bundle"))
  const entry = entryAfter({ seq: 0, head: emptyChainHead() })
  await index.assign({ inbox, afterSeq: 0, entries: [entry] })
  await index.reveal({ inbox, seq: 1 })
  return { inbox, entry }
}

export function someSession(inbox: InboxId): Parameters<RelayIndex["addSession"]>[0] {
  const nowMs = Date.now()
  return {
    tokenHash: random(32),
    inbox,
    createdMs: nowMs,
    lastUsedMs: nowMs,
    absoluteMs: nowMs + hourMs,
    idleMs: hourMs / 4,
  }
}
