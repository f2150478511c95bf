/**
 * What is done with a unit: read, seal and MAC it on the way out; decrypt, check and write it on the
 * way in. Runs in a worker thread, or on the main thread where a delivery is too small to start one.
 * Everything here is synchronous: a thread that has nothing else to do gains nothing by waiting.
 */
import { closeSync, constants, fstatSync, openSync, readSync, writeSync } from "node:fs"
// Not by the face of protocol/: each thread loads its own copy of everything it imports, and the whole
// of it takes several times the memory and the start-up of these.
import { equalBytes } from "../protocol/bytes.js"
import { maxPartBytes } from "../protocol/limits.js"
import { applyCtr, chunkMac, gridIndex, gridLength } from "../protocol/mega.js"
import { leafHash } from "../protocol/tree.js"
import type { Segment } from "./layout.js"
import { errorCode } from "./error-code.js"
import { isRefusedName, isTakenName, makeNamed } from "./stored-names.js"

/** What a file is known by between one look and the next. */
export interface FileMark {
  readonly size: number
  readonly mtimeNs: bigint
  readonly ino: bigint
}

export type SealPiece =
  | {
      readonly kind: "file"
      readonly path: string
      readonly mark: FileMark
      readonly fileOffset: number
      readonly length: number
      readonly key: Uint8Array
      readonly nonce: Uint8Array
    }
  /** One chunk of a stream, in memory that threads share. */
  | {
      readonly kind: "memory"
      readonly plaintext: Uint8Array
      readonly fileOffset: number
      readonly key: Uint8Array
      readonly nonce: Uint8Array
    }
  /** `offset` is counted from the end of the content; `key` is 24 bytes. */
  | {
      readonly kind: "padding"
      readonly offset: number
      readonly length: number
      readonly key: Uint8Array
    }

export interface SealTask {
  readonly kind: "seal"
  readonly pieces: readonly SealPiece[]
  /** Where the ciphertext goes, in the order of the pieces. */
  readonly segments: readonly Segment[]
  /** Parts that lie wholly in this unit, hashed while they are still in the cache. */
  readonly wholeParts: readonly {
    readonly index: number
    readonly slot: number
    readonly length: number
  }[]
}

export type SealResult =
  | { readonly kind: "sealed"; readonly chunkMacs: Uint8Array; readonly leaves: Uint8Array }
  | { readonly kind: "changed"; readonly path: string }
  | { readonly kind: "unreadable"; readonly path: string; readonly reason: string }

export interface OpenPiece {
  readonly path: string
  /**
   * `new` must not exist; `there` was made before, because other units of the same file are written
   * too; `nowhere` is passed over.
   */
  readonly target: "new" | "there" | "nowhere"
  /** Whether a new file's name has to be one that Windows takes. */
  readonly isWindowsLike: boolean
  readonly fileOffset: number
  readonly length: number
  readonly key: Uint8Array
  readonly nonce: Uint8Array
  /** 16 bytes for each chunk of this piece. */
  readonly chunkMacs: Uint8Array
  /** Set when this piece is the whole file: the mode it is made with. */
  readonly mode: number | undefined
}

export interface OpenTask {
  readonly kind: "open"
  readonly pieces: readonly OpenPiece[]
  readonly segments: readonly Segment[]
}

/** A piece that could not be released. The others of the same unit were. */
export interface FailedPiece {
  readonly piece: number
  readonly reason: "mac" | "exists" | "name" | "full" | "io"
  readonly detail: string
}

export interface OpenResult {
  readonly kind: "opened"
  readonly failed: readonly FailedPiece[]
  /** Pieces whose new file could not get its own name. */
  readonly renamed: readonly { readonly piece: number; readonly name: string }[]
}

/** What a thread is started with. */
export interface ThreadData {
  readonly buffers: readonly SharedArrayBuffer[]
  readonly writeTurn: Int32Array
}

export type UnitTask = SealTask | OpenTask
export type UnitResult = SealResult | OpenResult

