import { describe, expect, test } from "vitest"
import { judgeClocks } from "../../client/doctor/clocks.js"

const minute = 60_000

describe("of three clocks", () => {
  test("that agree within what goes wrong for nobody, nothing is said", () => {
    expect(judgeClocks({ relay: 0, date: 0 })).toBeUndefined()
    expect(judgeClocks({ relay: -1.9 * minute, date: 1.9 * minute })).toBeUndefined()
    expect(judgeClocks({ relay: minute, date: undefined })).toBeUndefined()
  })

  test("the one that two others disagree with is off", () => {
    expect(judgeClocks({ relay: 0, date: -10 * minute })).toMatch(
      /^the clock of what stands before the relay is 10 minutes behind/,
    )
    expect(judgeClocks({ relay: 10 * minute, date: 0 })).toMatch(
      /^the relay's clock is 10 minutes ahead; that of what stands before it agrees/,
    )
  })

  test("of which two are one machine's, it cannot be told", () => {
    for (const date of [10 * minute, undefined]) {
      expect(judgeClocks({ relay: 10 * minute, date })).toMatch(/cannot be told from here$/)
    }
  })
})
