// The sender's side of the relay: start, extend, parts, finish, give up. Knows nothing of HTTP.
import { createHash, type Hash } from "node:crypto"
import {
  bodyRoot,
  concatBytes,
  encodeReceipt,
  envelopeHash,
  equalBytes,
  type Extend,
  type ExtendReply,
  type FinishReply,
  FormatError,
  fromHex,
  gridCount,
  gridIndex,
  gridLength,
  gridOffset,
  type Header,
  headerHash,
  KIB,
  leafHash,
  maxParts,
  parseBundle,
  parseEnvelope,
  parseHeader,
  type PartRun,
  type Random,
  relayDefaults,
  RelayRefusal,
  sha256,
  type StartUpload,
  type StartUploadReply,
  toHex,
  u64,
  type UploadState,
  utf8,
} from "../protocol/index.js"
import type { Chains } from "./chains.js"
import { headroomBytes, type RelayConfig } from "./config.js"
import { hasCode } from "./disk.js"
import { KeyedGate } from "./gate.js"
import {
  addressOf,
  type DeliveryId,
  deliveryIdOf,
  type InboxId,
  inboxIdBytesOf,
  parseInboxAddress,
} from "./ids.js"
import type { BlobStore, Commit, ManifestFile } from "./stores/blob-store.js"
import type { OpenUpload, PartEntry, RelayIndex, SetPartOutcome } from "./stores/relay-index.js"
import { type RelayKeys, uploadId, uploadToken } from "./stores/relay-keys.js"
import { busy, UploadGate } from "./upload-gate.js"

const hourMs = 3_600_000
const mostMissing = 1000
/** Renewed while a finish is at work; after a crash others wait no longer than this. */
const finishLeaseMs = 60_000
const manifestWriteBytes = 256 * KIB
/** An accepted time is announced before it is used; one older than this is taken anew. */
const staleAcceptMs = 4_000
const openLane = 0

/** What is known of an upload whose token was right. */
export type KnownUpload =
  | { readonly state: "open"; readonly upload: OpenUpload }
  | { readonly state: "final"; readonly commit: Commit }

export interface PlannedPart {
  readonly index: number
  readonly lengthBytes: number
}

/** One attempt to finish. The calls come in this order; after a failure, `abandon`. */
export interface FinishAttempt {
  header(header: Uint8Array, manifestLength: number): Promise<void>
  /** The next bytes of the manifest. They may be reused when it resolves. */
  manifest(bytes: Uint8Array): Promise<void>
  complete(envelopes: readonly Uint8Array[]): Promise<FinishReply>
  abandon(): Promise<void>
}

export interface Uploads {
  start(input: {
    readonly idempotencyKey: Uint8Array
    readonly start: StartUpload
  }): Promise<StartUploadReply>
  /** Refuses a wrong token and an unknown id alike. */
  know(id: DeliveryId, token: Uint8Array): Promise<KnownUpload>
  extend(upload: KnownUpload, extend: Extend): Promise<ExtendReply>
  state(upload: KnownUpload): Promise<UploadState>
  /** How a body of this length falls into parts from `first` on. */
  planParts(
    upload: KnownUpload,
    request: { readonly first: number; readonly lengthBytes: number },
  ): PlannedPart[]
  /** Stores one part and gives its leaf. `bytes` may be reused when it resolves. */
  storePart(
    id: DeliveryId,
    part: { readonly index: number; readonly bytes: Uint8Array },
  ): Promise<Uint8Array>
  finish(upload: KnownUpload): Promise<FinishAttempt>
  giveUp(upload: KnownUpload): Promise<void>
  /** Publishes a commit to every inbox it names, as far as that has not happened. */
  publish(commit: Commit): Promise<FinishReply>
}

export interface UploadsNeeds {
  readonly index: RelayIndex
  readonly blobs: BlobStore
  readonly chains: Chains
  readonly keys: RelayKeys
  readonly config: RelayConfig
  readonly random: Random
  readonly nowMs: () => number
}

