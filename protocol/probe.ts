// `/v1/probe`: what a relay answers so that somebody can see what stands between it and its users
// (docs/protocol.md, "Probe"). It needs no credential and leaves nothing behind.
import { FormatError } from "./errors.js"
import { type JsonObject, JsonReader } from "./json.js"
import { KIB } from "./limits.js"

/** Two pieces of 16 KiB: more than a proxy that passes things on keeps back, and little to fetch. */
export const probeBodyBytes: number = 32 * KIB
/** Longer than a long poll by what a proxy's timer has to leave. */
export const maxProbeWaitSeconds: number = 45
export const maxProbePauseMs: number = 10_000

/** The body of every answer to a GET: byte i is i mod 251, so that a piece of it shows where it is from. */
export function probeBody(): Uint8Array {
  return Uint8Array.from({ length: probeBodyBytes }, (_, index) => index % 251)
}

export interface ProbeQuery {
  /** Silence before the answer begins. */
  readonly waitSeconds: number
  /** Silence between the two halves of its body. */
  readonly pauseMs: number
}

/** `query` is everything after the question mark. */
export function parseProbeQuery(query: URLSearchParams): ProbeQuery {
  const values = new Map<string, number>()
  for (const [name, text] of query) {
    const most = name === "wait" ? maxProbeWaitSeconds : name === "pause" ? maxProbePauseMs : -1
    if (most < 0) throw new FormatError("query", "an unknown parameter")
    if (values.has(name)) throw new FormatError(`query.${name}`, "given twice")
    if (!/^(0|[1-9][0-9]{0,5})$/.test(text) || Number(text) > most) {
      throw new FormatError(`query.${name}`, `not a number from 0 to ${most}`)
    }
    values.set(name, Number(text))
  }
  return { waitSeconds: values.get("wait") ?? 0, pauseMs: values.get("pause") ?? 0 }
}

export function encodeProbeQuery({ waitSeconds, pauseMs }: ProbeQuery): string {
  return `wait=${waitSeconds}&pause=${pauseMs}`
}

/** The answer to a PUT. */
export interface ProbeReply {
  /** From the request's head to the end of its body, by the relay's clock. */
  readonly tookMs: number
  /** Whether uploads are taken, as far as the disk goes. */
  readonly hasRoom: boolean
}

export function parseProbeReply(value: unknown): ProbeReply {
  const reply = new JsonReader(value, "probe")
  return { tookMs: reply.count("took_ms"), hasRoom: reply.flag("has_room") }
}

export function encodeProbeReply({ tookMs, hasRoom }: ProbeReply): JsonObject {
  return { took_ms: tookMs, has_room: hasRoom }
}
