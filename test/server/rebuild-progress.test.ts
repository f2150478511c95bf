import { describe, expect, it } from "vitest"
import { createRebuildProgress } from "../../server/rebuild-progress.js"
import { ManualClock } from "./manual-clock.js"

describe("the progress of a rebuild", () => {
  it("tells clients to come back when it will be done at the pace so far, within a minute", () => {
    const clock = new ManualClock()
    const progress = createRebuildProgress(clock, () => undefined)
    expect(progress.retryAfterSeconds()).toBe(2)
    progress.note({ done: 0, total: 100_000 })
    expect(progress.retryAfterSeconds()).toBe(2)
    clock.advance(1000)
    progress.note({ done: 1000, total: 100_000 })
    expect(progress.retryAfterSeconds()).toBe(60)
    clock.advance(9000)
    progress.note({ done: 70_000, total: 100_000 })
    expect(progress.retryAfterSeconds()).toBe(6)
    progress.note({ done: 100_000, total: 100_000 })
    expect(progress.retryAfterSeconds()).toBe(2)
    clock.advance(50_000)
    expect(progress.retryAfterSeconds()).toBe(6)
    expect(progress.rebuilt()).toEqual({ done: 100_000, total: 100_000 })
    // Another one, later.
    clock.advance(3_600_000)
    progress.note({ done: 0, total: 100_000 })
    expect(progress.retryAfterSeconds()).toBe(2)
    clock.advance(1000)
    progress.note({ done: 50_000, total: 100_000 })
    expect(progress.retryAfterSeconds()).toBe(2)
  })

  it("goes to the log every five seconds and no more often", () => {
    const clock = new ManualClock()
    const lines: unknown[] = []
    const progress = createRebuildProgress(clock, (...line: unknown[]) => void lines.push(line))
    for (let done = 0; done <= 110; done++) {
      progress.note({ done, total: 110 })
      clock.advance(100)
    }
    expect(lines).toEqual([
      ["index_rebuilding", { count: 50, total: 110 }],
      ["index_rebuilding", { count: 100, total: 110 }],
    ])
  })
})
