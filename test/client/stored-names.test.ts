import { mkdirSync, readdirSync } from "node:fs"
import path from "node:path"
import { array, assert, constantFrom, property, string } from "fast-check"
import { describe, expect, test, vi } from "vitest"
import { foldedEntries, makeNamed, namesFor, tryNames } from "../../client/stored-names.js"
import { scratchFolder } from "./folders.js"

const windowsName = (name: string) => [...namesFor(name, true)][0]

describe("where Windows' rules hold, a name", () => {
  test.each(["letter.txt", "console", "com", "lpt10", ".hidden", "nulls", "ä¹", "100%", "a%3a"])(
    "that means the same there is kept (%s)",
    (name) => {
      expect(windowsName(name)).toBe(name)
    },
  )

  test.each([
    ["..\\..\\x", "..%5C..%5Cx"],
    ["C:", "C%3A"],
    ["file:stream", "file%3Astream"],
    ["NUL", "%4EUL"],
    ["con.txt", "%63on.txt"],
    ["Com1.log", "%43om1.log"],
    ["lpt²", "%6Cpt²"],
    ["COM¹", "%43OM¹"],
    ["aux ", "aux%20"],
    ["CONIN$", "%43ONIN$"],
    ["end.", "end%2E"],
    ["a ", "a%20"],
    ["what?", "what%3F"],
    ["bell\u0007", "bell%07"],
    ["a%3A", "a%253A"],
    ["x%~y", "x%25~y"],
  ])("T14 that means something else there is stored as another (%j)", (name, stored) => {
    expect(windowsName(name)).toBe(stored)
  })
})

const oddNames = string({ unit: "grapheme", minLength: 1, maxLength: 40 })
const nearNames = string({
  unit: constantFrom("a", "A", "%", "3", "5", "C", ":", "\\", ".", " ", "~", "é", "e\u0301"),
  minLength: 1,
  maxLength: 6,
})

const formsOf = (name: string) => new Set(namesFor(name, true))

describe("the forms of a name", () => {
  test("are shared with no other name where Windows' rules hold", () => {
    assert(
      property(nearNames, nearNames, oddNames, (one, two, odd) => {
        for (const other of [two, odd]) {
          if (one === other) continue
          for (const form of formsOf(one)) expect(formsOf(other).has(form)).toBe(false)
        }
      }),
      { numRuns: 2000 },
    )
  })

  test("end in a short one of plain characters", () => {
    const last = [...namesFor(`${"é".repeat(127)}.tar`, false)].at(-1) ?? ""
    expect(last).toMatch(/^(?:%C3%A9){10}%~[0-9a-f]{16}\.tar$/)
    expect([...namesFor("éx".repeat(60), false)].at(-1)).toMatch(/^[%0-9A-Fx]+%~[0-9a-f]{16}$/)
  })

  test("are tried until the disk takes one", () => {
    const tried: string[] = []
    const { name } = makeNamed("é:", false, (candidate) => {
      tried.push(candidate)
      if (candidate !== "%C3%A9%3A") throw Object.assign(new Error("no"), { code: "EILSEQ" })
    })
    expect(name).toBe("%C3%A9%3A")
    expect(tried).toEqual(["é:", "é%3A", "%C3%A9%3A"])
  })

  test("make way where another's has been taken, but a name that is there stays taken", () => {
    const there = new Set(["a%3A", "b"])
    const make = (name: string) => {
      if (there.has(name)) throw Object.assign(new Error("there"), { code: "EEXIST" })
    }
    expect(makeNamed("a%3A", false, make).name).toBe("a%253A")
    expect(() => makeNamed("b", false, make)).toThrow("there")
  })
})

describe("entries on a disk that folds", () => {
  const folds = { foldsCase: true, foldsForm: true, isWindowsLike: false }
  const paths = ["A", "A/x", "a", "a/x", "b", "b/STRASSE", "b/straße", "c\u00e9", "ce\u0301/y", "d"]

  test("T14 lose to the first of their name, with what lies in them", () => {
    expect([...foldedEntries(paths, folds)]).toEqual([2, 3, 6, 8])
  })

  test("are what comparing each with every folder before it would find", () => {
    const component = constantFrom("a", "A", "b", "\u00e9", "e\u0301", "\u03a3", "\u03c3")
    const path = array(component, { minLength: 1, maxLength: 4 }).map((names) => names.join("/"))
    assert(
      property(array(path, { maxLength: 12 }), (list) => {
        const first = new Map<string, string>()
        const colliding = list.flatMap((name, index) => {
          const ends = Array.from(`${name}/`.matchAll(/\//g), (slash) => slash.index)
          const clash = ends.some((end) => {
            const here = name.slice(0, end)
            const key = here.normalize("NFC").toUpperCase().toLowerCase()
            if (!first.has(key)) first.set(key, here)
            return first.get(key) !== here
          })
          return clash ? [index] : []
        })
        expect([...foldedEntries(list, folds)]).toEqual(colliding)
      }),
      { numRuns: 2000 },
    )
  })

  test("T17 are found by folding each path once, not once for each folder on the way", () => {
    const deep = Array.from({ length: 6000 }, (_, index) => `${index}${"/folder".repeat(63)}`)
    let characters = 0
    const counting = vi.spyOn(String.prototype, "normalize")
    try {
      expect(foldedEntries(deep, folds).size).toBe(0)
    } finally {
      characters = counting.mock.contexts.reduce<number>(
        (sum, text) => sum + String(text).length,
        0,
      )
      counting.mockRestore()
    }
    expect(characters).toBeLessThanOrEqual(deep.join("").length)
  })

  test("collide in nothing where the disk does not fold", () => {
    expect(foldedEntries(paths, { ...folds, foldsCase: false, foldsForm: false }).size).toBe(0)
  })
})

test("trying what a disk does with names leaves nothing behind", () => {
  const folder = scratchFolder()
  mkdirSync(path.join(folder, "names"))
  expect(tryNames(folder)).toEqual({ foldsCase: false, foldsForm: false, isWindowsLike: false })
  expect(readdirSync(folder)).toEqual([])
})
