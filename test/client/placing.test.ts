import { linkSync, mkdirSync, readdirSync, readlinkSync, rmSync, symlinkSync } from "node:fs"
import path from "node:path"
import { beforeEach, describe, expect, test } from "vitest"
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
  const plan = await planPlacing({ ...where, onExisting, entersFolders: false })
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
    const plan = planPlacing({ ...where, onExisting: "fail", entersFolders: true })
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
    const plan = await planPlacing({ ...where, onExisting: "overwrite", entersFolders: false })
    const outside = scratchFolder()
    mkdirSync(path.join(outside, "new"))
    rmSync(path.join(where.into, "photos"), { recursive: true })
    symlinkSync(outside, path.join(where.into, "photos"))
    await expect(placeAll(plan)).rejects.toThrow(DestinationExists)
    expect(readdirSync(path.join(outside, "new"))).toEqual([])
  })

  test("T15 a name that appears between the plan and the move is not replaced", async () => {
    const where = folders({ a: one, "b/c": one }, {})
    const plan = await planPlacing({ ...where, onExisting: "fail", entersFolders: false })
    writeTree(where.into, { a: two, "b/mine": two })
    await expect(placeAll(plan)).rejects.toThrow(DestinationExists)
    expect(readTree(where.into)).toMatchObject(treeOf({ a: two, "b/mine": two }))
  })

  test("cut off between linking and unlinking, it goes on", async () => {
    const where = folders({ a: one, b: two }, {})
    linkSync(path.join(where.tree, "a"), path.join(where.into, "a"))
    await place(where, "fail")
    expect(readTree(where.into)).toEqual(treeOf({ a: one, b: two }))
    expect(readdirSync(where.tree)).toEqual([])
  })
})
