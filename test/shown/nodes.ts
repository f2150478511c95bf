/**
 * The tests on other versions of Node, as far as the npm registry has packages that ship it: the oldest
 * that is promised, and the newest of each later line with long support. The built program, the library
 * and the protocol are what differs between versions, so those tests are run; what looks at the disk's
 * system calls, packs or measures is left to the version that is installed. `nodes 22` runs one line.
 */
import { spawnSync } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { atLeast, exactly, type Figure, showFigures } from "./figures.js"

const wanted: Readonly<Record<string, string>> = { "20": "20.19.0", "22": "^22", "24": "^24" }
const folders = ["protocol", "client", "server", "contracts", "program", "end-to-end", "hostile"]

type Report = { numPassedTests: number; numFailedTests: number; numPendingTests: number }

const lines = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(wanted)
const work = mkdtempSync(path.join(tmpdir(), "knothole-nodes-"))
const figures: Figure[] = []
const details: Record<string, unknown> = {}
try {
  for (const line of lines) {
    const node = fetchNode(line)
    if (node === undefined) {
      figures.push(exactly(`Node ${line} from the registry`, "not had", "had"))
      continue
    }
    const version = spawnSync(node, ["--version"], { encoding: "utf8" }).stdout.trim()
    const report = runTests(node, line)
    details[version] = report
    figures.push(
      exactly(`Node ${version}: tests failed`, report.numFailedTests, 0),
      atLeast(`Node ${version}: tests passed`, report.numPassedTests, 500),
    )
  }
} finally {
  rmSync(work, { recursive: true, force: true })
}
showFigures("nodes", figures, { folders, reports: details })

/** The program, out of the package that ships it for this platform; undefined where there is none. */
function fetchNode(line: string): string | undefined {
  const name = `node-${process.platform}-${process.arch}@${wanted[line] ?? line}`
  const folder = path.join(work, line)
  mkdirSync(folder)
  const pack = spawnSync("npm", ["pack", "--silent", "--pack-destination", folder, name], {
    encoding: "utf8",
  })
  const file = pack.stdout.trim().split("\n").at(-1) ?? ""
  if (pack.status !== 0 || file === "") {
    console.warn(`not had: ${name}: ${pack.stderr.trim().split("\n")[0] ?? ""}`)
    return undefined
  }
  const untar = spawnSync("tar", [
    "-xzf",
    path.join(folder, file),
    "-C",
    folder,
    "package/bin/node",
  ])
  const node = path.join(folder, "package/bin/node")
  return untar.status === 0 && existsSync(node) ? node : undefined
}

function runTests(node: string, line: string): Report {
  const report = path.resolve(`test-results/nodes-${line}.json`)
  mkdirSync("test-results", { recursive: true })
  rmSync(report, { force: true })
  const vitest = path.resolve("node_modules/vitest/vitest.mjs")
  const filters = folders.map((folder) => `test/${folder}/`)
  const reporters = ["--reporter=dot", "--reporter=json", `--outputFile.json=${report}`]
  spawnSync(node, [vitest, "run", "--project", "node", ...reporters, ...filters], {
    stdio: "inherit",
    // What the tests start by name is this Node as well.
    env: { ...process.env, PATH: `${path.dirname(node)}:${process.env["PATH"] ?? ""}` },
  })
  // The reporter's own format; figures that are not there miss their bounds.
  return JSON.parse(readFileSync(report, "utf8")) as Report
}
