import { AsyncLocalStorage } from "node:async_hooks"
import { spawnSync } from "node:child_process"
import {
  copyFileSync,
  promises,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { syncBuiltinESMExports } from "node:module"
import path from "node:path"
import { beforeEach, describe, expect, onTestFinished, test, vi } from "vitest"
import { Locked, openState } from "../../client/index.js"
import { takeLock } from "../../client/state.js"
import { insteadOf, refuseHardLinks, scratchFolder, withoutHardLinks } from "./folders.js"

function lockFile(): string {
  return path.join(scratchFolder(), "lock")
}

function milestone(): { reached: Promise<void>; reach: () => void } {
  const waiting: (() => void)[] = []
  const reached = new Promise<void>((resolve) => waiting.push(resolve))
  return { reached, reach: () => waiting[0]?.() }
}

describe("the state folder", () => {
  test("is for its owner only", () => {
    const { folder } = openState(path.join(scratchFolder(), "a/b"))
    expect(statSync(folder).mode & 0o777).toBe(0o700)
  })
})

describe.each(["with", "without"])("a lock on a disk %s hard links", (links) => {
  beforeEach(() => {
    if (links === "without") refuseHardLinks()
  })

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

  test("that is gone is not taken from who has one of that name since", async () => {
    const file = lockFile()
    const first = await takeLock(file, "at it")
    rmSync(file)
    const second = await takeLock(file, "at it")
    await first.release()
    await expect(takeLock(file, "at it")).rejects.toThrow(Locked)
    await second.release()
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
    const damaged = ["", "hello", "-1 0\n", "0 0\n"].map(async (content) => {
      const file = lockFile()
      writeFileSync(file, content)
      await (await takeLock(file, "at it")).release()
    })
    await Promise.all(damaged)
  })

  test("that is still being written is its writer's", async () => {
    const elsewhere = lockFile()
    await takeLock(elsewhere, "at it")
    const file = lockFile()
    writeFileSync(file, "")
    const { readFile } = promises
    const reading = vi.spyOn(promises, "readFile").mockImplementationOnce(async (...asked) => {
      const nothingYet = await readFile(...asked)
      copyFileSync(elsewhere, file)
      return nothingYet
    })
    syncBuiltinESMExports()
    onTestFinished(() => {
      reading.mockRestore()
      syncBuiltinESMExports()
    })
    await expect(takeLock(file, "at it")).rejects.toThrow(Locked)
    expect(readFileSync(file, "utf8")).toBe(readFileSync(elsewhere, "utf8"))
  })

  test.each([
    ["", `${process.pid} 1 gone\n`],
    [" before it said who", ""],
  ])("whose takeover was cut off%s goes to one of two who find it so", async (_, said) => {
    const file = lockFile()
    writeFileSync(file, `${process.pid} 1 dead\n`)
    const restore = insteadOf("rm", async (rm, asked, options) => {
      if (asked === file) throw new Error("cut off")
      return rm(asked, options)
    })
    await expect(takeLock(file, "at it")).rejects.toThrow("cut off")
    restore()
    const left = readdirSync(path.dirname(file))
      .map((name) => path.join(path.dirname(file), name))
      .filter((one) => one !== file)
    // Whoever was cut off is gone.
    for (const one of left) writeFileSync(one, said)
    const taker = new AsyncLocalStorage<"first" | "second">()
    const [secondIsAtWhatWasLeft, secondIsOver] = [milestone(), milestone()]
    const firstIsAtTheLock = milestone()
    insteadOf("rm", async (rm, asked, options) => {
      const isFirst = taker.getStore() === "first"
      if (left.includes(asked)) {
        if (!isFirst) secondIsAtWhatWasLeft.reach()
        await (isFirst ? secondIsAtWhatWasLeft : firstIsAtTheLock).reached
      } else if (asked === file && isFirst) {
        firstIsAtTheLock.reach()
        await secondIsOver.reached
      }
      return rm(asked, options)
    })
    const first = taker
      .run("first", () => takeLock(file, "at it"))
      .finally(() => firstIsAtTheLock.reach())
    const second = taker
      .run("second", () => takeLock(file, "at it"))
      .finally(() => {
        secondIsAtWhatWasLeft.reach()
        secondIsOver.reach()
      })
    const taken = await Promise.allSettled([first, second])
    expect(taken.filter(({ status }) => status === "fulfilled")).toHaveLength(1)
    for (const one of taken) if (one.status === "fulfilled") await one.value.release()
    expect(readdirSync(path.dirname(file))).toEqual([])
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

test.each(withoutHardLinks)("a disk that answers %s to a hard link has locks", async (code) => {
  refuseHardLinks(code)
  const file = lockFile()
  const lock = await takeLock(file, "at it")
  await expect(takeLock(file, "at it")).rejects.toThrow(Locked)
  await lock.release()
  expect(readdirSync(path.dirname(file))).toEqual([])
})
