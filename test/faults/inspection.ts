// Whether a relay that came up after a crash keeps the promises it made before (the design's P4 to P6).
// Everything is asked as its users ask it, over HTTP.
import {
  chainHead,
  encodeBearer,
  equalBytes,
  headerHash,
  type InboxPage,
  parseHead,
  parseReceipt,
  parseStamp,
  parseStatusReply,
  parseTombstone,
  type TombstoneReason,
  toHex,
} from "../../protocol/index.js"
import { newLedger, type Ledger, type Owner, type Sending, wasAsked, wasDone } from "./ledger.js"
import { Party } from "./load.js"
import type { Subject } from "./subject.js"
import { jsonOf } from "./wire.js"

/** So long past its expiry a delivery is remembered (docs/protocol.md). */
const rememberMs = 30 * 86_400_000

export interface Inspection {
  readonly subject: Subject
  readonly ledger: Ledger
  /** The moment the crash fell in. */
  readonly at: number
  /** Sessions from before the crash are still good. */
  readonly keepsSessions: boolean
}

/** One place in a chain, as its inbox lists it. */
interface Listed {
  readonly seq: number
  readonly headerHash: string
  readonly head: string
  readonly expiresMs: number
  readonly state: TombstoneReason | "waiting"
  readonly id: string
}

export interface Inspected {
  readonly problems: string[]
  /** What the inboxes say, to be compared with what they say later. */
  readonly said: string
}

export async function inspect(inspection: Inspection): Promise<Inspected> {
  const { subject, ledger, at } = inspection
  const problems = subject.alarms().map((event) => `the log has the alarm ${event}`)
  const said: string[] = []
  for (const owner of ledger.owners) {
    if (!wasAsked(owner.registered, at)) continue
    problems.push(...(await inspectBundle(inspection, owner)))
    if (!wasDone(owner.registered, at)) continue
    const { page, authorization } = await list(inspection, owner)
    const { chain, broken } = foldChain(page)
    problems.push(...broken, ...inspectHead(inspection, owner, page, chain))
    problems.push(...(await inspectPlaces(inspection, owner, { page, chain, authorization })))
    said.push(JSON.stringify([page.floor.seq, chain]))
  }
  for (const sending of ledger.sendings) {
    problems.push(...(await inspectStatus(inspection, sending)))
  }
  return { problems, said: said.join("\n") }
}

async function inspectBundle(
  { subject, at }: Inspection,
  { identity, registered, closings }: Owner,
): Promise<string[]> {
  const { address, bytes } = identity.bundle
  const reply = await subject.wire.ask("GET", `/v1/inboxes/${address}`)
  const isThere = reply.status === 200
  if (isThere && !equalBytes(reply.bytes, bytes)) return ["an inbox has another bundle"]
  const last = closings.filter(({ closed }) => wasAsked(closed, at)).at(-1)
  const mayBeClosed = last !== undefined && !wasDone(last.reopened, at)
  const mustBeClosed =
    last !== undefined && wasDone(last.closed, at) && !wasAsked(last.reopened, at)
  if (!isThere && wasDone(registered, at) && !mayBeClosed) return ["an inbox is not there"]
  if (isThere && mustBeClosed) return ["an inbox that was closed is open"]
  return []
}

async function list(
  inspection: Inspection,
  owner: Owner,
): Promise<{ readonly page: InboxPage; readonly authorization: string }> {
  const { subject, at, keepsSessions } = inspection
  const known = owner.sessions.findLast((session) => session.at <= at)
  const isGood = known !== undefined && known.untilMs > subject.clock.wallMs()
  // A ledger of its own: what is said now is held against what was said before.
  const own = newLedger([owner.identity])
  const [asker] = own.owners
  if (asker === undefined) throw new RangeError("an owner")
  if (keepsSessions && isGood) asker.sessions.push(known)
  const page = await new Party(subject, own).list(asker)
  if (own.surprises.length > 0) throw new Error(own.surprises.join("; "))
  const [session] = asker.sessions
  if (session === undefined) throw new RangeError("a listing without a session")
  return { page, authorization: session.authorization }
}

