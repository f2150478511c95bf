/**
 * Every parser under structure-aware fuzzing from one seed, for ten minutes unless told otherwise, with
 * the coverage reached; then the same fuzzer on copies with a planted bug each, which it must find.
 *
 *   npm run shown -- fuzz [MINUTES] [SEED]
 *   npm run shown -- fuzz replay SEED TARGET ITERATION
 */
import { type ChildProcess, fork } from "node:child_process"
import { once } from "node:events"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { fileURLToPath } from "node:url"
import { percent, shareIn } from "../fuzz/coverage.js"
import { createTargets, type Finding, runIteration } from "../fuzz/fuzzing.js"
import { plant, planted } from "../fuzz/planted.js"
import type { Progress, Report } from "../fuzz/program.js"
import { loadCompiled } from "../fuzz/subject.js"
import { atLeast, atMost, exactly, type Figure, showFigures } from "./figures.js"

const compiled = "dist"
const findingsFolder = "test-results/fuzz-findings"
/** No input takes a second on any machine we know; silence for this long is a hang. */
const mostSilentMs = 120_000
/** Every target gets 50 inputs a turn, so this is a few dozen turns. */
const mostExecutionsForPlanted = 200_000
/** Of blocks that input can reach; what is missed is named in the results. */
const leastBlocksPercent = 90
const leastLinesPercent = 95

/** Files whose business is to parse; others under test are in the results, without a bound. */
const parserFiles =
  "bytes json identity key-file header manifest paths envelope payload link records report messages refusals"
    .split(" ")
    .map((name) => `protocol/${name}.js`)
    .concat("server/config-file.js", "server/setting-kinds.js", "server/ids.js")
    .concat("server/http/finish-body.js")
    .concat("server/stores/delivery-records.js", "server/stores/maced-record.js")

/** Where parsing is one business among others: the functions that parse or verify. */
const parserFunctions: Readonly<Record<string, readonly string[]>> = {
  "server/config.js": ["loadConfig", "showConfig", "resolve", "resolveTls"],
  "server/stores/inbox-log.js": ["read", "parseLog", "foldLog"],
  "client/append-log.js": ["reopenLog", "wholeRecords"],
  "client/backup.js": ["backupInfo", "openBackup", "parseBackup", "parseHome"],
  "client/chain.js": ["#add", "end", "listed"],
  "client/contacts.js": ["readContacts", "parseContacts", "parseContact"],
  "client/inbox-cache.js": ["load", "#open"],
  "client/pins.js": ["checkPin", "readPin"],
  "client/program/quantities.js": ["parseDuration", "parseIdentityName"],
  "client/program/recipients.js": ["parseRecipientsFile", "parseRelay"],
  "client/program/settings.js": ["readConfig", "readJsonFile", "textField"],
  "client/receive-journal.js": [
    "reopenReceiveJournal",
    "replay",
    "parseFailed",
    "parseFormerFailed",
    "parseNames",
  ],
  "client/sent.js": ["listSent", "readSent", "parseStored"],
  "client/upload-journal.js": ["reopenUploadJournal", "replay", "parseEntries", "parseStarted"],
}

interface Outcome {
  readonly report: Report | undefined
  /** Set when the process did not come to its end. */
  readonly failure: string | undefined
}

