import { mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { random } from "../../protocol/index.js"
import { hasCode, readSmallFile, writeSyncedFile } from "../../server/disk.js"
import { nodeDisk } from "../../server/node-disk.js"

// What every disk does is in test/contracts/disk-contract.ts.
describe("the disk of the system", () => {
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

  it("reads no small file that is larger than it can be", async () => {
    await writeSyncedFile(nodeDisk, at("file"), random(10))
    await expect(readSmallFile(nodeDisk, at("file"), 9)).rejects.toThrow(RangeError)
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
})

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work
  } catch (error) {
    for (const code of ["EEXIST", "ELOOP"]) {
      if (hasCode(error, code)) return code
    }
    throw error
  }
  return "done"
}
