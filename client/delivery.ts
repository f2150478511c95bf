/**
 * One delivery, opened: the checks of docs/protocol.md §7 from the envelope to the leaves. What comes
 * out of here is verified; what does not verify does not come out.
 */
import {
  applyCtr,
  type Authentication,
  bodyRoot,
  type Bundle,
  chunkMac,
  concatBytes,
  encodeRange,
  envelopeHash,
  equalBytes,
  FormatError,
  gridIndex,
  gridLength,
  gridOffset,
  leafHash,
  maxEnvelopeBytes,
  KIB,
  type Manifest,
  openDelivery,
  OpenError,
  openManifest,
  parseContentRange,
  sha256,
} from "../protocol/index.js"
import type { Listed } from "./chain.js"
import { Untrustworthy } from "./errors.js"
import { partsOver } from "./layout.js"
import type { CallOptions } from "./progress.js"
import { callOf } from "./relay.js"
import type { ReplyHead, ReplySink } from "./relay-client.js"
import type { InboxSession } from "./session.js"

export type Sender =
  /** Anonymous, or somebody whose bundle the caller did not supply. */
  | {
      readonly kind: "unverified"
      /** Whom the sender says it is, for comparing with one's own knowledge. Anybody can say it. */
      readonly claimedFingerprint?: Uint8Array
    }
  | { readonly kind: "deniable" | "signed"; readonly fingerprint: Uint8Array }
  /** Claims a sender and does not verify as that sender: must not be received. */
  | { readonly kind: "refused" }

/** The bundles of people this owner knows. */
export type KnownSenders = (fingerprint: Uint8Array) => Bundle | undefined

export interface OpenedDelivery {
  readonly listed: Listed
  readonly ds: Uint8Array
  readonly authentication: Authentication
  readonly sender: Sender
  readonly manifest: Manifest
}

/**
 * A claim counts for nothing without a bundle that the owner has checked: anybody can put another's
 * fingerprint beside a key of their own.
 */
export function judgeSender(
  authentication: Authentication,
  senders: KnownSenders | undefined,
): Sender {
  if (authentication.mode === "none") return { kind: "unverified" }
  const bundle = senders?.(authentication.senderFingerprint)
  if (bundle === undefined) {
    return { kind: "unverified", claimedFingerprint: authentication.senderFingerprint }
  }
  if (!authentication.verify(bundle)) return { kind: "refused" }
  return {
    kind: authentication.mode === "deniable" ? "deniable" : "signed",
    fingerprint: bundle.fingerprint,
  }
}

/**
 * Steps 1 and 2: the envelope and the manifest. Throws OpenError or FormatError for what its sender
 * made wrong, and Untrustworthy for what the relay hands out in its place.
 */
export async function openListed(
  session: InboxSession,
  listed: Listed,
  senders: KnownSenders | undefined,
  call: CallOptions,
): Promise<OpenedDelivery> {
  const envelope = listed.envelope ?? (await fetchEnvelope(session, listed, call))
  const { payload, authentication } = await openDelivery({
    identity: session.identity,
    header: listed.headerBytes,
    envelope,
  })
  const ciphertext = await fetchPiece(
    session,
    listed,
    "manifest",
    listed.header.manifestLength,
    call,
  )
  if (!equalBytes(sha256(ciphertext), listed.header.manifestHash)) {
    throw new Untrustworthy(
      `${session.relay.client.origin} hands out another list of entries for ${listed.id} than was delivered`,
    )
  }
  const manifest = openManifest({ ds: payload.ds, header: listed.header, ciphertext })
  const sender = judgeSender(authentication, senders)
  return { listed, ds: payload.ds, authentication, sender, manifest }
}

async function fetchEnvelope(
  session: InboxSession,
  listed: Listed,
  call: CallOptions,
): Promise<Uint8Array> {
  const envelope = await fetchPiece(session, listed, "envelope", maxEnvelopeBytes, call)
  if (!equalBytes(envelopeHash(envelope), listed.stamp.envelopeHash)) {
    throw new Untrustworthy(
      `${session.relay.client.origin} hands out another envelope for ${listed.id} than was delivered`,
    )
  }
  return envelope
}

