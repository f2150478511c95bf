import { execFileSync } from "node:child_process"
import { chmodSync, mkdirSync, renameSync, symlinkSync, writeFileSync } from "node:fs"
import path from "node:path"
import { describe, expect, test } from "vitest"
import { SourceUnusable } from "../../client/index.js"
import { type Scan, scanSources, type Source } from "../../client/scan.js"
import { patternBytes, scratchFolder, writeTree } from "./folders.js"

const nobody: AsyncIterable<Uint8Array> = {
  [Symbol.asyncIterator]: () => ({ next: async () => ({ done: true, value: undefined }) }),
}

async function scan(...paths: string[]): Promise<Scan> {
  return scanSources(paths.map((from) => ({ kind: "path", path: from })))
}

async function refusal(sources: Source[]): Promise<SourceUnusable> {
  try {
    await scanSources(sources)
  } catch (error) {
    if (error instanceof SourceUnusable) return error
    throw error
  }
  throw new Error("it was not refused")
}

describe("listing sources", () => {
  test("a folder gives entries under its own name, folders before what is in them", async () => {
    const folder = writeTree(scratchFolder(), {
      "photos/b.txt": patternBytes(3, 0),
      "photos/a/c.txt": patternBytes(5, 0),
      "photos/empty": undefined,
    })
    const { entries, contentBytes } = await scan(path.join(folder, "photos"))
    expect(entries.map(({ type, path: name, mark }) => [type, name, mark.size])).toEqual([
      ["directory", "photos", 0],
      ["directory", "photos/a", 0],
      ["file", "photos/a/c.txt", 5],
      ["file", "photos/b.txt", 3],
      ["directory", "photos/empty", 0],
    ])
    expect(contentBytes).toBe(8)
  })

  test("names are ordered by their bytes, not by a language", async () => {
    const names = ["Z", "a", "é", "\u{1F600}", "\uFF5E", "a.b", "a b"]
    const folder = writeTree(
      scratchFolder(),
      Object.fromEntries(names.map((name) => [`in/${name}`, patternBytes(1, 0)])),
    )
    const { entries } = await scan(path.join(folder, "in"))
    const byBytes = names.sort((a, b) => Buffer.from(a).compare(Buffer.from(b)))
    expect(entries.slice(1).map(({ path: name }) => name)).toEqual(byBytes.map((n) => `in/${n}`))
  })

  test("the name does not depend on how the folder was named", async () => {
    const folder = writeTree(scratchFolder(), { "in/x": patternBytes(1, 0) })
    for (const spelling of ["in/", "in/.", "./in", "other/../in"]) {
      const { entries } = await scan(`${folder}/${spelling}`)
      expect(entries.map((entry) => entry.path)).toEqual(["in", "in/x"])
    }
  })

  test("an executable file is marked, and nothing else is", async () => {
    const folder = writeTree(scratchFolder(), { run: patternBytes(1, 0), read: patternBytes(1, 0) })
    chmodSync(path.join(folder, "run"), 0o755)
    const { entries } = await scan(path.join(folder, "run"), path.join(folder, "read"))
    expect(entries.map(({ executable }) => executable)).toEqual([true, false])
  })

  test("links, pipes and sockets in a folder are left out and named", async () => {
    const folder = writeTree(scratchFolder(), { "in/file": patternBytes(1, 0) })
    symlinkSync("/etc", path.join(folder, "in/link"))
    execFileSync("mkfifo", [path.join(folder, "in/pipe")])
    const { entries, skipped } = await scan(path.join(folder, "in"))
    expect(entries.map((entry) => entry.path)).toEqual(["in", "in/file"])
    expect(skipped).toEqual([
      { path: path.join(folder, "in/link"), reason: "a symbolic link" },
      { path: path.join(folder, "in/pipe"), reason: "a pipe" },
    ])
  })

  test("a link that is itself named is refused, with what it points to", async () => {
    const folder = writeTree(scratchFolder(), { file: patternBytes(1, 0) })
    symlinkSync("file", path.join(folder, "link"))
    const { problems } = await refusal([{ kind: "path", path: path.join(folder, "link") }])
    expect(problems).toHaveLength(1)
    expect(problems[0]?.reason).toContain(path.join(folder, "file"))
  })

  test("names that are not UTF-8 are all listed before anything is sent, or left out when asked", async () => {
    const folder = writeTree(scratchFolder(), { "in/good": patternBytes(1, 0) })
    for (const byte of [0xff, 0xc3]) {
      const bad = Buffer.concat([Buffer.from(`${folder}/in/bad-`), Buffer.of(byte)])
      renameSync(touch(path.join(folder, "new")), bad)
    }
    const { problems } = await refusal([{ kind: "path", path: path.join(folder, "in") }])
    expect(problems.map((problem) => path.basename(problem.path))).toEqual([
      "bad-\\xc3",
      "bad-\\xff",
    ])
    expect(problems.map(({ reason }) => reason)).toEqual([
      "its name is not UTF-8",
      "its name is not UTF-8",
    ])
    const source = { kind: "path", path: path.join(folder, "in") } as const
    const { entries, skipped } = await scanSources([source], { skipBadNames: true })
    expect(entries.map((entry) => entry.path)).toEqual(["in", "in/good"])
    expect(skipped.map(({ path: name, reason }) => [path.basename(name), reason])).toEqual([
      ["bad-\\xc3", "its name is not UTF-8"],
      ["bad-\\xff", "its name is not UTF-8"],
    ])
  })

  test("two sources of one name are refused, naming both", async () => {
    const folder = writeTree(scratchFolder(), {
      "a/x": patternBytes(1, 0),
      "b/x": patternBytes(1, 0),
    })
    const [first, second] = [path.join(folder, "a/x"), path.join(folder, "b/x")]
    const error = await refusal([
      { kind: "path", path: first },
      { kind: "path", path: second },
    ])
    expect(error.message).toContain(first)
    expect(error.message).toContain(second)
    const stream = await refusal([
      { kind: "path", path: first },
      { kind: "stream", name: "x", stream: nobody },
    ])
    expect(stream.problems).toHaveLength(1)
  })

  test("what is not there is named together with everything else that is wrong", async () => {
    const folder = scratchFolder()
    const { problems } = await refusal([
      { kind: "path", path: path.join(folder, "one") },
      { kind: "path", path: path.join(folder, "two") },
    ])
    expect(problems.map(({ reason }) => reason)).toEqual([
      "there is no such file or folder",
      "there is no such file or folder",
    ])
  })

  test("a path that is too long or too deep for the format is named", async () => {
    const folder = scratchFolder()
    const long = path.join("deep", ...Array.from({ length: 5 }, () => "n".repeat(250)))
    const deep = path.join("deep", ...Array.from({ length: 65 }, () => "d"))
    for (const name of [long, deep]) mkdirSync(path.join(folder, name), { recursive: true })
    const { problems } = await refusal([{ kind: "path", path: path.join(folder, "deep") }])
    expect(new Set(problems.map(({ reason }) => reason))).toEqual(
      new Set(["its path is longer than 1024 bytes", "it lies more than 64 folders deep"]),
    )
  })

  test("the root of the file system has no name to be delivered under", async () => {
    const { problems } = await refusal([{ kind: "path", path: "/" }])
    expect(problems[0]?.reason).toBe("it has no name that it could be delivered under")
  })

  test("listing stops when it is told to", async () => {
    const folder = writeTree(
      scratchFolder(),
      Object.fromEntries(Array.from({ length: 600 }, (_, i) => [`in/${i}`, undefined])),
    )
    const source = { kind: "path", path: path.join(folder, "in") } as const
    await expect(scanSources([source], { signal: AbortSignal.abort() })).rejects.toThrow("aborted")
  })
})

function touch(file: string): string {
  writeFileSync(file, "")
  return file
}
