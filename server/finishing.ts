// The step that turns an upload into a delivery. The order of it is the relay's promise: everything is
// checked, then everything is on stable storage, then the commit's rename makes it a delivery, then
// every inbox gets its entry, and only then there is a receipt.
import {
  bodyRoot,
  envelopeHash,
  equalBytes,
  type FinishReply,
  FormatError,
  gridCount,
  gridLength,
  type Header,
  headerHash,
  parseBundle,
  parseEnvelope,
  parseHeader,
  type Random,
  RelayRefusal,
  toHex,
} from "../protocol/index.js"
import type { Clock } from "./clock.js"
import type { RelayConfig } from "./config.js"
import type { Publishing } from "./publishing.js"
import type { Log } from "./log.js"
import { busy, noSuchInbox, partsMissing, tooLarge } from "./relay-refusals.js"
import type { Reservations } from "./reservations.js"
import { StagedManifest } from "./staged-manifest.js"
import type { BlobStore, Commit } from "./stores/blob-store.js"
import type { FolderLocks } from "./stores/folder-locks.js"
import type { InboxLogs } from "./stores/inbox-log.js"
import type { OpenUpload, PartEntry, RelayIndex } from "./stores/relay-index.js"
import type { RelayKeys } from "./stores/relay-keys.js"
import type { UploadGate } from "./upload-gate.js"
import { asUploadGone, finishLeaseMs, type KnownUpload, lockOfUpload } from "./uploads.js"

const hourMs = 3_600_000
/** An accepted time is announced before it is used; one older than this is taken anew. */
const staleAcceptMs = 4_000
const openLane = 0

/** One attempt to finish. The calls come in this order; after a failure, `abandon`. */
export interface FinishAttempt {
  header(header: Uint8Array, manifestLength: number): Promise<void>
  /** The next bytes of the manifest. They may be reused when it resolves. */
  manifest(bytes: Uint8Array): Promise<void>
  complete(envelopes: readonly Uint8Array[]): Promise<FinishReply>
  abandon(): Promise<void>
}

export interface Finishing {
  finish(upload: KnownUpload): Promise<FinishAttempt>
}

export interface FinishingNeeds {
  readonly index: RelayIndex
  readonly blobs: BlobStore
  readonly logs: Pick<InboxLogs, "isClosed">
  readonly keys: RelayKeys
  readonly config: RelayConfig
  readonly publishing: Publishing
  readonly reservations: Reservations
  readonly gate: UploadGate
  readonly locks: FolderLocks
  readonly clock: Clock
  readonly random: Random
  readonly nowMs: () => number
  readonly log: Log
}

