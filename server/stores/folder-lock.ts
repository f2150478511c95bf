// Who has a data folder. The lock is a file that is made or found, never replaced, and names a socket
// beside it on which its holder listens. Whether a holder lives is asked of that socket: the kernel
// takes it away with the process, however that ended, and it can be reached from another container,
// where the number of a process says nothing: in both of them the relay may be number 1. A process that
// was stopped, or hangs, still holds it. What was copied, or outlived a restart, nobody listens on.
//
// A relay with the index inside the folder has it alone. Relays with one index elsewhere may share it:
// each of them holds the lock only while it opens the folder, and says in a file of its own, which counts
// while its socket is listened on, which index it has.
//
// Another machine cannot be asked this way, so relays that share a folder run on one.
import { randomUUID } from "node:crypto"
import { chmodSync, closeSync, openSync, readFileSync, readlinkSync } from "node:fs"
import { connect, createServer, type Server } from "node:net"
import { join } from "node:path"
import { equalBytes, parseUtf8, utf8 } from "../../protocol/index.js"
import {
  type Disk,
  discardFile,
  hasCode,
  readSmallFile,
  unlessMissing,
  writeSyncedFile,
} from "../disk.js"

/** A folder the relay will not work in; the message says what to do about it. */
export class DataFolderError extends Error {
  override readonly name = "DataFolderError"
}

/** How a relay means to have a folder. */
export type FolderUse =
  | { readonly kind: "alone" }
  /** With others that say the same of their index. */
  | { readonly kind: "shared"; readonly index: string }

export interface FolderHold {
  /** Names this process to those that share the folder with it. */
  readonly token: string
  /** Whether the process of that token holds the folder still. */
  isAlive(token: string): Promise<boolean>
  /** Lets the next one in, where the folder is shared. */
  opened(): Promise<void>
  /** Gives the folder back. */
  release(): Promise<void>
}

interface Holder {
  readonly token: string
  /** It shares the folder, and lets the next one in when it has opened it. */
  readonly opening: boolean
  /** False where the file system has no sockets; then the rest is all there is to go by. */
  readonly listens: boolean
  readonly boot: string
  readonly pidNamespace: string
  readonly pid: number
  /** Tells the process from a later one with the same number. */
  readonly started: string
}

/** A lock file that says nothing is one that is being written, for this long. */
const writtenWithinMs = 10_000
const lockName = "lock"
/** The most it may hold. */
const lockBytes = 1000
const socketPattern = /^lock-[0-9a-f-]{36}$/
const sharePattern = /^share-([0-9a-f-]{36})$/
/** What opening a folder takes at most, on a slow disk; who waits longer for it is told so. */
const openWithinMs = 20_000
const lookAgainMs = 20
/** What the address of a socket holds on every system, and a little less. */
const socketPathBytes = 100

/** Whether a file of this name is one of the lock's own. */
export function isLockFile(name: string): boolean {
  return name === lockName || socketPattern.test(name) || sharePattern.test(name)
}

/** Takes the folder or throws DataFolderError. */
export async function lockFolder(
  disk: Disk,
  folder: string,
  use: FolderUse = { kind: "alone" },
): Promise<FolderHold> {
  const file = join(folder, lockName)
  const token = randomUUID()
  // Before the file: nobody finds a lock whose holder does not listen yet.
  const socket = await listenBeside(folder, token)
  if (socket === undefined && use.kind === "shared") {
    throw new DataFolderError(
      `${folder} is on a file system without sockets, by which relays that share a folder know of one another: name one on another file system with --data`,
    )
  }
  const holder: Holder = {
    token,
    opening: use.kind === "shared",
    listens: socket !== undefined,
    ...thisProcess(),
  }
  const share = join(folder, `share-${token}`)
  const unlock = () => unlessMissing(disk.unlink(file), undefined)
  try {
    await takeFile(disk, folder, { file, holder })
    await removeDeadSockets(disk, folder)
    // Another one may have found the same dead holder, and then have removed this lock for that one's.
    const bytes = await readSmallFile(disk, file, lockBytes)
    if (bytes === undefined || parseHolder(bytes)?.token !== token) throw beingOpened(folder)
    try {
      await checkSharers(disk, folder, use)
      if (use.kind === "shared") {
        await writeSyncedFile(disk, share, utf8(JSON.stringify({ index: use.index })))
      }
    } catch (error) {
      await unlock()
      throw error
    }
  } catch (error) {
    await socket?.close()
    throw error
  }
  return {
    token,
    isAlive: (other) => isListening(folder, socketName(other)),
    async opened() {
      if (use.kind === "shared") await unlock()
    },
    async release() {
      await discardFile(disk, share)
      await socket?.close()
      const bytes = await readSmallFile(disk, file, lockBytes)
      // Where the folder is shared the lock is another one's by now.
      if (bytes !== undefined && parseHolder(bytes)?.token === token) await unlock()
    },
  }
}

