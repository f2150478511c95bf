import * as fc from "fast-check"
import { describe, expect, test } from "vitest"
import { placeFiles, planUnits, segmentsOf } from "../../client/layout.js"
import { gridCount, gridIndex, gridLength, gridOffset, MIB } from "../../protocol/index.js"

const sizes = fc.array(
  fc.oneof(fc.nat(200), fc.nat(3 * MIB), fc.constantFrom(0, 131_071, 131_072, 131_073)),
  { maxLength: 30 },
)

describe("units", () => {
  test("cover every chunk once, in the order of the body", () => {
    fc.assert(
      fc.property(sizes, (list) => {
        const placement = placeFiles(list)
        let offset = 0
        let chunk = 0
        for (const unit of planUnits(placement)) {
          expect(unit.bodyOffset).toBe(offset)
          expect(unit.firstChunk).toBe(chunk)
          expect(unit.length).toBe(unit.pieces.reduce((sum, piece) => sum + piece.length, 0))
          for (const piece of unit.pieces) {
            const file = placement.files[piece.file]
            expect(file?.bodyOffset).toBe(offset - piece.fileOffset)
            expect(gridOffset(piece.chunk)).toBe(piece.fileOffset)
            offset += piece.length
            chunk += piece.chunkCount
          }
        }
        expect(offset).toBe(placement.contentLength)
        expect(chunk).toBe(placement.chunkCount)
      }),
    )
  })

  test("are about two mebibytes and never three", () => {
    fc.assert(
      fc.property(sizes, (list) => {
        for (const unit of planUnits(placeFiles(list))) {
          expect(unit.length).toBeLessThan(3 * MIB)
        }
      }),
    )
  })

  test("hold the chunks that are wanted and no other", () => {
    fc.assert(
      fc.property(sizes, fc.nat(6), (list, every) => {
        const placement = placeFiles(list)
        const wanted = (chunk: number) => chunk % (every + 1) === 0
        const seen: number[] = []
        for (const unit of planUnits(placement, (_from, _to, chunk) => wanted(chunk))) {
          for (let i = 0; i < unit.chunkCount; i++) seen.push(unit.firstChunk + i)
        }
        const all = Array.from({ length: placement.chunkCount }, (_, chunk) => chunk)
        expect(seen).toEqual(all.filter(wanted))
      }),
    )
  })

  test("of one large file are whole parts, two of them from the tenth on", () => {
    const placement = placeFiles([20 * MIB])
    const late = [...planUnits(placement)].filter(({ bodyOffset }) => bodyOffset >= gridOffset(9))
    expect(late.length).toBeGreaterThan(5)
    for (const { bodyOffset, length, chunkCount } of late.slice(0, -1)) {
      expect([bodyOffset, length, chunkCount]).toEqual([
        gridOffset(gridIndex(bodyOffset)),
        2 * MIB,
        2,
      ])
    }
  })
})

describe("segments", () => {
  test("add up to the range, each within one part", () => {
    fc.assert(
      fc.property(fc.nat(9 * MIB), fc.integer({ min: 1, max: 3 * MIB }), (from, length) => {
        const segments = segmentsOf(from, from + length, (part) => part + 100)
        let offset = from
        for (const segment of segments) {
          const part = segment.slot - 100
          expect(gridOffset(part) + segment.at).toBe(offset)
          expect(segment.at + segment.length).toBeLessThanOrEqual(gridLength(part))
          offset += segment.length
        }
        expect(offset).toBe(from + length)
      }),
    )
  })

  test("of parts that nobody holds lie nowhere", () => {
    const count = gridCount(MIB)
    const segments = segmentsOf(0, MIB, () => undefined)
    expect(segments.map(({ slot }) => slot)).toEqual(Array.from({ length: count }, () => -1))
  })
})
