import { spawnSync } from "node:child_process"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  promises,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statfsSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { open } from "node:fs/promises"
import { syncBuiltinESMExports } from "node:module"
import { tmpdir } from "node:os"
import path from "node:path"
import { describe, expect, onTestFinished, test, vi } from "vitest"
import {
  CannotMakeFolder,
  DestinationExists,
  DestinationNotFolder,
  Locked,
  type ProgressEvent,
  type ReceiveOptions,
  type ReceiveResult,
} from "../../client/index.js"
import { concatBytes, type FileEntry, headerHash, MIB, u32, utf8 } from "../../protocol/index.js"
import { createLog } from "../../client/append-log.js"
import { journalStart, reopenReceiveJournal } from "../../client/receive-journal.js"
import {
  digest,
  insteadOf,
  patternBytes,
  readTree,
  refuseHardLinks,
  treeOf,
  writeTree,
} from "./folders.js"
import { makeDelivery } from "./made-delivery.js"
import { makeSetting, type Setting } from "./setting.js"
import { type Asked, found } from "./small-relay.js"

const files = {
  "in/large": patternBytes(3 * MIB + 5, 1),
  "in/small": patternBytes(100, 2),
  "in/none": new Uint8Array(0),
  "in/sub/medium": patternBytes(400_000, 3),
}
const expected = { ...treeOf(files), in: undefined, "in/sub": undefined }

interface Made {
  setting: Setting
  id: string
  into: string
  receive: (options?: Partial<ReceiveOptions>) => Promise<ReceiveResult>
}

async function make(
  content: Record<string, Uint8Array> = files,
  change: (entries: FileEntry[]) => FileEntry[] = (entries) => entries,
): Promise<Made> {
  const setting = await makeSetting()
  const { relay, identity } = setting
  const { id } = await makeDelivery({ relay, recipient: identity.bundle, files: content, change })
  const into = path.join(setting.folder, "into")
  return {
    setting,
    id,
    into,
    receive: async (options) => (await setting.open()).receive(id, { into, ...options }),
  }
}

const isBody = ({ path: asked }: Asked) => asked.endsWith("/body")
const isDelete = ({ method, path: asked }: Asked) =>
  method === "DELETE" && asked.includes("deliveries")

/** Receives until `enough` ranges have come, then is called off, as by Ctrl-C. */
async function interrupted({ setting, receive }: Made, enough: number): Promise<void> {
  const stop = new AbortController()
  let ranges = 0
  setting.relay.change = (asked, answer) => {
    if (!isBody(asked) || ++ranges <= enough) return answer
    stop.abort()
    return "hang up"
  }
  await expect(receive({ signal: stop.signal, parallel: 1 })).rejects.toThrow("aborted")
  setting.relay.change = (_, answer) => answer
}

/** Everything is fetched, and nothing in place. */
async function interruptedBeforePlacing({ receive, into: usual }: Made, into = usual) {
  const stop = new AbortController()
  const onProgress = (event: ProgressEvent) => {
    if (event.kind === "phase" && event.phase === "putting in place") stop.abort()
  }
  await expect(receive({ into, signal: stop.signal, onProgress })).rejects.toThrow("aborted")
}

/** Where a name with a colon is a stream of the file before it: what is written to them, if the disk has any. */
function onWindows({ streams = true } = {}): Map<string, unknown> {
  const { platform } = process
  onTestFinished(() => void Object.defineProperty(process, "platform", { value: platform }))
  Object.defineProperty(process, "platform", { value: "win32" })
  const written = new Map<string, unknown>()
  insteadOf("writeFile", async (writeFile, file, content) => {
    const [name = "", stream] = path.basename(file).split(":")
    if (stream === undefined) return writeFile(file, content)
    if (!streams) throw Object.assign(new Error("ENOENT: no such name"), { code: "ENOENT" })
    expect(statSync(path.join(path.dirname(file), name)).isFile()).toBe(true)
    return written.set(`${name}:${stream}`, content)
  })
  return written
}

