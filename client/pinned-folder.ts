/**
 * The way into a folder of the destination that nobody can lead elsewhere: each folder on it is opened
 * from the one above, links refused, and what is opened stays the same folder whatever its name becomes.
 * Node has no calls relative to an open folder; on Linux /proc stands in for them. Elsewhere the way is
 * looked at just before it is used, which leaves a moment.
 */
import { constants, existsSync } from "node:fs"
import { type FileHandle, lstat, open } from "node:fs/promises"
import path from "node:path"
import { errorCode } from "./error-code.js"
import { DestinationExists } from "./errors.js"

const openFiles = "/proc/self/fd"
const asFolder = constants.O_RDONLY | constants.O_DIRECTORY

export class PinnedFolders {
  readonly #into: string
  readonly #canPin = existsSync(openFiles)
  /** The last one that was asked for: those who move a tree ask folder by folder. */
  #pinned: { folder: string; handle: FileHandle } | undefined

  /** `into` itself is the owner's to name, and followed if it is a link. */
  constructor(into: string) {
    this.#into = into
  }

  /** A path to `folder`, `into` or below it; good until the next call. Throws DestinationExists. */
  async pathTo(folder: string): Promise<string> {
    if (this.#pinned?.folder !== folder) {
      await this.close()
      if (!this.#canPin) {
        await this.#look(folder)
        return folder
      }
      this.#pinned = { folder, handle: await this.#pin(folder) }
    }
    return `${openFiles}/${this.#pinned.handle.fd}`
  }

  async close(): Promise<void> {
    const pinned = this.#pinned
    this.#pinned = undefined
    await pinned?.handle.close()
  }

  async #pin(folder: string): Promise<FileHandle> {
    let handle = await open(this.#into, asFolder)
    for (const name of this.#namesTo(folder)) {
      const above = handle
      try {
        handle = await open(`${openFiles}/${above.fd}/${name}`, asFolder | constants.O_NOFOLLOW)
      } catch (error) {
        if (["ELOOP", "ENOTDIR"].includes(errorCode(error) ?? "")) {
          throw new DestinationExists([folder])
        }
        throw error
      } finally {
        await above.close()
      }
    }
    return handle
  }

  async #look(folder: string): Promise<void> {
    let at = this.#into
    for (const name of this.#namesTo(folder)) {
      at = path.join(at, name)
      if (!(await lstat(at)).isDirectory()) throw new DestinationExists([at])
    }
  }

  #namesTo(folder: string): string[] {
    return path
      .relative(this.#into, folder)
      .split(path.sep)
      .filter((name) => name !== "")
  }
}
