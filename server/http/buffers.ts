// Buffers of one largest part, made once and used again. They bound what bodies in flight cost in
// memory, whoever sends or fetches how much at once. Senders and recipients have separate ones, so
// that neither can keep the other out; no network has all of them, and those that wait take turns, so
// that none keeps the others out; and while somebody waits for one, whoever makes no use of its own
// loses it.
import { maxPartBytes } from "../../protocol/index.js"
import type { Clock } from "../clock.js"

/** With a request of four parts each, this serves a dozen clients at full speed; more take turns. */
const buffersAtMost = 48
const ofOneNetworkAtMost = 36
/** A part smaller than this gets an array of its own. */
export const smallBytes: number = 32 * 1024
const lookEveryMs = 1000

export interface BufferHolder {
  /** Whose turn it is and whose share it counts against. */
  readonly network: string
  /** Asked while others wait. */
  isTooSlow(heldMs: number): boolean
  /** Makes it give the buffer back. */
  cut(): void
}

export interface PartBuffer {
  readonly bytes: Uint8Array
  /** Gives it back; calling it twice does no harm. */
  release(): void
}

interface Held {
  readonly holder: BufferHolder
  readonly sinceMs: number
}

export class PartBuffers {
  readonly #clock: Clock
  readonly #idle: Uint8Array[] = []
  /** By network, the one whose turn is next first; in each, who came first. */
  readonly #waiting = new Map<string, (() => void)[]>()
  /** The oldest first. */
  readonly #held = new Set<Held>()
  /** Those promised to somebody included. */
  readonly #heldBy = new Map<string, number>()
  #free = buffersAtMost
  #isLooking = false

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** At least `lengthBytes` long. Waits while all are in use. */
  async take(lengthBytes: number, holder: BufferHolder): Promise<PartBuffer> {
    if (lengthBytes <= smallBytes) {
      return { bytes: new Uint8Array(lengthBytes), release: () => undefined }
    }
    if (lengthBytes > maxPartBytes) throw new RangeError("longer than the largest part")
    const { network } = holder
    if (this.#mayTake(network)) this.#promise(network)
    else await this.#turn(network)
    const bytes = this.#idle.pop() ?? new Uint8Array(maxPartBytes)
    const held: Held = { holder, sinceMs: this.#clock.monotonicMs() }
    this.#held.add(held)
    return {
      bytes,
      release: () => {
        if (!this.#held.delete(held)) return
        this.#idle.push(bytes)
        this.#free += 1
        const left = (this.#heldBy.get(network) ?? 1) - 1
        if (left === 0) this.#heldBy.delete(network)
        else this.#heldBy.set(network, left)
        this.#letIn()
      },
    }
  }

  #mayTake(network: string): boolean {
    return this.#free > 0 && (this.#heldBy.get(network) ?? 0) < ofOneNetworkAtMost
  }

  #promise(network: string): void {
    this.#free -= 1
    this.#heldBy.set(network, (this.#heldBy.get(network) ?? 0) + 1)
  }

  #turn(network: string): Promise<void> {
    return new Promise((resolve) => {
      const line = this.#waiting.get(network) ?? []
      line.push(resolve)
      this.#waiting.set(network, line)
      this.#look()
    })
  }

  #letIn(): void {
    for (const [network, line] of this.#waiting) {
      if (this.#free === 0) return
      if (!this.#mayTake(network)) continue
      this.#waiting.delete(network)
      const next = line.shift()
      // Its next turn is after everybody else's.
      if (line.length > 0) this.#waiting.set(network, line)
      if (next === undefined) continue
      this.#promise(network)
      next()
    }
  }

  /** One holder makes room for one who waits; the one that has had its buffer longest goes first. */
  #look(): void {
    if (this.#isLooking) return
    const nowMs = this.#clock.monotonicMs()
    const slow = [...this.#held].filter(
      ({ holder, sinceMs }) =>
        // While there are free ones, those who wait have their share already.
        (this.#free === 0 || this.#waiting.has(holder.network)) &&
        holder.isTooSlow(nowMs - sinceMs),
    )
    const waiting = [...this.#waiting.values()].reduce((sum, line) => sum + line.length, 0)
    for (const { holder } of slow.slice(0, waiting)) holder.cut()
    if (waiting === 0) return
    this.#isLooking = true
    this.#clock.after(lookEveryMs, () => {
      this.#isLooking = false
      this.#look()
    })
  }
}
