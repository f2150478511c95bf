// Power cuts: of what was not synced anything may be gone, and the machine starts anew.
import type { Draws } from "../fuzz/random.js"
import { type Cut, cutsOf, diskAfter } from "./crash-images.js"
import { goOn, inspect } from "./inspection.js"
import { type DiskState, tree } from "./memory-disk.js"
import type { Moment, Recording } from "./recording.js"
import { type IndexImage, Subject } from "./subject.js"

/** A machine needs longer to start than that. */
const downMs = 20_000

/** What is left of the index: nothing, its file of this moment or of an earlier one. */
export type IndexLeft = (typeof everyIndexLeft)[number]

const everyIndexLeft = ["lost", "current", "earlier"] as const

function saysClosed(disk: DiskState): boolean {
  const state = tree(disk).get("relay/index-state")
  return state instanceof Uint8Array && new TextDecoder().decode(state).includes('"clean":true')
}

export async function cutAt(options: {
  readonly scratch: string
  readonly recording: Recording
  readonly moment: Moment
  readonly disk: DiskState
  readonly index: IndexImage | undefined
  readonly goesOn: boolean
}): Promise<string[]> {
  const { scratch, recording, moment, disk, index, goesOn } = options
  const { seed, ledger } = recording
  const subject = new Subject({
    scratch,
    seed: `${seed} after ${moment.at}`,
    disk,
    index,
    boot: "another boot",
    wallMs: moment.wallMs + downMs,
  })
  try {
    await subject.start()
    const inspection = { subject, ledger, at: moment.at, keepsSessions: false }
    const { problems } = await inspect(inspection)
    if (goesOn) problems.push(...(await goOn(inspection)))
    return problems
  } catch (error) {
    return [`the relay does not come up: ${String(error)}`]
  } finally {
    await subject.kill()
  }
}

/** The images of one moment, each with an index that may be left beside it. */
export function imagesOf(
  recording: Recording,
  moment: Moment,
  most: number,
  draws: Draws,
): {
  readonly images: readonly {
    readonly cut: Cut
    readonly disk: DiskState
    readonly left: IndexLeft
    readonly index: IndexImage | undefined
  }[]
  readonly isAll: boolean
} {
  const { cuts, isAll } = cutsOf(moment.disk, most, draws)
  const images = cuts.map((cut) => {
    const disk = diskAfter(moment.disk, cut)
    // It was synced before it was said to be closed: nothing older can be there then.
    const lefts = saysClosed(disk) ? (["lost", "current"] as const) : everyIndexLeft
    const left = draws.pick<IndexLeft>(lefts)
    const index = {
      lost: undefined,
      current: moment.index,
      earlier: draws.pick(recording.moments.slice(0, moment.at)).index,
    }[left]
    return { cut, disk, left, index }
  })
  return { images, isAll }
}
