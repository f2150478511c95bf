// Buffers of one largest part, made once and used again. They bound what bodies in flight cost in
// memory, whoever sends or fetches how much at once.
import { maxPartBytes } from "../../protocol/index.js"
import { Gate } from "../gate.js"

/** With a request of four parts each, this serves a dozen clients at full speed; more take turns. */
const buffersAtMost = 48
/** A part smaller than this gets an array of its own. */
const smallBytes = 32 * 1024

export class PartBuffers {
  readonly #gate = new Gate(buffersAtMost)
  readonly #idle: Uint8Array[] = []

  /** At least `lengthBytes` long. Waits while all are in use. */
  async take(lengthBytes: number): Promise<PartBuffer> {
    if (lengthBytes <= smallBytes) {
      return { bytes: new Uint8Array(lengthBytes), release: () => undefined }
    }
    if (lengthBytes > maxPartBytes) throw new RangeError("longer than the largest part")
    await this.#gate.enter()
    const bytes = this.#idle.pop() ?? new Uint8Array(maxPartBytes)
    let isOut = true
    return {
      bytes,
      release: () => {
        if (!isOut) return
        isOut = false
        this.#idle.push(bytes)
        this.#gate.leave()
      },
    }
  }
}

export interface PartBuffer {
  readonly bytes: Uint8Array
  /** Gives it back; calling it twice does no harm. */
  release(): void
}
