/**
 * The demo on a real folder: builds a tree of at least 20,000 files and 1 GiB out of files that this
 * machine really has (or takes the folder named), then runs `npm run demo -- DIR` with an empty HOME.
 */
import { spawnSync } from "node:child_process"
import { copyFileSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { atLeast, exactly, showFigures } from "./figures.js"

const wantedFiles = 20_000
const wantedBytes = 2 ** 30

function* regularFiles(folder: string): Generator<{ file: string; size: number }> {
  for (const item of readdirSync(folder, { withFileTypes: true })) {
    const file = path.join(folder, item.name)
    if (item.isDirectory()) yield* regularFiles(file)
    else if (item.isFile()) yield { file, size: lstatSync(file).size }
  }
}

const work = mkdtempSync(path.join(tmpdir(), "knothole-shown-demo-"))
try {
  const named = process.argv[2]
  const source = named ?? path.join(work, "tree")
  let files = 0
  let bytes = 0
  if (named === undefined) {
    // Several copies, because a small machine may not hold 1 GiB of distinct files we may read.
    for (let copy = 0; files < wantedFiles || bytes < wantedBytes; copy++) {
      for (const { file, size } of regularFiles(process.cwd())) {
        if (files >= wantedFiles && bytes >= wantedBytes) break
        if (file.includes(`${path.sep}.git${path.sep}`) || file.includes("test-results")) continue
        const target = path.join(source, `copy${copy}`, path.relative(process.cwd(), file))
        mkdirSync(path.dirname(target), { recursive: true })
        copyFileSync(file, target)
        files += 1
        bytes += size
      }
    }
  } else {
    for (const { size } of regularFiles(source)) {
      files += 1
      bytes += size
    }
  }
  const home = path.join(work, "home")
  mkdirSync(home)
  const started = Date.now()
  const run = spawnSync("npm", ["run", "demo", "--", source], {
    stdio: "inherit",
    env: { ...process.env, HOME: home, XDG_CONFIG_HOME: "", XDG_DATA_HOME: "", XDG_STATE_HOME: "" },
  })
  showFigures(
    "demo",
    [
      exactly("exit code of npm run demo -- DIR", run.status ?? -1, 0),
      atLeast("files carried", files, wantedFiles),
      atLeast("bytes carried", bytes, wantedBytes),
    ],
    { seconds: (Date.now() - started) / 1000 },
  )
} finally {
  rmSync(work, { recursive: true, force: true })
}