export function createFinishing(needs: FinishingNeeds): Finishing {
  const { index, blobs, keys, config, publishing, gate, locks, clock, nowMs } = needs

  /** The upload as its own record has it: for whom it is does not rest on the index. */
  function checkKnown(known: OpenUpload, saved: OpenUpload): OpenUpload {
    if (!isSameUpload(known, saved)) needs.log("record_refused", {}, "alarm")
    // Whoever asks has the token that the index knows.
    if (!equalBytes(known.tokenHash, saved.tokenHash)) throw new RelayRefusal("unauthorized")
    return saved
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
      if (bundle === undefined || (await needs.logs.isClosed(inbox))) throw noSuchInbox(inbox)
      const envelope = envelopes[at] ?? new Uint8Array(0)
      if (!equalBytes(parseEnvelope(envelope, parseBundle(bundle)).headerHash, hash)) {
        throw new FormatError(`finish.envelopes.${at}`, "made for another header")
      }
    }
  }

  /** When a delivery accepted now is to expire, after the sender's wish. */
  function expiryOf(acceptedMs: number, notAfterMs: number): number {
    if (notAfterMs === 0) return acceptedMs + config.keepMs
    const latest = acceptedMs + config.keepMaxMs
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
        if (!(await blobs.isDelivery(commit.id))) return publishing.receiptsOf(commit)
        try {
          await closeCommitted(commit)
          return await publishing.publish(commit)
        } catch (error) {
          // Its last recipient took it meanwhile; what was received stays received.
          if (await blobs.isDelivery(commit.id)) throw error
          return publishing.receiptsOf(commit)
        }
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
    let hasReserved = false
    let isOver = false
    /** The step at work, or the last one. */
    let working: Promise<unknown> = Promise.resolve()
    let renewing: Promise<void> = Promise.resolve()
    let stopRenewing: (() => void) | undefined

    /** However long the manifest or the syncs take, nobody else gets at the upload's files. */
    function renewLater(): void {
      stopRenewing = clock.after(finishLeaseMs / 3, () => {
        renewLater()
        // When it is lost nevertheless, the look before the commit finds out.
        renewing = hold().catch(() => undefined)
      })
    }

    async function hold(): Promise<void> {
      if (!(await index.claim({ ...claim, untilMs: nowMs() + finishLeaseMs }))) throw busy()
    }

    async function letGo(): Promise<void> {
      isOver = true
      stopRenewing?.()
      await renewing
      await index.unclaim(claim)
    }

    function step<T>(work: () => Promise<T>): Promise<T> {
      if (isOver) return Promise.reject(busy())
      const result = work()
      working = result.catch(() => undefined)
      return result
    }

    const attempt: FinishAttempt = {
      /** The client may leave in the middle of a step, whose files must not go from under it. */
      async abandon() {
        isOver = true
        await working
        await manifest?.discard()
        manifest = undefined
        if (hasReserved) await needs.reservations.dropManifest(upload)
        await letGo()
      },

      async header(header, manifestLength) {
        await hold()
        renewLater()
        // Another attempt was quicker: the next one is given that one's receipts.
        if (await blobs.isDelivery(id)) throw busy()
        headerBytes = new Uint8Array(header)
        parsed = parseHeader(headerBytes)
        if (parsed.bodyLength > upload.reservedBytes) throw tooLarge(upload.reservedBytes)
        if (parsed.manifestLength !== manifestLength) {
          throw new FormatError("finish.manifest_len", "not the header's")
        }
        await checkParts(upload, parsed)
        await needs.reservations.addManifest(upload, parsed)
        hasReserved = true
        const staged = blobs.stageManifest(id).catch(asUploadGone(blobs, id))
        manifest = new StagedManifest(await staged)
      },

      async manifest(bytes) {
        await manifest?.write(bytes)
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
        const become = async (): Promise<Commit> => {
          // The same, while this one slept longer than its claim lasts.
          if (await blobs.isDelivery(id)) throw busy()
          const parts = await checkParts(upload, header)
          await staged.finish()
          const failed = await blobs.syncParts(id, parts)
          for (const part of failed) await index.removePart({ id, ...part })
          if (failed.length > 0) throw partsMissing(failed.map((part) => part.index))
          await hold()
          await staged.place()
          const made = await commitUpload(upload, headerBytes, parts, envelopes)
          manifest = undefined
          hasReserved = false
          needs.reservations.forgetManifest(upload)
          await closeCommitted(made)
          return made
        }
        const commit = await gate.close(id, () => locks.run(lockOfUpload(id), become))
        const reply = await publishing.publishSynced(commit)
        await letGo()
        return reply
      },
    }
    return {
      abandon: () => attempt.abandon(),
      header: (header, manifestLength) => step(() => attempt.header(header, manifestLength)),
      manifest: (bytes) => step(() => attempt.manifest(bytes)),
      complete: (envelopes) => step(() => attempt.complete(envelopes)),
    }
  }

  return {
    async finish(known) {
      if (known.state === "final") return finishAgain(known.commit)
      // Committed by an attempt that went no further.
      const { id } = known.upload
      const commit = await blobs.readCommit(id)
      if (commit !== undefined) return finishAgain(commit)
      const saved = await blobs.readUpload(id)
      if (saved !== undefined) return finishOnce(checkKnown(known.upload, saved))
      // Another attempt was quicker, in the middle of this.
      const made = await blobs.readCommit(id)
      if (made === undefined) throw new RelayRefusal("upload_expired")
      return finishAgain(made)
    },
  }
}

/** In what is settled when it starts. */
function isSameUpload(one: OpenUpload, other: OpenUpload): boolean {
  return (
    equalBytes(one.tokenHash, other.tokenHash) &&
    equalBytes(one.startHash, other.startHash) &&
    equalBytes(one.deleteHash, other.deleteHash) &&
    one.recipients.join() === other.recipients.join() &&
    one.createdMs === other.createdMs
  )
}
