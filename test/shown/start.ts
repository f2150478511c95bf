/**
 * How long `knothole` takes to its first output, and whether the help of every command, and of every
 * command below it, fits one screen of 80 columns.
 */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { mustRun, personEnv, program } from "../../bench/processes.js"
import { atMost, showFigures } from "./figures.js"

const rounds = 10
const boundMs = 300
const screen = { lines: 40, columns: 80 }

const home = mkdtempSync(path.join(tmpdir(), "knothole-start-"))
const env = personEnv(home)
try {
  const starts = [["--help"], ["--version"], ["inbox"], ["relay", "--help"]]
  const measured: { args: readonly string[]; ms: number[] }[] = []
  for (const args of starts) {
    const ms: number[] = []
    for (let round = 0; round < rounds; round++) ms.push(await firstOutputMs(args))
    measured.push({ args, ms: ms.sort((a, b) => a - b) })
  }
  // The relay takes its flags from a table of its own and lists no commands.
  const ofTheRelay = [
    ["relay", "status"],
    ["relay", "clock-ok"],
    ["relay", "restored"],
  ]
  const helps = (await Promise.all([[], ...ofTheRelay].map(helpOfAll))).flat()
  const tallest = helps.reduce((a, b) => (b.lines > a.lines ? b : a))
  const widest = helps.reduce((a, b) => (b.columns > a.columns ? b : a))
  showFigures(
    "start",
    [
      ...measured.map(({ args, ms }) =>
        atMost(
          `knothole ${args.join(" ")}: ms to the first output (median of ${rounds})`,
          Math.round(((ms[rounds / 2 - 1] ?? Number.NaN) + (ms[rounds / 2] ?? Number.NaN)) / 2),
          boundMs,
          "ms",
        ),
      ),
      atMost(
        `lines of the longest help of ${helps.length}, ${tallest.name}`,
        tallest.lines,
        screen.lines,
      ),
      atMost(`columns of the widest help, ${widest.name}`, widest.columns, screen.columns),
    ],
    { measured, helps },
  )
} finally {
  rmSync(home, { recursive: true, force: true })
}

async function firstOutputMs(args: readonly string[]): Promise<number> {
  const started = performance.now()
  const child = spawn(process.execPath, [program, ...args], {
    env,
    stdio: ["ignore", "pipe", "pipe"],
  })
  const ended = once(child, "close")
  await Promise.race([once(child.stdout, "data"), once(child.stderr, "data")])
  const ms = performance.now() - started
  await ended
  return ms
}

interface Help {
  readonly name: string
  readonly lines: number
  readonly columns: number
}

/** Of the command named by these words and of all that its help lists. */
async function helpOfAll(words: readonly string[]): Promise<Help[]> {
  const { stdout } = await mustRun(process.execPath, [program, ...words, "--help"], { env })
  const lines = stdout.trimEnd().split("\n")
  const help = {
    name: ["knothole", ...words].join(" "),
    lines: lines.length,
    columns: Math.max(...lines.map((line) => line.length)),
  }
  const from = lines.indexOf("Commands:") + 1
  const listed = from === 0 ? [] : lines.slice(from, endOfBlock(lines, from))
  // What continues a meaning stands further in than a name does.
  const below = listed.flatMap((line) => /^ {2}([a-z][a-z-]*)/.exec(line)?.[1] ?? [])
  const all: Help[] = [help]
  for (const name of below) if (name !== "help") all.push(...(await helpOfAll([...words, name])))
  return all
}

function endOfBlock(lines: readonly string[], from: number): number {
  const end = lines.indexOf("", from)
  return end === -1 ? lines.length : end
}
