// Reading many small files at once, by the threads that only the built program has.
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"

const built = new URL("../../dist/server/node-disk.js", import.meta.url).href
const fromSource = new URL("../../server/node-disk.js", import.meta.url).href

const contents = (at: number): Uint8Array => new Uint8Array((at * 37) % 9000).fill(at % 251)

for (const [name, url] of [
  ["by threads", built],
  ["where there are none", fromSource],
] as const) {
  describe(`many small files at once, ${name}`, () => {
    let folder: string
    let nodeDisk: typeof import("../../server/node-disk.js").nodeDisk
    const count = 1000

    beforeAll(async () => {
      const disk: typeof import("../../server/node-disk.js") = await import(url)
      nodeDisk = disk.nodeDisk
      folder = mkdtempSync(path.join(tmpdir(), "knothole-small-"))
      for (let at = 0; at < count; at++) {
        if (at % 10 !== 3) writeFileSync(path.join(folder, `${at}`), contents(at))
      }
    })

    afterAll(() => rmSync(folder, { recursive: true }))

    const paths = (): string[] =>
      Array.from({ length: count }, (_, at) => path.join(folder, `${at}`))

    it("come in the order of their names, with nothing for one that is not there", async () => {
      const batches = await Promise.all(
        Array.from({ length: 6 }, () => nodeDisk.readSmallFiles(paths(), 9000)),
      )
      for (const files of batches) {
        expect(files).toHaveLength(count)
        for (const [at, file] of files.entries()) {
          const wanted = at % 10 === 3 ? undefined : contents(at)
          expect(file && Buffer.compare(file, contents(at))).toBe(wanted && 0)
        }
      }
    })

    it("are refused when one is too large, is no file, or is a link, and others are read after that", async () => {
      await expect(nodeDisk.readSmallFiles(paths(), 100)).rejects.toThrow("larger than it can be")
      await expect(nodeDisk.readSmallFiles([...paths(), folder], 1_000_000)).rejects.toThrow(
        /EISDIR/,
      )
      const link = path.join(folder, "link")
      symlinkSync(path.join(folder, "1"), link)
      const refused = nodeDisk.readSmallFiles([...paths(), link], 9000)
      await expect(refused).rejects.toMatchObject({ code: "ELOOP" })
      expect(await nodeDisk.readSmallFiles(paths().slice(0, 100), 9000)).toHaveLength(100)
      expect(await nodeDisk.readSmallFiles([], 9000)).toEqual([])
    })
  })
}
