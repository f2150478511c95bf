// The sender's side of the relay, but for the last step (finishing.ts): start, extend, parts, give up.
// Knows nothing of HTTP.
import {
  concatBytes,
  equalBytes,
  type Extend,
  type ExtendReply,
  FormatError,
  fromHex,
  gridIndex,
  gridLength,
  gridOffset,
  leafHash,
  maxParts,
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
import type { RelayConfig } from "./config.js"
import { hasCode } from "./disk.js"
import { KeyedGate } from "./gate.js"
import type { IdleInboxes } from "./idle-inboxes.js"
import { type DeliveryId, deliveryIdOf, parseInboxAddress } from "./ids.js"
import { busy, noSuchInbox, tooLarge } from "./relay-refusals.js"
import type { Reservations } from "./reservations.js"
import type { BlobStore, Commit } from "./stores/blob-store.js"
import type { FolderLocks } from "./stores/folder-locks.js"
import type { OpenUpload, PartEntry, RelayIndex, SetPartOutcome } from "./stores/relay-index.js"
import { type RelayKeys, uploadId, uploadToken } from "./stores/relay-keys.js"
import type { UploadGate } from "./upload-gate.js"

/** Renewed while a finish is at work; after a crash others wait no longer than this. */
export const finishLeaseMs: number = 60_000

/** What is known of an upload whose token was right. */
export type KnownUpload =
  | { readonly state: "open"; readonly upload: OpenUpload }
  | { readonly state: "final"; readonly commit: Commit }

export interface PlannedPart {
  readonly index: number
  readonly lengthBytes: number
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
  giveUp(upload: KnownUpload): Promise<void>
}

export interface UploadsNeeds {
  readonly index: RelayIndex
  readonly blobs: BlobStore
  readonly idle: Pick<IdleInboxes, "isClosed">
  readonly reservations: Reservations
  readonly gate: UploadGate
  readonly locks: FolderLocks
  readonly keys: RelayKeys
  readonly config: RelayConfig
  readonly random: Random
  readonly nowMs: () => number
}

export function createUploads(needs: UploadsNeeds): Uploads {
  const { index, blobs, idle, keys, config, reservations, gate, locks, random, nowMs } = needs
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

  function checkSize(reserveBytes: number): void {
    if (reserveBytes > config.deliveryBytes) throw tooLarge(config.deliveryBytes)
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
      return locks.run(lockOfUpload(id), async () => {
        const replay = await replayStart(id, startHash, token)
        if (replay !== undefined) return replay
        for (const inbox of recipients) {
          const isOpen = (await index.bundle(inbox)) !== undefined && !(await idle.isClosed(inbox))
          if (!isOpen) throw noSuchInbox(inbox)
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
        await reservations.reserve(upload, undefined)
        try {
          await blobs.saveUpload(upload)
          await index.startUpload(upload)
        } catch (error) {
          await reservations.release(upload)
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
      const change = async (): Promise<ExtendReply> => {
        const upload = await index.upload(id)
        if (upload?.state !== "open" || (await blobs.isDelivery(id))) {
          throw new RelayRefusal("upload_finished")
        }
        const latestMs = upload.createdMs + relayDefaults.uploadMaxMs
        const wanted: OpenUpload = {
          ...upload,
          reservedBytes: Math.max(upload.reservedBytes, reserveBytes),
          expiresMs: Math.max(
            upload.expiresMs,
            Math.min(nowMs() + relayDefaults.uploadMs, latestMs),
          ),
        }
        await reservations.reserve(wanted, upload)
        await blobs.saveUpload(wanted)
        const { reservedBytes, expiresMs } = wanted
        await index.extendUpload({ id, reservedBytes, expiresMs })
        return { reservedBytes, expiresMs }
      }
      // As a part is: a record written while the folder becomes a delivery's would make another upload.
      // A finish that is under way has reserved for its manifest as well, perhaps in another process.
      return locks.run(lockOfUpload(id), () =>
        gate.write(id, () => whileClaimed({ index, random, nowMs }, id, change)),
      )
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
            // The index may have taken it nevertheless, and then the part counts.
            await written.leave()
            throw error
          }
          if (outcome === "stored" || outcome === "same") {
            written.keep()
            return leaf
          }
          // An index that has lost the upload may be about to get it back, with what stands on the disk.
          if (outcome === "unknown") await written.leave()
          else await written.discard()
          throw partRefusals[outcome]()
        }),
      )
    },

    async giveUp(known) {
      const { id, recipients } = stillOpen(known)
      const end = async (): Promise<void> => {
        if (await blobs.isDelivery(id)) throw new RelayRefusal("upload_finished")
        await blobs.dropUpload(id)
        await index.closeUpload({ id, dueMs: nowMs() + relayDefaults.uploadMs })
        await index.releaseRoom(id)
        for (const inbox of recipients) await index.releaseShare({ inbox, id })
      }
      await gate.close(id, () =>
        locks.run(lockOfUpload(id), () => whileClaimed({ index, random, nowMs }, id, end)),
      )
    },
  }
}

/** Keeps finishes of the upload away, and is kept away by them. */
async function whileClaimed<T>(
  { index, random, nowMs }: Pick<UploadsNeeds, "index" | "random" | "nowMs">,
  id: DeliveryId,
  work: () => Promise<T>,
): Promise<T> {
  const claim = { what: "upload", name: id, owner: toHex(random(16)) } as const
  if (!(await index.claim({ ...claim, untilMs: nowMs() + finishLeaseMs }))) throw busy()
  try {
    return await work()
  } finally {
    await index.unclaim(claim)
  }
}

/** What is taken turns at in an upload's folder: its record, its becoming a delivery, and its end. */
export function lockOfUpload(id: DeliveryId): string {
  return `upload-${id}`
}

function stillOpen(known: KnownUpload): OpenUpload {
  if (known.state === "final") throw new RelayRefusal("upload_finished")
  return known.upload
}

/** The commit record of a delivery, whether it waits or has ended. */
export async function findCommit(blobs: BlobStore, id: DeliveryId): Promise<Commit | undefined> {
  return (await blobs.readCommit(id)) ?? (await blobs.readEnded(id))?.commit
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
export function asUploadGone(blobs: BlobStore, id: DeliveryId): (error: unknown) => Promise<never> {
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

/** The 16 bytes an idempotency key stands for. */
export function parseIdempotencyKey(text: string | undefined): Uint8Array {
  if (text === undefined || !/^[0-9a-f]{32}$/.test(text)) {
    throw new FormatError("idempotency-key", "not 32 lower-case hex characters")
  }
  return fromHex(text, "idempotency-key")
}
