/**
 * What of the code under test was run, from V8's own precise block coverage of the compiled files. A
 * block is a function or a stretch of one that runs a different number of times than what is around it,
 * so after many inputs nearly every branch is a block of its own, and one that was never taken always is.
 */
import { readFileSync } from "node:fs"
import { Session, type Profiler } from "node:inspector/promises"
import path from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"

export interface FileCoverage {
  readonly file: string
  readonly functions: Share
  readonly blocks: Share
  readonly lines: Share
  /** Lines of the compiled file that no input reached, with their text. */
  readonly missed: readonly string[]
  /** Blocks that no input reached, by their first words. */
  readonly missedBlocks: readonly string[]
  /** The blocks inside each named function, closures in it included. */
  readonly inFunctions: readonly { readonly name: string; readonly blocks: Share }[]
}

export interface Share {
  readonly reached: number
  readonly all: number
}

export class Coverage {
  readonly #session: Session
  readonly #root: string

  /** `root` is the folder of compiled files. Call before any of them is loaded. */
  static async start(root: string): Promise<Coverage> {
    const session = new Session()
    session.connect()
    await session.post("Profiler.enable")
    await session.post("Profiler.startPreciseCoverage", { callCount: true, detailed: true })
    return new Coverage(session, pathToFileURL(path.resolve(root)).href + "/")
  }

  private constructor(session: Session, root: string) {
    this.#session = session
    this.#root = root
  }

  async #take(): Promise<readonly Profiler.ScriptCoverage[]> {
    const { result } = await this.#session.post("Profiler.takePreciseCoverage")
    return result.filter(({ url }) => url.startsWith(this.#root))
  }

  /**
   * How many blocks were entered since the last time. It starts counting anew, after which functions
   * that never ran are no longer told: not to be mixed with `finish`.
   */
  async takeWork(): Promise<number> {
    let work = 0
    for (const script of await this.#take()) {
      for (const { ranges } of script.functions) {
        for (const { count } of ranges) work += count
      }
    }
    return work
  }

  /** Since the start. */
  async finish(): Promise<FileCoverage[]> {
    const scripts = await this.#take()
    return scripts.map((script) => readScript(script, script.url.slice(this.#root.length)))
  }
}

function readScript(script: Profiler.ScriptCoverage, file: string): FileCoverage {
  const source = readFileSync(fileURLToPath(script.url), "utf8")
  // The first function is the file itself, which loading it runs.
  const own = script.functions.filter(({ ranges }) => (ranges[0]?.endOffset ?? 0) < source.length)
  const blocks = script.functions.flatMap(({ ranges }) => ranges)
  // Inner ranges come after the outer ones that hold them, so the last to paint is the innermost.
  const reached = new Uint8Array(source.length).fill(1)
  for (const { startOffset, endOffset, count } of blocks) {
    reached.fill(count > 0 ? 1 : 0, startOffset, endOffset)
  }
  const lines = codeLines(source).filter(({ from, to }) => !isMisuse(source.slice(from, to)))
  const missed = lines.filter(({ from, to }) => !reached.subarray(from, to).includes(1))
  const reachable = blocks.filter(
    ({ startOffset, endOffset }) =>
      !isMisuse(source.slice(startOffset, endOffset)) &&
      !isFallback(source.slice(startOffset, endOffset)),
  )
  return {
    file,
    functions: shareOf(own.map(({ ranges }) => ranges[0]?.count ?? 0)),
    blocks: shareOf(reachable.map(({ count }) => count)),
    lines: { reached: lines.length - missed.length, all: lines.length },
    missed: missed.map(({ number, from, to }) => `${number}: ${source.slice(from, to)}`),
    missedBlocks: reachable
      .filter(({ count }) => count === 0)
      .map(({ startOffset, endOffset }) => {
        const line = source.slice(0, startOffset).split("\n").length
        return `${line}: ${source.slice(startOffset, endOffset).trim().slice(0, 60)}`
      }),
    inFunctions: own
      .filter(({ functionName }) => functionName !== "")
      .map(({ functionName, ranges: [outer] }) => {
        const inside = reachable.filter(
          ({ startOffset, endOffset }) =>
            startOffset >= (outer?.startOffset ?? 0) && endOffset <= (outer?.endOffset ?? 0),
        )
        return { name: functionName, blocks: shareOf(inside.map(({ count }) => count)) }
      }),
  }
}

/**
 * A guard against the programmer, or a rethrow of what nobody foresaw: no input may reach it, and one
 * that did would be a finding, so it does not count as missed.
 */
function isMisuse(text: string): boolean {
  return /^[\s{]*throw (new (RangeError|TypeError)\(|error;)/.test(text)
}

/** `bytes[i] ?? 0` within the bounds: the compiler asks for the second half, and nothing can reach it. */
function isFallback(text: string): boolean {
  return /^\s*\?\? (0|"")$/.test(text)
}

function shareOf(counts: readonly number[]): Share {
  return { reached: counts.filter((count) => count > 0).length, all: counts.length }
}

interface Line {
  readonly number: number
  readonly from: number
  readonly to: number
}

/** Lines with something to run: no comments, no lone brackets. */
function codeLines(source: string): Line[] {
  let at = 0
  let inComment = false
  const lines: Line[] = []
  source.split("\n").forEach((text, index) => {
    const from = at + text.length - text.trimStart().length
    const to = at + text.trimEnd().length
    const trimmed = text.trim()
    at += text.length + 1
    if (inComment || trimmed.startsWith("/*")) inComment = !trimmed.includes("*/")
    else if (!trimmed.startsWith("//") && /[\w]/.test(trimmed))
      lines.push({ number: index + 1, from, to })
  })
  return lines
}

/** Of all the named functions of one file together; undefined when one of them is not there. */
export function shareIn(file: FileCoverage, names: readonly string[]): Share | undefined {
  const found = names.map((name) => file.inFunctions.find((one) => one.name === name)?.blocks)
  let [reached, all] = [0, 0]
  for (const share of found) {
    if (share === undefined) return undefined
    reached += share.reached
    all += share.all
  }
  return { reached, all }
}

export function percent({ reached, all }: Share): number {
  return all === 0 ? 100 : Math.floor((1000 * reached) / all) / 10
}
