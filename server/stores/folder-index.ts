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
  /** Whether it was made from this folder and nothing that was written to it since is lost. */
  isCurrent(): Promise<boolean>
  /** Runs `rebuild`. An index is believed again only when that is done. */
  renew(rebuild: () => Promise<void>): Promise<void>
  /** Makes room for a time when there is none on the disk. */
  keepSpare(): Promise<void>
  /** `isWhole` when the next start may believe it. */
  close(isWhole: boolean): Promise<void>
}

const stateName = "index-state"

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
  const index = openIndex({ path: folder.index, now })
  return {
    kind: "embedded",
    index,
    isCopy: state.isCopy,
    async isCurrent() {
      return state.marker !== "" && (await index.marker()) === state.marker
    },
    async renew(rebuild) {
      const marker = toHex(random(16))
      await state.open(marker)
      await rebuild()
      await index.setMarker(marker)
    },
    keepSpare: () => index.keepSpare(),
    async close(isWhole) {
      await index.close()
      if (isWhole) await state.closeCleanly()
    },
  }
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

  const bytes = await readSmallFile(disk, path, 1000)
  const known = bytes === undefined ? undefined : parseIndexState(parseUtf8(bytes, stateName))
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

function parseIndexState(text: string): KnownIndexState | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof value !== "object" || value === null) return undefined
  if (!("marker" in value) || typeof value.marker !== "string") return undefined
  if (!("boot" in value) || typeof value.boot !== "string") return undefined
  if (!("clean" in value) || typeof value.clean !== "boolean") return undefined
  if (!("index" in value) || typeof value.index !== "string") return undefined
  if (!("folder" in value) || typeof value.folder !== "string") return undefined
  const { marker, boot, clean, index, folder } = value
  return { marker, boot, clean, index, folder }
}