/** What is asked for is known to the byte; an answer that is longer by a little is a wrong one. */
const slackBytes = 64 * KIB

async function fetchPiece(
  session: InboxSession,
  listed: Listed,
  piece: "envelope" | "manifest" | "leaves",
  most: number,
  call: CallOptions,
): Promise<Uint8Array> {
  return session.with(call, (credential) =>
    session.relay.client.bytes(
      {
        method: "GET",
        path: `/v1/deliveries/${listed.id}/${piece}`,
        credential,
        ...callOf(call),
      },
      most + slackBytes,
    ),
  )
}

/** Step 3: the leaves of the body, 32 bytes each, as the header commits to them. */
export async function fetchLeaves(
  session: InboxSession,
  listed: Listed,
  call: CallOptions,
): Promise<Uint8Array> {
  const { bodyLength, partCount, bodyRoot: expected } = listed.header
  const leaves = await fetchPiece(session, listed, "leaves", 32 * partCount, call)
  if (leaves.length !== 32 * partCount || !equalBytes(bodyRoot({ bodyLength, leaves }), expected)) {
    throw new Untrustworthy(
      `the hashes that ${session.relay.client.origin} gives for ${listed.id} do not lead to the delivered one`,
    )
  }
  return leaves
}

/** A part, checked; `into` holds exactly its bytes. Throws Untrustworthy. */
export function checkPart(
  leaves: Uint8Array,
  index: number,
  part: Uint8Array,
  origin: string,
): void {
  if (!equalBytes(leafHash({ index, part }), leaves.subarray(32 * index, 32 * index + 32))) {
    throw new Untrustworthy(
      `${origin} hands out a part that is not the delivered one (part ${index})`,
    )
  }
}

class AllThere extends Error {}

/** Takes an answer to a Range of parts and hands out each part's bytes in turn. */
export class PartsSink implements ReplySink {
  readonly keepsChunks = false
  readonly #bodyLength: number
  readonly #last: number
  readonly #bufferOf: (part: number, length: number) => Uint8Array
  readonly #onPart: (part: number, bytes: Uint8Array) => void
  readonly #origin: string
  /** The first part that has not come yet: where another attempt begins. */
  next: number
  #filled = 0

  constructor(options: {
    first: number
    last: number
    bodyLength: number
    origin: string
    bufferOf: (part: number, length: number) => Uint8Array
    onPart: (part: number, bytes: Uint8Array) => void
  }) {
    this.next = options.first
    this.#last = options.last
    this.#bodyLength = options.bodyLength
    this.#origin = options.origin
    this.#bufferOf = options.bufferOf
    this.#onPart = options.onPart
  }

  get #range(): { first: number; last: number } {
    const end = gridOffset(this.#last) + gridLength(this.#last, this.#bodyLength)
    return { first: gridOffset(this.next), last: end - 1 }
  }

