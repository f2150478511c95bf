// What the relay's stores expect of a disk, run on every one there is.
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { random } from "../../protocol/index.js"
import { type Disk, hasCode, readSmallFile, writeSyncedFile } from "../../server/disk.js"

export interface OpenedDisk {
  readonly disk: Disk
  /** An empty folder on it. */
  readonly folder: string
  readonly close: () => void
}

export function describeDisk(name: string, open: () => OpenedDisk): void {
  describe(`the disk ${name}`, () => {
    let opened: OpenedDisk
    let disk: Disk

    beforeEach(() => {
      opened = open()
      disk = opened.disk
    })

    afterEach(() => opened.close())

    const at = (...names: string[]): string => join(opened.folder, ...names)

    it("makes a file only where there is none, for its owner alone", async () => {
      const file = await disk.create(at("new"))
      await file.write(random(10), 0)
      await file.close()
      expect(await disk.stat(at("new"))).toMatchObject({ kind: "file", sizeBytes: 10, mode: 0o600 })
      expect(await codeOf(disk.create(at("new")))).toBe("EEXIST")
      expect(await codeOf(disk.create(at("none", "new")))).toBe("ENOENT")
      expect(await codeOf(disk.open(at("none"), "read"))).toBe("ENOENT")
    })

    it("reads and writes at any place, and says where the file ends", async () => {
      const bytes = random(5000)
      await writeSyncedFile(disk, at("file"), bytes)
      const file = await disk.open(at("file"), "update")
      await file.write(Uint8Array.of(1, 2, 3), 4999)
      const read = new Uint8Array(100)
      expect(await file.read(read, 4990)).toBe(12)
      expect([...read.subarray(9, 12)]).toEqual([1, 2, 3])
      expect(await file.read(read, 9999)).toBe(0)
      await file.write(Uint8Array.of(7), 6000)
      expect(await file.read(read, 5999)).toBe(2)
      expect([...read.subarray(0, 2)]).toEqual([0, 7])
      await file.truncate(10)
      await file.sync()
      expect(await file.sizeBytes()).toBe(10)
      await file.close()
      expect(await readSmallFile(disk, at("file"), 10)).toEqual(bytes.subarray(0, 10))
      expect(await readSmallFile(disk, at("none"), 9)).toBeUndefined()
    })

    it("keeps a file open under whatever name it has, or none", async () => {
      await writeSyncedFile(disk, at("a"), Uint8Array.of(1))
      const file = await disk.open(at("a"), "update")
      await disk.rename(at("a"), at("b"))
      await file.write(Uint8Array.of(2), 1)
      expect(await readSmallFile(disk, at("b"), 9)).toEqual(Uint8Array.of(1, 2))
      await disk.unlink(at("b"))
      expect(await file.sizeBytes()).toBe(2)
      await file.close()
      expect(await codeOf(disk.unlink(at("b")))).toBe("ENOENT")
    })

    it("tells a file from every copy of it", async () => {
      await writeSyncedFile(disk, at("a"), Uint8Array.of(1))
      await writeSyncedFile(disk, at("b"), Uint8Array.of(1))
      const { identity } = await disk.stat(at("a"))
      expect((await disk.stat(at("b"))).identity).not.toBe(identity)
      await disk.rename(at("a"), at("c"))
      expect((await disk.stat(at("c"))).identity).toBe(identity)
    })

    it("renames over a file, and not over a folder that holds something", async () => {
      await writeSyncedFile(disk, at("a"), Uint8Array.of(1))
      await writeSyncedFile(disk, at("b"), Uint8Array.of(2))
      await disk.rename(at("a"), at("b"))
      expect(await disk.list(opened.folder)).toEqual(["b"])
      await disk.makeFolder(at("one"))
      await disk.makeFolder(at("two"))
      expect(await codeOf(disk.makeFolder(at("one")))).toBe("EEXIST")
      await writeSyncedFile(disk, at("two", "in"), Uint8Array.of(1))
      expect(await codeOf(disk.rename(at("one"), at("two")))).toBe("ENOTEMPTY")
      expect(await codeOf(disk.removeFolder(at("two")))).toBe("ENOTEMPTY")
      expect(await codeOf(disk.rename(at("none"), at("two")))).toBe("ENOENT")
      await disk.rename(at("two"), at("one", "deeper"))
      expect(await disk.list(at("one", "deeper"))).toEqual(["in"])
      expect(await codeOf(disk.list(at("two")))).toBe("ENOENT")
      await disk.syncFolder(opened.folder)
      expect(await codeOf(disk.syncFolder(at("two")))).toBe("ENOENT")
      expect((await disk.space(opened.folder)).totalBytes).toBeGreaterThan(0)
    })

    it("removes an empty folder, and takes none for a file", async () => {
      await disk.makeFolder(at("one"))
      expect(await disk.stat(at("one"))).toMatchObject({ kind: "folder", mode: 0o700 })
      expect(await codeOf(disk.unlink(at("one")))).toBe("EISDIR")
      expect(await codeOf(disk.open(at("one"), "update"))).toBe("EISDIR")
      await disk.removeFolder(at("one"))
      expect(await codeOf(disk.stat(at("one")))).toBe("ENOENT")
      expect(await codeOf(disk.removeFolder(at("one")))).toBe("ENOENT")
    })
  })
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work
  } catch (error) {
    for (const code of ["EEXIST", "ENOENT", "ENOTEMPTY", "EISDIR", "ENOTDIR"]) {
      if (hasCode(error, code)) return code
    }
    throw error
  }
  return "done"
}
