// From a commit to its receipts: every inbox it names gets its entry, and then the relay's word is given.
import { encodeReceipt, type FinishReply, headerHash } from "../protocol/index.js"
import type { Chains } from "./chains.js"
import { addressOf, type InboxId, inboxIdBytesOf } from "./ids.js"
import type { BlobStore, Commit } from "./stores/blob-store.js"
import type { ChainPlace, RelayIndex } from "./stores/relay-index.js"
import type { RelayKeys } from "./stores/relay-keys.js"

export interface Publishing {
  /** Publishes a commit to every inbox it names, as far as that has not happened. */
  publish(commit: Commit): Promise<FinishReply>
  /** The same, of a commit that was made durable just now. */
  publishSynced(commit: Commit): Promise<FinishReply>
  /** The receipts of a delivery that has ended. */
  receiptsOf(commit: Commit): Promise<FinishReply>
}

export interface PublishingNeeds {
  readonly index: Pick<RelayIndex, "entryByContent">
  readonly blobs: BlobStore
  readonly chains: Chains
  readonly keys: RelayKeys
}

export function createPublishing({ index, blobs, chains, keys }: PublishingNeeds): Publishing {
  async function publishSynced(commit: Commit): Promise<FinishReply> {
    const links = await blobs.readLinks(commit)
    const places = await Promise.all(
      commit.links.map(({ inbox }, slot) => {
        const envelope = links[slot]?.envelope
        if (envelope === undefined) throw new Error("a link without its envelope")
        return chains.publish(inbox, { commit, slot, envelope })
      }),
    )
    return replyOf(commit, places)
  }

  /** Each receipt says what stands in the inbox's chain: of two copies of one content, the first. */
  function replyOf(
    { id, header, links }: Commit,
    places: readonly Pick<ChainPlace, "acceptedMs" | "expiresMs">[],
  ): FinishReply {
    return {
      id,
      receipts: links.map(({ inbox, envelopeHash }, slot) => {
        const place = places[slot]
        if (place === undefined) throw new RangeError("a place for each link")
        const { acceptedMs, expiresMs } = place
        const said = { inbox, header, envelopeHash, acceptedMs, expiresMs }
        return { address: addressOf(inbox), receipt: receiptFor(said) }
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

  async function receiptsOf(commit: Commit): Promise<FinishReply> {
    const header = headerHash(commit.header)
    const places = await Promise.all(
      commit.links.map(async ({ inbox, envelopeHash }) => {
        const content = { inbox, headerHash: header, envelopeHash }
        return (await index.entryByContent(content)) ?? commit
      }),
    )
    return replyOf(commit, places)
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