async function runFuzzer(options: {
  readonly compiled: string
  readonly seed: string
  readonly limit: readonly string[]
}): Promise<Outcome> {
  const folder = mkdtempSync(path.join(tmpdir(), "knothole-fuzz-"))
  const reportFile = path.join(folder, "report.json")
  const program = fileURLToPath(new URL("../fuzz/program.js", import.meta.url))
  const child = fork(program, [
    "--compiled",
    options.compiled,
    "--seed",
    options.seed,
    "--report",
    reportFile,
    ...options.limit,
  ])
  try {
    const failure = await watch(child)
    if (failure !== undefined) return { report: undefined, failure }
    // Written by our own program a moment ago.
    return { report: JSON.parse(readFileSync(reportFile, "utf8")) as Report, failure: undefined }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

async function watch(child: ChildProcess): Promise<string | undefined> {
  let at: Progress = { target: "making the targets", iteration: 0 }
  let heardMs = performance.now()
  let hung = false
  child.on("message", (message) => {
    // Only our own program speaks on this channel.
    at = message as Progress
    heardMs = performance.now()
  })
  const timer = setInterval(() => {
    if (performance.now() - heardMs < mostSilentMs) return
    hung = true
    child.kill("SIGKILL")
  }, 1000)
  const [code] = (await once(child, "exit")) as [number | null]
  clearInterval(timer)
  if (hung) return `hung in "${at.target}" at or after iteration ${at.iteration}`
  return code === 0
    ? undefined
    : `ended with ${code} in "${at.target}" from iteration ${at.iteration}`
}

function tell(finding: Finding): void {
  const { seed, target, iteration, problem, input } = finding
  console.log(
    `\nFOUND  seed ${seed}, target "${target}", iteration ${iteration}\n${problem}\n${input}`,
  )
}

function keep(finding: Finding): void {
  const { seed, target, iteration } = finding
  mkdirSync(findingsFolder, { recursive: true })
  const name = `${seed}-${target}-${iteration}`.replace(/[^\w-]+/g, "_")
  writeFileSync(path.join(findingsFolder, `${name}.json`), `${JSON.stringify(finding, null, 2)}\n`)
}

async function replay(seed: string, name: string, iteration: number): Promise<void> {
  const targets = await createTargets(await loadCompiled(compiled))
  const target = targets.find((one) => one.name === name)
  if (target === undefined) {
    console.error(`targets:\n${targets.map((one) => `  ${one.name}`).join("\n")}`)
    process.exit(2)
  }
  const ran = await runIteration(target, seed, iteration)
  if (ran.finding) {
    tell(ran.finding)
    process.exitCode = 1
  } else console.log(`${ran.verdict}, ${ran.allocated.bytes} bytes allocated`)
}

async function show(minutes: string, seed: string): Promise<void> {
  const { report, failure } = await runFuzzer({ compiled, seed, limit: ["--minutes", minutes] })
  const findings = report?.findings ?? []
  for (const finding of findings) {
    tell(finding)
    keep(finding)
  }
  const coverage = new Map(report?.coverage.map((file) => [file.file, file]))
  const figures: Figure[] = [
    exactly("the fuzzer came to its end", failure ?? "yes", "yes"),
    atLeast("targets", report?.tallies.length ?? 0, 1),
    atLeast("inputs run", report?.executions ?? 0, Number(minutes) * 60_000),
    exactly("findings", findings.length, 0),
    exactly(
      "targets that accepted nothing or refused nothing",
      report?.tallies.filter(({ accepted, refused }) => accepted === 0 || refused === 0).length ??
        -1,
      0,
    ),
    exactly(
      "targets with work beyond what their input's length allows",
      report?.work.filter(({ blocks, allowed }) => blocks > allowed).length ?? -1,
      0,
    ),
    ...parserFiles.flatMap((file): Figure[] => {
      const covered = coverage.get(file)
      if (covered === undefined) return [exactly(`${file}: loaded`, "no", "yes")]
      const functions = `${covered.functions.reached} of ${covered.functions.all} functions`
      return [
        atLeast(
          `${file}: blocks reached, % (${functions})`,
          percent(covered.blocks),
          leastBlocksPercent,
        ),
        atLeast(`${file}: lines reached, %`, percent(covered.lines), leastLinesPercent),
      ]
    }),
  ]
  for (const [file, names] of Object.entries(parserFunctions)) {
    const covered = coverage.get(file)
    const share = covered && shareIn(covered, names)
    const what = `${file}: blocks reached of ${names.join(", ")}, %`
    figures.push(
      share
        ? atLeast(what, percent(share), leastBlocksPercent)
        : exactly(what, "not there", "there"),
    )
  }
  const plants = []
  for (const bug of planted) {
    const copy = plant(compiled, bug)
    try {
      const found = await runFuzzer({
        compiled: copy.compiled,
        seed,
        limit: ["--executions", String(mostExecutionsForPlanted), "--stop-at-finding"],
      })
      const [first] = found.report?.findings ?? []
      figures.push(
        exactly(
          `planted: ${bug.what}: found by`,
          first?.target ?? found.failure ?? "nothing",
          first?.target ?? "a target",
        ),
        atMost(
          `planted: ${bug.what}: inputs until then`,
          first ? (found.report?.executions ?? Number.NaN) : Number.POSITIVE_INFINITY,
          mostExecutionsForPlanted,
        ),
      )
      plants.push({ ...bug, first })
    } finally {
      rmSync(copy.folder, { recursive: true, force: true })
    }
  }
  showFigures("fuzz", figures, {
    seed,
    minutes: Number(minutes),
    tallies: report?.tallies,
    work: report?.work,
    coverage: report?.coverage,
    plants,
  })
}

const [first = "10", second = "1", third = "", fourth = ""] = process.argv.slice(2)
if (first === "replay") await replay(second, third, Number(fourth))
else await show(first, second)