export function createUploads(needs: UploadsNeeds): Uploads {
  const { index, blobs, keys, config, nowMs } = needs
  const gate = new UploadGate()
  const starting = new KeyedGate<DeliveryId>()
  const placing = new KeyedGate<string>()

  function startReply(upload: OpenUpload, token: Uint8Array): StartUploadReply {
    const { id, reservedBytes, expiresMs } = upload
    return { id, token, reservedBytes, requestBytes: config.requestBytes, expiresMs }
  }

  /** What a start with this key led to before, if anything. */
  async function replayStart(
    id: DeliveryId,
    startHash: Uint8Array,
    token: Uint8Array,
  ): Promise<StartUploadReply | undefined> {
    const commit = await findCommit(blobs, id)
    if (commit !== undefined) {
      if (!equalBytes(commit.startHash, startHash)) throw new RelayRefusal("idempotency_mismatch")
      return {
        id,
        token,
        reservedBytes: parseHeader(commit.header).bodyLength,
        requestBytes: config.requestBytes,
        expiresMs: commit.createdMs + relayDefaults.uploadMs,
      }
    }
    const known = await index.upload(id)
    if (known?.state === "open") {
      if (!equalBytes(known.startHash, startHash)) throw new RelayRefusal("idempotency_mismatch")
      if (known.expiresMs <= nowMs()) throw new RelayRefusal("upload_expired")
      // The answer promises that the upload outlives the index, also when the first one never arrived.
      if ((await blobs.readUpload(id)) === undefined) await blobs.saveUpload(known)
      return startReply(known, token)
    }
    if (known?.state === "closed") throw new RelayRefusal("upload_expired")
    return undefined
  }

  /** Room on the disk first, then each inbox's share. A refusal gives back what this call took. */
  async function reserve(upload: OpenUpload, before: OpenUpload | undefined): Promise<void> {
    const { id, recipients, reservedBytes: bytes, expiresMs: untilMs } = upload
    const { freeBytes, totalBytes } = await blobs.space()
    const roomBytes = freeBytes - headroomBytes(config, totalBytes)
    if (!(await index.reserveRoom({ id, bytes, roomBytes, untilMs }))) throw relayFull()
    const quota = { bytes: config.inboxBytes, deliveries: config.inboxDeliveries }
    const reserved: InboxId[] = []
    for (const inbox of recipients) {
      const outcome = await index.reserveShare({ inbox, id, bytes, quota, untilMs })
      if (outcome === "reserved") {
        reserved.push(inbox)
        continue
      }
      await unreserve(upload, before, reserved)
      if (outcome === "unknown") throw noSuchInbox(inbox)
      throw new RelayRefusal("inbox_full", {
        retryAfterSeconds: 3600,
        extras: { address: addressOf(inbox) },
      })
    }
  }

  async function unreserve(
    { id }: OpenUpload,
    before: OpenUpload | undefined,
    inboxes: readonly InboxId[],
  ): Promise<void> {
    if (before === undefined) {
      await index.releaseRoom(id)
      for (const inbox of inboxes) await index.releaseShare({ inbox, id })
      return
    }
    const { reservedBytes: bytes, expiresMs: untilMs } = before
    const most = { bytes: Number.MAX_SAFE_INTEGER, deliveries: Number.MAX_SAFE_INTEGER }
    await index.reserveRoom({ id, bytes, roomBytes: Number.MAX_SAFE_INTEGER, untilMs })
    for (const inbox of inboxes) {
      await index.reserveShare({ inbox, id, bytes, quota: most, untilMs })
    }
  }

  function checkSize(reserveBytes: number): void {
    if (reserveBytes > config.deliveryBytes) throw tooLarge(config.deliveryBytes)
  }

  /** Of a commit whose names are durable. */
  async function publishSynced(commit: Commit): Promise<FinishReply> {
    const links = await blobs.readLinks(commit)
    const places = await Promise.all(
      commit.links.map(({ inbox }, slot) => {
        const envelope = links[slot]?.envelope
        if (envelope === undefined) throw new Error("a link without its envelope")
        return needs.chains.publish(inbox, { commit, slot, envelope })
      }),
    )
    return {
      id: commit.id,
      receipts: commit.links.map(({ inbox, envelopeHash }, slot) => {
        const { acceptedMs, expiresMs } = places[slot] ?? commit
        return {
          address: addressOf(inbox),
          receipt: receiptFor({
            inbox,
            envelopeHash,
            acceptedMs,
            expiresMs,
            header: commit.header,
          }),
        }
      }),
    }
  }

  function receiptFor(input: {
    readonly inbox: InboxId
    readonly header: Uint8Array
    readonly envelopeHash: Uint8Array
    readonly acceptedMs: number
    readonly expiresMs: number
  }): Uint8Array {
    return encodeReceipt({
      kid: keys.kid,
      inboxId: inboxIdBytesOf(input.inbox),
      headerHash: headerHash(input.header),
      envelopeHash: input.envelopeHash,
      acceptedMs: input.acceptedMs,
      expiresMs: input.expiresMs,
      signSeed: keys.signSeed,
    })
  }

  /** The receipts of a delivery that has ended: what they say is all in its record. */
  function receiptsOf(commit: Commit): FinishReply {
    return {
      id: commit.id,
      receipts: commit.links.map((link) => ({
        address: addressOf(link.inbox),
        receipt: receiptFor({ ...commit, ...link }),
      })),
    }
  }

  /** Every part there, at its length, adding up to the header's root. */
  async function checkParts(upload: OpenUpload, header: Header): Promise<PartEntry[]> {
    const parts = await index.parts(upload.id)
    const count = gridCount(header.bodyLength)
    const byIndex = new Map(parts.map((part) => [part.index, part]))
    const missing: number[] = []
    const present: PartEntry[] = []
    for (let at = 0; at < count; at++) {
      const part = byIndex.get(at)
      if (part !== undefined && part.lengthBytes === gridLength(at, header.bodyLength)) {
        present.push(part)
      } else if (part === undefined) {
        missing.push(at)
      } else {
        throw new RelayRefusal("root_mismatch", { detail: `part ${at} has another length` })
      }
    }
    if (missing.length > 0) throw partsMissing(missing)
    if (parts.length > count) {
      throw new RelayRefusal("root_mismatch", { detail: "there are parts beyond the body" })
    }
    const leaves = present.map(({ leaf }) => leaf)
    if (!equalBytes(bodyRoot({ bodyLength: header.bodyLength, leaves }), header.bodyRoot)) {
      throw new RelayRefusal("root_mismatch")
    }
    return present
  }

  async function checkEnvelopes(
    upload: OpenUpload,
    header: Uint8Array,
    envelopes: readonly Uint8Array[],
  ): Promise<void> {
    if (envelopes.length !== upload.recipients.length) {
      throw new FormatError("finish.envelope_count", "not one for each recipient")
    }
    const hash = headerHash(header)
    for (const [at, inbox] of upload.recipients.entries()) {
      const bundle = await index.bundle(inbox)
      if (bundle === undefined) throw noSuchInbox(inbox)
      const envelope = envelopes[at] ?? new Uint8Array(0)
      if (!equalBytes(parseEnvelope(envelope, parseBundle(bundle)).headerHash, hash)) {
        throw new FormatError(`finish.envelopes.${at}`, "made for another header")
      }
    }
  }

  /** When a delivery accepted now is to expire, after the sender's wish. */
  function expiryOf(acceptedMs: number, notAfterMs: number): number {
    if (notAfterMs === 0) return acceptedMs + config.keepMs
    const latest = acceptedMs + Math.max(config.keepMs, relayDefaults.keepMaxMs)
    return Math.min(Math.max(notAfterMs, acceptedMs + hourMs), latest)
  }

  /**
   * Announces to every inbox that something is accepted now, so that no head signed from here on claims
   * to be complete past that moment (protocol.md, the head's as_of rule). Gives that moment.
   */
  async function beginAccepting({ id, recipients }: OpenUpload): Promise<number> {
    for (;;) {
      const acceptedMs = nowMs()
      for (const inbox of recipients) await index.beginAccepting({ inbox, id, acceptedMs })
      if (nowMs() - acceptedMs < staleAcceptMs) return acceptedMs
    }
  }

  async function commitUpload(
    upload: OpenUpload,
    header: Uint8Array,
    parts: readonly PartEntry[],
    envelopes: readonly Uint8Array[],
  ): Promise<Commit> {
    const { id, recipients } = upload
    const acceptedMs = await beginAccepting(upload)
    const parsed = parseHeader(header)
    try {
      // Stamps are sealed under the day's key, so it is on the disk before the commit.
      await keys.sourceKey(acceptedMs)
      return await blobs.commit({
        commit: {
          id,
          tokenHash: upload.tokenHash,
          startHash: upload.startHash,
          deleteHash: upload.deleteHash,
          createdMs: upload.createdMs,
          acceptedMs,
          expiresMs: expiryOf(acceptedMs, parsed.notAfterMs),
          lane: openLane,
          header,
          links: recipients.map((inbox, at) => {
            const envelope = envelopes[at] ?? new Uint8Array(0)
            return {
              inbox,
              envelopeHash: envelopeHash(envelope),
              envelopeBytes: envelope.length,
            }
          }),
        },
        parts,
        envelopes,
      })
    } catch (error) {
      // Unless the commit stands after all: then the entry is still to come.
      if (!(await blobs.isDelivery(id))) {
        for (const inbox of recipients) await index.endAccepting({ inbox, id })
      }
      throw error
    }
  }

  async function publish(commit: Commit): Promise<FinishReply> {
    await blobs.syncStore()
    return publishSynced(commit)
  }

  async function closeCommitted({ id, expiresMs }: Commit): Promise<void> {
    await index.closeUpload({ id, dueMs: expiresMs })
    await index.releaseRoom(id)
  }

  /** Finishing again: the same content gets the same receipts. */
  function finishAgain(commit: Commit): FinishAttempt {
    let same = true
    return {
      header(header) {
        same = equalBytes(header, commit.header)
        return Promise.resolve()
      },
      manifest: () => Promise.resolve(),
      async complete(envelopes) {
        const isSame =
          same &&
          envelopes.length === commit.links.length &&
          commit.links.every(({ envelopeHash: hash }, at) =>
            equalBytes(hash, envelopeHash(envelopes[at] ?? new Uint8Array(0))),
          )
        if (!isSame) throw new RelayRefusal("upload_finished")
        if (!(await blobs.isDelivery(commit.id))) return receiptsOf(commit)
        await closeCommitted(commit)
        return publish(commit)
      },
      abandon: () => Promise.resolve(),
    }
  }

  function finishOnce(upload: OpenUpload): FinishAttempt {
    const { id } = upload
    const claim = { what: "upload", name: id, owner: toHex(needs.random(16)) } as const
    let headerBytes = new Uint8Array(0)
    let parsed: Header | undefined
    let manifest: StagedManifest | undefined

    async function hold(): Promise<void> {
      if (!(await index.claim({ ...claim, untilMs: nowMs() + finishLeaseMs }))) throw busy()
    }

    async function abandon(): Promise<void> {
      await manifest?.discard()
      manifest = undefined
      await index.unclaim(claim)
    }

    return {
      abandon,

      async header(header, manifestLength) {
        await hold()
        headerBytes = new Uint8Array(header)
        parsed = parseHeader(headerBytes)
        if (parsed.bodyLength > upload.reservedBytes) throw tooLarge(upload.reservedBytes)
        if (parsed.manifestLength !== manifestLength) {
          throw new FormatError("finish.manifest_len", "not the header's")
        }
        await checkParts(upload, parsed)
        const staged = blobs.stageManifest(id).catch(asUploadGone(blobs, id))
        manifest = new StagedManifest(await staged)
      },

      async manifest(bytes) {
        await manifest?.write(bytes)
        await hold()
      },

      async complete(envelopes) {
        if (parsed === undefined || manifest === undefined) {
          throw new RangeError("a finish begins with its header")
        }
        if (!equalBytes(manifest.digest(), parsed.manifestHash)) {
          throw new RelayRefusal("root_mismatch", { detail: "the manifest is not the header's" })
        }
        await checkEnvelopes(upload, headerBytes, envelopes)
        const header = parsed
        const staged = manifest
        const commit = await gate.close(id, async () => {
          await hold()
          const parts = await checkParts(upload, header)
          await staged.finish()
          const failed = await blobs.syncParts(id, parts)
          for (const part of failed) await index.removePart({ id, ...part })
          if (failed.length > 0) throw partsMissing(failed.map((part) => part.index))
          await hold()
          const made = await commitUpload(upload, headerBytes, parts, envelopes)
          manifest = undefined
          await closeCommitted(made)
          return made
        })
        const reply = await publishSynced(commit)
        await index.unclaim(claim)
        return reply
      },
    }
  }

  return {
    async start({ idempotencyKey, start }) {
      const keyHash = sha256(idempotencyKey)
      const idBytes = uploadId({ tokenKey: keys.tokenKey, keyHash })
      const id = deliveryIdOf(idBytes)
      const token = uploadToken({ tokenKey: keys.tokenKey, id: idBytes, keyHash })
      const recipients = start.recipients.map(parseInboxAddress)
      if (recipients.length > relayDefaults.recipients) throw tooLarge(relayDefaults.recipients)
      checkSize(start.reserveBytes)
      const startHash = sha256(
        concatBytes(utf8(start.recipients.join(" ")), u64(start.reserveBytes), start.deleteHash),
      )
      return starting.run(id, async () => {
        const replay = await replayStart(id, startHash, token)
        if (replay !== undefined) return replay
        for (const inbox of recipients) {
          if ((await index.bundle(inbox)) === undefined) throw noSuchInbox(inbox)
        }
        const createdMs = nowMs()
        const upload: OpenUpload = {
          id,
          tokenHash: sha256(token),
          startHash,
          recipients,
          deleteHash: start.deleteHash,
          createdMs,
          reservedBytes: start.reserveBytes,
          expiresMs: createdMs + relayDefaults.uploadMs,
        }
        await reserve(upload, undefined)
        try {
          await blobs.saveUpload(upload)
          await index.startUpload(upload)
        } catch (error) {
          await unreserve(upload, undefined, recipients)
          throw error
        }
        return startReply(upload, token)
      })
    },

    async know(id, token) {
      const tokenHash = sha256(token)
      const known = await index.upload(id)
      if (known?.state === "open") {
        if (!equalBytes(known.tokenHash, tokenHash)) throw new RelayRefusal("unauthorized")
        if (known.expiresMs <= nowMs()) throw new RelayRefusal("upload_expired")
        return { state: "open", upload: known }
      }
      const commit = await findCommit(blobs, id)
      if (commit === undefined || !equalBytes(commit.tokenHash, tokenHash)) {
        throw new RelayRefusal("unauthorized")
      }
      return { state: "final", commit }
    },

    async extend(known, { reserveBytes }) {
      const { id } = stillOpen(known)
      checkSize(reserveBytes)
      return starting.run(id, async () => {
        const upload = await index.upload(id)
        if (upload?.state !== "open") throw new RelayRefusal("upload_finished")
        const latestMs = upload.createdMs + relayDefaults.uploadMaxMs
        const wanted: OpenUpload = {
          ...upload,
          reservedBytes: Math.max(upload.reservedBytes, reserveBytes),
          expiresMs: Math.max(
            upload.expiresMs,
            Math.min(nowMs() + relayDefaults.uploadMs, latestMs),
          ),
        }
        await reserve(wanted, upload)
        await blobs.saveUpload(wanted)
        const { reservedBytes, expiresMs } = wanted
        await index.extendUpload({ id, reservedBytes, expiresMs })
        return { reservedBytes, expiresMs }
      })
    },

    async state(known) {
      if (known.state === "final") {
        const { commit } = known
        return {
          state: "final",
          reservedBytes: parseHeader(commit.header).bodyLength,
          expiresMs: commit.expiresMs,
          runs: [],
        }
      }
      const { id, reservedBytes, expiresMs } = known.upload
      return { state: "open", reservedBytes, expiresMs, runs: runsOf(await index.parts(id)) }
    },

    planParts(known, { first, lengthBytes }) {
      const { reservedBytes } = stillOpen(known)
      if (lengthBytes > config.requestBytes) throw tooLarge(config.requestBytes)
      if (lengthBytes === 0) {
        throw new RelayRefusal("bad_length", { detail: "there is no empty part" })
      }
      if (first >= maxParts || gridOffset(first) + lengthBytes > reservedBytes) {
        throw tooLarge(reservedBytes)
      }
      const planned: PlannedPart[] = []
      const end = gridOffset(first) + lengthBytes
      for (let at = first; at <= gridIndex(end - 1); at++) {
        planned.push({ index: at, lengthBytes: gridLength(at, end) })
      }
      return planned
    },

    storePart(id, { index: at, bytes }) {
      const leaf = leafHash({ index: at, part: bytes })
      const part = { id, index: at, leaf, lengthBytes: bytes.length }
      return gate.write(id, () =>
        // Two writers of one place take turns, so that equal bytes are written once.
        placing.run(`${id} ${at}`, async () => {
          const known = await index.part({ id, index: at })
          if (known !== undefined) {
            if (!equalBytes(known.leaf, leaf)) throw new RelayRefusal("part_differs")
            return leaf
          }
          const written = await blobs.writePart({ ...part, bytes }).catch(asUploadGone(blobs, id))
          let outcome: SetPartOutcome
          try {
            outcome = await index.setPart(part)
          } catch (error) {
            await written.discard()
            throw error
          }
          if (outcome === "stored" || outcome === "same") {
            written.keep()
            return leaf
          }
          await written.discard()
          throw partRefusals[outcome]()
        }),
      )
    },

    async finish(known) {
      if (known.state === "final") return finishAgain(known.commit)
      // Committed by an attempt that went no further.
      const commit = await blobs.readCommit(known.upload.id)
      return commit === undefined ? finishOnce(known.upload) : finishAgain(commit)
    },

    async giveUp(known) {
      const { id, recipients } = stillOpen(known)
      await gate.close(id, async () => {
        const claim = { what: "upload", name: id, owner: toHex(needs.random(16)) } as const
        if (!(await index.claim({ ...claim, untilMs: nowMs() + finishLeaseMs }))) throw busy()
        try {
          if (await blobs.isDelivery(id)) throw new RelayRefusal("upload_finished")
          await blobs.dropUpload(id)
          await index.closeUpload({ id, dueMs: nowMs() + relayDefaults.uploadMs })
          await index.releaseRoom(id)
          for (const inbox of recipients) await index.releaseShare({ inbox, id })
        } finally {
          await index.unclaim(claim)
        }
      })
    },

    publish,
  }
}

