// A delivery made for tests, and manifests that no honest sender makes.
import {
  concatBytes,
  deriveDeliveryKeys,
  encodeEntry,
  encodeHeader,
  type Entry,
  entryBlinding,
  entryLeaf,
  gcmSeal,
  gridCount,
  type Header,
  label,
  noteBlinding,
  noteLeaf,
  openRootOf,
  paddedBodyLength,
  paddedManifestLength,
  type PayloadFields,
  random,
  sealManifest,
  sha256,
  treeRoot,
  u32,
  u64,
  utf8,
} from "../../protocol/index.js"

export const noThread: Pick<PayloadFields, "createdMs" | "threadSeq" | "threadPrev"> = {
  createdMs: 0,
  threadSeq: 0,
  threadPrev: new Uint8Array(32),
}

/** A file of `size` bytes as a manifest lists it, with MACs over nothing in particular. */
export function fileOf(path: string, size: number): Entry & { type: "file" } {
  return {
    type: "file",
    path: utf8(path),
    size,
    executable: false,
    mtimeMs: 0,
    key: random(16),
    nonce: random(8),
    chunkMacs: random(16 * gridCount(size)),
  }
}

export function folderOf(path: string): Entry & { type: "directory" } {
  return { type: "directory", path: utf8(path), mtimeMs: 0 }
}

export interface MadeDelivery {
  readonly ds: Uint8Array
  readonly header: Header
  readonly headerBytes: Uint8Array
  readonly manifest: Uint8Array
}

/** What a sender's client makes, but for the body. */
export function makeDelivery(entries: readonly Entry[], note: string = ""): MadeDelivery {
  const ds = random(32)
  const deliveryId = random(16)
  const bodyRoot = random(32)
  const sealed = sealManifest({ ds, deliveryId, bodyRoot, note, entries })
  const bodyLength = paddedBodyLength(sealed.contentLength)
  const header: Header = {
    deliveryId,
    bodyLength,
    partCount: gridCount(bodyLength),
    manifestLength: sealed.ciphertext.length,
    bodyRoot,
    manifestHash: sealed.manifestHash,
    openRoot: sealed.openRoot,
    keyCommit: deriveDeliveryKeys({ ds, deliveryId }).commit,
    notAfterMs: 0,
  }
  return { ds, header, headerBytes: encodeHeader(header), manifest: sealed.ciphertext }
}

export interface CraftedManifest {
  /** Encoded, each as it shall stand there. */
  readonly entries: readonly Uint8Array[]
  readonly contentLength: number
  readonly note?: Uint8Array
  /** In place of what follows from the rest. */
  readonly bodyLength?: number
  readonly entryCount?: number
  readonly noteLength?: number
  readonly openRoot?: Uint8Array
  readonly plaintextLength?: number
  /** Last changes to the plaintext. */
  readonly change?: (plaintext: Uint8Array) => void
}

/** Seals whatever it is given under a commitment that fits, as a hostile sender would. */
export function craftDelivery(crafted: CraftedManifest): MadeDelivery {
  const ds = random(32)
  const deliveryId = random(16)
  const bodyRoot = random(32)
  const keys = deriveDeliveryKeys({ ds, deliveryId })
  const { entries, contentLength, note = new Uint8Array(0) } = crafted
  const used = concatBytes(
    utf8("KNHM"),
    Uint8Array.of(1, 0, 0, 0),
    u64(contentLength),
    u32(crafted.entryCount ?? entries.length),
    u32(crafted.noteLength ?? note.length),
    note,
    ...entries.flatMap((entry) => [u32(entry.length), entry]),
  )
  const plaintext = new Uint8Array(crafted.plaintextLength ?? paddedManifestLength(used.length))
  plaintext.set(used)
  crafted.change?.(plaintext)
  const leaves = entries.map((entry, index) =>
    entryLeaf({ index, r: entryBlinding(keys.blinding, index), entry }),
  )
  const openRoot =
    crafted.openRoot ??
    openRootOf({
      entryCount: entries.length,
      noteLeaf: noteLeaf({ r: noteBlinding(keys.blinding), note }),
      entriesRoot: treeRoot(leaves),
    })
  const aad = concatBytes(label("manif"), deliveryId, bodyRoot, openRoot)
  const manifest = gcmSeal({ key: keys.manifest, aad, plaintext })
  const bodyLength = crafted.bodyLength ?? paddedBodyLength(contentLength)
  const header: Header = {
    deliveryId,
    bodyLength,
    partCount: gridCount(bodyLength),
    manifestLength: manifest.length,
    bodyRoot,
    manifestHash: sha256(manifest),
    openRoot,
    keyCommit: keys.commit,
    notAfterMs: 0,
  }
  return { ds, header, headerBytes: encodeHeader(header), manifest }
}

/** The entries encoded one behind the other, as an honest sender places them. */
export function encodedInOrder(entries: readonly Entry[]): Uint8Array[] {
  let bodyOffset = 0
  return entries.map((entry) => {
    const encoded = encodeEntry(entry, bodyOffset)
    bodyOffset += entry.type === "file" ? entry.size : 0
    return encoded
  })
}
