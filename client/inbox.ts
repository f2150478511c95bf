/** An inbox at a relay, from its owner's side: what waits, opening one, taking it, throwing it away. */
import { rm } from "node:fs/promises"
import path from "node:path"
import {
  encodeInboxQuery,
  FormatError,
  type Identity,
  type InboxPage,
  type Manifest,
  OpenError,
  parseId,
  parseHead,
  parseInboxPage,
  RelayRefusal,
  type TombstoneReason,
  fromHex,
  toHex,
} from "../protocol/index.js"
import { FloorMoved, HeadMemory, type Listed, type Listing, pairOf } from "./chain.js"
import {
  deleteCopy,
  fetchLeaves,
  type KnownSenders,
  type OpenedDelivery,
  openListed,
  readPiece,
  type Sender,
} from "./delivery.js"
import { DeliveryGone, Untrustworthy } from "./errors.js"
import { type CachedRow, InboxCache } from "./inbox-cache.js"
import { isoTime } from "./iso-time.js"
import { type CallOptions, say } from "./progress.js"
import {
  finishReceived,
  receiveDelivery,
  type ReceiveOptions,
  type ReceiveResult,
} from "./receive.js"
import { callOf, meetRelay, type RelayOptions } from "./relay.js"
import { InboxSession } from "./session.js"
import { type ClientState, nameFor, namesIn } from "./state.js"

export interface InboxRow {
  readonly id: string
  readonly seq: number
  readonly receivedMs: number
  readonly expiresMs: number
  /** Content, or the padded body where the delivery cannot be opened. */
  readonly sizeBytes: number
  readonly entries: number
  readonly note: string
  readonly sender: Sender
  readonly isNew: boolean
  /** The same sealed delivery came before, under this id. */
  readonly duplicateOf?: string
  readonly problem?: string
}

export interface OpenInboxOptions extends RelayOptions {
  identity: Identity
  /** The bundles of people this owner knows, by fingerprint; without one a sender is unverified. */
  senders?: KnownSenders
}

export interface ListOptions extends CallOptions {
  /** Called for each row as soon as it and all before it are there. */
  onRow?: (row: InboxRow) => void
}

export interface OpenDelivery {
  readonly id: string
  readonly receivedMs: number
  readonly expiresMs: number
  readonly sender: Sender
  readonly manifest: Manifest
  /** A verified piece of one file. `entry` is its index in the manifest. */
  read: (
    options: { entry: number; offset: number; length: number } & CallOptions,
  ) => Promise<Uint8Array>
  /** As `Inbox.receive`, without listing and opening it once more. */
  receive: (options: ReceiveOptions) => Promise<ReceiveResult>
}

/** Manifests fetched and opened side by side: the round trips overlap, the processor does not. */
const opensAtOnce = 8
/** Of manifests in memory at the same time; a larger one is opened by itself. */
const manifestBudgetBytes = 32 * 1024 * 1024
/** More envelopes than this are fetched faster with a whole page. */
const fewEnvelopes = 20
/** How long an answer may take once a wait is over. */
const answerWithinSeconds = 30
/** A listing begins anew when the relay moved the floor between two pages; it will not for ever. */
const mostListings = 3

/** Erases what is remembered of an identity's inboxes, at every relay. */
export async function forgetInboxes(options: {
  state: ClientState
  inboxId: Uint8Array
}): Promise<void> {
  const folder = path.join(options.state.folder, "inboxes")
  const begun = `${toHex(options.inboxId)}-`
  for (const name of await namesIn(folder)) {
    if (name.startsWith(begun)) await rm(path.join(folder, name), { recursive: true, force: true })
  }
}

/** Logs in when first needed. The relay has to be reachable now, so that its key can be checked. */
export async function openInbox(options: OpenInboxOptions): Promise<Inbox> {
  const relay = await meetRelay(options)
  return new Inbox(new InboxSession(relay, options.identity), options)
}

export class Inbox {
  readonly #session: InboxSession
  readonly #senders: KnownSenders | undefined
  readonly #heads: HeadMemory
  readonly #cacheFile: string
  readonly #parallel: number
  #listing: Listing | undefined

  /** Use `openInbox`. */
  constructor(session: InboxSession, options: OpenInboxOptions) {
    this.#session = session
    this.#senders = options.senders
    this.#parallel = session.relay.info.limits.parallelRequests
    const name = `${toHex(session.identity.bundle.inboxId)}-${nameFor(session.relay.client.origin).slice(0, 8)}`
    const folder = path.join(options.state.folder, "inboxes", name)
    this.#heads = new HeadMemory(folder, path.join(options.state.folder, "proofs"))
    this.#cacheFile = path.join(folder, "cache")
  }

