// The relay's folder: who may use it, which version wrote it, and where things are in it.
//
//   version          the layout's number
//   lock, lock-*     who has the folder open (folder-lock.ts)
//   operator.sock    where a running relay answers its operator (operator/socket.ts)
//   reserve          room to start in on a full disk
//   clock            the latest wall time the relay has seen (clock-watch.ts)
//   days             how many days the relay has been there (served-days.ts)
//   index-state      which index belongs to this folder, and whether it outlived the last run
//                    (folder-index.ts); shared-index for one that is not in the folder
//   restored         that the folder is a backup that was put back (restoration.ts)
//   keys/            the relay's secrets (relay-keys.ts)
//   inboxes/<inbox>/ bundle, the log of the inbox's chain, and closed where its owner closed it
//                    (inbox-log.ts); login.v1 (login-records.ts)
//   spool/<id>/      an upload: upload.v1, and a file for each part
//   store/<id>/      a delivery: commit.v1, links.v1, leaves, manifest, and a file for each part
//   ended/<id>       what is remembered of a delivery that is gone
//   trash/           what is being removed
//   index/           the embedded index
//   share-*          which relays share the folder (folder-lock.ts)
//   locks/           what relays that share it take turns at (folder-locks.ts)
import { dirname, join } from "node:path"
import { parseUtf8, type Random, utf8 } from "../../protocol/index.js"
import { type Disk, hasCode, readSmallFile, unlessMissing, writeSyncedFile } from "../disk.js"
import { openReserve, type Reserve } from "../reserve.js"
import { DataFolderError, type FolderUse, isLockFile, lockFolder } from "./folder-lock.js"
import { type FolderLocks, openSharedLocks, ownLocks } from "./folder-locks.js"

const layoutVersion = 1
const folders = ["keys", "inboxes", "spool", "store", "ended", "trash", "index"] as const

export interface DataFolder {
  readonly path: string
  readonly inboxes: string
  readonly spool: string
  readonly store: string
  readonly ended: string
  readonly trash: string
  readonly keys: string
  readonly index: string
  /** For what a start must write. */
  readonly reserve: Reserve
  /** Other relays may work in it at the same time. */
  readonly isShared: boolean
  readonly locks: FolderLocks
  /** Lets the next relay in, where the folder is shared; until then this one has it to itself. */
  opened(): Promise<void>
  /** Gives the folder back. */
  release(): Promise<void>
}

/** Opens the folder, making it if it is not there, and keeps out of it whoever may not be there as well. */
export async function openDataFolder(input: {
  readonly disk: Disk
  readonly path: string
  readonly random: Random
  /** Alone, unless said otherwise. */
  readonly use?: FolderUse
}): Promise<DataFolder> {
  const { disk, path, random, use = { kind: "alone" } } = input
  await makeFolders(disk, path)
  await refuseOthersFiles(disk, path)
  const { mode } = await disk.stat(path)
  if ((mode & 0o077) !== 0) {
    throw new DataFolderError(
      `${path} can be read by others on this machine; run: chmod 700 '${path}'`,
    )
  }
  const reserve = openReserve({ disk, path: join(path, "reserve"), random })
  const hold = await reserve.spendOn(() => lockFolder(disk, path, use))
  let locks: FolderLocks
  try {
    await checkVersion(disk, path)
    // In this order, whatever a power cut keeps: a folder is known for a relay's by these two.
    if (!(await disk.list(path)).includes("keys")) {
      await disk.syncFolder(path)
      await disk.makeFolder(join(path, "keys"))
      await disk.syncFolder(path)
      await disk.syncFolder(dirname(path))
    }
    for (const name of folders) await ensureFolder(disk, join(path, name))
    locks = use.kind === "alone" ? ownLocks() : await sharedLocks()
    await disk.syncFolder(path)
  } catch (error) {
    await hold.release()
    throw error
  }

  async function sharedLocks(): Promise<FolderLocks> {
    const place = join(path, "locks")
    await ensureFolder(disk, place)
    return openSharedLocks({ disk, path: place, hold, random })
  }

  return {
    path,
    inboxes: join(path, "inboxes"),
    spool: join(path, "spool"),
    store: join(path, "store"),
    ended: join(path, "ended"),
    trash: join(path, "trash"),
    keys: join(path, "keys"),
    index: join(path, "index"),
    reserve,
    isShared: use.kind === "shared",
    locks,
    opened: () => hold.opened(),
    release: () => hold.release(),
  }
}

async function makeFolders(disk: Disk, path: string): Promise<void> {
  const facts = await unlessMissing(disk.stat(path), undefined)
  if (facts?.kind === "folder") return
  if (facts !== undefined) throw new DataFolderError(`${path} is not a folder`)
  const parent = dirname(path)
  if (parent !== path) await makeFolders(disk, parent)
  await ensureFolder(disk, path)
  await disk.syncFolder(parent)
}

/**
 * The relay removes what it does not know from its folders, and others have an `index` or a `store` as
 * well. Whatever has no keys yet may hold only what a start makes before them, and what a mount point has.
 */
async function refuseOthersFiles(disk: Disk, path: string): Promise<void> {
  const names = await disk.list(path)
  if (names.includes("version") && names.includes("keys")) return
  const own = ["version", "version.new", "lost+found"]
  if (names.every((name) => own.includes(name) || isLockFile(name))) return
  throw new DataFolderError(
    `${path} holds other files and is no relay's data folder; name an empty or new one with --data`,
  )
}

async function ensureFolder(disk: Disk, path: string): Promise<void> {
  try {
    await disk.makeFolder(path)
  } catch (error) {
    if (!hasCode(error, "EEXIST")) throw error
  }
}

async function checkVersion(disk: Disk, path: string): Promise<void> {
  const file = join(path, "version")
  const bytes = await readSmallFile(disk, file, 100)
  if (bytes === undefined) {
    // Under its name only when it is whole: an empty one would be some other version's.
    const fresh = `${file}.new`
    await unlessMissing(disk.unlink(fresh), undefined)
    await writeSyncedFile(disk, fresh, utf8(`${layoutVersion}\n`))
    await disk.rename(fresh, file)
    return
  }
  const text = parseUtf8(bytes, "version").trim()
  if (text === String(layoutVersion)) return
  throw new DataFolderError(
    /^[1-9][0-9]{0,5}$/.test(text)
      ? `${path} was written by a newer version of Knothole (layout ${text}; this one knows ${layoutVersion}): run that version or a later one, or choose another folder with --data`
      : `the file 'version' in ${path} says nothing this relay can read: restore the folder from a backup, or choose another one with --data`,
  )
}
