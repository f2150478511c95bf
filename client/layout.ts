/**
 * How the files of a delivery lie in its body, and how the work on them is cut. A *unit* is a run of
 * whole chunks, one behind the other in the body, of about two mebibytes: the most that has to be read,
 * sealed or opened in one go. Units are cut on the grids of the files, parts on the grid of the body;
 * with one large file the two agree from the ninth part on.
 */
import { gridCount, gridIndex, gridLength, gridOffset, MIB } from "../protocol/index.js"

export interface PlacedFile {
  readonly size: number
  readonly bodyOffset: number
  /** Chunks of all files before this one. */
  readonly firstChunk: number
  readonly chunkCount: number
}

export interface Placement {
  readonly files: readonly PlacedFile[]
  readonly contentLength: number
  readonly chunkCount: number
}

/** `sizes` has one element for each entry; folders have 0. */
export function placeFiles(sizes: readonly number[]): Placement {
  let contentLength = 0
  let chunkCount = 0
  const files = sizes.map((size) => {
    const file = {
      size,
      bodyOffset: contentLength,
      firstChunk: chunkCount,
      chunkCount: gridCount(size),
    }
    contentLength += size
    chunkCount += file.chunkCount
    return file
  })
  return { files, contentLength, chunkCount }
}

/** Consecutive chunks of one file. */
export interface UnitPiece {
  /** Index of the entry. */
  readonly file: number
  /** The first chunk, counted in its file. */
  readonly chunk: number
  readonly chunkCount: number
  readonly fileOffset: number
  readonly length: number
}

export interface Unit {
  readonly bodyOffset: number
  readonly length: number
  /** The first chunk, counted over all files. */
  readonly firstChunk: number
  readonly chunkCount: number
  readonly pieces: readonly UnitPiece[]
}

/** Handing a unit to a thread and back costs as much as encrypting a tenth of a mebibyte. */
const unitBytes = 2 * MIB
/** Small files cost by the file, not by the byte. */
const unitPieces = 128

/**
 * The units of everything for which `wanted` holds, in the order of the body. `wanted` is asked about
 * one chunk at a time: where it lies in the body, and its number among the chunks of all files.
 */
export function* planUnits(
  placement: Placement,
  wanted: (from: number, to: number, chunk: number) => boolean = () => true,
): Generator<Unit> {
  let pieces: UnitPiece[] = []
  let length = 0
  let bodyOffset = 0
  let firstChunk = 0
  let chunkCount = 0

  const take = (): Unit => {
    const unit = { bodyOffset, length, firstChunk, chunkCount, pieces }
    pieces = []
    length = 0
    chunkCount = 0
    return unit
  }

  for (const [index, file] of placement.files.entries()) {
    for (let chunk = 0; chunk < file.chunkCount; chunk++) {
      const fileOffset = gridOffset(chunk)
      const chunkLength = gridLength(chunk, file.size)
      const from = file.bodyOffset + fileOffset
      if (!wanted(from, from + chunkLength, file.firstChunk + chunk)) {
        if (length > 0) yield take()
        continue
      }
      if (length === 0) {
        bodyOffset = from
        firstChunk = file.firstChunk + chunk
      }
      const last = pieces.at(-1)
      if (last?.file === index) {
        pieces[pieces.length - 1] = {
          ...last,
          chunkCount: last.chunkCount + 1,
          length: last.length + chunkLength,
        }
      } else {
        pieces.push({ file: index, chunk, chunkCount: 1, fileOffset, length: chunkLength })
      }
      length += chunkLength
      chunkCount++
      if (length >= unitBytes || pieces.length >= unitPieces) yield take()
    }
  }
  if (length > 0) yield take()
}

/** The parts of the body that share bytes with `[from, to)`, which is not empty. */
export function partsOver(from: number, to: number): { first: number; last: number } {
  return { first: gridIndex(from), last: gridIndex(to - 1) }
}

/** Where a run of bytes of the body lies in the slots that hold parts. */
export interface Segment {
  /** -1: nowhere; these bytes are of a part that is already done. */
  readonly slot: number
  readonly at: number
  readonly length: number
}

/** Cuts `[from, to)` of the body at the borders of parts. */
export function segmentsOf(
  from: number,
  to: number,
  slotOf: (part: number) => number | undefined,
): Segment[] {
  const segments: Segment[] = []
  for (let offset = from; offset < to;) {
    const part = gridIndex(offset)
    const start = gridOffset(part)
    const end = Math.min(to, gridOffset(part + 1))
    segments.push({ slot: slotOf(part) ?? -1, at: offset - start, length: end - offset })
    offset = end
  }
  return segments
}
