// How far a rebuild of the index is, for the log, the operator, and the clients that are asked to wait.
import type { Clock } from "./clock.js"
import type { Log } from "./log.js"

export interface Rebuilt {
  /** Of all deliveries that are stored, how many are in the index. */
  readonly done: number
  readonly total: number
}

export interface RebuildProgress {
  readonly note: (rebuilt: Rebuilt) => void
  /** Undefined before the first word of it. */
  readonly rebuilt: () => Rebuilt | undefined
  /** When to ask again: as long as the rest takes at the pace so far. */
  readonly retryAfterSeconds: () => number
}

const logEveryMs = 5_000
/** What clients are told before there is a pace, and at least: they give up after some times of asking. */
const leastSeconds = 2
/** The pace may be another later, and a client is to notice soon that the relay is there again. */
const mostSeconds = 60

export function createRebuildProgress(clock: Clock, log: Log): RebuildProgress {
  let startedMs: number | undefined
  let loggedMs = 0
  let latest: Rebuilt | undefined

  return {
    note(rebuilt) {
      const nowMs = clock.monotonicMs()
      if (startedMs === undefined || rebuilt.done === 0) startedMs = loggedMs = nowMs
      latest = rebuilt
      if (nowMs - loggedMs < logEveryMs) return
      loggedMs = nowMs
      log("index_rebuilding", { count: rebuilt.done, total: rebuilt.total })
    },

    rebuilt: () => latest,

    retryAfterSeconds() {
      if (latest === undefined || startedMs === undefined || latest.done === 0) {
        return leastSeconds
      }
      const { done, total } = latest
      const tookMs = clock.monotonicMs() - startedMs
      // A tenth for the uploads, which come after the deliveries.
      const leftMs = (tookMs / done) * (total - done) + tookMs / 10
      return Math.min(Math.max(Math.ceil(leftMs / 1000), leastSeconds), mostSeconds)
    },
  }
}
