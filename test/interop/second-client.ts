// A second, small client of Knothole: send, list, receive, discard. It was written from
// docs/protocol.md alone and shares no code with the project, so it doubles as an example of what
// a client must do. The formats are beside it, in second-client-sealing.ts (§2 to §4),
// second-client-identity.ts (§5, §6) and second-client-relay.ts (§9 and Part II).
// Left out: parallel requests, going on after a crash, renewing a session that ran out.

import { lstat, mkdir, open, readdir, rename, rm, utimes, type FileHandle } from "node:fs/promises"
import { basename, dirname, join as joinPath } from "node:path"
import { equal, H, insist, join, random, u16, u32, u8, utf8, zeros } from "./second-client-bytes.js"
import {
  encodeAddress,
  openEnvelope,
  parseBundle,
  sealEnvelope,
  type Bundle,
} from "./second-client-identity.js"
import {
  ask,
  askJson,
  b64,
  bytes,
  CHAIN_START,
  checkReceipt,
  follow,
  list,
  number,
  object,
  parseHead,
  parseStamp,
  parseTombstone,
  splitAddress,
  text,
  type ChainPoint,
  type Json,
  type Relay,
  type Session,
} from "./second-client-relay.js"
import {
  bodyLength,
  bodyRoot,
  cells,
  chunkMac,
  contentLength,
  counterMode,
  deliveryKeys,
  headerHash,
  leafOf,
  openManifest,
  parseHeader,
  sealManifest,
  type Entry,
  type FileEntry,
  type FileKey,
} from "./second-client-sealing.js"

export { makeIdentity, type Identity } from "./second-client-identity.js"
export { connect, logIn, register, RelayRefusal, type Session } from "./second-client-relay.js"

const MIB = 2 ** 20

/** Hands out a stream of pieces in the lengths that are asked for. */
function recut(pieces: AsyncIterable<Uint8Array>): (length: number) => Promise<Uint8Array> {
  const source = pieces[Symbol.asyncIterator]()
  let held: Uint8Array = zeros(0)
  return async (length) => {
    while (held.length < length) {
      const next = await source.next()
      insist(next.done !== true, "the stream ends too early")
      held = join(held, next.value)
    }
    const taken = held.slice(0, length)
    held = held.slice(length)
    return taken
  }
}

// ---- Sending

type Source = { entry: Entry; diskPath: string }

/** A file, or a folder with all that is in it. A link is refused: it names what was not chosen. */
async function collect(diskPath: string, path: string): Promise<Source[]> {
  const found = await lstat(diskPath)
  const modifiedMs = Math.max(0, Math.floor(found.mtimeMs))
  if (found.isDirectory()) {
    const names = (await readdir(diskPath)).sort()
    const inside = names.map(async (name) => collect(joinPath(diskPath, name), `${path}/${name}`))
    const folder: Source = { diskPath, entry: { kind: "folder", path, modifiedMs } }
    return [folder, ...(await Promise.all(inside)).flat()]
  }
  insist(found.isFile(), "neither a file nor a folder")
  const executable = (found.mode & 0o100) !== 0
  const size = { sizeBytes: found.size, modifiedMs, executable }
  const fresh = { key: random(16), nonce: random(8), macs: [] }
  return [{ diskPath, entry: { kind: "file", path, ...size, ...fresh } }]
}

/** Reads a file once and yields its ciphertext; `entry.macs` is filled on the way. */
async function* sealFile(diskPath: string, entry: FileEntry): AsyncGenerator<Uint8Array> {
  const file = await open(diskPath)
  try {
    let at = 0
    for (const length of cells(entry.sizeBytes)) {
      const chunk = zeros(length)
      const { bytesRead } = await file.read(chunk, 0, length, at)
      insist(bytesRead === length, `${diskPath} changed while it was sent`)
      entry.macs.push(chunkMac(entry, chunk))
      yield counterMode(entry, at, chunk)
      at += length
    }
  } finally {
    await file.close()
  }
}

