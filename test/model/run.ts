/**
 * The model against many relays, as long as it is told, from seeds that were not used up before; the
 * report in test-results/model adds up.
 *
 *   npm run test:model -- [--minutes N] [--backend embedded]
 *   npm run test:model -- --seed S --path P [--backend embedded]     shows a counterexample again
 */
import { parseArgs } from "node:util"
import { asyncDefaultReportMessage, check } from "fast-check"
import { FaultReport } from "../faults/report.js"
import { relayIsItsModel } from "./commands.js"
import { backendNames, openBackend } from "./backends.js"

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "1" },
    seed: { type: "string" },
    path: { type: "string" },
    backend: { type: "string", default: "embedded" },
  },
})

/** Before there is a new seed. */
const runsOfASeed = 20
const mostShrinkingMs = 120_000

const name = backendNames.find((one) => one === values.backend)
if (name === undefined) {
  throw new RangeError(`--backend ${values.backend}: there are ${backendNames.join(", ")}`)
}

const report = new FaultReport("test-results/model")
const backend = await openBackend(name)
const kind = `model on ${backend.name}`

async function runSeed(seed: number, path?: string): Promise<boolean> {
  const { property, tally } = relayIsItsModel(backend)
  const found = await check(property, {
    seed,
    ...(path !== undefined && { path, endOnFailure: true }),
    numRuns: runsOfASeed,
    interruptAfterTimeLimit: mostShrinkingMs,
  })
  for (const [name, times] of Object.entries(tally)) report.count(`${kind}: ${name}`, times)
  if (!found.failed) return true
  const at = found.counterexamplePath ?? ""
  const replay = `npm run test:model -- --backend ${backend.name} --seed ${found.seed} --path ${at}`
  const problem = (await asyncDefaultReportMessage(found)) ?? "interrupted"
  report.violation({ kind, seed: found.seed, step: at, problem, replay })
  console.error(`${problem}\n\nagain: ${replay}`)
  if (found.errorInstance instanceof Error) console.error(found.errorInstance)
  return false
}

let holds = true
try {
  if (values.seed !== undefined) {
    holds = await runSeed(Number(values.seed), values.path)
  } else {
    const endMs = performance.now() + Number(values.minutes) * 60_000
    while (holds && performance.now() < endMs) {
      holds = await runSeed(report.takeSeed(kind))
      report.save()
    }
  }
} finally {
  await backend.close()
}
console.log(report.totals())
process.exitCode = holds ? 0 : 1
