// When the owner of an inbox was last there, in the inbox's own folder; and the removal of that folder,
// which is decided from it.
import { join } from "node:path"
import { type Random, toHex } from "../../protocol/index.js"
import { type Disk, readSmallFile, unlessMissing, writeSyncedFile } from "../disk.js"
import type { InboxId } from "../ids.js"
import type { DataFolder } from "./data-folder.js"
import { encodeLogin, parseLogin } from "./delivery-records.js"

const fileName = "login.v1"
const fileBytes = 200

export interface LoginRecords {
  /** By the count of days the relay served; undefined when nothing is known of one. */
  last(inbox: InboxId): Promise<number | undefined>
  /** Durable when it resolves. One caller at a time for each inbox. */
  save(inbox: InboxId, servedDay: number): Promise<void>
  /** Whether the inbox is on the disk. */
  has(inbox: InboxId): Promise<boolean>
  /** The inbox is not there any more, durably; what is left of it goes with the next sweep. */
  remove(inbox: InboxId): Promise<void>
}

export function openLoginRecords(input: {
  readonly disk: Disk
  readonly folder: Pick<DataFolder, "inboxes" | "trash">
  readonly recordKey: Uint8Array
  readonly random: Random
}): LoginRecords {
  const { disk, folder, recordKey, random } = input
  const folderOf = (inbox: InboxId) => join(folder.inboxes, inbox)

  return {
    async last(inbox) {
      const bytes = await readSmallFile(disk, join(folderOf(inbox), fileName), fileBytes)
      return bytes && parseLogin(recordKey, inbox, bytes)
    },

    async save(inbox, servedDay) {
      const file = join(folderOf(inbox), fileName)
      const fresh = `${file}.new`
      await unlessMissing(disk.unlink(fresh), undefined)
      await writeSyncedFile(disk, fresh, encodeLogin(recordKey, inbox, servedDay))
      await disk.rename(fresh, file)
      await disk.syncFolder(folderOf(inbox))
    },

    async has(inbox) {
      return (await unlessMissing(disk.stat(folderOf(inbox)), undefined)) !== undefined
    },

    async remove(inbox) {
      const target = join(folder.trash, `inbox-${toHex(random(8))}`)
      await unlessMissing(disk.rename(folderOf(inbox), target), undefined)
      await disk.syncFolder(folder.inboxes)
    },
  }
}
