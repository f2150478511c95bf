/**
 * One inbox as its owner has seen it listed: every head the relay signed, every place in the chain. A
 * listing that contradicts any of them, or itself, breaks a promise. Made from protocol/ alone, so that
 * a mistake of the client's own check (client/chain.ts) does not repeat itself here.
 */
import {
  chainHead,
  type DeliveryRecord,
  emptyChainHead,
  envelopeHash,
  equalBytes,
  fromHex,
  headerHash,
  type InboxEntry,
  type InboxPage,
  parseHead,
  parseStamp,
  parseTombstone,
  toHex,
  type TombstoneReason,
  verifyHead,
} from "../../protocol/index.js"

/** The relay did not keep what it promised. */
export class BrokenPromise extends Error {
  override readonly name = "BrokenPromise"
}

/** What one entry was when it was listed last. */
export interface SeenPlace extends DeliveryRecord {
  readonly seq: number
  /** The id it had when it waited; "" when it never was seen waiting. */
  readonly id: string
  readonly gone: TombstoneReason | undefined
}

/** How far an `as of` runs ahead of what may not be listed yet (docs/protocol.md §9). */
const lagMs = 5_000

export class InboxMemory {
  readonly #inboxId: Uint8Array
  readonly #signingKey: Uint8Array
  readonly #heads = new Map<number, string>([[0, toHex(emptyChainHead())]])
  /** For each seq that a head was signed at, the latest `as of` of such a head. */
  readonly #asOf = new Map<number, number>()
  readonly #places = new Map<string, SeenPlace>()

  constructor(inboxId: Uint8Array, signingKey: Uint8Array) {
    this.#inboxId = inboxId
    this.#signingKey = signingKey
  }

  /** As far as any listing went. A later one cannot go less far. */
  get seq(): number {
    return Math.max(0, ...this.#asOf.keys())
  }

  get places(): ReadonlyMap<string, SeenPlace> {
    return this.#places
  }

  /** One page, asked for with `after` when `seq` was `leastSeq`. Gives its entries that wait. */
  read(
    page: InboxPage,
    asked: { readonly after: number; readonly leastSeq: number },
  ): (InboxEntry & { kind: "waiting" })[] {
    const head = parseHead(page.head)
    if (!verifyHead(page.head, this.#signingKey)) broken("a head is not signed by the relay")
    if (!equalBytes(head.inboxId, this.#inboxId)) broken("a head is another inbox's")
    if (head.floorSeq !== page.floor.seq)
      broken("a listing begins at another floor than its head's")
    if (head.seq < asked.leastSeq) {
      broken(`the chain went back from ${asked.leastSeq} to ${head.seq}`)
    }
    let at = Math.max(asked.after, page.floor.seq)
    let previous = this.#heads.get(at)
    if (previous === undefined) broken(`a listing after ${at}, where no head is known`)
    const waiting: (InboxEntry & { kind: "waiting" })[] = []
    for (const entry of page.entries) {
      const record = recordOf(entry)
      if (entry.seq !== at + 1 || record.seq !== entry.seq)
        broken(`a hole in the chain after ${at}`)
      const next = chainHead({ ...record, previous: fromHex(previous ?? "") })
      if (entry.kind === "waiting") {
        if (!equalBytes(parseStamp(entry.stamp).head, next)) broken("a stamp is off the chain")
        waiting.push(entry)
      }
      at = entry.seq
      previous = toHex(next)
      this.#remember(at, previous)
      this.#place(entry, record)
    }
    if (!page.more && at !== head.seq) broken(`a listing ends at ${at}, its head at ${head.seq}`)
    if (!page.more && previous !== toHex(head.head)) broken("a listing does not lead to its head")
    this.#remember(head.seq, toHex(head.head))
    this.#asOf.set(head.seq, Math.max(this.#asOf.get(head.seq) ?? 0, head.asOfMs))
    return waiting
  }

  /** No head may have claimed to be complete past something that it does not have. */
  checkCompleteness(): void {
    for (const { seq, acceptedMs } of this.#places.values()) {
      for (const [at, asOfMs] of this.#asOf) {
        if (at < seq && acceptedMs <= asOfMs - lagMs) {
          broken(
            `a head at ${at} as of ${asOfMs} left out number ${seq}, accepted at ${acceptedMs}`,
          )
        }
      }
    }
  }

  #remember(seq: number, head: string): void {
    const known = this.#heads.get(seq)
    if (known !== undefined && known !== head) broken(`two chains at number ${seq}`)
    this.#heads.set(seq, head)
  }

  #place(entry: InboxEntry, record: DeliveryRecord & { readonly reason?: TombstoneReason }): void {
    const pair = pairOf(record)
    const known = this.#places.get(pair)
    if (known !== undefined && known.seq !== entry.seq) {
      broken(`one delivery at ${known.seq} and at ${entry.seq}`)
    }
    const gone = record.reason
    const { headerHash: header, envelopeHash: envelope, acceptedMs, expiresMs } = record
    this.#places.set(pair, {
      seq: entry.seq,
      id: entry.kind === "waiting" ? entry.id : (known?.id ?? ""),
      headerHash: header,
      envelopeHash: envelope,
      acceptedMs,
      expiresMs,
      // A listing that was on its way while the entry went says nothing new.
      gone: known?.gone ?? gone,
    })
    if (known?.gone !== undefined && gone !== undefined && known.gone !== gone) {
      broken(`number ${entry.seq} was ${known.gone} and is ${gone}`)
    }
  }
}

/** H_hdr and H_env: what makes it this delivery. */
export function pairOf(record: Pick<DeliveryRecord, "headerHash" | "envelopeHash">): string {
  return `${toHex(record.headerHash)} ${toHex(record.envelopeHash)}`
}

export function pairFor(header: Uint8Array, envelope: Uint8Array): string {
  return pairOf({ headerHash: headerHash(header), envelopeHash: envelopeHash(envelope) })
}

export function broken(what: string): never {
  throw new BrokenPromise(what)
}

function recordOf(
  entry: InboxEntry,
): DeliveryRecord & { readonly seq: number; readonly reason?: TombstoneReason } {
  if (entry.kind === "gone") return parseTombstone(entry.tombstone)
  const stamp = parseStamp(entry.stamp)
  if (!equalBytes(headerHash(entry.header), stamp.headerHash)) {
    broken("a header is not the one its stamp names")
  }
  return stamp
}
