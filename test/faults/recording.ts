// A relay's life under load, with what disk and index held after each change of either: every moment at
// which a process can end, or a machine can stop, and what had been promised by then.
import type { Identity } from "../../protocol/index.js"
import { Draws } from "../fuzz/random.js"
import { personAt } from "../server/people.js"
import { type Ledger, newLedger } from "./ledger.js"
import { runLoad } from "./load.js"
import type { DiskState } from "./memory-disk.js"
import { type IndexImage, Subject } from "./subject.js"

export interface Moment {
  /** Changes so far. */
  readonly at: number
  readonly disk: DiskState
  readonly index: IndexImage | undefined
  readonly wallMs: number
}

export interface Recording {
  readonly seed: string
  readonly ledger: Ledger
  readonly moments: readonly Moment[]
}

export interface LoadSize {
  /** At once. */
  readonly actors: number
  /** Of each of them, in each of two lives of the relay. */
  readonly actions: number
}

const startMs = 1_790_000_000_000

export async function record(scratch: string, seed: string, size: LoadSize): Promise<Recording> {
  const draws = new Draws(seed, "load")
  const ledger = newLedger(await owners())
  const moments: Moment[] = []
  const subject = new Subject({
    scratch,
    seed,
    wallMs: startMs,
    shuffled: true,
    changed: ({ changes, disk, index, clock }) =>
      moments.push({ at: changes, disk: disk.state(), index, wallMs: clock.wallMs() }),
  })
  try {
    await subject.start()
    await runLoad({ subject, ledger, draws, ...size })
    await subject.stop()
    await subject.start()
    await runLoad({ subject, ledger, draws, ...size })
    const alarms = subject.alarms()
    ledger.surprises.push(...alarms.map((event) => `the log has the alarm ${event}`))
  } finally {
    await subject.kill()
  }
  return { seed, ledger, moments }
}

function owners(): Promise<readonly Identity[]> {
  return Promise.all([0, 1, 2].map((at) => personAt(at)))
}
