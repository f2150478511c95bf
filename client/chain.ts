/**
 * What a listing of an inbox must prove (docs/protocol.md §9): that every entry is the one its stamp
 * names, that all of them together are the chain the relay signed, and that this chain goes on from
 * the one seen last time. A relay that drops, swaps or rolls back contradicts its own signature.
 */
import { readFile } from "node:fs/promises"
import path from "node:path"
import {
  chainHead,
  emptyChainHead,
  equalBytes,
  FormatError,
  type Head,
  type Header,
  headerHash,
  type InboxPage,
  envelopeHash,
  maxChainPlaces,
  maxInboxDeliveries,
  parseHead,
  parseHeader,
  parseStamp,
  parseTombstone,
  type Restoration,
  type Stamp,
  toBase64url,
  toHex,
  type Tombstone,
  type TombstoneReason,
  utf8,
  verifyHead,
  type WaitingEntry,
} from "../protocol/index.js"
import { Untrustworthy } from "./errors.js"
import { errorCode } from "./error-code.js"
import { isoTime } from "./iso-time.js"
import { makePrivateFolder, replacePrivateFile } from "./private-files.js"
import { type CallOptions, notice } from "./progress.js"

/** An entry whose stamp, header and, if it came along, envelope belong together. */
export interface Listed {
  readonly id: string
  readonly seq: number
  readonly stamp: Stamp
  readonly stampBytes: Uint8Array
  readonly header: Header
  readonly headerBytes: Uint8Array
  readonly envelope: Uint8Array | undefined
}

export interface Listing {
  readonly waiting: readonly Listed[]
  /** Of what was known to have waited. */
  readonly gone: readonly Tombstone[]
  readonly head: Head
  readonly headBytes: Uint8Array
  /** When a backup of the relay was put back, where it says so in its head. */
  readonly restoration: Restoration | undefined
}

export interface ChainOwner {
  readonly origin: string
  readonly inboxId: Uint8Array
  readonly signingKey: Uint8Array
}

/** Where in the chain a listing is held against what was seen before. */
interface Remembered {
  readonly head: Head
  readonly bytes: Uint8Array
}

/** The relay raised the floor between two pages. A listing begun anew may do better. */
export class FloorMoved extends Untrustworthy {}

/** More envelopes than these are fetched one by one when they are needed, instead of being kept. */
const mostEnvelopes = 10_000

/**
 * A listing, verified page by page as it comes: a relay that makes up pages without end would otherwise
 * fill the memory before the last of them gives it away. Tombstones are kept of what is `known` only.
 */
export class ListingCheck {
  readonly #owner: ChainOwner
  readonly #remembered: Remembered | undefined
  readonly #known: ReadonlySet<string>
  readonly #waiting: Listed[] = []
  readonly #ids = new Set<string>()
  readonly #gone: Tombstone[] = []
  #floorSeq = 0
  #at: { seq: number; head: Uint8Array } | undefined
  #last: { page: InboxPage; head: Head } | undefined
  #extendsRemembered = false

  constructor(
    owner: ChainOwner,
    seen: { remembered: Remembered | undefined; known: readonly Pick<KnownEntry, "pair">[] },
  ) {
    this.#owner = owner
    this.#remembered = seen.remembered
    this.#known = new Set(seen.known.map(({ pair }) => pair))
  }

  /** Throws Untrustworthy. The first page begins at the floor, and each goes on from the one before. */
  add(page: InboxPage): void {
    try {
      this.#add(page)
    } catch (error) {
      if (error instanceof FormatError) this.#doubt(error.message)
      throw error
    }
  }

  #add(page: InboxPage): void {
    const owner = this.#owner
    const head = parseHead(page.head)
    if (!equalBytes(head.inboxId, owner.inboxId)) this.#doubt("its head is that of another inbox")
    if (!verifyHead(page.head, owner.signingKey)) {
      this.#doubt("its head is not signed by this relay")
    }
    if (head.floorSeq !== page.floor.seq) this.#doubt("it does not begin at the signed floor")
    if (head.seq - head.floorSeq > maxChainPlaces) this.#doubt("it is longer than any inbox is")
    const at = this.#at ?? this.#begin(page)
    if (page.floor.seq !== this.#floorSeq) {
      throw new FloorMoved(`${owner.origin} raised the floor of the inbox while it was listed`)
    }
    this.#last = { page, head }
    for (const entry of page.entries) {
      if (entry.seq !== at.seq + 1) this.#doubt(`number ${at.seq + 1} is missing`)
      if (entry.seq > head.seq) this.#doubt("it goes on beyond its signed head")
      const link =
        entry.kind === "waiting" ? listed(entry, owner, (what) => this.#doubt(what)) : undefined
      const record =
        link?.stamp ?? parseTombstone(entry.kind === "gone" ? entry.tombstone : nothing)
      if (record.seq !== entry.seq) this.#doubt(`number ${entry.seq} is another one's record`)
      at.seq = entry.seq
      at.head = chainHead({ ...record, previous: at.head })
      if (link) {
        if (!equalBytes(link.stamp.head, at.head)) {
          this.#doubt(`the stamp of ${entry.seq} is off the chain`)
        }
        this.#wait(link)
      } else if ("reason" in record && this.#known.has(pairOf(record))) {
        this.#gone.push(record)
      }
      this.#hold(at)
    }
  }

