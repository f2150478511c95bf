// A disk in memory that knows, at every moment, what of it a power cut would leave. What it takes for
// durable is what POSIX promises and no more, as weakly as ext4, xfs and btrfs read it (Pillai et al.,
// "All File Systems Are Not Created Equal", OSDI 2014; Mohan et al., "CrashMonkey and ACE", OSDI 2018):
//
// - What was written to a file since its last sync is lost, kept, torn at sectors of 512 bytes, or there
//   in length only, as zeros. Every file by itself, in any order.
// - A sync of a file says nothing of its name. A name may reach the disk long before the contents.
// - Names made, renamed and removed since the last sync of their folder are lost or kept, each by
//   itself; but of two changes to one name the later one never comes without the earlier one.
// - A rename within one folder is one change: all three file systems log it as one. So is that of a
//   folder, which knows its parent and has one. A file that goes from one folder to another makes two
//   changes, because a sync of one of the folders may log its side alone (btrfs has done so more than
//   once); but a name is only taken away after the other one was given, as the log demands.
// - After a failed sync the pages are clean although they never reached the disk (ext4 and xfs since
//   Linux 4.13; Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020): they can be
//   read until the machine stops, and no later sync writes them.
//
// The index's folder is a real one, because the index's library opens its files by itself.
import { basename, dirname, join, relative, sep } from "node:path"
import { readOneByOne } from "../../server/disk.js"
import type { Disk, DiskFile, DiskSpace, FileFacts } from "../../server/index.js"
import { nodeDisk } from "../../server/node-disk.js"
import { type Operation, systemError } from "../server/faulty-disk.js"

/** Names a file or folder, under whatever name it is found. */
export type NodeId = number

export interface FileState {
  readonly kind: "file"
  /** What a reader gets. Never changed in place. */
  readonly contents: Uint8Array
  /** What a power cut leaves for certain. */
  readonly durable: Uint8Array
  /** What leads from the one to the other, as far as a sync would still write it. */
  readonly pending: readonly FileChange[]
  readonly modifiedMs: number
}

export type FileChange =
  | { readonly kind: "write"; readonly position: number; readonly bytes: Uint8Array }
  | { readonly kind: "truncate"; readonly sizeBytes: number }

export interface FolderState {
  readonly kind: "folder"
  readonly names: ReadonlyMap<string, NodeId>
  readonly durable: ReadonlyMap<string, NodeId>
  /** In the order they were made. */
  readonly pending: readonly NameChange[]
  readonly modifiedMs: number
}

/** Made as one. It is pending in every folder it touches. */
export interface NameChange {
  /** Later changes have greater ones. */
  readonly number: number
  readonly names: readonly {
    readonly folder: NodeId
    readonly name: string
    /** What the name stands for afterwards; undefined for nothing. */
    readonly to: NodeId | undefined
  }[]
  /** The other side of a rename, which comes first. */
  readonly after?: NameChange
}

export type NodeState = FileState | FolderState

/** Everything there is at one moment. */
export interface DiskState {
  readonly nodes: ReadonlyMap<NodeId, NodeState>
  /** The least number that no file or folder has. */
  readonly nextId: NodeId
  /** Of names, so far. */
  readonly nameChanges: number
}

export const rootId: NodeId = 1

export const emptyDisk: DiskState = {
  nodes: new Map([
    [rootId, { kind: "folder", names: new Map(), durable: new Map(), pending: [], modifiedMs: 0 }],
  ]),
  nextId: rootId + 1,
  nameChanges: 0,
}

/** What happens in place of an operation, or after it is done in part. */
export interface Fault {
  readonly code: string
  /**
   * Half of a write is in the file; a file that failed to sync has lost what was pending; a change of
   * names was made although its caller is told that it failed.
   */
  readonly partly?: boolean
}

export interface MemoryDiskOptions {
  readonly state?: DiskState
  /** The path of the folder that holds everything. */
  readonly root: string
  /** The path, below the root, that leads to real files. */
  readonly realFolder: string
  readonly nowMs: () => number
  /** Waited for before each operation, so that several at once come in many orders. */
  readonly turn?: () => Promise<void>
}

const totalBytes = 2 ** 40
const oneTurn = (): Promise<void> => Promise.resolve()

export class MemoryDisk implements Disk {
  readonly #root: string
  readonly #realFolder: string
  readonly #nowMs: () => number
  readonly #turn: () => Promise<void>
  readonly #nodes: Map<NodeId, NodeState>
  #nextId: NodeId
  /** Of names, so far. */
  #changes: number
  #snapshot: DiskState | undefined
  /** Operations begun so far. */
  operations = 0
  /** Called before each operation; what it gives happens instead. */
  fault: (operation: Operation, count: number) => Fault | undefined = () => undefined
  /** Called after whatever changed the disk, or what of it is durable. */
  changed: () => void = () => undefined