/** The content of the second file is not what its sender says. */
async function makeSpoilt(content: Record<string, Uint8Array>): Promise<Made> {
  return make(content, (entries) =>
    entries.map((entry, index) => {
      const chunkMacs = entry.chunkMacs.map((byte) => byte ^ 1)
      return index === 1 ? { ...entry, chunkMacs } : entry
    }),
  )
}

/** Everything is in place and the relay's copy is gone if it goes, but nothing is cleaned up. */
async function cutOffInPlace({ receive }: Made): Promise<void> {
  const restore = insteadOf("rm", async (rm, file, options) => {
    if (file.endsWith("/tree") && existsSync(file)) throw new Error("cut off")
    await rm(file, options)
  })
  await expect(receive()).rejects.toThrow("cut off")
  restore()
}

describe("receiving", () => {
  test("marks each file for Windows as coming from elsewhere", async () => {
    const { receive } = await make()
    const written = onWindows()
    await receive()
    const mark = "[ZoneTransfer]\r\nZoneId=3\r\n"
    const names = ["large", "medium", "none", "small"]
    expect(written).toEqual(new Map(names.map((name) => [`${name}:Zone.Identifier`, mark])))
  })

  test("says once that a disk keeps no such marks, and goes on", async () => {
    const { receive, into } = await make()
    onWindows({ streams: false })
    const notices: string[] = []
    const onProgress = (event: ProgressEvent) => {
      if (event.kind === "notice") notices.push(event.text)
    }
    await expect(receive({ onProgress })).resolves.toMatchObject({ files: 4, failed: [] })
    expect(notices).toEqual([expect.stringContaining(`${into} is on a disk that cannot mark`)])
  })

  test("puts everything in place, then deletes the relay's copy and its own folder", async () => {
    const { setting, id, into, receive } = await make()
    const result = await receive()
    expect(result).toMatchObject({ id, paths: [path.join(into, "in")], files: 4, failed: [] })
    expect(readTree(into)).toEqual(expected)
    expect(setting.relay.asked.filter(isDelete)).toHaveLength(1)
    expect(await (await setting.open()).list()).toEqual([])
  })

  test("fetches the padding as well, so that the relay does not learn where it begins", async () => {
    const { setting, id, receive } = await make()
    await receive({ keep: true })
    const fetched = setting.relay.asked
      .filter(isBody)
      .map(({ headers }) => /bytes=(\d+)-(\d+)/.exec(headers.range ?? ""))
      .reduce((sum, range) => sum + Number(range?.[2]) - Number(range?.[1]) + 1, 0)
    expect(fetched).toBe(setting.relay.delivery(id).body.length)
  })

  test("of a note alone puts nothing in place and is done", async () => {
    const { receive, setting } = await make({})
    expect(await receive()).toMatchObject({ paths: [], files: 0, bytes: 0 })
    expect(setting.relay.asked.filter(isDelete)).toHaveLength(1)
  })

  test("T13 T14 on Windows, renames what means something else there", async () => {
    const names = { "..\\..\\escaped": patternBytes(10, 1), "a:b": patternBytes(0, 1) }
    const { receive, into } = await make({ ...names, "NUL/fine": patternBytes(10, 2) })
    onWindows()
    const result = await receive()
    expect(result.failed).toEqual([])
    const stored = ["%4EUL", "..%5C..%5Cescaped", "a%3Ab"]
    expect(readdirSync(into).sort()).toEqual(stored)
    expect(result.paths.toSorted()).toEqual(stored.map((name) => path.join(into, name)))
    expect(result.renamed).toContainEqual({ path: "a:b", stored: "a%3Ab" })
    expect(result.renamed).toContainEqual({ path: "NUL", stored: "%4EUL" })
  })

  test("keeps the relay's copy when asked to", async () => {
    const { setting, receive } = await make()
    await receive({ keep: true })
    expect(await (await setting.open()).list()).toHaveLength(1)
  })

  test("gives files the permissions of this machine, and lets them run only when asked", async () => {
    const setting = await makeSetting()
    const { relay, identity } = setting
    for (const executable of [false, true]) {
      const { id } = await makeDelivery({
        relay,
        recipient: identity.bundle,
        files: {
          run: patternBytes(10, 0),
          large: patternBytes(2 * MIB, 0),
          text: patternBytes(10, 0),
        },
        change: (entries) => entries.map((entry, index) => ({ ...entry, executable: index < 2 })),
      })
      const into = path.join(setting.folder, `into ${executable}`)
      await (await setting.open()).receive(id, { into, executable })
      const modes = ["run", "large", "text"].map(
        (name) => statSync(path.join(into, name)).mode & 0o777,
      )
      const [plain, run] = [0o666 & ~process.umask(), 0o777 & ~process.umask()]
      expect(modes).toEqual(executable ? [run, run, plain] : [plain, plain, plain])
    }
  })

  test("sets times only when asked, and only when they were told", async () => {
    const setting = await makeSetting()
    const { relay, identity } = setting
    const { id } = await makeDelivery({
      relay,
      recipient: identity.bundle,
      files: { small: patternBytes(10, 0), large: patternBytes(2 * MIB, 0) },
      change: (entries) => entries.map((entry) => ({ ...entry, mtimeMs: 1_000_000_000_000 })),
    })
    for (const times of [false, true]) {
      const into = path.join(setting.folder, `into ${times}`)
      await (await setting.open()).receive(id, { into, times, keep: true })
      const told = ["small", "large"].map((name) => statSync(path.join(into, name)).mtimeMs)
      expect(told.map((ms) => ms === 1_000_000_000_000)).toEqual([times, times])
    }
  })

  test("works in a folder that nobody else can look into until all is checked", async () => {
    const { into, receive, setting, id } = await make()
    let mode = 0
    setting.relay.change = (asked, answer) => {
      if (isBody(asked)) mode = statSync(path.join(into, `.knothole-${id}`)).mode & 0o777
      return answer
    }
    await receive()
    expect(mode).toBe(0o700)
  })
})

