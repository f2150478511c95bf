/** How long to wait before asking again. */

const firstDelayMs = 250
/** Short enough that a relay that was restarted is noticed soon, long enough not to be a burden. */
const longestDelayMs = 5_000

/**
 * Exponential, with the upper half of each step random, so that clients cut off together do not come
 * back together. What the relay asks for by Retry-After is a floor. `attempt` counts from 0, `random`
 * is in [0, 1).
 */
export function backoffMs(options: {
  attempt: number
  retryAfterSeconds?: number | undefined
  random: number
}): number {
  const step = Math.min(firstDelayMs * 2 ** options.attempt, longestDelayMs)
  const jittered = step / 2 + (step / 2) * options.random
  const askedMs = (options.retryAfterSeconds ?? 0) * 1000
  // Jitter on top of Retry-After as well: everybody was told the same number.
  return Math.round(askedMs > jittered ? askedMs + step * 0.25 * options.random : jittered)
}