  constructor(options: MemoryDiskOptions) {
    const { state = emptyDisk } = options
    this.#root = options.root
    this.#realFolder = options.realFolder
    this.#nowMs = options.nowMs
    this.#turn = options.turn ?? oneTurn
    this.#nodes = new Map(state.nodes)
    this.#nextId = state.nextId
    this.#changes = state.nameChanges
  }

  /** What is there now. */
  state(): DiskState {
    this.#snapshot ??= {
      nodes: new Map(this.#nodes),
      nextId: this.#nextId,
      nameChanges: this.#changes,
    }
    return this.#snapshot
  }

  /** Time has passed, in which a kernel writes out what it has. */
  flush(): void {
    for (const [id, node] of this.#nodes) {
      if (node.kind === "folder") this.#set(id, { ...node, durable: node.names, pending: [] })
      else
        this.#set(id, { ...node, durable: node.pending.reduce(applied, node.durable), pending: [] })
    }
    this.#tell()
  }

  async create(path: string): Promise<DiskFile> {
    await this.#begin("create")
    const real = this.#realPath(path)
    if (real !== undefined) return nodeDisk.create(real)
    const { folder, name } = this.#place(path)
    if (this.#folder(folder).names.has(name)) throw systemError("EEXIST")
    const id = this.#add({
      kind: "file",
      contents: new Uint8Array(0),
      durable: new Uint8Array(0),
      pending: [],
      modifiedMs: this.#nowMs(),
    })
    this.#name({ number: this.#nextNumber(), names: [{ folder, name, to: id }] })
    this.#tell()
    return this.#handle(id)
  }

  async open(path: string, access: "read" | "update"): Promise<DiskFile> {
    await this.#begin("open")
    const real = this.#realPath(path)
    if (real !== undefined) return nodeDisk.open(real, access)
    const id = this.#find(path)
    if (this.#node(id).kind === "folder" && access === "update") throw systemError("EISDIR")
    return this.#handle(id)
  }

  readSmallFiles(paths: readonly string[], mostBytes: number): Promise<(Uint8Array | undefined)[]> {
    return readOneByOne(this, paths, mostBytes)
  }

  async rename(from: string, to: string): Promise<void> {
    const fault = await this.#beginPartly("rename")
    const source = this.#place(from)
    const target = this.#place(to)
    const id = this.#folder(source.folder).names.get(source.name)
    if (id === undefined) throw systemError("ENOENT")
    const inTheWay = this.#folder(target.folder).names.get(target.name)
    if (inTheWay !== undefined) this.#checkReplaceable(this.#node(id), this.#node(inTheWay))
    const given = { ...target, to: id }
    const taken = { ...source, to: undefined }
    if (source.folder === target.folder || this.#node(id).kind === "folder") {
      this.#name({ number: this.#nextNumber(), names: [taken, given] })
    } else {
      const first: NameChange = { number: this.#nextNumber(), names: [given] }
      this.#name(first)
      this.#name({ number: this.#nextNumber(), names: [taken], after: first })
    }
    this.#tell()
    if (fault !== undefined) throw systemError(fault.code)
  }

  async unlink(path: string): Promise<void> {
    const fault = await this.#beginPartly("unlink")
    const real = this.#realPath(path)
    if (real !== undefined) return nodeDisk.unlink(real)
    const { folder, name } = this.#place(path)
    if (this.#node(this.#find(path)).kind === "folder") throw systemError("EISDIR")
    this.#name({ number: this.#nextNumber(), names: [{ folder, name, to: undefined }] })
    this.#tell()
    if (fault !== undefined) throw systemError(fault.code)
  }

  async makeFolder(path: string): Promise<void> {
    const fault = await this.#beginPartly("makeFolder")
    const { folder, name } = this.#place(path)
    if (this.#folder(folder).names.has(name)) throw systemError("EEXIST")
    const id = this.#add({
      kind: "folder",
      names: new Map(),
      durable: new Map(),
      pending: [],
      modifiedMs: this.#nowMs(),
    })
    this.#name({ number: this.#nextNumber(), names: [{ folder, name, to: id }] })
    this.#tell()
    if (fault !== undefined) throw systemError(fault.code)
  }

  async removeFolder(path: string): Promise<void> {
    const fault = await this.#beginPartly("removeFolder")
    const { folder, name } = this.#place(path)
    const there = this.#node(this.#find(path))
    if (there.kind !== "folder") throw systemError("ENOTDIR")
    if (there.names.size > 0) throw systemError("ENOTEMPTY")
    this.#name({ number: this.#nextNumber(), names: [{ folder, name, to: undefined }] })
    this.#tell()
    if (fault !== undefined) throw systemError(fault.code)
  }

  async list(path: string): Promise<string[]> {
    await this.#begin("list")
    const real = this.#realPath(path)
    if (real !== undefined) return nodeDisk.list(real)
    return [...this.#folder(this.#find(path)).names.keys()]
  }

  async stat(path: string): Promise<FileFacts> {
    await this.#begin("stat")
    const real = this.#realPath(path)
    // The real files are put there anew for each relay, and are the same ones as far as it can tell.
    if (real !== undefined) return { ...(await nodeDisk.stat(real)), identity: "real" }
    const id = this.#find(path)
    const node = this.#node(id)
    return {
      kind: node.kind,
      sizeBytes: node.kind === "file" ? node.contents.length : 0,
      modifiedMs: node.modifiedMs,
      mode: node.kind === "file" ? 0o600 : 0o700,
      identity: `${id}`,
    }
  }

  async syncFolder(path: string): Promise<void> {
    const fault = await this.#beginPartly("syncFolder")
    if (this.#realPath(path) !== undefined) return
    const id = this.#find(path)
    if (fault !== undefined) throw systemError(fault.code)
    const { pending } = this.#folder(id)
    if (pending.length === 0) return
    for (const change of pending) this.#makeDurable(change)
    this.#tell()
  }

  async space(): Promise<DiskSpace> {
    await this.#begin("space")
    return { freeBytes: totalBytes / 2, totalBytes }
  }

  #handle(id: NodeId): DiskFile {
    const file = (): FileState => {
      const node = this.#node(id)
      if (node.kind === "folder") throw systemError("EISDIR")
      return node
    }
    const change = (done: FileChange): void => {
      const { contents, pending, ...rest } = file()
      const modifiedMs = this.#nowMs()
      const after = applied(contents, done)
      this.#set(id, { ...rest, contents: after, pending: [...pending, done], modifiedMs })
      this.#tell()
    }
    return {
      read: async (into, position) => {
        await this.#begin("file.read")
        const bytes = file().contents.subarray(position, position + into.length)
        into.set(bytes)
        return bytes.length
      },
      write: async (bytes, position) => {
        const fault = await this.#beginPartly("file.write")
        if (bytes.length === 0) return
        const half = bytes.length >> 1
        // The system writes a page at a time, and a process may end between two of them.
        if (half > 0) change({ kind: "write", position, bytes: bytes.slice(0, half) })
        if (fault !== undefined) throw systemError(fault.code)
        change({ kind: "write", position: position + half, bytes: bytes.slice(half) })
      },
      sizeBytes: async () => {
        await this.#begin("file.sizeBytes")
        return file().contents.length
      },
      truncate: async (sizeBytes) => {
        await this.#begin("file.truncate")
        change({ kind: "truncate", sizeBytes })
      },
      sync: async () => {
        const fault = await this.#beginPartly("file.sync")
        const { contents, durable, pending, ...rest } = file()
        if (fault !== undefined) {
          this.#set(id, { ...rest, contents, durable, pending: [] })
          this.#tell()
          throw systemError(fault.code)
        }
        if (pending.length === 0) return
        // Not simply the contents: what an earlier sync failed to write is not written now.
        const synced = pending.reduce(applied, durable)
        this.#set(id, { ...rest, contents, durable: synced, pending: [] })
        this.#tell()
      },
      close: () => this.#begin("file.close"),
    }
  }

  /** For what is done whole or not at all. */
  async #begin(operation: Operation): Promise<void> {
    const fault = await this.#next(operation)
    if (fault !== undefined) throw systemError(fault.code)
  }

  async #beginPartly(operation: Operation): Promise<Fault | undefined> {
    const fault = await this.#next(operation)
    if (fault !== undefined && fault.partly !== true) throw systemError(fault.code)
    return fault
  }

  async #next(operation: Operation): Promise<Fault | undefined> {
    await this.#turn()
    this.operations += 1
    return this.fault(operation, this.operations)
  }

  #tell(): void {
    this.#snapshot = undefined
    this.changed()
  }

  #realPath(path: string): string | undefined {
    const isReal = path.startsWith(this.#realFolder + sep) || path === this.#realFolder
    return isReal ? path : undefined
  }

  #parts(path: string): string[] {
    return relative(this.#root, path).split(sep)
  }

  #find(path: string): NodeId {
    if (path === this.#root) return rootId
    let id = rootId
    for (const name of this.#parts(path)) {
      const next = this.#folder(id).names.get(name)
      if (next === undefined) throw systemError("ENOENT")
      id = next
    }
    return id
  }

  #place(path: string): { readonly folder: NodeId; readonly name: string } {
    return { folder: this.#find(dirname(path)), name: basename(path) }
  }

  #node(id: NodeId): NodeState {
    const node = this.#nodes.get(id)
    if (node === undefined) throw new RangeError("a name without what it stands for")
    return node
  }

  #folder(id: NodeId): FolderState {
    const node = this.#node(id)
    if (node.kind !== "folder") throw systemError("ENOTDIR")
    return node
  }

  #add(node: NodeState): NodeId {
    const id = this.#nextId
    this.#nextId += 1
    this.#nodes.set(id, node)
    return id
  }

  #set(id: NodeId, node: NodeState): void {
    this.#nodes.set(id, node)
  }

  #name(change: NameChange): void {
    for (const id of foldersOf(change)) {
      const folder = this.#folder(id)
      this.#set(id, {
        ...folder,
        names: renamed(folder.names, change, id),
        pending: [...folder.pending, change],
        modifiedMs: this.#nowMs(),
      })
    }
  }

  #nextNumber(): number {
    this.#changes += 1
    return this.#changes
  }

  #makeDurable(change: NameChange): void {
    if (change.after !== undefined) this.#makeDurable(change.after)
    for (const id of foldersOf(change)) {
      const { pending } = this.#folder(id)
      const at = pending.indexOf(change)
      for (const earlier of pending.slice(0, Math.max(0, at))) {
        if (shareName(earlier, change)) this.#makeDurable(earlier)
      }
      if (at === -1) continue
      const folder = this.#folder(id)
      this.#set(id, {
        ...folder,
        durable: renamed(folder.durable, change, id),
        pending: folder.pending.filter((one) => one !== change),
      })
    }
  }

  #checkReplaceable(node: NodeState, inTheWay: NodeState): void {
    if (inTheWay.kind === "file" && node.kind === "folder") throw systemError("ENOTDIR")
    if (inTheWay.kind === "folder" && node.kind === "file") throw systemError("EISDIR")
    if (inTheWay.kind === "folder" && inTheWay.names.size > 0) throw systemError("ENOTEMPTY")
  }
}

