/**
 * Sending: list the sources, seal and send the body, finish, keep the receipt. Run again after any
 * interruption with the same sources and recipients, it goes on where it stopped (docs/protocol.md §8);
 * a stream cannot be read twice, so what holds one starts over.
 */
import { rm } from "node:fs/promises"
import path from "node:path"
import {
  bodyRoot,
  type Bundle,
  checkPaths,
  deriveDeliveryKeys,
  encodeFinish,
  encodeHeader,
  encodeStartUpload,
  type Entry,
  envelopeHash,
  equalBytes,
  FormatError,
  gridCount,
  gridLength,
  headerHash,
  type Identity,
  MIB,
  maxManifestPlainBytes,
  maxNoteBytes,
  originOf,
  paddedBodyLength,
  parseAddress,
  parseFinishReply,
  parseHeader,
  parseReceipt,
  parseStartUploadReply,
  parseUploadState,
  RelayRefusal,
  sealEnvelope,
  sealManifest,
  type SealedManifest,
  sha256,
  toHex,
  type UploadState,
  utf8,
  verifyReceipt,
} from "../protocol/index.js"
import { DiskFull, SourceChanged, SourceUnusable, Untrustworthy } from "./errors.js"
import { placeFiles, type Placement } from "./layout.js"
import { errorCode } from "./error-code.js"
import { makePrivateFolder } from "./private-files.js"
import { type CallOptions, notice, say } from "./progress.js"
import { asUnknownInbox, bundleFrom, callOf, meetRelay, type Relay } from "./relay.js"
import { parseOrigin } from "./relay-client.js"
import { type Scan, type ScannedEntry, scanSources, type Skipped, type Source } from "./scan.js"
import { SealingPool } from "./sealer.js"
import { keepSent } from "./sent.js"
import { json } from "./session.js"
import { Slots } from "./slots.js"
import { type ClientState, nameFor, takeLock } from "./state.js"
import {
  BodyUpload,
  reservationFor,
  StartOver,
  type StreamEntry,
  type StreamSource,
} from "./upload.js"
import { reopenUploadJournal, startUploadJournal, type UploadJournal } from "./upload-journal.js"

export interface SendOptions extends CallOptions {
  /** `knot1…@host`, drop-page links, or bare addresses together with `relay`. */
  recipients: readonly string[]
  /** Origin for recipients that name no host. */
  relay?: string
  sources: readonly Source[]
  note?: string
  /** Wish for the end of keeping. */
  notAfterMs?: number
  sender?: { identity: Identity; mode: "deniable" | "signature"; replyHost?: string }
  state: ClientState
  /** Do not resume what an earlier call left unfinished; start over. */
  fresh?: boolean
  /** Leave what has a name that is not UTF-8 out, instead of sending nothing because of it. */
  skipBadNames?: boolean
  /** Carry modification times (they identify; off by default). */
  times?: boolean
  requestBytes?: number
  /** Requests in flight, 1 to 6. */
  parallel?: number
}

export interface SentDelivery {
  readonly id: string
  readonly origin: string
  readonly addresses: readonly string[]
  readonly receipts: readonly { readonly address: string; readonly receipt: Uint8Array }[]
  readonly expiresMs: number
  readonly entries: number
  readonly contentBytes: number
  /** Bytes of parts that this call put on the wire, repeats included. */
  readonly sentBytes: number
  readonly resumed: boolean
  readonly skipped: readonly Skipped[]
  /**
   * Files and folders that came after the sending began that was resumed now: what is delivered is the
   * list of then. Paths on this machine.
   */
  readonly addedLater: readonly string[]
}

export interface SendResult {
  /** One for each relay among the recipients. */
  readonly deliveries: readonly SentDelivery[]
}