  /** What waits, oldest first. Rows that were opened before come from the cache. */
  async list(options: ListOptions = {}): Promise<InboxRow[]> {
    say(options, { kind: "phase", phase: "listing" })
    const cache = new InboxCache(this.#cacheFile, this.#session.identity)
    await cache.load()
    let listing = await this.#fetchListing(cache, cache.isEmpty, options)
    const unknown = listing.waiting.filter((listed) => this.#cachedRow(cache, listed) === undefined)
    if (!cache.isEmpty && unknown.length > fewEnvelopes) {
      listing = await this.#fetchListing(cache, true, options)
    }
    cache.settle(listing.waiting, listing.gone, Date.now())
    try {
      return await this.#openRows(cache, listing.waiting, options)
    } finally {
      // What an interrupted listing opened is kept as well.
      await cache.save()
    }
  }

  async #openRows(
    cache: InboxCache,
    waiting: readonly Listed[],
    options: ListOptions,
  ): Promise<InboxRow[]> {
    say(options, { kind: "phase", phase: "opening" })
    const duplicates = cache.duplicatesAmong(waiting)
    const rows: (InboxRow | undefined)[] = waiting.map((listed) => {
      const cached = this.#cachedRow(cache, listed)
      return cached && this.#rowOf(cached, duplicates.get(listed.id), false)
    })
    let shown = 0
    const show = () => {
      for (let row = rows[shown]; row !== undefined; row = rows[++shown]) {
        options.onRow?.(row)
        say(options, { kind: "count", done: shown + 1, total: rows.length })
      }
    }
    show()
    const budget = new Budget(manifestBudgetBytes)
    const work = waiting.entries()
    let failed = false
    const openNext = async () => {
      for (const [index, listed] of work) {
        if (rows[index] !== undefined) continue
        if (failed) return
        options.signal?.throwIfAborted()
        const bytes = listed.header.manifestLength
        await budget.take(bytes)
        try {
          const row = await this.#openRow(listed, options)
          if (row.cacheable) cache.put(row.cached)
          rows[index] = this.#rowOf(row.cached, duplicates.get(listed.id), true)
        } catch (error) {
          failed = true
          throw error
        } finally {
          budget.give(bytes)
        }
        show()
      }
    }
    await Promise.all(Array.from({ length: opensAtOnce }, openNext))
    return rows.filter((row) => row !== undefined)
  }

  async #openRow(
    listed: Listed,
    call: CallOptions,
  ): Promise<{ cached: CachedRow; cacheable: boolean }> {
    const base = {
      id: listed.id,
      seq: listed.seq,
      pair: pairOf(listed.stamp),
      receivedMs: listed.stamp.acceptedMs,
      expiresMs: listed.stamp.expiresMs,
      sizeBytes: listed.header.bodyLength,
      entries: 0,
      note: "",
      mode: "none",
      claimed: "",
      verified: false,
    } as const
    try {
      const { manifest, authentication, sender } = await openListed(
        this.#session,
        listed,
        this.#senders,
        callOf(call),
      )
      const claim = {
        mode: authentication.mode,
        claimed: authentication.mode === "none" ? "" : toHex(authentication.senderFingerprint),
      }
      if (sender.kind === "refused") {
        const problem = "it claims a sender that it does not come from"
        return { cached: { ...base, ...claim, verified: true, problem }, cacheable: true }
      }
      return {
        cached: {
          ...base,
          ...claim,
          verified: sender.kind !== "unverified",
          sizeBytes: manifest.contentLength,
          entries: manifest.entries.length,
          note: manifest.note,
        },
        cacheable: true,
      }
    } catch (error) {
      // All that went into the failure is bound by hashes that verified, so it will fail again.
      if (error instanceof OpenError || error instanceof FormatError) {
        return { cached: { ...base, problem: "cannot open" }, cacheable: true }
      }
      if (error instanceof Untrustworthy) {
        return { cached: { ...base, problem: error.message }, cacheable: false }
      }
      throw error
    }
  }

