/**
 * Under which names a folder stores what arrives (docs/receiving-names.md). A name is kept byte for byte
 * wherever that is possible; where it is not, it is written as another one from which it can be told, and
 * no two names are ever written as the same. What a file system does with names is found out by trying
 * it, in the folder where they will be: it is a matter of the disk, not of the operating system.
 */
import { createHash } from "node:crypto"
import { closeSync, lstatSync, mkdirSync, openSync, readdirSync, rmSync } from "node:fs"
import path from "node:path"
import { utf8 } from "../protocol/bytes.js"
import { errorCode } from "./error-code.js"

export interface NameTraits {
  /** `a` and `A` are one name. */
  readonly foldsCase: boolean
  /** A letter with its accent is one name with that letter and that accent as two characters. */
  readonly foldsForm: boolean
  /** Names that mean something else on Windows are refused, or quietly lose their end. */
  readonly isWindowsLike: boolean
}

/** Tries names in a folder of its own below `folder`, which is there and nobody else's. */
export function tryNames(folder: string): NameTraits {
  const trial = path.join(folder, "names")
  rmSync(trial, { recursive: true, force: true })
  mkdirSync(trial, { mode: 0o700 })
  try {
    return {
      foldsCase: make(trial, "case") && isThere(trial, "CASE"),
      foldsForm: make(trial, "\u00e9") && isThere(trial, "e\u0301"),
      isWindowsLike:
        process.platform === "win32" ||
        !make(trial, "end.") ||
        !readdirSync(trial).includes("end."),
    }
  } finally {
    rmSync(trial, { recursive: true, force: true })
  }
}

function make(folder: string, name: string): boolean {
  try {
    closeSync(openSync(path.join(folder, name), "wx", 0o600))
    return true
  } catch (error) {
    if (!isRefusedName(error)) throw error
    return false
  }
}

function isThere(folder: string, name: string): boolean {
  return lstatSync(path.join(folder, name), { throwIfNoEntry: false }) !== undefined
}

/** The file system does not store this name, whatever is there. */
export function isRefusedName(error: unknown): boolean {
  return ["EILSEQ", "EINVAL", "ENAMETOOLONG"].includes(errorCode(error) ?? "")
}

/** Something of this name is there, or of one that the file system takes for the same. */
export function isTakenName(error: unknown): boolean {
  return ["EEXIST", "EISDIR", "ENOTDIR"].includes(errorCode(error) ?? "")
}

// Each form of a name but the last gives it back when its `%XX` are read as the bytes of UTF-8, so no two
// names share one. The last form alone holds `%~`.

const devices = /^(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?:$|[. :])/i
// oxlint-disable-next-line no-control-regex -- these are what Windows refuses
const refusedCharacters = /[\u0000-\u001f\u007f<>:"|?*\\]/
// oxlint-disable-next-line no-control-regex -- the same
const refusedOrPercent = /[\u0000-\u001f\u007f<>:"|?*\\%]/g
const lostEnd = /[. ]$/
const notPlain = /[^A-Za-z0-9._ -]/gu
const renamed = /%(?:[0-9A-F]{2}|~)/

/** A name that is the same one on Windows: no device, no other folder, no stream of another file. */
function isWindowsName(name: string): boolean {
  return !devices.test(name) && !refusedCharacters.test(name) && !lostEnd.test(name)
}

/** The names under which `name` may be stored, in the order in which they are tried. */
export function* namesFor(name: string, isWindowsLike: boolean): Generator<string> {
  if (!isWindowsLike || (isWindowsName(name) && !renamed.test(name))) yield name
  yield withoutEnds(name.replace(refusedOrPercent, percent))
  const plain = withoutEnds(name.replace(notPlain, percent))
  yield plain
  const hash = createHash("sha256").update(name).digest("hex").slice(0, 16)
  const start = plain.slice(0, 60).replace(/%[0-9A-F]?$/, "")
  yield `${start}%~${hash}${/\.[A-Za-z0-9]{1,10}$/.exec(name)?.[0] ?? ""}`
}

function withoutEnds(name: string): string {
  const whole = name.replace(lostEnd, percent)
  return devices.test(whole) ? percent(whole.slice(0, 1)) + whole.slice(1) : whole
}

function percent(text: string): string {
  const bytes = Array.from(utf8(text), (byte) => byte.toString(16).toUpperCase().padStart(2, "0"))
  return bytes.map((byte) => `%${byte}`).join("")
}

/**
 * Makes something under the first of its names that the file system takes, and says which that was.
 * Throws what `make` throws when there is none, or when the name itself is taken.
 */
export function makeNamed<T>(
  name: string,
  isWindowsLike: boolean,
  make: (name: string) => T,
): { name: string; made: T } {
  let refusal: unknown
  for (const candidate of namesFor(name, isWindowsLike)) {
    try {
      return { name: candidate, made: make(candidate) }
    } catch (error) {
      // A name that looks like a renamed one can be met by one: then it is itself renamed.
      const goesOn = isRefusedName(error) || (isTakenName(error) && renamed.test(candidate))
      if (!goesOn) throw error
      refusal = error
    }
  }
  throw refusal
}

/**
 * The entries that such a file system takes for another one that comes before them, or that lie in a
 * folder it takes for another one: by number. `paths` are those of the manifest.
 */
export function foldedEntries(paths: readonly string[], traits: NameTraits): Set<number> {
  const colliding = new Set<number>()
  if (!traits.foldsCase && !traits.foldsForm) return colliding
  // Folders are known by number: by their whole paths they would take the memory of a hostile list times
  // its depth.
  const firstOf = new Map<string, { name: string; number: number }>()
  for (const [index, path] of paths.entries()) {
    let folder = 0
    for (const name of path.split("/")) {
      const key = `${folder}/${folded(name, traits)}`
      const first = firstOf.get(key) ?? { name, number: firstOf.size + 1 }
      firstOf.set(key, first)
      if (first.name !== name) {
        colliding.add(index)
        break
      }
      folder = first.number
    }
  }
  return colliding
}

/** Names that are the same one to a file system that folds in these ways. */
export function folded(
  name: string,
  { foldsCase, foldsForm }: Pick<NameTraits, "foldsCase" | "foldsForm">,
): string {
  const formed = foldsForm ? name.normalize("NFC") : name
  // Both ways, because several small letters share a capital one, and the other way round.
  return foldsCase ? formed.toLowerCase().toUpperCase().toLowerCase() : formed
}
