import { mkdirSync, writeFileSync } from "node:fs"
import path from "node:path"
import { crc32 } from "node:zlib"
import { describe, expect, test } from "vitest"
import { reopenReceiveJournal } from "../../client/receive-journal.js"
import { listSent } from "../../client/sent.js"
import { reopenUploadJournal } from "../../client/upload-journal.js"
import { concatBytes, FormatError, u32, utf8 } from "../../protocol/index.js"
import { scratchFolder } from "./folders.js"

/** A journal whose checksums are right, whatever is in it. */
function journal(magic: string, ...records: readonly (readonly [number, Uint8Array])[]): string {
  const file = path.join(scratchFolder(), "journal")
  const encoded = records.map(([type, payload]) => {
    const content = concatBytes(Uint8Array.of(type), payload)
    return concatBytes(u32(payload.length), content, u32(crc32(content)))
  })
  writeFileSync(file, concatBytes(utf8(magic), ...encoded))
  return file
}

const filled = (length: number) => new Uint8Array(length).fill(1)

describe("the journal of an upload", () => {
  const started = (entryCount: number) => [1, concatBytes(filled(96), u32(entryCount))] as const
  const start = started(0)

  test("that was cut off among its entries is none, so that no part of a tree passes for the whole", async () => {
    expect(await reopenUploadJournal(journal("KNHUPL1\n", started(2)), [])).toEqual({
      kind: "none",
    })
  })

  test("that names a chunk far beyond its sources takes no memory for it", async () => {
    const macs = concatBytes(u32(2 ** 32 - 1), filled(16))
    const reopened = await reopenUploadJournal(journal("KNHUPL1\n", start, [4, macs]), [])
    if (reopened.kind !== "resumed") throw new Error("it is whole")
    expect(reopened.journal.hasMacs(0, 1)).toBe(false)
    await reopened.journal.close()
  })

  test.each([
    ["a part beyond the largest body", 5, concatBytes(u32(65_540), filled(32))],
    ["a leaf with a byte behind it", 5, concatBytes(u32(0), filled(33))],
    ["half a MAC", 4, concatBytes(u32(0), filled(8))],
    ["a kind of record nobody writes", 200, filled(4)],
    ["a reason nobody writes", 9, concatBytes(u32(0), Uint8Array.of(3), utf8("path"))],
    ["words for a reason that nobody wrote", 5, concatBytes(u32(0), utf8("reason"))],
  ])("with %s is none", async (_, type, payload) => {
    const file = journal("KNHUPL1\n", start, [type, payload])
    expect(await reopenUploadJournal(file, [])).toEqual({ kind: "none" })
  })
})

describe("the journal of a download", () => {
  const start = [1, filled(32)] as const

  test.each([
    ["names that are no JSON", 6, utf8("[")],
    ["names that are no list", 6, utf8("{}")],
    ["a run with a byte behind it", 3, concatBytes(Uint8Array.of(0), u32(0), u32(1), filled(1))],
    ["a kind of record nobody writes", 200, filled(4)],
    ["a reason nobody writes", 9, concatBytes(u32(0), Uint8Array.of(3), utf8("path"))],
    ["words for a reason that nobody wrote", 5, concatBytes(u32(0), utf8("reason"))],
  ])("with %s is none", async (_, type, payload) => {
    const file = journal("KNHRCV1\n", start, [type, payload])
    expect(await reopenReceiveJournal(file, () => true)).toBeUndefined()
  })
})

test("a record of what was sent that is no JSON is named as damaged", async () => {
  const folder = scratchFolder()
  const id = "00112233445566778899aabbccddeeff"
  mkdirSync(path.join(folder, "sent"))
  writeFileSync(path.join(folder, "sent", id), "{")
  await expect(listSent({ folder })).rejects.toThrow(FormatError)
  await expect(listSent({ folder })).rejects.toThrow(new RegExp(`${id} is damaged`))
})
