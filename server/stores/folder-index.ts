// Which index belongs to a data folder, and whether it can be believed.
import { join } from "node:path"
import { type IndexKind, parseUtf8, type Random, toHex, utf8 } from "../../protocol/index.js"
import { type Disk, isDiskFull, readSmallFile, unlessMissing, writeSyncedFile } from "../disk.js"
import type { DataFolder } from "./data-folder.js"
import type { openEmbeddedIndex } from "./embedded-index.js"
import type { RelayIndex } from "./relay-index.js"

export interface FolderIndex {
  readonly kind: IndexKind
  readonly index: RelayIndex
  /** The folder was copied since a relay last worked in it, perhaps under a relay at work. */
  readonly isCopy: boolean
  /**
   * What there is to mend: `lost` where it was not made from this folder, `behind` where some of what was
   * written to it may be missing.
   */
  doubt(): Promise<"lost" | "behind" | undefined>
  /** Runs `rebuild`. The index is believed again, by any process, only when that is done. */
  renew(rebuild: () => Promise<void>): Promise<void>
  /** Runs `reconcile`. What is missing so far is there then. */
  catchUp(reconcile: () => Promise<void>): Promise<void>
  /** Makes room for a time when there is none on the disk. */
  keepSpare(): Promise<void>
  /** `isWhole` when the next start may believe it. */
  close(isWhole: boolean): Promise<void>
}

const stateName = "index-state"
const sharedStateName = "shared-index"

/**
 * The index inside the relay's own process. It is written without syncs, so it is believed only when the
 * machine has not restarted since, or when it was synced and closed before.
 */
export async function openOwnIndex(input: {
  readonly disk: Disk
  readonly folder: DataFolder
  readonly random: Random
  readonly now: () => number
  readonly openIndex: typeof openEmbeddedIndex
  readonly bootId: () => string
}): Promise<FolderIndex> {
  const { disk, folder, random, now, openIndex } = input
  const state = await openIndexState(disk, folder, input.bootId)
  await forget(disk, folder, sharedStateName)
  const index = openIndex({ path: folder.index, now })
  let hasCaughtUp = false
  return {
    kind: "embedded",
    index,
    isCopy: state.isCopy,
    async doubt() {
      if (hasCaughtUp) return undefined
      const isOurs = state.marker !== "" && (await index.marker()) === state.marker
      return isOurs ? "behind" : "lost"
    },
    async renew(rebuild) {
      const marker = toHex(random(16))
      await state.open(marker)
      await rebuild()
      await index.setMarker(marker)
      hasCaughtUp = true
    },
    async catchUp(reconcile) {
      await reconcile()
      hasCaughtUp = true
    },
    keepSpare: () => index.keepSpare(),
    async close(isWhole) {
      await index.close()
      if (isWhole) await state.closeCleanly()
    },
  }
}

/** What several processes open, each for itself. */
export interface SharedIndex extends RelayIndex {
  /** Names the servers it is on, and this run of each. */
  servers(): Promise<string>
}

/**
 * An index on servers of its own. It is believed while it has the marker that the folder has: nobody else
 * writes that, and it goes with everything else. Servers that were started or replaced since this process
 * looked last may lack what was written last, so what the folder has is gone over again.
 */
export async function openSharedIndex(input: {
  readonly disk: Disk
  readonly folder: DataFolder
  readonly random: Random
  /** The index of that name, which no other folder's has. */
  readonly openIndex: (name: string) => Promise<SharedIndex>
}): Promise<FolderIndex> {
  const { disk, folder, random } = input
  const { identity } = await disk.stat(join(folder.path, "version"))
  const isOwnCopied = (await readIndexState(disk, folder))?.folder
  const known = await readSharedState(disk, folder)
  const isCopy = (known?.folder ?? isOwnCopied ?? identity) !== identity
  let state: SharedState =
    known === undefined || isCopy
      ? { name: toHex(random(8)), marker: "", folder: identity, torn: isCopy }
      : known
  if (state !== known) await save(state)
  await forget(disk, folder, stateName)
  const index = await input.openIndex(state.name)
  /** As they were when nothing was missing. */
  let servers: string | undefined

  async function save(next: SharedState): Promise<void> {
    const path = join(folder.path, sharedStateName)
    const fresh = `${path}.new`
    await unlessMissing(disk.unlink(fresh), undefined)
    await writeSyncedFile(disk, fresh, utf8(JSON.stringify(next)))
    await disk.rename(fresh, path)
    await disk.syncFolder(folder.path)
    state = next
  }

  return {
    kind: "redis",
    index,
    get isCopy() {
      return state.torn
    },
    async doubt() {
      const marker = await index.marker()
      // Another process may have made it anew.
      if (marker !== state.marker) state = (await readSharedState(disk, folder)) ?? state
      if (marker !== state.marker || marker === "") return "lost"
      return (await index.servers()) === servers ? undefined : "behind"
    },
    async renew(rebuild) {
      const asked = await index.servers()
      const marker = toHex(random(16))
      await save({ ...state, marker })
      await rebuild()
      await save({ ...state, torn: false })
      await index.setMarker(marker)
      servers = asked
    },
    async catchUp(reconcile) {
      const asked = await index.servers()
      await reconcile()
      servers = asked
    },
    keepSpare: () => Promise.resolve(),
    close: () => index.close(),
  }
}

