// The Disk port on Node's file system. The callback forms are used because they cost a third less than
// fs/promises for the many short operations that a part takes.
import {
  close,
  closeSync,
  constants,
  fdatasync,
  fstat,
  fsync,
  ftruncate,
  lstat,
  mkdir,
  open,
  read,
  readdir,
  rename,
  rmdir,
  statfs,
  unlink,
  write,
} from "node:fs"
import type { Disk, DiskFile } from "./disk.js"
import { createSmallFileReader } from "./small-file-reader.js"

type Callback<T> = (error: NodeJS.ErrnoException | null, value: T) => void

function promised<T>(start: (done: Callback<T>) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    start((error, value) => {
      if (error) reject(error)
      else resolve(value)
    })
  })
}

// Absent on Windows, where the flags are 0.
const noFollow = constants.O_NOFOLLOW ?? 0

const createFlags = constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY | noFollow
const openFlags = { read: constants.O_RDONLY | noFollow, update: constants.O_RDWR | noFollow }

const openFile: Disk["open"] = async (path, access) => {
  const fd = await promised<number>((done) => open(path, openFlags[access], done))
  // Nothing waits for the disk when a file that was only read is closed, and handing work to another
  // thread costs more than the work: a tenth of all that sending a part takes.
  return nodeFile(fd, access === "read" ? closeAtOnce : closeLater)
}

const smallFiles = createSmallFileReader({ open: openFile })

export const nodeDisk: Disk = {
  async create(path) {
    const fd = await promised<number>((done) => open(path, createFlags, 0o600, done))
    return nodeFile(fd, closeLater)
  },
  open: openFile,
  readSmallFiles: (paths, mostBytes) => smallFiles.read(paths, mostBytes),
  rename: (from, to) => promised<void>((done) => rename(from, to, done)),
  unlink: (path) => promised<void>((done) => unlink(path, done)),
  makeFolder: (path) => promised<void>((done) => mkdir(path, { mode: 0o700 }, done)),
  removeFolder: (path) => promised<void>((done) => rmdir(path, done)),
  list: (path) => promised<string[]>((done) => readdir(path, done)),
  async stat(path) {
    const facts = await promised<import("node:fs").BigIntStats>((done) =>
      lstat(path, { bigint: true }, done),
    )
    return {
      kind: facts.isFile() ? "file" : facts.isDirectory() ? "folder" : "other",
      sizeBytes: Number(facts.size),
      modifiedMs: Number(facts.mtimeMs),
      mode: Number(facts.mode) & 0o777,
      // A copy on another disk may have the same number by chance, and is not as old. The device is left
      // out: it may be called otherwise after the machine has started again.
      identity: `${facts.ino}-${facts.birthtimeNs}`,
    }
  },
  async syncFolder(path) {
    const fd = await promised<number>((done) => open(path, constants.O_RDONLY, done))
    try {
      await promised<void>((done) => fsync(fd, done))
    } finally {
      await promised<void>((done) => close(fd, done))
    }
  },
  async space(path) {
    const facts = await promised<import("node:fs").StatsFs>((done) => statfs(path, done))
    return { freeBytes: facts.bavail * facts.bsize, totalBytes: facts.blocks * facts.bsize }
  },
}

const closeLater = (fd: number): Promise<void> => promised<void>((done) => close(fd, done))
const closeAtOnce = async (fd: number): Promise<void> => closeSync(fd)

function nodeFile(fd: number, closeIt: (fd: number) => Promise<void>): DiskFile {
  // A number closed twice may by then be another file's.
  let isOpen = true
  return {
    async read(into, position) {
      let done = 0
      while (done < into.length) {
        const count = await promised<number>((callback) =>
          read(fd, into, done, into.length - done, position + done, callback),
        )
        if (count === 0) break
        done += count
      }
      return done
    },
    async write(bytes, position) {
      let done = 0
      while (done < bytes.length) {
        done += await promised<number>((callback) =>
          write(fd, bytes, done, bytes.length - done, position + done, callback),
        )
      }
    },
    sizeBytes: async () =>
      (await promised<import("node:fs").Stats>((done) => fstat(fd, done))).size,
    truncate: (sizeBytes) => promised<void>((done) => ftruncate(fd, sizeBytes, done)),
    sync: () => promised<void>((done) => fdatasync(fd, done)),
    async close() {
      if (!isOpen) return
      isOpen = false
      await closeIt(fd)
    },
  }
}
