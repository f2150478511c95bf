// The port to the file system: the few operations the relay's stores are made of, so that a test can
// refuse, tear or record any of them. Nothing else in server/ touches a file, except the embedded
// index's own library.
//
// What callers rely on: errors keep the system's `code` ("ENOENT", "ENOSPC", …); `create` fails with
// EEXIST and never follows a link; `rename` replaces a file of the new name and fails on a folder that
// is not empty; what was written is durable after `sync`, and a name after `syncFolder` of the folder
// that holds it; nothing is durable before that.

export interface Disk {
  /** A new file, 0600, for writing. */
  create(path: string): Promise<DiskFile>
  /** A file that is there. `update` allows writes in place. */
  open(path: string, access: "read" | "update"): Promise<DiskFile>
  /**
   * Whole files, in the order of their names, undefined for each that is not there. Rejects when any of
   * them cannot be read or is larger than `mostBytes`. For many at once, which `readSmallFile` is slow at.
   */
  readSmallFiles(paths: readonly string[], mostBytes: number): Promise<(Uint8Array | undefined)[]>
  rename(from: string, to: string): Promise<void>
  unlink(path: string): Promise<void>
  /** A new folder, 0700. */
  makeFolder(path: string): Promise<void>
  /** An empty one. */
  removeFolder(path: string): Promise<void>
  list(path: string): Promise<string[]>
  stat(path: string): Promise<FileFacts>
  syncFolder(path: string): Promise<void>
  space(path: string): Promise<DiskSpace>
}

export interface DiskFile {
  /** Fills `into` from `position`, as far as the file goes; says how many bytes that was. */
  read(into: Uint8Array, position: number): Promise<number>
  /** Writes all of `bytes` or fails. */
  write(bytes: Uint8Array, position: number): Promise<void>
  sizeBytes(): Promise<number>
  truncate(sizeBytes: number): Promise<void>
  /** The contents, and what is needed to read them back, are on stable storage. */
  sync(): Promise<void>
  close(): Promise<void>
}

export interface FileFacts {
  readonly kind: "file" | "folder" | "other"
  readonly sizeBytes: number
  readonly modifiedMs: number
  /** The permission bits. */
  readonly mode: number
  /** Tells this file from every copy of it. A file that is written in place keeps it. */
  readonly identity: string
}

export interface DiskSpace {
  /** What a process without privileges may still fill. */
  readonly freeBytes: number
  readonly totalBytes: number
}

/** Whether `error` is the system's, with one of these codes. */
export function hasCode(error: unknown, ...codes: readonly string[]): boolean {
  return (
    error instanceof Error &&
    "code" in error &&
    typeof error.code === "string" &&
    codes.includes(error.code)
  )
}

/** The disk, or the share of it this user has, is full. */
export function isDiskFull(error: unknown): boolean {
  return hasCode(error, "ENOSPC", "EDQUOT")
}

/** The disk is gone, or was made read-only when it failed: whoever comes later may find it mended. */
export function isDiskBroken(error: unknown): boolean {
  return hasCode(error, "EIO", "EROFS", "ENODEV", "ENXIO", "ESTALE")
}

/** What `attempt` gives, or `absent` when the file or folder is not there. */
export async function unlessMissing<T, A>(attempt: Promise<T>, absent: A): Promise<T | A> {
  try {
    return await attempt
  } catch (error) {
    // Or what should be a folder on the way to it is none.
    if (hasCode(error, "ENOENT", "ENOTDIR")) return absent
    throw error
  }
}

/** A whole small file, or undefined when there is none. */
export async function readSmallFile(
  disk: Pick<Disk, "open">,
  path: string,
  mostBytes: number,
): Promise<Uint8Array | undefined> {
  const file = await unlessMissing(disk.open(path, "read"), undefined)
  if (file === undefined) return undefined
  try {
    const sizeBytes = await file.sizeBytes()
    if (sizeBytes > mostBytes) throw new RangeError("a file is larger than it can be")
    const bytes = new Uint8Array(sizeBytes)
    return bytes.subarray(0, await file.read(bytes, 0))
  } finally {
    await file.close()
  }
}

/** What `readSmallFiles` is, for a disk that has no faster way. */
export function readOneByOne(
  disk: Pick<Disk, "open">,
  paths: readonly string[],
  mostBytes: number,
): Promise<(Uint8Array | undefined)[]> {
  return Promise.all(paths.map((path) => readSmallFile(disk, path, mostBytes)))
}

/** A new file with these contents, durable but for its name. Leaves nothing behind when it fails. */
export async function writeSyncedFile(disk: Disk, path: string, bytes: Uint8Array): Promise<void> {
  const file = await disk.create(path)
  try {
    try {
      await file.write(bytes, 0)
      await file.sync()
    } finally {
      await file.close()
    }
  } catch (error) {
    await discardFile(disk, path)
    throw error
  }
}

/** Removes a file if it is there. A failure is left to the sweep: the caller has one to report. */
export async function discardFile(disk: Disk, path: string): Promise<void> {
  try {
    await disk.unlink(path)
  } catch {
    // Already gone, or a disk that fails everything.
  }
}
