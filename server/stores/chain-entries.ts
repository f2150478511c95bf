// What becomes of an entry of a chain, in every index.
import type { ChainEntry, GoneEntry, WaitingEntry } from "./relay-index.js"

export function goneFrom(entry: WaitingEntry, reason: GoneEntry["reason"]): GoneEntry {
  const { seq, head, id, headerHash, envelopeHash, acceptedMs, expiresMs } = entry
  return { kind: "gone", seq, head, id, headerHash, envelopeHash, acceptedMs, expiresMs, reason }
}

/** Expiry holds for every reader, whether or not the sweep has come by. */
export function unlessExpired(entry: ChainEntry, nowMs: number): ChainEntry {
  return entry.kind === "waiting" && entry.expiresMs <= nowMs ? goneFrom(entry, "expired") : entry
}
