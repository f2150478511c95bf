import { assert } from "fast-check"
import { expect, it } from "vitest"
import { relayIsItsModel } from "./commands.js"
import { embedded } from "./backends.js"

/** The same ones each time; others are for `npm run test:model`. */
const slice = { seed: 4, numRuns: 30, endOnFailure: true }

it("a relay is what the model of it says, whatever befalls it, on the embedded index", async () => {
  const { property, tally } = relayIsItsModel(embedded)
  await assert(property, slice)
  expect(tally.runs).toBe(slice.numRuns)
  expect(tally.commands).toBeGreaterThan(300)
  expect(tally.deaths).toBeGreaterThan(30)
}, 300_000)