async function* keystream(padding: FileKey, length: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < length; at += MIB)
    yield counterMode(padding, at, zeros(Math.min(MIB, length - at)))
}

async function* sealBody(sources: Source[], padding: FileKey): AsyncGenerator<Uint8Array> {
  for (const { diskPath, entry } of sources)
    if (entry.kind === "file") yield* sealFile(diskPath, entry)
  const contentBytes = contentLength(sources.map(({ entry }) => entry))
  yield* keystream(padding, bodyLength(contentBytes) - contentBytes)
}

async function fetchBundle(relay: Relay, address: string): Promise<Bundle> {
  const bundle = parseBundle(await ask(relay.origin, `/v1/inboxes/${address}`, { maxBytes: 4096 }))
  insist(encodeAddress(bundle.inboxId) === address, "the relay gave another inbox's bundle")
  return bundle
}

export type Sent = { id: string; deleteCapability: Uint8Array }

/**
 * Sends files and folders to inboxes of one relay, and returns when the relay has signed for it.
 *
 * §8 asks for a journal so that a sending can go on after a crash. This one does not: every call
 * draws fresh secrets, reads each file once, and what is put on the wire again is the same bytes
 * from memory, so that nothing different is ever sealed under one key.
 */
export async function send(
  relay: Relay,
  { to, paths, note = "" }: { to: string[]; paths: string[]; note?: string },
): Promise<Sent> {
  const recipients = to.map((full) => {
    const { address, origin } = splitAddress(full)
    insist(origin === relay.origin, "a recipient of another relay")
    return address
  })
  const bundles = await Promise.all(recipients.map(async (one) => fetchBundle(relay, one)))
  const found = await Promise.all(paths.map(async (path) => collect(path, basename(path))))
  const sources = found.flat()
  const entries = sources.map(({ entry }) => entry)
  const bodyBytes = bodyLength(contentLength(entries))

  const [ds, deliveryId, deleteCapability] = [random(32), random(16), random(32)]
  const keys = deliveryKeys(ds, deliveryId)
  const upload = await askJson(relay.origin, "/v1/uploads", {
    method: "POST",
    idempotencyKey: Buffer.from(random(16)).toString("hex"),
    json: { recipients, reserve_bytes: bodyBytes, delete_hash: b64(H(deleteCapability)) },
  })
  const id = text(upload, "id")
  const credential = bytes(upload, "token", 32)
  insist(/^[0-9a-f]{32}$/.test(id), "not an id")

  const body = sealBody(sources, keys.padding)
  const next = recut(body)
  const leaves: Uint8Array[] = []
  try {
    for (const [index, length] of cells(bodyBytes).entries()) {
      const part = await next(length)
      const leaf = leafOf(index, part)
      const path = `/v1/uploads/${id}/parts/${index}`
      const reply = await askJson(relay.origin, path, { method: "PUT", credential, bytes: part })
      insist(equal(bytes(reply, "leaves"), leaf), "a part did not arrive as it was sent")
      leaves.push(leaf)
    }
  } finally {
    // Closes the file that is being read, however this ends.
    await body.return(undefined)
  }

  // Only now are the chunk MACs known, and with them the manifest.
  const root = bodyRoot(bodyBytes, leaves)
  const { header, sealed } = sealManifest({ note, entries }, { keys, deliveryId, bodyRoot: root })
  const hdr = headerHash(header)
  const envelopes = bundles.map((bundle) => sealEnvelope(bundle, hdr, ds))
  const finish = join(
    utf8("KNHF"),
    u8(1),
    zeros(2),
    u8(envelopes.length),
    header,
    u32(sealed.length),
    sealed,
    ...envelopes.flatMap((envelope) => [u16(envelope.length), envelope]),
  )
  const path = `/v1/uploads/${id}/finish`
  const done = await askJson(relay.origin, path, { method: "POST", credential, bytes: finish })
  const receipts = list(done, "receipts")
  for (const [i, address] of recipients.entries()) {
    const mine = receipts.find((receipt) => receipt["address"] === address)
    const [bundle, envelope] = [bundles[i], envelopes[i]]
    insist(mine !== undefined && bundle !== undefined && envelope !== undefined, "no receipt")
    checkReceipt(relay, bundle.inboxId, { hdr, env: H(envelope) }, bytes(mine, "receipt", 172))
  }
  return { id, deleteCapability }
}

