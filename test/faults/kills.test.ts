import { expect, test } from "vitest"
import { runKills } from "./kills.js"

// A slice of what `npm run test:faults` does two thousand times.
test(
  "T20 a relay killed at any moment keeps every acknowledgement, and shows nothing by halves",
  { timeout: 120_000 },
  async () => {
    const { kills, counts, violation } = await runKills({ seed: 1, kills: 10 })
    expect(violation).toBeUndefined()
    expect(kills).toBe(10)
    // It would keep everything if nothing had been acknowledged.
    for (const what of ["receipts", "discards", "deliveries read", "checks"]) {
      expect(counts[what], what).toBeGreaterThan(0)
    }
  },
)
