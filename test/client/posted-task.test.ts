import { describe, expect, test } from "vitest"
import { postedTask, taskOf } from "../../client/posted-task.js"
import type { UnitTask } from "../../client/unit-work.js"
import { patternBytes } from "./folders.js"

/** As it comes out at the other end. */
const arrived = (task: UnitTask): UnitTask => taskOf(structuredClone(postedTask(task)))

const toOpen = (index: number, chunks: number) => ({
  path: `/into/tree/ф${index}\n.dat`,
  fileOffset: 2 ** 33 * index,
  length: 1024 * chunks,
  isWindowsLike: index === 1,
  key: patternBytes(16, index),
  nonce: patternBytes(8, index),
  chunkMacs: patternBytes(16 * chunks, index),
})

const toSeal = (index: number, mark: { mtimeNs: bigint; ino: bigint }) => ({
  kind: "file" as const,
  path: `/from/${index}`,
  mark: { size: 2 ** 36, ...mark },
  fileOffset: 131_072 * index,
  length: 4096,
  key: patternBytes(16, index),
  nonce: patternBytes(8, index),
})

describe("a task that is posted to a thread", () => {
  test("says of each file to be opened what was said", () => {
    const task = {
      kind: "open",
      pieces: [
        { ...toOpen(0, 1), target: "new", mode: 0o644 },
        { ...toOpen(1, 3), target: "there", mode: undefined },
        { ...toOpen(2, 2), target: "nowhere", mode: 0 },
      ],
      segments: [{ slot: 3, at: 5, length: 7 }],
    } as const
    expect(arrived(task)).toEqual(task)
    expect(arrived({ ...task, pieces: [] })).toEqual({ ...task, pieces: [] })
  })

  test("says of each file to be sealed what was said, to the nanosecond", () => {
    const task = {
      kind: "seal",
      pieces: [
        toSeal(0, { mtimeNs: 1_700_000_000_123_456_789n, ino: 2n ** 64n - 1n }),
        // Before 1970.
        toSeal(1, { mtimeNs: -1n, ino: 1n }),
      ],
      segments: [{ slot: 0, at: 0, length: 8192 }],
      wholeParts: [{ index: 9, slot: 0, length: 8192 }],
    } as const
    expect(arrived(task)).toEqual(task)
    expect(arrived({ ...task, pieces: [] })).toEqual({ ...task, pieces: [] })
  })

  test("takes along the keys of its own files and no more", () => {
    const all = patternBytes(1_000_000, 1)
    const task = {
      kind: "open",
      pieces: [
        {
          path: "/a",
          target: "new",
          isWindowsLike: false,
          fileOffset: 0,
          length: 1,
          key: all.subarray(0, 16),
          nonce: all.subarray(16, 24),
          chunkMacs: all.subarray(24, 40),
          mode: 0o600,
        },
      ],
      segments: [],
    } as const
    const [piece] = (arrived(task) as typeof task).pieces
    expect(piece.key.buffer.byteLength).toBe(40)
  })

  test("is posted as it is when it is of a stream or of padding", () => {
    const memory = new Uint8Array(new SharedArrayBuffer(16))
    const key = patternBytes(16, 1)
    const stream = { kind: "memory", plaintext: memory, fileOffset: 0, key, nonce: key } as const
    const padding = { kind: "padding", offset: 1, length: 2, key } as const
    for (const piece of [stream, padding]) {
      const task = { kind: "seal", pieces: [piece], segments: [], wholeParts: [] } as const
      expect(postedTask(task)).toBe(task)
      expect(taskOf(task)).toEqual(task)
    }
  })
})
