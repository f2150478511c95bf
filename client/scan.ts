/**
 * Lists what is to be sent: once, before anything else happens, so that everything that cannot be sent
 * is named together and nothing is half sent because of it. Follows no links. The order is that of the
 * bytes of the names, so that listing the same tree twice gives the same delivery.
 */
import {
  accessSync,
  type BigIntStats,
  constants,
  lstatSync,
  readdirSync,
  realpathSync,
} from "node:fs"
import path from "node:path"
import { isUtf8 } from "node:buffer"
import {
  maxBodyBytes,
  maxComponentBytes,
  maxEntries,
  maxPathBytes,
  maxPathComponents,
  utf8,
} from "../protocol/index.js"
import { SourceUnusable } from "./errors.js"
import { errorCode } from "./error-code.js"
import { type CallOptions, say } from "./progress.js"
import type { FileMark } from "./unit-work.js"

export type Source =
  | { kind: "path"; path: string }
  | { kind: "stream"; name: string; stream: AsyncIterable<Uint8Array> }

export interface ScannedEntry {
  readonly type: "file" | "directory"
  /** Its name in the delivery, components separated by `/`. */
  readonly path: string
  /** Where it is read. */
  readonly from: string
  /** For a folder the size is 0. */
  readonly mark: FileMark
  readonly mtimeMs: number
  readonly executable: boolean
}

export interface Skipped {
  readonly path: string
  readonly reason: string
}

export interface Scan {
  readonly entries: readonly ScannedEntry[]
  readonly skipped: readonly Skipped[]
  readonly contentBytes: number
}

export interface ScanOptions extends CallOptions {
  /** Leave names that are not UTF-8 out instead of refusing all. */
  skipBadNames?: boolean
}

/** How many entries are looked at before others get their turn. */
const batch = 500

export async function scanSources(
  sources: readonly Source[],
  call: ScanOptions = {},
): Promise<Scan> {
  const scanner = new Scanner(call.skipBadNames === true)
  say(call, { kind: "phase", phase: "scanning" })
  for (const step of scanner.walk(sources)) {
    if (step % batch !== 0) continue
    say(call, { kind: "count", done: step, total: undefined })
    await new Promise((resolve) => setImmediate(resolve))
    call.signal?.throwIfAborted()
  }
  if (scanner.problems.length > 0) throw new SourceUnusable(scanner.problems)
  return scanner
}

class Scanner implements Scan {
  readonly entries: ScannedEntry[] = []
  readonly skipped: Skipped[] = []
  readonly problems: { path: string; reason: string }[] = []
  contentBytes = 0
  readonly #tops = new Map<string, string>()
  readonly #skipBadNames: boolean
  /** Undefined where files have no owners. */
  readonly #uid = process.geteuid && BigInt(process.geteuid())

  constructor(skipBadNames: boolean) {
    this.#skipBadNames = skipBadNames
  }

