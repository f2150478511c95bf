/**
 * What a client remembers between calls, and how two processes keep out of each other's way.
 *
 *     pins/<hash of the origin>         the relay's signing key, kept from the first meeting
 *     uploads/<resume key>              journal of an unfinished upload; holds secrets
 *     sent/<id>                         what status and revoke need
 *     inboxes/<inbox>-<relay>/          sealed cache and last seen head of an inbox
 *     watch/<hash of the folder>/       deliveries whose command is still to run
 *     proofs/                           contradictions that a relay signed
 */
import { mkdirSync, readFileSync } from "node:fs"
import { link, readFile, rm, writeFile } from "node:fs/promises"
import path from "node:path"
import { random, sha256, toHex, utf8 } from "../protocol/index.js"
import { Locked } from "./errors.js"
import { errorCode } from "./error-code.js"

export interface ClientState {
  readonly folder: string
}

/** Makes the folder (0700) when it is not there. */
export function openState(folder: string): ClientState {
  const absolute = path.resolve(folder)
  mkdirSync(absolute, { recursive: true, mode: 0o700 })
  return { folder: absolute }
}

/** A file name for something whose own name should neither limit nor show itself in one. */
export function nameFor(text: string): string {
  return toHex(sha256(utf8(text))).slice(0, 32)
}

export interface Lock {
  release(): Promise<void>
}

/**
 * Takes `file` as a lock, or throws Locked with the process that holds it. The lock names its owner by
 * pid and start time, so that one left behind by a killed process is recognised even when its number
 * is in use again. `what` completes "process 7 is already …".
 */
export async function takeLock(file: string, what: string): Promise<Lock> {
  const mine = `${process.pid} ${startOf(process.pid)}\n`
  const offer = `${file}.${toHex(random(8))}`
  await writeFile(offer, mine, { mode: 0o600, flag: "wx" })
  try {
    for (;;) {
      if (await linked(offer, file)) break
      const owner = await readOwner(file)
      if (owner === undefined) continue
      if (isAlive(owner)) throw new Locked(file, owner.pid, what)
      // Between reading a dead owner's lock and removing it, another process may have done both and
      // taken it: so removing is itself done under a lock, and looks again.
      const guard = `${file}.stale`
      if (!(await linked(offer, guard))) {
        const guardOwner = await readOwner(guard)
        if (guardOwner !== undefined && isAlive(guardOwner)) {
          throw new Locked(file, guardOwner.pid, what)
        }
        await rm(guard, { force: true })
        continue
      }
      const again = await readOwner(file)
      if (again !== undefined && !isAlive(again)) await rm(file, { force: true })
      await rm(guard, { force: true })
    }
  } finally {
    await rm(offer, { force: true })
  }
  return {
    release: async () => {
      await rm(file, { force: true })
    },
  }
}

interface Owner {
  pid: number
  start: string
}

/** A link, unlike a rename, never takes the place of what is there. */
async function linked(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to)
    return true
  } catch (error) {
    if (errorCode(error) === "EEXIST") return false
    throw error
  }
}

async function readOwner(file: string): Promise<Owner | undefined> {
  try {
    const [pid = "", start = ""] = (await readFile(file, "utf8")).trim().split(" ")
    return { pid: Number(pid), start }
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined
    throw error
  }
}

function isAlive(owner: Owner): boolean {
  if (!Number.isInteger(owner.pid) || owner.pid <= 0) return false
  try {
    process.kill(owner.pid, 0)
  } catch (error) {
    // EPERM: it is there and belongs to somebody else.
    if (errorCode(error) !== "EPERM") return false
  }
  return startOf(owner.pid) === owner.start
}

/** When a process started, in ticks since boot; "-" where there is no /proc to ask. */
function startOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1")
    // The second field is the program's name in brackets and may itself hold brackets and spaces.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
    return fields[19] ?? "-"
  } catch {
    return "-"
  }
}
