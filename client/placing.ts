/**
 * From the private folder to where the owner wants it. What was received lies there as a finished tree,
 * so putting it in place is a rename of each top-level name; nothing is copied, and nothing that is
 * already there is replaced unless that was asked for.
 */
import { type Stats, constants } from "node:fs"
import { access, lstat, readdir, rename, rmdir, unlink } from "node:fs/promises"
import path from "node:path"
import { DestinationExists, type Unlike } from "./errors.js"
import { errorCode } from "./error-code.js"
import { moveIfFree } from "./hard-links.js"
import { PinnedFolders } from "./pinned-folder.js"
import { maxComponentBytes, utf8 } from "../protocol/index.js"
import { folded, isRefusedName } from "./stored-names.js"

export type OnExisting = "fail" | "overwrite" | "rename"

export interface Move {
  readonly from: string
  readonly to: string
  /** A file that may be replaced. Folders are never replaced, only entered. */
  readonly replace: boolean
}

export interface PlacingPlan {
  readonly into: string
  readonly moves: readonly Move[]
  /** The top-level names of the tree, and as which they will stand in the destination. */
  readonly names: ReadonlyMap<string, string>
  /** Folders of the tree that are empty once their content has been moved elsewhere. */
  readonly emptied: readonly string[]
  /** A run before this may have put some of it in place. */
  readonly isBegun: boolean
}

/** The top-level names of a delivery that the destination already has. Looks only. */
export async function existingNames(into: string, names: readonly string[]): Promise<string[]> {
  const found: string[] = []
  for (const name of names) {
    if (await stat(path.join(into, name))) found.push(path.join(into, name))
  }
  return found
}

/**
 * What the destination has of another kind than the delivery: where a folder is entered or a file is
 * replaced there is no other way in. `wanted` are paths with `/`, and `storedAs` says which this disk makes
 * of one: asked for those alone that are looked for, because a list may name very many. Looks only.
 */
export async function unlikeNames(options: {
  into: string
  wanted: Iterable<{ name: string; sent: Unlike["sent"] }>
  storedAs: (name: string) => string
  signal: AbortSignal
}): Promise<Map<string, Unlike>> {
  const { into, wanted, storedAs, signal } = options
  const unlike = new Map<string, Unlike>()
  /** Folders of the delivery that were looked for, and whether there is one to look into. */
  const folders = new Map<string, boolean>()
  const isFolderHere = async (name: string, sent: Unlike["sent"]) => {
    const at = path.join(into, storedAs(name))
    const there = await stat(at)
    const here = there && kindOf(there)
    if (here !== undefined && here !== sent) unlike.set(at, { here, sent })
    return here === "a folder"
  }
  for (const { name, sent } of wanted) {
    signal.throwIfAborted()
    let isThere = true
    for (
      let slash = name.indexOf("/");
      slash !== -1 && isThere;
      slash = name.indexOf("/", slash + 1)
    ) {
      const folder = name.slice(0, slash)
      isThere = folders.get(folder) ?? (await isFolderHere(folder, "a folder"))
      folders.set(folder, isThere)
    }
    if (isThere && !folders.has(name)) await isFolderHere(name, sent)
  }
  return unlike
}

function kindOf(stats: Stats): Unlike["here"] {
  if (stats.isDirectory()) return "a folder"
  if (stats.isFile()) return "a file"
  return stats.isSymbolicLink() ? "a link" : "something else"
}

/** Throws DestinationExists, with every name in the way, before anything is moved. */
export async function planPlacing(options: {
  tree: string
  into: string
  onExisting: OnExisting
  /** Folders that are there may be entered also where no file may be replaced. */
  entersFolders: boolean
  isBegun: boolean
}): Promise<PlacingPlan> {
  const { tree, into, onExisting, entersFolders, isBegun } = options
  const moves: Move[] = []
  const names = new Map<string, string>()
  const emptied: string[] = []
  const inTheWay: string[] = []
  const unlike = new Map<string, Unlike>()

  const merge = async (from: string, to: string): Promise<void> => {
    const [source, target] = [await stat(from), await stat(to)]
    if (source === undefined) return
    if (target === undefined) {
      moves.push({ from, to, replace: false })
    } else if (isSameFile(source, target)) {
      // Linked into place by a run that was cut off before it removed the old name.
      moves.push({ from, to, replace: true })
    } else if (source.isDirectory() && target.isDirectory()) {
      for (const name of await readdir(from))
        await merge(path.join(from, name), path.join(to, name))
      emptied.push(from)
    } else if (source.isFile() && target.isFile() && onExisting === "overwrite") {
      moves.push({ from, to, replace: true })
    } else {
      // A folder where a file should be, the other way round, or a link, which is never followed; or a
      // file that may not be replaced.
      inTheWay.push(to)
      const sent = source.isDirectory() ? "a folder" : "a file"
      const here = kindOf(target)
      if (here !== sent) unlike.set(to, { here, sent })
    }
  }

  const top = await readdir(tree)
  const taken = new Set(top.map(foldedName))
  for (const name of top) {
    const from = path.join(tree, name)
    const to = path.join(into, name)
    const [source, target] = [await stat(from), await stat(to)]
    if (source === undefined) continue
    if (target === undefined || isSameFile(source, target)) {
      moves.push({ from, to, replace: target !== undefined })
      names.set(name, name)
    } else if (onExisting === "fail" && !entersFolders) {
      inTheWay.push(to)
    } else if (onExisting === "rename") {
      const free = await freeName({ into, name, source, taken })
      taken.add(foldedName(free.name))
      moves.push({ from, to: path.join(into, free.name), replace: free.isThere })
      names.set(name, free.name)
    } else {
      await merge(from, to)
      names.set(name, name)
    }
  }
  if (inTheWay.length > 0) throw new DestinationExists(inTheWay, { isPartlyThere: isBegun, unlike })
  return { into, moves, names, emptied, isBegun }
}

