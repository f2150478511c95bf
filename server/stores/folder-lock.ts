// Who has a data folder. The lock is a file that is made or found, never replaced, and names a socket
// beside it on which its holder listens. Whether a holder lives is asked of that socket: the kernel
// takes it away with the process, however that ended, and it can be reached from another container,
// where the number of a process says nothing: in both of them the relay may be number 1. A process that
// was stopped, or hangs, still holds it. What was copied, or outlived a restart, nobody listens on.
//
// Another machine cannot be asked this way. Two that share a folder over the network would share the
// index as well, which its library does not allow.
import { randomUUID } from "node:crypto"
import { chmodSync, closeSync, openSync, readFileSync, readlinkSync } from "node:fs"
import { connect, createServer, type Server } from "node:net"
import { join } from "node:path"
import { equalBytes, parseUtf8, utf8 } from "../../protocol/index.js"
import { type Disk, discardFile, hasCode, readSmallFile, unlessMissing } from "../disk.js"

/** A folder the relay will not work in; the message says what to do about it. */
export class DataFolderError extends Error {
  override readonly name = "DataFolderError"
}

interface Holder {
  readonly token: string
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
/** What the address of a socket holds on every system, and a little less. */
const socketPathBytes = 100

/** Whether a file of this name is one of the lock's own. */
export function isLockFile(name: string): boolean {
  return name === lockName || socketPattern.test(name)
}

/** Takes the folder or throws DataFolderError. The result gives it back. */
export async function lockFolder(disk: Disk, folder: string): Promise<() => Promise<void>> {
  const file = join(folder, lockName)
  const token = randomUUID()
  // Before the file: nobody finds a lock whose holder does not listen yet.
  const socket = await listenBeside(folder, token)
  const holder: Holder = { token, listens: socket !== undefined, ...thisProcess() }
  try {
    await takeFile(disk, folder, file, JSON.stringify(holder))
    await removeDeadSockets(disk, folder)
    // Another one may have found the same dead holder, and then have removed this lock for that one's.
    const bytes = await readSmallFile(disk, file, lockBytes)
    if (bytes === undefined || parseHolder(bytes)?.token !== token) throw beingOpened(folder)
  } catch (error) {
    await socket?.close()
    throw error
  }
  return async () => {
    await socket?.close()
    await unlessMissing(disk.unlink(file), undefined)
  }
}

async function takeFile(disk: Disk, folder: string, file: string, text: string): Promise<void> {
  for (let attempt = 0; attempt < 3; attempt++) {
    try {
      const lock = await disk.create(file)
      try {
        await lock.write(utf8(text), 0)
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
      await removeAbandoned(disk, file, await checkAbandoned(disk, folder, file))
    }
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

/** What the file says. Throws DataFolderError unless it is certain that the holder is gone. */
async function checkAbandoned(
  disk: Disk,
  folder: string,
  file: string,
): Promise<Uint8Array | undefined> {
  const bytes = await readSmallFile(disk, file, lockBytes)
  const holder = bytes === undefined ? undefined : parseHolder(bytes)
  const inUse = `${folder} is in use by another relay`
  const heldByOther = () => new DataFolderError(`${inUse}: ${remedy}`)
  if (holder === undefined) {
    // One that is being written, or whose writer died over it.
    if (await isFresh(disk, file)) throw heldByOther()
    return bytes
  }
  if (holder.listens) {
    if (await isListening(folder, socketName(holder.token))) throw heldByOther()
    return bytes
  }
  const self = thisProcess()
  if (holder.boot !== self.boot) return bytes
  if (holder.pidNamespace !== self.pidNamespace) {
    throw new DataFolderError(
      `${inUse}, or was left behind by one in another container; when none runs, run: rm '${file}'`,
    )
  }
  if (isAlive(holder.pid) && holder.started === startTime(holder.pid)) {
    throw heldByOther()
  }
  return bytes
}

function parseHolder(bytes: Uint8Array): Holder | undefined {
  let said: unknown
  try {
    said = JSON.parse(parseUtf8(bytes, "lock"))
  } catch {
    return undefined
  }
  if (typeof said !== "object" || said === null) return undefined
  const fields: Partial<Record<string, unknown>> = { ...said }
  const { token, listens, boot, pidNamespace, pid, started } = fields
  if (typeof token !== "string" || !socketPattern.test(socketName(token))) return undefined
  if (typeof listens !== "boolean" || typeof boot !== "string") return undefined
  if (typeof pidNamespace !== "string" || typeof started !== "string") return undefined
  if (typeof pid !== "number" || !Number.isSafeInteger(pid) || pid <= 0) return undefined
  return { token, listens, boot, pidNamespace, pid, started }
}

async function isFresh(disk: Disk, file: string): Promise<boolean> {
  const facts = await unlessMissing(disk.stat(file), undefined)
  return facts !== undefined && Date.now() - facts.modifiedMs < writtenWithinMs
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