// ---- Listing

export type Waiting = { id: string; header: Uint8Array; envelope: Uint8Array; stamp: Uint8Array }
export type Listing = { waiting: Waiting[]; seen: ChainPoint }

/**
 * What waits in the inbox. The chain is folded from the relay's floor over every entry to the head
 * that it signs, and must pass through `seen`, the `seen` of the listing before: a relay that
 * leaves out, reorders or takes back an entry is found out.
 */
export async function listInbox(
  session: Session,
  seen: ChainPoint = CHAIN_START,
): Promise<Listing> {
  const { relay, identity, token } = session
  const { inboxId } = identity.bundle
  const waiting: Waiting[] = []
  let at: ChainPoint | undefined
  for (;;) {
    const query = `after=${at?.sequence ?? 0}&limit=500&envelopes=1`
    const page = await askJson(relay.origin, `/v1/inbox?${query}`, { credential: token })
    const { point, floorSequence } = parseHead(relay, inboxId, bytes(page, "head", 148))
    if (at === undefined) {
      const floor = object(page["floor"])
      at = { sequence: number(floor, "seq"), head: bytes(floor, "head", 32) }
      insist(at.sequence === floorSequence, "the floor is not the signed one")
      insist(point.sequence >= seen.sequence, "the inbox went back to before what it was")
    }
    const entries = list(page, "entries")
    for (const entry of entries) {
      const before: ChainPoint = at
      const gone = "tombstone" in entry
      const stamp = gone ? undefined : parseStamp(inboxId, bytes(entry, "stamp", 244))
      const link = stamp?.link ?? parseTombstone(bytes(entry, "tombstone", 89))
      insist(link.sequence === before.sequence + 1, "the inbox has a gap")
      insist(link.sequence === number(entry, "seq"), "an entry of another number")
      at = follow(before, link)
      insist(!stamp || equal(at.head, stamp.head), "a stamp is not of this chain")
      insist(at.sequence !== seen.sequence || equal(at.head, seen.head), "the chain was rewritten")
      if (!gone) waiting.push(parseWaiting(entry))
    }
    if (page["more"] === true) {
      insist(entries.length > 0, "the inbox says that there is more and shows nothing")
      continue
    }
    insist(at.sequence === point.sequence && equal(at.head, point.head), "not the signed chain")
    return { waiting, seen: at }
  }
}

function parseWaiting(entry: Json): Waiting {
  const id = text(entry, "id")
  insist(/^[0-9a-f]{32}$/.test(id), "not an id")
  const [header, envelope] = [bytes(entry, "header", 184), bytes(entry, "envelope")]
  return { id, header, envelope, stamp: bytes(entry, "stamp", 244) }
}

// ---- Receiving, in the order of §7

export type Received = { note: string; written: string[]; failed: string[] }

/**
 * Fetches a delivery into `folder`, which must not exist yet: a folder that is ours alone has no
 * link in it that would lead a path outside.
 */
