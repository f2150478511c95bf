import { expect, it, vi } from "vitest"
import { pathAsShown } from "../../client/program/receive.js"
import { UsageError } from "../../client/program/errors.js"

const bell = "\u0007"

it("an entry is meant by its path, by what show makes of it, and by that of a folder above it", () => {
  const paths = [`in/${bell}/x${bell}`, "in/plain", "in/plain too"]
  for (const written of ["in/plain", "in", `in/${bell}`, `in/${bell}/x${bell}`]) {
    expect(pathAsShown(paths, written)).toBe(written)
  }
  expect(pathAsShown(paths, String.raw`in/\x07`)).toBe(`in/${bell}`)
  expect(pathAsShown(paths, String.raw`in/\x07/x\x07`)).toBe(`in/${bell}/x${bell}`)
  // The library refuses these by name.
  for (const written of ["in/pla", String.raw`in/\x07/x`, ""]) {
    expect(pathAsShown(paths, written)).toBe(written)
  }
})

it("an entry named as two are shown is asked for by its own name, unless it is the name itself", () => {
  const shown = String.raw`in/\x07`
  expect(pathAsShown([`in/${bell}`, shown], shown)).toBe(shown)
  const two = [`${bell}/\\x07/a`, `\\x07/${bell}/a`]
  expect(() => pathAsShown(two, String.raw`\x07/\x07`)).toThrow(UsageError)
  expect(() => pathAsShown(two, String.raw`\x07/\x07`)).toThrow("2 entries")
})

it("T17 what deep paths are shown as is looked at once, not once for each folder on the way", () => {
  const paths = Array.from({ length: 6000 }, (_, index) => `${index}${"/folder".repeat(63)}`)
  let characters = 0
  const counting = vi.spyOn(String.prototype, "replace")
  try {
    expect(pathAsShown(paths, "no such")).toBe("no such")
  } finally {
    characters = counting.mock.contexts.reduce<number>((sum, text) => sum + String(text).length, 0)
    counting.mockRestore()
  }
  expect(characters).toBeLessThan(2 * paths.join("").length)
})
