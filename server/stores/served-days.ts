// How many days the relay has been there. An inbox is given up after so many of them, and not after so
// much time: while a relay is off nobody can log in to it, and a clock that leaps ahead, or was wrong
// when the relay started, makes one day of however many it skips.
import { join } from "node:path"
import { type Disk, readSmallFile, unlessMissing, writeSyncedFile } from "../disk.js"
import { failureFields, type Log } from "../log.js"
import { type Days, encodeDays, parseDays } from "./delivery-records.js"
import { DamagedRecord } from "./maced-record.js"

const dayMs = 86_400_000
const fileName = "days"
const fileBytes = 200

export interface ServedDays {
  readonly count: number
  /**
   * Counts the day it is at `nowMs`, if it is a later one than any before. Durable when it resolves. One
   * caller at a time.
   */
  note(nowMs: number): Promise<void>
}

export async function openServedDays(input: {
  readonly disk: Disk
  readonly folder: string
  readonly recordKey: Uint8Array
  readonly log: Log
  readonly nowMs: number
}): Promise<ServedDays> {
  const { disk, folder, recordKey, log, nowMs } = input
  const file = join(folder, fileName)
  // Nothing is written yet: a relay has to start on a full disk, too.
  let days: Days = (await read()) ?? { day: Math.floor(nowMs / dayMs), count: 0 }

  async function read(): Promise<Days | undefined> {
    const bytes = await readSmallFile(disk, file, fileBytes)
    try {
      return bytes && parseDays(recordKey, bytes)
    } catch (error) {
      // The count begins anew. It is behind what inboxes remember then, and they begin anew with it.
      if (!(error instanceof DamagedRecord)) throw error
      log("record_refused", failureFields(error), "alarm")
      return undefined
    }
  }

  return {
    get count() {
      return days.count
    },
    async note(nowMs) {
      const day = Math.floor(nowMs / dayMs)
      if (day <= days.day) return
      // Another relay that shares the folder may have counted since.
      days = (await read()) ?? days
      if (day <= days.day) return
      const next = { day, count: days.count + 1 }
      const fresh = `${file}.new`
      await unlessMissing(disk.unlink(fresh), undefined)
      await writeSyncedFile(disk, fresh, encodeDays(recordKey, next))
      await disk.rename(fresh, file)
      await disk.syncFolder(folder)
      days = next
    },
  }
}
