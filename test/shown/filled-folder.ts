/**
 * A data folder with many small deliveries waiting in it, made by the relay's own stores in the order
 * that a relay makes them, on a disk that syncs nothing. Bodies, envelopes and bundles are random bytes:
 * a relay can tell no difference in the first two and looks at none of them when it starts.
 */
import { mkdirSync } from "node:fs"
import {
  encodeHeader,
  envelopeHash,
  gridCount,
  leafHash,
  random,
  sha256,
} from "../../protocol/index.js"
import { createChains } from "../../server/chains.js"
import { eachAtMost } from "../../server/gate.js"
import { deliveryIdOf, inboxIdOf } from "../../server/ids.js"
import { type Disk, type DiskFile } from "../../server/index.js"
import { nodeDisk } from "../../server/node-disk.js"
import { createCounts } from "../../server/operator/counts.js"
import { createPublishing } from "../../server/publishing.js"
import { systemRandomness } from "../../server/randomness.js"
import type { Commit } from "../../server/stores/blob-store.js"
import { openDataFolder } from "../../server/stores/data-folder.js"
import { DiskBlobStore } from "../../server/stores/disk-blob-store.js"
import { openEmbeddedIndex } from "../../server/stores/embedded-index.js"
import { openInboxLogs } from "../../server/stores/inbox-log.js"
import { openRelayKeys } from "../../server/stores/relay-keys.js"

const bodyLength = 16 * 1024
const manifestLength = 4112
/** Suite 2, by far the commonest. */
const envelopeBytes = 2104
const bundleBytes = 1700
const dayMs = 86_400_000
const atOnce = 32

const hastyDisk: Disk = {
  ...nodeDisk,
  create: async (path) => withoutSync(await nodeDisk.create(path)),
  open: async (path, access) => withoutSync(await nodeDisk.open(path, access)),
  syncFolder: () => Promise.resolve(),
}

function withoutSync(file: DiskFile): DiskFile {
  return { ...file, sync: () => Promise.resolve() }
}

export async function fillFolder(wanted: {
  readonly folder: string
  readonly deliveries: number
  readonly perInbox: number
}): Promise<void> {
  const disk = hastyDisk
  mkdirSync(wanted.folder, { recursive: true, mode: 0o700 })
  const folder = await openDataFolder({ disk, path: wanted.folder, random: systemRandomness })
  const index = openEmbeddedIndex({ path: folder.index, now: Date.now })
  try {
    const keys = await openRelayKeys({ disk, folder, random: systemRandomness })
    const { recordKey } = keys
    const blobs = new DiskBlobStore({ disk, folder, recordKey, random: systemRandomness })
    const logs = openInboxLogs({ disk, path: folder.inboxes, recordKey, random: systemRandomness })
    const counts = createCounts()
    const chains = createChains({
      index,
      blobs,
      logs,
      keys,
      locks: folder.locks,
      random: systemRandomness,
      counts,
      log: () => undefined,
    })
    const publishing = createPublishing({ index, blobs, chains, keys })
    const inboxes = Array.from({ length: Math.ceil(wanted.deliveries / wanted.perInbox) }, () =>
      inboxIdOf(random(20)),
    )
    for (const inbox of inboxes) {
      const bundle = random(bundleBytes)
      await logs.create(inbox, bundle)
      await index.openInbox(inbox, bundle)
    }
    let done = 0
    await eachAtMost(atOnce, Array(wanted.deliveries).keys(), async (at) => {
      const inbox = inboxes[at % inboxes.length]
      if (inbox === undefined) throw new RangeError("no such inbox")
      const id = deliveryIdOf(random(16))
      const nowMs = Date.now()
      const upload = {
        id,
        tokenHash: random(32),
        startHash: random(32),
        deleteHash: random(32),
        recipients: [inbox],
        createdMs: nowMs,
        reservedBytes: bodyLength,
        expiresMs: nowMs + dayMs,
      }
      await blobs.saveUpload(upload)
      const bytes = random(bodyLength)
      const part = { index: 0, leaf: leafHash({ index: 0, part: bytes }), lengthBytes: bodyLength }
      const written = await blobs.writePart({ id, ...part, bytes })
      written.keep()
      const manifest = random(manifestLength)
      const staged = await blobs.stageManifest(id)
      await staged.write(manifest)
      await staged.finish()
      await staged.place()
      const envelope = random(envelopeBytes)
      const header = encodeHeader({
        deliveryId: random(16),
        bodyLength,
        partCount: gridCount(bodyLength),
        manifestLength,
        bodyRoot: random(32),
        manifestHash: sha256(manifest),
        openRoot: random(32),
        keyCommit: random(32),
        notAfterMs: 0,
      })
      const commit: Commit = {
        ...upload,
        acceptedMs: nowMs,
        expiresMs: nowMs + 14 * dayMs,
        lane: 0,
        header,
        links: [{ inbox, envelopeHash: envelopeHash(envelope), envelopeBytes }],
      }
      const parts = await blobs.syncParts(id, [part]).then(() => [part])
      await publishing.publishSynced(await blobs.commit({ commit, parts, envelopes: [envelope] }))
      done += 1
      if (done % 1000 === 0) process.stderr.write(`\r${done} of ${wanted.deliveries} made`)
    })
    process.stderr.write("\n")
    await chains.idle()
    await blobs.settle()
  } finally {
    await index.close()
    await folder.release()
  }
}
