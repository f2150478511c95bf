import { describe, expect, test } from "vitest"
import { isWindowsPath } from "../../client/windows-names.js"

describe("a path", () => {
  test.each(["letter.txt", "a/b c/d.e", "console", "com", "lpt10", ".hidden", "nulls/x", "ä¹"])(
    "that means the same on Windows is taken (%s)",
    (path) => {
      expect(isWindowsPath(path)).toBe(true)
    },
  )

  test.each([
    "..\\..\\x",
    "a\\b",
    "C:",
    "file:stream",
    "a/NUL",
    "con.txt",
    "folder/Com1.log",
    "lpt²",
    "aux ",
    "CONIN$",
    "end.",
    "a /b",
    "what?",
    "bell\u0007",
  ])("that means something else there is not (%j)", (path) => {
    expect(isWindowsPath(path)).toBe(false)
  })
})
