/**
 * Runs the whole test suite and shows that it passed, that nothing was skipped, and that every hostile
 * test this version answers for is there by its id and passed.
 */
import { spawnSync } from "node:child_process"
import { mkdirSync, readFileSync } from "node:fs"
import { atLeast, exactly, showFigures } from "./figures.js"

const hostileIds = (
  "T01 T02 T03 T04 T05 T06 T07 T08 T09 T10 T11 T12 T13 T14 T15 T16 T17 " +
  "T18 T19 T20 T21 T22 T23 T24 T25 T26 T27 T28 T29 T30 T31 T32 T33 T37 T40 T41 T42 T43 T44 T45 " +
  "T50 T51 T52 T53"
).split(" ")

type Assertion = { fullName: string; status: string }
type Report = { testResults: { name: string; assertionResults: Assertion[] }[] }

mkdirSync("test-results", { recursive: true })
const report = "test-results/vitest.json"
const run = spawnSync(
  "npx",
  ["vitest", "run", "--reporter=default", "--reporter=json", `--outputFile.json=${report}`],
  { stdio: "inherit", env: { ...process.env, CI: "true" } },
)
// The reporter's own format; the counts below fail loudly if it ever differs.
const parsed = JSON.parse(readFileSync(report, "utf8")) as Report
const tests = parsed.testResults.flatMap((file) => file.assertionResults)
const count = (status: string) => tests.filter((test) => test.status === status).length
const passedWith = (id: string) =>
  tests.filter((test) => test.status === "passed" && new RegExp(`\\b${id}\\b`).test(test.fullName))
    .length

showFigures(
  "tests",
  [
    exactly("exit code of the test run", run.status ?? -1, 0),
    atLeast("tests passed", count("passed"), 1),
    exactly("tests failed", count("failed"), 0),
    exactly("tests skipped", tests.length - count("passed") - count("failed"), 0),
    ...hostileIds.map((id) => atLeast(`passing tests that bear ${id}`, passedWith(id), 1)),
  ],
  { files: parsed.testResults.map((file) => file.name.replace(`${process.cwd()}/`, "")) },
)
