// The relay's folder: who may use it, which version wrote it, and where things are in it.
//
//   version          the layout's number
//   lock             who has the folder open
//   operator.sock    where a running relay answers its operator (operator/socket.ts)
//   clock            the latest wall time the relay has seen (clock-watch.ts)
//   index-state      which index belongs to this folder, and whether it outlived the last run
//   keys/            the relay's secrets (relay-keys.ts)
//   inboxes/<inbox>/ bundle, and the log of the inbox's chain (inbox-log.ts)
//   spool/<id>/      an upload: upload.v1, and a file for each part
//   store/<id>/      a delivery: commit.v1, links.v1, leaves, manifest, and a file for each part
//   ended/<id>       what is remembered of a delivery that is gone
//   trash/           what is being removed
//   index/           the embedded index
import { randomUUID } from "node:crypto"
import { readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { parseUtf8, utf8 } from "../../protocol/index.js"
import { type Disk, hasCode, readSmallFile, unlessMissing, writeSyncedFile } from "../disk.js"

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
  /** Gives the folder back. */
  release(): Promise<void>
}

/** A folder the relay will not work in; the message says what to do about it. */
export class DataFolderError extends Error {
  override readonly name = "DataFolderError"
}

/** Opens the folder, making it if it is not there, and keeps other relays out of it. */
export async function openDataFolder(disk: Disk, path: string): Promise<DataFolder> {
  await makeFolders(disk, path)
  const { mode } = await disk.stat(path)
  if ((mode & 0o077) !== 0) {
    throw new DataFolderError(
      `${path} can be read by others on this machine; run: chmod 700 '${path}'`,
    )
  }
  const release = await lockFolder(disk, path)
  try {
    await checkVersion(disk, path)
    for (const name of folders) await ensureFolder(disk, join(path, name))
    await disk.syncFolder(path)
  } catch (error) {
    await release()
    throw error
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
    release,
  }
}

async function makeFolders(disk: Disk, path: string): Promise<void> {
  const facts = await unlessMissing(disk.stat(path), undefined)
  if (facts?.kind === "folder") return
  if (facts !== undefined) throw new DataFolderError(`${path} is not a folder`)
  if (dirname(path) !== path) await makeFolders(disk, dirname(path))
  await ensureFolder(disk, path)
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
    await writeSyncedFile(disk, file, utf8(`${layoutVersion}\n`))
    return
  }
  const text = parseUtf8(bytes, "version").trim()
  if (text !== String(layoutVersion)) {
    throw new DataFolderError(
      `${path} was written by another version of Knothole (layout ${text}, this one is ${layoutVersion})`,
    )
  }
}

// The lock. A file names the process that has the folder; it counts while that process lives. The
// process's start time tells it from a later one with the same number.

/** A lock file that says nothing is one that is being written, for this long. */
const writtenWithinMs = 10_000
const heldHere = new Set<string>()

async function lockFolder(disk: Disk, path: string): Promise<() => Promise<void>> {
  const file = join(path, "lock")
  const holder = { pid: process.pid, started: startTime(process.pid), token: randomUUID() }
  const text = JSON.stringify(holder)
  for (let attempt = 0; attempt < 3; attempt++) {
    try {
      const lock = await disk.create(file)
      try {
        await lock.write(utf8(text), 0)
      } finally {
        await lock.close()
      }
      heldHere.add(holder.token)
      return async () => {
        heldHere.delete(holder.token)
        await unlessMissing(disk.unlink(file), undefined)
      }
    } catch (error) {
      if (!hasCode(error, "EEXIST")) throw error
      const known = await readSmallFile(disk, file, 1000)
      const holder = known === undefined ? undefined : parseHolder(known)
      const isTaken = holder === undefined ? await isFresh(disk, file) : isHeld(holder)
      if (isTaken) {
        throw new DataFolderError(`${path} is in use by another relay`, { cause: error })
      }
      await unlessMissing(disk.unlink(file), undefined)
    }
  }
  throw new DataFolderError(`${path} is being opened by another relay`)
}

/** Undefined for a file that is being written, or whose writer died over it. */
function parseHolder(bytes: Uint8Array): { readonly said: unknown } | undefined {
  try {
    return { said: JSON.parse(parseUtf8(bytes, "lock")) }
  } catch {
    return undefined
  }
}

async function isFresh(disk: Disk, file: string): Promise<boolean> {
  const facts = await unlessMissing(disk.stat(file), undefined)
  return facts !== undefined && Date.now() - facts.modifiedMs < writtenWithinMs
}

function isHeld({ said: holder }: { readonly said: unknown }): boolean {
  if (typeof holder !== "object" || holder === null) return false
  if (!("pid" in holder) || typeof holder.pid !== "number") return false
  const token = "token" in holder && typeof holder.token === "string" ? holder.token : ""
  if (holder.pid === process.pid) return heldHere.has(token)
  const started = "started" in holder ? holder.started : undefined
  return isAlive(holder.pid) && started === startTime(holder.pid)
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return hasCode(error, "EPERM")
  }
}

/** In ticks since the machine started; null where /proc is not there to ask. */
function startTime(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    // Field 22; the second one, the program's name, may hold anything and ends at the last bracket.
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? null
  } catch {
    return null
  }
}

/** Names this start of the machine, or "" where that cannot be known. */
export function bootId(): string {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()
  } catch {
    return ""
  }
}
