import { execFileSync } from "node:child_process"
import { lstatSync, renameSync, writeFileSync } from "node:fs"
import path from "node:path"
import { expect, test } from "vitest"
import { UnitWorker } from "../../client/unit-work.js"
import { scratchFolder } from "./folders.js"

/** Seals all of `file`, of which `listed` is what was seen when the tree was listed. */
function sealOf(file: string, listed: { size: bigint; mtimeNs: bigint; ino: bigint }) {
  const slot = new Uint8Array(1024)
  const worker = new UnitWorker([slot], new Int32Array(new SharedArrayBuffer(4)))
  const length = Number(listed.size)
  const result = worker.run({
    kind: "seal",
    pieces: [
      {
        kind: "file",
        path: file,
        mark: { size: length, mtimeNs: listed.mtimeNs, ino: listed.ino },
        fileOffset: 0,
        length,
        key: new Uint8Array(16),
        nonce: new Uint8Array(8),
      },
    ],
    segments: [{ slot: 0, at: 0, length }],
    wholeParts: [],
  })
  worker.close()
  return result
}

function listedFile(): { file: string; listed: { size: bigint; mtimeNs: bigint; ino: bigint } } {
  const file = path.join(scratchFolder(), "file")
  writeFileSync(file, "as it was listed")
  return { file, listed: lstatSync(file, { bigint: true }) }
}

test("a file that is still what was listed is sealed", () => {
  const { file, listed } = listedFile()
  expect(sealOf(file, listed)).toMatchObject({ kind: "sealed" })
})

test("a file that another of the same length took the place of is told as changed", () => {
  const { file, listed } = listedFile()
  writeFileSync(`${file}.new`, "as it is now....")
  renameSync(`${file}.new`, file)
  expect(sealOf(file, listed)).toEqual({ kind: "changed", path: file })
})

test("a file that a pipe took the place of is told as changed, and nobody waits for a writer", () => {
  const { file, listed } = listedFile()
  execFileSync("mkfifo", [`${file}.new`])
  renameSync(`${file}.new`, file)
  expect(sealOf(file, listed)).toEqual({ kind: "changed", path: file })
})
