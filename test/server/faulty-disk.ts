// A disk on which operations can be made to fail: the n-th one, or every one from some moment on.
import type { Disk, DiskFile } from "../../server/index.js"
import { nodeDisk } from "../../server/node-disk.js"

/** What is about to be done, by its name in the port. */
export type Operation = keyof Disk | `file.${keyof DiskFile}`

export class FaultyDisk implements Disk {
  /** Operations asked for so far, in order. */
  readonly operations: Operation[] = []
  /** Called before each one; what it throws happens instead. */
  before: (operation: Operation, count: number) => void = () => undefined

  async create(path: string): Promise<DiskFile> {
    this.#begin("create")
    return this.#wrap(await nodeDisk.create(path))
  }

  async open(path: string, access: "read" | "update"): Promise<DiskFile> {
    this.#begin("open")
    return this.#wrap(await nodeDisk.open(path, access))
  }

  async readSmallFiles(
    paths: readonly string[],
    mostBytes: number,
  ): Promise<(Uint8Array | undefined)[]> {
    this.#begin("readSmallFiles")
    return nodeDisk.readSmallFiles(paths, mostBytes)
  }

  async rename(from: string, to: string): Promise<void> {
    this.#begin("rename")
    await nodeDisk.rename(from, to)
  }

  async unlink(path: string): Promise<void> {
    this.#begin("unlink")
    await nodeDisk.unlink(path)
  }

  async makeFolder(path: string): Promise<void> {
    this.#begin("makeFolder")
    await nodeDisk.makeFolder(path)
  }

  async removeFolder(path: string): Promise<void> {
    this.#begin("removeFolder")
    await nodeDisk.removeFolder(path)
  }

  async list(path: string): Promise<string[]> {
    this.#begin("list")
    return nodeDisk.list(path)
  }

  async stat(path: string): ReturnType<Disk["stat"]> {
    this.#begin("stat")
    return nodeDisk.stat(path)
  }

  async syncFolder(path: string): Promise<void> {
    this.#begin("syncFolder")
    await nodeDisk.syncFolder(path)
  }

  async space(path: string): ReturnType<Disk["space"]> {
    this.#begin("space")
    return nodeDisk.space(path)
  }

  #begin(operation: Operation): void {
    this.operations.push(operation)
    this.before(operation, this.operations.length)
  }

  #wrap(file: DiskFile): DiskFile {
    const step = async <T>(operation: Operation, work: () => Promise<T>): Promise<T> => {
      try {
        this.#begin(operation)
      } catch (error) {
        // Real descriptors are given back whatever the test pretends.
        if (operation === "file.close") await file.close()
        throw error
      }
      return work()
    }
    return {
      read: (into, position) => step("file.read", () => file.read(into, position)),
      write: (bytes, position) => step("file.write", () => file.write(bytes, position)),
      sizeBytes: () => step("file.sizeBytes", () => file.sizeBytes()),
      truncate: (sizeBytes) => step("file.truncate", () => file.truncate(sizeBytes)),
      sync: () => step("file.sync", () => file.sync()),
      close: () => step("file.close", () => file.close()),
    }
  }
}

export function systemError(code: string): Error {
  return Object.assign(new Error(code), { code })
}

/** Fails the n-th operation from now on with this code, and no other. */
export function failNth(disk: FaultyDisk, n: number, code: string): void {
  const at = disk.operations.length + n
  disk.before = (_operation, count) => {
    if (count === at) throw systemError(code)
  }
}

/** Nothing happens any more from the n-th operation on: the process was killed there. */
export function killAtNth(disk: FaultyDisk, n: number): void {
  const at = disk.operations.length + n
  disk.before = (_operation, count) => {
    if (count >= at) throw systemError("EKILLED")
  }
}