  #begin({ floor }: InboxPage): { seq: number; head: Uint8Array } {
    const at = { seq: floor.seq, head: floor.head }
    if (at.seq === 0 && !equalBytes(at.head, emptyChainHead())) this.#doubt("it begins in mid-air")
    this.#at = at
    this.#floorSeq = floor.seq
    this.#extendsRemembered = !this.#remembered || this.#remembered.head.seq < at.seq
    this.#hold(at)
    return at
  }

  #wait(link: Listed): void {
    if (this.#ids.has(link.id)) this.#doubt(`two deliveries are called ${link.id}`)
    if (this.#waiting.length === maxInboxDeliveries) {
      this.#doubt("more deliveries wait than any inbox holds")
    }
    this.#ids.add(link.id)
    const isKept = this.#waiting.length < mostEnvelopes
    this.#waiting.push(isKept ? link : { ...link, envelope: undefined })
  }

  #hold(at: { seq: number; head: Uint8Array }): void {
    const remembered = this.#remembered?.head
    if (remembered?.seq === at.seq && equalBytes(remembered.head, at.head)) {
      this.#extendsRemembered = true
    }
  }

  /** Throws Untrustworthy when this is not all. */
  end(): Listing & { extendsRemembered: boolean } {
    const at = this.#at
    if (at === undefined || this.#last === undefined) throw new RangeError("a listing has a page")
    const { page, head } = this.#last
    if (at.seq !== head.seq || !equalBytes(at.head, head.head)) {
      this.#doubt("its entries do not lead to its signed head")
    }
    return {
      waiting: this.#waiting,
      gone: this.#gone,
      head,
      headBytes: page.head,
      restoration: head.restored ? page.restored : undefined,
      extendsRemembered: this.#extendsRemembered,
    }
  }

  #doubt(what: string): never {
    throw new Untrustworthy(`the inbox as ${this.#owner.origin} lists it does not verify: ${what}`)
  }
}

const nothing = new Uint8Array(0)

function listed(entry: WaitingEntry, owner: ChainOwner, doubt: (what: string) => never): Listed {
  const stamp = parseStamp(entry.stamp)
  const { envelope } = entry
  if (!equalBytes(stamp.inboxId, owner.inboxId)) doubt("a stamp is for another inbox")
  if (!equalBytes(headerHash(entry.header), stamp.headerHash)) {
    doubt("a header is not the one its stamp names")
  }
  if (envelope && !equalBytes(envelopeHash(envelope), stamp.envelopeHash)) {
    doubt("an envelope is not the one its stamp names")
  }
  return {
    id: entry.id,
    seq: entry.seq,
    stamp,
    stampBytes: entry.stamp,
    header: parseHeader(entry.header),
    headerBytes: entry.header,
    envelope,
  }
}

/** Anything that was delivered is kept in the chain for so long after its end. */
const keptInChainMs = 30 * 86_400_000
/**
 * The least time between a head and a floor beyond it: what came after the head ended after it. A head
 * may be behind by the seconds in which an entry is made.
 */
const leastForgottenMs = keptInChainMs - 5_000
/** How far this machine's clock may be behind. */
const clockSlackMs = 86_400_000

/** Something that was seen in the chain before. */
interface KnownEntry {
  readonly seq: number
  readonly expiresMs: number
  readonly pair: string
  /** Why it waits no longer, as far as that was seen. */
  readonly gone?: TombstoneReason
}

/** H_hdr and H_env in hex: what makes it this delivery. */
export function pairOf(record: { headerHash: Uint8Array; envelopeHash: Uint8Array }): string {
  return toHex(record.headerHash) + toHex(record.envelopeHash)
}

/**
 * Whether the floor hides what cannot have been forgotten yet. A relay may drop what is long past, and
 * behind a floor beyond the last head seen it could show any history.
 */
