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
import { closeSync, openSync, readFileSync, rmSync, writeSync } from "node:fs"
import { readdir, readFile, rm, writeFile } from "node:fs/promises"
import path from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { random, sha256, toHex, utf8 } from "../protocol/index.js"
import { Locked } from "./errors.js"
import { errorCode } from "./error-code.js"
import { linkIfFree } from "./hard-links.js"
import { makeFolder } from "./make-folder.js"

export interface ClientState {
  readonly folder: string
}

/** Makes the folder (0700) when it is not there. */
export function openState(folder: string): ClientState {
  const absolute = path.resolve(folder)
  makeFolder(absolute, 0o700)
  return { folder: absolute }
}

/** A file name for something whose own name should neither limit nor show itself in one. */
export function nameFor(text: string): string {
  return toHex(sha256(utf8(text))).slice(0, 32)
}

/** What lies in a folder of the state; nothing where there is no such folder yet. */
export async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder)
  } catch (error) {
    if (errorCode(error) === "ENOENT") return []
    throw error
  }
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
  // Random at the end: the folder of a lock may go with it and come again with that of somebody else,
  // who may be in this process as well.
  const mine = `${process.pid} ${startOf(process.pid)} ${toHex(random(8))}\n`
  while (!(await tookName(file, mine))) {
    const held = await readWritten(file)
    if (held === undefined) continue
    const claims = await claimAfter({ file, held, mine, what })
    if (claims === undefined) continue
    // Looked at again: who was here before may have removed it, and another one taken it since.
    if ((await readWritten(file)) === held) await rm(file, { force: true })
    for (const claim of claims) await rm(claim, { force: true })
  }
  return {
    release: async () => {
      if ((await readWritten(file)) === mine) await rm(file, { force: true })
    },
  }
}

/**
 * The right to remove the lock `file` that says `held`, as the names to remove behind it; undefined when
 * things have moved on. Throws Locked where its owner is alive, or who has that right already.
 *
 * Between reading a dead owner's lock and removing it another process may have done both and taken it. So
 * removing is for one alone, and whoever ends while having that right must be followed by one alone, too:
 * each who has it leaves a claim named by what those before it said. What they say is never said twice, and
 * as long as the lock stays what it was, no claim is removed.
 */
async function claimAfter(lock: {
  file: string
  held: string
  mine: string
  what: string
}): Promise<string[] | undefined> {
  const { file, mine, what } = lock
  const claims: string[] = []
  let name = ""
  for (let said = lock.held; ;) {
    const owner = ownerOf(said)
    if (isAlive(owner)) throw new Locked(file, owner.pid, what)
    name = nameFor(`${name} ${said}`)
    const claim = `${file}.${name}`
    claims.push(claim)
    if (await tookName(claim, mine)) return claims
    const next = await readWritten(claim)
    if (next === undefined) return undefined
    said = next
  }
}

/** Makes `file` with `content`; false when there is one. */
async function tookName(file: string, content: string): Promise<boolean> {
  const offer = `${file}.${toHex(random(8))}`
  await writeFile(offer, content, { mode: 0o600, flag: "wx" })
  try {
    const linked = await linkIfFree(offer, file)
    if (linked !== "no links") return linked === "done"
  } finally {
    await rm(offer, { force: true })
  }
  return wroteFirst(file, content)
}

/** As `tookName`, but that others may find the file empty for a moment. */
async function wroteFirst(file: string, content: string): Promise<boolean> {
  let descriptor: number
  try {
    descriptor = openSync(file, "wx", 0o600)
  } catch (error) {
    if (errorCode(error) === "EEXIST") return false
    throw error
  }
  try {
    writeSync(descriptor, content)
  } catch (error) {
    rmSync(file, { force: true })
    throw error
  } finally {
    closeSync(descriptor)
  }
  // A process that was stopped in between for long may have lost it.
  return (await readWritten(file)) === content
}

const mostLooks = 20
const lookAgainAfterMs = 50

/** Who has made a lock writes it at once: one that stays empty is nobody's. */
async function readWritten(file: string): Promise<string | undefined> {
  for (let looks = 1; ; looks++) {
    const content = await readIfThere(file)
    if (content !== "" || looks === mostLooks) return content
    await sleep(lookAgainAfterMs)
  }
}

async function readIfThere(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, "utf8")
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined
    throw error
  }
}

interface Owner {
  pid: number
  start: string
}

function ownerOf(content: string): Owner {
  const [pid = "", start = ""] = content.trim().split(" ")
  return { pid: Number(pid), start }
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
