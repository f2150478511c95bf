import { describe, expect, test } from "vitest"
import { hasRedis } from "../redis/servers.js"
import { type KillsOptions, runKills } from "./kills.js"

// Slices of what `npm run test:faults` does two thousand times.

async function keepsAllThrough(options: KillsOptions): Promise<void> {
  const { kills, counts, violation } = await runKills(options)
  expect(violation).toBeUndefined()
  expect(kills).toBeGreaterThanOrEqual(options.kills)
  // It would keep everything if nothing had been acknowledged.
  for (const what of ["receipts", "deliveries read", "checks"]) {
    expect(counts[what], what).toBeGreaterThan(0)
  }
}

test(
  "T20 a relay killed at any moment keeps every acknowledgement, and shows nothing by halves",
  { timeout: 120_000 },
  () => keepsAllThrough({ seed: 1, kills: 10 }),
)

const title = "T24 two relays on one folder, of whom one is killed at any moment, or their Redis,"
describe.skipIf(!hasRedis(title))(title, () => {
  test.each(["everysec", "nothing"] as const)(
    "keep every acknowledgement when Redis keeps %s",
    { timeout: 120_000 },
    (keeps) => keepsAllThrough({ seed: 1, kills: 3, redis: { keeps, relays: 2 } }),
  )
})
