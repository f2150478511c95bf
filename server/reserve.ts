// A file that only takes up room, to be given up on a full disk for the one step that must not fail.
import { KIB, type Random } from "../protocol/index.js"
import { type Disk, hasCode, isDiskFull, unlessMissing, writeSyncedFile } from "./disk.js"

export interface Reserve {
  /** Makes the file, if it is not there and there is room for it. */
  keep(): Promise<void>
  /** Runs `step`, and once more with the room that the file took if the disk is full. */
  spendOn<T>(step: () => Promise<T>): Promise<T>
}

/** Many small records' worth, and what else a file system wants for them. */
const reserveBytes = 256 * KIB

export function openReserve(input: {
  readonly disk: Disk
  readonly path: string
  readonly random: Random
}): Reserve {
  const { disk, path, random } = input
  return {
    async keep() {
      if ((await unlessMissing(disk.stat(path), undefined)) !== undefined) return
      try {
        // Random, because some file systems compress.
        await writeSyncedFile(disk, path, random(reserveBytes))
      } catch (error) {
        // Another relay that shares the folder makes it just now.
        if (!isDiskFull(error) && !hasCode(error, "EEXIST")) throw error
      }
    },

    async spendOn(step) {
      try {
        return await step()
      } catch (error) {
        if (!isDiskFull(error)) throw error
        await unlessMissing(disk.unlink(path), undefined)
        return step()
      }
    },
  }
}
