// Turns that are taken within a data folder: one at a time for each name, among all the relays that
// share the folder.
//
// A claim in the index ends by the clock, and a process that was stopped for longer than its claim wakes
// in the middle of a step that another one has done since: it would write over what that one wrote. A
// lock here ends with its holder and no earlier. It is a folder of that name with one file in it, named
// by the holder's token: to put one's own folder there is one rename, which fails while the other's is
// not empty. Of a holder that is gone, and only of that one, the file is removed; the empty folder is
// then replaced by whoever comes first.
import { join } from "node:path"
import { type Random, toHex } from "../../protocol/index.js"
import { type Disk, hasCode, unlessMissing } from "../disk.js"
import { KeyedGate } from "../gate.js"
import { busy } from "../relay-refusals.js"
import type { FolderHold } from "./folder-lock.js"

export interface FolderLocks {
  /** Runs `work` when its turn has come; refuses as busy when that takes too long. */
  run<T>(name: string, work: () => Promise<T>): Promise<T>
}

/** Made at the start, so that a full disk keeps nobody from a turn. */
const madeAtStart = 32
/** Longer than any step on a slow disk. Whoever asks may ask again. */
const waitMs = 30_000
const lookAgainMs = 4
/** How often it is asked whether the holder is there. */
const askAgainMs = 250

/** Turns among the callers in this process. */
export function ownLocks(): FolderLocks {
  const gate = new KeyedGate<string>()
  return { run: (name, work) => gate.run(name, work) }
}

/** Turns among all who share the folder. Opened while nobody else opens it. */
export async function openSharedLocks(input: {
  readonly disk: Disk
  /** A folder of their own. */
  readonly path: string
  readonly hold: Pick<FolderHold, "token" | "isAlive">
  readonly random: Random
}): Promise<FolderLocks> {
  const { disk, path, hold, random } = input
  const gate = new KeyedGate<string>()
  const free: string[] = []

  /** Of those that are gone, and what is there of this process by mistake: its own turns never meet. */
  async function removeGone(folder: string): Promise<void> {
    for (const token of await unlessMissing(disk.list(folder), [])) {
      if (token !== hold.token && (await hold.isAlive(token))) continue
      await unlessMissing(disk.unlink(join(folder, token)), undefined)
    }
  }

  async function take(own: string, target: string): Promise<void> {
    const startedMs = performance.now()
    let askAtMs = startedMs
    for (;;) {
      try {
        await disk.rename(own, target)
        return
      } catch (error) {
        if (!hasCode(error, "ENOTEMPTY", "EEXIST")) throw error
      }
      const nowMs = performance.now()
      if (nowMs - startedMs > waitMs) throw busy()
      if (nowMs >= askAtMs) {
        askAtMs = nowMs + askAgainMs
        await removeGone(target)
        continue
      }
      await new Promise((resolve) => setTimeout(resolve, lookAgainMs))
    }
  }

  for (const name of await disk.list(path)) {
    const folder = join(path, name)
    await removeGone(folder)
    try {
      await disk.removeFolder(folder)
    } catch (error) {
      if (!hasCode(error, "ENOTEMPTY", "EEXIST", "ENOENT")) throw error
    }
  }
  async function make(): Promise<string> {
    const own = join(path, `free-${toHex(random(12))}`)
    await disk.makeFolder(own)
    await (await disk.create(join(own, hold.token))).close()
    return own
  }

  for (let at = 0; at < madeAtStart; at++) free.push(await make())

  return {
    run: (name, work) =>
      gate.run(name, async () => {
        const own = free.pop() ?? (await make())
        const target = join(path, name)
        try {
          await take(own, target)
        } catch (error) {
          free.push(own)
          throw error
        }
        try {
          return await work()
        } finally {
          // What was done is done. The next turn of this name removes what stays.
          await disk.rename(target, own).then(
            () => free.push(own),
            () => undefined,
          )
        }
      }),
  }
}
