// The port to time. Wall time decides what has expired and is what the relay writes down; monotonic
// time measures how long something takes, because it never jumps.

export interface Clock {
  /** Milliseconds since 1970, as the machine believes. */
  wallMs(): number
  /** Milliseconds since some fixed moment. */
  monotonicMs(): number
  /** Runs `then` once, after `delayMs` of monotonic time. The result cancels it. */
  after(delayMs: number, then: () => void): () => void
}

export const systemClock: Clock = {
  wallMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after(delayMs, then) {
    const timer = setTimeout(then, delayMs)
    return () => clearTimeout(timer)
  },
}
