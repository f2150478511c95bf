// A relay's life under load, with what disk and index held after each change of either: every moment at
// which a process can end, or a machine can stop, and what had been promised by then.
import type { Identity } from "../../protocol/index.js"
import { Draws } from "../fuzz/random.js"
import { personAt } from "../server/people.js"
import { type Ledger, newLedger, type Owner, type Sending } from "./ledger.js"
import { newSending, Party, runLoad } from "./load.js"
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

export const startMs = 1_790_000_000_000

/** A first start, a load, a stop in peace, another start and another load. */
export function record(scratch: string, seed: string, size: LoadSize): Promise<Recording> {
  return recordLife(scratch, seed, async (life) => {
    await runLoad({ ...life, ...size })
    await life.subject.stop()
    await life.subject.start()
    await runLoad({ ...life, ...size })
  })
}

/** A first start, an inbox, and one small delivery to it. */
export function recordDelivery(scratch: string, seed: string): Promise<Recording> {
  return recordLife(scratch, seed, async (life) => {
    await deliver(life, life.ledger.owners[0])
  })
}

/** The same, and then the recipient discards it. */
export function recordDiscard(scratch: string, seed: string): Promise<Recording> {
  return recordLife(scratch, seed, async (life) => {
    const [owner] = life.ledger.owners
    const { party, sending } = await deliver(life, owner)
    if (owner !== undefined) await party.discard(owner, sending)
  })
}

async function deliver(
  { subject, ledger, draws }: Life,
  owner: Owner | undefined,
): Promise<{ readonly party: Party; readonly sending: Sending }> {
  if (owner === undefined) throw new RangeError("an owner")
  const party = new Party(subject, ledger)
  await party.register(owner)
  subject.disk.flush()
  const sending = newSending(party, draws, [owner.identity], 700)
  ledger.sendings.push(sending)
  await party.start(sending)
  await party.parts(sending)
  await party.finish(sending)
  return { party, sending }
}

interface Life {
  readonly subject: Subject
  readonly ledger: Ledger
  readonly draws: Draws
}

async function recordLife(
  scratch: string,
  seed: string,
  live: (life: Life) => Promise<void>,
): Promise<Recording> {
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
    await live({ subject, ledger, draws: new Draws(seed, "load") })
    const alarms = subject.alarms()
    ledger.surprises.push(...alarms.map((event) => `the log has the alarm ${event}`))
  } finally {
    await subject.kill()
  }
  return { seed, ledger, moments }
}

export function owners(): Promise<readonly Identity[]> {
  return Promise.all([0, 1, 2].map((at) => personAt(at)))
}
