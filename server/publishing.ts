// From a commit to its receipts: every inbox it names gets its entry, and then the relay's word is given.
import { encodeReceipt, type FinishReply, headerHash } from "../protocol/index.js"
import type { Chains } from "./chains.js"
import { addressOf, type InboxId, inboxIdBytesOf } from "./ids.js"
import type { BlobStore, Commit } from "./stores/blob-store.js"
import type { RelayKeys } from "./stores/relay-keys.js"

export interface Publishing {
  /** Publishes a commit to every inbox it names, as far as that has not happened. */
  publish(commit: Commit): Promise<FinishReply>
  /** The same, of a commit that was made durable just now. */
  publishSynced(commit: Commit): Promise<FinishReply>
  /** The receipts of a delivery that has ended: what they say is all in its record. */
  receiptsOf(commit: Commit): FinishReply
}

export interface PublishingNeeds {
  readonly blobs: BlobStore
  readonly chains: Chains
  readonly keys: RelayKeys
}

export function createPublishing({ blobs, chains, keys }: PublishingNeeds): Publishing {
  async function publishSynced(commit: Commit): Promise<FinishReply> {
    const links = await blobs.readLinks(commit)
    const places = await Promise.all(
      commit.links.map(({ inbox }, slot) => {
        const envelope = links[slot]?.envelope
        if (envelope === undefined) throw new Error("a link without its envelope")
        return chains.publish(inbox, { commit, slot, envelope })
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

  function receiptsOf(commit: Commit): FinishReply {
    return {
      id: commit.id,
      receipts: commit.links.map((link) => ({
        address: addressOf(link.inbox),
        receipt: receiptFor({ ...commit, ...link }),
      })),
    }
  }

  return {
    async publish(commit) {
      // Whoever renamed the commit into place may have got no further.
      await blobs.syncStore()
      return publishSynced(commit)
    },
    publishSynced,
    receiptsOf,
  }
}