/** Throws DataFolderError where others have the folder that this one cannot have it with. */
async function checkSharers(disk: Disk, folder: string, use: FolderUse): Promise<void> {
  for (const name of await disk.list(folder)) {
    const token = sharePattern.exec(name)?.[1]
    if (token === undefined) continue
    const path = join(folder, name)
    if (!(await isListening(folder, socketName(token)))) {
      await unlessMissing(disk.unlink(path), undefined)
      continue
    }
    const bytes = await readSmallFile(disk, path, lockBytes)
    const index = bytes === undefined ? undefined : parseShare(bytes)
    if (index === undefined || (use.kind === "shared" && use.index === index)) continue
    throw new DataFolderError(
      `${folder} is in use by a relay with --redis ${index}: stop it, or give this one the same --redis`,
    )
  }
}

function parseShare(bytes: Uint8Array): string | undefined {
  const said = parseFields(bytes)
  return typeof said?.["index"] === "string" ? said["index"] : undefined
}

async function takeFile(
  disk: Disk,
  folder: string,
  { file, holder }: { readonly file: string; readonly holder: Holder },
): Promise<void> {
  const untilMs = performance.now() + openWithinMs
  for (let attempt = 0; attempt < 3; attempt++) {
    try {
      const lock = await disk.create(file)
      try {
        await lock.write(utf8(JSON.stringify(holder)), 0)
      } catch (error) {
        // An empty one would count as one that is being written.
        await discardFile(disk, file)
        throw error
      } finally {
        await lock.close()
      }
      return
    } catch (error) {
      if (!hasCode(error, "EEXIST")) throw error
    }
    const lookNow = () => look(disk, folder, { file, isSharing: holder.opening })
    let found = await lookNow()
    while (found.kind === "opening" && performance.now() < untilMs) {
      await new Promise((resolve) => setTimeout(resolve, lookAgainMs))
      found = await lookNow()
    }
    if (found.kind === "opening") break
    await removeAbandoned(disk, file, found.bytes)
  }
  throw beingOpened(folder)
}

const remedy = "stop it, or name another folder with --data"

function beingOpened(folder: string): DataFolderError {
  return new DataFolderError(`${folder} is being opened by another relay: ${remedy}`)
}

/**
 * Removes the lock that was found abandoned. Another one who found it so may have been quicker, and have
 * its own lock there by now: that is put back.
 */
async function removeAbandoned(
  disk: Disk,
  file: string,
  abandoned: Uint8Array | undefined,
): Promise<void> {
  const aside = `${file}-${randomUUID()}`
  await unlessMissing(disk.rename(file, aside), undefined)
  const removed = await readSmallFile(disk, aside, lockBytes)
  if (removed === undefined) return
  const isTheOne = abandoned !== undefined && equalBytes(removed, abandoned)
  await unlessMissing(isTheOne ? disk.unlink(aside) : disk.rename(aside, file), undefined)
}

type Found =
  /** By one that shares it, and will let the next one in. */
  { readonly kind: "opening" } | { readonly kind: "gone"; readonly bytes: Uint8Array | undefined }

/** What has become of the holder. Throws DataFolderError where it may be there and keep the folder. */
async function look(
  disk: Disk,
  folder: string,
  { file, isSharing }: { readonly file: string; readonly isSharing: boolean },
): Promise<Found> {
  const bytes = await readSmallFile(disk, file, lockBytes)
  if (bytes === undefined) return { kind: "gone", bytes }
  const holder = parseHolder(bytes)
  const inUse = `${folder} is in use by another relay`
  const heldByOther = () => new DataFolderError(`${inUse}: ${remedy}`)
  if (holder === undefined) {
    // One that is being written, or whose writer died over it.
    if (!(await isFresh(disk, file))) return { kind: "gone", bytes }
    // Most likely by one that shares it as well: relays that share a folder are started together.
    if (isSharing) return { kind: "opening" }
    throw heldByOther()
  }
  if (holder.listens) {
    if (!(await isListening(folder, socketName(holder.token)))) return { kind: "gone", bytes }
    if (holder.opening) return { kind: "opening" }
    throw heldByOther()
  }
  const self = thisProcess()
  if (holder.boot !== self.boot) return { kind: "gone", bytes }
  if (holder.pidNamespace !== self.pidNamespace) {
    throw new DataFolderError(
      `${inUse}, or was left behind by one in another container; when none runs, run: rm '${file}'`,
    )
  }
  if (isAlive(holder.pid) && holder.started === startTime(holder.pid)) {
    throw heldByOther()
  }
  return { kind: "gone", bytes }
}

