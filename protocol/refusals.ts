// The codes a relay may refuse with, and their form on the wire: problem documents of RFC 9457 with
// a stable `code` (docs/protocol.md, "Refusals").
import { FormatError } from "./errors.js"
import { isAddressShape, isLine } from "./json.js"

export type RefusalCode =
  | "bad_request"
  | "bad_length"
  | "wrong_origin"
  | "length_required"
  | "unauthorized"
  | "challenge_expired"
  | "registration_closed"
  | "not_found"
  | "no_such_inbox"
  | "method_not_allowed"
  | "too_slow"
  | "part_differs"
  | "parts_missing"
  | "root_mismatch"
  | "upload_finished"
  | "upload_expired"
  | "expired"
  | "too_large"
  | "unsupported_media_type"
  | "range_not_satisfiable"
  | "idempotency_mismatch"
  | "too_many_requests"
  | "internal"
  | "busy"
  | "rebuilding"
  | "index_unavailable"
  | "disk_unavailable"
  | "relay_full"
  | "inbox_full"

export const refusalStatus: Readonly<Record<RefusalCode, number>> = {
  bad_request: 400,
  bad_length: 400,
  wrong_origin: 400,
  unauthorized: 401,
  challenge_expired: 401,
  registration_closed: 403,
  not_found: 404,
  no_such_inbox: 404,
  method_not_allowed: 405,
  too_slow: 408,
  part_differs: 409,
  parts_missing: 409,
  root_mismatch: 409,
  upload_finished: 409,
  upload_expired: 410,
  expired: 410,
  length_required: 411,
  too_large: 413,
  unsupported_media_type: 415,
  range_not_satisfiable: 416,
  idempotency_mismatch: 422,
  too_many_requests: 429,
  internal: 500,
  busy: 503,
  rebuilding: 503,
  index_unavailable: 503,
  disk_unavailable: 503,
  relay_full: 507,
  inbox_full: 507,
}

const refusalTitle: Readonly<Record<RefusalCode, string>> = {
  bad_request: "The request is malformed",
  bad_length: "The length is not on the part grid",
  wrong_origin: "The proof was made for another origin",
  unauthorized: "The credential is not good here",
  challenge_expired: "The challenge is too old",
  registration_closed: "This relay takes no new inboxes",
  not_found: "There is nothing here",
  no_such_inbox: "There is no such inbox at this relay",
  method_not_allowed: "This resource does not do that",
  too_slow: "The body arrived too slowly",
  part_differs: "Another part is already stored at this place",
  parts_missing: "Parts are missing",
  root_mismatch: "The parts do not add up to the header",
  upload_finished: "The upload is finished",
  upload_expired: "The upload has expired",
  expired: "The delivery has expired",
  length_required: "A Content-Length is needed",
  too_large: "Too large for this relay",
  unsupported_media_type: "The content type is not the one of this resource",
  range_not_satisfiable: "The range cannot be served",
  idempotency_mismatch: "The idempotency key was used for another request",
  too_many_requests: "Too many requests",
  internal: "The relay failed",
  busy: "Another request is at work on this",
  rebuilding: "The relay is rebuilding its index",
  index_unavailable: "The relay cannot reach its index",
  disk_unavailable: "The relay's disk does not work",
  relay_full: "The relay is full",
  inbox_full: "The inbox is full",
}

/** What some refusals carry beyond their code. */
export interface RefusalExtras {
  /** The limit that was passed, in the unit of the thing refused. */
  readonly limit?: number
  /** The origins this relay answers to. */
  readonly origins?: readonly string[]
  /** The inbox that is not there. */
  readonly address?: string
  /** Indices of parts not yet stored, ascending, the first thousand at most. */
  readonly missing?: readonly number[]
}

export interface RefusalOptions {
  readonly detail?: string
  readonly retryAfterSeconds?: number | undefined
  readonly extras?: RefusalExtras
}

/** A relay's expected no. The relay throws it, the client rebuilds the same from the wire. */
export class RelayRefusal extends Error {
  override readonly name = "RelayRefusal"
  readonly code: RefusalCode
  readonly status: number
  readonly retryAfterSeconds: number | undefined
  readonly extras: RefusalExtras

  constructor(code: RefusalCode, options: RefusalOptions = {}) {
    super(options.detail ?? refusalTitle[code])
    this.code = code
    this.status = refusalStatus[code]
    this.retryAfterSeconds = options.retryAfterSeconds
    this.extras = options.extras ?? {}
  }
}

export interface Problem extends RefusalExtras {
  readonly type: "about:blank"
  readonly title: string
  readonly status: number
  readonly code: RefusalCode
  readonly detail: string
}

/** The document only: Retry-After is a header, which whoever writes the reply sets. */
export function encodeProblem(refusal: RelayRefusal): Problem {
  const { code, status, message, extras } = refusal
  return {
    type: "about:blank",
    title: refusalTitle[code],
    status,
    code,
    detail: message,
    ...extras,
  }
}

// Long enough for any sentence of ours; a hostile relay shall not fill a terminal or a log.
const mostDetailCharacters = 1000
const mostExtras = 1000
// Past a day a client gives up rather than waits.
const mostRetryAfterSeconds = 86_400

/**
 * Rebuilds a refusal. `value` is the parsed JSON, `retryAfter` the header's text. Throws FormatError
 * when this is no problem document with a code we know, which also happens when the answer comes
 * from something between us and the relay.
 */
export function parseProblem(
  status: number,
  value: unknown,
  retryAfter?: string | null,
): RelayRefusal {
  if (typeof value !== "object" || value === null) {
    throw new FormatError("problem", "not an object")
  }
  const code = "code" in value ? value.code : undefined
  if (!isRefusalCode(code)) throw new FormatError("problem.code", "not a known refusal")
  if (refusalStatus[code] !== status) {
    throw new FormatError("problem.status", `${code} does not come with status ${status}`)
  }
  const detail = "detail" in value ? value.detail : undefined
  const limit = "limit" in value ? value.limit : undefined
  const origins = "origins" in value ? value.origins : undefined
  const address = "address" in value ? value.address : undefined
  const missing = "missing" in value ? value.missing : undefined
  return new RelayRefusal(code, {
    ...(typeof detail === "string" &&
      isLine(detail) && { detail: detail.slice(0, mostDetailCharacters) }),
    retryAfterSeconds: parseRetryAfter(retryAfter),
    extras: {
      ...(isCount(limit) && { limit }),
      ...(isListOf(origins, isShortLine) && { origins }),
      ...(typeof address === "string" && isAddressShape(address) && { address }),
      ...(isListOf(missing, isCount) && { missing }),
    },
  })
}

function isRefusalCode(value: unknown): value is RefusalCode {
  return typeof value === "string" && Object.hasOwn(refusalStatus, value)
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0
}

function isShortLine(value: unknown): value is string {
  return typeof value === "string" && value.length <= mostDetailCharacters && isLine(value)
}

function isListOf<T>(value: unknown, is: (item: unknown) => item is T): value is T[] {
  return Array.isArray(value) && value.length <= mostExtras && value.every(is)
}

/** The form in seconds only. A date would need a clock, and ours may be the one that is wrong. */
function parseRetryAfter(text: string | null | undefined): number | undefined {
  if (typeof text !== "string" || !/^[0-9]{1,9}$/.test(text)) return undefined
  return Math.min(Number(text), mostRetryAfterSeconds)
}
