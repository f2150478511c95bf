// What time it is, for decisions that destroy something. Wall time is believed while it moves in step
// with the monotonic clock; after a jump of more than five minutes the relay goes on counting from what
// it believed before, deletes nothing, and says so, until the two have agreed for an hour
// or the operator says that the clock is right.
//
// What it tells never goes back, whatever the clock does: the relay signs times, and must not contradict
// what it signed before. Where the clock is behind, time passes at half its speed until it has caught up.
import { join } from "node:path"
import { utf8 } from "../protocol/index.js"
import type { Clock } from "./clock.js"
import { type Disk, readSmallFile, unlessMissing, writeSyncedFile } from "./disk.js"
import { failureFields, type Log } from "./log.js"

const toleratedMs = 5 * 60_000
const agreementMs = 60 * 60_000
const fileName = "clock"
/** What a head's `as of` may run ahead of an entry that is accepted and not visible yet. */
export const headLagMs: number = 5_000
const noteEveryMs = 2_000

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
  /** No later run of the relay begins before this, whatever the clock says then. */
  notedMs(): number
  /** Remembers how late it is, so that a clock set back while the relay is off is noticed. Durable. */
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
  let durableMs = notedMs
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
    notedMs: () => durableMs,
    async save() {
      const fresh = join(folder, `${fileName}.new`)
      await unlessMissing(disk.unlink(fresh), undefined)
      // Another relay on the folder may have noted more.
      const wallMs = Math.max(tell(), (await readNotedTime(disk, folder)).notedMs)
      await writeSyncedFile(disk, fresh, utf8(String(wallMs)))
      await disk.rename(fresh, file)
      await disk.syncFolder(folder)
      durableMs = wallMs
      if (wallMs > told.wallMs) told = { wallMs, monotonicMs: clock.monotonicMs() }
    },
  }
}

/**
 * Gives the time that a signed head may speak of. A run of the relay that begins after a crash, on a
 * machine whose clock was set back a little meanwhile, must not accept anything before that time: so it
 * is noted first, as often as that is worth a write, and where it cannot be noted the heads lag behind.
 */
export function createSignableTime(needs: {
  readonly watch: ClockWatch
  readonly save: () => Promise<void>
  readonly clock: Clock
  readonly log: Log
}): () => Promise<number> {
  const { watch, save, clock, log } = needs
  let failedMs = -Infinity
  let saving: Promise<void> | undefined

  async function note(): Promise<void> {
    try {
      await save()
    } catch (error) {
      // Recipients are served from a disk that takes nothing.
      failedMs = clock.monotonicMs()
      log("clock_not_noted", failureFields(error), "warning")
    } finally {
      saving = undefined
    }
  }

  return async () => {
    const nowMs = watch.nowMs()
    if (nowMs >= watch.notedMs() + noteEveryMs) {
      if (clock.monotonicMs() >= failedMs + noteEveryMs) saving ??= note()
      await saving
    }
    return Math.min(nowMs, watch.notedMs() + headLagMs - 1)
  }
}
