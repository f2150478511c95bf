import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import type { Disk } from "../../server/disk.js"
import { DataFolderError } from "../../server/index.js"
import { nodeDisk } from "../../server/node-disk.js"
import { lockFolder } from "../../server/stores/folder-lock.js"

describe("the lock of a data folder", () => {
  let folder: string

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "knothole-lock-"))
  })
  afterEach(() => rmSync(folder, { recursive: true, force: true }))

  const lock = async (where: string = folder) => {
    const hold = await lockFolder(nodeDisk, where)
    return () => hold.release()
  }
  const share = (index: string = "redis://one") =>
    lockFolder(nodeDisk, folder, { kind: "shared", index })
  const lockFile = (where: string = folder) => join(where, "lock")
  const held = (): Record<string, unknown> => JSON.parse(readFileSync(lockFile(), "utf8"))

  it("keeps a second one out until it is given back, and leaves nothing behind", async () => {
    const release = await lock()
    await expect(lock()).rejects.toThrow(DataFolderError)
    await expect(lock()).rejects.toThrow(
      `${folder} is in use by another relay: stop it, or name another folder with --data`,
    )
    await release()
    expect(readdirSync(folder)).toEqual([])
    await (
      await lock()
    )()
  })

  it("works in a folder too deep for the address of a socket", async () => {
    const deep = join(folder, ..."deeper than that".repeat(10).split(" "))
    mkdirSync(deep, { recursive: true })
    expect(deep.length).toBeGreaterThan(108)
    const release = await lock(deep)
    await expect(lock(deep)).rejects.toThrow(/in use by another relay/)
    await release()
    expect(readdirSync(deep)).toEqual([])
  })

  it("holds whatever number a process has where it runs: only who listens is asked", async () => {
    const release = await lock()
    const elsewhere = { pid: 2 ** 22, started: "1", pidNamespace: "pid:[1]", boot: "another" }
    writeFileSync(lockFile(), JSON.stringify({ ...held(), ...elsewhere }))
    await expect(lock()).rejects.toThrow(/in use by another relay/)
    await release()
  })

  it("is taken over when nobody listens any more, although the process it names is there", async () => {
    const release = await lock()
    const [socket = ""] = readdirSync(folder).filter((name) => name.startsWith("lock-"))
    const said = readFileSync(lockFile())
    // As a killed process leaves both.
    renameSync(join(folder, socket), join(folder, "aside"))
    await release()
    renameSync(join(folder, "aside"), join(folder, socket))
    writeFileSync(lockFile(), said)
    const again = await lock()
    expect(readdirSync(folder)).not.toContain(socket)
    await again()
  })

  it("does not hold a copy of the folder", async () => {
    const release = await lock()
    const copy = join(folder, "copy")
    mkdirSync(copy)
    cpSync(lockFile(), lockFile(copy))
    await (
      await lock(copy)
    )()
    await release()
  })

  it("is left to one who is just writing it, unless it died over that, whatever the clock was then", async () => {
    for (const writtenAt of [new Date(0), new Date(Date.now() + 3_600_000)]) {
      writeFileSync(lockFile(), "")
      await expect(lock()).rejects.toThrow(/in use by another relay/)
      utimesSync(lockFile(), writtenAt, writtenAt)
      await (
        await lock()
      )()
    }
  })

  it("is given to one of many who find it abandoned at the same time", async () => {
    writeFileSync(lockFile(), JSON.stringify({ ...(await abandoned()), listens: true }))
    const outcomes = await Promise.allSettled(Array.from({ length: 8 }, () => lock()))
    const releases = outcomes.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []))
    expect(releases).toHaveLength(1)
    for (const release of releases) await release()
  })

  describe("with relays that share the folder", () => {
    it("lets the next one in when the one before has opened it, and not sooner", async () => {
      const first = await share()
      let isIn = false
      const second = share().then((hold) => {
        isIn = true
        return hold
      })
      await new Promise((resolve) => setImmediate(resolve))
      expect(isIn).toBe(false)
      await first.opened()
      const hold = await second
      await hold.opened()
      expect(await first.isAlive(hold.token)).toBe(true)
      await hold.release()
      expect(await first.isAlive(hold.token)).toBe(false)
      await first.release()
      expect(readdirSync(folder)).toEqual([])
    })

    it("waits for one that is just writing its lock", async () => {
      writeFileSync(lockFile(), "")
      let looks = 0
      const disk: Disk = {
        ...nodeDisk,
        async stat(path) {
          const facts = await nodeDisk.stat(path)
          // Found once by the one who waits, and then given up by its writer.
          if (path === lockFile() && ++looks === 2) rmSync(path)
          return facts
        },
      }
      const hold = await lockFolder(disk, folder, { kind: "shared", index: "redis://one" })
      expect(looks).toBe(2)
      await hold.opened()
      await hold.release()
    })

    it("keeps out one that would have it alone, for as long as one of them is there", async () => {
      const first = await share()
      await first.opened()
      await expect(lock()).rejects.toThrow(
        `${folder} is in use by a relay with --redis redis://one: stop it, or give this one the same --redis`,
      )
      await first.release()
      await (
        await lock()
      )()
    })

    it("keeps out one with another index", async () => {
      const first = await share()
      await first.opened()
      await expect(share("redis://two")).rejects.toThrow(
        /in use by a relay with --redis redis:\/\/one/,
      )
      const second = await share()
      await second.release()
      await first.release()
    })

    it("keeps them out while one has it alone", async () => {
      const release = await lock()
      await expect(share()).rejects.toThrow(/in use by another relay/)
      await release()
    })

    it("counts none whose process is gone", async () => {
      const gone = "00000000-0000-4000-8000-000000000000"
      writeFileSync(join(folder, `share-${gone}`), JSON.stringify({ index: "redis://other" }))
      const first = await share()
      expect(readdirSync(folder)).not.toContain(`share-${gone}`)
      await first.release()
    })
  })

  /** What a lock says of this process, which does not hold it. */
  async function abandoned(): Promise<Record<string, unknown>> {
    const release = await lock()
    const said = held()
    await release()
    return said
  }

  describe("on a file system without sockets", () => {
    const cases = [
      { who: "a process that is there", change: {}, isHeld: true },
      { who: "one that ended", change: { pid: 2 ** 22 }, isHeld: false },
      { who: "one whose number is another's now", change: { started: "1" }, isHeld: false },
      { who: "one before the machine restarted", change: { boot: "before" }, isHeld: false },
    ]
    for (const { who, change, isHeld } of cases) {
      it(`it ${isHeld ? "holds" : "does not hold"} for ${who}`, async () => {
        const said = { ...(await abandoned()), listens: false, ...change }
        writeFileSync(lockFile(), JSON.stringify(said))
        if (isHeld) await expect(lock()).rejects.toThrow(/in use by another relay: stop it/)
        else await (await lock())()
      })
    }

    it("nothing is concluded from a number in another container, and the remedy named", async () => {
      const said = { ...(await abandoned()), listens: false, pidNamespace: "pid:[1]" }
      expect(readlinkSync("/proc/self/ns/pid")).not.toBe("pid:[1]")
      writeFileSync(lockFile(), JSON.stringify(said))
      await expect(lock()).rejects.toThrow(`when none runs, run: rm '${lockFile()}'`)
    })
  })
})
