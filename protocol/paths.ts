// Which paths a delivery may hold (docs/protocol.md §4.2). These rules keep a manifest to one tree
// that can be put below any folder; what a platform cannot store is that platform's business.
import { parseUtf8 } from "./bytes.js"
import { FormatError } from "./errors.js"
import { maxComponentBytes, maxPathBytes, maxPathComponents } from "./limits.js"

export interface PathEntry {
  readonly type: "file" | "directory"
  /** UTF-8 as the sender had it, components separated by "/". */
  readonly path: Uint8Array
}

/** Checks one path by itself and returns it as text. Throws FormatError that names the rule. */
export function checkPath(path: Uint8Array, field: string = "path"): string {
  if (path.length > maxPathBytes) throw new FormatError(field, "over 1024 bytes")
  const text = parseUtf8(path, field)
  let components = 1
  let componentStart = 0
  for (let i = 0; i <= path.length; i++) {
    if (path[i] === 0) throw new FormatError(field, "holds a NUL")
    if (i < path.length && path[i] !== 0x2f) continue
    const length = i - componentStart
    if (length === 0) throw new FormatError(field, "has an empty component")
    if (length > maxComponentBytes) throw new FormatError(field, "has a component over 255 bytes")
    if (isDots(path, componentStart, length)) {
      throw new FormatError(field, "has . or .. as a component")
    }
    componentStart = i + 1
    if (i < path.length) components++
  }
  if (components > maxPathComponents) throw new FormatError(field, "has more than 64 components")
  return text
}

function isDots(path: Uint8Array, start: number, length: number): boolean {
  return length <= 2 && path[start] === 0x2e && (length === 1 || path[start + 1] === 0x2e)
}

/**
 * Checks every path, and that they make one tree: no path twice, no file that is also a folder. A
 * sender calls this before anything is sent. Throws FormatError.
 */
export function checkPaths(entries: readonly PathEntry[]): void {
  checkTree(
    entries,
    entries.map((entry, index) => checkPath(entry.path, pathField(index))),
  )
}

/**
 * For paths that passed `checkPath`; `texts` are the same as text. Sorting with "/" as the lowest
 * character puts everything inside a folder right behind it, so neighbours are all there is to
 * compare. Collecting the folders instead would take memory that a hostile manifest multiplies by 64.
 */
export function checkTree(entries: readonly PathEntry[], texts: readonly string[]): void {
  // NUL occurs in no path. Two of them end a path, and one goes on into a folder.
  const keys = texts.map(
    (text, index) => `${text.replaceAll("/", "\0")}\0\0${entries[index]?.type ?? ""}`,
  )
  keys.sort()
  let previous = ""
  for (const key of keys) {
    // "directory" comes before "file", so a file is compared with all that must not be there.
    const end = previous.lastIndexOf("\0")
    const clash = previous.endsWith("file") ? previous.slice(0, end) : previous.slice(0, end + 1)
    if (previous !== "" && key.startsWith(clash)) {
      const text = key.slice(0, key.lastIndexOf("\0") - 1).replaceAll("\0", "/")
      throw new FormatError(
        pathField(texts.lastIndexOf(text)),
        "also the path of another entry, or inside one that is a file",
      )
    }
    previous = key
  }
}

function pathField(index: number): string {
  return `entry ${index}.path`
}
