import { expect, test } from "vitest"
import { MIB } from "../../protocol/index.js"
import { SealingPool } from "../../client/sealer.js"
import { Slots } from "../../client/slots.js"

// Run from its sources, the client has no compiled thread beside it, so none can start.
test("threads that cannot start fail the work, and nobody waits for them in vain", async () => {
  const pool = new SealingPool(new Slots(4), 64 * MIB)
  const task = { kind: "open", pieces: [], segments: [] } as const
  const opening = pool.open(task).then(async ({ result }) => result)
  await expect(opening).rejects.toThrow("sealing-worker")
  await pool.close()
  await expect(pool.open(task)).rejects.toThrow()
})