function foldChain({ floor, entries, head }: InboxPage): {
  readonly chain: readonly Listed[]
  readonly broken: string[]
} {
  const chain: Listed[] = []
  const broken: string[] = []
  let { seq, head: previous } = floor
  for (const entry of entries) {
    seq += 1
    if (entry.seq !== seq) broken.push(`a listing goes from ${seq - 1} to ${entry.seq}`)
    const record = entry.kind === "gone" ? parseTombstone(entry.tombstone) : parseStamp(entry.stamp)
    previous = chainHead({ ...record, previous, seq })
    if (entry.kind === "waiting" && !equalBytes(headerHash(entry.header), record.headerHash)) {
      broken.push("an entry has another header than its stamp")
    }
    chain.push({
      seq,
      headerHash: toHex(record.headerHash),
      head: toHex(previous),
      expiresMs: record.expiresMs,
      state: entry.kind === "gone" ? parseTombstone(entry.tombstone).reason : "waiting",
      id: entry.kind === "waiting" ? entry.id : "",
    })
  }
  const signed = parseHead(head)
  if (signed.seq !== seq || !equalBytes(signed.head, previous)) {
    broken.push("the entries do not lead to the head that the relay signed")
  }
  return { chain, broken }
}

/** No head contradicts one that was signed before. */
function inspectHead(
  { at }: Inspection,
  owner: Owner,
  page: InboxPage,
  chain: readonly Listed[],
): string[] {
  const now = parseHead(page.head)
  const problems: string[] = []
  for (const before of owner.heads) {
    if (before.at > at) continue
    if (now.seq < before.seq) problems.push(`a chain went back from ${before.seq} to ${now.seq}`)
    if (now.floorSeq < before.floorSeq) problems.push("a floor went back")
    if (now.asOfMs < before.asOfMs) problems.push("a head is as of a time before an earlier one")
    const then =
      before.seq === page.floor.seq
        ? toHex(page.floor.head)
        : chain.find(({ seq }) => seq === before.seq)?.head
    if (before.seq > page.floor.seq && then !== before.head) {
      problems.push(`a chain is another one at ${before.seq} than it was`)
    }
  }
  return problems
}

async function inspectPlaces(
  inspection: Inspection,
  owner: Owner,
  listing: {
    readonly page: InboxPage
    readonly chain: readonly Listed[]
    readonly authorization: string
  },
): Promise<string[]> {
  const { ledger, at, subject } = inspection
  const { page, chain, authorization } = listing
  const nowMs = subject.clock.wallMs()
  const problems: string[] = []
  const number = ledger.owners.indexOf(owner)
  const known = new Set<string>()
  for (const sending of ledger.sendings) {
    const slot = sending.delivery.recipients.indexOf(owner.identity)
    if (slot === -1 || !wasAsked(sending.finished, at)) continue
    const hash = toHex(headerHash(sending.delivery.header))
    known.add(hash)
    const [place, second] = chain.filter((each) => each.headerHash === hash)
    if (second !== undefined) problems.push("a delivery has two places in one chain")
    const receipt = sending.receipts[slot]
    if (place === undefined) {
      if (!wasDone(sending.finished, at) || receipt === undefined) continue
      // The floor passes only what expired long ago.
      const isForgotten = parseReceipt(receipt).expiresMs + rememberMs <= nowMs
      if (!isForgotten) problems.push("a delivery with a receipt is not in its chain")
      continue
    }
    if (place.id !== "" && place.id !== sending.id) problems.push("a delivery has another's id")
    const discard = sending.discarded.get(number)
    const mayBe = {
      waiting: !wasDone(discard, at) && !wasDone(sending.revoked, at) && place.expiresMs > nowMs,
      taken: wasAsked(discard, at) || owner.closings.some(({ closed }) => wasAsked(closed, at)),
      revoked: wasAsked(sending.revoked, at),
      expired: place.expiresMs <= nowMs,
      lost: false,
      removed: false,
    }
    if (!mayBe[place.state]) problems.push(`a delivery is ${place.state} and should not be`)
    if (place.state !== "waiting") continue
    const entry = page.entries.find(({ seq }) => seq === place.seq)
    const envelope = entry?.kind === "waiting" ? entry.envelope : undefined
    const expected = sending.delivery.envelopes[slot]
    if (envelope === undefined || expected === undefined || !equalBytes(envelope, expected)) {
      problems.push("a delivery has another envelope")
    }
    problems.push(...(await inspectPieces(subject, sending, authorization)))
  }
  for (const { headerHash: hash } of chain) {
    if (!known.has(hash)) problems.push("a chain has a delivery that nobody finished")
  }
  if (page.more) problems.push("a listing of few entries has more")
  return problems
}

