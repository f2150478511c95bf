/**
 * A fixed set of buffers, each large enough for one part, shared between the threads. They bound the
 * memory of a transfer: whoever wants one more part in memory waits here until another one has gone.
 */
import { maxPartBytes } from "../protocol/index.js"

export class Slots {
  /** SharedArrayBuffer takes no memory before it is written to. */
  readonly buffers: readonly SharedArrayBuffer[]
  readonly views: readonly Uint8Array[]
  readonly #free: number[]
  readonly #waiting: ((slot: number) => void)[] = []
  #ended: Error | undefined
  #refuse: ((error: Error) => void)[] = []

  constructor(count: number) {
    this.buffers = Array.from({ length: count }, () => new SharedArrayBuffer(maxPartBytes))
    this.views = this.buffers.map((buffer) => new Uint8Array(buffer))
    this.#free = Array.from({ length: count }, (_, index) => count - 1 - index)
  }

  /** In the order of asking, so that whoever asks in order of parts cannot block an earlier one. */
  acquire(): Promise<number> {
    if (this.#ended) return Promise.reject(this.#ended)
    const slot = this.#free.pop()
    if (slot !== undefined) return Promise.resolve(slot)
    return new Promise((resolve, reject) => {
      this.#waiting.push(resolve)
      this.#refuse.push(reject)
    })
  }

  release(slot: number): void {
    const next = this.#waiting.shift()
    this.#refuse.shift()
    if (next) next(slot)
    else this.#free.push(slot)
  }

  view(slot: number, length: number = maxPartBytes): Uint8Array {
    const view = this.views[slot]
    if (view === undefined) throw new RangeError("no such slot")
    return view.subarray(0, length)
  }

  /** Fails everybody who waits, and everybody who comes later. */
  end(error: Error): void {
    this.#ended ??= error
    for (const refuse of this.#refuse.splice(0)) refuse(this.#ended)
    this.#waiting.length = 0
  }
}
