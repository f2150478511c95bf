// The 184 public bytes that bind a delivery together, and the keys that its secret gives
// (docs/protocol.md §4). The header's hash is inside every envelope, so whoever opens one can trust
// the hashes here.
import { ByteReader, concatBytes, equalBytes, u16, u32, u64, utf8 } from "./bytes.js"
import { OpenError } from "./errors.js"
import { label } from "./labels.js"
import { maxBodyBytes, maxManifestBytes } from "./limits.js"
import { gridCount } from "./mega.js"
import { hkdfSha256, sha256 } from "#crypto-provider"

export const headerBytes: number = 184

export interface Header {
  /** 16 random bytes of the sender's. Salts the keys; nothing is ever looked up by it. */
  readonly deliveryId: Uint8Array
  readonly bodyLength: number
  /** The grid's for `bodyLength`. */
  readonly partCount: number
  /** Of the ciphertext, with its tag. */
  readonly manifestLength: number
  readonly bodyRoot: Uint8Array
  readonly manifestHash: Uint8Array
  readonly openRoot: Uint8Array
  readonly keyCommit: Uint8Array
  /** The sender's wish that it be kept no longer; 0 = none. */
  readonly notAfterMs: number
}

export function encodeHeader(header: Header): Uint8Array {
  const { deliveryId, bodyRoot, manifestHash, openRoot, keyCommit } = header
  const hashes = [bodyRoot, manifestHash, openRoot, keyCommit]
  if (deliveryId.length !== 16 || hashes.some((hash) => hash.length !== 32)) {
    throw new RangeError("a delivery id is 16 bytes and a hash 32")
  }
  if (header.bodyLength > maxBodyBytes || header.manifestLength > maxManifestBytes) {
    throw new RangeError("a body or manifest beyond what the format allows")
  }
  if (header.partCount !== gridCount(header.bodyLength)) {
    throw new RangeError("the part count is not the grid's for this body")
  }
  return concatBytes(
    utf8("KNHH"),
    Uint8Array.of(1, 1),
    u16(0),
    deliveryId,
    u64(header.bodyLength),
    u32(header.partCount),
    u32(header.manifestLength),
    ...hashes,
    u64(header.notAfterMs),
    u64(0),
  )
}

export function parseHeader(bytes: Uint8Array): Header {
  const reader = new ByteReader(bytes, "header")
  reader.expectAscii("KNHH", "magic")
  reader.expectU8(1, "version")
  reader.expectU8(1, "profile")
  reader.zeros(2, "flags")
  const deliveryId = reader.take(16, "delivery id")
  const bodyLength = reader.u64("body length")
  if (bodyLength > maxBodyBytes) reader.refuse("body length", "above 64 GiB")
  const partCount = reader.u32("part count")
  if (partCount !== gridCount(bodyLength)) {
    reader.refuse("part count", "not the grid's for this body length")
  }
  const manifestLength = reader.u32("manifest length")
  if (manifestLength > maxManifestBytes) reader.refuse("manifest length", "above 64 MiB")
  const bodyRoot = reader.take(32, "body root")
  const manifestHash = reader.take(32, "manifest hash")
  const openRoot = reader.take(32, "open root")
  const keyCommit = reader.take(32, "key commitment")
  const notAfterMs = reader.u64("not after")
  reader.zeros(8, "reserved")
  reader.end()
  return {
    deliveryId,
    bodyLength,
    partCount,
    manifestLength,
    bodyRoot,
    manifestHash,
    openRoot,
    keyCommit,
    notAfterMs,
  }
}

/** H_hdr, the name of a delivery everywhere else. Of the encoded header. */
export function headerHash(header: Uint8Array): Uint8Array {
  return sha256(label("header"), header)
}

/** What a delivery's secret gives. Each of these keys is used for one thing. */
export interface DeliveryKeys {
  /** Stands in the header: one header opens under one secret only. */
  readonly commit: Uint8Array
  /** Seals the manifest, once. */
  readonly manifest: Uint8Array
  /** Blinds the leaves of `openRoot`, so that showing one entry says nothing of the others. */
  readonly blinding: Uint8Array
  /** 24 bytes: AES key and nonce of the padding behind the content. */
  readonly padding: Uint8Array
}

export interface DeliverySecret {
  readonly ds: Uint8Array
  readonly deliveryId: Uint8Array
}

export function deriveDeliveryKeys({ ds, deliveryId }: DeliverySecret): DeliveryKeys {
  if (ds.length !== 32 || deliveryId.length !== 16) {
    throw new RangeError("ds is 32 bytes and a delivery id 16")
  }
  const derive = (word: string, length: number): Uint8Array => {
    const info = concatBytes(label("ds"), utf8(word))
    return hkdfSha256({ ikm: ds, salt: deliveryId, info, length })
  }
  return {
    commit: derive("commit", 32),
    manifest: derive("manifest", 32),
    blinding: derive("open", 32),
    padding: derive("pad", 24),
  }
}

/** Throws OpenError when `ds` is not the secret that the header was made with. */
export function checkKeyCommit(input: {
  readonly ds: Uint8Array
  readonly header: Header
}): DeliveryKeys {
  const keys = deriveDeliveryKeys({ ds: input.ds, deliveryId: input.header.deliveryId })
  if (!equalBytes(keys.commit, input.header.keyCommit)) throw new OpenError()
  return keys
}
