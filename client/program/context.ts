import type { OnProgress, Proxies } from "../index.js"
import type { Output } from "./output.js"
import type { Environment, ProgramPaths } from "./settings.js"

/** What a command is given. */
export interface Context {
  readonly paths: ProgramPaths
  readonly output: Output
  /** What programs that are started from here are given. */
  readonly env: Environment
  readonly stdin: NodeJS.ReadStream
  /** Runs what takes a while: progress is shown, and Ctrl-C stops it where it can be resumed. */
  readonly work: <T>(task: (options: WorkOptions) => Promise<T>) => Promise<T>
  /** Says what to do should this run be interrupted or lose its relay. */
  readonly canResume: (how: string) => void
  /** This run as it could be typed again. */
  readonly sameAgain: string
}

export interface WorkOptions {
  readonly signal: AbortSignal
  readonly onProgress: OnProgress
  readonly proxies: Proxies
}

/** The same work, and a word as soon as some of its bytes are at the other side. */
export function whenMoved(work: WorkOptions, moved: () => void): WorkOptions {
  let said = false
  return {
    ...work,
    onProgress: (event) => {
      if (!said && event.kind === "bytes" && event.done > 0) {
        said = true
        moved()
      }
      work.onProgress(event)
    },
  }
}
