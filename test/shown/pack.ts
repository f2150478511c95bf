/**
 * The package: packed twice to the same bytes, its size, and the tests that install it as somebody who is
 * not root, run what its pages say, carry out the Dockerfile's steps and hold the systemd unit.
 */
import { spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { atLeast, atMost, exactly, showFigures } from "./figures.js"

type Packed = { size: number; unpackedSize: number; entryCount: number; integrity: string }
type Report = { numPassedTests: number; numFailedTests: number; numPendingTests: number }

const work = mkdtempSync(path.join(tmpdir(), "knothole-pack-"))
try {
  const first = pack()
  const again = pack()
  mkdirSync("test-results", { recursive: true })
  const file = path.resolve("test-results/pack-tests.json")
  rmSync(file, { force: true })
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${file}`]
  spawnSync("npx", ["vitest", "run", "--project", "node", ...reporters, "test/packaging/"], {
    stdio: "inherit",
  })
  // The reporter's own format; figures that are not there miss their bounds.
  const report = JSON.parse(readFileSync(file, "utf8")) as Report
  showFigures(
    "pack",
    [
      exactly("packed twice", again.integrity === first.integrity ? "same" : "differs", "same"),
      atMost("the tarball, KiB", Math.ceil(first.size / 1024), 1024, "KiB"),
      atMost("files in it", first.entryCount, 500),
      atLeast("packaging tests passed", report.numPassedTests, 15),
      exactly("packaging tests failed", report.numFailedTests, 0),
      exactly("packaging tests left out", report.numPendingTests, 0),
    ],
    { first, again },
  )
} finally {
  rmSync(work, { recursive: true, force: true })
}

/** From a build of its own each time. */
function pack(): Packed {
  npm("run", "build")
  // npm's own output.
  const [packed] = JSON.parse(npm("pack", "--json", "--pack-destination", work)) as Packed[]
  if (packed === undefined) throw new Error("npm pack made nothing")
  return packed
}

function npm(...args: string[]): string {
  const run = spawnSync("npm", args, { encoding: "utf8" })
  if (run.status !== 0) throw new Error(`npm ${args.join(" ")}: ${run.stderr}`)
  return run.stdout
}