  /** Nothing when a claimed sender has become known since, and could now be verified. */
  #cachedRow(cache: InboxCache, listed: Listed): CachedRow | undefined {
    const row = cache.find(listed)
    if (row === undefined || row.mode === "none" || row.verified) return row
    return this.#senders?.(fromHex(row.claimed)) ? undefined : row
  }

  #rowOf(cached: CachedRow, duplicateOf: string | undefined, isNew: boolean): InboxRow {
    const { id, seq, receivedMs, expiresMs, sizeBytes, entries, note, problem } = cached
    return {
      id,
      seq,
      receivedMs,
      expiresMs,
      sizeBytes,
      entries,
      note,
      sender: this.#senderOf(cached),
      isNew,
      ...(duplicateOf !== undefined && { duplicateOf }),
      ...(problem !== undefined && { problem }),
    }
  }

  #senderOf({ mode, claimed, verified, problem }: CachedRow): Sender {
    if (mode === "none") return { kind: "unverified" }
    if (!verified) return { kind: "unverified", claimedFingerprint: fromHex(claimed) }
    if (problem !== undefined) return { kind: "refused" }
    const fingerprint = fromHex(claimed)
    // Verified once, but the owner may have dropped this sender since.
    if (this.#senders?.(fingerprint) === undefined) {
      return { kind: "unverified", claimedFingerprint: fingerprint }
    }
    return { kind: mode === "deniable" ? "deniable" : "signed", fingerprint }
  }

  /**
   * Waits until there is something that the last listing did not hold, or `seconds` are over, or the
   * relay lets no request wait any longer. False when nothing came.
   */
  async waitForNews({ seconds, ...call }: { seconds: number } & CallOptions): Promise<boolean> {
    const head = this.#listing?.head
    if (head === undefined) return true
    const { client, info } = this.#session.relay
    const waitSeconds = Math.max(1, Math.min(Math.ceil(seconds), info.limits.longPollSeconds))
    const query = { after: head.seq, limit: 1, waitSeconds, envelopes: false }
    return this.#session.with(call, (credential) =>
      client.json(
        {
          method: "GET",
          path: `/v1/inbox?${encodeInboxQuery(query)}`,
          credential,
          // Whoever waits for weeks asks again by itself, and looks at the listing first.
          persistence: "brisk",
          idleTimeoutMs: (waitSeconds + answerWithinSeconds) * 1000,
          ...callOf(call),
        },
        (value) => {
          const page = parseInboxPage(value)
          // An inbox that is shorter than it was is news as well, for the listing to judge.
          return page.entries.length > 0 || parseHead(page.head).seq !== head.seq
        },
      ),
    )
  }

  async open(id: string, call: CallOptions = {}): Promise<OpenDelivery> {
    const opened = await this.#openById(id, call)
    const { listed, manifest, sender } = opened
    let leaves: Promise<Uint8Array> | undefined
    return {
      id,
      receivedMs: listed.stamp.acceptedMs,
      expiresMs: listed.stamp.expiresMs,
      sender,
      manifest,
      read: async ({ signal, onProgress, ...wanted }) => {
        const reading = { signal, onProgress }
        leaves ??= fetchLeaves(this.#session, listed, reading)
        try {
          return await readPiece(this.#session, opened, await leaves, wanted, reading)
        } catch (error) {
          leaves = undefined
          throw error
        }
      },
      receive: (options) => this.#receive(opened, options),
    }
  }

  async receive(id: string, options: ReceiveOptions): Promise<ReceiveResult> {
    // Everything may be in place already, and gone from the relay, with only the cleaning up left.
    const finished =
      options.entries === undefined
        ? await finishReceived(this.#session, parseId(id), options)
        : undefined
    return finished ?? this.#receive(await this.#openById(id, options), options)
  }

  async #receive(opened: OpenedDelivery, options: ReceiveOptions): Promise<ReceiveResult> {
    return receiveDelivery(this.#session, opened, {
      ...options,
      parallel: Math.min(options.parallel ?? this.#parallel, this.#parallel),
    })
  }

  /** Deletes the relay's copy in this inbox; that of other recipients stays. */
  async discard(id: string, call: CallOptions = {}): Promise<void> {
    await this.#find(id, call)
    await deleteCopy(this.#session, id, call)
    this.#listing = undefined
  }

  close(): void {
    this.#session.relay.client.close()
  }

  async #openById(id: string, call: CallOptions): Promise<OpenedDelivery> {
    const opened = await this.#findAndOpen(id, call)
    if (opened.sender.kind === "refused") {
      throw new Untrustworthy(
        `delivery ${id} claims a sender that it does not come from; it is not received. Discard it`,
      )
    }
    return opened
  }

  async #findAndOpen(id: string, call: CallOptions): Promise<OpenedDelivery> {
    const inHand = this.#listing
    const listed = await this.#find(id, call)
    try {
      return await openListed(this.#session, listed, this.#senders, callOf(call))
    } catch (error) {
      const isGone = error instanceof RelayRefusal && (error.status === 404 || error.status === 410)
      if (!isGone || this.#listing !== inHand) throw error
      // Listed a while ago, and taken or expired since: the inbox says which.
      this.#listing = undefined
      await this.#find(id, call)
      throw error
    }
  }

  async #find(id: string, call: CallOptions): Promise<Listed> {
    parseId(id)
    const inHand = this.#listing?.waiting.find((listed) => listed.id === id)
    if (inHand) return inHand
    const cache = new InboxCache(this.#cacheFile, this.#session.identity)
    await cache.load()
    const listing = await this.#fetchListing(cache, false, call)
    const listed = listing.waiting.find((entry) => entry.id === id)
    if (listed) return listed
    cache.settle(listing.waiting, listing.gone, Date.now())
    const known = cache.byId(id)
    await cache.save()
    const reason = known?.gone ?? "unknown"
    throw new DeliveryGone(id, reason, goneMessage(id, reason, known?.expiresMs))
  }

  async #fetchListing(cache: InboxCache, envelopes: boolean, call: CallOptions): Promise<Listing> {
    const { relay, identity } = this.#session
    const owner = {
      origin: relay.client.origin,
      inboxId: identity.bundle.inboxId,
      signingKey: relay.info.signingKey,
    }
    for (let round = 1; ; round++) {
      let listing: Listing
      try {
        listing = await this.#heads.check(this.#pages(envelopes, call), owner, cache.rows, call)
      } catch (error) {
        if (error instanceof FloorMoved && round < mostListings) continue
        throw error
      }
      // What was listed under an id is what its owner means by it, and no other.
      const renamed = cache.renamedAmong(listing.waiting)
      if (renamed) {
        throw new Untrustworthy(
          `${owner.origin} now calls another delivery ${renamed.id} than it did before; it is not received`,
        )
      }
      this.#listing = listing
      return listing
    }
  }

  async *#pages(envelopes: boolean, call: CallOptions): AsyncGenerator<InboxPage> {
    const { client, info } = this.#session.relay
    for (let after = 0; ;) {
      const query = { after, limit: Math.min(info.limits.page, 1000), waitSeconds: 0, envelopes }
      const page = await this.#session.with(call, (credential) =>
        client.json(
          {
            method: "GET",
            path: `/v1/inbox?${encodeInboxQuery(query)}`,
            credential,
            ...callOf(call),
          },
          parseInboxPage,
        ),
      )
      yield page
      const last = page.entries.at(-1)
      // A relay that promises more and gives nothing would keep us here for ever.
      if (!page.more || last === undefined || last.seq <= after) return
      after = last.seq
    }
  }
}

