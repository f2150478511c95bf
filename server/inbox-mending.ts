// An inbox in the index, brought to what its log says. The log is right: where the index lags behind it,
// as after a failover that lost the last writes, what is missing is added, entry by entry, so that
// nobody sees a chain that is shorter than it was; where the two contradict each other the index is
// made anew. Whoever calls this keeps other changes of the chain away meanwhile.
import { equalBytes, type TombstoneReason } from "../protocol/index.js"
import { nextTurn } from "./gate.js"
import type { DeliveryId, InboxId } from "./ids.js"
import type { Log } from "./log.js"
import { deliverySize } from "./reservations.js"
import type { BlobStore, Commit, StoredDelivery } from "./stores/blob-store.js"
import type { InboxLogs, LoggedInbox, LoggedPlace } from "./stores/inbox-log.js"
import { readOrAlarm } from "./stores/maced-record.js"
import type {
  Chain,
  ChainEntry,
  RelayIndex,
  RestoredEntry,
  WaitingEntryWithEnvelope,
} from "./stores/relay-index.js"

export interface MendingNeeds {
  readonly index: RelayIndex
  readonly blobs: BlobStore
  readonly logs: InboxLogs
  readonly log: Log
}

/** Told of the deliveries that wait in a page of entries, when the page is in the index. */
export type OnPage = (commits: readonly Commit[]) => Promise<void>

const nothing: OnPage = () => Promise.resolve()

/** With their envelopes about a megabyte. */
const pageEntries = 256
/** Without them; read from the index in one step, in which nothing else happens. */
const comparedEntries = 200
/** Those of a page are read side by side, so many deliveries in each go. */
const readsInOne = 64

/** Gives the index an inbox as its log has it. Nothing happens when there is no log. */
export async function restoreInbox(
  needs: MendingNeeds,
  inbox: InboxId,
  onPage: OnPage,
): Promise<void> {
  // What the relay signs from here on shall not be lost to the next power cut.
  await needs.logs.settle(inbox)
  const logged = await needs.logs.read(inbox)
  if (logged === undefined) {
    needs.log("inbox_record_missing", {}, "alarm")
    return
  }
  if (logged.damaged > 0) {
    needs.log("inbox_record_damaged", { count: logged.damaged }, "alarm")
  }
  await restoreLogged(needs, inbox, logged, { pageEntries, onPage })
}

/** Makes the index say of an inbox what its log says. */
export async function mendInbox(needs: MendingNeeds, inbox: InboxId): Promise<void> {
  const { index, logs, log } = needs
  const chain = await index.chain(inbox)
  if (chain === undefined) {
    await restoreInbox(needs, inbox, nothing)
    return
  }
  await logs.settle(inbox)
  const logged = await logs.read(inbox)
  // Its folder is gone: the sweep's look at idle inboxes forgets it.
  if (logged === undefined) return
  const difference = await compare(index, inbox, chain, logged)
  if (difference === "none") return
  if (difference === "contradiction") {
    // A log with holes is no better than the index.
    if (logged.damaged > 0) return
    log("index_contradicted", { count: logged.places.length }, "alarm")
    // In one step, however large: half of a chain would look like one that was cut.
    await restoreLogged(needs, inbox, logged, { pageEntries: Infinity, onPage: nothing })
    return
  }
  const { buried, missing } = difference
  log("index_mended", { count: buried.length + missing.length }, "warning")
  await index.bury({ inbox, seqs: buried })
  await restorePages(needs, inbox, {
    afterSeq: chain.seq,
    places: missing,
    pageEntries,
    onPage: nothing,
  })
  if (logged.floorSeq > chain.floorSeq) {
    await index.raiseFloor({ inbox, seq: logged.floorSeq, head: logged.floorHead })
  }
}

interface Lag {
  readonly buried: readonly { readonly seq: number; readonly reason: TombstoneReason }[]
  readonly missing: readonly LoggedPlace[]
}

async function compare(
  index: RelayIndex,
  inbox: InboxId,
  chain: Chain,
  { places, floorSeq, floorHead }: LoggedInbox,
): Promise<"none" | "contradiction" | Lag> {
  const lastSeq = places.at(-1)?.seq ?? floorSeq
  if (lastSeq - floorSeq !== places.length) return "contradiction"
  if (chain.seq > lastSeq || chain.floorSeq > floorSeq || chain.seq < floorSeq) {
    return "contradiction"
  }
  const headAt = (seq: number) => (seq === floorSeq ? floorHead : places[seq - floorSeq - 1]?.head)
  if (!equalBytes(headAt(chain.seq) ?? new Uint8Array(0), chain.head)) return "contradiction"
  const buried: { seq: number; reason: TombstoneReason }[] = []
  let seq = chain.floorSeq
  while (seq < chain.seq) {
    const entries = await index.entriesAfter({ inbox, seq, limit: comparedEntries })
    if (entries.length === 0) return "contradiction"
    for (const entry of entries) {
      seq += 1
      // Below the log's floor all are gone and forgotten; only the inbox's quota has to know.
      if (seq <= floorSeq) {
        if (entry.kind === "waiting") buried.push({ seq, reason: "expired" })
        continue
      }
      const place = places[seq - floorSeq - 1]
      if (place === undefined || !isSamePlace(entry, place)) return "contradiction"
      if (place.kind === "published" && entry.kind === "gone") return "contradiction"
      if (place.kind === "buried" && entry.kind === "waiting") {
        buried.push({ seq, reason: place.reason })
      }
    }
    await nextTurn()
  }
  const missing = places.slice(chain.seq - floorSeq)
  if (buried.length + missing.length === 0 && chain.floorSeq === floorSeq) return "none"
  return { buried, missing }
}

