import { spawnSync } from "node:child_process"
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import path from "node:path"
import { describe, expect, test } from "vitest"
import { Locked, openState } from "../../client/index.js"
import { takeLock } from "../../client/state.js"
import { scratchFolder } from "./folders.js"

function lockFile(): string {
  return path.join(scratchFolder(), "lock")
}

describe("the state folder", () => {
  test("is for its owner only", () => {
    const { folder } = openState(path.join(scratchFolder(), "a/b"))
    expect(statSync(folder).mode & 0o777).toBe(0o700)
  })
})

describe("a lock", () => {
  test("keeps out a second taker, and says who holds it", async () => {
    const file = lockFile()
    const lock = await takeLock(file, "sending this")
    const second = takeLock(file, "sending this")
    await expect(second).rejects.toThrow(Locked)
    await expect(takeLock(file, "sending this")).rejects.toThrow(
      `process ${process.pid} is already sending this`,
    )
    await lock.release()
    await (await takeLock(file, "sending this")).release()
  })

  test("leaves nothing behind", async () => {
    const file = lockFile()
    await (await takeLock(file, "at it")).release()
    expect(readdirSync(path.dirname(file))).toEqual([])
  })

  test("of a process that ended is taken over", async () => {
    const file = lockFile()
    const { pid } = spawnSync(process.execPath, ["--version"])
    writeFileSync(file, `${pid} 1\n`)
    await (await takeLock(file, "at it")).release()
  })

  test("of a process that ended is taken over although another has its number now", async () => {
    const file = lockFile()
    writeFileSync(file, `${process.pid} 1\n`)
    await (await takeLock(file, "at it")).release()
  })

  test("that is damaged is nobody's", async () => {
    for (const content of ["", "hello", "-1 0\n", "0 0\n"]) {
      const file = lockFile()
      writeFileSync(file, content)
      await (await takeLock(file, "at it")).release()
    }
  })

  test("left behind goes to one of many who want it", async () => {
    const file = lockFile()
    writeFileSync(file, `${process.pid} 1\n`)
    const takers = await Promise.allSettled(
      Array.from({ length: 20 }, () => takeLock(file, "at it")),
    )
    expect(takers.filter(({ status }) => status === "fulfilled")).toHaveLength(1)
    expect(readFileSync(file, "utf8")).toMatch(new RegExp(`^${process.pid} `))
  })
})
