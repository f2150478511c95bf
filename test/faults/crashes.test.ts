import { rmSync } from "node:fs"
import { afterAll, describe, expect, it } from "vitest"
import { Draws } from "../fuzz/random.js"
import { cutsAt, deathAt, type Image, problemsAfter, problemsAfterBoth } from "./crashes.js"
import { unsyncedFiles } from "./memory-disk.js"
import { type Moment, record, recordDiscard, type Recording } from "./recording.js"
import { makeScratch } from "./subject.js"

// Slices of what `npm run test:faults` does a hundred thousand times.
const scratch = makeScratch()
afterAll(() => rmSync(scratch, { recursive: true }))

async function expectWell(recording: Recording, moment: Moment, image: Image, at: number) {
  const draws = new Draws(recording.seed, moment.at, at)
  const problems = await problemsAfter({ scratch, recording, moment, image, draws })
  expect(problems, `after change ${moment.at}, image ${at}, index ${image.left}`).toEqual([])
}

/** The moments of a first start, through the first answer to a user. */
function firstStart({ ledger, moments }: Recording): readonly Moment[] {
  const end = 1 + (ledger.owners[0]?.registered?.doneAt ?? 0)
  expect(end).toBeGreaterThan(60)
  return moments.slice(0, end)
}

describe("a relay whose process ends", () => {
  it("T20 keeps every promise and shows nothing half, at whichever moment of a mixed load", async () => {
    const recording = await record(scratch, "1", { actors: 3, actions: 3 })
    expect(recording.ledger.surprises).toEqual([])
    expect(recording.moments.length).toBeGreaterThan(300)
    for (const moment of recording.moments.filter(({ at }) => at % 11 === 0)) {
      await expectWell(recording, moment, deathAt(recording, moment), 0)
    }
  }, 120_000)

  it("T20 comes up in a folder whose first start ended at any moment", async () => {
    const recording = await record(scratch, "1", { actors: 1, actions: 0 })
    for (const moment of firstStart(recording)) {
      await expectWell(recording, moment, deathAt(recording, moment), 0)
    }
  }, 60_000)
})

describe("a relay whose machine loses its power", () => {
  it("T21 keeps every promise and shows nothing half, whatever of the unsynced is left", async () => {
    const recording = await record(scratch, "1", { actors: 3, actions: 2 })
    expect(recording.ledger.surprises).toEqual([])
    for (const moment of recording.moments.filter(({ at }) => at % 47 === 0)) {
      for (const [at, image] of cutsAt(recording, moment, 12).images.entries()) {
        await expectWell(recording, moment, image, at)
      }
    }
  }, 120_000)

  it("T21 comes up in a folder whose first start was cut off at any moment", async () => {
    const recording = await record(scratch, "2", { actors: 1, actions: 0 })
    for (const moment of firstStart(recording)) {
      for (const [at, image] of cutsAt(recording, moment, 3).images.entries()) {
        await expectWell(recording, moment, image, at)
      }
    }
  }, 120_000)

  it("T21 takes nothing back that it said after a death, of which it had nothing but the disk", async () => {
    const recording = await recordDiscard(scratch, "3")
    const inLogs = recording.moments.filter(({ disk }) =>
      unsyncedFiles(disk).some((path) => path.endsWith("/log.v1")),
    )
    // A publication and a burial, each of which is written in two halves.
    expect(inLogs.length).toBeGreaterThanOrEqual(4)
    for (const moment of inLogs) {
      const image = deathAt(recording, moment)
      const crash = { scratch, recording, moment, image, draws: new Draws(moment.at) }
      expect(await problemsAfterBoth(crash), `after change ${moment.at}`).toEqual([])
    }
  }, 120_000)
})
