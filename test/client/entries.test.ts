import { mkdirSync, promises, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs"
import { syncBuiltinESMExports } from "node:module"
import path from "node:path"
import { describe, expect, onTestFinished, test } from "vitest"
import {
  DestinationExists,
  type ReceiveOptions,
  type ReceiveResult,
  UnknownEntry,
  Untrustworthy,
} from "../../client/index.js"
import { nearPaths } from "../../client/entry-choice.js"
import { gridIndex, gridLength, MIB } from "../../protocol/index.js"
import { patternBytes, readTree, treeOf } from "./folders.js"
import { makeDelivery, type MadeDelivery } from "./made-delivery.js"
import { makeSetting, type Setting } from "./setting.js"
import type { Asked } from "./small-relay.js"

const files = {
  "in/first": patternBytes(2 * MIB + 5, 1),
  "in/none": new Uint8Array(0),
  "in/sub/a": patternBytes(400_000, 3),
  "in/sub/b": patternBytes(2 * MIB, 4),
  "in/last": patternBytes(2 * MIB, 5),
  top: patternBytes(10, 6),
}
type Name = keyof typeof files

interface Made {
  setting: Setting
  delivery: MadeDelivery
  into: string
  receive: (entries: string[], options?: Partial<ReceiveOptions>) => Promise<ReceiveResult>
}

async function make(): Promise<Made> {
  const setting = await makeSetting()
  const { relay, identity } = setting
  const delivery = await makeDelivery({ relay, recipient: identity.bundle, files })
  const into = path.join(setting.folder, "into")
  return {
    setting,
    delivery,
    into,
    receive: async (entries, options) =>
      (await setting.open()).receive(delivery.id, { into, entries, ...options }),
  }
}

const isBody = ({ path: asked }: Asked) => asked.endsWith("/body")

/** The parts of the body that hold bytes of these files. */
function partsOf({ delivery }: Made, ...names: Name[]): Set<number> {
  const parts = new Set<number>()
  for (const name of names) {
    const from = delivery.offsets[name] ?? 0
    const to = from + files[name].length
    if (to === from) continue
    for (let part = gridIndex(from); part <= gridIndex(to - 1); part++) parts.add(part)
  }
  return parts
}

function bytesOf(made: Made, parts: Set<number>): number {
  const { length } = made.delivery.body
  return [...parts].reduce((sum, part) => sum + gridLength(part, length), 0)
}

/** Of the body, as asked for so far. */
function bytesAskedFor({ setting }: Made): number {
  return setting.relay.asked
    .filter(isBody)
    .map(({ headers }) => /bytes=(\d+)-(\d+)/.exec(headers.range ?? ""))
    .reduce((sum, range) => sum + Number(range?.[2]) - Number(range?.[1]) + 1, 0)
}

function treeWith(...names: Name[]) {
  const folders = new Set(names.map((name) => path.dirname(name)).filter((name) => name !== "."))
  for (const folder of folders) if (folder.includes("/")) folders.add(path.dirname(folder))
  const tree = treeOf(Object.fromEntries(names.map((name) => [name, files[name]])))
  return { ...tree, ...Object.fromEntries([...folders].map((folder) => [folder, undefined])) }
}

describe("some entries of a delivery", () => {
  test("come by their own parts alone, and the relay's copy stays", async () => {
    const made = await make()
    const result = await made.receive(["in/sub/b"])
    expect(result).toMatchObject({
      paths: [path.join(made.into, "in/sub/b")],
      files: 1,
      bytes: 2 * MIB,
      failed: [],
    })
    expect(readTree(made.into)).toEqual(treeWith("in/sub/b"))
    const parts = bytesOf(made, partsOf(made, "in/sub/b"))
    expect(bytesAskedFor(made)).toBe(parts)
    expect(result.fetchedBytes).toBe(parts)
    expect(parts).toBeLessThan(made.delivery.body.length / 2)
    expect(await (await made.setting.open()).list()).toMatchObject([{ id: made.delivery.id }])
  })

  test("can be a folder with all that lies in it, and several at once", async () => {
    const made = await make()
    const { paths } = await made.receive(["top", "in/sub", "in/none"])
    expect(paths.map((name) => path.relative(made.into, name))).toEqual([
      "top",
      "in/sub",
      "in/none",
    ])
    expect(readTree(made.into)).toEqual(treeWith("in/none", "in/sub/a", "in/sub/b", "top"))
    expect(bytesAskedFor(made)).toBe(bytesOf(made, partsOf(made, "in/sub/a", "in/sub/b", "top")))
  })

  test("come one after the other into the same folders", async () => {
    const made = await make()
    await made.receive(["in/sub/a"])
    await made.receive(["in/none"])
    await made.receive(["in/sub/b"])
    expect(readTree(made.into)).toEqual(treeWith("in/none", "in/sub/a", "in/sub/b"))
  })

  test("replace no file unless asked to, and say so before they are fetched", async () => {
    const made = await make()
    mkdirSync(path.join(made.into, "in/sub"), { recursive: true })
    const mine = path.join(made.into, "in/sub/a")
    writeFileSync(mine, "mine")
    const receiving = made.receive(["in/sub"])
    await expect(receiving).rejects.toThrow(DestinationExists)
    await expect(receiving).rejects.toMatchObject({ paths: [mine] })
    expect(bytesAskedFor(made)).toBe(0)
    expect(readFileSync(mine, "utf8")).toBe("mine")

    const renamed = await made.receive(["in/sub/a"], { onExisting: "rename" })
    expect(renamed.paths).toEqual([path.join(made.into, "in (2)/sub/a")])
    expect(readFileSync(mine, "utf8")).toBe("mine")
    await made.receive(["in/sub"], { onExisting: "overwrite" })
    expect(readTree(path.join(made.into, "in"))).toEqual(
      treeOf({ sub: undefined, "sub/a": files["in/sub/a"], "sub/b": files["in/sub/b"] }),
    )
  })

  test("do not replace a file by a folder of theirs, and say so before they are fetched", async () => {
    const made = await make()
    const mine = path.join(made.into, "in")
    mkdirSync(made.into)
    writeFileSync(mine, "mine")
    for (const onExisting of ["fail", "overwrite"] as const) {
      await expect(made.receive(["in/sub/a"], { onExisting })).rejects.toMatchObject({
        unlike: new Map([[mine, { here: "a file", sent: "a folder" }]]),
      })
    }
    expect(bytesAskedFor(made)).toBe(0)
  })

  test("T15 never go through a link where a folder should be", async () => {
    const made = await make()
    const outside = path.join(made.setting.folder, "outside")
    mkdirSync(outside)
    mkdirSync(path.join(made.into, "in"), { recursive: true })
    symlinkSync(outside, path.join(made.into, "in/sub"))
    await expect(made.receive(["in/sub/a"])).rejects.toThrow(DestinationExists)
    expect(readdirSync(outside)).toEqual([])
  })

  test("go on where they stopped, beside a receiving of everything that was cut off as well", async () => {
    const made = await make()
    const cutOff = async (entries: string[] | undefined, enough: number) => {
      const stop = new AbortController()
      let ranges = 0
      made.setting.relay.change = (asked, answer) => {
        if (!isBody(asked) || ++ranges <= enough) return answer
        stop.abort()
        return "hang up"
      }
      const inbox = await made.setting.open()
      const { id } = made.delivery
      const options = { into: made.into, parallel: 1, signal: stop.signal }
      await expect(inbox.receive(id, { ...options, ...(entries && { entries }) })).rejects.toThrow()
      made.setting.relay.change = (_, answer) => answer
    }
    await cutOff(undefined, 2)
    await cutOff(["in/first", "in/last"], 2)
    expect(readdirSync(made.into)).toHaveLength(2)

    const some = await made.receive(["in/first", "in/last"])
    const parts = bytesOf(made, partsOf(made, "in/first", "in/last"))
    expect(some.resumed).toBe(true)
    expect(some.fetchedBytes).toBeLessThan(parts)
    expect(readTree(made.into)).toMatchObject(treeWith("in/first", "in/last"))

    const inbox = await made.setting.open()
    const all = await inbox.receive(made.delivery.id, {
      into: made.into,
      onExisting: "overwrite",
    })
    expect(all.resumed).toBe(true)
    expect(all.fetchedBytes).toBeLessThan(made.delivery.body.length)
    expect(readTree(made.into)).toEqual(treeWith(...(Object.keys(files) as Name[])))
    expect(await inbox.list()).toEqual([])
  })

  test("are put in place by the next run when one ended between two of them", async () => {
    const made = await make()
    mkdirSync(path.join(made.into, "in/sub"), { recursive: true })
    const { link } = promises
    onTestFinished(() => {
      promises.link = link
      syncBuiltinESMExports()
    })
    let moves = 0
    promises.link = async (from, to) => {
      const isMove = String(from).includes("/tree/")
      if (isMove && ++moves === 2) throw Object.assign(new Error("EIO"), { code: "EIO" })
      await link(from, to)
    }
    syncBuiltinESMExports()
    await expect(made.receive(["in/sub"])).rejects.toThrow("EIO")
    const asked = bytesAskedFor(made)
    const { paths } = await made.receive(["in/sub"])
    expect(paths).toEqual([path.join(made.into, "in/sub")])
    expect(bytesAskedFor(made)).toBe(asked)
    expect(readTree(made.into)).toEqual(treeWith("in/sub/a", "in/sub/b"))
  })

  test("are held against the tree like all others", async () => {
    const made = await make()
    const { relay } = made.setting
    const damaged = relay.delivery(made.delivery.id).body
    const at = made.delivery.offsets["in/sub/b"] ?? 0
    damaged[at + MIB] = (damaged[at + MIB] ?? 0) ^ 1
    await expect(made.receive(["in/sub/b"])).rejects.toThrow(Untrustworthy)
    expect(readdirSync(made.into).filter((name) => !name.startsWith("."))).toEqual([])
    // Another entry has nothing to do with that part.
    await made.receive(["in/first"])
    expect(readTree(path.join(made.into, "in"))).toEqual(treeOf({ first: files["in/first"] }))
  })

  test("that are not there are refused with what may have been meant, before anything is fetched", async () => {
    const made = await make()
    const receiving = made.receive(["top", "in/frist"])
    await expect(receiving).rejects.toThrow(UnknownEntry)
    await expect(receiving).rejects.toMatchObject({ path: "in/frist", near: ["in/first"] })
    expect(bytesAskedFor(made)).toBe(0)
  })
})

test("near a path are the same name elsewhere, then names a slip or two away", () => {
  const paths = ["a/report.pdf", "b/Report.pdf", "b/reprot.pdf", "b/rapport.pdf", "zebra"]
  expect(nearPaths(paths, "report.pdf")).toEqual([
    "a/report.pdf",
    "b/Report.pdf",
    "b/reprot.pdf",
    "b/rapport.pdf",
  ])
  expect(nearPaths(paths, "zbera/")).toEqual(["zebra"])
  expect(nearPaths(paths, "elsewhere")).toEqual([])
})