async function inspectPieces(
  subject: Subject,
  { id, delivery }: Sending,
  authorization: string,
): Promise<string[]> {
  const problems: string[] = []
  for (const piece of ["body", "manifest"] as const) {
    const path = `/v1/deliveries/${id}/${piece}`
    const reply = await subject.wire.ask("GET", path, { authorization })
    if (reply.status !== 200) problems.push(`the ${piece} of a delivery gets ${reply.status}`)
    else if (!equalBytes(reply.bytes, delivery[piece])) {
      problems.push(`the ${piece} of a delivery is another one`)
    }
  }
  return problems
}

/** What the sender hears of a delivery it has a receipt for. */
async function inspectStatus(
  { subject, at }: Inspection,
  { id, deleteCap, finished, receipts, revoked }: Sending,
): Promise<string[]> {
  if (!wasDone(finished, at)) return []
  const authorization = encodeBearer(deleteCap)
  const path = `/v1/deliveries/${id}/status`
  const reply = await subject.wire.ask("GET", path, { authorization })
  const forgottenMs = Math.max(...receipts.map((each) => parseReceipt(each).expiresMs)) + rememberMs
  if (reply.status !== 200) {
    const isForgotten = reply.status === 404 && forgottenMs <= subject.clock.wallMs()
    return isForgotten ? [] : [`the status of a delivery is ${reply.status}`]
  }
  const states = parseStatusReply(jsonOf(reply)).recipients.map(({ state }) => state)
  const problems = states.includes("lost") ? ["a delivery is lost"] : []
  if (wasDone(revoked, at) && states.includes("waiting")) {
    problems.push("a delivery that was revoked is said to wait")
  }
  return problems
}

/** What the users of the relay would do next: ask again for what was not answered. */
export async function goOn({ subject, ledger, at }: Inspection): Promise<string[]> {
  const problems: string[] = []
  const nowMs = subject.clock.wallMs()
  for (const before of ledger.sendings) {
    const { finished, receipts, started, givenUp } = before
    const hasReceipts = wasDone(finished, at)
    const isOpen = wasDone(started, at) && !wasAsked(givenUp, at) && before.expiresMs > nowMs
    if (!hasReceipts && !isOpen) continue
    const own = newLedger([])
    const party = new Party(subject, own)
    const sending: Sending = {
      ...before,
      receipts: hasReceipts ? receipts : [],
      finished: undefined,
      discarded: new Map(),
    }
    const isForgotten = (receipt: Uint8Array): boolean =>
      parseReceipt(receipt).expiresMs + rememberMs <= nowMs
    if (hasReceipts && receipts.some(isForgotten)) continue
    if (await party.finish(sending)) {
      problems.push(...own.surprises)
    } else if (hasReceipts) {
      problems.push(`a finish with a receipt cannot be repeated: ${own.refusals.join(", ")}`)
    } else if (wasAsked(finished, at)) {
      // What is missing is sent again; then the same finish goes through.
      await party.parts(sending)
      if (!(await party.finish(sending)) && !mayBeRefused(ledger, sending, at)) {
        problems.push(
          ...own.surprises,
          `an upload cannot be finished after all: ${own.refusals.join(", ")}`,
        )
      }
    }
  }
  return problems
}

/** One of its recipients closed the inbox meanwhile. */
function mayBeRefused(ledger: Ledger, { delivery }: Sending, at: number): boolean {
  return ledger.owners.some(
    ({ identity, closings }) =>
      delivery.recipients.includes(identity) &&
      closings.some(({ closed, reopened }) => wasAsked(closed, at) && !wasDone(reopened, at)),
  )
}
