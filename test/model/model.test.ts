import { assert } from "fast-check"
import { describe, expect, it } from "vitest"
import { hasRedis } from "../redis/servers.js"
import { type backendNames, embedded, openBackend } from "./backends.js"
import { relayIsItsModel } from "./commands.js"
import { twoAtOnce } from "./together.js"

/** The same ones each time; others are for `npm run test:model`. */
const slice = { seed: 4, endOnFailure: true }
const slowestMs = 300_000

async function checkOn(name: (typeof backendNames)[number], numRuns: number): Promise<void> {
  const backend = await openBackend(name)
  try {
    const { property, tally } = relayIsItsModel(backend)
    await assert(property, { ...slice, numRuns })
    expect(tally.runs).toBe(numRuns)
    expect(tally.commands).toBeGreaterThan(10 * numRuns)
    expect(tally.deaths).toBeGreaterThan(numRuns)
  } finally {
    await backend.close()
  }
}

describe("a relay is what the model of it says, whatever befalls it,", () => {
  it("on the embedded index", () => checkOn("embedded", 25), slowestMs)

  it(
    "and of two at once, where each step of one may come between any two of the other",
    async () => {
      await assert(twoAtOnce(embedded), { ...slice, numRuns: 12 })
    },
    slowestMs,
  )

  const what = "the model of a relay on a Redis"
  describe.runIf(hasRedis(what))(what, () => {
    it("of one server", () => checkOn("redis", 12), slowestMs)
    it("of three that are a cluster", () => checkOn("cluster", 8), slowestMs)
  })
})
