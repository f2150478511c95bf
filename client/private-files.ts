/** Files that only their owner may read, replaced so that a crash leaves the old one or the new one. */
import {
  accessSync,
  closeSync,
  constants,
  fstatSync,
  openSync,
  type PathLike,
  readFileSync,
} from "node:fs"
import { open, rename, rm } from "node:fs/promises"
import path from "node:path"
import { random, toHex } from "../protocol/index.js"
import { errorCode } from "./error-code.js"
import { moveIfFree } from "./hard-links.js"
import { makeFolder } from "./make-folder.js"

export async function makePrivateFolder(folder: string): Promise<void> {
  makeFolder(folder, 0o700)
}

/** Whether a file can be made there, found out before there is anything to put into it. */
export function checkFolderOf(file: string): void {
  // With a slash at its end, a path that leads to a file is refused as well.
  accessSync(path.join(path.dirname(path.resolve(file)), path.sep), constants.W_OK)
}

/** Replaces what was there. Durable when this ends. */
export async function replacePrivateFile(file: string, content: Uint8Array): Promise<void> {
  const temporary = await writeBeside(file, content)
  try {
    await rename(temporary, file)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
  await syncFolder(path.dirname(file))
}

/** Leaves what is there alone; false when there was something. Durable when this ends. */
export async function placePrivateFile(file: string, content: Uint8Array): Promise<boolean> {
  const temporary = await writeBeside(file, content)
  try {
    if (!(await moveIfFree(temporary, file))) return false
  } finally {
    await rm(temporary, { force: true })
  }
  await syncFolder(path.dirname(file))
  return true
}

async function writeBeside(file: string, content: Uint8Array): Promise<string> {
  const temporary = `${file}.${toHex(random(8))}.tmp`
  const handle = await open(
    temporary,
    constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
    0o600,
  )
  try {
    await handle.writeFile(content)
    await handle.sync()
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  } finally {
    await handle.close()
  }
  return temporary
}

const othersMayReadOrWrite = 0o077

export function isOpenToOthers({ mode }: { readonly mode: number }): boolean {
  return process.platform !== "win32" && (mode & othersMayReadOrWrite) !== 0
}

/**
 * Undefined when there is no such file. What others can read or write is refused, not quietly repaired,
 * and so is what is too large to be what it should: with what `refuse` makes of it.
 */
export function readPrivateFile(
  file: string,
  options: { mostBytes: number; refuse: (trouble: "open to others" | "too large") => Error },
): Uint8Array | undefined {
  let descriptor: number
  try {
    descriptor = openSync(file, constants.O_RDONLY)
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined
    throw error
  }
  try {
    const stats = fstatSync(descriptor)
    if (isOpenToOthers(stats)) throw options.refuse("open to others")
    if (stats.size > options.mostBytes) throw options.refuse("too large")
    return readFileSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
}

export async function syncFolder(folder: PathLike): Promise<void> {
  const handle = await open(folder, constants.O_RDONLY)
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