describe("a destination", () => {
  test("T16 that has a file of the same name is left alone, before anything is fetched", async () => {
    const { into, receive, setting } = await make()
    writeTree(into, { in: patternBytes(3, 9) })
    await expect(receive()).rejects.toThrow(DestinationExists)
    expect(readTree(into)).toEqual(treeOf({ in: patternBytes(3, 9) }))
    expect(setting.relay.asked.filter(isBody)).toEqual([])
    expect(setting.relay.asked.filter(isDelete)).toEqual([])
  })

  test("T16 that has a name as which one will be stored is left alone before anything is fetched", async () => {
    const { into, receive, setting } = await make({ "a:b/c": patternBytes(10, 1) })
    onWindows()
    writeTree(into, { "a%3Ab": patternBytes(3, 9) })
    await expect(receive()).rejects.toEqual(new DestinationExists([path.join(into, "a%3Ab")]))
    expect(setting.relay.asked.filter(isBody)).toEqual([])
    // A name that nothing will have there is in nobody's way.
    rmSync(path.join(into, "a%3Ab"))
    writeTree(into, { "a:b": patternBytes(3, 9) })
    await receive()
    expect(readdirSync(into).sort()).toEqual(["a%3Ab", "a:b"])
  })

  test("can be merged into or avoided", async () => {
    const { into, receive } = await make()
    writeTree(into, { "in/small": patternBytes(3, 9), "in/mine": patternBytes(3, 9) })
    const renamed = await receive({ onExisting: "rename", keep: true })
    expect(renamed.paths).toEqual([path.join(into, "in (2)")])
    await receive({ onExisting: "overwrite" })
    const tree = readTree(into)
    expect(tree["in/small"]).toBe(digest(files["in/small"]))
    expect(tree["in/mine"]).toBe(digest(patternBytes(3, 9)))
    expect(tree["in (2)/sub/medium"]).toBe(digest(files["in/sub/medium"]))
  })

  test.each([
    ["a folder where a file comes", "in/small", "a folder", "a file"],
    ["a file where a folder comes", "in/sub", "a file", "a folder"],
    ["a link where a folder comes", "in/sub", "a link", "a folder"],
    ["a link where the whole tree comes", "in", "a link", "a folder"],
  ])("that has %s is left alone before anything is fetched", async (_, name, here, sent) => {
    const { into, receive, setting } = await make()
    const inTheWay = path.join(into, name)
    const elsewhere = path.join(setting.folder, "elsewhere")
    mkdirSync(elsewhere)
    mkdirSync(path.dirname(inTheWay), { recursive: true })
    if (here === "a folder") mkdirSync(inTheWay)
    else if (here === "a file") writeFileSync(inTheWay, "mine")
    else symlinkSync(elsewhere, inTheWay)
    const before = readTree(into)
    await expect(receive({ onExisting: "overwrite" })).rejects.toMatchObject({
      paths: [inTheWay],
      unlike: new Map([[inTheWay, { here, sent }]]),
      kept: undefined,
    })
    expect(readTree(into)).toEqual(before)
    expect(setting.relay.asked.filter(isBody)).toEqual([])
    await receive({ onExisting: "rename" })
    expect(readTree(into)["in (2)/sub/medium"]).toBe(digest(files["in/sub/medium"]))
  })

  test("that has another kind under a name as which one will be stored is left alone as well", async () => {
    const { into, receive, setting } = await make({ "a:b/c": patternBytes(10, 1) })
    onWindows()
    const inTheWay = path.join(into, "a%3Ab")
    writeTree(into, { "a%3Ab": patternBytes(3, 9) })
    await expect(receive({ onExisting: "overwrite" })).rejects.toMatchObject({
      unlike: new Map([[inTheWay, { here: "a file", sent: "a folder" }]]),
    })
    expect(setting.relay.asked.filter(isBody)).toEqual([])
  })

  test("in which something comes in the way meanwhile is told where the fetched is kept", async () => {
    const { into, id, receive } = await make()
    const onProgress = (event: ProgressEvent) => {
      if (event.kind === "phase" && event.phase === "putting in place")
        writeTree(into, { "in/small/mine": patternBytes(3, 9) })
    }
    const receiving = receive({ onExisting: "overwrite", onProgress })
    const inTheWay = path.join(into, "in/small")
    await expect(receiving).rejects.toMatchObject({
      unlike: new Map([[inTheWay, { here: "a folder", sent: "a file" }]]),
      kept: path.join(into, `.knothole-${id}`),
    })
    rmSync(inTheWay, { recursive: true })
    expect(await receive({ onExisting: "overwrite" })).toMatchObject({
      resumed: true,
      fetchedBytes: 0,
    })
  })

  test("whose private folder is a link that somebody planted is refused", async () => {
    const { into, id, receive, setting } = await make()
    const elsewhere = path.join(setting.folder, "elsewhere")
    mkdirSync(elsewhere)
    mkdirSync(into)
    symlinkSync(elsewhere, path.join(into, `.knothole-${id}`))
    await expect(receive()).rejects.toThrow(DestinationExists)
    expect(readdirSync(elsewhere)).toEqual([])
  })

  test("that another process is receiving into is not touched, nor is its journal", async () => {
    const { receive, setting, into, id } = await make()
    const journal = path.join(into, `.knothole-${id}`, "journal")
    const journals: string[] = []
    const trySecond = async () => {
      journals.push(digest(readFileSync(journal)))
      const error = await receive().catch((error: unknown) => error)
      journals.push(digest(readFileSync(journal)))
      return error
    }
    let second: Promise<unknown> | undefined
    setting.relay.change = async (asked, answer) => {
      if (isBody(asked)) await (second ??= trySecond())
      return answer
    }
    await receive()
    expect(await second).toBeInstanceOf(Locked)
    expect(journals[1]).toBe(journals[0])
  })

  test("is left alone by who finds another process there at the end", async () => {
    const { receive, into, id } = await make()
    const folder = path.join(into, `.knothole-${id}`)
    // Between a look at the empty folder and its removal.
    const come = () => writeTree(folder, { lock: patternBytes(1, 1) })
    insteadOf("readdir", async (readdir, asked, options) => {
      const names = await readdir(asked, options)
      if (asked === folder) come()
      return names
    })
    insteadOf("rmdir", async (rmdir, asked, options) => {
      if (asked === folder) come()
      await rmdir(asked, options)
    })
    writeTree(into, { in: patternBytes(3, 9) })
    await expect(receive()).rejects.toThrow(DestinationExists)
    expect(readdirSync(folder)).toEqual(["lock"])
  })

  test("on a disk without hard links is received into as on any other", async () => {
    const { setting, into, receive } = await make()
    refuseHardLinks()
    await receive()
    expect(readTree(into)).toEqual(expected)
    expect(setting.relay.asked.filter(isDelete)).toHaveLength(1)
  })

  test("that is a file is told to be one", async () => {
    const { into, receive } = await make()
    writeFileSync(into, "a file")
    await expect(receive()).rejects.toThrow(`${into} is no folder`)
  })

  test.each([0, 1])(
    "that is full says what is kept, if anything is (after %i ranges)",
    async (ranges) => {
      const made = await make({ ...files, "in/other": patternBytes(3 * MIB, 4) })
      if (ranges > 0) await interrupted(made, ranges)
      const disk = await promises.statfs(made.setting.folder)
      const full = Object.assign(disk, { bavail: 1 })
      const statfs = vi.spyOn(promises, "statfs").mockResolvedValue(full)
      syncBuiltinESMExports()
      onTestFinished(() => {
        statfs.mockRestore()
        syncBuiltinESMExports()
      })
      const { message } = await made.receive().then(
        () => new Error("there was room"),
        (error: Error) => error,
      )
      expect(message).toContain("has no room")
      expect(message.includes("What was fetched is kept")).toBe(ranges > 0)
    },
  )

  test("that gets a file in between keeps it; the rest goes beside it, and only that is told of", async () => {
    const { into, receive } = await make({ a: patternBytes(10, 1), b: patternBytes(10, 2) })
    const { link } = promises
    const moving = vi.spyOn(promises, "link").mockImplementation(async (from, to) => {
      if (String(from).endsWith("/b")) writeFileSync(path.join(into, "b"), "mine")
      return link(from, to)
    })
    syncBuiltinESMExports()
    onTestFinished(() => {
      moving.mockRestore()
      syncBuiltinESMExports()
    })
    const receiving = receive()
    await expect(receiving).rejects.toThrow(DestinationExists)
    await expect(receiving).rejects.toMatchObject({ isPartlyThere: true })
    expect(readdirSync(into).filter((name) => !name.startsWith("."))).toEqual(["a", "b"])
    const again = receive()
    await expect(again).rejects.toMatchObject({ isPartlyThere: true })
    const { paths } = await receive({ onExisting: "rename" })
    expect(paths).toEqual(["a", "b (2)"].map((name) => path.join(into, name)))
    expect(readFileSync(path.join(into, "b"), "utf8")).toBe("mine")
  })

  test("is asked for a block for each file and folder, those that no entry lists included", async () => {
    const made = await make({ "a/b/c/d/none": new Uint8Array(0), "a/b/e/none": new Uint8Array(0) })
    const disk = await promises.statfs(made.setting.folder)
    const blocks = (count: number) => Object.assign(disk, { bsize: 4096, bavail: count })
    const statfs = vi.spyOn(promises, "statfs").mockResolvedValue(blocks(6))
    syncBuiltinESMExports()
    onTestFinished(() => {
      statfs.mockRestore()
      syncBuiltinESMExports()
    })
    await expect(made.receive()).rejects.toThrow("has no room")
    statfs.mockResolvedValue(blocks(7))
    await expect(made.receive()).resolves.toMatchObject({ files: 2 })
  })

  test("is asked for an inode for each file and folder, and told apart from a full one", async () => {
    const made = await make({ "a/b/c/d/none": new Uint8Array(0), "a/b/e/none": new Uint8Array(0) })
    const disk = await promises.statfs(made.setting.folder)
    const left = (ffree: number) => Object.assign(disk, { files: 1000, ffree })
    const statfs = vi.spyOn(promises, "statfs").mockResolvedValue(left(6))
    syncBuiltinESMExports()
    onTestFinished(() => {
      statfs.mockRestore()
      syncBuiltinESMExports()
    })
    await expect(made.receive()).rejects.toThrow(
      "no room for so many files, whatever their size: 7 are needed, folders included, and 6 are left",
    )
    statfs.mockResolvedValue(left(7))
    await expect(made.receive()).resolves.toMatchObject({ files: 2 })
  })

  test("that counts no inodes is not asked for any", async () => {
    const made = await make()
    const disk = Object.assign(await promises.statfs(made.setting.folder), { files: 0, ffree: 0 })
    const statfs = vi.spyOn(promises, "statfs").mockResolvedValue(disk)
    syncBuiltinESMExports()
    onTestFinished(() => {
      statfs.mockRestore()
      syncBuiltinESMExports()
    })
    await expect(made.receive()).resolves.toMatchObject({ failed: [] })
  })

  test("that ran out of inodes meanwhile says so, and goes on later", async ({ skip }) => {
    const few = mkdtempSync(path.join(tmpdir(), "knothole-few-"))
    onTestFinished(() => rmSync(few, { recursive: true }))
    const options = ["-t", "tmpfs", "-o", "size=64m,nr_inodes=12", "tmpfs", few]
    if (spawnSync("mount", options).status !== 0) skip("no tmpfs can be mounted here")
    onTestFinished(() => void spawnSync("umount", [few]))
    const made = await make({ a: patternBytes(MIB, 1), b: patternBytes(MIB, 2) })
    const others: string[] = []
    const receive = (onProgress?: (event: ProgressEvent) => void) =>
      made.receive({ into: path.join(few, "into"), ...(onProgress && { onProgress }) })
    const running = receive((event) => {
      if (event.kind !== "phase" || event.phase !== "fetching") return
      for (let i = 0; statfsSync(few).ffree > 0; i++) {
        others.push(path.join(few, `other ${i}`))
        writeFileSync(path.join(few, `other ${i}`), "")
      }
    })
    await expect(running).rejects.toThrow("no room for another file, whatever its size")
    for (const other of others) rmSync(other)
    expect(await receive()).toMatchObject({ resumed: true, files: 2 })
  })

  test.runIf(existsSync("/proc/self"))("that takes no folders says so", async () => {
    const { receive, setting } = await make()
    const receiving = receive({ into: "/proc" })
    await expect(receiving).rejects.toThrow(CannotMakeFolder)
    await expect(receiving).rejects.toThrow("cannot make a folder in /proc: the system takes none")
    expect(setting.relay.asked.filter(isBody)).toEqual([])
  })

  test("that cannot be made says so at once", async () => {
    const { into, receive, setting } = await make()
    writeFileSync(into, "a file")
    for (const destination of [into, path.join(into, "below", "that")]) {
      await expect(receive({ into: destination })).rejects.toEqual(new DestinationNotFolder(into))
    }
    expect(setting.relay.asked.filter(isBody)).toEqual([])
  })
})