/** More than a unit touches at once with large files; small ones are closed at once. */
const mostOpenFiles = 8
/** Smaller writes are over before it is worth taking turns. */
const turnBytes = 128 * 1024

export class UnitWorker {
  readonly #slots: readonly Uint8Array[]
  /** Of one chunk: every plaintext byte passes through here and stays in the cache. */
  readonly #plain = new Uint8Array(maxPartBytes)
  readonly #open = new Map<string, number>()
  readonly #writeTurn: Int32Array

  /** `writeTurn` is one zero, shared by all who work on the same delivery. */
  constructor(slots: readonly Uint8Array[], writeTurn: Int32Array) {
    this.#slots = slots
    this.#writeTurn = writeTurn
  }

  run(task: UnitTask): UnitResult {
    return task.kind === "seal" ? this.#seal(task) : this.#openUnit(task)
  }

  close(): void {
    for (const descriptor of this.#open.values()) closeSync(descriptor)
    this.#open.clear()
  }

  // ---- out

  #seal(task: SealTask): SealResult {
    const cursor = new SegmentCursor(this.#slots, task.segments)
    const macs: Uint8Array[] = []
    for (const piece of task.pieces) {
      if (piece.kind === "padding") {
        this.#pad(piece, cursor)
        continue
      }
      const failed =
        piece.kind === "file"
          ? this.#sealFile(piece, cursor, macs)
          : this.#sealMemory(piece, cursor, macs)
      if (failed) return failed
    }
    const chunkMacs = new Uint8Array(16 * macs.length)
    for (const [index, mac] of macs.entries()) chunkMacs.set(mac, 16 * index)
    const leaves = new Uint8Array(32 * task.wholeParts.length)
    for (const [at, { index, slot, length }] of task.wholeParts.entries()) {
      leaves.set(leafHash({ index, part: slotView(this.#slots, slot, 0, length) }), 32 * at)
    }
    return { kind: "sealed", chunkMacs, leaves }
  }

  #sealFile(
    piece: Extract<SealPiece, { kind: "file" }>,
    cursor: SegmentCursor,
    macs: Uint8Array[],
  ): SealResult | undefined {
    const { path, mark, fileOffset, length } = piece
    let descriptor: number
    try {
      descriptor = this.#reading(path)
    } catch (error) {
      const code = errorCode(error)
      // It was there when the tree was listed.
      if (["ENOENT", "ENOTDIR", "ELOOP", "ENXIO"].includes(code ?? "")) {
        return { kind: "changed", path }
      }
      return { kind: "unreadable", path, reason: String(error) }
    }
    try {
      for (let offset = fileOffset; offset < fileOffset + length;) {
        const chunk = this.#plain.subarray(0, gridLength(gridIndex(offset), mark.size))
        if (!readFully(descriptor, chunk, offset)) return { kind: "changed", path }
        macs.push(chunkMac({ key: piece.key, nonce: piece.nonce, plaintext: chunk }))
        cursor.encrypt(piece, offset, chunk)
        offset += chunk.length
      }
      // Once, behind the last read: what was read from a file that still has its mark is what was listed.
      if (!hasMark(descriptor, mark)) return { kind: "changed", path }
    } catch (error) {
      // A pipe cannot be read from a place, nor a folder at all.
      if (!hasMark(descriptor, mark)) return { kind: "changed", path }
      return { kind: "unreadable", path, reason: String(error) }
    } finally {
      if (fileOffset + length >= mark.size) this.#close(path)
    }
    return undefined
  }

  #sealMemory(
    piece: Extract<SealPiece, { kind: "memory" }>,
    cursor: SegmentCursor,
    macs: Uint8Array[],
  ): undefined {
    const { key, nonce, fileOffset, plaintext } = piece
    macs.push(chunkMac({ key, nonce, plaintext }))
    cursor.encrypt({ key, nonce }, fileOffset, plaintext)
  }

  #pad(piece: Extract<SealPiece, { kind: "padding" }>, cursor: SegmentCursor): void {
    const zeros = this.#plain.subarray(0, piece.length).fill(0)
    const keys = { key: piece.key.subarray(0, 16), nonce: piece.key.subarray(16) }
    cursor.encrypt(keys, piece.offset, zeros)
  }

  #reading(path: string): number {
    // What became a pipe since the tree was listed must not be waited for.
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
    return this.#cached(path, () => openSync(path, flags))
  }

  // ---- in

  #openUnit(task: OpenTask): OpenResult {
    const cursor = new SegmentCursor(this.#slots, task.segments)
    const failed: FailedPiece[] = []
    const renamed: { piece: number; name: string }[] = []
    for (const [index, piece] of task.pieces.entries()) {
      const end = cursor.position + piece.length
      const isNamed = (name: string) => renamed.push({ piece: index, name })
      const failure =
        piece.target === "nowhere" ? undefined : this.#openPiece(piece, cursor, isNamed)
      if (failure) failed.push({ piece: index, ...failure })
      cursor.skipTo(end)
    }
    return { kind: "opened", failed, renamed }
  }

  #openPiece(
    piece: OpenPiece,
    cursor: SegmentCursor,
    isNamed: (name: string) => void,
  ): Omit<FailedPiece, "piece"> | undefined {
    const { path, fileOffset, length, key, nonce, chunkMacs } = piece
    try {
      // Opened before anything is decrypted, written to only with chunks that passed.
      const descriptor = this.#writing(piece, isNamed)
      let at = 0
      for (let offset = fileOffset; offset < fileOffset + length; at++) {
        const chunkLength = Math.min(gridLength(gridIndex(offset)), fileOffset + length - offset)
        const chunk = this.#plain.subarray(0, chunkLength)
        cursor.decrypt({ key, nonce }, offset, chunk)
        const expected = chunkMacs.subarray(16 * at, 16 * at + 16)
        if (!equalBytes(chunkMac({ key, nonce, plaintext: chunk }), expected)) {
          return { reason: "mac", detail: `chunk at ${offset}` }
        }
        this.#write(descriptor, chunk, offset)
        offset += chunkLength
      }
    } catch (error) {
      return { reason: failureOf(error), detail: String(error) }
    } finally {
      if (piece.mode !== undefined) this.#close(path)
    }
    return undefined
  }

