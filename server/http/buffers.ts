// Buffers of one largest part, made once and used again. They bound what bodies in flight cost in
// memory, whoever sends or fetches how much at once. Senders and recipients have separate ones, so
// that neither can keep the other out; and while somebody waits for one, whoever makes no use of its
// own loses it.
import { maxPartBytes } from "../../protocol/index.js"
import type { Clock } from "../clock.js"

/** With a request of four parts each, this serves a dozen clients at full speed; more take turns. */
const buffersAtMost = 48
/** A part smaller than this gets an array of its own. */
export const smallBytes: number = 32 * 1024
const lookEveryMs = 1000

export interface BufferHolder {
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
  readonly #waiting: (() => void)[] = []
  /** The oldest first. */
  readonly #held = new Set<Held>()
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
    if (this.#free > 0) this.#free -= 1
    else await this.#turn()
    const bytes = this.#idle.pop() ?? new Uint8Array(maxPartBytes)
    const held: Held = { holder, sinceMs: this.#clock.monotonicMs() }
    this.#held.add(held)
    return {
      bytes,
      release: () => {
        if (!this.#held.delete(held)) return
        this.#idle.push(bytes)
        const next = this.#waiting.shift()
        if (next === undefined) this.#free += 1
        else next()
      },
    }
  }

  #turn(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve)
      this.#look()
    })
  }

  /** One holder makes room for one who waits; the one that has had its buffer longest goes first. */
  #look(): void {
    if (this.#isLooking) return
    const nowMs = this.#clock.monotonicMs()
    const slow = [...this.#held].filter(({ holder, sinceMs }) => holder.isTooSlow(nowMs - sinceMs))
    for (const { holder } of slow.slice(0, this.#waiting.length)) holder.cut()
    if (this.#waiting.length === 0) return
    this.#isLooking = true
    this.#clock.after(lookEveryMs, () => {
      this.#isLooking = false
      this.#look()
    })
  }
}
