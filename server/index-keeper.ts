// Whether the index can be used, and what makes it so again. The index inside the relay's own process is
// looked at once, at the start. One that other processes and another server have a part in may be out of
// reach, emptied, swapped, or put back to an earlier moment at any time: it is looked at again and again,
// and whenever somebody has a reason to doubt it.
import { type IndexState, RelayRefusal } from "../protocol/index.js"
import type { Clock } from "./clock.js"
import { failureFields, type Log } from "./log.js"
import type { FolderIndex } from "./stores/folder-index.js"
import type { FolderLocks } from "./stores/folder-locks.js"
import { IndexUnavailable } from "./stores/index-errors.js"

export interface IndexKeeper {
  /** Resolves when the index is whole for the first time. Rejects if it cannot be, or not before the end. */
  readonly ready: Promise<void>
  state(): IndexState
  /** Looks now. What it finds is in `state` when it resolves, and being mended. */
  look(): Promise<void>
  /** Resolves when nothing is at work any more. The signal that was handed in is aborted by then. */
  ended(): Promise<void>
}

export interface IndexKeeperNeeds {
  readonly index: FolderIndex
  readonly locks: FolderLocks
  readonly clock: Clock
  readonly log: Log
  readonly stopping: AbortSignal
  /** Makes an index that says nothing, or anything, say what the folder holds. */
  rebuild(): Promise<void>
  /** Does the same for one that lags behind, or is ahead. */
  reconcile(): Promise<void>
}

/** Cheap: a key, and a line about each server. */
const lookEveryMs = 1_000
/** What failed for another reason than the index is not tried again sooner. */
const failedMs = 30_000

export function keepIndex(needs: IndexKeeperNeeds): IndexKeeper {
  const { index, locks, clock, log, stopping } = needs
  let state: IndexState = "rebuilding"
  let mending: Promise<void> | undefined
  let looking: Promise<void> | undefined
  let isEnded = false
  let failedAtMs = 0

  let becomeReady: (() => void) | undefined
  let becomeFailed: ((error: unknown) => void) | undefined
  const ready = new Promise<void>((resolve, reject) => {
    becomeReady = resolve
    becomeFailed = reject
  })
  // Whoever waits for it hears of it; nobody has to.
  ready.catch(() => undefined)

  function enter(next: IndexState, error?: unknown): void {
    const before = state
    state = next
    if (next === "ready") becomeReady?.()
    if (next === "failed") failedAtMs = clock.monotonicMs()
    if (before === next) return
    if (next === "away") log("index_away", failureFields(error), "alarm")
    else if (next === "failed") log("recovery_failed", failureFields(error), "alarm")
    else if (before === "away" || before === "failed") log("index_back")
  }

  /** Until nothing is to be mended, by this process or another one. */
  async function mend(): Promise<void> {
    for (;;) {
      stopping.throwIfAborted()
      if ((await index.doubt()) === undefined) break
      enter("rebuilding")
      try {
        await locks.run("index", mendOnce)
      } catch (error) {
        // Another relay is at it, and takes its time; or died over it, and then it is this one's turn.
        if (!(error instanceof RelayRefusal && error.code === "busy")) throw error
      }
    }
    await index.keepSpare()
    enter("ready")
  }

  async function mendOnce(): Promise<void> {
    stopping.throwIfAborted()
    const doubt = await index.doubt()
    if (doubt === "lost") await index.renew(() => needs.rebuild())
    if (doubt === "behind") await index.catchUp(() => needs.reconcile())
  }

  function beginToMend(): void {
    mending ??= mend()
      .catch((error: unknown) => {
        if (stopping.aborted) {
          becomeFailed?.(error)
          return
        }
        // Nothing looks again.
        if (index.kind === "embedded") becomeFailed?.(error)
        enter(error instanceof IndexUnavailable ? "away" : "failed", error)
      })
      .finally(() => {
        mending = undefined
      })
  }

  async function lookOnce(): Promise<void> {
    if (mending !== undefined || stopping.aborted) return
    if (state === "failed" && clock.monotonicMs() < failedAtMs + failedMs) return
    try {
      const doubt = await index.doubt()
      if (doubt === undefined) {
        if (state !== "ready") enter("ready")
        return
      }
      if (state === "ready") log("index_doubted", { code: doubt }, "warning")
      enter("rebuilding")
      beginToMend()
    } catch (error) {
      enter(error instanceof IndexUnavailable ? "away" : "failed", error)
    }
  }

  function look(): Promise<void> {
    looking ??= lookOnce().finally(() => {
      looking = undefined
    })
    return looking
  }

  let cancel: (() => void) | undefined
  function lookLater(): void {
    cancel = clock.after(lookEveryMs, () => {
      void look().then(() => {
        if (!isEnded) lookLater()
      })
    })
  }

  beginToMend()
  if (index.kind === "redis") lookLater()

  return {
    ready,
    state: () => state,
    look,
    async ended() {
      isEnded = true
      cancel?.()
      await looking
      await mending
      becomeFailed?.(new Error("the relay was stopped before its index was whole"))
    },
  }
}
