import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import path from "node:path"
import { beforeEach, describe, expect, test } from "vitest"
import { placePrivateFile } from "../../client/private-files.js"
import { utf8 } from "../../protocol/index.js"
import { refuseHardLinks, scratchFolder, withoutHardLinks } from "./folders.js"

describe.each(["with", "without"])("placing a private file on a disk %s hard links", (links) => {
  beforeEach(() => {
    if (links === "without") refuseHardLinks()
  })

  test("makes one that only its owner may read, and nothing beside it", async () => {
    const file = path.join(scratchFolder(), "key")
    expect(await placePrivateFile(file, utf8("secret"))).toBe(true)
    expect(readFileSync(file, "utf8")).toBe("secret")
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(readdirSync(path.dirname(file))).toEqual(["key"])
  })

  test("leaves alone what is there", async () => {
    const file = path.join(scratchFolder(), "key")
    writeFileSync(file, "mine")
    expect(await placePrivateFile(file, utf8("secret"))).toBe(false)
    expect(readFileSync(file, "utf8")).toBe("mine")
    expect(readdirSync(path.dirname(file))).toEqual(["key"])
  })
})

test.each(withoutHardLinks)("a disk that answers %s to a hard link takes files", async (code) => {
  refuseHardLinks(code)
  const file = path.join(scratchFolder(), "key")
  expect(await placePrivateFile(file, utf8("secret"))).toBe(true)
  expect(await placePrivateFile(file, utf8("other"))).toBe(false)
  expect(readFileSync(file, "utf8")).toBe("secret")
})
