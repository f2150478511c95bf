// The relay's log: one JSON object a line. What may stand in it is the list below and nothing else, so
// no address, key, token, id, path or body can get in by way of a message someone else wrote.
import type { Clock } from "./clock.js"

export interface LogFields {
  /** A route as the table has it, never the path of a request. */
  readonly route?: string
  readonly method?: string
  readonly status?: number
  /** A refusal's code. */
  readonly code?: string
  readonly count?: number
  readonly bytes?: number
  /** What would be needed, beside the `bytes` there are. */
  readonly wantedBytes?: number
  readonly durationMs?: number
  /** Where the relay listens: its operator's own words. */
  readonly url?: string
  /** What is wrong with a setting: its operator's own words. */
  readonly problem?: string
  /** When the relay's certificate ends. */
  readonly until?: string
  /** The kind of failure: an error's name, the system's code for it, and where it arose. */
  readonly failure?: string
  readonly system?: string
  readonly at?: string
}

export type Level = "info" | "warning" | "alarm"

export interface Log {
  (event: string, fields?: LogFields, level?: Level): void
}

const allowed = [
  "route",
  "method",
  "status",
  "code",
  "count",
  "bytes",
  "wantedBytes",
  "durationMs",
  "url",
  "problem",
  "until",
  "failure",
  "system",
  "at",
] as const

export function createLog(write: (line: string) => void, clock: Clock): Log {
  return (event, fields = {}, level = "info") => {
    const line: Record<string, string | number> = {
      time: new Date(clock.wallMs()).toISOString(),
      level,
      event,
    }
    for (const name of allowed) {
      const value = fields[name]
      if (value !== undefined) line[name] = value
    }
    write(`${JSON.stringify(line)}\n`)
  }
}

/** What may be said of a failure. Its message may name files, and with them ids: it is left out. */
export function failureFields(error: unknown): LogFields {
  if (!(error instanceof Error)) return { failure: typeof error }
  const code = "code" in error ? error.code : undefined
  const system = typeof code === "string" || typeof code === "number" ? String(code) : undefined
  const at = error.stack?.split("\n").find((line) => line.trimStart().startsWith("at "))
  const place = at === undefined ? undefined : /([\w.-]+\.[jt]s:[0-9]+)/.exec(at)?.[1]
  return {
    failure: error.name,
    ...(system !== undefined && { system }),
    ...(place !== undefined && { at: place }),
  }
}
