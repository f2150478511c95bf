import { openProxies } from "../../client/index.js"
import { describe, expect, it } from "vitest"
import { TransferState } from "../../client/program/progress.js"
import { whenMoved } from "../../client/program/context.js"

const MIB = 1024 * 1024
const drawBar = (share: number, size: number) =>
  "=".repeat(Math.round(share * size)).padEnd(size, "-")

describe("the line of progress", () => {
  it("names the phase while there is nothing to count", () => {
    const state = new TransferState()
    state.take({ kind: "phase", phase: "scanning" }, 0)
    expect(state.describe({ nowMs: 0, width: 80 })).toBe("scanning …")
    state.take({ kind: "count", done: 1200, total: undefined }, 1)
    expect(state.describe({ nowMs: 1, width: 80 })).toBe("scanning  1,200 so far")
    state.take({ kind: "phase", phase: "finishing" }, 2)
    expect(state.describe({ nowMs: 2, width: 80 })).toBe("finishing …")
  })

  it("shows share, amount, rate and what is left", () => {
    const state = new TransferState()
    state.take({ kind: "phase", phase: "fetching" }, 0)
    state.take({ kind: "bytes", done: 0, total: 100 * MIB, alreadyThere: 0 }, 0)
    state.take({ kind: "bytes", done: 50 * MIB, total: 100 * MIB, alreadyThere: 0 }, 5000)
    expect(state.describe({ nowMs: 5000, width: 100, drawBar })).toBe(
      "fetching  [===============---------------]   50 %  50.0 MiB / 100 MiB  10.0 MiB/s  5 s left",
    )
  })

  it("leaves what was there before out of the rate, and not out of the share", () => {
    const state = new TransferState()
    state.take({ kind: "bytes", done: 90 * MIB, total: 100 * MIB, alreadyThere: 90 * MIB }, 0)
    state.take({ kind: "bytes", done: 91 * MIB, total: 100 * MIB, alreadyThere: 90 * MIB }, 1000)
    expect(state.rate(1000)).toBe(MIB)
    expect(state.describe({ nowMs: 1000, width: 80 })).toContain("91 %")
  })

  it("forgets the rate of a while ago", () => {
    const state = new TransferState()
    for (let second = 0; second <= 30; second++) {
      const done = second <= 10 ? second * 100 * MIB : 1000 * MIB + (second - 10) * MIB
      state.take({ kind: "bytes", done, total: 2000 * MIB, alreadyThere: 0 }, second * 1000)
    }
    expect(state.rate(30_000)).toBe(MIB)
  })

  it("counts anew in every phase", () => {
    const state = new TransferState()
    state.take({ kind: "phase", phase: "fetching" }, 0)
    state.take({ kind: "bytes", done: MIB, total: MIB, alreadyThere: 0 }, 0)
    state.take({ kind: "phase", phase: "putting in place" }, 1)
    expect(state.describe({ nowMs: 1, width: 80 })).toBe("putting in place …")
  })

  it("says why nothing moves until something does again", () => {
    const state = new TransferState()
    state.take({ kind: "phase", phase: "fetching" }, 0)
    state.take({ kind: "bytes", done: MIB, total: 2 * MIB, alreadyThere: 0 }, 0)
    state.take({ kind: "retry", reason: "nothing listens there", delayMs: 1, attempt: 1 }, 1)
    expect(state.describe({ nowMs: 5000, width: 80 })).toBe(
      "fetching   50 %  1.00 MiB / 2.00 MiB  nothing listens there, trying again",
    )
    state.take({ kind: "bytes", done: 1.5 * MIB, total: 2 * MIB, alreadyThere: 0 }, 6000)
    expect(state.describe({ nowMs: 6000, width: 80 })).not.toContain("trying")
  })

  it("promises no end while nothing moves", () => {
    const state = new TransferState()
    state.take({ kind: "bytes", done: 0, total: 2 * MIB, alreadyThere: 0 }, 0)
    state.take({ kind: "bytes", done: MIB, total: 2 * MIB, alreadyThere: 0 }, 1000)
    expect(state.rate(60_000)).toBe(0)
    expect(state.describe({ nowMs: 60_000, width: 80 })).not.toContain("left")
  })

  it("draws no bar where the total is not known, and none that does not fit", () => {
    const state = new TransferState()
    state.take({ kind: "phase", phase: "sealing and sending" }, 0)
    state.take({ kind: "bytes", done: 3 * MIB, total: undefined, alreadyThere: 0 }, 0)
    expect(state.describe({ nowMs: 0, width: 80, drawBar })).toBe("sealing and sending  3.00 MiB")
    state.take({ kind: "bytes", done: 3 * MIB, total: 6 * MIB, alreadyThere: 0 }, 0)
    const narrow = state.describe({ nowMs: 0, width: 30, drawBar })
    expect(narrow).not.toContain("[")
    expect(narrow.length).toBeLessThanOrEqual(30)
  })

  it("is full, not undefined, for a delivery of no bytes", () => {
    const state = new TransferState()
    state.take({ kind: "bytes", done: 0, total: 0, alreadyThere: 0 }, 0)
    expect(state.describe({ nowMs: 0, width: 80 })).toContain("100 %")
  })
})

it("that something has arrived is said once, when something has", async () => {
  let times = 0
  const seen: number[] = []
  const { onProgress } = whenMoved(
    {
      signal: new AbortController().signal,
      proxies: await openProxies({}),
      onProgress: (event) => seen.push(event.kind === "bytes" ? event.done : -1),
    },
    () => (times += 1),
  )
  onProgress({ kind: "phase", phase: "fetching" })
  onProgress({ kind: "bytes", done: 0, total: 9, alreadyThere: 0 })
  expect(times).toBe(0)
  onProgress({ kind: "bytes", done: 4, total: 9, alreadyThere: 0 })
  onProgress({ kind: "bytes", done: 9, total: 9, alreadyThere: 0 })
  expect(times).toBe(1)
  expect(seen).toEqual([-1, 0, 4, 9])
})
