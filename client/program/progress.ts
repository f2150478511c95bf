// What a person sees while they wait: one line that is redrawn on a terminal, a line every few seconds elsewhere.
import cliProgress from "cli-progress"
import type { ProgressEvent } from "../index.js"
import { showCount, showDuration, showSize, showText, shorten } from "./display.js"

const linesEveryMs = 3000
const framesPerSecond = 8
const widestBar = 30
const loggedLineWidth = 200
// Long enough that one slow request does not make the rate jump, short enough to notice a change.
const rateWindowMs = 10_000
const sampleEveryMs = 250

/** How far a transfer is. Bytes that were at the other side before this run count for the bar, not for the rate. */
export class TransferState {
  #phase = ""
  #bytes: { done: number; total: number | undefined; alreadyThere: number } | undefined
  #count: { done: number; total: number | undefined } | undefined
  #samples: { timeMs: number; moved: number }[] = []
  /** Why nothing moves, until something does again. */
  #trouble: string | undefined

  take(event: ProgressEvent, nowMs: number): void {
    switch (event.kind) {
      case "phase":
        if (event.phase === this.#phase) break
        this.#phase = event.phase
        // What was counted belongs to the phase that is over.
        this.#bytes = undefined
        this.#count = undefined
        this.#samples = []
        this.#trouble = undefined
        break
      case "bytes":
        if (event.done !== this.#bytes?.done) this.#trouble = undefined
        this.#bytes = event
        this.#sample(event.done - event.alreadyThere, nowMs)
        break
      case "count":
        this.#count = event
        break
      case "retry":
        this.#trouble = event.reason
        break
      case "notice":
        break
    }
  }

  #sample(moved: number, nowMs: number): void {
    const last = this.#samples.at(-1)
    if (last !== undefined && nowMs - last.timeMs < sampleEveryMs) return
    this.#samples.push({ timeMs: nowMs, moved })
  }

  /** Bytes a second over the last seconds; undefined until two moments are known. */
  rate(nowMs: number): number | undefined {
    const last = this.#samples.at(-1)
    if (last === undefined || this.#bytes === undefined) return undefined
    this.#samples = this.#samples.filter(({ timeMs }) => nowMs - timeMs <= rateWindowMs)
    const first = this.#samples[0] ?? last
    const moved = this.#bytes.done - this.#bytes.alreadyThere - first.moved
    const passedMs = nowMs - first.timeMs
    return passedMs < sampleEveryMs ? undefined : (moved / passedMs) * 1000
  }

  /** The line, at most `width` characters; `drawBar` makes the bar of a share between 0 and 1. */
  describe(options: {
    nowMs: number
    width: number
    drawBar?: (share: number, size: number) => string
  }): string {
    const before = this.#phase
    const trouble = this.#trouble === undefined ? "" : `${showText(this.#trouble)}, trying again`
    if (this.#bytes === undefined) {
      const counted = this.#count === undefined ? "…" : ` ${showProgressCount(this.#count)}`
      return shorten([`${before} ${counted}`, trouble].join("  ").trimEnd(), options.width)
    }
    const { done, total } = this.#bytes
    const share = total === undefined ? undefined : total === 0 ? 1 : Math.min(1, done / total)
    const rate = this.rate(options.nowMs)
    const after = [
      ...(share === undefined ? [] : [`${String(Math.floor(share * 100)).padStart(3)} %`]),
      total === undefined ? showSize(done) : `${showSize(done)} / ${showSize(total)}`,
      ...(trouble !== "" ? [trouble] : paceOf({ rate, left: (total ?? done) - done })),
    ].join("  ")
    const room = Math.min(widestBar, options.width - before.length - after.length - 6)
    const bar =
      share === undefined || options.drawBar === undefined || room < 5
        ? ""
        : `[${options.drawBar(share, room)}]  `
    return shorten(`${before}  ${bar}${after}`, options.width)
  }
}

function paceOf({ rate, left }: { rate: number | undefined; left: number }): string[] {
  if (rate === undefined) return []
  const speed = `${showSize(rate)}/s`
  return rate <= 0 || left <= 0 ? [speed] : [speed, `${showDuration((left / rate) * 1000)} left`]
}

function showProgressCount({ done, total }: { done: number; total: number | undefined }): string {
  return total === undefined
    ? showCount(done, "so far", "so far")
    : `${done.toLocaleString("en-US")} of ${total.toLocaleString("en-US")}`
}

export interface ProgressLine {
  readonly take: (event: ProgressEvent) => void
  /** Runs `write`, which prints whole lines, with the progress line out of its way. */
  readonly above: (write: () => void) => void
  /** Nothing goes on until the next event: no line stands meanwhile. */
  readonly rest: () => void
  /** Takes the line away. */
  readonly stop: () => void
}

export function startProgressLine(stream: NodeJS.WriteStream): ProgressLine {
  return stream.isTTY ? startRedrawnLine(stream) : startLoggedLines(stream)
}

function startRedrawnLine(stream: NodeJS.WriteStream): ProgressLine {
  const state = new TransferState()
  const bar = new cliProgress.SingleBar({
    stream,
    fps: framesPerSecond,
    clearOnComplete: true,
    // The terminal's own wrapping is left alone: a killed process could not put it back.
    linewrap: true,
    format: (options, params) =>
      state.describe({
        nowMs: Date.now(),
        // A ^C that the terminal echoes behind the line shall not wrap and scroll it away.
        width: params.maxWidth - 4,
        drawBar: (share, size) =>
          cliProgress.Format.BarFormat(share, { ...options, barsize: size }),
      }),
  })
  let drawn = false
  const draw = () => {
    drawn = true
    // The bar keeps time and place only; what it shows is all in `state`.
    bar.start(1, 0)
  }
  const stop = () => {
    if (drawn) bar.stop()
    drawn = false
  }
  return {
    take: (event) => {
      state.take(event, Date.now())
      if (!drawn) draw()
    },
    above: (write) => {
      const again = drawn
      stop()
      write()
      if (again) draw()
    },
    rest: stop,
    stop,
  }
}

/** Work that is over in a moment leaves no line at all. */
function startLoggedLines(stream: NodeJS.WriteStream): ProgressLine {
  const state = new TransferState()
  let hasNews = false
  const timer = setInterval(() => {
    if (!hasNews) return
    hasNews = false
    stream.write(`${state.describe({ nowMs: Date.now(), width: loggedLineWidth })}\n`)
  }, linesEveryMs)
  return {
    take: (event) => {
      state.take(event, Date.now())
      hasNews = true
    },
    above: (write) => write(),
    rest: () => (hasNews = false),
    stop: () => clearInterval(timer),
  }
}