/** Can be run again after a crash: a plan made anew holds only what is still to be moved. */
export async function placeAll(plan: PlacingPlan): Promise<void> {
  const folders = new PinnedFolders(plan.into)
  let { isBegun } = plan
  try {
    for (const move of plan.moves) {
      const folder = await folders.pathTo(path.dirname(move.to))
      await placeOne(move, `${folder}/${path.basename(move.to)}`)
      isBegun = true
    }
  } catch (error) {
    if (!(error instanceof DestinationExists) || !isBegun) throw error
    throw error.with({ isPartlyThere: true })
  } finally {
    await folders.close()
  }
  for (const folder of plan.emptied) await rmdir(folder)
}

/** `at` is `to` by a way that leads nowhere else. */
async function placeOne({ from, to, replace }: Move, at: string): Promise<void> {
  const source = await stat(from)
  if (source === undefined) return
  if (source.isDirectory()) {
    try {
      // The most this can replace is an empty folder.
      await rename(from, at)
    } catch (error) {
      const code = errorCode(error) ?? ""
      if (["ENOTEMPTY", "EEXIST", "ENOTDIR"].includes(code)) throw new DestinationExists([to])
      throw error
    }
    return
  }
  if (replace) {
    const target = await stat(at)
    if (target && isSameFile(source, target)) await unlink(from)
    else await rename(from, at)
    return
  }
  if (!(await moveIfFree(from, at))) throw new DestinationExists([to])
}

/** How much shorter a name is made at a time on a disk that takes none of 255 bytes. */
const shorterByBytes = 16

/**
 * A name that is none of the delivery's own, nor one that was found for another, nor on the disk. Or one
 * that is: where a run that was cut off has linked the file and not yet removed its old name.
 */
async function freeName(wanted: {
  into: string
  name: string
  source: Stats
  taken: ReadonlySet<string>
}): Promise<{ name: string; isThere: boolean }> {
  const { into, name, source, taken } = wanted
  for (let most = maxComponentBytes; most > 2 * shorterByBytes; most -= shorterByBytes) {
    for (let number = 2; ; number++) {
      const candidate = numbered({ name, number, isFolder: source.isDirectory(), most })
      if (taken.has(foldedName(candidate))) continue
      const there = await look(path.join(into, candidate))
      if (there === "refused") break
      if (there === undefined) return { name: candidate, isThere: false }
      if (isSameFile(source, there)) return { name: candidate, isThere: true }
    }
  }
  throw new DestinationExists([path.join(into, name)])
}

/** As any disk may fold it: a name that is only found for something can keep clear of every other. */
function foldedName(name: string): string {
  return folded(name, { foldsCase: true, foldsForm: true })
}

/** What is longer belongs to the name. */
const longestExtension = 16

/** `photos (2)`, `letter (2).txt`; the stem of a long name loses its end. */
function numbered(wanted: {
  name: string
  number: number
  isFolder: boolean
  most: number
}): string {
  const { name, number, isFolder, most } = wanted
  const last = isFolder ? "" : path.extname(name)
  const extension = utf8(last).length > longestExtension ? "" : last
  const end = ` (${number})${extension}`
  return startOf(name.slice(0, name.length - extension.length), most - utf8(end).length) + end
}

/** The characters of `text` that fit into so many bytes. */
function startOf(text: string, bytes: number): string {
  let start = ""
  let left = bytes
  for (const character of text) {
    left -= utf8(character).length
    if (left < 0) break
    start += character
  }
  return start
}

function isSameFile(a: Stats, b: Stats): boolean {
  return a.ino === b.ino && a.dev === b.dev
}

/** What is there under the name itself, never what a link points to. */
async function stat(file: string): Promise<Stats | undefined> {
  const there = await look(file)
  return there === "refused" ? undefined : there
}

/** "refused" where the disk stores no such name. */
async function look(file: string): Promise<Stats | "refused" | undefined> {
  try {
    return await lstat(file)
  } catch (error) {
    const code = errorCode(error) ?? ""
    if (code === "ENOENT" || code === "ENOTDIR") return undefined
    if (isRefusedName(error)) return "refused"
    throw error
  }
}

/** Whether things can be put there at all, found out before they are fetched. */
export async function checkWritable(folder: string): Promise<void> {
  await access(folder, constants.W_OK | constants.X_OK)
}
