import { describe, expect, test } from "vitest"
import { Parallel, type Turn } from "../../client/parallel.js"

/** As many turns as there are now. */
async function takeAll(parallel: Parallel): Promise<Turn[]> {
  const turns: Turn[] = []
  for (;;) {
    const stop = new AbortController()
    const taking = parallel.turn(stop.signal).then(
      (turn) => turns.push(turn),
      () => undefined,
    )
    const before = turns.length
    await new Promise((resolve) => setImmediate(resolve))
    stop.abort()
    await taking
    if (turns.length === before) return turns
  }
}

async function countOf(parallel: Parallel): Promise<number> {
  const turns = await takeAll(parallel)
  for (const turn of turns) turn.end("failed")
  return turns.length
}

describe("requests that are on the wire at once", () => {
  test("are as many as they may be, and the next goes when one ends, however it ends", async () => {
    const parallel = new Parallel(3)
    const [first] = await takeAll(parallel)
    const next = parallel.turn(undefined)
    first?.end("failed")
    await next
    expect(await countOf(parallel)).toBe(0)
  })

  test("are half as many after a timeout, and never none", async () => {
    const told: number[] = []
    const parallel = new Parallel(6, (allowed) => told.push(allowed))
    for (const left of [3, 2, 1, 1]) {
      const turn = await parallel.turn(undefined)
      turn.end("timed out")
      expect(await countOf(parallel)).toBe(left)
    }
    expect(told).toEqual([3, 2, 1])
  })

  test("are halved once by those that time out together", async () => {
    const parallel = new Parallel(6)
    const turns = await takeAll(parallel)
    for (const turn of turns) turn.end("timed out")
    expect(await countOf(parallel)).toBe(3)
  })

  test("are not fewer for one that failed otherwise", async () => {
    const parallel = new Parallel(4)
    for (const turn of await takeAll(parallel)) turn.end("failed")
    expect(await countOf(parallel)).toBe(4)
  })

  test("become more again one by one when all goes well, up to what there was", async () => {
    const parallel = new Parallel(4)
    for (const turn of await takeAll(parallel)) turn.end("timed out")
    const seen = new Set<number>()
    for (let count = 0; count < 100; count++) {
      seen.add(await countOf(parallel))
      const turn = await parallel.turn(undefined)
      turn.end("answered")
    }
    expect([...seen]).toEqual([2, 3, 4])
  })

  test("one that is called off while it waits leaves its turn to the next", async () => {
    const parallel = new Parallel(1)
    const first = await parallel.turn(undefined)
    const stop = new AbortController()
    const calledOff = parallel.turn(stop.signal)
    const next = parallel.turn(undefined)
    const reason = new Error("enough")
    stop.abort(reason)
    await expect(calledOff).rejects.toBe(reason)
    first.end("answered")
    const turn = await next
    turn.end("answered")
    await expect(parallel.turn(stop.signal)).rejects.toBe(reason)
    expect(await countOf(parallel)).toBe(1)
  })
})