  #claimTop(name: string, named: string): boolean {
    if (name === "" || name === "." || name === ".." || name.includes("/") || name.includes("\0")) {
      this.#refuse(named, "it has no name that it could be delivered under")
      return false
    }
    const other = this.#tops.get(name)
    if (other !== undefined) {
      this.#refuse(
        named,
        `it would be delivered under the same name as ${other}; send them one by one`,
      )
      return false
    }
    this.#tops.set(name, named)
    return true
  }

  /** Yields the number of entries seen so far, after each. */
  *walk(sources: readonly Source[]): Generator<number> {
    for (const source of sources) {
      const named = source.kind === "stream" ? source.name : source.path
      const name = source.kind === "stream" ? source.name : path.basename(path.resolve(source.path))
      if (!this.#claimTop(name, named)) continue
      if (source.kind === "path") yield* this.#top(source.path, name)
    }
    // Streams are entries too, only not known yet.
    const streams = sources.filter(({ kind }) => kind === "stream").length
    if (this.entries.length + streams > maxEntries) {
      this.#refuse(
        "the sources",
        `more than ${maxEntries} files and folders; send them in several deliveries`,
      )
    }
    if (this.contentBytes > maxBodyBytes) {
      this.#refuse("the sources", "more than 64 GiB; send them in several deliveries")
    }
  }

  *#top(given: string, name: string): Generator<number> {
    const from = path.resolve(given)
    const stats = this.#look(from, given)
    if (stats === undefined) return
    if (stats.isSymbolicLink()) {
      this.#refuse(given, `it is a symbolic link; name what it points to${pointsTo(from)}`)
      return
    }
    if (!stats.isFile() && !stats.isDirectory()) {
      this.#refuse(given, "it is neither a file nor a folder")
      return
    }
    yield* this.#visit(from, name, stats)
  }

  *#visit(from: string, name: string, stats: BigIntStats): Generator<number> {
    if (stats.isDirectory()) {
      this.#add("directory", from, name, stats)
      yield this.entries.length
      yield* this.#children(from, name)
    } else if (stats.isFile()) {
      this.#add("file", from, name, stats)
      yield this.entries.length
    } else {
      this.skipped.push({ path: from, reason: kindOf(stats) })
    }
  }

  *#children(from: string, name: string): Generator<number> {
    let names: Buffer[]
    try {
      names = readdirSync(from, { encoding: "buffer" })
    } catch (error) {
      this.#refuse(from, unreadable(error))
      return
    }
    for (const child of names.sort((a, b) => a.compare(b))) {
      // A name is sent as the bytes it is, and those must be UTF-8 to mean the same to everybody.
      if (!isUtf8(child)) {
        this.#badName(`${from}/${escaped(child)}`)
        continue
      }
      const text = child.toString()
      const at = from + path.sep + text
      const stats = this.#look(at, at)
      if (stats !== undefined) yield* this.#visit(at, `${name}/${text}`, stats)
    }
  }

  #look(from: string, named: string): BigIntStats | undefined {
    try {
      return lstatSync(from, { bigint: true })
    } catch (error) {
      this.#refuse(named, unreadable(error))
      return undefined
    }
  }

  #add(type: ScannedEntry["type"], from: string, name: string, stats: BigIntStats): void {
    const size = type === "file" ? Number(stats.size) : 0
    if (type === "file" && !this.#ownerMayRead(stats)) {
      try {
        accessSync(from, constants.R_OK)
      } catch (error) {
        this.#refuse(from, unreadable(error))
        return
      }
    }
    const tooLong = tooLongName(name)
    if (tooLong !== undefined) {
      this.#refuse(from, tooLong)
      return
    }
    this.contentBytes += size
    this.entries.push({
      type,
      path: name,
      from,
      mark: { size, mtimeNs: stats.mtimeNs, ino: stats.ino },
      mtimeMs: Math.max(0, Number(stats.mtimeMs)),
      executable: type === "file" && (stats.mode & 0o100n) !== 0n,
    })
  }

  /**
   * Then no list beside the mode can take it away. Where a server takes us for somebody else, the file is
   * told of when it is opened.
   */
  #ownerMayRead({ uid, mode }: BigIntStats): boolean {
    return uid === this.#uid && (mode & 0o400n) !== 0n
  }

  #badName(named: string): void {
    if (this.#skipBadNames) this.skipped.push({ path: named, reason: badName })
    else this.#refuse(named, badName)
  }

  #refuse(named: string, reason: string): void {
    this.problems.push({ path: named, reason })
  }
}

export const badName = "its name is not UTF-8"

function tooLongName(name: string): string | undefined {
  // Three bytes for each UTF-16 unit at most: most names need no closer look.
  if (name.length * 3 <= maxComponentBytes) return undefined
  const components = name.split("/")
  if (utf8(name).length > maxPathBytes) return `its path is longer than ${maxPathBytes} bytes`
  if (components.length > maxPathComponents) {
    return `it lies more than ${maxPathComponents} folders deep`
  }
  if (components.some((component) => utf8(component).length > maxComponentBytes)) {
    return `its name is longer than ${maxComponentBytes} bytes`
  }
  return undefined
}

function kindOf(stats: BigIntStats): string {
  if (stats.isSymbolicLink()) return "a symbolic link"
  if (stats.isFIFO()) return "a pipe"
  if (stats.isSocket()) return "a socket"
  return "a device"
}

function pointsTo(link: string): string {
  try {
    return `, ${realpathSync(link)}`
  } catch {
    return ""
  }
}

function unreadable(error: unknown): string {
  switch (errorCode(error) ?? "") {
    case "ENOENT":
      return "there is no such file or folder"
    case "EACCES":
    case "EPERM":
      return "it may not be read by this user"
    default:
      return error instanceof Error ? error.message : String(error)
  }
}

/** `bad\xff`: what is no ASCII as its bytes. */
function escaped(name: Uint8Array): string {
  return Array.from(name, (byte) =>
    byte < 0x80 ? String.fromCharCode(byte) : `\\x${byte.toString(16)}`,
  ).join("")
}
