/**
 * What every "shown by" command ends with: its figures beside their bounds, printed and kept under
 * test-results/, and an exit code that says whether all of them held.
 */
import { mkdirSync, writeFileSync } from "node:fs"

export type Figure = {
  readonly what: string
  readonly value: number | string
  /** How the bound reads to a person, such as "≤ 200 MiB" or "= 0". */
  readonly bound: string
  readonly holds: boolean
}

export const atMost = (what: string, value: number, limit: number, unit = ""): Figure => ({
  what,
  value,
  bound: `≤ ${limit}${unit && ` ${unit}`}`,
  holds: value <= limit,
})

export const atLeast = (what: string, value: number, limit: number, unit = ""): Figure => ({
  what,
  value,
  bound: `≥ ${limit}${unit && ` ${unit}`}`,
  holds: value >= limit,
})

export const exactly = (what: string, value: number | string, wanted: number | string): Figure => ({
  what,
  value,
  bound: `= ${wanted}`,
  holds: value === wanted,
})

/** Prints and keeps the figures of one command; `details` goes to the file only. Sets the exit code. */
export function showFigures(name: string, figures: readonly Figure[], details: object = {}): void {
  const allHold = figures.length > 0 && figures.every((figure) => figure.holds)
  for (const { what, value, bound, holds } of figures) {
    console.log(`${holds ? "holds " : "MISSED"}  ${what}: ${value}  (bound ${bound})`)
  }
  mkdirSync("test-results", { recursive: true })
  const record = { name, allHold, node: process.version, figures, details }
  writeFileSync(`test-results/${name}.json`, `${JSON.stringify(record, null, 2)}\n`)
  console.log(
    `${name}: ${allHold ? "all bounds hold" : "a bound was missed"}; kept in test-results/${name}.json`,
  )
  if (!allHold) process.exitCode = 1
}