function parseHolder(bytes: Uint8Array): Holder | undefined {
  // One of an earlier version says nothing of opening, and keeps the folder.
  const { opening = false, ...others } = parseFields(bytes) ?? {}
  const { token, listens, boot, pidNamespace, pid, started } = others
  if (typeof token !== "string" || !socketPattern.test(socketName(token))) return undefined
  if (typeof opening !== "boolean") return undefined
  if (typeof listens !== "boolean" || typeof boot !== "string") return undefined
  if (typeof pidNamespace !== "string" || typeof started !== "string") return undefined
  if (typeof pid !== "number" || !Number.isSafeInteger(pid) || pid <= 0) return undefined
  return { token, opening, listens, boot, pidNamespace, pid, started }
}

function parseFields(bytes: Uint8Array): Partial<Record<string, unknown>> | undefined {
  let said: unknown
  try {
    said = JSON.parse(parseUtf8(bytes, "lock"))
  } catch {
    return undefined
  }
  return typeof said === "object" && said !== null ? { ...said } : undefined
}

async function isFresh(disk: Disk, file: string): Promise<boolean> {
  const facts = await unlessMissing(disk.stat(file), undefined)
  return facts !== undefined && Math.abs(Date.now() - facts.modifiedMs) < writtenWithinMs
}

// The socket. It is no file to read or write, so it does not go by the Disk port.

function socketName(token: string): string {
  return `${lockName}-${token}`
}

/** Undefined where there can be no socket. */
async function listenBeside(
  folder: string,
  token: string,
): Promise<{ close(): Promise<void> } | undefined> {
  const place = openPlace(folder, socketName(token))
  if (place === undefined) return undefined
  const server = createServer((caller) => caller.destroy())
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject)
      server.listen(place.path, resolve)
    })
    chmodSync(place.path, 0o600)
  } catch {
    await closeServer(server)
    place.close()
    return undefined
  }
  server.unref()
  return { close: () => closeServer(server).finally(() => place.close()) }
}

/** Removes the socket's name as well. */
function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve())
  })
}

/** Whether anybody listens. Who is not allowed to ask, or finds too many asking, is not told no. */
async function isListening(folder: string, name: string): Promise<boolean> {
  const place = openPlace(folder, name)
  if (place === undefined) return true
  try {
    return await new Promise<boolean>((resolve) => {
      const socket = connect(place.path)
      socket.once("connect", () => {
        socket.destroy()
        resolve(true)
      })
      socket.once("error", (error) => resolve(!hasCode(error, "ECONNREFUSED", "ENOENT")))
    })
  } finally {
    place.close()
  }
}

/**
 * A path of the socket that is short enough for an address, for as long as it is not closed: a data
 * folder may lie deeper than that.
 */
function openPlace(
  folder: string,
  name: string,
): { readonly path: string; close(): void } | undefined {
  if (process.platform === "linux") {
    const fd = openSync(folder, "r")
    return { path: `/proc/self/fd/${fd}/${name}`, close: () => closeSync(fd) }
  }
  const path = join(folder, name)
  if (utf8(path).length > socketPathBytes) return undefined
  return { path, close: () => undefined }
}

async function removeDeadSockets(disk: Disk, folder: string): Promise<void> {
  for (const name of await disk.list(folder)) {
    if (!socketPattern.test(name) || (await isListening(folder, name))) continue
    await unlessMissing(disk.unlink(join(folder, name)), undefined)
  }
}

// This process, and others of this machine, by what tells them apart.

function thisProcess(): Pick<Holder, "boot" | "pidNamespace" | "pid" | "started"> {
  const { pid } = process
  return { boot: bootId(), pidNamespace: pidNamespace(), pid, started: startTime(pid) }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return hasCode(error, "EPERM")
  }
}

/** In ticks since the machine started; "" where /proc is not there to ask. */
function startTime(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    // Field 22; the second one, the program's name, may hold anything and ends at the last bracket.
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? ""
  } catch {
    return ""
  }
}

/** Within which the numbers of processes mean the same; "" where there is one for all. */
function pidNamespace(): string {
  try {
    return readlinkSync("/proc/self/ns/pid")
  } catch {
    return ""
  }
}

/** Names this start of the machine, or "" where that cannot be known. */
export function bootId(): string {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()
  } catch {
    return ""
  }
}
