/**
 * One body on its way to one relay: units are sealed into parts, leaves are journalled, parts are sent
 * a few at a time and given up when the relay has them. All of it runs side by side, bounded by the
 * slots; the order that matters is kept part by part: sealed, leaf on disk, then on the wire.
 */
import {
  encodeExtend,
  equalBytes,
  gridCount,
  gridIndex,
  gridLength,
  gridOffset,
  leafHash,
  MIB,
  paddedBodyLength,
  parseExtendReply,
  parsePartsReply,
  RelayRefusal,
} from "../protocol/index.js"
import { SourceChanged, SourceUnusable, Untrustworthy } from "./errors.js"
import { type Placement, planUnits, segmentsOf, type Unit } from "./layout.js"
import { asError, type CallOptions, notice, say } from "./progress.js"
import { Parallel } from "./parallel.js"
import { ProxyLimit, type RelayClient } from "./relay-client.js"
import type { ScannedEntry } from "./scan.js"
import type { SealingPool } from "./sealer.js"
import { json } from "./session.js"
import { Slots } from "./slots.js"
import type { SealPiece } from "./unit-work.js"
import type { FileSecrets, StartedUpload, UploadJournal } from "./upload-journal.js"

/** The journal and what is sealed now do not fit together: start over with fresh secrets. */
export class StartOver extends Error {
  override readonly name: string = "StartOver"
  readonly sourceChanged: string | undefined

  constructor(message: string, sourceChanged?: string) {
    super(message)
    this.sourceChanged = sourceChanged
  }
}

export interface StreamSource {
  readonly name: string
  readonly stream: AsyncIterable<Uint8Array>
}

/** What a stream turned out to be. */
export interface StreamEntry extends FileSecrets {
  readonly name: string
  readonly size: number
  readonly firstChunk: number
}

export interface BodyUploadOptions extends CallOptions {
  readonly client: RelayClient
  readonly upload: StartedUpload
  readonly journal: UploadJournal
  readonly entries: readonly ScannedEntry[]
  readonly placement: Placement
  readonly streams: readonly StreamSource[]
  readonly paddingKey: Uint8Array
  readonly reservedBytes: number
  /** The most the relay lets a delivery be. */
  readonly mostBytes: number
  readonly expiresMs: number
  readonly relayNow: () => number
  readonly requestBytes: number
  readonly parallel: number
  readonly slots: Slots
  readonly pool: SealingPool
  /** True for parts that the relay has. */
  readonly isThere: (part: number) => boolean
  readonly bytesThere: number
  /** An earlier run may have sealed some of this. */
  readonly resumed: boolean
}

/** A part between its first byte and the relay's answer. */
interface PartInHand {
  readonly index: number
  readonly slot: number
  length: number
  missing: number
  leaf: Uint8Array | undefined
}

/** With a stream among the sources: how much is reserved at first beyond what is known. */
const firstReservation = 64 * MIB
/** The end of an upload cannot be put off for ever: near it, do not ask with every part. */
const leastRenewalMs = 10 * 60_000
/** Chunks of a stream: one that is read into, and as many as the threads have in hand. */
const plaintextSlots = 5
/** What every relay and every proxy in front of one has to let through. */
const leastRequestBytes = MIB

export function reservationFor(contentLength: number, hasStreams: boolean, most: number): number {
  const known = paddedBodyLength(contentLength)
  return hasStreams ? Math.max(known, Math.min(known + firstReservation, most)) : known
}

export class BodyUpload {
  readonly #options: BodyUploadOptions
  readonly #stop = new AbortController()
  /** Apart from the slots that requests are sent from: no mistake of theirs may send what is in here. */
  readonly #plaintext = new Slots(plaintextSlots)
  readonly #parallel: Parallel
  readonly #parts = new Map<number, PartInHand>()
  /** Sealed and journalled, waiting for a request; by index. */
  readonly #ready: PartInHand[] = []
  #wakeUps: (() => void)[] = []
  #error: Error | undefined
  #produced = false
  /** Undefined until the last stream has ended. */
  #bodyLength: number | undefined
  #contentLength: number
  #chunks: number
  #reserved: number
  #renewAtMs: number
  #extending: Promise<void> | undefined
  #requestBytes: number
  #ackedBytes = 0
  /** Bytes of parts put on the wire, repeats included. */
  sentBytes = 0
  readonly streamEntries: StreamEntry[] = []

