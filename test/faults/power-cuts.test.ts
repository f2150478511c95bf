import { rmSync } from "node:fs"
import { afterAll, describe, expect, it } from "vitest"
import { Draws } from "../fuzz/random.js"
import { cutAt, imagesOf } from "./power-cuts.js"
import { type Moment, record, type Recording } from "./recording.js"
import { makeScratch } from "./subject.js"

const scratch = makeScratch()
afterAll(() => rmSync(scratch, { recursive: true }))

async function expectWell(recording: Recording, moment: Moment, most: number): Promise<void> {
  const draws = new Draws(recording.seed, "cuts", moment.at)
  for (const [at, image] of imagesOf(recording, moment, most, draws).images.entries()) {
    const { disk, index, left } = image
    const goesOn = at % 2 === 0
    const problems = await cutAt({ scratch, recording, moment, disk, index, goesOn })
    expect(problems, `after change ${moment.at}, image ${at}, index ${left}`).toEqual([])
  }
}

describe("a relay whose machine loses its power", () => {
  it("T21 keeps every promise and shows nothing half, whatever of the unsynced reached the disk", async () => {
    const recording = await record(scratch, "1", { actors: 3, actions: 2 })
    expect(recording.ledger.surprises).toEqual([])
    // All of them are for `npm run test:faults`.
    for (const moment of recording.moments.filter(({ at }) => at % 29 === 0)) {
      await expectWell(recording, moment, 12)
    }
  }, 120_000)

  it("T21 comes up in a folder whose first start was cut off at any moment", async () => {
    const recording = await record(scratch, "2", { actors: 1, actions: 0 })
    const [alice] = recording.ledger.owners
    const end = 1 + (alice?.registered?.doneAt ?? 0)
    expect(end).toBeGreaterThan(60)
    for (const moment of recording.moments.slice(0, end)) await expectWell(recording, moment, 3)
  }, 120_000)
})