const defaultParallel = 4
const mostParallel = 6
/** Larger requests save little more and take memory. */
const mostRequestBytes = 4 * MIB
/** Parts that are being sealed or journalled while others are on the wire. */
const spareSlots = 12
/** A relay answers a finish when everything is on its disk, and disks can be slow. */
const finishTimeoutMs = 10 * 60_000
/** A relay that keeps losing parts it acknowledged will not become better. */
const mostFinishRounds = 4

interface Recipient {
  readonly address: string
  readonly inboxId: Uint8Array
}

export async function send(options: SendOptions): Promise<SendResult> {
  const groups = groupByRelay(options)
  const streams = options.sources.flatMap((source): StreamSource[] =>
    source.kind === "stream" ? [source] : [],
  )
  if (options.sources.length === 0 && (options.note ?? "") === "") {
    throw new RangeError("nothing to send: name a file or a folder, or write a note")
  }
  if (streams.length > 0 && groups.size > 1) {
    throw new RangeError("a stream can be read once only, so it goes to recipients at one relay")
  }
  const scan = await scanSources(options.sources, options)
  checkSendable(options, scan, streams)
  noticeEach(
    options,
    "left out",
    scan.skipped.map(({ path, reason }) => `${path} (${reason})`),
  )
  const deliveries: SentDelivery[] = []
  for (const [origin, recipients] of groups) {
    deliveries.push(await new Sending(options, { origin, recipients, scan, streams }).run())
  }
  return { deliveries }
}

const mostNotices = 20

/** One notice for each, as far as somebody might read them. */
function noticeEach(call: CallOptions, what: string, named: readonly string[]): void {
  for (const one of named.slice(0, mostNotices)) notice(call, `${what}: ${one}`)
  if (named.length > mostNotices) notice(call, `${what}: ${named.length - mostNotices} more`)
}

function groupByRelay(options: SendOptions): Map<string, Recipient[]> {
  const groups = new Map<string, Recipient[]>()
  for (const text of options.recipients) {
    const { address, inboxId, host } = parseAddress(text)
    if (host === undefined && options.relay === undefined) {
      throw new FormatError("address", `${address} names no relay; write it as ${address}@host`)
    }
    const origin = host === undefined ? parseOrigin(options.relay ?? "") : originOf(host)
    const group = groups.get(origin) ?? []
    if (!group.some((known) => known.address === address)) group.push({ address, inboxId })
    groups.set(origin, group)
  }
  if (groups.size === 0) throw new RangeError("nobody to send to")
  return groups
}

/** Everything that the format will refuse later is refused now. */
function checkSendable(options: SendOptions, scan: Scan, streams: readonly StreamSource[]): void {
  const noteBytes = utf8(options.note ?? "").length
  if (noteBytes > maxNoteBytes) {
    throw new SourceUnusable([
      { path: "the note", reason: "it is longer than 16 KiB; send it as a file" },
    ])
  }
  // What an entry takes beside its path and its MACs, rounded up.
  const fixedBytes = 80
  let manifestBytes = noteBytes + 64
  const paths = function* () {
    for (const { type, path, mark } of scan.entries) {
      const name = utf8(path)
      manifestBytes += fixedBytes + name.length + 16 * gridCount(mark.size)
      yield { type, path: name }
    }
    for (const { name } of streams) yield { type: "file" as const, path: utf8(name) }
  }
  try {
    checkPaths(paths())
  } catch (error) {
    if (!(error instanceof FormatError)) throw error
    throw new SourceUnusable([{ path: "a name", reason: error.message }])
  }
  if (manifestBytes > maxManifestPlainBytes) {
    throw new SourceUnusable([
      {
        path: "the sources",
        reason: "their list is longer than 64 MiB; send them in several deliveries",
      },
    ])
  }
}

/** One delivery to the recipients at one relay. */
class Sending {
  readonly #options: SendOptions
  readonly #origin: string
  readonly #recipients: readonly Recipient[]
  readonly #scan: Scan
  readonly #streams: readonly StreamSource[]
  /** What is sent: all that was found, or the part of it that was there when the sending began. */
  #entries: readonly ScannedEntry[]
  #placement: Placement
  #addedLater: readonly string[] = []
  readonly #journalFile: string
  #sentBytes = 0
  #resumed = false

