/**
 * How many requests of a transfer are on the wire at once. On a line that is too slow for all of them
 * each takes too long, and what was sent of it is sent again: so after a timeout there are half as many,
 * and one more again when all went well for a while.
 */
import { asError } from "./progress.js"

const wellForMore = 16

export interface Turn {
  readonly end: (outcome: "answered" | "timed out" | "failed") => void
}

interface Waiting {
  readonly begin: () => void
}

export class Parallel {
  readonly #most: number
  readonly #onChange: (allowed: number) => void
  readonly #waiting = new Set<Waiting>()
  #allowed: number
  #busy = 0
  #well = 0
  /** Which halving a request came after: those that time out together tell of one thing. */
  #halvings = 0

  constructor(most: number, onChange: (allowed: number) => void = () => undefined) {
    this.#most = most
    this.#allowed = most
    this.#onChange = onChange
  }

  /** Resolves when it is this one's turn; rejects with the signal's reason. */
  async turn(signal: AbortSignal | undefined): Promise<Turn> {
    signal?.throwIfAborted()
    if (this.#busy >= this.#allowed) await this.#wait(signal)
    else this.#busy += 1
    const halvings = this.#halvings
    return {
      end: (outcome) => {
        this.#busy -= 1
        if (outcome === "timed out" && halvings === this.#halvings) this.#halve()
        if (outcome === "answered") this.#goWell()
        this.#fill()
      },
    }
  }

  #halve(): void {
    this.#halvings += 1
    this.#well = 0
    if (this.#allowed === 1) return
    this.#allowed = Math.ceil(this.#allowed / 2)
    this.#onChange(this.#allowed)
  }

  #goWell(): void {
    this.#well += 1
    if (this.#well < wellForMore || this.#allowed === this.#most) return
    this.#well = 0
    this.#allowed += 1
    this.#onChange(this.#allowed)
  }

  #fill(): void {
    for (const next of this.#waiting) {
      if (this.#busy >= this.#allowed) return
      this.#waiting.delete(next)
      this.#busy += 1
      next.begin()
    }
  }

  #wait(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        this.#waiting.delete(waiting)
        reject(asError(signal?.reason))
      }
      const waiting = {
        begin: () => {
          signal?.removeEventListener("abort", onAbort)
          resolve()
        },
      }
      this.#waiting.add(waiting)
      signal?.addEventListener("abort", onAbort, { once: true })
    })
  }
}
