// The relay's log: one JSON object a line. What may stand in it is the table below and nothing else, so
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
  /** What a `count` is part of. */
  readonly total?: number
  readonly bytes?: number
  /** What would be needed, beside the `bytes` there are. */
  readonly wantedBytes?: number
  readonly durationMs?: number
  /** Where the relay listens: its operator's own words. */
  readonly url?: string
  /** The URL that is shown to people. */
  readonly publicUrl?: string
  /** What is wrong with a setting: its operator's own words. */
  readonly problem?: string
  /** When the relay's certificate ends. */
  readonly until?: string
  /** The kind of failure: an error's name, the system's code for it, and where it arose. */
  readonly failure?: string
  readonly system?: string
  readonly at?: string
}

/** From the least to what somebody has to do something about. */
export const levels = ["debug", "info", "warning", "alarm"] as const
export type Level = (typeof levels)[number]

/** Every alarm there is; docs/operating.md says of each what to do. */
export const alarms = [
  "clock_behind",
  "clock_jumped",
  "sweep_paused",
  "delivery_lost",
  "inbox_record_missing",
  "inbox_record_damaged",
  "record_refused",
  "index_contradicted",
  "index_away",
  "recovery_failed",
  "inbox_not_restored",
  "delivery_not_published",
  "sweep_failed",
  "inbox_sweep_failed",
  "reconcile_failed",
  "tls_certificate_expired",
  "tls_certificate_refused",
  "trusted_proxies_unset",
  "trusted_proxies_wrong",
  "metrics_open_to_others",
] as const
export type Alarm = (typeof alarms)[number]

export interface Log {
  (event: string, fields?: LogFields, level?: Exclude<Level, "alarm">): void
  (event: Alarm, fields: LogFields, level: "alarm"): void
}

const number = /^-?[0-9]{1,16}(\.[0-9]{1,16})?$/
const word = /^[A-Za-z][A-Za-z0-9_]{0,29}$/
const operatorsWords = /^[^]*$/

/**
 * Every field there is, and what its value looks like. None of what is told by clients has a shape in
 * which it fits: a segment of a route is shorter than any id, address, key or token.
 */
const shapes: Readonly<Record<keyof LogFields, RegExp>> = {
  route: /^(\/:?[a-zA-Z0-9]{1,16}){0,8}$/,
  method: /^[A-Z]{1,10}$/,
  status: number,
  code: word,
  count: number,
  total: number,
  bytes: number,
  wantedBytes: number,
  durationMs: number,
  url: operatorsWords,
  publicUrl: operatorsWords,
  problem: operatorsWords,
  until: /^[0-9TZ:.-]{1,30}$/,
  failure: word,
  system: /^(E[A-Z0-9_]{1,60}|-?[0-9]{1,6})$/,
  at: /^[A-Za-z_][\w.-]{0,26}\.[jt]s:[0-9]{1,9}$/,
}

/** What stands for a value that does not have its field's shape. */
const unfit = "?"

/** Lines below `least` are left out. */
export function createLog(write: (line: string) => void, clock: Clock, least: Level = "info"): Log {
  return (event: string, fields: LogFields = {}, level: Level = "info") => {
    if (levels.indexOf(level) < levels.indexOf(least)) return
    const line: Record<string, string | number> = {
      time: new Date(clock.wallMs()).toISOString(),
      level,
      event,
    }
    const values: Readonly<Record<string, string | number | undefined>> = { ...fields }
    for (const [name, shape] of Object.entries(shapes)) {
      const value = values[name]
      if (value !== undefined) line[name] = shape.test(String(value)) ? value : unfit
    }
    write(`${escapeOddities(JSON.stringify(line))}\n`)
  }
}

/** Beyond what JSON escapes: nothing that could move a terminal's cursor or turn its direction. */
function escapeOddities(json: string): string {
  return json.replace(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  )
}

/** What may be said of a failure. Its message may name files, and with them ids: it is left out. */
export function failureFields(error: unknown): LogFields {
  if (!(error instanceof Error)) return { failure: typeof error }
  const code = "code" in error ? error.code : undefined
  const system = typeof code === "string" || typeof code === "number" ? String(code) : undefined
  // The message comes first in a stack, and may have lines of its own.
  const stack = error.stack?.replace(error.message, "") ?? ""
  const at = stack.split("\n").find((line) => line.trimStart().startsWith("at "))
  const place = at === undefined ? undefined : /([\w.-]+\.[jt]s:[0-9]+)/.exec(at)?.[1]
  return {
    failure: error.name,
    ...(system !== undefined && { system }),
    ...(place !== undefined && { at: place }),
  }
}