export async function receive(session: Session, one: Waiting, folder: string): Promise<Received> {
  const { relay, identity, token: credential } = session
  const piece = async (path: string, length: number) => {
    const request = { credential, maxBytes: length }
    const reply = await ask(relay.origin, `/v1/deliveries/${one.id}/${path}`, request)
    insist(reply.length === length, `${path} is not as long as it must be`)
    return reply
  }

  // 1. The stamp, the header, the envelope
  const header = parseHeader(one.header)
  const hdr = headerHash(one.header)
  const { link } = parseStamp(identity.bundle.inboxId, one.stamp)
  insist(equal(link.hdr, hdr) && equal(link.env, H(one.envelope)), "a stamp of something else")
  const keys = deliveryKeys(openEnvelope(identity, hdr, one.envelope), header.deliveryId)
  insist(equal(keys.commit, header.commit), "the envelope's secret is not the delivery's")

  // 2. The manifest
  const manifest = openManifest(await piece("manifest", header.manifestBytes), header, keys)

  // 3. The leaves
  const lengths = cells(header.bodyBytes)
  const packed = await piece("leaves", 32 * lengths.length)
  const leaves = lengths.map((_, i) => packed.slice(32 * i, 32 * i + 32))
  insist(equal(bodyRoot(header.bodyBytes, leaves), header.bodyRoot), "not the leaves of this body")

  // 4. and 5. Every part, every chunk, every file
  const next = recut(checkedParts(lengths, leaves, piece))
  await mkdir(folder)
  const received: Received = { note: manifest.note, written: [], failed: [] }
  for (const entry of manifest.entries) {
    const target = joinPath(folder, entry.path)
    await mkdir(entry.kind === "folder" ? target : dirname(target), { recursive: true })
    if (entry.kind === "folder") continue
    const complete = await writeFile(entry, { target, folder, next })
    ;(complete ? received.written : received.failed).push(entry.path)
  }
  // To the end, although only padding is left: stopping here would tell the relay where it begins.
  let padding = header.bodyBytes - contentLength(manifest.entries)
  for (; padding > 0; padding -= MIB) await next(Math.min(MIB, padding))
  return received
}

async function* checkedParts(
  lengths: number[],
  leaves: Uint8Array[],
  piece: (path: string, length: number) => Promise<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  for (const [index, leaf] of leaves.entries()) {
    const part = await piece(`parts/${index}`, lengths[index] ?? 0)
    insist(equal(leafOf(index, part), leaf), `part ${index} is not what was sent`)
    yield part
  }
}

/** Writes one file under a name of its own, and gives it its real one when all of it was checked. */
async function writeFile(
  entry: FileEntry,
  to: { target: string; folder: string; next: (length: number) => Promise<Uint8Array> },
): Promise<boolean> {
  const unfinished = joinPath(to.folder, `.${Buffer.from(random(12)).toString("hex")}.unfinished`)
  try {
    const file = await open(unfinished, "wx", entry.executable ? 0o755 : 0o644)
    try {
      if (!(await openChunks(entry, file, to.next))) return false
      // On the disk before the caller discards what the relay has.
      await file.sync()
    } finally {
      await file.close()
    }
    if (entry.modifiedMs > 0)
      await utimes(unfinished, entry.modifiedMs / 1000, entry.modifiedMs / 1000)
    await rename(unfinished, to.target)
    return true
  } finally {
    await rm(unfinished, { force: true })
  }
}

/** False when a chunk is not what the sender MACed; the rest is read on, for the files behind. */
async function openChunks(
  entry: FileEntry,
  file: FileHandle,
  next: (length: number) => Promise<Uint8Array>,
): Promise<boolean> {
  let good = true
  let at = 0
  for (const [i, length] of cells(entry.sizeBytes).entries()) {
    const chunk = counterMode(entry, at, await next(length))
    good &&= equal(chunkMac(entry, chunk), entry.macs[i] ?? zeros(0))
    if (good) await file.writeFile(chunk)
    at += length
  }
  return good
}

/** Tells the relay to delete this inbox's copy. */
export async function discard(session: Session, one: Waiting): Promise<void> {
  const { relay, token: credential } = session
  await ask(relay.origin, `/v1/deliveries/${one.id}`, { method: "DELETE", credential })
}
