/**
 * `npm run test:mutants [ID…]`: puts each listed sabotage into a copy of the tree, one at a time, runs
 * the test that must notice, and shows that it fails with it and passes without.
 */
import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { atLeast, exactly, showFigures } from "../shown/figures.js"
import { mutants as all, type Mutant } from "./list.js"

const leastMutants = 30
/** Two processes: what runs beside each other here shares no file but the packages. */
const lanes = 2
/** A sabotage that makes a test run for ever is not noticed by it. */
const mostMs = 180_000

const copied = ["protocol", "client", "server", "test", "docs", "bench", "dist"]
const copiedFiles = ["package.json", "tsconfig.json", "vitest.config.ts"]

interface Lane {
  readonly folder: string
}

function openLane(): Lane {
  const folder = mkdtempSync(path.join(tmpdir(), "knothole-mutants-"))
  for (const name of [...copied, ...copiedFiles]) {
    if (existsSync(name)) cpSync(name, path.join(folder, name), { recursive: true })
  }
  symlinkSync(path.resolve("node_modules"), path.join(folder, "node_modules"))
  return { folder }
}

/** The compiled files of the lane's sources. Types were checked before; a sabotage may break them. */
function build(lane: Lane): void {
  spawnSync(path.resolve("node_modules/.bin/tsc"), [], { cwd: lane.folder, stdio: "ignore" })
}

type Verdicts = ReadonlyMap<string, string>

/** The verdict on each of the named tests of a file, by full name. */
async function runTests(lane: Lane, testFile: string, names: readonly string[]): Promise<Verdicts> {
  const report = path.join(lane.folder, "report.json")
  rmSync(report, { force: true })
  const pattern = names.map((name) => name.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&")).join("|")
  const child = spawn(
    path.resolve("node_modules/.bin/vitest"),
    [
      "run",
      "--project=node",
      testFile,
      `--testNamePattern=^(${pattern})$`,
      "--reporter=json",
      `--outputFile.json=${report}`,
    ],
    { cwd: lane.folder, stdio: "ignore", detached: true },
  )
  const timer = setTimeout(() => {
    // The whole group that was started here: a test runs in a process of its own.
    if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL")
  }, mostMs)
  await once(child, "exit")
  clearTimeout(timer)
  if (!existsSync(report)) return new Map()
  // The reporter's own format; a name that is missing from it shows as a test that was not there.
  const { testResults } = JSON.parse(readFileSync(report, "utf8")) as {
    testResults: { assertionResults: { fullName: string; status: string }[] }[]
  }
  const verdicts = testResults.flatMap((file) => file.assertionResults)
  return new Map(verdicts.map(({ fullName, status }) => [fullName, status]))
}

/** Gives what undoes it; undefined when the line to change is not there, or not there once. */
function sabotage(lane: Lane, { file, find, replace }: Mutant): (() => void) | undefined {
  const target = path.join(lane.folder, file)
  const source = readFileSync(target, "utf8")
  const times = source.split(find).length - 1
  if (times !== 1 || find.includes("\n")) return undefined
  writeFileSync(
    target,
    source.replace(find, () => replace),
  )
  return () => writeFileSync(target, source)
}

/** The verdict on the named test with the sabotage in place. */
async function runSabotaged(lane: Lane, mutant: Mutant): Promise<string> {
  const restore = sabotage(lane, mutant)
  if (restore === undefined) return "not sabotaged: the line is not there once"
  try {
    if (mutant.built) build(lane)
    const verdicts = await runTests(lane, mutant.testFile, [mutant.test])
    return verdicts.get(mutant.test) ?? "not there"
  } finally {
    restore()
    if (mutant.built) build(lane)
  }
}

/** Runs `work` over `items`, one at a time in each lane. */
async function inLanes<T>(
  items: readonly T[],
  work: (lane: Lane, item: T) => Promise<void>,
): Promise<void> {
  const waiting = [...items]
  await Promise.all(
    Array.from({ length: lanes }, async () => {
      const lane = openLane()
      try {
        for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) {
          await work(lane, item)
        }
      } finally {
        rmSync(lane.folder, { recursive: true, force: true })
      }
    }),
  )
}

const wanted = process.argv.slice(2)
const mutants = wanted.length === 0 ? all : all.filter(({ id }) => wanted.includes(id))

const testFiles = [...new Set(mutants.map(({ testFile }) => testFile))]
const unmutated = new Map<string, Verdicts>()
await inLanes(testFiles, async (lane, testFile) => {
  const names = mutants.filter((mutant) => mutant.testFile === testFile).map(({ test }) => test)
  unmutated.set(testFile, await runTests(lane, testFile, [...new Set(names)]))
})

interface Outcome {
  readonly mutant: Mutant
  readonly without: string
  readonly mutated: string
}

const outcomes: Outcome[] = []
await inLanes(mutants, async (lane, mutant) => {
  const outcome = {
    mutant,
    without: unmutated.get(mutant.testFile)?.get(mutant.test) ?? "not there",
    mutated: await runSabotaged(lane, mutant),
  }
  outcomes.push(outcome)
  const noticed = outcome.without === "passed" && outcome.mutated === "failed"
  console.log(
    `${noticed ? "noticed " : "SURVIVED"}  ${mutant.id}: ${mutant.test} (${outcome.without}, then ${outcome.mutated})`,
  )
})

const survivors = outcomes.filter(
  ({ without, mutated }) => without !== "passed" || mutated !== "failed",
)
const areas = ["protocol", "server", "client"].map((area) => ({
  area,
  count: mutants.filter(({ file }) => file.startsWith(`${area}/`)).length,
}))
showFigures(
  "mutants",
  [
    atLeast("sabotages of one line", mutants.length, wanted.length === 0 ? leastMutants : 1),
    ...areas.map(({ area, count }) =>
      atLeast(`of them in ${area}/`, count, wanted.length === 0 ? 1 : 0),
    ),
    exactly(
      "that the named test passed without",
      outcomes.filter((one) => one.without === "passed").length,
      mutants.length,
    ),
    exactly("that the named test did not notice", survivors.length, 0),
  ],
  { survivors, outcomes },
)
