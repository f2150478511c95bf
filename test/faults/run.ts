/**
 * Everything that can break under a relay, broken in turn, and the relay held against what it promised:
 * deaths of the process at every moment, power cuts with all that they may leave, faults of the disk at
 * every operation, and real kills. Goes on where earlier runs ended; the report adds up.
 *
 *   npm run test:faults -- [--minutes N] [--only KIND] [--complete]
 *   npm run test:faults -- --replay KIND PIECE STEP
 *
 * Fails on a broken promise, and with --complete also where less was done than there should be.
 */
import { rmSync } from "node:fs"
import { parseArgs } from "node:util"
import { atLeast, exactly, showFigures } from "../shown/figures.js"
import { commitPathImages, faultsOfOneLife, type Kind, kinds, type Work } from "./kinds.js"
import { FaultReport } from "./report.js"
import { makeScratch } from "./subject.js"

const least = { deaths: 100_000, kills: 2000 }
/** So long each kind is at work before the next one has its turn. */
const turnMs = 30_000
const saveEveryMs = 5000

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    minutes: { type: "string", default: "1" },
    only: { type: "string" },
    complete: { type: "boolean", default: false },
    replay: { type: "boolean", default: false },
  },
})

const report = new FaultReport()
const scratch = makeScratch()
let hasBroken = false

function kindNamed(name: string): Kind {
  const kind = kinds.find((one) => one.name === name)
  if (kind === undefined) {
    throw new RangeError(`there are ${kinds.map((one) => one.name).join(", ")}`)
  }
  return kind
}

function workOn(kind: Kind, piece: number, endMs: number): Work {
  let savedMs = performance.now()
  return {
    scratch,
    isOver: () => performance.now() >= endMs,
    count(name, times = 1) {
      report.count(name, times)
      if (performance.now() - savedMs < saveEveryMs) return
      savedMs = performance.now()
      report.save()
    },
    broken(step, problem) {
      hasBroken = true
      const replay = `npm run test:faults -- --replay ${kind.name} ${piece} ${step}`
      console.error(`BROKEN  ${kind.name} ${piece} ${step}: ${problem}\n        ${replay}`)
      report.violation({ kind: kind.name, seed: piece, step, problem, replay })
    },
  }
}

async function runFor(minutes: number): Promise<void> {
  const endMs = performance.now() + minutes * 60_000
  const chosen = values.only === undefined ? kinds : [kindNamed(values.only)]
  const turns = Math.max(1, Math.round((minutes * 60_000) / (turnMs * chosen.length)))
  const eachMs = (minutes * 60_000) / (turns * chosen.length)
  while (performance.now() < endMs) {
    for (const kind of chosen) {
      const turnEndMs = Math.min(endMs, performance.now() + eachMs)
      while (performance.now() < turnEndMs) {
        const piece = report.takeSeed(kind.name)
        const work = workOn(kind, piece, turnEndMs)
        // What ends the run of one piece keeps no other one.
        await kind.run(piece, work).catch((error: unknown) => work.broken("run", String(error)))
        report.save()
      }
    }
  }
}

async function tell(): Promise<void> {
  for (const [name, count] of Object.entries(report.totals())) console.log(`${count}  ${name}`)
  const images = await commitPathImages(scratch)
  const figures = [
    atLeast("simulated deaths", report.total("simulated deaths"), least.deaths),
    atLeast("kills", report.total("kills"), least.kills),
    atLeast(
      "crash images of the commit path",
      report.total("crash images of the commit path"),
      images,
    ),
    atLeast("disk faults", report.total("disk faults"), await faultsOfOneLife(scratch)),
    exactly("broken promises", report.violations().length, 0),
  ]
  if (values.complete) {
    showFigures("faults", figures, { totals: report.totals(), commits: report.commits() })
    return
  }
  for (const { what, value, bound, holds } of figures) {
    console.log(`${holds ? "reached" : "so far "}  ${what}: ${value}  (to be ${bound})`)
  }
}

try {
  if (values.replay) {
    const [name = "", piece = "", step = ""] = positionals
    await kindNamed(name).replay(
      Number(piece),
      step,
      workOn(kindNamed(name), Number(piece), Infinity),
    )
    if (!hasBroken) console.log("nothing was broken")
  } else {
    await runFor(Number(values.minutes))
    await tell()
  }
} finally {
  rmSync(scratch, { recursive: true })
}
if (hasBroken || (!values.replay && report.violations().length > 0)) process.exitCode = 1