function goneMessage(
  id: string,
  reason: TombstoneReason | "unknown",
  expiresMs: number | undefined,
): string {
  const when = expiresMs === undefined ? "" : ` on ${isoTime(expiresMs)}`
  const told: Readonly<Record<typeof reason, string>> = {
    taken: "was taken already, here or on another machine, and the relay's copy is gone",
    revoked: "was taken back by its sender",
    expired: `expired${when}; ask its sender to send it again`,
    lost: "is no longer at the relay; ask its sender to send it again",
    removed: "was removed by the relay's operator after a report",
    unknown: "is not in this inbox; list the inbox to see what waits",
  }
  return `delivery ${id} ${told[reason]}`
}

/** So many bytes at once; what is larger than all of it waits until it is alone. */
class Budget {
  readonly #all: number
  #free: number
  #waiting: { bytes: number; go: () => void }[] = []

  constructor(bytes: number) {
    this.#all = bytes
    this.#free = bytes
  }

  async take(bytes: number): Promise<void> {
    const share = Math.min(bytes, this.#all)
    if (this.#waiting.length === 0 && share <= this.#free) {
      this.#free -= share
      return
    }
    await new Promise<void>((go) => this.#waiting.push({ bytes: share, go }))
  }

  give(bytes: number): void {
    this.#free += Math.min(bytes, this.#all)
    for (let next = this.#waiting[0]; next && next.bytes <= this.#free; next = this.#waiting[0]) {
      this.#waiting.shift()
      this.#free -= next.bytes
      next.go()
    }
  }
}