  constructor(options: BodyUploadOptions) {
    this.#options = options
    this.#contentLength = options.placement.contentLength
    this.#chunks = options.placement.chunkCount
    if (options.streams.length === 0) this.#bodyLength = paddedBodyLength(this.#contentLength)
    this.#reserved = options.reservedBytes
    this.#renewAtMs = this.#halfWayTo(options.expiresMs)
    this.#requestBytes = Math.max(leastRequestBytes, options.requestBytes)
    let fewest = options.parallel
    this.#parallel = new Parallel(options.parallel, (allowed) => {
      if (allowed >= fewest) return
      fewest = allowed
      const requests = allowed === 1 ? "one request" : `${allowed} requests`
      notice(options, `the line or the relay is slow; going on with ${requests} at a time`)
    })
  }

  get bodyLength(): number {
    if (this.#bodyLength === undefined) throw new TypeError("the body has no end yet")
    return this.#bodyLength
  }

  get contentLength(): number {
    return this.#contentLength
  }

  /** Ends when the relay has every part. */
  async run(): Promise<void> {
    const { signal } = this.#options
    const onAbort = () => this.#fail(signal?.reason)
    if (signal?.aborted === true) onAbort()
    signal?.addEventListener("abort", onAbort, { once: true })
    try {
      this.#report()
      const senders = Array.from({ length: this.#options.parallel }, () => this.#send())
      await Promise.all(
        [this.#produce(), ...senders].map((work) => work.catch((error) => this.#fail(error))),
      )
    } finally {
      signal?.removeEventListener("abort", onAbort)
    }
    if (this.#error !== undefined) throw this.#error
  }

  #fail(error: unknown): void {
    if (this.#error !== undefined) return
    this.#error = asError(error)
    this.#stop.abort(this.#error)
    const ended = new Error("the upload has ended")
    this.#options.slots.end(ended)
    this.#plaintext.end(ended)
    this.#wake()
  }

  #wake(): void {
    for (const wakeUp of this.#wakeUps.splice(0)) wakeUp()
  }

  // ---- sealing

  async #produce(): Promise<void> {
    const { placement, isThere, streams } = this.#options
    const work = new Set<Promise<void>>()
    const track = (done: Promise<void>) => {
      const tracked = done
        .catch((error: unknown) => this.#fail(error))
        .finally(() => work.delete(tracked))
      work.add(tracked)
    }
    const anyMissing = (from: number, to: number) => {
      for (let part = gridIndex(from); part <= gridIndex(to - 1); part++) {
        if (!isThere(part)) return true
      }
      return false
    }
    for (const unit of planUnits(placement, anyMissing)) {
      await this.#sealUnit(unit, track)
      if (this.#error !== undefined) break
    }
    for (const source of streams) {
      if (this.#error !== undefined) break
      await this.#sealStream(source, track)
    }
    if (this.#error === undefined) {
      this.#setEnd(paddedBodyLength(this.#contentLength))
      await this.#sealPadding(track)
    }
    await Promise.all(work)
    this.#produced = true
    this.#wake()
  }

  async #sealUnit(unit: Unit, track: (done: Promise<void>) => void): Promise<void> {
    const { entries, journal } = this.#options
    const pieces = unit.pieces.map((piece): SealPiece => {
      const entry = entries[piece.file]
      if (entry === undefined) throw new RangeError("no such entry")
      const { key, nonce } = journal.secretsOf(piece.file)
      return {
        kind: "file",
        path: entry.from,
        mark: entry.mark,
        fileOffset: piece.fileOffset,
        length: piece.length,
        key,
        nonce,
      }
    })
    await this.#seal(pieces, { ...unit, track })
  }

  /** Seals pieces that lie one behind the other in the body from `bodyOffset`. */
  async #seal(
    pieces: readonly SealPiece[],
    unit: {
      readonly bodyOffset: number
      readonly length: number
      readonly firstChunk: number
      readonly track: (done: Promise<void>) => void
      readonly release?: () => void
    },
  ): Promise<void> {
    const { pool } = this.#options
    const from = unit.bodyOffset
    const to = from + unit.length
    const touched: PartInHand[] = []
    for (let index = gridIndex(from); index <= gridIndex(to - 1); index++) {
      const part = await this.#takePart(index)
      if (part) touched.push(part)
    }
    const slotOf = new Map(touched.map(({ index, slot }) => [index, slot]))
    const wholeParts = touched.filter(
      ({ index, length }) => gridOffset(index) >= from && gridOffset(index) + length <= to,
    )
    const { result } = await pool.seal({
      kind: "seal",
      pieces,
      segments: segmentsOf(from, to, (part) => slotOf.get(part)),
      wholeParts: wholeParts.map(({ index, slot, length }) => ({ index, slot, length })),
    })
    unit.track(
      result.then((sealed) => {
        unit.release?.()
        if (sealed.kind === "changed") throw this.#sourceChanged(sealed.path)
        if (sealed.kind === "unreadable") {
          throw new SourceUnusable([{ path: sealed.path, reason: sealed.reason }], "cannot go on:")
        }
        if (!this.#options.journal.addMacs(unit.firstChunk, sealed.chunkMacs)) {
          throw this.#sourceChanged(pathOf(pieces))
        }
        for (const [at, part] of wholeParts.entries()) {
          part.leaf = sealed.leaves.slice(32 * at, 32 * at + 32)
        }
        for (const part of touched) {
          const start = gridOffset(part.index)
          part.missing -= Math.min(to, start + part.length) - Math.max(from, start)
          this.#checkComplete(part)
        }
      }),
    )
  }

  #sourceChanged(path: string | undefined): Error {
    if (path === undefined) return new StartOver("what is sealed now is not what was sealed before")
    if (!this.#options.resumed) return new SourceChanged(path)
    return new StartOver(`${path} is not what it was`, path)
  }

  async #takePart(index: number): Promise<PartInHand | undefined> {
    const { slots, isThere } = this.#options
    const known = this.#parts.get(index)
    if (known !== undefined || isThere(index)) return known
    const slot = await slots.acquire()
    const length = gridLength(index, this.#bodyLength)
    const part = { index, slot, length, missing: length, leaf: undefined }
    this.#parts.set(index, part)
    return part
  }

  async #sealStream(source: StreamSource, track: (done: Promise<void>) => void): Promise<void> {
    const { journal, entries } = this.#options
    const secrets = journal.secretsOf(entries.length + this.streamEntries.length)
    const start = this.#contentLength
    const firstChunk = this.#chunks
    let size = 0
    const plain = this.#plaintext
    let slot = await plain.acquire()
    let filled = 0
    const chunkLength = () => gridLength(gridIndex(size))
    const sealChunk = async () => {
      const used = slot
      const plaintext = plain.view(used, filled)
      const piece = { kind: "memory", plaintext, fileOffset: size, ...secrets } as const
      await this.#reserve(start + size + filled)
      await this.#seal([piece], {
        bodyOffset: start + size,
        length: filled,
        firstChunk: this.#chunks,
        track,
        release: () => plain.release(used),
      })
      this.#chunks++
      size += filled
      filled = 0
    }
    for await (const bytes of abortable(source.stream, this.#stop.signal)) {
      for (let at = 0; at < bytes.length;) {
        const take = Math.min(bytes.length - at, chunkLength() - filled)
        plain.view(slot).set(bytes.subarray(at, at + take), filled)
        filled += take
        at += take
        if (filled < chunkLength()) continue
        await sealChunk()
        slot = await plain.acquire()
      }
    }
    if (filled > 0) await sealChunk()
    else plain.release(slot)
    this.#contentLength = start + size
    this.streamEntries.push({ name: source.name, size, firstChunk, ...secrets })
  }

  /** Now that the end is known, the last part is as long as it is. */
  #setEnd(bodyLength: number): void {
    this.#bodyLength = bodyLength
    for (const part of this.#parts.values()) {
      const length = gridLength(part.index, bodyLength)
      part.missing -= part.length - length
      part.length = length
      this.#checkComplete(part)
    }
    this.#report()
  }

  async #sealPadding(track: (done: Promise<void>) => void): Promise<void> {
    const { isThere, paddingKey: key } = this.#options
    await this.#reserve(this.bodyLength)
    for (let from = this.#contentLength; from < this.bodyLength;) {
      const part = gridIndex(from)
      const to = Math.min(gridOffset(part + 1), this.bodyLength)
      if (!isThere(part)) {
        const length = to - from
        const piece = { kind: "padding", offset: from - this.#contentLength, length, key } as const
        await this.#seal([piece], { bodyOffset: from, length, firstChunk: 0, track })
        if (this.#error !== undefined) return
      }
      from = to
    }
  }

  #checkComplete(part: PartInHand): void {
    if (part.missing !== 0) return
    const { journal, slots } = this.#options
    const { index, length, slot } = part
    part.leaf ??= leafHash({ index, part: slots.view(slot, length) })
    // Complete is said once.
    part.missing = -1
    if (!journal.addLeaf(index, part.leaf)) {
      // Sealing it again gave other bytes under the same keys: they must never be sent.
      throw this.#options.resumed
        ? new StartOver("a part is not what it was when it was first sealed")
        : new SourceChanged("a source")
    }
    journal.flush().then(
      () => {
        this.#ready.push(part)
        this.#ready.sort((a, b) => a.index - b.index)
        this.#wake()
      },
      (error: unknown) => this.#fail(error),
    )
  }

  // ---- sending

  async #send(): Promise<void> {
    for (;;) {
      if (this.#error !== undefined) return
      const run = this.#takeRun()
      if (run.length > 0) {
        await this.#put(run)
      } else if (this.#produced && this.#parts.size === 0) {
        return
      } else {
        await new Promise<void>((resolve) => this.#wakeUps.push(resolve))
      }
    }
  }

  /** The first parts that wait, as many in a row as one request may carry. */
  #takeRun(): PartInHand[] {
    const run: PartInHand[] = []
    let bytes = 0
    for (const part of this.#ready) {
      const previous = run.at(-1)
      const follows = previous === undefined || part.index === previous.index + 1
      if (!follows || (previous !== undefined && bytes + part.length > this.#requestBytes)) break
      run.push(part)
      bytes += part.length
    }
    this.#ready.splice(0, run.length)
    return run
  }

  async #put(run: readonly PartInHand[]): Promise<void> {
    const { client, upload, slots } = this.#options
    const first = run[0]
    if (first === undefined) return
    const body = run.map(({ slot, length }) => slots.view(slot, length))
    const bytes = run.reduce((sum, { length }) => sum + length, 0)
    await this.#keepAlive()
    let leaves: Uint8Array
    try {
      const reply = await client.json(
        {
          method: "PUT",
          path: `/v1/uploads/${upload.id}/parts/${first.index}`,
          credential: upload.token,
          contentType: "application/octet-stream",
          body,
          parallel: this.#parallel,
          signal: this.#stop.signal,
          onProgress: this.#options.onProgress,
          onAttempt: () => (this.sentBytes += bytes),
        },
        parsePartsReply,
      )
      leaves = reply.leaves
    } catch (error) {
      if (error instanceof ProxyLimit && bytes > leastRequestBytes) {
        this.#fallBack(run)
        return
      }
      if (error instanceof RelayRefusal && error.code === "part_differs") {
        throw new StartOver("the relay holds another part in this place")
      }
      throw error
    }
    for (const [at, part] of run.entries()) {
      const leaf = leaves.subarray(32 * at, 32 * at + 32)
      if (part.leaf === undefined || !equalBytes(leaf, part.leaf)) {
        throw new Untrustworthy(
          `${client.origin} stored something else than was sent (part ${part.index}); nothing was delivered`,
        )
      }
    }
    for (const part of run) {
      this.#parts.delete(part.index)
      slots.release(part.slot)
    }
    this.#ackedBytes += bytes
    this.#report()
    this.#wake()
  }

  /** A proxy allows less than the relay offers. */
  #fallBack(run: readonly PartInHand[]): void {
    if (this.#requestBytes > leastRequestBytes) {
      this.#requestBytes = leastRequestBytes
      notice(
        this.#options,
        "a proxy in front of the relay refuses large requests; going on with 1 MiB at a time",
      )
    }
    this.#ready.push(...run)
    this.#ready.sort((a, b) => a.index - b.index)
    this.#wake()
  }

  #report(): void {
    const { bytesThere } = this.#options
    say(this.#options, {
      kind: "bytes",
      done: bytesThere + this.#ackedBytes,
      total: this.#bodyLength,
      alreadyThere: bytesThere,
    })
  }

  // ---- the reservation

  /** Grows the reservation of a body whose length is not known, before a part needs it. */
  async #reserve(bytes: number): Promise<void> {
    const wanted = gridOffset(gridCount(bytes))
    if (wanted <= this.#reserved) return
    const { mostBytes } = this.#options
    if (bytes > mostBytes) {
      throw new RelayRefusal("too_large", {
        detail: `this relay takes deliveries of up to ${mostBytes} bytes, and the source goes on beyond that`,
        extras: { limit: mostBytes },
      })
    }
    await this.#extend(Math.min(mostBytes, Math.max(wanted, 2 * this.#reserved)))
  }

  /** An upload that is still under way after half of its time asks for more of it. */
  async #keepAlive(): Promise<void> {
    if (this.#options.relayNow() < this.#renewAtMs) return
    this.#extending ??= this.#extend(this.#reserved).finally(() => (this.#extending = undefined))
    await this.#extending
  }

  async #extend(reserveBytes: number): Promise<void> {
    const { client, upload, onProgress } = this.#options
    const reply = await client.json(
      {
        method: "POST",
        path: `/v1/uploads/${upload.id}/extend`,
        credential: upload.token,
        body: [json(encodeExtend({ reserveBytes }))],
        signal: this.#stop.signal,
        onProgress,
      },
      parseExtendReply,
    )
    this.#reserved = reply.reservedBytes
    this.#renewAtMs = this.#halfWayTo(reply.expiresMs)
  }

  #halfWayTo(expiresMs: number): number {
    const now = this.#options.relayNow()
    return now + Math.max(leastRenewalMs, (expiresMs - now) / 2)
  }
}

function pathOf(pieces: readonly SealPiece[]): string | undefined {
  const [first] = pieces
  return first?.kind === "file" ? first.path : undefined
}

/** A stream that nobody writes to any more must not keep an aborted call waiting. */
async function* abortable(
  stream: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const iterator = stream[Symbol.asyncIterator]()
  const listening = new AbortController()
  const aborted = new Promise<never>((_, reject) => {
    const onAbort = () => reject(asError(signal.reason))
    signal.addEventListener("abort", onAbort, { once: true, signal: listening.signal })
  })
  // Nobody may be waiting for it when it happens.
  aborted.catch(() => undefined)
  try {
    for (;;) {
      signal.throwIfAborted()
      const next = await Promise.race([iterator.next(), aborted])
      if (next.done === true) return
      yield next.value
    }
  } finally {
    listening.abort()
    // Not awaited: a pending read of a terminal or a pipe may never end.
    iterator.return?.()?.catch(() => undefined)
  }
}
