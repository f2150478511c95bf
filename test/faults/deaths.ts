// Deaths of the process: the kernel goes on, so disk and index are there as the process left them, and
// what was not synced is still to be lost.
import { Draws } from "../fuzz/random.js"
import { goOn, inspect } from "./inspection.js"
import type { Moment, Recording } from "./recording.js"
import { Subject } from "./subject.js"

/** A supervisor needs as long to start the relay again. */
const downMs = 1000

/** What is wrong with a relay that is started after the process ended at this moment. */
export async function dieAt(
  scratch: string,
  { seed, ledger }: Recording,
  moment: Moment,
): Promise<string[]> {
  const draws = new Draws(seed, "death", moment.at)
  const subject = new Subject({
    scratch,
    seed: `${seed} after ${moment.at}`,
    disk: moment.disk,
    index: moment.index,
    wallMs: moment.wallMs + downMs,
  })
  try {
    await subject.start()
    const inspection = { subject, ledger, at: moment.at, keepsSessions: true }
    const { problems } = await inspect(inspection)
    if (draws.chance(0.25)) problems.push(...(await goOn(inspection)))
    return problems
  } catch (error) {
    return [`the relay does not come up: ${String(error)}`]
  } finally {
    await subject.kill()
  }
}
