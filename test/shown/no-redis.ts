/**
 * The test command where there is no redis-server: with CI set it fails and names what is missing, and
 * without CI it says what it left out. Only the files that ask for Redis are run; all others do not.
 */
import { spawnSync } from "node:child_process"
import { mkdtempSync, readdirSync, rmSync, symlinkSync } from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { atLeast, exactly, showFigures } from "./figures.js"

/** Everything that is on PATH, but for Redis. */
const programs = mkdtempSync(path.join(tmpdir(), "knothole-no-redis-"))
try {
  for (const folder of (process.env["PATH"] ?? "").split(path.delimiter).toReversed()) {
    for (const name of namesIn(folder)) {
      if (name.startsWith("redis-")) continue
      rmSync(path.join(programs, name), { force: true })
      symlinkSync(path.join(folder, name), path.join(programs, name))
    }
  }
  const asked = ["test/redis", "test/contracts/redis-index.test.ts", "test/model/model.test.ts"]
  const run = (ci: boolean) => {
    const { CI: _, ...others } = process.env
    const env = { ...others, PATH: programs, ...(ci && { CI: "true" }) }
    const { status, stdout, stderr } = spawnSync("npm", ["test", "--", ...asked], {
      env,
      encoding: "utf8",
      maxBuffer: 1024 ** 3,
    })
    return { status, said: `${stdout}${stderr}` }
  }
  const [inCi, byHand] = [run(true), run(false)]
  const named = /redis-server \(package redis-server\) is not installed, and CI needs it/g
  showFigures("no-redis", [
    exactly("exit code with CI=true", inCi.status ?? -1, 1),
    atLeast("times it names redis-server", inCi.said.match(named)?.length ?? 0, 1),
    exactly("exit code without CI", byHand.status ?? -1, 0),
    atLeast("lines that say what is left out", byHand.said.match(/left out: /g)?.length ?? 0, 1),
  ])
} finally {
  rmSync(programs, { recursive: true })
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    // PATH may name what is not there.
    return []
  }
}
