/**
 * A name for a file that nothing else has. A hard link, unlike a rename, never takes the place of what is
 * there; FAT, exFAT and much of what is mounted over a network or by FUSE have none.
 */
import { link, lstat, rename, unlink } from "node:fs/promises"
import { errorCode } from "./error-code.js"

/**
 * EACCES is Android's answer, EISDIR that of FAT on Windows. What is refused for another reason is
 * refused again by whatever is tried in place of a link.
 */
const withoutLinks = ["EPERM", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EMLINK", "EACCES", "EISDIR"]

export async function linkIfFree(from: string, to: string): Promise<"done" | "taken" | "no links"> {
  try {
    await link(from, to)
    return "done"
  } catch (error) {
    const code = errorCode(error) ?? ""
    if (code === "EEXIST") return "taken"
    if (withoutLinks.includes(code)) return "no links"
    throw error
  }
}

/** False when there was something, which stays, and so does `from`. No folders. */
export async function moveIfFree(from: string, to: string): Promise<boolean> {
  const linked = await linkIfFree(from, to)
  if (linked === "taken") return false
  if (linked === "done") {
    await unlink(from)
    return true
  }
  // The best that is left. Taking the name with an empty file first would close this gap, but a crash
  // behind that would leave an empty key, or a name in the way of the next run.
  if (await isThere(to)) return false
  await rename(from, to)
  return true
}

async function isThere(file: string): Promise<boolean> {
  try {
    await lstat(file)
    return true
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false
    throw error
  }
}
