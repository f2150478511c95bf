// Ctrl-C and its kin: the first one asks the work to stop where it can be resumed, the second ends the process.

import { Interrupted } from "./errors.js"

export interface Interruption {
  /** Aborts at the first signal, with an `Interrupted` as its reason. */
  readonly signal: AbortSignal
  /** Undefined until then. */
  readonly reason: () => Interrupted | undefined
  /** Gives the signals back their usual meaning. */
  readonly release: () => void
}

const stopSignals: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM", "SIGHUP"]

export function listenForInterruption(onFirst: () => void): Interruption {
  const controller = new AbortController()
  const release = () => {
    for (const name of stopSignals) process.removeListener(name, stop)
  }
  let reason: Interrupted | undefined
  const stop = (by: NodeJS.Signals) => {
    // With no listener left, a second signal meets the system's default and ends the process.
    release()
    reason = new Interrupted(by)
    controller.abort(reason)
    onFirst()
  }
  for (const name of stopSignals) process.on(name, stop)
  return { signal: controller.signal, reason: () => reason, release }
}
