/** Folders for a test to work in, and what is in them. */
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { onTestFinished } from "vitest"

export function scratchFolder(): string {
  const folder = mkdtempSync(path.join(tmpdir(), "knothole-test-"))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
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

/** Every file and folder below, by name; folders without content. */
export function readTree(folder: string): Record<string, Uint8Array | undefined> {
  const tree: Record<string, Uint8Array | undefined> = {}
  for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" }).sort()) {
    const file = path.join(folder, name)
    tree[name] = statSync(file).isDirectory() ? undefined : new Uint8Array(readFileSync(file))
  }
  return tree
}
