/**
 * What the fault runs add up over many sittings: counters by name, the seeds that are used up, and each
 * violation with the command that replays it. Every run keeps a file of its own under
 * `test-results/faults/` and replaces it whole, so that a run that is killed, or another one beside it,
 * loses nothing that was counted before.
 */
import { execFileSync } from "node:child_process"
import { randomUUID } from "node:crypto"
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeSync,
} from "node:fs"
import path from "node:path"

/** A promise that was broken. */
export interface Violation {
  /** Which kind of run found it. */
  readonly kind: string
  readonly seed: number
  /** Where in the run. */
  readonly step: string
  readonly problem: string
  /** The command that shows it again. */
  readonly replay: string
}

interface Run {
  /** What was checked out, with "+" where files were changed since. */
  readonly commit: string
  readonly started: string
  readonly counters: Record<string, number>
  /** For each kind, seeds below this are used up by this run or one before it. */
  readonly nextSeeds: Record<string, number>
  readonly violations: Violation[]
}

export class FaultReport {
  readonly #file: string
  readonly #before: readonly Run[]
  readonly #run: Run

  constructor(folder: string = path.resolve("test-results/faults")) {
    mkdirSync(folder, { recursive: true })
    this.#before = readdirSync(folder)
      .filter((name) => name.endsWith(".json"))
      // Written by this class.
      .map((name) => JSON.parse(readFileSync(path.join(folder, name), "utf8")) as Run)
    this.#run = {
      commit: commitAtWork(),
      started: new Date().toISOString(),
      counters: {},
      nextSeeds: {},
      violations: [],
    }
    const time = this.#run.started.replaceAll(/[^0-9]/g, "")
    this.#file = path.join(folder, `${time}-${randomUUID().slice(0, 8)}.json`)
  }

  /** Counts in this run; kept by the next `save`. */
  count(name: string, times: number = 1): void {
    this.#run.counters[name] = (this.#run.counters[name] ?? 0) + times
  }

  /** A seed that no run of this kind had before. */
  takeSeed(kind: string): number {
    const seed = Math.max(1, ...this.#all().map(({ nextSeeds }) => nextSeeds[kind] ?? 1))
    this.#run.nextSeeds[kind] = seed + 1
    return seed
  }

  /** Kept at once. */
  violation(violation: Violation): void {
    this.#run.violations.push(violation)
    this.save()
  }

  /** Over all runs. */
  total(name: string): number {
    return this.#all().reduce((sum, { counters }) => sum + (counters[name] ?? 0), 0)
  }

  /** Every counter over all runs, by name. */
  totals(): Record<string, number> {
    const names = new Set(this.#all().flatMap(({ counters }) => Object.keys(counters)))
    return Object.fromEntries([...names].toSorted().map((name) => [name, this.total(name)]))
  }

  /** Of all runs. */
  violations(): readonly Violation[] {
    return this.#all().flatMap(({ violations }) => violations)
  }

  /** Of all runs, without repetition. */
  commits(): readonly string[] {
    return [...new Set(this.#all().map(({ commit }) => commit))]
  }

  save(): void {
    const fresh = `${this.#file}.new`
    const handle = openSync(fresh, "w")
    writeSync(handle, `${JSON.stringify(this.#run, null, 2)}\n`)
    fsyncSync(handle)
    closeSync(handle)
    renameSync(fresh, this.#file)
  }

  #all(): readonly Run[] {
    return [...this.#before, this.#run]
  }
}

function commitAtWork(): string {
  try {
    const changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "--short=12", "HEAD") + (changed === "" ? "" : "+")
  } catch {
    return "unknown"
  }
}

function git(...args: readonly string[]): string {
  return execFileSync("git", args, { encoding: "utf8" }).trim()
}
