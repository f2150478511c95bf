// Keeps the writing of parts and the finishing of one upload apart: a part that is written while the
// upload's folder becomes a delivery's would end up in neither.
import type { DeliveryId } from "./ids.js"
import { busy } from "./relay-refusals.js"

interface State {
  writers: number
  closed: boolean
  whenIdle: (() => void) | undefined
}

export class UploadGate {
  readonly #states = new Map<DeliveryId, State>()

  /** Any number of writers at once; refused while the upload is being finished. */
  async write<T>(id: DeliveryId, work: () => Promise<T>): Promise<T> {
    const state = this.#stateOf(id)
    if (state.closed) throw busy()
    state.writers += 1
    try {
      return await work()
    } finally {
      state.writers -= 1
      if (state.writers === 0) {
        state.whenIdle?.()
        if (!state.closed) this.#states.delete(id)
      }
    }
  }

  /** Waits for the writers that are in, and lets no other one in until `work` is done. */
  async close<T>(id: DeliveryId, work: () => Promise<T>): Promise<T> {
    const state = this.#stateOf(id)
    if (state.closed) throw busy()
    state.closed = true
    try {
      if (state.writers > 0) await new Promise<void>((resolve) => (state.whenIdle = resolve))
      return await work()
    } finally {
      this.#states.delete(id)
    }
  }

  #stateOf(id: DeliveryId): State {
    const state = this.#states.get(id) ?? { writers: 0, closed: false, whenIdle: undefined }
    this.#states.set(id, state)
    return state
  }
}
