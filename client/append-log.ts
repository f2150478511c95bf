/**
 * A file of records that only grows: the ground under both journals. A record that was cut off by a
 * crash, and everything behind it, is dropped on opening; `flush` says when what was appended before
 * it is on stable storage. Records appended while one sync runs share the next one.
 *
 *     file    magic 8 ‖ record* ‖ zeros
 *     record  u32 length ‖ u8 type ‖ payload ‖ u32 CRC-32 of type ‖ payload
 */
import { constants, writeSync } from "node:fs"
import { type FileHandle, open, readFile } from "node:fs/promises"
import path from "node:path"
import { crc32 } from "node:zlib"
import { concatBytes, equalBytes, u32, utf8 } from "../protocol/index.js"
import { errorCode } from "./error-code.js"
import { syncFolder } from "./private-files.js"

/**
 * The file grows by so many zeros at a time, which records then take the place of. A sync after a write
 * that moves no end and takes no new block is one write to the disk. Otherwise it is a commit of the
 * file system's journal, which waits for what everybody else has written on that disk; and every part
 * that is sent waits for such a sync.
 */
const growthBytes = 64 * 1024

export interface LogRecord {
  readonly type: number
  readonly payload: Uint8Array
}

export class AppendLog {
  readonly #handle: FileHandle
  #pending: Uint8Array[] = []
  #position: number
  /** Up to here the file has blocks. */
  #allocated: number
  /** The write and sync under way, and the one that will carry what is pending. */
  #current: Promise<void> | undefined
  #next: Promise<void> | undefined
  #nextDurably = false

  constructor(handle: FileHandle, position: number) {
    this.#handle = handle
    this.#position = position
    this.#allocated = position
  }

  append(type: number, payload: Uint8Array): void {
    const content = concatBytes(Uint8Array.of(type), payload)
    this.#pending.push(concatBytes(u32(payload.length), content, u32(crc32(content))))
  }

  /** Writes without waiting for the disk: survives the end of this process, not a power cut. */
  async write(): Promise<void> {
    await this.#exclusively(false)
  }

  /** Ends when everything appended before the call is on stable storage. */
  async flush(): Promise<void> {
    await this.#exclusively(true)
  }

  async #exclusively(durably: boolean): Promise<void> {
    if (this.#current === undefined) {
      await this.#start(durably)
      return
    }
    // Whoever comes while a write is under way joins the one after it, which is durable as soon as one
    // of them needs that.
    this.#nextDurably ||= durably
    const current = this.#current
    this.#next ??= current.then(
      () => this.#startNext(),
      () => this.#startNext(),
    )
    await this.#next
  }

  #startNext(): Promise<void> {
    const durably = this.#nextDurably
    this.#next = undefined
    this.#nextDurably = false
    return this.#start(durably)
  }

  #start(durably: boolean): Promise<void> {
    const work = this.#writePending(durably).finally(() => {
      if (this.#current === work) this.#current = undefined
    })
    this.#current = work
    return work
  }

  async #writePending(durably: boolean): Promise<void> {
    const records = concatBytes(...this.#pending)
    this.#pending = []
    const end = this.#position + records.length
    const grows = end > this.#allocated
    const bytes = grows ? concatBytes(records, new Uint8Array(growthBytes)) : records
    // At once: these few bytes go to the page cache, which takes a tenth of what it takes to hand them
    // to another thread.
    let written = 0
    while (written < bytes.length) {
      const { fd } = this.#handle
      const left = bytes.length - written
      written += writeSync(fd, bytes, written, left, this.#position + written)
    }
    if (grows) this.#allocated = end + growthBytes
    this.#position = end
    if (durably) await this.#handle.datasync()
  }

  async close(): Promise<void> {
    await this.#next
    await this.#current
    await this.#handle.close()
  }
}

/** Starts an empty log, in place of whatever was there. Durable when this ends. */
export async function createLog(file: string, magic: string): Promise<AppendLog> {
  const handle = await open(
    file,
    constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW,
    0o600,
  )
  const start = utf8(magic)
  await handle.write(start, 0, start.length, 0)
  await handle.sync()
  await syncFolder(path.dirname(file))
  return new AppendLog(handle, start.length)
}

/** The whole records of a log that may be somebody else's at this moment: it is only looked at. */
export async function readLog(file: string, magic: string): Promise<LogRecord[] | undefined> {
  const bytes = await readIfThere(file)
  const start = utf8(magic)
  if (bytes === undefined || !equalBytes(bytes.subarray(0, start.length), start)) return undefined
  return wholeRecords(bytes, start.length).records
}

async function readIfThere(file: string): Promise<Uint8Array | undefined> {
  try {
    return await readFile(file)
  } catch (error) {
    const code = errorCode(error)
    if (code === "ENOENT" || code === "ENOTDIR") return undefined
    throw error
  }
}

/**
 * The whole records of a log, and the log ready for more; undefined when there is none, or when it is
 * of another kind or version.
 */
export async function reopenLog(
  file: string,
  magic: string,
): Promise<{ log: AppendLog; records: LogRecord[] } | undefined> {
  const bytes = await readIfThere(file)
  const start = utf8(magic)
  if (bytes === undefined || !equalBytes(bytes.subarray(0, start.length), start)) return undefined
  const { records, end } = wholeRecords(bytes, start.length)
  const handle = await open(file, constants.O_RDWR | constants.O_NOFOLLOW)
  await handle.truncate(end)
  return { log: new AppendLog(handle, end), records }
}

function wholeRecords(bytes: Uint8Array, from: number): { records: LogRecord[]; end: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const records: LogRecord[] = []
  let at = from
  while (at + 9 <= bytes.length) {
    const length = view.getUint32(at)
    const end = at + 9 + length
    if (end > bytes.length) break
    const content = bytes.subarray(at + 4, at + 5 + length)
    // Zeros are no record: the CRC-32 of one of them is not zero.
    if (crc32(content) !== view.getUint32(end - 4)) break
    records.push({ type: content[0] ?? 0, payload: content.subarray(1) })
    at = end
  }
  return { records, end: at }
}
