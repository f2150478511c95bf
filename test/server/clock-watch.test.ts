import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { type ClockWatch, openClockWatch } from "../../server/clock-watch.js"
import { nodeDisk } from "../../server/node-disk.js"
import { ManualClock } from "./manual-clock.js"

const minuteMs = 60_000
const startMs = 1_790_000_000_000

describe("the watch over the clock", () => {
  let folder: string

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "knothole-clock-"))
  })

  afterEach(() => rmSync(folder, { recursive: true }))

  const open = (clock: ManualClock): Promise<ClockWatch> =>
    openClockWatch({ clock, disk: nodeDisk, folder, log: () => undefined })

  it("never goes back when the clock is set back a little, and goes slower until it is right again", async () => {
    const clock = new ManualClock(startMs)
    const watch = await open(clock)
    clock.advance(10 * minuteMs)
    expect(watch.nowMs()).toBe(startMs + 10 * minuteMs)
    clock.jump(-4 * minuteMs)
    expect(watch.nowMs()).toBe(startMs + 10 * minuteMs)
    expect(watch.isSuspicious()).toBe(false)
    clock.advance(2 * minuteMs)
    expect(watch.nowMs()).toBe(startMs + 11 * minuteMs)
    clock.advance(6 * minuteMs)
    expect(watch.nowMs()).toBe(startMs + 14 * minuteMs)
    clock.advance(minuteMs)
    expect(watch.nowMs()).toBe(startMs + 15 * minuteMs)
  })

  it("begins no earlier than an earlier run was, though the clock was set back a little meanwhile", async () => {
    const before = await open(new ManualClock(startMs))
    await before.save()
    const watch = await open(new ManualClock(startMs - minuteMs))
    expect(watch.nowMs()).toBe(startMs)
    expect(watch.isSuspicious()).toBe(false)
  })

  it("believes the clock at the operator's word, for what comes after it too", async () => {
    const clock = new ManualClock(startMs)
    const watch = await open(clock)
    expect(watch.confirm()).toBe(false)
    clock.jump(86_400_000)
    expect(watch.isSuspicious()).toBe(true)
    expect(watch.nowMs()).toBe(startMs)
    expect(watch.confirm()).toBe(true)
    expect(watch.isSuspicious()).toBe(false)
    expect(watch.nowMs()).toBe(startMs + 86_400_000)
    clock.jump(-2 * 86_400_000)
    expect(watch.isSuspicious()).toBe(true)
    expect(watch.confirm()).toBe(true)
    expect(watch.isSuspicious()).toBe(false)
    // What was told before is not taken back.
    expect(watch.nowMs()).toBe(startMs + 86_400_000)
  })

  it("believes an earlier clock than the last run noted at the operator's word", async () => {
    await (await open(new ManualClock(startMs))).save()
    const watch = await open(new ManualClock(startMs - 86_400_000))
    expect(watch.isSuspicious()).toBe(true)
    expect(watch.confirm()).toBe(true)
    expect(watch.isSuspicious()).toBe(false)
    expect(watch.nowMs()).toBe(startMs)
  })

  it("takes what is damaged for nothing noted, and says so", async () => {
    for (const damaged of ["17900000x0000", "-5", "1e3", "", "1.5", "9".repeat(16), "\xff\xfe"]) {
      writeFileSync(join(folder, "clock"), damaged, "latin1")
      const said: unknown[] = []
      const log = (...line: unknown[]) => void said.push(line)
      const clock = new ManualClock(startMs)
      const watch = await openClockWatch({ clock, disk: nodeDisk, folder, log })
      expect([damaged, watch.nowMs()]).toEqual([damaged, startMs])
      expect(watch.isSuspicious()).toBe(false)
      expect(said).toEqual([["record_refused", {}, "alarm"]])
      await watch.save()
      expect((await open(clock)).nowMs()).toBe(startMs)
    }
  })

  it("does not go back either when a clock that was far ahead has been set right for an hour", async () => {
    const clock = new ManualClock(startMs)
    const watch = await open(clock)
    clock.jump(-86_400_000)
    expect(watch.nowMs()).toBe(startMs)
    let latestMs = startMs
    for (let minute = 0; minute < 70; minute++) {
      clock.advance(minuteMs)
      const nowMs = watch.nowMs()
      expect(nowMs).toBeGreaterThan(latestMs)
      latestMs = nowMs
    }
    expect(watch.isSuspicious()).toBe(false)
  })
})
