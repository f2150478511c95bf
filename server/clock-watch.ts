// What time it is, for decisions that destroy something. Wall time is believed while it moves in step
// with the monotonic clock; after a jump of more than five minutes the relay goes on counting from what
// it believed before, deletes nothing, and says so, until the two have agreed for an hour or the operator says that the clock is right.
//
// What it tells never goes back, whatever the clock does: the relay signs times, and must not contradict
// what it signed before. Where the clock is behind, time passes at half its speed until it has caught up.
import { join } from "node:path"
import { utf8 } from "../protocol/index.js"
import type { Clock } from "./clock.js"
import { type Disk, readSmallFile, unlessMissing, writeSyncedFile } from "./disk.js"
import type { Log } from "./log.js"

const toleratedMs = 5 * 60_000
const agreementMs = 60 * 60_000
const fileName = "clock"

interface Pair {
  readonly wallMs: number
  readonly monotonicMs: number
}

export interface ClockWatch {
  /** Milliseconds since 1970, as far as the relay believes the machine. */
  nowMs(): number
  /** Nothing may be deleted for its age while the clocks disagree. */
  isSuspicious(): boolean
  /** The operator's word that the wall clock is right. False when nobody doubted it. */
  confirm(): boolean
  /** Remembers how late it is, so that a clock set back while the relay is off is noticed. */
  save(): Promise<void>
}

/**
 * The time that a relay last noted in this folder, in milliseconds; 0 where it noted none, and where
 * what is there is no time.
 */
export async function readNotedTime(
  disk: Disk,
  folder: string,
): Promise<{ readonly notedMs: number; readonly isDamaged: boolean }> {
  const bytes = await readSmallFile(disk, join(folder, fileName), 100)
  if (bytes === undefined) return { notedMs: 0, isDamaged: false }
  // Byte by byte: what is no UTF-8 is damaged and no reason not to start.
  const text = String.fromCharCode(...bytes)
  const notedMs = /^[0-9]+$/.test(text) ? Number(text) : NaN
  return Number.isSafeInteger(notedMs)
    ? { notedMs, isDamaged: false }
    : { notedMs: 0, isDamaged: true }
}

export async function openClockWatch(input: {
  readonly clock: Clock
  readonly disk: Disk
  readonly folder: string
  readonly log: Log
}): Promise<ClockWatch> {
  const { clock, disk, folder, log } = input
  const file = join(folder, fileName)
  const read = (): Pair => ({ wallMs: clock.wallMs(), monotonicMs: clock.monotonicMs() })

  let believed = read()
  /** Set while the clocks disagree: since when the wall clock has kept step again. */
  let steadySince: Pair | undefined

  const { notedMs, isDamaged } = await readNotedTime(disk, folder)
  if (isDamaged) log("record_refused", {}, "alarm")
  // Later than noted is no alarm: a relay may be off for a month.
  if (believed.wallMs < notedMs - toleratedMs) {
    steadySince = believed
    believed = { ...believed, wallMs: notedMs }
    log("clock_behind", {}, "alarm")
  }

  let told: Pair = { ...believed, wallMs: Math.max(believed.wallMs, notedMs) }

  function projected(from: Pair, { monotonicMs }: Pair): number {
    return from.wallMs + (monotonicMs - from.monotonicMs)
  }

  function look(): number {
    const seen = read()
    const expectedMs = projected(believed, seen)
    const agrees = (from: Pair) => Math.abs(seen.wallMs - projected(from, seen)) <= toleratedMs
    if (steadySince === undefined) {
      if (agrees(believed)) {
        believed = seen
        return seen.wallMs
      }
      steadySince = seen
      log("clock_jumped", {}, "alarm")
      return expectedMs
    }
    if (!agrees(steadySince)) steadySince = seen
    if (seen.monotonicMs - steadySince.monotonicMs < agreementMs) return expectedMs
    steadySince = undefined
    believed = seen
    log("clock_steady")
    return seen.wallMs
  }

  function tell(): number {
    const wallMs = look()
    const monotonicMs = clock.monotonicMs()
    const slowedMs = told.wallMs + Math.max(0, monotonicMs - told.monotonicMs) / 2
    told = { wallMs: Math.max(wallMs, slowedMs), monotonicMs }
    return Math.floor(told.wallMs)
  }

  return {
    nowMs: tell,
    isSuspicious() {
      look()
      return steadySince !== undefined
    },
    confirm() {
      look()
      if (steadySince === undefined) return false
      steadySince = undefined
      believed = read()
      log("clock_confirmed")
      return true
    },
    async save() {
      const fresh = join(folder, `${fileName}.new`)
      await unlessMissing(disk.unlink(fresh), undefined)
      await writeSyncedFile(disk, fresh, utf8(String(tell())))
      await disk.rename(fresh, file)
    },
  }
}