  /**
   * One thread at a time writes large pieces: they are mostly of one file, whose lock in the kernel the
   * others would spin for, while here they sleep.
   */
  #write(descriptor: number, bytes: Uint8Array, position: number): void {
    if (bytes.length < turnBytes) {
      writeFully(descriptor, bytes, position)
      return
    }
    while (Atomics.compareExchange(this.#writeTurn, 0, 0, 1) !== 0) {
      Atomics.wait(this.#writeTurn, 0, 1)
    }
    try {
      writeFully(descriptor, bytes, position)
    } finally {
      Atomics.store(this.#writeTurn, 0, 0)
      Atomics.notify(this.#writeTurn, 0, 1)
    }
  }

  #writing(piece: OpenPiece, isNamed: (name: string) => void): number {
    return this.#cached(piece.path, () => {
      const flags = constants.O_WRONLY | constants.O_NOFOLLOW
      if (piece.target === "there") return openSync(piece.path, flags)
      const { descriptor, name } = createNamed(piece.path, piece.isWindowsLike, piece.mode)
      if (!piece.path.endsWith(`/${name}`)) isNamed(name)
      return descriptor
    })
  }

  #cached(path: string, open: () => number): number {
    const known = this.#open.get(path)
    if (known !== undefined) return known
    for (const [oldest] of this.#open) {
      if (this.#open.size < mostOpenFiles) break
      this.#close(oldest)
    }
    const descriptor = open()
    this.#open.set(path, descriptor)
    return descriptor
  }

  #close(path: string): void {
    const descriptor = this.#open.get(path)
    if (descriptor === undefined) return
    this.#open.delete(path)
    closeSync(descriptor)
  }
}

/** What others may do with a file shows once it is complete; one that is written at once is made with it. */
const incompleteMode = 0o600

