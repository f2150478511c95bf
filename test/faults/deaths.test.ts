import { rmSync } from "node:fs"
import { afterAll, describe, expect, it } from "vitest"
import { dieAt } from "./deaths.js"
import { record } from "./recording.js"
import { makeScratch } from "./subject.js"

const scratch = makeScratch()
afterAll(() => rmSync(scratch, { recursive: true }))

describe("a relay whose process ends", () => {
  it("T20 keeps every promise and shows nothing half, at whichever moment of a mixed load it ended", async () => {
    const recording = await record(scratch, "1", { actors: 3, actions: 3 })
    expect(recording.ledger.surprises).toEqual([])
    expect(recording.moments.length).toBeGreaterThan(300)
    // All of them are for `npm run test:faults`.
    for (const moment of recording.moments.filter(({ at }) => at % 9 === 0)) {
      expect(await dieAt(scratch, recording, moment), `after change ${moment.at}`).toEqual([])
    }
  }, 120_000)

  it("T20 comes up in a folder whose first start ended at any moment", async () => {
    const recording = await record(scratch, "1", { actors: 1, actions: 0 })
    const [alice] = recording.ledger.owners
    const registered = alice?.registered?.askedAt ?? 0
    expect(registered).toBeGreaterThan(30)
    for (const moment of recording.moments.slice(0, registered)) {
      expect(await dieAt(scratch, recording, moment), `after change ${moment.at}`).toEqual([])
    }
  }, 60_000)
})
