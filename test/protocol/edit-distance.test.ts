import * as fc from "fast-check"
import { expect, test } from "vitest"
import { editDistance } from "../../protocol/index.js"

/** The whole table, as it is written in books (optimal string alignment). */
function wholeTable(a: string, b: string): number {
  const rows = [Array.from({ length: b.length + 1 }, (_, at) => at)]
  const at = (i: number, j: number) => rows[i]?.[j] ?? Infinity
  for (let i = 1; i <= a.length; i++) {
    rows[i] = [i]
    for (let j = 1; j <= b.length; j++) {
      const isSwap = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      rows[i]?.push(
        Math.min(
          at(i - 1, j) + 1,
          at(i, j - 1) + 1,
          at(i - 1, j - 1) + (a[i - 1] === b[j - 1] ? 0 : 1),
          isSwap ? at(i - 2, j - 2) + 1 : Infinity,
        ),
      )
    }
  }
  return at(a.length, b.length)
}

const names = fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength: 9 })

test("the distance of two names is that of the whole table, and Infinity beyond the most", () => {
  fc.assert(
    fc.property(names, names, fc.integer({ min: 0, max: 10 }), (a, b, most) => {
      const distance = wholeTable(a, b)
      expect(editDistance(a, b, most)).toBe(distance <= most ? distance : Infinity)
    }),
    { numRuns: 3000 },
  )
})
