// What is left after a crash, and whether a relay that starts on it keeps what was promised before. A
// process that ends leaves disk and index as the kernel has them, with what was not synced still to be
// lost; a power cut loses it then and there, and the machine starts anew.
import { Draws } from "../fuzz/random.js"
import { type Cut, cutsOf, diskAfter } from "./crash-images.js"
import { goOn, type Inspected, inspect } from "./inspection.js"
import type { Ledger } from "./ledger.js"
import { type DiskState, tree } from "./memory-disk.js"
import type { Moment, Recording } from "./recording.js"
import { type IndexImage, Subject } from "./subject.js"

/** What there is of a relay while it does not run. */
export interface Image {
  readonly disk: DiskState
  readonly index: IndexImage | undefined
  /** Which start of the machine it is. */
  readonly boot: string
  readonly wallMs: number
  /** What the index is, for whoever reads of it. */
  readonly left: IndexLeft
}

/** The index's file may be gone, as it was, or as it was before. */
export type IndexLeft = (typeof everyLeft)[number]

const everyLeft = ["lost", "current", "earlier"] as const
/** A supervisor needs as long to start the relay again, and a machine to start. */
const restartMs = { process: 1000, machine: 20_000 }

/** The process ended. */
export function deathAt({ seed }: Recording, moment: Moment): Image {
  const draws = new Draws(seed, "death", moment.at)
  const { disk, at, wallMs } = moment
  const isLost = draws.chance(0.2)
  return {
    disk,
    index: isLost ? undefined : moment.index,
    boot: bootOf(at, 0),
    wallMs: wallMs + restartMs.process,
    left: isLost ? "lost" : "current",
  }
}

/** The machine stopped: what that may have left, all of it where it is at most so much. */
export function cutsAt(
  { seed, moments }: Recording,
  moment: Moment,
  most: number,
): { readonly images: readonly Image[]; readonly isAll: boolean } {
  const draws = new Draws(seed, "cuts", moment.at)
  const { cuts, isAll } = cutsOf(moment.disk, most, draws)
  const images = cuts.map((cut): Image => {
    const disk = diskAfter(moment.disk, cut)
    const left = draws.pick(leftsOf(disk))
    const earlier = draws.pick(moments.slice(0, moment.at)).index
    const index = { lost: undefined, current: moment.index, earlier }[left]
    const wallMs = moment.wallMs + restartMs.machine
    return { disk, index, left, boot: bootOf(moment.at, 1), wallMs }
  })
  return { images, isAll }
}

/** The index was synced before it was said to be closed: nothing older can be there then. */
function leftsOf(disk: DiskState): readonly IndexLeft[] {
  const state = tree(disk).get("relay/index-state")
  const isClosed =
    state instanceof Uint8Array && new TextDecoder().decode(state).includes('"clean":true')
  return isClosed ? ["lost", "current"] : everyLeft
}

/** In a recording every machine runs since its first start. */
function bootOf(at: number, starts: number): string {
  return starts === 0 ? "boot" : `boot after ${at}.${starts}`
}

export interface Crash {
  readonly scratch: string
  readonly recording: Recording
  readonly moment: Moment
  readonly image: Image
  /** Draws how far the relay's users go on, and whether there is a second crash. */
  readonly draws: Draws
}

/** What is wrong with a relay that starts on the image, and on what a second crash leaves of that. */
export async function problemsAfter(crash: Crash): Promise<string[]> {
  const { image, draws } = crash
  const first = await live(crash, image, draws.chance(0.25))
  if (first.problems.length > 0 || first.goesOn || draws.chance(0.7)) return first.problems
  const [cut = everythingLost] = cutsOf(first.disk, 1, draws).cuts
  return problemsAfterAnother(crash, first, cut)
}

const everythingLost: Cut = { kept: new Set(), contents: new Map() }

/** The process ended and its index is gone; the next relay is asked what there is, and loses its power. */
export async function problemsAfterBoth(crash: Crash): Promise<string[]> {
  const first = await live(crash, { ...crash.image, index: undefined, left: "lost" }, false)
  if (first.problems.length > 0) return first.problems
  return problemsAfterAnother(crash, first, everythingLost)
}

/** Nothing was done since the first crash but to look: whatever is lost now, the next relay says the same. */
async function problemsAfterAnother(crash: Crash, first: Life, cut: Cut): Promise<string[]> {
  const { image, draws } = crash
  const second = await live(
    crash,
    {
      disk: diskAfter(first.disk, cut),
      index: draws.chance(0.5) ? first.index : undefined,
      left: "current",
      boot: `${image.boot}, again`,
      wallMs: image.wallMs,
    },
    false,
  )
  const problems = [...second.problems]
  if (second.said !== first.said) problems.push("what was said after a crash is taken back")
  return problems.map((problem) => `after a second crash: ${problem}`)
}

interface Life extends Inspected {
  readonly goesOn: boolean
  readonly disk: DiskState
  readonly index: IndexImage | undefined
}

async function live(
  { scratch, recording, moment }: Crash,
  { disk, index, boot, wallMs }: Image,
  goesOn: boolean,
): Promise<Life> {
  const ledger: Ledger = recording.ledger
  const seed = `${recording.seed} after ${moment.at}`
  const subject = new Subject({ scratch, seed, disk, index, boot, wallMs })
  const problems: string[] = []
  let said = ""
  try {
    await subject.start()
    const keepsSessions = index !== undefined && boot === bootOf(0, 0)
    const inspection = { subject, ledger, at: moment.at, keepsSessions }
    const inspected = await inspect(inspection)
    problems.push(...inspected.problems)
    said = inspected.said
    if (goesOn) problems.push(...(await goOn(inspection)))
  } catch (error) {
    problems.push(`the relay does not come up: ${String(error)}`)
  }
  const left = { disk: subject.disk.state(), index: subject.readIndex() }
  await subject.kill()
  return { problems, said, goesOn, ...left }
}
