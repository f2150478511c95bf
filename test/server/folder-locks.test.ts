import { once } from "node:events"
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { random } from "../../protocol/index.js"
import { nodeDisk } from "../../server/node-disk.js"
import { type FolderLocks, openSharedLocks } from "../../server/stores/folder-locks.js"

describe("the turns that relays take in a folder they share", () => {
  let path: string
  const living = new Set<string>()

  beforeEach(() => {
    path = mkdtempSync(join(tmpdir(), "knothole-locks-"))
  })
  afterEach(() => {
    living.clear()
    rmSync(path, { recursive: true, force: true })
  })

  function open(token: string): Promise<FolderLocks> {
    living.add(token)
    const hold = { token, isAlive: (other: string) => Promise.resolve(living.has(other)) }
    return openSharedLocks({ disk: nodeDisk, path, hold, random })
  }

  it("are taken one at a time for each name, among all of them and within each", async () => {
    const relays = [await open("one"), await open("two")]
    let inside = 0
    let most = 0
    let runs = 0
    const work = async (): Promise<void> => {
      inside += 1
      most = Math.max(most, inside)
      await new Promise((resolve) => setImmediate(resolve))
      inside -= 1
      runs += 1
    }
    await Promise.all(
      relays.flatMap((locks) => Array.from({ length: 20 }, () => locks.run("name", work))),
    )
    expect({ most, runs }).toEqual({ most: 1, runs: 40 })
  })

  it("do not wait for another name, and there is one more than were made at the start", async () => {
    const locks = await open("one")
    let others: Promise<void> = Promise.resolve()
    for (let at = 0; at < 40; at++) {
      const inner = others
      others = locks.run(`name-${at}`, () => inner)
    }
    await others
  })

  it("pass from one that is gone to exactly one of those who wait", async () => {
    const dead = await open("dead")
    void dead.run("name", () => new Promise(() => undefined))
    while (!readdirSync(path).includes("name")) await new Promise((r) => setImmediate(r))
    const relays = await Promise.all(["one", "two", "three"].map(open))
    living.delete("dead")
    let inside = 0
    let most = 0
    await Promise.all(
      relays.map((locks) =>
        locks.run("name", async () => {
          inside += 1
          most = Math.max(most, inside)
          await new Promise((resolve) => setImmediate(resolve))
          inside -= 1
        }),
      ),
    )
    expect(most).toBe(1)
  })

  it("stay with one that is there, however long it takes", async () => {
    const slow = await open("slow")
    const other = await open("other")
    const done = new AbortController()
    const working = slow.run("name", () => once(done.signal, "abort"))
    while (!readdirSync(path).includes("name")) await new Promise((r) => setImmediate(r))
    let isIn = false
    const waiting = other.run("name", () => {
      isIn = true
      return Promise.resolve()
    })
    // Longer than a look at whether the holder is there.
    for (let at = 0; at < 400; at++) await nodeDisk.stat(path)
    expect(isIn).toBe(false)
    done.abort()
    await Promise.all([working, waiting])
    expect(isIn).toBe(true)
  })

  it("are given back when the work fails", async () => {
    const locks = await open("one")
    await expect(locks.run("name", () => Promise.reject(new Error("no")))).rejects.toThrow("no")
    expect(readdirSync(path)).not.toContain("name")
    expect(await locks.run("name", () => Promise.resolve(1))).toBe(1)
  })

  it("leave nothing of those that are gone once another one starts", async () => {
    await open("gone")
    mkdirSync(join(path, "upload"))
    writeFileSync(join(path, "upload", "gone"), "")
    living.clear()
    await open("here")
    const holders = readdirSync(path).flatMap((name) => readdirSync(join(path, name)))
    expect(new Set(holders)).toEqual(new Set(["here"]))
  })
})
