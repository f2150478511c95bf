// Who reads what: results go to stdout, everything a person reads on the way to stderr. With `--json`
// stdout carries one event a line instead, each with its version, and the last one says how it ended.
import { styleText } from "node:util"
import type { ProgressEvent } from "../index.js"
import { showJson, showLines, showText } from "./display.js"
import type { ProgressLine } from "./progress.js"
import type { Environment } from "./settings.js"

export interface OutputMode {
  readonly json: boolean
  readonly quiet: boolean
}

export interface Ending {
  readonly exit: number
  /** Only of something that went wrong. */
  readonly error?: { readonly code: string; readonly message: string; readonly remedy?: string }
}

const jsonProgressEveryMs = 1000
const retryEveryMs = 30_000

export class Output {
  readonly mode: OutputMode
  readonly #stdout: NodeJS.WriteStream
  readonly #stderr: NodeJS.WriteStream
  readonly #env: Environment
  readonly #isList: boolean
  #line: ProgressLine | undefined
  #lastBytesEventMs = 0
  #retry: { readonly reason: string; readonly saidMs: number } = { reason: "", saidMs: 0 }

  constructor(options: {
    mode: OutputMode
    stdout: NodeJS.WriteStream
    stderr: NodeJS.WriteStream
    env: Environment
    /** With `--json` a list is one array and nothing beside it: its ending is the exit code. */
    isList: boolean
  }) {
    this.mode = options.mode
    this.#stdout = options.stdout
    this.#stderr = options.stderr
    this.#env = options.env
    this.#isList = options.isList
  }

  /** Makes the progress of `work` visible while it runs; loads the drawing code only where it is wanted. */
  async withProgress<T>(
    work: (onProgress: (event: ProgressEvent) => void) => Promise<T>,
  ): Promise<T> {
    if (!this.mode.json && !this.mode.quiet) {
      const { startProgressLine } = await import("./progress.js")
      this.#line = startProgressLine(this.#stderr)
    }
    try {
      return await work((event) => this.#progress(event))
    } finally {
      this.stopProgress()
    }
  }

  restProgress(): void {
    this.#line?.rest()
  }

  stopProgress(): void {
    this.#line?.stop()
    this.#line = undefined
  }

  /** One line of the result. `text` must be safe to show. */
  result(text: string): void {
    if (this.mode.json) return
    this.#above(() => this.#stdout.write(`${text}\n`))
  }

  /** One event for programs. */
  event(name: string, fields: object): void {
    if (!this.mode.json || this.#isList) return
    this.#stdout.write(`${showJson({ v: 1, event: name, ...fields })}\n`)
  }

  /** With `--json` all there is to say: one array, or the object that was asked about. */
  list(rows: object): void {
    if (this.mode.json) this.#stdout.write(`${showJson(rows)}\n`)
  }

  /** What a person may want to know. */
  say(text: string): void {
    if (!this.mode.json && !this.mode.quiet) this.#print(showLines(text))
  }

  /** A drawing that was asked for. Its lines are the program's own, escapes among them. */
  drawing(draw: (options: { readonly coloured: boolean }) => string): void {
    if (!this.mode.json) this.#print(draw({ coloured: this.#coloured }))
  }

  /** What a person may want to know beside the result, and a program as well. */
  note(text: string): void {
    if (this.mode.json || !this.mode.quiet) this.warn(text)
  }

  /** What a person should know even when they asked for quiet. */
  warn(text: string): void {
    if (this.mode.json && !this.#isList) this.event("notice", { text })
    else this.#print(`${this.#bold("note:")} ${showLines(text)}`)
  }

  /** A delivery that was passed over, and stays at the relay. */
  left(id: string, reason: string, { text, size }: { text: string; size?: number }): void {
    if (this.mode.json) this.event("left", { id, reason, ...(size !== undefined && { size }) })
    else this.warn(text)
  }

  end(ending: Ending): void {
    this.stopProgress()
    if (ending.error !== undefined) {
      const { message, remedy } = ending.error
      const text = remedy === undefined ? message : `${message}\n${remedy}`
      this.#print(`${this.#red("knothole:")} ${showLines(text)}`)
    }
    this.event("done", {
      ok: ending.exit === 0,
      exit: ending.exit,
      ...(ending.error && { error: ending.error }),
    })
  }

  #progress(event: ProgressEvent): void {
    if (this.mode.json) {
      this.#progressEvent(event)
      return
    }
    // The library's notices are one line each, and quote names as they are.
    if (event.kind === "notice") this.warn(showText(event.text))
    else {
      if (event.kind === "retry") this.#sayRetry(event.reason)
      this.#line?.take(event)
    }
  }

  /** Several requests fail of one cause, again and again: it is said once in a while. */
  #sayRetry(reason: string): void {
    const nowMs = Date.now()
    if (reason === this.#retry.reason && nowMs - this.#retry.saidMs < retryEveryMs) return
    this.#retry = { reason, saidMs: nowMs }
    this.say(`trying again: ${reason}`)
  }

  #progressEvent(event: ProgressEvent): void {
    switch (event.kind) {
      case "phase":
        this.event("phase", { phase: event.phase })
        break
      case "bytes": {
        const nowMs = Date.now()
        const finished = event.done === event.total
        if (!finished && nowMs - this.#lastBytesEventMs < jsonProgressEveryMs) break
        this.#lastBytesEventMs = nowMs
        const { done, total, alreadyThere } = event
        this.event("progress", { done, total: total ?? null, already_there: alreadyThere })
        break
      }
      case "count":
        break
      case "notice":
        this.warn(event.text)
        break
      case "retry":
        this.event("retry", {
          reason: event.reason,
          delay_ms: event.delayMs,
          attempt: event.attempt,
        })
        break
    }
  }

  /** The program's own colours may pass; all else a message contains is made safe by its caller. */
  #print(safeText: string): void {
    this.#above(() => this.#stderr.write(`${safeText}\n`))
  }

  #above(write: () => void): void {
    if (this.#line === undefined) write()
    else this.#line.above(write)
  }

  #red(text: string): string {
    return this.#coloured ? styleText("red", text) : text
  }

  #bold(text: string): string {
    return this.#coloured ? styleText("bold", text) : text
  }

  get #coloured(): boolean {
    const { NO_COLOR, TERM } = this.#env
    return this.#stderr.isTTY && (NO_COLOR === undefined || NO_COLOR === "") && TERM !== "dumb"
  }
}
