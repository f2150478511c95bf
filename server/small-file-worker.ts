// The thread around small-file-reader.ts: names in, files out, in order.
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs"
import { parentPort } from "node:worker_threads"
import { hasCode } from "./disk.js"
import { betweenPaths, type ReadResult, type ReadTask } from "./small-file-reader.js"

// Absent on Windows, where the flag is 0.
const flags = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0)
const guessBytes = 4096

function readAll({ paths: joined, mostBytes }: ReadTask): ReadResult {
  const paths = joined.split(betweenPaths)
  let bytes = new Uint8Array(paths.length * guessBytes)
  let used = 0
  const ends = Int32Array.from(paths, (path) => {
    let fd: number
    try {
      fd = openSync(path, flags)
    } catch (error) {
      if (hasCode(error, "ENOENT")) return -1
      throw error
    }
    try {
      const { size } = fstatSync(fd)
      if (size > mostBytes) throw new RangeError("a file is larger than it can be")
      bytes = withRoom(bytes, used + size)
      for (let end = used + size; used < end;) {
        const count = readSync(fd, bytes, used, end - used, null)
        if (count === 0) break
        used += count
      }
      return used
    } finally {
      closeSync(fd)
    }
  })
  return { bytes: bytes.subarray(0, used), ends }
}

function withRoom(bytes: Uint8Array<ArrayBuffer>, wanted: number): Uint8Array<ArrayBuffer> {
  if (wanted <= bytes.length) return bytes
  const larger = new Uint8Array(Math.max(wanted, 2 * bytes.length))
  larger.set(bytes)
  return larger
}

parentPort?.on("message", (task: ReadTask) => {
  let result: ReadResult
  try {
    result = readAll(task)
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : undefined
    result = { message: error instanceof Error ? error.message : String(error), code }
  }
  const transferred =
    "bytes" in result ? [result.bytes.buffer as ArrayBuffer, result.ends.buffer as ArrayBuffer] : []
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- threads have no origin
  parentPort?.postMessage(result, transferred)
})
