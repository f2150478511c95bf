import { readFileSync } from "node:fs"
import { expect, test } from "vitest"
import { mutants } from "./list.js"

test("every listed sabotage still has its line, once, and changes it", () => {
  for (const { id, file, find, replace } of mutants) {
    const times = readFileSync(file, "utf8").split(find).length - 1
    expect(times, `${id} in ${file}`).toBe(1)
    expect(find, id).not.toMatch("\n")
    expect(replace, id).not.toBe(find)
  }
})

test("no two sabotages have one name", () => {
  const ids = mutants.map(({ id }) => id)
  expect(new Set(ids).size).toBe(ids.length)
})
