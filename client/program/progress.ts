// What a person sees while they wait: one line that is redrawn on a terminal, a line every few seconds elsewhere.
import cliProgress from "cli-progress"
import type { ProgressEvent } from "../index.js"
import { showCount, showDuration, showSize, shorten } from "./display.js"

const linesEveryMs = 3000
const framesPerSecond = 8
const widestBar = 30
// Long enough that one slow request does not make the rate jump, short enough to notice a change.
const rateWindowMs = 10_000
const sampleEveryMs = 250

/** How far a transfer is. Bytes that were at the other side before this run count for the bar, not for the rate. */
export class TransferState {
  #phase = ""
  #bytes: { done: number; total: number | undefined; alreadyThere: number } | undefined
  #count: { done: number; total: number | undefined } | undefined
  #samples: { timeMs: number; moved: number }[] = []

  take(event: ProgressEvent, nowMs: number): void {
    switch (event.kind) {
      case "phase":
        if (event.phase === this.#phase) break
        this.#phase = event.phase
        // What was counted belongs to the phase that is over.
        this.#bytes = undefined
        this.#count = undefined
        this.#samples = []
        break
      case "bytes":
        this.#bytes = event
        this.#sample(event.done - event.alreadyThere, nowMs)
        break
      case "count":
        this.#count = event
        break
      case "notice":
      case "retry":
        break
    }
  }

  #sample(moved: number, nowMs: number): void {
    const last = this.#samples.at(-1)
    if (last !== undefined && nowMs - last.timeMs < sampleEveryMs) return
    this.#samples.push({ timeMs: nowMs, moved })
    while (nowMs - (this.#samples[0]?.timeMs ?? nowMs) > rateWindowMs) this.#samples.shift()
  }

  /** Bytes a second over the last seconds; undefined until two moments are known. */
  rate(nowMs: number): number | undefined {
    const first = this.#samples[0]
    if (first === undefined || this.#bytes === undefined) return undefined
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
    if (this.#bytes === undefined) {
      return shorten(
        this.#count === undefined ? `${before} …` : `${before}  ${this.#counted()}`,
        options.width,
      )
    }
    const { done, total } = this.#bytes
    const share = total === undefined ? undefined : total === 0 ? 1 : Math.min(1, done / total)
    const rate = this.rate(options.nowMs)
    const after = [
      ...(share === undefined ? [] : [`${String(Math.floor(share * 100)).padStart(3)} %`]),
      total === undefined ? showSize(done) : `${showSize(done)} / ${showSize(total)}`,
      ...(rate === undefined ? [] : [`${showSize(rate)}/s`]),
      ...(rate === undefined || total === undefined || rate <= 0 || done >= total
        ? []
        : [`${showDuration(((total - done) / rate) * 1000)} left`]),
    ].join("  ")
    const room = Math.min(widestBar, options.width - before.length - after.length - 6)
    const bar =
      share === undefined || options.drawBar === undefined || room < 5
        ? ""
        : `[${options.drawBar(share, room)}]  `
    return shorten(`${before}  ${bar}${after}`, options.width)
  }

  #counted(): string {
    if (this.#count === undefined) return ""
    const { done, total } = this.#count
    return total === undefined
      ? showCount(done, "so far", "so far")
      : `${done.toLocaleString("en-US")} of ${total.toLocaleString("en-US")}`
  }
}

export interface ProgressLine {
  readonly take: (event: ProgressEvent) => void
  /** Runs `write`, which prints whole lines, with the progress line out of its way. */
  readonly above: (write: () => void) => void
  /** Takes the line away. */
  readonly stop: () => void
}

export function startProgressLine(stream: NodeJS.WriteStream): ProgressLine {
  const state = new TransferState()
  const bar = new cliProgress.SingleBar({
    stream,
    fps: framesPerSecond,
    noTTYOutput: true,
    notTTYSchedule: linesEveryMs,
    clearOnComplete: true,
    // The terminal's own wrapping is left alone: a killed process could not put it back.
    linewrap: true,
    format: (options, params) =>
      state.describe({
        nowMs: Date.now(),
        width: params.maxWidth - 1,
        ...(stream.isTTY && {
          drawBar: (share: number, size: number) =>
            cliProgress.Format.BarFormat(share, { ...options, barsize: size }),
        }),
      }),
  })
  let drawn = false
  let waiting: NodeJS.Timeout | undefined
  const draw = () => {
    waiting = undefined
    drawn = true
    bar.start(1, 0)
  }
  const erase = () => {
    if (drawn) bar.stop()
    drawn = false
  }
  const take = (event: ProgressEvent) => {
    state.take(event, Date.now())
    if (drawn || waiting !== undefined) return
    // In a log, work that is over in a moment needs no line at all.
    if (stream.isTTY) draw()
    else waiting = setTimeout(draw, linesEveryMs)
  }
  return {
    take,
    above: (write) => {
      // In a log the lines stand one below the other anyway.
      const again = drawn && stream.isTTY
      if (again) erase()
      write()
      if (again) draw()
    },
    stop: () => {
      clearTimeout(waiting)
      waiting = undefined
      erase()
    },
  }
}