function hidesTooMuch(head: Head, remembered: Head, known: readonly KnownEntry[]): boolean {
  if (head.floorSeq <= remembered.seq) return false
  // A relay could also sign that much time has passed.
  const nowMs = Math.min(head.asOfMs, Date.now() + clockSlackMs)
  if (nowMs - remembered.asOfMs < leastForgottenMs) return true
  return known.some(
    ({ seq, expiresMs }) => seq <= head.floorSeq && expiresMs + keptInChainMs > nowMs,
  )
}

/**
 * Whether a backup of the relay was put back after it signed `seen`. What it signed since then it has to
 * go on from: one restoration excuses no second history.
 */
function isOlderThanRestoration(
  seen: Head,
  { head, restoration }: Pick<Listing, "head" | "restoration">,
  goesOn: boolean,
): boolean {
  if (restoration !== undefined) return seen.asOfMs <= restoration.restoredMs
  // A relay that does not say when it was.
  return head.restored && !goesOn
}

/** For a person: what may be missing, and what may be there again. */
function describeRestoration(
  { waiting, gone, restoration }: Listing,
  { origin }: ChainOwner,
  known: readonly KnownEntry[],
): string {
  const kept = new Set([
    ...waiting.map(({ stamp }) => pairOf(stamp)),
    ...gone.filter(({ reason }) => reason !== "lost").map((tombstone) => pairOf(tombstone)),
  ])
  const nowMs = Date.now()
  const lost = known.filter(
    (entry) => entry.gone === undefined && entry.expiresMs > nowMs && !kept.has(entry.pair),
  ).length
  const when =
    restoration === undefined
      ? "was restored from a backup"
      : `was restored from a backup at ${isoMinute(restoration.restoredMs)}, made about ${isoMinute(restoration.backupMs)}`
  const seen =
    lost === 0
      ? ""
      : `${lost} ${lost === 1 ? "delivery" : "deliveries"} listed here before ${lost === 1 ? "is" : "are"} missing: ask for them again. `
  return (
    `${origin} says that it ${when}. ${seen}` +
    "What came in between may be missing, and what was taken or discarded in between may be listed again"
  )
}

function isoMinute(timeMs: number): string {
  return `${isoTime(timeMs).slice(0, 16)}Z`
}

/** The last head seen of one inbox, in a file of its own. */
export class HeadMemory {
  readonly #file: string
  readonly #proofs: string

  constructor(folder: string, proofs: string) {
    this.#file = path.join(folder, "head")
    this.#proofs = proofs
  }

  /** Verifies `pages` also against what was seen before, and remembers what they say. */
  async check(
    pages: AsyncIterable<InboxPage>,
    owner: ChainOwner,
    known: readonly KnownEntry[],
    call: CallOptions,
  ): Promise<Listing> {
    const remembered = await this.#read()
    const checking = new ListingCheck(owner, { remembered, known })
    for await (const page of pages) checking.add(page)
    const listing = checking.end()
    if (remembered) {
      const goesOn =
        listing.extendsRemembered && !hidesTooMuch(listing.head, remembered.head, known)
      if (isOlderThanRestoration(remembered.head, listing, goesOn)) {
        notice(call, describeRestoration(listing, owner, known))
      } else if (!goesOn) {
        await this.#contradiction(remembered, listing, owner)
      }
    }
    await makePrivateFolder(path.dirname(this.#file))
    // Another process may have seen more meanwhile; what was seen last in the chain is kept.
    const now = await this.#read()
    const isNewest = now === undefined || now.head.seq <= listing.head.seq
    if (isNewest || isOlderThanRestoration(now.head, listing, false)) {
      await replacePrivateFile(this.#file, listing.headBytes)
    }
    return listing
  }

  async #contradiction(remembered: Remembered, listing: Listing, owner: ChainOwner): Promise<void> {
    await makePrivateFolder(this.#proofs)
    const proof = { origin: owner.origin, signing_key: toBase64url(owner.signingKey) }
    const heads = { seen: toBase64url(remembered.bytes), shown: toBase64url(listing.headBytes) }
    const name = `${toBase64url(owner.inboxId)}-${remembered.head.seq}-${listing.head.seq}.json`
    const proofFile = path.join(this.#proofs, name)
    await replacePrivateFile(proofFile, utf8(`${JSON.stringify({ ...proof, ...heads })}\n`))
    throw new Untrustworthy(
      `${owner.origin} rewrote the history of this inbox: it signed ${remembered.head.seq} entries before, ` +
        `and what it shows now does not go on from them. Both signed heads are kept in ${proofFile}`,
      { proofFile },
    )
  }

  async #read(): Promise<Remembered | undefined> {
    try {
      const bytes = await readFile(this.#file)
      return { head: parseHead(bytes), bytes }
    } catch (error) {
      // A file cut short by a crash is no memory at all.
      if (errorCode(error) === "ENOENT" || error instanceof FormatError) return undefined
      throw error
    }
  }
}
