import { rmSync } from "node:fs"
import { afterAll, describe, expect, it } from "vitest"
import { Draws } from "../fuzz/random.js"
import { faultsOf, operationsOf, problemsWith } from "./disk-faults.js"
import { makeScratch } from "./subject.js"

// Slices: `npm run test:faults` has every fault of every operation.
const scratch = makeScratch()
afterAll(() => rmSync(scratch, { recursive: true }))

describe("a relay whose disk fails and is well again", () => {
  it("T22 T23 loses nothing it promised and goes on, whichever operation failed and how", async () => {
    const faults = faultsOf(await operationsOf(scratch, "1"))
    expect(faults.length).toBeGreaterThan(1000)
    for (const fault of faults.filter((_, at) => at % 111 === 0)) {
      expect(await problemsWith(scratch, "1", [fault]), JSON.stringify(fault)).toEqual([])
    }
  }, 120_000)

  it("T22 T23 loses nothing it promised when two operations failed", async () => {
    const faults = faultsOf(await operationsOf(scratch, "2"))
    const draws = new Draws("two faults")
    for (let times = 0; times < 5; times++) {
      const two = [draws.pick(faults), draws.pick(faults)]
      expect(await problemsWith(scratch, "2", two), JSON.stringify(two)).toEqual([])
    }
  }, 120_000)
})
