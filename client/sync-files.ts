/** Getting a tree of many small files onto stable storage, and knowing that it is there. */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { open, statfs } from "node:fs/promises"
import { release } from "node:os"
import { syncFolder } from "./private-files.js"

/** From here on a process is started and one request made instead of one for each file. */
const manyFiles = 256
/** Syncs under way at once: the disk merges what it gets together. */
const syncsAtOnce = 8

/**
 * By `f_type` of statfs(2): ext4, XFS, Btrfs, F2FS and tmpfs. Of these it is known that syncfs(2) returns
 * after everything is on the disk; through FUSE and overlays it may return before.
 */
const syncedAsWhole = new Set([0xef53, 0x58465342, 0x9123683e, 0xf2f52010, 0x01021994])

/**
 * Ends when the content of `files` and the names in `folders` are on stable storage; all lie below `tree`.
 * A file at a time costs a flush of the disk's cache for each, which for small ones is more than all else
 * together. Many are synced with everything else on their file system in one go where the kernel promises
 * to tell of pages that could not be written; where that cannot be had, or does not succeed, one by one as
 * well. Once it is called off it passes over the folders that are left, because many take minutes.
 */
export async function syncTree(
  tree: string,
  content: { files: readonly string[]; folders: readonly string[] },
  signal?: AbortSignal,
): Promise<void> {
  const { files, folders } = content
  if (files.length + folders.length >= manyFiles && (await syncFileSystem(tree))) return
  await eachOf(files, syncsAtOnce, async (file) => {
    const handle = await open(file, "r")
    try {
      await handle.datasync()
    } finally {
      await handle.close()
    }
  })
  await eachOf(folders, syncsAtOnce, async (folder) => {
    if (signal?.aborted !== true) await syncFolder(folder)
  })
}

/** False when it did not succeed, or cannot be relied on here. */
async function syncFileSystem(folder: string): Promise<boolean> {
  if (!reportsErrors() || !syncedAsWhole.has((await statfs(folder)).type)) return false
  // Node has no syncfs; sync(1) of coreutils and BusyBox does just this with -f.
  const child = spawn("sync", ["-f", "--", folder], { stdio: "ignore" })
  try {
    const [code] = await once(child, "exit")
    return code === 0
  } catch {
    return false
  }
}

/** syncfs(2): only since Linux 5.8 it fails when a page could not be written since the last such call. */
function reportsErrors(): boolean {
  if (process.platform !== "linux") return false
  const [major = 0, minor = 0] = release().split(".").map(Number)
  return major > 5 || (major === 5 && minor >= 8)
}

export async function eachOf<T>(
  items: readonly T[],
  atOnce: number,
  use: (item: T) => Promise<void>,
): Promise<void> {
  const next = items.values()
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      for (const item of next) await use(item)
    }),
  )
}
