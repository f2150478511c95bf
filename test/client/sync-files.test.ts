import { chmodSync, readFileSync, writeFileSync } from "node:fs"
import { open } from "node:fs/promises"
import path from "node:path"
import { expect, onTestFinished, test, vi } from "vitest"
import { syncTree } from "../../client/sync-files.js"
import { patternBytes, scratchFolder } from "./folders.js"

/** Files, and how many of them are synced by themselves. `exit` is how a `sync` ends that is found first. */
async function someFiles(count: number, exit: number) {
  const folder = scratchFolder()
  const files = Array.from({ length: count }, (_, index) => path.join(folder, `${index}`))
  for (const [index, file] of files.entries()) writeFileSync(file, patternBytes(10, index))
  const asked = path.join(folder, "asked")
  writeFileSync(asked, "")
  const command = path.join(folder, "sync")
  writeFileSync(command, `#!/bin/sh\necho "$@" >> '${asked}'\n/bin/sync "$@"\nexit ${exit}\n`)
  chmodSync(command, 0o755)
  const { PATH } = process.env
  onTestFinished(() => void (process.env["PATH"] = PATH))
  process.env["PATH"] = `${folder}:${PATH ?? ""}`
  const handle = await open(folder)
  // All handles share it, and it has what a handle has.
  const single = vi.spyOn(Object.getPrototypeOf(handle) as typeof handle, "datasync")
  await handle.close()
  onTestFinished(() => single.mockRestore())
  return { folder, files, single, asked: () => readFileSync(asked, "utf8") }
}

test("a few files are synced one by one", async () => {
  const { folder, files, single, asked } = await someFiles(20, 0)
  await syncTree(folder, { files, folders: [folder] })
  expect(single).toHaveBeenCalledTimes(20)
  expect(asked()).toBe("")
})

test("many files are synced with their file system, once, or else one by one", async () => {
  const { folder, files, single, asked } = await someFiles(300, 0)
  await syncTree(folder, { files, folders: [folder] })
  // Which of the two depends on what the kernel and this file system promise.
  expect([single.mock.calls.length, asked()]).toEqual(
    asked() === "" ? [300, ""] : [0, `-f -- ${folder}\n`],
  )
})

test("folders count among the many, and are synced with them", async () => {
  const { folder, files, asked } = await someFiles(300, 0)
  const handle = await open(folder)
  const single = vi.spyOn(Object.getPrototypeOf(handle) as typeof handle, "sync")
  await handle.close()
  onTestFinished(() => single.mockRestore())
  const folders = Array.from(files, () => folder)
  await syncTree(folder, { files: [], folders })
  expect([single.mock.calls.length, asked()]).toEqual(
    asked() === "" ? [300, ""] : [0, `-f -- ${folder}\n`],
  )
})

test("once it is called off, files are still synced, and folders no more", async () => {
  const { folder, files, single } = await someFiles(2, 0)
  const gone = { files, folders: [path.join(folder, "gone")] }
  await syncTree(folder, gone, AbortSignal.abort())
  expect(single).toHaveBeenCalledTimes(2)
})

test("many files are synced one by one when that did not succeed", async () => {
  const { folder, files, single } = await someFiles(300, 1)
  await syncTree(folder, { files, folders: [folder] })
  expect(single).toHaveBeenCalledTimes(300)
})

test("a file that cannot be synced is an error", async () => {
  const { folder, files } = await someFiles(2, 0)
  const gone = { files: [...files, path.join(folder, "gone")], folders: [] }
  await expect(syncTree(folder, gone)).rejects.toThrow("ENOENT")
})
