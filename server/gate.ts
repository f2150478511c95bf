// Lets a bounded number of pieces of work run at once; the rest wait their turn, first come first
// served.

export class Gate {
  #free: number
  readonly #waiting: (() => void)[] = []

  constructor(places: number) {
    this.#free = places
  }

  /** How many wait. */
  get queued(): number {
    return this.#waiting.length
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    await this.enter()
    try {
      return await work()
    } finally {
      this.leave()
    }
  }

  async enter(): Promise<void> {
    if (this.#free > 0) {
      this.#free -= 1
      return
    }
    await new Promise<void>((resolve) => this.#waiting.push(resolve))
  }

  leave(): void {
    const next = this.#waiting.shift()
    if (next === undefined) this.#free += 1
    else next()
  }
}

/** One gate of one place for each key, for as long as someone is inside or waits. */
export class KeyedGate<K> {
  readonly #gates = new Map<K, { readonly gate: Gate; users: number }>()

  async run<T>(key: K, work: () => Promise<T>): Promise<T> {
    const entry = this.#gates.get(key) ?? { gate: new Gate(1), users: 0 }
    this.#gates.set(key, entry)
    entry.users += 1
    try {
      return await entry.gate.run(work)
    } finally {
      entry.users -= 1
      if (entry.users === 0) this.#gates.delete(key)
    }
  }
}

/** Runs `work` on every item, at most `places` at once. The first failure is thrown at the end. */
export async function eachAtMost<T>(
  places: number,
  items: Iterable<T>,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const gate = new Gate(places)
  const running: Promise<void>[] = []
  let failure: { readonly error: unknown } | undefined
  for (const item of items) {
    await gate.enter()
    if (failure !== undefined) {
      gate.leave()
      break
    }
    running.push(
      work(item)
        .catch((error: unknown) => {
          failure ??= { error }
        })
        .finally(() => gate.leave()),
    )
  }
  await Promise.all(running)
  if (failure !== undefined) throw failure.error
}

/** Lets requests and timers have their turn, in work that waits for nothing else. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