function deep(count: number): string {
  return Array.from({ length: count }, () => "n".repeat(100)).join("/")
}

describe("run again after an interruption", () => {
  // Four ranges of a mebibyte or a few, so that there is something to cut off.
  const more = { ...files, "in/other": patternBytes(3 * MIB, 4) }

  test("it fetches what is missing and nothing twice", async () => {
    const made = await make(more)
    await interrupted(made, 2)
    made.setting.relay.asked.length = 0
    const told: ProgressEvent[] = []
    const result = await made.receive({ onProgress: (event) => told.push(event) })
    expect(result.resumed).toBe(true)
    const body = made.setting.relay.delivery(made.id).body.length
    const there = found(told.find((event) => event.kind === "bytes"))
    expect(there).toMatchObject({ total: body })
    expect(result.fetchedBytes).toBeLessThan(body)
    expect(result.fetchedBytes + (there.kind === "bytes" ? there.alreadyThere : 0)).toBe(body)
    expect(readTree(made.into)).toEqual({ ...expected, ...treeOf(more) })
  })

  test("a file that vanished meanwhile is fetched again", async () => {
    const made = await make(more)
    await interrupted(made, 2)
    const tree = path.join(made.into, `.knothole-${made.id}`, "tree/in")
    expect(existsSync(path.join(tree, "large"))).toBe(true)
    writeFileSync(path.join(tree, "large"), "short")
    await made.receive()
    expect(readTree(made.into)).toEqual({ ...expected, ...treeOf(more) })
  })

  test("what nobody finished there, and nobody knows of, goes", async () => {
    const made = await make(more)
    await interrupted(made, 2)
    writeTree(path.join(made.into, `.knothole-${made.id}`, "tree"), {
      stray: patternBytes(3, 1),
      "in/Large": patternBytes(3, 2),
    })
    await made.receive()
    expect(readTree(made.into)).toEqual({ ...expected, ...treeOf(more) })
  })

  test("what failed needs no room in the destination", async () => {
    const good = { good: patternBytes(9, 1) }
    const made = await makeSpoilt({ ...good, bad: patternBytes(9, 2) })
    await interruptedBeforePlacing(made)
    const mine = { bad: patternBytes(3, 3) }
    writeTree(made.into, mine)
    expect(await made.receive()).toMatchObject({ resumed: true, failed: [{ path: "bad" }] })
    expect(readTree(made.into)).toEqual(treeOf({ ...good, ...mine }))
  })

  test("what failed for its name is known to have failed, whenever it was cut off", async () => {
    const long = deep(10)
    const made = await make({
      [`${long}/file`]: patternBytes(300_000, 1),
      small: patternBytes(9, 1),
    })
    // Below the private folder in here, its path is longer than any may be.
    const into = path.join(made.setting.folder, deep(31))
    await interruptedBeforePlacing(made, into)
    const file = path.join(into, `.knothole-${made.id}`, "journal")
    const journal = found(await reopenReceiveJournal(file, () => true))
    await journal.close()
    expect(journal.failed).toMatchObject([{ entry: 0 }])
    const result = await made.receive({ into })
    expect(result.failed).toMatchObject([{ path: `${long}/file` }])
    expect(readdirSync(into)).toEqual(["small"])
    expect(made.setting.relay.asked.filter(isDelete)).toEqual([])
  })

  test("after a sync that failed, nothing of it is believed", async () => {
    const made = await make(more)
    const handle = await open(made.setting.folder)
    // All handles share it, and it has what a handle has.
    const shared = Object.getPrototypeOf(handle) as typeof handle
    await handle.close()
    const sync = vi.spyOn(shared, "datasync")
    onTestFinished(() => sync.mockRestore())
    let failures = 0
    sync.mockImplementation(async function (this: typeof handle) {
      const isContent = readlinkSync(`/proc/self/fd/${this.fd}`).includes("/tree/")
      if (isContent && ++failures === 1) throw Object.assign(new Error("EIO"), { code: "EIO" })
      if (!isContent) return
      await this.sync()
    })
    await expect(made.receive()).rejects.toThrow("EIO")
    expect(failures).toBeGreaterThan(0)
    expect(made.setting.relay.asked.filter(isDelete)).toEqual([])
    const result = await made.receive()
    expect(result.fetchedBytes).toBe(made.setting.relay.delivery(made.id).body.length)
    expect(readTree(made.into)).toEqual({ ...expected, ...treeOf(more) })
  })

  test("after a restart of the machine, only what was synced is believed", async () => {
    const made = await make(more)
    await interrupted(made, 2)
    const journal = path.join(made.into, `.knothole-${made.id}`, "journal")
    const bytes = readFileSync(journal)
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim()
    const at = bytes.indexOf(boot)
    expect(at).toBeGreaterThan(0)
    // Another boot id, with the record's checksum made to fit by leaving the record out.
    const record = at - 5
    writeFileSync(
      journal,
      Buffer.concat([bytes.subarray(0, record), bytes.subarray(record + 9 + boot.length)]),
    )
    const result = await made.receive()
    expect(result.fetchedBytes).toBe(made.setting.relay.delivery(made.id).body.length)
    expect(readTree(made.into)).toEqual({ ...expected, ...treeOf(more) })
  })

  test("cut off after everything was in place, it only cleans up", async () => {
    const made = await make()
    const { setting, into, id } = made
    const stop = new AbortController()
    setting.relay.change = (asked, answer) => {
      if (!isDelete(asked)) return answer
      stop.abort()
      return "hang up"
    }
    await expect(made.receive({ signal: stop.signal })).rejects.toThrow("aborted")
    setting.relay.change = (_, answer) => answer
    expect(readdirSync(into).sort()).toEqual([`.knothole-${id}`, "in"])
    // The relay had done it; only its answer was lost.
    setting.relay.asked.length = 0
    expect(await made.receive()).toMatchObject({ resumed: true, paths: [path.join(into, "in")] })
    expect(readTree(into)).toEqual(expected)
    expect(setting.relay.asked.filter(isBody)).toEqual([])
  })

  test("cut off while it cleans up, it leaves alone what another process begins there", async () => {
    const made = await make()
    await cutOffInPlace(made)
    const folder = path.join(made.into, `.knothole-${made.id}`)
    const begun = { lock: patternBytes(1, 1), journal: patternBytes(1, 2) }
    insteadOf("rm", async (rm, file, options) => {
      await rm(file, options)
      if (file === path.join(folder, "lock")) writeTree(folder, begun)
    })
    await made.receive()
    expect(readTree(folder)).toEqual(treeOf(begun))
  })

  test("cut off after everything was in place, it tells again what was left out", async () => {
    const made = await makeSpoilt({ good: patternBytes(10, 1), "in/bad": patternBytes(10, 2) })
    await cutOffInPlace(made)
    const { asked } = made.setting.relay
    asked.length = 0
    const failed = [{ path: "in/bad", reason: expect.stringContaining("its sender") as unknown }]
    expect(await made.receive()).toMatchObject({ resumed: true, failed })
    expect(readdirSync(made.into)).toEqual(["good"])
    expect(asked.filter(isDelete)).toEqual([])
  })

  test("what an earlier version left out is told as well, from the relay's copy", async () => {
    const { setting, id, into, receive } = await make()
    const { identity, relay } = setting
    const folder = path.join(into, `.knothole-${id}`)
    mkdirSync(folder, { recursive: true, mode: 0o700 })
    const hash = headerHash(relay.delivery(id).header)
    const log = await createLog(path.join(folder, "journal"), "KNHRCV1\n")
    log.append(1, journalStart({ identity, origin: relay.origin, id, headerHash: hash }))
    log.append(5, concatBytes(u32(1), utf8("this file system does not allow its name")))
    log.append(6, utf8('["in"]'))
    log.append(7, new Uint8Array(0))
    await log.flush()
    await log.close()
    expect(await receive()).toMatchObject({
      resumed: true,
      failed: [{ path: "in/small", reason: "this file system does not allow its name" }],
    })
    expect(relay.asked.filter(isDelete)).toEqual([])
    expect(readdirSync(into)).toEqual([])
  })

  test("many small files come back, whichever of them were under way", async () => {
    const small = Object.fromEntries(
      Array.from({ length: 300 }, (_, i) => [`in/${i % 7}/${i}`, patternBytes(20_000 + i, i)]),
    )
    const made = await make(small)
    await interrupted(made, 1)
    await made.receive()
    const tree = readTree(made.into)
    expect(Object.fromEntries(Object.keys(small).map((name) => [name, tree[name]]))).toEqual(
      treeOf(small),
    )
  })
})