/**
 * A file of nobody else's making. One that is there is never replaced: where the file system takes two
 * names for one, it is another entry's. Nobody else can reach it before it is in place, whatever its mode:
 * the folder that everything is received into is 0700.
 */
function createFile(path: string, mode: number): number {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW
  return openSync(path, flags, mode)
}

/** The same, under the first of its names that the file system takes. Slashes separate `path`. */
export function createNamed(
  path: string,
  isWindowsLike: boolean,
  mode: number = incompleteMode,
): { descriptor: number; name: string } {
  const folder = path.slice(0, path.lastIndexOf("/") + 1)
  const { name, made } = makeNamed(path.slice(folder.length), isWindowsLike, (candidate) =>
    createFile(folder + candidate, mode),
  )
  return { descriptor: made, name }
}

function failureOf(error: unknown): FailedPiece["reason"] {
  if (isTakenName(error)) return "exists"
  if (isRefusedName(error)) return "name"
  return isFull(error) ? "full" : "io"
}

function isFull(error: unknown): boolean {
  return ["ENOSPC", "EDQUOT"].includes(errorCode(error) ?? "")
}

function hasMark(descriptor: number, mark: FileMark): boolean {
  const now = fstatSync(descriptor, { bigint: true })
  return now.size === BigInt(mark.size) && now.mtimeNs === mark.mtimeNs && now.ino === mark.ino
}

function readFully(descriptor: number, into: Uint8Array, position: number): boolean {
  let done = 0
  while (done < into.length) {
    const got = readSync(descriptor, into, done, into.length - done, position + done)
    if (got === 0) return false
    done += got
  }
  return true
}

function writeFully(descriptor: number, bytes: Uint8Array, position: number): void {
  let done = 0
  while (done < bytes.length) {
    done += writeSync(descriptor, bytes, done, bytes.length - done, position + done)
  }
}

function slotView(
  slots: readonly Uint8Array[],
  slot: number,
  at: number,
  length: number,
): Uint8Array {
  const view = slots[slot]
  if (view === undefined) throw new RangeError("no such slot")
  return view.subarray(at, at + length)
}

interface KeyAndNonce {
  readonly key: Uint8Array
  readonly nonce: Uint8Array
}

/** Walks along the segments of a unit while its files are walked through. */
class SegmentCursor {
  readonly #slots: readonly Uint8Array[]
  readonly #segments: readonly Segment[]
  #segment = 0
  #within = 0
  position = 0

  constructor(slots: readonly Uint8Array[], segments: readonly Segment[]) {
    this.#slots = slots
    this.#segments = segments
  }

  encrypt({ key, nonce }: KeyAndNonce, offset: number, plaintext: Uint8Array): void {
    this.#walk(plaintext.length, (sealed, at) => {
      const data = plaintext.subarray(at, at + sealed.length)
      applyCtr({ key, nonce, offset: offset + at, data, out: sealed })
    })
  }

  decrypt({ key, nonce }: KeyAndNonce, offset: number, plaintext: Uint8Array): void {
    this.#walk(plaintext.length, (sealed, at) => {
      const out = plaintext.subarray(at, at + sealed.length)
      applyCtr({ key, nonce, offset: offset + at, data: sealed, out })
    })
  }

  skipTo(position: number): void {
    this.#walk(position - this.position, () => undefined)
  }

  /** Hands out the next `length` bytes as views, each with its distance from the start. */
  #walk(length: number, use: (sealed: Uint8Array, at: number) => void): void {
    for (let at = 0; at < length;) {
      const segment = this.#segments[this.#segment]
      if (segment === undefined) throw new RangeError("the segments are shorter than the unit")
      const take = Math.min(segment.length - this.#within, length - at)
      if (segment.slot >= 0) {
        use(slotView(this.#slots, segment.slot, segment.at + this.#within, take), at)
      }
      at += take
      this.position += take
      this.#within += take
      if (this.#within === segment.length) {
        this.#segment++
        this.#within = 0
      }
    }
  }
}
