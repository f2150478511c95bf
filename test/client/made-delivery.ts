/**
 * Deliveries sealed by hand from the protocol's parts alone, so that a test can make them as a sender
 * of ill will would: whatever `change` does to the entries is sealed as if it were right.
 */
import {
  applyCtr,
  bodyRoot,
  type Bundle,
  chunkMac,
  concatBytes,
  deriveDeliveryKeys,
  encodeHeader,
  type Entry,
  type FileEntry,
  gridCount,
  gridLength,
  gridOffset,
  headerHash,
  type Identity,
  leafHash,
  paddedBodyLength,
  paddingBytes,
  random,
  sealEnvelope,
  sealManifest,
  toHex,
  utf8,
} from "../../protocol/index.js"
import type { SmallRelay, StoredDelivery } from "./small-relay.js"

export interface MadeDelivery extends StoredDelivery {
  id: string
  /** Where each file begins in the body. */
  offsets: Record<string, number>
}

export async function makeDelivery(options: {
  relay: SmallRelay
  recipient: Bundle
  files: Record<string, Uint8Array>
  note?: string
  sender?: { identity: Identity; mode: "deniable" | "signature" }
  expiresMs?: number
  change?: (entries: FileEntry[]) => FileEntry[]
}): Promise<MadeDelivery> {
  const { relay, recipient } = options
  const secrets = { ds: random(32), deliveryId: random(16) }
  const ciphertexts: Uint8Array[] = []
  const offsets: Record<string, number> = {}
  let entries: FileEntry[] = []
  let contentLength = 0
  for (const [name, content] of Object.entries(options.files)) {
    const [key, nonce] = [random(16), random(8)]
    offsets[name] = contentLength
    contentLength += content.length
    ciphertexts.push(applyCtr({ key, nonce, offset: 0, data: content }))
    const chunkMacs = concatBytes(
      ...cells(content).map((plaintext) => chunkMac({ key, nonce, plaintext })),
    )
    const size = content.length
    const path = utf8(name)
    entries.push({
      type: "file",
      path,
      size,
      executable: false,
      mtimeMs: 0,
      key,
      nonce,
      chunkMacs,
    })
  }
  entries = options.change?.(entries) ?? entries
  const bodyLength = paddedBodyLength(contentLength)
  const keys = deriveDeliveryKeys(secrets)
  const length = bodyLength - contentLength
  const padding = paddingBytes({ key: keys.padding, offset: 0, length })
  const body = concatBytes(...ciphertexts, padding)
  const leaves = concatBytes(...cells(body).map((part, index) => leafHash({ index, part })))
  const sealed = sealManifest({
    ...secrets,
    bodyRoot: bodyRoot({ bodyLength, leaves }),
    note: options.note ?? "",
    // A type of the protocol's own that is wider.
    entries: entries satisfies Entry[],
  })
  const header = encodeHeader({
    deliveryId: secrets.deliveryId,
    bodyLength,
    partCount: gridCount(bodyLength),
    manifestLength: sealed.ciphertext.length,
    bodyRoot: bodyRoot({ bodyLength, leaves }),
    manifestHash: sealed.manifestHash,
    openRoot: sealed.openRoot,
    keyCommit: keys.commit,
    notAfterMs: 0,
  })
  const envelope = await sealEnvelope({
    recipient,
    headerHash: headerHash(header),
    payload: { ds: secrets.ds, createdMs: 0, threadSeq: 0, threadPrev: new Uint8Array(32) },
    sender: options.sender,
  })
  const id = toHex(random(16))
  const delivery: StoredDelivery = {
    header,
    manifest: sealed.ciphertext,
    envelopes: new Map([[recipient.address, envelope]]),
    leaves,
    body,
    acceptedMs: relay.nowMs(),
    expiresMs: options.expiresMs ?? relay.nowMs() + 14 * 86_400_000,
    receipts: [],
  }
  relay.uploads.set(id, {
    id,
    token: random(32),
    key: id,
    recipients: [recipient.address],
    deleteHash: random(32),
    reservedBytes: bodyLength,
    parts: new Map(),
    delivery,
  })
  relay.publish(recipient.address, id, delivery, envelope)
  return { ...delivery, id, offsets }
}

/** Cut on the grid: a file's chunks, a body's parts. */
export function cells(bytes: Uint8Array): Uint8Array[] {
  return Array.from({ length: gridCount(bytes.length) }, (_, index) => {
    const start = gridOffset(index)
    return bytes.subarray(start, start + gridLength(index, bytes.length))
  })
}
