/** Folders for a test to work in, and what is in them. */
import {
  mkdirSync,
  mkdtempSync,
  promises,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { createHash } from "node:crypto"
import { syncBuiltinESMExports } from "node:module"
import { tmpdir } from "node:os"
import path from "node:path"
import { onTestFinished } from "vitest"

export function scratchFolder(): string {
  const folder = mkdtempSync(path.join(tmpdir(), "knothole-test-"))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** What such file systems answer: FAT and exFAT, FUSE and SMB, Android, and FAT on Windows. */
export const withoutHardLinks = [
  "EPERM",
  "ENOSYS",
  "ENOTSUP",
  "EOPNOTSUPP",
  "EMLINK",
  "EACCES",
  "EISDIR",
]

type Call = (file: string, options?: unknown) => Promise<unknown>

/** Lays `act` over a function of node:fs/promises until the test ends, or what this gives back is called. */
export function insteadOf(
  name: "link" | "readdir" | "rm" | "rmdir" | "writeFile",
  act: (call: Call, file: string, options?: unknown) => Promise<unknown>,
): () => void {
  // All of these take a path first and one thing more; what they give back is only handed on.
  const calls = promises as unknown as Record<typeof name, Call>
  const call = calls[name]
  const restore = () => {
    calls[name] = call
    syncBuiltinESMExports()
  }
  calls[name] = async (file, options) => act(call, file, options)
  syncBuiltinESMExports()
  onTestFinished(restore)
  return restore
}

/** Until the test ends no file gets a second name. */
export function refuseHardLinks(code = "EPERM"): void {
  insteadOf("link", () => Promise.reject(Object.assign(new Error(`${code}: link`), { code })))
}

/** Bytes that are the same in every run and different for every `seed`. */
export function patternBytes(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length)
  for (let i = 0; i < length; i++) bytes[i] = (7 * i + 13 * (i >> 8) + 29 * (i >> 16) + seed) & 255
  return bytes
}

export function writeTree(folder: string, files: Record<string, Uint8Array | undefined>): string {
  for (const [name, content] of Object.entries(files)) {
    const file = path.join(folder, name)
    mkdirSync(content === undefined ? file : path.dirname(file), { recursive: true })
    if (content !== undefined) writeFileSync(file, content)
  }
  return folder
}

/** Length and hash: comparing megabytes by the test runner's own means takes it seconds. */
export function digest(bytes: Uint8Array): string {
  return `${bytes.length} ${createHash("sha256").update(bytes).digest("hex")}`
}

export type Tree = Record<string, string | undefined>

/** Every file and folder below, by name: files by their digest. */
export function readTree(folder: string): Tree {
  const tree: Tree = {}
  for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" }).sort()) {
    const file = path.join(folder, name)
    tree[name] = statSync(file).isDirectory() ? undefined : digest(readFileSync(file))
  }
  return tree
}

/** What `readTree` gives of such files. */
export function treeOf(files: Record<string, Uint8Array | undefined>): Tree {
  return Object.fromEntries(
    Object.entries(files).map(([name, content]) => [name, content && digest(content)]),
  )
}