function isSamePlace(entry: ChainEntry, place: LoggedPlace): boolean {
  return (
    entry.seq === place.seq &&
    entry.id === place.id &&
    equalBytes(entry.head, place.head) &&
    equalBytes(entry.headerHash, place.headerHash) &&
    equalBytes(entry.envelopeHash, place.envelopeHash) &&
    entry.acceptedMs === place.acceptedMs &&
    entry.expiresMs === place.expiresMs
  )
}

interface Pages {
  readonly pageEntries: number
  readonly onPage: OnPage
}

async function restoreLogged(
  needs: MendingNeeds,
  inbox: InboxId,
  logged: LoggedInbox,
  pages: Pages,
): Promise<void> {
  const { bundle, floorSeq, floorHead, places } = logged
  const first = places.slice(0, pages.pageEntries)
  const { entries, commits, lost } = await readPage(needs, inbox, first)
  await needs.index.restoreInbox({ inbox, bundle, floorSeq, floorHead, entries })
  await noteLost(needs, inbox, lost)
  await pages.onPage(commits)
  const afterSeq = first.at(-1)?.seq ?? floorSeq
  const rest = places.slice(pages.pageEntries)
  await restorePages(needs, inbox, { ...pages, afterSeq, places: rest })
}

async function restorePages(
  needs: MendingNeeds,
  inbox: InboxId,
  more: Pages & { readonly afterSeq: number; readonly places: readonly LoggedPlace[] },
): Promise<void> {
  const { places, pageEntries: size } = more
  let after = more.afterSeq
  for (let at = 0; at < places.length; at += size) {
    const page = places.slice(at, at + size)
    const { entries, commits, lost } = await readPage(needs, inbox, page)
    await needs.index.restoreEntries({ inbox, afterSeq: after, entries })
    await noteLost(needs, inbox, lost)
    await more.onPage(commits)
    after = page.at(-1)?.seq ?? after
  }
}

interface Page {
  readonly entries: readonly RestoredEntry[]
  readonly commits: readonly Commit[]
  readonly lost: readonly LoggedPlace[]
}

async function readPage(
  { blobs, log }: MendingNeeds,
  inbox: InboxId,
  places: readonly LoggedPlace[],
): Promise<Page> {
  const entries: RestoredEntry[] = []
  const commits: Commit[] = []
  const lost: LoggedPlace[] = []
  const published = places.filter(({ kind }) => kind === "published")
  const reads = await readAll(
    blobs,
    published.map(({ id }) => id),
  )
  let next = 0
  for (const place of places) {
    if (place.kind === "buried") {
      entries.push({ ...place, kind: "gone" })
      continue
    }
    const read = reads[next++]
    const delivery = read && (await readOrAlarm(log, async () => read()))
    const entry = delivery && waitingEntry(delivery, inbox, place)
    if (delivery === undefined || entry === undefined) {
      lost.push(place)
      entries.push({ ...place, kind: "gone", reason: "lost" })
    } else {
      entries.push(entry)
      commits.push(delivery.commit)
    }
  }
  return { entries, commits, lost }
}

function waitingEntry(
  { commit, links }: StoredDelivery,
  inbox: InboxId,
  place: LoggedPlace,
): WaitingEntryWithEnvelope | undefined {
  const stored = links[commit.links.findIndex((link) => link.inbox === inbox)]
  if (stored?.link?.seq !== place.seq) return undefined
  const { header } = commit
  const { stamp } = stored.link
  const sizeBytes = deliverySize(header)
  // What was read for many recipients is not kept for the sake of one.
  const envelope = links.length > 1 ? stored.envelope.slice() : stored.envelope
  return { ...place, kind: "waiting", sizeBytes, stamp, header, envelope }
}

async function readAll(
  blobs: BlobStore,
  ids: readonly DeliveryId[],
): Promise<(() => StoredDelivery | undefined)[]> {
  const starts = Array.from(
    { length: Math.ceil(ids.length / readsInOne) },
    (_, at) => at * readsInOne,
  )
  const reads = await Promise.all(
    starts.map((start) => blobs.readDeliveries(ids.slice(start, start + readsInOne))),
  )
  return reads.flat()
}

/** The log says so as well, or the next look at it would bring the entry back. */
async function noteLost(
  { logs, log }: MendingNeeds,
  inbox: InboxId,
  lost: readonly LoggedPlace[],
): Promise<void> {
  if (lost.length === 0) return
  for (const _ of lost) log("delivery_lost", {}, "alarm")
  await logs.append(
    inbox,
    lost.map((place) => ({ ...place, kind: "buried", reason: "lost" })),
  )
}