interface SharedState {
  readonly name: string
  /** "" when there is no index to believe. */
  readonly marker: string
  /** The identity of the folder. */
  readonly folder: string
  /** What was copied in part is still to be dropped. */
  readonly torn: boolean
}

async function readSharedState(disk: Disk, folder: DataFolder): Promise<SharedState | undefined> {
  const bytes = await readSmallFile(disk, join(folder.path, sharedStateName), 1000)
  const said = bytes && parseFields(bytes)
  if (said === undefined) return undefined
  const { name, marker, torn } = said
  if (typeof name !== "string" || !/^[0-9a-f]{16}$/.test(name)) return undefined
  if (typeof marker !== "string" || typeof said["folder"] !== "string") return undefined
  if (typeof torn !== "boolean") return undefined
  return { name, marker, folder: said["folder"], torn }
}

/** The other kind of index is not kept up from now on. */
async function forget(disk: Disk, folder: DataFolder, name: string): Promise<void> {
  await unlessMissing(disk.unlink(join(folder.path, name)), undefined)
}

interface IndexState {
  /** "" when there is no index to believe. */
  readonly marker: string
  /** The folder was copied since a relay last worked in it, perhaps under a relay at work. */
  readonly isCopy: boolean
  /** Says that an index with this marker is being written. */
  open(marker: string): Promise<void>
  closeCleanly(): Promise<void>
}

async function openIndexState(
  disk: Disk,
  folder: DataFolder,
  boot: () => string,
): Promise<IndexState> {
  const path = join(folder.path, stateName)
  let marker = ""

  async function save(clean: boolean): Promise<void> {
    const fresh = `${path}.new`
    await unlessMissing(disk.unlink(fresh), undefined)
    const place = { boot: boot(), ...(await identities()) }
    await writeSyncedFile(disk, fresh, utf8(JSON.stringify({ marker, clean, ...place })))
    await disk.rename(fresh, path)
    await disk.syncFolder(folder.path)
  }

  /** "" for what is not there. */
  async function identities(): Promise<{ readonly index: string; readonly folder: string }> {
    const [index, version] = await Promise.all(
      [join(folder.index, "data.mdb"), join(folder.path, "version")].map((name) =>
        unlessMissing(disk.stat(name), undefined),
      ),
    )
    return { index: index?.identity ?? "", folder: version?.identity ?? "" }
  }

  async function open(newMarker: string): Promise<void> {
    marker = newMarker
    try {
      await folder.reserve.spendOn(() => save(false))
    } catch (error) {
      if (!isDiskFull(error)) throw error
      // Recipients are served from a full disk as well. Without the file the next start rebuilds the
      // index, which is all that the file could have saved it.
      await unlessMissing(disk.unlink(path), undefined)
      await disk.syncFolder(folder.path)
    }
  }

  const known = await readIndexState(disk, folder)
  const here = await identities()
  const isCopy =
    known !== undefined &&
    (known.folder !== here.folder || (here.index !== "" && known.index !== here.index))
  const isSameBoot = known !== undefined && known.boot !== "" && known.boot === boot()
  // A copy made while the index was being written may have pages of two moments.
  if (known !== undefined && !isCopy && (known.clean || isSameBoot)) {
    await open(known.marker)
  } else {
    await removeIndex(disk, folder.index)
  }
  return {
    get marker() {
      return marker
    },
    isCopy,
    open,
    async closeCleanly() {
      for (const name of await disk.list(folder.index)) {
        const file = await disk.open(join(folder.index, name), "read")
        try {
          await file.sync()
        } finally {
          await file.close()
        }
      }
      await disk.syncFolder(folder.index)
      try {
        await folder.reserve.spendOn(() => save(true))
      } catch (error) {
        // Then the index counts as one that was not closed.
        if (!isDiskFull(error)) throw error
      }
    },
  }
}

/** Before it is opened: after a power cut its pages may be anything, which its library does not expect. */
async function removeIndex(disk: Disk, path: string): Promise<void> {
  for (const name of await unlessMissing(disk.list(path), [])) await disk.unlink(join(path, name))
}

interface KnownIndexState {
  readonly marker: string
  readonly boot: string
  readonly clean: boolean
  /** The identities of the index's file and of the folder's. */
  readonly index: string
  readonly folder: string
}

async function readIndexState(
  disk: Disk,
  folder: DataFolder,
): Promise<KnownIndexState | undefined> {
  const bytes = await readSmallFile(disk, join(folder.path, stateName), 1000)
  const { marker, boot, clean, index, folder: identity } = (bytes && parseFields(bytes)) ?? {}
  if (typeof marker !== "string" || typeof boot !== "string") return undefined
  if (typeof clean !== "boolean" || typeof index !== "string") return undefined
  return typeof identity === "string" ? { marker, boot, clean, index, folder: identity } : undefined
}

function parseFields(bytes: Uint8Array): Partial<Record<string, unknown>> | undefined {
  let value: unknown
  try {
    value = JSON.parse(parseUtf8(bytes, stateName))
  } catch {
    return undefined
  }
  return typeof value === "object" && value !== null ? { ...value } : undefined
}
