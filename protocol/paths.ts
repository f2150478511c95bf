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
export function checkPaths(entries: Iterable<PathEntry>): void {
  const keys: string[] = []
  for (const { path, type } of entries) {
    keys.push(pathKey(checkPath(path, `entry ${keys.length}.path`), type))
  }
  checkTree(keys)
}

/**
 * What `checkTree` sorts: the path with "/" as the lowest character, so that everything inside a
 * folder comes right behind it. NUL occurs in no path; two of them end one, and one goes on into a
 * folder. The type comes last: of one path, a directory sorts before a file.
 */
export function pathKey(path: string, type: PathEntry["type"]): string {
  return `${path}//${type === "directory" ? "d" : "f"}`.replaceAll("/", "\0")
}

/**
 * Refuses two entries of one path, and a file that another entry lies in. Sorts `keys` and compares
 * neighbours: collecting all folders instead would take memory that a hostile manifest multiplies
 * by the depth of its paths.
 */
export function checkTree(keys: readonly string[]): void {
  let previous: string | undefined
  for (const key of keys.toSorted()) {
    // Of a folder, only the folder or a file once more; of a file, also anything inside.
    const clash = previous?.slice(0, previous.endsWith("f") ? -2 : -1)
    if (clash !== undefined && key.startsWith(clash)) {
      throw new FormatError(
        `entry ${keys.lastIndexOf(key)}.path`,
        "also the path of another entry, or inside one that is a file",
      )
    }
    previous = key
  }
}

/**
 * How many folders these paths make, those on the way to an entry included; the path of a folder ends
 * in "/". Sorted, all that lies in one folder stands together, so each path is held against the one
 * before it: a set of the folders would take memory that a hostile manifest multiplies by their depth.
 */
export function countFolders(paths: readonly string[]): number {
  let count = 0
  let previous = ""
  for (const path of paths.toSorted()) {
    let at = 0
    while (at < path.length && path.charCodeAt(at) === previous.charCodeAt(at)) at++
    for (let end = path.indexOf("/", at); end !== -1; end = path.indexOf("/", end + 1)) count++
    previous = path
  }
  return count
}
