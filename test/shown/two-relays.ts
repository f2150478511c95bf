/**
 * Two relays on one data folder and one Redis behind a real Caddy, set up by what docs/operating.md says
 * under "Two relays": one after the other is killed in the middle of a transfer, and the transfer ends well.
 */
import { spawnSync } from "node:child_process"
import { mkdirSync, readFileSync, rmSync } from "node:fs"
import path from "node:path"
import { atLeast, exactly, showFigures } from "./figures.js"

type Report = { numPassedTests: number; numFailedTests: number; numPendingTests: number }

mkdirSync("test-results", { recursive: true })
const file = path.resolve("test-results/two-relays-tests.json")
rmSync(file, { force: true })
const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${file}`]
const files = ["test/end-to-end/two-relays.test.ts", "test/redis/two-relays.test.ts"]
const run = spawnSync("npx", ["vitest", "run", "--project", "node", ...reporters, ...files], {
  stdio: "inherit",
  env: { ...process.env, CI: "true" },
})
// The reporter's own format; figures that are not there miss their bounds.
const report = JSON.parse(readFileSync(file, "utf8")) as Report
showFigures("two-relays", [
  exactly("exit code of the tests", run.status ?? -1, 0),
  atLeast("tests passed", report.numPassedTests, 2),
  exactly("tests failed", report.numFailedTests, 0),
  exactly("tests left out", report.numPendingTests, 0),
])
