// A clock that stands still until it is told to move, and rings what was set on the way.
import type { Clock } from "../../server/index.js"

interface Alarm {
  readonly dueMs: number
  readonly ring: () => void
}

export class ManualClock implements Clock {
  #wallMs: number
  #monotonicMs = 0
  readonly #alarms = new Set<Alarm>()

  constructor(wallMs: number = 1_790_000_000_000) {
    this.#wallMs = wallMs
  }

  wallMs(): number {
    return this.#wallMs
  }

  monotonicMs(): number {
    return this.#monotonicMs
  }

  after(delayMs: number, then: () => void): () => void {
    const alarm = { dueMs: this.#monotonicMs + delayMs, ring: then }
    this.#alarms.add(alarm)
    return () => this.#alarms.delete(alarm)
  }

  /** How many alarms are set. */
  get waiting(): number {
    return this.#alarms.size
  }

  /** Time passes, for both clocks. */
  advance(ms: number): void {
    this.#wallMs += ms
    this.#monotonicMs += ms
    for (const alarm of [...this.#alarms].sort((a, b) => a.dueMs - b.dueMs)) {
      if (alarm.dueMs <= this.#monotonicMs && this.#alarms.delete(alarm)) alarm.ring()
    }
  }

  /** Somebody sets the wall clock. */
  jump(ms: number): void {
    this.#wallMs += ms
  }
}