  /** Throws AllThere when an attempt failed with nothing left to ask for. */
  get rangeHeader(): Readonly<Record<string, string>> {
    if (this.next > this.#last) throw new AllThere()
    return { range: encodeRange(this.#range) }
  }

  start({ status, headers }: ReplyHead): void {
    this.#filled = 0
    const { first, last } = this.#range
    const given = parseRangeOrRefuse(headers["content-range"], this.#origin)
    if (
      status !== 206 ||
      given.first !== first ||
      given.last !== last ||
      given.size !== this.#bodyLength
    ) {
      throw this.#refusal()
    }
  }

  write(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length;) {
      if (this.next > this.#last) throw this.#refusal()
      const length = gridLength(this.next, this.#bodyLength)
      const buffer = this.#bufferOf(this.next, length)
      const take = Math.min(length - this.#filled, chunk.length - at)
      copyInto(buffer.subarray(this.#filled, this.#filled + take), chunk.subarray(at, at + take))
      this.#filled += take
      at += take
      if (this.#filled < length) continue
      this.#filled = 0
      this.#onPart(this.next, buffer)
      this.next++
    }
  }

  end(): void {
    if (this.next <= this.#last) throw this.#refusal()
  }

  #refusal(): Untrustworthy {
    return new Untrustworthy(
      `${this.#origin} answers with another range of bytes than was asked for`,
    )
  }
}

/** `set` copies into shared memory word by word, with four times the time that `fill` takes. */
function copyInto(target: Uint8Array, source: Uint8Array): void {
  Buffer.from(target.buffer, target.byteOffset, target.length).fill(source)
}

function parseRangeOrRefuse(
  header: string | undefined,
  origin: string,
): ReturnType<typeof parseContentRange> {
  try {
    return parseContentRange(header ?? "")
  } catch (error) {
    if (!(error instanceof FormatError)) throw error
    throw new Untrustworthy(`${origin} does not say which bytes it answers with`)
  }
}

/**
 * A verified piece of one file: fetches the parts under the chunks that hold it, checks leaf and chunk
 * MAC of all of them, and gives the bytes asked for.
 */
export async function readPiece(
  session: InboxSession,
  opened: OpenedDelivery,
  leaves: Uint8Array,
  wanted: { entry: number; offset: number; length: number },
  call: CallOptions,
): Promise<Uint8Array> {
  const { listed, manifest } = opened
  const file = manifest.entries[wanted.entry]
  if (file?.type !== "file") throw new RangeError("no such file in this delivery")
  const { offset, length } = wanted
  if (!Number.isSafeInteger(offset) || offset < 0 || !Number.isSafeInteger(length) || length < 0) {
    throw new RangeError("an offset and a length are not negative")
  }
  if (offset + length > file.size) throw new RangeError("beyond the end of the file")
  if (length === 0) return new Uint8Array(0)
  const origin = session.relay.client.origin
  const { bodyLength } = listed.header
  const firstChunk = gridIndex(offset)
  const lastChunk = gridIndex(offset + length - 1)
  const from = gridOffset(firstChunk)
  const to = gridOffset(lastChunk) + gridLength(lastChunk, file.size)
  const { first, last } = partsOver(file.bodyOffset + from, file.bodyOffset + to)
  const parts = new Map<number, Uint8Array>()
  const sink = new PartsSink({
    first,
    last,
    bodyLength,
    origin,
    bufferOf: (part, partLength) => {
      const known = parts.get(part) ?? new Uint8Array(partLength)
      parts.set(part, known)
      return known
    },
    onPart: (part, bytes) => checkPart(leaves, part, bytes, origin),
  })
  await fetchRange(session, listed, sink, call)
  const body = concatBytes(
    ...[...parts.entries()].sort(([a], [b]) => a - b).map(([, part]) => part),
  )
  const plain = new Uint8Array(to - from)
  for (let chunk = firstChunk; chunk <= lastChunk; chunk++) {
    const start = gridOffset(chunk)
    const out = plain.subarray(start - from, start - from + gridLength(chunk, file.size))
    const at = file.bodyOffset + start - gridOffset(first)
    const data = body.subarray(at, at + out.length)
    applyCtr({ key: file.key, nonce: file.nonce, offset: start, data, out })
    const expected = file.chunkMacs.subarray(16 * chunk, 16 * chunk + 16)
    if (!equalBytes(chunkMac({ key: file.key, nonce: file.nonce, plaintext: out }), expected)) {
      throw new OpenError()
    }
  }
  return plain.slice(offset - from, offset - from + length)
}

/** Asks for the parts that `sink` still wants. */
export async function fetchRange(
  session: InboxSession,
  listed: Listed,
  sink: PartsSink,
  call: CallOptions,
): Promise<void> {
  try {
    await session.with(call, (credential) =>
      session.relay.client.stream(
        {
          method: "GET",
          path: `/v1/deliveries/${listed.id}/body`,
          credential,
          // For each attempt: what was checked is not asked for again.
          headers: () => sink.rangeHeader,
          ...callOf(call),
        },
        sink,
      ),
    )
  } catch (error) {
    if (!(error instanceof AllThere)) throw error
  }
  sink.end()
}

/** The recipient's own copy; that of others is theirs. */
export async function deleteCopy(
  session: InboxSession,
  id: string,
  call: CallOptions,
): Promise<void> {
  await session.with(call, (credential) =>
    session.relay.client.nothing({
      method: "DELETE",
      path: `/v1/deliveries/${id}`,
      credential,
      ...callOf(call),
    }),
  )
}