  constructor(
    options: SendOptions,
    parts: {
      origin: string
      recipients: readonly Recipient[]
      scan: Scan
      streams: readonly StreamSource[]
    },
  ) {
    this.#options = options
    this.#origin = parts.origin
    this.#recipients = parts.recipients
    this.#scan = parts.scan
    this.#streams = parts.streams
    this.#entries = parts.scan.entries
    this.#placement = placeFiles(this.#entries.map(({ mark }) => mark.size))
    this.#journalFile = path.join(options.state.folder, "uploads", this.#resumeKey())
  }

  /** What has to be the same for a later run to be the same sending. */
  #resumeKey(): string {
    const { sources, note, sender, times } = this.#options
    return nameFor(
      JSON.stringify([
        this.#origin,
        this.#recipients.map(({ address }) => address),
        sources.map((source) =>
          source.kind === "path" ? path.resolve(source.path) : { stream: source.name },
        ),
        note ?? "",
        sender && [sender.mode, toHex(sender.identity.bundle.fingerprint), sender.replyHost],
        times === true,
      ]),
    )
  }

  async run(): Promise<SentDelivery> {
    try {
      if (this.#streams.length > 0) return await this.#attempt(undefined, true)
      await makePrivateFolder(path.dirname(this.#journalFile))
      const lock = await takeLock(`${this.#journalFile}.lock`, "sending this")
      try {
        return await this.#resumeOrStart(this.#journalFile)
      } finally {
        await lock.release()
      }
    } catch (error) {
      throw this.#explain(error)
    }
  }

  async #resumeOrStart(file: string): Promise<SentDelivery> {
    try {
      return await this.#attempt(file, this.#options.fresh === true)
    } catch (error) {
      if (!(error instanceof StartOver)) throw error
      notice(this.#options, `${error.message}; starting over with fresh keys`)
      this.#resumed = false
      return this.#attempt(file, true)
    }
  }

  #explain(error: unknown): unknown {
    if (error instanceof StartOver) {
      return error.sourceChanged === undefined
        ? new Untrustworthy(
            `${error.message}; nothing was delivered. Try again, or use another relay`,
          )
        : new SourceChanged(error.sourceChanged)
    }
    if (error instanceof RelayRefusal && error.code === "relay_full") {
      return new DiskFull(
        "relay",
        `${this.#origin} has no room for this now; try again later or use another relay`,
        { cause: error },
      )
    }
    if (errorCode(error) === "ENOSPC" || errorCode(error) === "EDQUOT") {
      const folder = this.#options.state.folder
      return new DiskFull(
        "here",
        `the disk that holds ${folder} is full; make room and run again`,
        {
          cause: error,
        },
      )
    }
    return error
  }

  async #attempt(file: string | undefined, fresh: boolean): Promise<SentDelivery> {
    const parallel = this.#parallel()
    const relay = await meetRelay({
      relay: this.#origin,
      state: this.#options.state,
      parallel,
      ...callOf(this.#options),
    })
    try {
      const journal = await this.#openJournal(relay, file, fresh)
      try {
        return await this.#deliver(relay, journal, file)
      } catch (error) {
        if (error instanceof StartOver || error instanceof SourceChanged) {
          await this.#abandon(relay, journal)
          // Its leaves belong to bytes that no longer exist: a later run must not build on them.
          if (file !== undefined) await rm(file, { force: true })
        }
        throw error
      } finally {
        await journal.close()
      }
    } finally {
      relay.client.close()
    }
  }

  async #openJournal(
    relay: Relay,
    file: string | undefined,
    fresh: boolean,
  ): Promise<UploadJournal> {
    const { entries } = this.#scan
    this.#take(entries, [])
    const known = file === undefined ? undefined : await reopenUploadJournal(file, entries)
    if (known !== undefined && known.kind !== "none") {
      if (known.kind === "resumed" && !fresh) {
        this.#resumed = true
        this.#take(known.entries, known.addedLater)
        return known.journal
      }
      if (known.kind === "changed" && !fresh) {
        notice(
          this.#options,
          `${known.path} changed since the interrupted sending; starting over with fresh keys`,
        )
      }
      await this.#abandon(relay, known.journal)
      await known.journal.close()
    }
    const journal = await startUploadJournal(file, entries)
    for (const _ of this.#streams) journal.drawSecrets()
    return journal
  }

  #take(entries: readonly ScannedEntry[], addedLater: readonly ScannedEntry[]): void {
    this.#entries = entries
    this.#placement = placeFiles(entries.map(({ mark }) => mark.size))
    this.#addedLater = addedLater.map(({ from }) => from)
    noticeEach(this.#options, "not included, added after this sending began", this.#addedLater)
  }

  /** Gives the relay its room back. It would do so by itself in a day, so a failure is no matter. */
  async #abandon(relay: Relay, journal: UploadJournal): Promise<void> {
    if (journal.upload === undefined) return
    try {
      await relay.client.nothing({
        method: "DELETE",
        path: `/v1/uploads/${journal.upload.id}`,
        credential: journal.upload.token,
        persistence: "once",
        signal: this.#options.signal,
      })
    } catch {
      this.#options.signal?.throwIfAborted()
    }
  }

  async #deliver(
    relay: Relay,
    journal: UploadJournal,
    file: string | undefined,
  ): Promise<SentDelivery> {
    const { limits } = relay.info
    if (this.#recipients.length > limits.recipients) {
      throw new RelayRefusal("too_large", {
        detail: `this relay takes ${limits.recipients} recipients for one delivery`,
        extras: { limit: limits.recipients },
      })
    }
    const bundles = await this.#fetchBundles(relay)
    const state = await this.#beginUpload(relay, journal)
    const there = new PartsThere()
    for (const run of state.runs) {
      for (let at = 0; at < run.leaves.length / 32; at++) {
        const leaf = run.leaves.subarray(32 * at, 32 * at + 32)
        const known = journal.leaves[run.first + at]
        if (known === undefined || !equalBytes(known, leaf)) {
          throw new StartOver("the relay holds parts that were not sent from here")
        }
        there.add(run.first + at)
      }
    }
    let streamed: readonly StreamEntry[] = []
    let contentLength = this.#placement.contentLength
    for (let round = 1; ; round++) {
      if (state.state === "open") {
        const body = await this.#sendBody(relay, journal, state, there)
        if (round === 1) {
          streamed = body.streamEntries
          contentLength = body.contentLength
        }
      }
      try {
        return await this.#finish(relay, journal, { file, bundles, streamed, contentLength })
      } catch (error) {
        // Parts that were acknowledged and lost in a crash before they were on the relay's disk.
        const missing = error instanceof RelayRefusal ? error.extras.missing : undefined
        if (!missing || round === mostFinishRounds || this.#streams.length > 0) throw error
        notice(this.#options, `the relay lost ${missing.length} parts; sending them again`)
        for (const part of missing) there.delete(part)
      }
    }
  }

  async #fetchBundles(relay: Relay): Promise<Bundle[]> {
    say(this.#options, { kind: "phase", phase: "fetching keys" })
    const bundles: Bundle[] = []
    for (const { inboxId } of this.#recipients) {
      bundles.push(await bundleFrom(relay.client, inboxId, this.#options))
    }
    return bundles
  }

  async #beginUpload(relay: Relay, journal: UploadJournal): Promise<UploadState> {
    const { client, info } = relay
    if (journal.upload !== undefined) {
      try {
        return await client.json(
          {
            method: "GET",
            path: `/v1/uploads/${journal.upload.id}`,
            credential: journal.upload.token,
            ...callOf(this.#options),
          },
          parseUploadState,
        )
      } catch (error) {
        if (error instanceof RelayRefusal && [401, 404, 410].includes(error.status)) {
          throw new StartOver("the relay no longer holds the interrupted upload")
        }
        throw error
      }
    }
    const reserveBytes = reservationFor(
      this.#placement.contentLength,
      this.#streams.length > 0,
      info.limits.deliveryBytes,
    )
    const { deleteCapability, idempotencyKey } = journal.secrets
    try {
      const reply = await client.json(
        {
          method: "POST",
          path: "/v1/uploads",
          headers: { "idempotency-key": toHex(idempotencyKey) },
          body: [
            json(
              encodeStartUpload({
                recipients: this.#recipients.map(({ address }) => address),
                reserveBytes,
                deleteHash: sha256(deleteCapability),
              }),
            ),
          ],
          ...callOf(this.#options),
        },
        parseStartUploadReply,
      )
      await journal.started({ id: reply.id, token: reply.token })
      return {
        state: "open",
        reservedBytes: reply.reservedBytes,
        expiresMs: reply.expiresMs,
        runs: [],
      }
    } catch (error) {
      if (error instanceof RelayRefusal && error.code === "idempotency_mismatch") {
        throw new StartOver("the interrupted upload was begun differently")
      }
      throw asUnknownInbox(error, client.origin, this.#recipients[0]?.address ?? "")
    }
  }

  async #sendBody(
    relay: Relay,
    journal: UploadJournal,
    state: UploadState,
    there: PartsThere,
  ): Promise<BodyUpload> {
    const { upload, secrets } = journal
    if (upload === undefined) throw new TypeError("the upload has not begun")
    const { limits } = relay.info
    const bodyLength = paddedBodyLength(this.#placement.contentLength)
    const bytesThere = there.bytes(bodyLength)
    const parallel = this.#parallel(limits.parallelRequests)
    const requestBytes = Math.min(
      this.#options.requestBytes ?? mostRequestBytes,
      mostRequestBytes,
      limits.requestBytes,
    )
    const slots = new Slots(parallel * Math.ceil(requestBytes / MIB) + spareSlots)
    const pool = new SealingPool(slots, bodyLength - bytesThere)
    try {
      say(this.#options, { kind: "phase", phase: "sealing and sending" })
      const body = new BodyUpload({
        ...callOf(this.#options),
        client: relay.client,
        upload,
        journal,
        entries: this.#entries,
        placement: this.#placement,
        streams: this.#streams,
        paddingKey: deriveDeliveryKeys(secrets).padding,
        reservedBytes: state.reservedBytes,
        mostBytes: limits.deliveryBytes,
        expiresMs: state.expiresMs,
        relayNow: () => Date.now() + relay.clockAheadMs,
        requestBytes,
        parallel,
        slots,
        pool,
        isThere: (part) => there.has(part),
        bytesThere,
        resumed: this.#resumed || there.lost,
      })
      try {
        await body.run()
      } finally {
        this.#sentBytes += body.sentBytes
      }
      for (let part = 0; part < gridCount(body.bodyLength); part++) there.add(part)
      return body
    } finally {
      await pool.close()
    }
  }

  #parallel(relayAllows: number = mostParallel): number {
    const wanted = this.#options.parallel ?? defaultParallel
    return Math.max(1, Math.min(wanted, relayAllows, mostParallel))
  }

  // ---- the end

  async #finish(
    relay: Relay,
    journal: UploadJournal,
    delivery: {
      file: string | undefined
      bundles: readonly Bundle[]
      streamed: readonly StreamEntry[]
      contentLength: number
    },
  ): Promise<SentDelivery> {
    const { upload, secrets } = journal
    if (upload === undefined) throw new TypeError("the upload has not begun")
    say(this.#options, { kind: "phase", phase: "finishing" })
    // Made anew for each walk: all at once, each with its views, they would be most of our memory.
    const entries = {
      [Symbol.iterator]: () => this.#manifestEntries(journal, delivery.streamed),
    }
    const bodyLength = paddedBodyLength(delivery.contentLength)
    const root = bodyRoot({ bodyLength, leaves: allLeaves(journal, gridCount(bodyLength)) })
    const manifest = sealManifest({
      ds: secrets.ds,
      deliveryId: secrets.deliveryId,
      bodyRoot: root,
      note: this.#options.note ?? "",
      entries,
    })
    if (journal.finish === undefined) {
      const header = encodeHeader({
        deliveryId: secrets.deliveryId,
        bodyLength,
        partCount: gridCount(bodyLength),
        manifestLength: manifest.ciphertext.length,
        bodyRoot: root,
        manifestHash: manifest.manifestHash,
        openRoot: manifest.openRoot,
        keyCommit: deriveDeliveryKeys(secrets).commit,
        notAfterMs: this.#options.notAfterMs ?? 0,
      })
      await journal.finishing({
        header,
        envelopes: await this.#sealEnvelopes(secrets.ds, header, delivery.bundles),
      })
    }
    const finish = journal.finish
    if (finish === undefined || !isManifestOf(finish.header, manifest)) {
      // Under one ds only one manifest may ever be sealed for others to see.
      throw new StartOver("the list of what is sent is not what it was")
    }
    say(this.#options, { kind: "phase", phase: "waiting for the relay" })
    const reply = await relay.client.json(
      {
        method: "POST",
        path: `/v1/uploads/${upload.id}/finish`,
        credential: upload.token,
        contentType: "application/octet-stream",
        body: [encodeFinish({ ...finish, manifest: manifest.ciphertext })],
        idleTimeoutMs: finishTimeoutMs,
        ...callOf(this.#options),
      },
      parseFinishReply,
    )
    if (reply.id !== upload.id) {
      throw new Untrustworthy(
        `${this.#origin} finished the upload ${upload.id} under the name of another; do not count on this delivery`,
      )
    }
    const receipts = this.#checkReceipts(relay, finish.header, finish.envelopes, reply.receipts)
    const [first] = receipts
    if (first === undefined) throw new TypeError("a delivery has a recipient")
    const { acceptedMs, expiresMs } = parseReceipt(first.receipt)
    const record = {
      id: reply.id,
      origin: this.#origin,
      addresses: this.#recipients.map(({ address }) => address),
      receipts,
      acceptedMs,
      expiresMs,
      entries: this.#entries.length + delivery.streamed.length,
      contentBytes: delivery.contentLength,
    }
    // First what status and revoke need, then away with the secrets.
    await keepSent(this.#options.state, record, secrets.deleteCapability)
    if (delivery.file !== undefined) await rm(delivery.file, { force: true })
    const { acceptedMs: _, ...sent } = record
    return {
      ...sent,
      sentBytes: this.#sentBytes,
      resumed: this.#resumed,
      skipped: this.#scan.skipped,
      addedLater: this.#addedLater,
    }
  }

  *#manifestEntries(
    journal: UploadJournal,
    streamed: readonly StreamEntry[],
  ): Generator<Entry, void, undefined> {
    const mtime = (ms: number) => (this.#options.times === true ? ms : 0)
    for (const [index, scanned] of this.#entries.entries()) {
      const name = utf8(scanned.path)
      const mtimeMs = mtime(scanned.mtimeMs)
      if (scanned.type === "directory") {
        yield { type: "directory", path: name, mtimeMs }
        continue
      }
      const place = this.#placement.files[index]
      if (place === undefined) throw new RangeError("no such entry")
      if (!journal.hasMacs(place.firstChunk, place.chunkCount)) {
        throw new StartOver("the journal of the interrupted upload is incomplete")
      }
      yield {
        type: "file",
        path: name,
        size: place.size,
        executable: scanned.executable,
        mtimeMs,
        ...journal.secretsOf(index),
        chunkMacs: journal.macs(place.firstChunk, place.chunkCount),
      }
    }
    for (const { name, size, firstChunk, key, nonce } of streamed) {
      yield {
        type: "file",
        path: utf8(name),
        size,
        executable: false,
        mtimeMs: 0,
        key,
        nonce,
        chunkMacs: journal.macs(firstChunk, gridCount(size)),
      }
    }
  }

  async #sealEnvelopes(
    ds: Uint8Array,
    header: Uint8Array,
    bundles: readonly Bundle[],
  ): Promise<Uint8Array[]> {
    const { sender } = this.#options
    const envelopes: Uint8Array[] = []
    for (const recipient of bundles) {
      envelopes.push(
        await sealEnvelope({
          recipient,
          headerHash: headerHash(header),
          payload: {
            ds,
            createdMs: Date.now(),
            threadSeq: 0,
            threadPrev: new Uint8Array(32),
            ...(sender?.replyHost !== undefined && {
              replyTo: { inboxId: sender.identity.bundle.inboxId, host: sender.replyHost },
            }),
          },
          sender: sender && { identity: sender.identity, mode: sender.mode },
        }),
      )
    }
    return envelopes
  }

  #checkReceipts(
    relay: Relay,
    header: Uint8Array,
    envelopes: readonly Uint8Array[],
    given: readonly { readonly address: string; readonly receipt: Uint8Array }[],
  ): { address: string; receipt: Uint8Array }[] {
    return this.#recipients.map(({ address, inboxId }, index) => {
      const receipt = given.find((one) => one.address === address)?.receipt
      const envelope = envelopes[index]
      if (
        receipt === undefined ||
        envelope === undefined ||
        !verifyReceipt(receipt, relay.info.signingKey) ||
        !isReceiptFor(receipt, { inboxId, header, envelope })
      ) {
        throw new Untrustworthy(
          `${this.#origin} gave no valid receipt for ${address}; do not count on this delivery`,
        )
      }
      return { address, receipt }
    })
  }
}

/** The parts that the relay has said it holds. */
class PartsThere {
  readonly #parts = new Set<number>()
  /** It once held some that it no longer does. */
  lost = false

  has(part: number): boolean {
    return this.#parts.has(part)
  }

  add(part: number): void {
    this.#parts.add(part)
  }

  delete(part: number): void {
    this.lost = true
    this.#parts.delete(part)
  }

  bytes(bodyLength: number): number {
    let sum = 0
    for (const part of this.#parts) sum += gridLength(part, bodyLength)
    return sum
  }
}

function allLeaves(journal: UploadJournal, count: number): Uint8Array {
  const leaves = new Uint8Array(32 * count)
  for (let part = 0; part < count; part++) {
    const leaf = journal.leaves[part]
    if (leaf === undefined)
      throw new StartOver("the journal of the interrupted upload is incomplete")
    leaves.set(leaf, 32 * part)
  }
  return leaves
}

function isManifestOf(header: Uint8Array, manifest: SealedManifest): boolean {
  return equalBytes(parseHeader(header).manifestHash, manifest.manifestHash)
}

function isReceiptFor(
  bytes: Uint8Array,
  delivery: { inboxId: Uint8Array; header: Uint8Array; envelope: Uint8Array },
): boolean {
  const receipt = parseReceipt(bytes)
  return (
    equalBytes(receipt.inboxId, delivery.inboxId) &&
    equalBytes(receipt.headerHash, headerHash(delivery.header)) &&
    equalBytes(receipt.envelopeHash, envelopeHash(delivery.envelope)) &&
    receipt.expiresMs > receipt.acceptedMs
  )
}