/** The contents after a change. */
export function applied(contents: Uint8Array, change: FileChange): Uint8Array {
  if (change.kind === "truncate") {
    const after = new Uint8Array(change.sizeBytes)
    after.set(contents.subarray(0, change.sizeBytes))
    return after
  }
  const { position, bytes } = change
  const after = new Uint8Array(Math.max(contents.length, position + bytes.length))
  after.set(contents)
  after.set(bytes, position)
  return after
}

export function foldersOf({ names }: NameChange): ReadonlySet<NodeId> {
  return new Set(names.map(({ folder }) => folder))
}

/** Whether they change one name of one folder. */
export function shareName(one: NameChange, other: NameChange): boolean {
  return one.names.some(({ folder, name }) =>
    other.names.some((each) => each.folder === folder && each.name === name),
  )
}

/** The names of a folder after a change. */
export function renamed(
  names: ReadonlyMap<string, NodeId>,
  change: NameChange,
  folder: NodeId,
): ReadonlyMap<string, NodeId> {
  const after = new Map(names)
  for (const { folder: where, name, to } of change.names) {
    if (where !== folder) continue
    if (to === undefined) after.delete(name)
    else after.set(name, to)
  }
  return after
}

/** Every file and folder by its path below the root. */
function byPath({ nodes }: DiskState): ReadonlyMap<string, NodeState> {
  const found = new Map<string, NodeState>()
  const walk = (id: NodeId, path: string): void => {
    const node = nodes.get(id)
    if (node === undefined) return
    if (path !== "") found.set(path, node)
    if (node.kind === "folder") for (const [name, each] of node.names) walk(each, join(path, name))
  }
  walk(rootId, "")
  return found
}

/** The same, with what a reader finds there. */
export function tree(state: DiskState): ReadonlyMap<string, Uint8Array | "folder"> {
  return new Map(
    [...byPath(state)].map(([path, node]) => [
      path,
      node.kind === "file" ? node.contents : "folder",
    ]),
  )
}

/** The paths of files that a power cut could change. */
export function unsyncedFiles(state: DiskState): string[] {
  return [...byPath(state)].flatMap(([path, node]) =>
    node.kind === "file" && node.pending.length > 0 ? [path] : [],
  )
}
