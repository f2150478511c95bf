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
  parseHead,
  parseHeader,
  parseStamp,
  parseTombstone,
  type Stamp,
  toBase64url,
  type Tombstone,
  utf8,
  verifyHead,
  type WaitingEntry,
} from "../protocol/index.js"
import { Untrustworthy } from "./errors.js"
import { errorCode } from "./error-code.js"
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
  readonly gone: readonly Tombstone[]
  readonly head: Head
  readonly headBytes: Uint8Array
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

/** Throws Untrustworthy. `pages` follow one another, the first from the floor on. */
export function verifyListing(
  pages: readonly InboxPage[],
  owner: ChainOwner,
  remembered: Remembered | undefined,
): Listing & { extendsRemembered: boolean } {
  const doubt = (what: string): never => {
    throw new Untrustworthy(`the inbox as ${owner.origin} lists it does not verify: ${what}`)
  }
  const [first] = pages
  const last = pages.at(-1)
  if (first === undefined || last === undefined) throw new RangeError("a listing has a page")
  try {
    const head = parseHead(last.head)
    if (!equalBytes(head.inboxId, owner.inboxId)) doubt("its head is that of another inbox")
    if (!verifyHead(last.head, owner.signingKey)) doubt("its head is not signed by this relay")
    if (head.floorSeq !== first.floor.seq) doubt("it does not begin at the signed floor")

    let at = { seq: first.floor.seq, head: first.floor.head }
    if (at.seq === 0 && !equalBytes(at.head, emptyChainHead())) doubt("it begins in mid-air")
    let extendsRemembered = remembered === undefined || remembered.head.seq < at.seq
    const hold = () => {
      if (remembered?.head.seq === at.seq && equalBytes(remembered.head.head, at.head)) {
        extendsRemembered = true
      }
    }
    hold()
    const waiting: Listed[] = []
    const ids = new Set<string>()
    const gone: Tombstone[] = []
    for (const entry of pages.flatMap((page) => page.entries)) {
      if (entry.seq !== at.seq + 1) doubt(`number ${at.seq + 1} is missing`)
      const link = entry.kind === "waiting" ? listed(entry, owner, doubt) : undefined
      const record =
        link?.stamp ?? parseTombstone(entry.kind === "gone" ? entry.tombstone : nothing)
      if (record.seq !== entry.seq) doubt(`number ${entry.seq} is another one's record`)
      at = { seq: entry.seq, head: chainHead({ ...record, previous: at.head }) }
      if (link) {
        if (!equalBytes(link.stamp.head, at.head))
          doubt(`the stamp of ${entry.seq} is off the chain`)
        if (ids.has(link.id)) doubt(`two deliveries are called ${link.id}`)
        ids.add(link.id)
        waiting.push(link)
      } else if ("reason" in record) {
        gone.push(record)
      }
      hold()
    }
    if (at.seq !== head.seq || !equalBytes(at.head, head.head)) {
      doubt("its entries do not lead to its signed head")
    }
    return { waiting, gone, head, headBytes: last.head, extendsRemembered }
  } catch (error) {
    if (error instanceof FormatError) return doubt(error.message)
    throw error
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
    pages: readonly InboxPage[],
    owner: ChainOwner,
    known: readonly KnownEntry[],
    call: CallOptions,
  ): Promise<Listing> {
    const remembered = await this.#read()
    const listing = verifyListing(pages, owner, remembered)
    if (remembered && !listing.extendsRemembered) {
      await this.#contradiction(remembered, listing, owner, call)
    } else if (remembered && hidesTooMuch(listing.head, remembered.head, known)) {
      await this.#contradiction(remembered, listing, owner, call)
    }
    await makePrivateFolder(path.dirname(this.#file))
    // Another process may have seen more meanwhile; what was seen last in the chain is kept.
    const now = await this.#read()
    if (!now || now.head.seq <= listing.head.seq || listing.head.restored) {
      await replacePrivateFile(this.#file, listing.headBytes)
    }
    return listing
  }

  async #contradiction(
    remembered: Remembered,
    listing: Listing,
    owner: ChainOwner,
    call: CallOptions,
  ): Promise<void> {
    if (listing.head.restored) {
      notice(
        call,
        `${owner.origin} says that it was restored from a backup; deliveries that came after the backup may be missing`,
      )
      return
    }
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
