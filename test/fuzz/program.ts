/**
 * One process that fuzzes: loads the compiled files it is told, fuzzes all targets in turn until the time
 * or the executions are over, and writes down what it saw. Its parent (test/shown/fuzz.ts) watches that
 * it goes on, because a parser that hangs cannot say so itself.
 */
import { writeFileSync } from "node:fs"
import { parseArgs } from "node:util"
import { Coverage, type FileCoverage } from "./coverage.js"
import {
  count,
  createTargets,
  type Finding,
  inputOf,
  newTally,
  runIteration,
  type Tally,
} from "./fuzzing.js"
import { loadCompiled } from "./subject.js"
import type { Target } from "./target.js"

/** What the parent hears: where the process is, so that it can tell where one hung. */
export interface Progress {
  readonly target: string
  readonly iteration: number
}

export interface Report {
  readonly seed: string
  readonly executions: number
  readonly tallies: readonly Tally[]
  readonly findings: readonly Finding[]
  readonly coverage: readonly FileCoverage[]
  /** For each target the input that took the most work for its length. */
  readonly work: readonly Work[]
}

export interface Work {
  readonly name: string
  readonly blocks: number
  readonly inputLength: number
  readonly allowed: number
}

const { values } = parseArgs({
  options: {
    compiled: { type: "string", default: "dist" },
    seed: { type: "string", default: "1" },
    minutes: { type: "string" },
    executions: { type: "string" },
    report: { type: "string" },
    "stop-at-finding": { type: "boolean", default: false },
  },
})

// Enough of one kind; a parser that is plainly wrong would fill the disk.
const mostFindingsKept = 5

async function run(): Promise<Report> {
  const coverage = await Coverage.start(values.compiled)
  const targets = await createTargets(await loadCompiled(values.compiled))
  const tallies = new Map(targets.map((target) => [target, newTally(target.name)]))
  const next = new Map(targets.map((target) => [target, -target.seeds.length]))
  const findings: Finding[] = []
  let executions = 0
  const endMs =
    values.minutes === undefined ? undefined : performance.now() + Number(values.minutes) * 60_000
  const mostExecutions = Number(values.executions ?? Number.POSITIVE_INFINITY)
  const isOver = () =>
    executions >= mostExecutions ||
    (endMs !== undefined && performance.now() >= endMs) ||
    (values["stop-at-finding"] && findings.length > 0)

  const runOne = async (target: Target) => {
    const iteration = next.get(target) ?? 0
    const ran = await runIteration(target, values.seed, iteration)
    next.set(target, iteration + 1)
    executions += 1
    const tally = tallies.get(target) ?? newTally(target.name)
    count(tally, ran)
    if (ran.finding && tally.findings <= mostFindingsKept) findings.push(ran.finding)
  }
  while (!isOver()) {
    for (const target of targets) {
      process.send?.({ target: target.name, iteration: next.get(target) ?? 0 } satisfies Progress)
      // By time each target gets its share of it; by count, the same inputs whatever the machine does.
      const sliceEndMs = performance.now() + 50
      const sliceCount = target.slow ? 1 : 50
      const sliceIsOver =
        endMs === undefined
          ? (done: number) => done >= sliceCount
          : () => performance.now() >= sliceEndMs
      for (let done = 0; !sliceIsOver(done) && !isOver(); done++) await runOne(target)
      if (isOver()) break
    }
  }
  const covered = await coverage.finish()
  const work = values["stop-at-finding"] ? [] : await measureWork(coverage, targets)
  return {
    seed: values.seed,
    executions,
    tallies: [...tallies.values()],
    findings,
    coverage: covered,
    work,
  }
}

/**
 * Blocks entered for the longest and the first of many inputs. Each may cost so much for each byte; work
 * that grows faster than the input would stand out among the longest.
 */
async function measureWork(coverage: Coverage, targets: readonly Target[]): Promise<Work[]> {
  const worst: Work[] = []
  for (const target of targets) {
    process.send?.({ target: `${target.name}, work`, iteration: 0 } satisfies Progress)
    const drawn = Array.from({ length: target.slow ? 1 : 1000 }, (_, iteration) => iteration)
    const byLength = drawn.toSorted(
      (a, b) => inputOf(target, values.seed, b).length - inputOf(target, values.seed, a).length,
    )
    let most: Work | undefined
    for (const iteration of new Set([...byLength.slice(0, 10), ...drawn.slice(0, 10)])) {
      await coverage.takeWork()
      const { inputLength } = await runIteration(target, values.seed, iteration)
      const blocks = await coverage.takeWork()
      const work = { name: target.name, blocks, inputLength, allowed: allowedWork(inputLength) }
      if (most === undefined || blocks / work.allowed > most.blocks / most.allowed) most = work
    }
    if (most) worst.push(most)
  }
  return worst
}

/** Blocks for an input of this length, with what one costs whatever its length: an import of a key, a DH. */
function allowedWork(inputLength: number): number {
  return 10 * inputLength + 20_000
}

const report = await run()
if (values.report !== undefined) writeFileSync(values.report, JSON.stringify(report))
else console.log(JSON.stringify(report, null, 2))
// In a process with an IPC channel nothing else would end it.
if (process.connected) process.disconnect()