function stillOpen(known: KnownUpload): OpenUpload {
  if (known.state === "final") throw new RelayRefusal("upload_finished")
  return known.upload
}

/** The commit record of a delivery, whether it waits or has ended. */
export async function findCommit(blobs: BlobStore, id: DeliveryId): Promise<Commit | undefined> {
  return (await blobs.readCommit(id)) ?? (await blobs.readEnded(id))?.commit
}

/** Collects a manifest into large writes and hashes it on the way. */
class StagedManifest {
  readonly #file: ManifestFile
  readonly #hash: Hash = createHash("sha256")
  readonly #buffer = new Uint8Array(manifestWriteBytes)
  #filled = 0

  constructor(file: ManifestFile) {
    this.#file = file
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#hash.update(bytes)
    let at = 0
    while (at < bytes.length) {
      const piece = bytes.subarray(at, at + this.#buffer.length - this.#filled)
      this.#buffer.set(piece, this.#filled)
      this.#filled += piece.length
      at += piece.length
      if (this.#filled === this.#buffer.length) await this.#flush()
    }
  }

  /** Once, after the last write. */
  digest(): Uint8Array {
    return new Uint8Array(this.#hash.digest())
  }

  async finish(): Promise<void> {
    await this.#flush()
    await this.#file.finish()
  }

  discard(): Promise<void> {
    return this.#file.discard()
  }

  async #flush(): Promise<void> {
    if (this.#filled > 0) await this.#file.write(this.#buffer.subarray(0, this.#filled))
    this.#filled = 0
  }
}

function runsOf(parts: readonly PartEntry[]): PartRun[] {
  const runs: { first: number; leaves: Uint8Array[] }[] = []
  for (const { index, leaf } of parts) {
    const last = runs.at(-1)
    if (last !== undefined && last.first + last.leaves.length === index) last.leaves.push(leaf)
    else runs.push({ first: index, leaves: [leaf] })
  }
  return runs.map(({ first, leaves }) => ({ first, leaves: concatBytes(...leaves) }))
}

/** A folder that went while a request was under way: finished, given up or swept. */
function asUploadGone(blobs: BlobStore, id: DeliveryId): (error: unknown) => Promise<never> {
  return async (error) => {
    if (!hasCode(error, "ENOENT")) throw error
    throw new RelayRefusal((await blobs.isDelivery(id)) ? "upload_finished" : "upload_expired")
  }
}

const partRefusals: Readonly<
  Record<Exclude<SetPartOutcome, "stored" | "same">, () => RelayRefusal>
> = {
  differs: () => new RelayRefusal("part_differs"),
  misplaced: () =>
    new RelayRefusal("bad_length", {
      detail: "only the last part may be shorter than its place",
    }),
  closed: () => new RelayRefusal("upload_finished"),
  unknown: () => new RelayRefusal("upload_expired"),
}

function partsMissing(missing: readonly number[]): RelayRefusal {
  return new RelayRefusal("parts_missing", {
    detail: `${missing.length} parts have not arrived`,
    extras: { missing: missing.slice(0, mostMissing) },
  })
}

function tooLarge(limit: number): RelayRefusal {
  return new RelayRefusal("too_large", { extras: { limit } })
}

export function relayFull(): RelayRefusal {
  return new RelayRefusal("relay_full", { retryAfterSeconds: 3600 })
}

function noSuchInbox(inbox: InboxId): RelayRefusal {
  return new RelayRefusal("no_such_inbox", { extras: { address: addressOf(inbox) } })
}

/** The 16 bytes an idempotency key stands for. */
export function parseIdempotencyKey(text: string | undefined): Uint8Array {
  if (text === undefined || !/^[0-9a-f]{32}$/.test(text)) {
    throw new FormatError("idempotency-key", "not 32 lower-case hex characters")
  }
  return fromHex(text, "idempotency-key")
}
