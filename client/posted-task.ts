/**
 * A task as it is posted to a thread: what its many small files have to say in a few long values. A message
 * with an object for each of 128 files, views of their keys in it, takes both threads together longer than
 * it takes to encrypt and to MAC the files.
 */
import { concatBytes } from "../protocol/bytes.js"
import type { OpenPiece, OpenTask, SealPiece, SealTask, UnitTask } from "./unit-work.js"

export type PostedTask =
  | (Omit<OpenTask, "pieces"> & { readonly pieces: PostedPieces })
  | (Omit<SealTask, "pieces"> & { readonly pieces: PostedPieces })
  | SealTask

interface PostedPieces {
  /** With a NUL between two of them, which no path holds. */
  readonly paths: string
  /** As many for each piece as its kind has. */
  readonly numbers: Float64Array
  readonly mtimesNs: BigInt64Array
  readonly inodes: BigUint64Array
  /** Key, nonce and chunk MACs of each piece, and no others: a view that is posted takes its whole buffer along. */
  readonly bytes: Uint8Array
}

type FilePiece = Extract<SealPiece, { kind: "file" }>

export function postedTask(task: UnitTask): PostedTask {
  if (task.kind === "open") return { ...task, pieces: postedOpenPieces(task.pieces) }
  const files = task.pieces.filter((piece) => piece.kind === "file")
  // What is in memory and what is padding comes by itself, a chunk at a time.
  return files.length < task.pieces.length ? task : { ...task, pieces: postedFiles(files) }
}

export function taskOf(posted: PostedTask): UnitTask {
  if (posted.kind === "open") return { ...posted, pieces: openPiecesOf(posted.pieces) }
  return "paths" in posted.pieces
    ? { ...posted, pieces: filesOf(posted.pieces) }
    : { ...posted, pieces: posted.pieces }
}

const targets = ["new", "there", "nowhere"] as const
const noMode = -1
const openNumbers = 6
const sealNumbers = 3
const keyBytes = 16
const nonceBytes = 8

function postedOpenPieces(pieces: readonly OpenPiece[]): PostedPieces {
  const numbers = new Float64Array(openNumbers * pieces.length)
  const secrets: Uint8Array[] = []
  for (const [index, piece] of pieces.entries()) {
    const { target, isWindowsLike, fileOffset, length, chunkMacs, mode = noMode } = piece
    const said = [targets.indexOf(target), isWindowsLike ? 1 : 0, fileOffset, length, mode]
    numbers.set([...said, chunkMacs.length], openNumbers * index)
    secrets.push(piece.key, piece.nonce, chunkMacs)
  }
  return {
    paths: pieces.map(({ path }) => path).join("\0"),
    numbers,
    mtimesNs: new BigInt64Array(0),
    inodes: new BigUint64Array(0),
    bytes: concatBytes(...secrets),
  }
}

function openPiecesOf({ paths, numbers, bytes }: PostedPieces): OpenPiece[] {
  const take = taker(bytes)
  if (numbers.length === 0) return []
  return paths.split("\0").map((path, index) => {
    const at = openNumbers * index
    const mode = numbers[at + 4] ?? noMode
    return {
      path,
      target: targets[numbers[at] ?? 0] ?? "nowhere",
      isWindowsLike: numbers[at + 1] === 1,
      fileOffset: numbers[at + 2] ?? 0,
      length: numbers[at + 3] ?? 0,
      key: take(keyBytes),
      nonce: take(nonceBytes),
      chunkMacs: take(numbers[at + 5] ?? 0),
      mode: mode === noMode ? undefined : mode,
    }
  })
}

function postedFiles(pieces: readonly FilePiece[]): PostedPieces {
  const numbers = new Float64Array(sealNumbers * pieces.length)
  const mtimesNs = new BigInt64Array(pieces.length)
  const inodes = new BigUint64Array(pieces.length)
  const secrets: Uint8Array[] = []
  for (const [index, { mark, fileOffset, length, key, nonce }] of pieces.entries()) {
    numbers.set([mark.size, fileOffset, length], sealNumbers * index)
    mtimesNs[index] = mark.mtimeNs
    inodes[index] = mark.ino
    secrets.push(key, nonce)
  }
  const paths = pieces.map(({ path }) => path).join("\0")
  return { paths, numbers, mtimesNs, inodes, bytes: concatBytes(...secrets) }
}

function filesOf({ paths, numbers, mtimesNs, inodes, bytes }: PostedPieces): FilePiece[] {
  const take = taker(bytes)
  if (numbers.length === 0) return []
  return paths.split("\0").map((path, index) => {
    const at = sealNumbers * index
    return {
      kind: "file",
      path,
      mark: { size: numbers[at] ?? 0, mtimeNs: mtimesNs[index] ?? 0n, ino: inodes[index] ?? 0n },
      fileOffset: numbers[at + 1] ?? 0,
      length: numbers[at + 2] ?? 0,
      key: take(keyBytes),
      nonce: take(nonceBytes),
    }
  })
}

function taker(bytes: Uint8Array): (length: number) => Uint8Array {
  let at = 0
  return (length) => bytes.subarray(at, (at += length))
}
