import { mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { random } from "../../protocol/index.js"
import { hasCode, readSmallFile, writeSyncedFile } from "../../server/disk.js"
import { nodeDisk } from "../../server/node-disk.js"

describe("the disk", () => {
  let folder: string

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "knothole-disk-"))
  })

  afterEach(() => rmSync(folder, { recursive: true }))

  const at = (name: string) => join(folder, name)

  it("makes a file only where there is none, for its owner alone, and follows no link", async () => {
    const file = await nodeDisk.create(at("new"))
    await file.write(random(10), 0)
    await file.close()
    expect(statSync(at("new")).mode & 0o777).toBe(0o600)
    expect(await codeOf(nodeDisk.create(at("new")))).toBe("EEXIST")
    symlinkSync(at("elsewhere"), at("link"))
    expect(await codeOf(nodeDisk.create(at("link")))).toBe("EEXIST")
    writeFileSync(at("elsewhere"), "there")
    expect(await codeOf(nodeDisk.open(at("link"), "read"))).toBe("ELOOP")
    expect(await codeOf(nodeDisk.open(at("link"), "update"))).toBe("ELOOP")
  })

  it("reads and writes at any place, and says where the file ends", async () => {
    const bytes = random(5000)
    await writeSyncedFile(nodeDisk, at("file"), bytes)
    const file = await nodeDisk.open(at("file"), "update")
    await file.write(Uint8Array.of(1, 2, 3), 4999)
    const read = new Uint8Array(100)
    expect(await file.read(read, 4990)).toBe(12)
    expect([...read.subarray(9, 12)]).toEqual([1, 2, 3])
    expect(await file.sizeBytes()).toBe(5002)
    await file.truncate(10)
    await file.sync()
    expect(await file.sizeBytes()).toBe(10)
    await file.close()
    expect(await readSmallFile(nodeDisk, at("file"), 10)).toEqual(bytes.subarray(0, 10))
    await expect(readSmallFile(nodeDisk, at("file"), 9)).rejects.toThrow(RangeError)
    expect(await readSmallFile(nodeDisk, at("none"), 9)).toBeUndefined()
  })

  it("closes a file once, however often it is told to", async () => {
    const file = await nodeDisk.create(at("file"))
    await file.close()
    // The number may be another file's by now.
    const other = await nodeDisk.create(at("other"))
    await file.close()
    await other.write(random(1), 0)
    await other.close()
  })

  it("renames over a file, and not over a folder that holds something", async () => {
    await writeSyncedFile(nodeDisk, at("a"), Uint8Array.of(1))
    await writeSyncedFile(nodeDisk, at("b"), Uint8Array.of(2))
    await nodeDisk.rename(at("a"), at("b"))
    expect(await nodeDisk.list(folder)).toEqual(["b"])
    await nodeDisk.makeFolder(at("one"))
    await nodeDisk.makeFolder(at("two"))
    await writeSyncedFile(nodeDisk, join(at("two"), "in"), Uint8Array.of(1))
    expect(await codeOf(nodeDisk.rename(at("one"), at("two")))).toBe("ENOTEMPTY")
    expect(statSync(at("one")).mode & 0o777).toBe(0o700)
    await nodeDisk.removeFolder(at("one"))
    expect(await codeOf(nodeDisk.stat(at("one")))).toBe("ENOENT")
    expect(await nodeDisk.stat(at("two"))).toMatchObject({ kind: "folder", mode: 0o700 })
    await nodeDisk.syncFolder(folder)
    expect((await nodeDisk.space(folder)).totalBytes).toBeGreaterThan(0)
  })
})

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work
  } catch (error) {
    for (const code of ["EEXIST", "ELOOP", "ENOENT", "EBADF", "ENOTEMPTY"]) {
      if (hasCode(error, code)) return code
    }
    throw error
  }
  return "done"
}
