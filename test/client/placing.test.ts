import {
  linkSync,
  mkdirSync,
  promises,
  readdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { syncBuiltinESMExports } from "node:module"
import path from "node:path"
import { beforeEach, describe, expect, onTestFinished, test, vi } from "vitest"
import { DestinationExists } from "../../client/index.js"
import { type OnExisting, placeAll, planPlacing } from "../../client/placing.js"
import {
  digest,
  patternBytes,
  readTree,
  refuseHardLinks,
  scratchFolder,
  treeOf,
  writeTree,
} from "./folders.js"

const one = patternBytes(10, 1)
const two = patternBytes(10, 2)

function folders(
  tree: Record<string, Uint8Array | undefined>,
  into: Record<string, Uint8Array | undefined>,
): { tree: string; into: string } {
  const base = scratchFolder()
  for (const name of ["tree", "into"]) mkdirSync(path.join(base, name))
  return {
    tree: writeTree(path.join(base, "tree"), tree),
    into: writeTree(path.join(base, "into"), into),
  }
}

async function place(where: { tree: string; into: string }, onExisting: OnExisting) {
  const plan = await planPlacing({ ...where, onExisting, entersFolders: false, isBegun: false })
  await placeAll(plan)
  return [...plan.names.values()]
}

describe.each(["with", "without"])("putting in place on a disk %s hard links", (links) => {
  beforeEach(() => {
    if (links === "without") refuseHardLinks()
  })

  test("moves every top-level name and leaves the tree empty", async () => {
    const where = folders({ a: one, "b/c": two, "b/d": undefined }, { other: one })
    expect((await place(where, "fail")).sort()).toEqual(["a", "b"])
    expect(readTree(where.into)).toEqual(
      treeOf({
        a: one,
        b: undefined,
        "b/c": two,
        "b/d": undefined,
        other: one,
      }),
    )
    expect(readdirSync(where.tree)).toEqual([])
  })

  test("T16 an existing name stops everything, and all of them are named", async () => {
    const where = folders({ a: one, b: one, c: one }, { a: two, b: two })
    const placing = place(where, "fail")
    await expect(placing).rejects.toThrow(DestinationExists)
    await expect(placing).rejects.toMatchObject({
      paths: [path.join(where.into, "a"), path.join(where.into, "b")],
    })
    expect(readTree(where.into)).toEqual(treeOf({ a: two, b: two }))
    expect(readdirSync(where.tree)).toHaveLength(3)
  })

  test("T16 a folder that may be entered is, and a file in it is not replaced", async () => {
    const where = folders({ "in/a": one, "in/b": one }, { "in/a": two })
    const plan = planPlacing({ ...where, onExisting: "fail", entersFolders: true, isBegun: false })
    await expect(plan).rejects.toEqual(new DestinationExists([path.join(where.into, "in", "a")]))
    expect(readTree(where.into)).toEqual(treeOf({ "in/a": two, in: undefined }))
  })

  test("renaming puts a number before the extension", async () => {
    const where = folders(
      { "letter.txt": one, photos: undefined, ".profile": one },
      { "letter.txt": two, "letter (2).txt": two, photos: undefined, ".profile": two },
    )
    const names = await place(where, "rename")
    expect(names.sort()).toEqual([".profile (2)", "letter (3).txt", "photos (2)"])
    expect(readTree(where.into)["letter.txt"]).toBe(digest(two))
    expect(readTree(where.into)["letter (3).txt"]).toBe(digest(one))
  })

  test("renaming finds no name that is the delivery's own", async () => {
    const where = folders(
      { "a/x": one, "a (2)/y": one, "B (2)": one, b: one, "\u00e9 (2)": one, "e\u0301": one },
      { a: undefined, b: two, "e\u0301": two },
    )
    const names = await place(where, "rename")
    expect(names.sort()).toEqual(["B (2)", "a (2)", "a (3)", "b (3)", "e\u0301 (3)", "\u00e9 (2)"])
    expect(readTree(where.into)).toMatchObject(treeOf({ "a (3)/x": one, "a (2)/y": one }))
    expect(readdirSync(where.tree)).toEqual([])
  })

  test("renaming an empty folder does not lose it to another of the name it got", async () => {
    const where = folders({ a: undefined, "a (2)/y": one }, { a: undefined })
    expect((await place(where, "rename")).sort()).toEqual(["a (2)", "a (3)"])
    expect(readdirSync(where.into).sort()).toEqual(["a", "a (2)", "a (3)"])
    expect(readdirSync(path.join(where.into, "a (3)"))).toEqual([])
  })

  test("renaming gives two that lose their ends two names", async () => {
    const [x, y] = [`${"n".repeat(253)}x`, `${"n".repeat(253)}y`]
    const where = folders({ [x]: one, [y]: two }, { [x]: two, [y]: one })
    const names = await place(where, "rename")
    const stem = "n".repeat(251)
    expect(names.sort()).toEqual([`${stem} (2)`, `${stem} (3)`])
    expect(readdirSync(where.into)).toHaveLength(4)
  })

  test.each([
    ["n".repeat(254), `${"n".repeat(251)} (2)`],
    [`${"n".repeat(250)}.txt`, `${"n".repeat(247)} (2).txt`],
    [`${"é".repeat(125)}.txt`, `${"é".repeat(123)} (2).txt`],
    ["𝄞".repeat(63), `${"𝄞".repeat(62)} (2)`],
    [`a.${"n".repeat(250)}`, `a.${"n".repeat(249)} (2)`],
  ])(
    "renaming shortens a name that would become too long, between two characters",
    async (name, short) => {
      const where = folders({ [name]: one }, { [name]: two })
      expect(await place(where, "rename")).toEqual([short])
      expect(readTree(where.into)).toEqual(treeOf({ [name]: two, [short]: one }))
    },
  )

  test("renaming does not take a name for free that the disk refuses", async () => {
    const name = "n".repeat(150)
    const where = folders({ [name]: one }, { [name]: two })
    const { lstat } = promises
    const shortNames = vi.spyOn(promises, "lstat").mockImplementation(async (file) => {
      const isLong = path.basename(String(file)).length > 150
      if (isLong) throw Object.assign(new Error("refused"), { code: "ENAMETOOLONG" })
      return lstat(file)
    })
    syncBuiltinESMExports()
    onTestFinished(() => {
      shortNames.mockRestore()
      syncBuiltinESMExports()
    })
    const [stored = ""] = await place(where, "rename")
    expect(stored).toMatch(/^n{100,146} \(2\)$/)
    expect(readTree(where.into)).toEqual(treeOf({ [name]: two, [stored]: one }))
  })

  test("overwriting replaces files, enters folders and keeps what else is there", async () => {
    const where = folders(
      { "photos/a": one, "photos/new/b": one },
      { "photos/a": two, "photos/mine": two },
    )
    await place(where, "overwrite")
    expect(readTree(path.join(where.into, "photos"))).toEqual(
      treeOf({
        a: one,
        mine: two,
        new: undefined,
        "new/b": one,
      }),
    )
    expect(readdirSync(where.tree)).toEqual([])
  })

  test("overwriting never puts a file for a folder or a folder for a file", async () => {
    const where = folders({ a: one, "b/c": one }, { "a/x": two, b: two })
    await expect(place(where, "overwrite")).rejects.toThrow(DestinationExists)
    expect(readTree(where.into)).toEqual(treeOf({ a: undefined, "a/x": two, b: two }))
  })

  test("T15 nothing is written through a link that was planted in the destination", async () => {
    for (const onExisting of ["fail", "overwrite"] as const) {
      const where = folders({ "photos/a": one }, {})
      const outside = scratchFolder()
      symlinkSync(outside, path.join(where.into, "photos"))
      await expect(place(where, onExisting)).rejects.toThrow(DestinationExists)
      expect(readdirSync(outside)).toEqual([])
      expect(readlinkSync(path.join(where.into, "photos"))).toBe(outside)
    }
  })

  test("T15 a folder that becomes a link between the plan and the move is not gone through", async () => {
    const where = folders({ "photos/new/a": one }, { "photos/new/mine": two })
    const plan = await planPlacing({
      ...where,
      onExisting: "overwrite",
      entersFolders: false,
      isBegun: false,
    })
    const outside = scratchFolder()
    mkdirSync(path.join(outside, "new"))
    rmSync(path.join(where.into, "photos"), { recursive: true })
    symlinkSync(outside, path.join(where.into, "photos"))
    await expect(placeAll(plan)).rejects.toThrow(DestinationExists)
    expect(readdirSync(path.join(outside, "new"))).toEqual([])
  })

  test("T15 a name that appears between the plan and the move is not replaced", async () => {
    const where = folders({ a: one, "b/c": one }, {})
    const plan = await planPlacing({
      ...where,
      onExisting: "fail",
      entersFolders: false,
      isBegun: false,
    })
    writeTree(where.into, { a: two, "b/mine": two })
    await expect(placeAll(plan)).rejects.toThrow(DestinationExists)
    expect(readTree(where.into)).toMatchObject(treeOf({ a: two, "b/mine": two }))
  })

  test("what is in the way once moves began does not pass for nothing put in place", async () => {
    const where = folders({ a: one, b: one, c: one }, {})
    const plan = await planPlacing({
      ...where,
      onExisting: "fail",
      entersFolders: false,
      isBegun: false,
    })
    const [first, second] = plan.moves
    if (!first || !second) throw new Error("there are three")
    writeFileSync(second.to, "mine")
    const placing = placeAll(plan)
    await expect(placing).rejects.toMatchObject({ paths: [second.to], isPartlyThere: true })
    const again = { ...where, onExisting: "fail", entersFolders: false } as const
    await expect(planPlacing({ ...again, isBegun: true })).rejects.toMatchObject({
      paths: [second.to],
      isPartlyThere: true,
    })
    await expect(planPlacing({ ...again, isBegun: false })).rejects.toMatchObject({
      isPartlyThere: false,
    })
  })

  test("cut off between linking and unlinking under another name, it goes on with that name", async () => {
    const where = folders({ a: one }, { a: two })
    linkSync(path.join(where.tree, "a"), path.join(where.into, "a (2)"))
    expect(await place(where, "rename")).toEqual(["a (2)"])
    expect(readTree(where.into)).toEqual(treeOf({ a: two, "a (2)": one }))
    expect(readdirSync(where.tree)).toEqual([])
  })

  test("cut off between linking and unlinking, it goes on", async () => {
    const where = folders({ a: one, b: two }, {})
    linkSync(path.join(where.tree, "a"), path.join(where.into, "a"))
    await place(where, "fail")
    expect(readTree(where.into)).toEqual(treeOf({ a: one, b: two }))
    expect(readdirSync(where.tree)).toEqual([])
  })
})
