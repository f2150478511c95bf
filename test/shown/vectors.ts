/** Runs every test that reads a vectors file, on both crypto providers, and shows what was met. */
import { spawnSync } from "node:child_process"
import { mkdirSync, readFileSync } from "node:fs"
import { atLeast, exactly, showFigures } from "./figures.js"

type Report = {
  testResults: { name: string; assertionResults: { fullName: string; status: string }[] }[]
}

mkdirSync("test-results", { recursive: true })
const projects = ["node", "browser-provider"].map((project) => {
  const file = `test-results/vectors-${project}.vitest.json`
  const run = spawnSync(
    "npx",
    [
      "vitest",
      "run",
      "--project",
      project,
      "vectors",
      "--reporter=default",
      "--reporter=json",
      `--outputFile.json=${file}`,
    ],
    { stdio: "inherit" },
  )
  // The reporter's own format; the counts below fail loudly if it ever differs.
  const report = JSON.parse(readFileSync(file, "utf8")) as Report
  const tests = report.testResults.flatMap((result) => result.assertionResults)
  return { project, status: run.status ?? -1, tests }
})

showFigures(
  "vectors",
  projects.flatMap(({ project, status, tests }) => [
    exactly(`${project}: exit code`, status, 0),
    atLeast(
      `${project}: vector tests passed`,
      tests.filter((test) => test.status === "passed").length,
      1,
    ),
    exactly(
      `${project}: vector tests not passed`,
      tests.filter((test) => test.status !== "passed").length,
      0,
    ),
  ]),
)
