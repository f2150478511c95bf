/**
 * Looks at a relay as its users meet it, from the name to the longest silence, and says what is in the
 * way. It needs no inbox and no credential, and leaves nothing behind.
 */
import {
  encodeAddress,
  encodeProbeQuery,
  encodeRange,
  equalBytes,
  FormatError,
  KIB,
  maxFinishBytes,
  parseContentRange,
  parseProbeReply,
  parseRelayInfo,
  probeBody,
  probeBodyBytes,
  type ProbeReply,
  type RelayInfo,
  usableLimits,
} from "../../protocol/index.js"
import { errorCode } from "../error-code.js"
import { asError, type CallOptions, say } from "../progress.js"
import { ProxyFailure } from "../proxies.js"
import { connectionTrouble, parseOrigin } from "../relay-client.js"
import { type Answer, Asker, NotRefused } from "./asking.js"
import { judgeCertificate } from "./certificates.js"
import { judgeClocks } from "./clocks.js"
import { fatal, finding, type Finding } from "./findings.js"

export interface ExamineOptions extends CallOptions {
  /** Origin, or `host[:port]`. */
  readonly relay: string
}

export interface Examination {
  readonly origin: string
  /** What the relay says of itself; undefined where none answered. */
  readonly relay: RelayInfo | undefined
  readonly findings: readonly Finding[]
  /** Whether a relay answered at all. */
  readonly isReachable: boolean
}

const answerTimeoutMs = 20_000
/** A mebibyte at 26 KiB a second. */
const bodyTimeoutMs = 40_000
/** Far longer than a byte takes, so that a slow line is not taken for a proxy that keeps things back. */
const pauseMs = 3_000
const heldBackMs = pauseMs / 2
/** What a proxy's timer has to leave beyond a long poll. */
const marginSeconds = 5
const smallBodyBytes = 64 * KIB
/** A proxy that minds an announced length says so at once. */
const refusalTimeMs = 3_000

/** Takes about as long as a long poll, and at worst, with every step out of time, four minutes. */
export async function examineRelay(options: ExamineOptions): Promise<Examination> {
  const origin = parseOrigin(options.relay)
  const asker = new Asker(origin, options)
  say(options, { kind: "phase", phase: "asking the relay" })
  const met = await meet(asker, origin)
  if (!("info" in met)) return { origin, relay: undefined, ...met }
  const { info } = met
  const findings = [...met.findings]
  const examiner = new Examiner(asker, info)
  const silence = examiner.longSilence()
  // It may fail while the others are still at work.
  silence.catch(() => undefined)
  say(options, { kind: "phase", phase: "examining what stands before the relay" })
  if (!info.origins.includes(origin)) {
    const known = info.origins.length === 0 ? "no URL of its own" : info.origins.join(", ")
    findings.push(
      finding("unknown_origin", `the relay does not go by ${origin}; it knows ${known}`),
    )
  }
  if (info.proxy === "unset" || info.proxy === "wrong") {
    const which = info.proxy === "unset" ? "was not told of" : "was told of otherwise"
    findings.push(finding("trusted_proxies", `a proxy speaks to the relay that it ${which}`))
  }
  if (await examiner.hasProbe()) {
    const { headers } = met.answer
    const sideBySide = [
      examiner.bodies(),
      examiner.answers(),
      examiner.ranges(),
      examiner.crossOrigin(headers),
    ]
    for (const found of await Promise.all(sideBySide)) findings.push(...found)
  } else {
    findings.push(finding("old_relay", "the relay, or a proxy for it, does not know /v1/probe"))
  }
  findings.push(...(await examiner.health()))
  say(options, { kind: "phase", phase: "being silent for as long as a long poll" })
  findings.push(...(await silence))
  return { origin, relay: info, findings: oneOfEach(findings), isReachable: true }
}

/** One thing to mend is told once, with all that was seen of it. */
function oneOfEach(findings: readonly Finding[]): Finding[] {
  const byCode = new Map<string, Finding>()
  for (const next of findings) {
    const known = byCode.get(next.code)
    const what = known === undefined ? next.what : `${known.what}; ${next.what}`
    byCode.set(next.code, { ...next, what })
  }
  return [...byCode.values()]
}

type Met =
  | { readonly findings: readonly Finding[]; readonly isReachable: boolean }
  | { readonly info: RelayInfo; readonly answer: Answer; readonly findings: readonly Finding[] }

/** The first question, which shows whether there is a relay, its certificate and its clock. */
async function meet(asker: Asker, origin: string): Promise<Met> {
  const askedMs = Date.now()
  let answer: Answer
  try {
    answer = await asker.ask({ method: "GET", path: "/v1/relay", timeoutMs: answerTimeoutMs })
  } catch (error) {
    return found(unreachable(asError(error), origin))
  }
  const nowMs = (askedMs + Date.now()) / 2
  const { host, hostname } = new URL(origin)
  const certificate = answer.certificate && judgeCertificate(answer.certificate, hostname)
  const before = certificate === undefined ? [] : [certificate]
  const trouble = notARelay(answer, host)
  if (trouble !== undefined) return found(trouble, before)
  let info: RelayInfo
  try {
    const said = parseRelayInfo(JSON.parse(new TextDecoder().decode(answer.body)))
    info = { ...said, limits: usableLimits(said.limits) }
  } catch (error) {
    if (!(error instanceof FormatError) && !(error instanceof SyntaxError)) throw error
    return found(finding("not_a_relay", `its answer is not a relay's (${error.message})`), before)
  }
  if (info.name !== "knothole") {
    return found(finding("not_a_relay", `it calls itself ${info.name}`), before)
  }
  if (!info.protocol.includes(1)) {
    const spoken = info.protocol.join(", ")
    const what = `it is version ${info.version} and speaks protocol ${spoken}, this program 1`
    return found(finding("protocol_version", what), before)
  }
  const dateMs = Date.parse(answer.headers.date ?? "")
  const clocks = judgeClocks({
    relay: info.timeMs - nowMs,
    date: Number.isNaN(dateMs) ? undefined : dateMs - nowMs,
  })
  return {
    info,
    answer,
    findings: clocks === undefined ? before : [...before, finding("clock", clocks)],
  }
}

function found(last: Finding, before: readonly Finding[] = []): Met {
  return { findings: [...before, last], isReachable: !fatal.has(last.code) }
}

function unreachable(error: Error, origin: string): Finding {
  const code = errorCode(error) ?? ""
  if (error instanceof ProxyFailure) return finding("unreachable", error.message)
  const what = `${origin}: ${connectionTrouble(error)}`
  if (code === "ENOTFOUND" || code === "EAI_AGAIN") return finding("name_resolution", what)
  if (code === "EPROTO" || code.startsWith("ERR_SSL") || code.startsWith("ERR_TLS")) {
    return finding("tls_broken", what)
  }
  return finding("unreachable", what)
}

function notARelay({ status, headers }: Answer, host: string): Finding | undefined {
  if (status >= 300 && status < 400) {
    const target = headers.location ?? "nowhere"
    const elsewhere = URL.canParse(target) && new URL(target).host !== host
    return finding("redirect", `it points to ${elsewhere ? "another host: " : ""}${target}`)
  }
  if (status >= 502 && status <= 504) {
    return finding("relay_down", `a proxy answers with status ${status}`)
  }
  if (status !== 200) return finding("not_a_relay", `it answers /v1/relay with status ${status}`)
  return undefined
}

class Examiner {
  readonly #asker: Asker
  readonly #info: RelayInfo

  constructor(asker: Asker, info: RelayInfo) {
    this.#asker = asker
    this.#info = info
  }

  async hasProbe(): Promise<boolean> {
    const path = probePath(0, 0)
    const answer = await this.#try({ method: "GET", path, timeoutMs: answerTimeoutMs })
    return answer instanceof Error || ![404, 405].includes(answer.status)
  }

  /** Bodies on their way up: what is kept back, and what is too long. */
  async bodies(): Promise<Finding[]> {
    const small = await this.#put(smallBodyBytes, pauseMs)
    if (small.kind !== "through") return [probeFailed("a request of 64 KiB", small)]
    const findings: Finding[] = []
    // Seen twice, so that a machine that was busy for a moment is not mistaken for a proxy.
    if (small.reply.tookMs < heldBackMs) {
      const again = await this.#put(smallBodyBytes, pauseMs)
      if (again.kind === "through" && again.reply.tookMs < heldBackMs) {
        findings.push(finding("buffering", "requests reach the relay only when they are complete"))
      }
    }
    if (!small.reply.hasRoom) {
      findings.push(finding("disk_full", "the relay's disk is as full as it may be"))
    }
    const limit = await this.#bodyLimit()
    return limit === undefined ? findings : [...findings, limit]
  }

  async #bodyLimit(): Promise<Finding | undefined> {
    const { requestBytes, manifestBytes, recipients } = this.#info.limits
    const largest = await this.#put(requestBytes)
    if (largest.kind !== "through") {
      const size = `${(requestBytes / KIB).toLocaleString("en-US")} KiB`
      // A slow line is nobody's limit.
      if (largest.isLate) return probeFailed(`a request of ${size}`, largest)
      return finding(
        "body_limit",
        `a request of ${size}, which the relay offers, is refused (${largest.said})`,
      )
    }
    const finish = await this.#try({
      method: "PUT",
      path: "/v1/probe",
      body: {
        lengthBytes: maxFinishBytes(manifestBytes, recipients),
        hangUpAfterMs: refusalTimeMs,
      },
      timeoutMs: answerTimeoutMs,
    })
    if (finish instanceof NotRefused || (!(finish instanceof Error) && finish.status !== 413)) {
      return undefined
    }
    const said = finish instanceof Error ? connectionTrouble(finish) : `status ${finish.status}`
    const what = `parts pass, and a request as long as the list of very many files may be is refused (${said})`
    return finding("body_limit", what)
  }

  /** An answer on its way down. */
  async answers(): Promise<Finding[]> {
    for (let seen = 0; seen < 2; seen++) {
      const path = probePath(0, pauseMs)
      const answer = await this.#try({ method: "GET", path, timeoutMs: bodyTimeoutMs })
      if (answer instanceof Error || answer.status !== 200) {
        return [probeFailed("an answer of 32 KiB", answer)]
      }
      if (!equalBytes(answer.body, probeBody())) {
        return [finding("probe_failed", "an answer of 32 KiB comes changed")]
      }
      if (answer.earlyMs(probeBodyBytes / 2) >= heldBackMs) return []
    }
    return [finding("buffering", "answers come only when they are complete")]
  }

  async ranges(): Promise<Finding[]> {
    const wanted = { first: 1000, last: 1999 }
    const answer = await this.#try({
      method: "GET",
      path: probePath(0, 0),
      headers: { range: encodeRange(wanted) },
      timeoutMs: answerTimeoutMs,
    })
    if (answer instanceof Error) return [probeFailed("an answer in part", answer)]
    if (answer.status === 200) {
      return [finding("range", "asked for a part of something, it sends all of it")]
    }
    const { first, last } = wanted
    const piece = probeBody().subarray(first, last + 1)
    if (answer.status !== 206 || !equalBytes(answer.body, piece) || !namesRange(answer, wanted)) {
      const what = `asked for a part of something, it answers with status ${answer.status} and not that part by name`
      return [finding("range", what)]
    }
    return []
  }

  async longSilence(): Promise<Finding[]> {
    const waitSeconds = this.#info.limits.longPollSeconds + marginSeconds
    const beganMs = performance.now()
    const answer = await this.#try({
      method: "GET",
      path: probePath(waitSeconds, 0),
      timeoutMs: 1000 * waitSeconds + answerTimeoutMs,
    })
    const seconds = Math.round((performance.now() - beganMs) / 1000)
    if (answer instanceof Error) {
      const what = `a request is cut off after ${seconds} s of silence (${connectionTrouble(answer)})`
      return [finding("read_timeout", what)]
    }
    // A relay that does not know of probes is told of elsewhere.
    if (answer.status === 200 || answer.status === 404 || answer.status === 405) return []
    const what = `a request is answered with status ${answer.status} after ${seconds} s of silence`
    return [finding("read_timeout", what)]
  }

  /** By the headers of an ordinary answer, and by what a browser asks first. */
  async crossOrigin(usual: Answer["headers"]): Promise<Finding[]> {
    const allowed = usual["access-control-allow-origin"]
    if (allowed !== "*") {
      const said = allowed === undefined ? "nothing" : `'${allowed}'`
      return [finding("cors", `its answers say ${said} of Access-Control-Allow-Origin, not '*'`)]
    }
    const exposed = words(usual["access-control-expose-headers"])
    const missing = ["content-range", "retry-after"].filter((name) => !exposed.has(name))
    if (missing.length > 0) {
      return [finding("cors", `its answers do not expose ${missing.join(", ")}`)]
    }
    const preflight = await this.#try({
      method: "OPTIONS",
      // Of what answers also while the index is rebuilt.
      path: "/v1/probe",
      headers: {
        origin: "https://pages.example",
        "access-control-request-method": "PUT",
        "access-control-request-headers": "authorization,content-type,idempotency-key",
      },
      timeoutMs: answerTimeoutMs,
    })
    if (preflight instanceof Error) return [probeFailed("a preflight request", preflight)]
    const { status, headers } = preflight
    const names = words(headers["access-control-allow-headers"])
    const wanted = ["authorization", "content-type", "range", "idempotency-key"]
    const isAllowed =
      status < 300 &&
      headers["access-control-allow-origin"] === "*" &&
      words(headers["access-control-allow-methods"]).has("put") &&
      wanted.every((name) => names.has(name))
    return isAllowed
      ? []
      : [finding("cors", `a preflight request is not allowed (status ${status})`)]
  }

  /** Of the relay itself. */
  async health(): Promise<Finding[]> {
    const health = await this.#try({ method: "GET", path: "/healthz", timeoutMs: answerTimeoutMs })
    if (!(health instanceof Error) && health.status === 503) {
      return [finding("disk_refuses", "the relay cannot write to its data folder")]
    }
    // Answered from the index, for nobody's inbox.
    const path = `/v1/inboxes/${encodeAddress(new Uint8Array(20))}`
    const index = await this.#try({ method: "GET", path, timeoutMs: answerTimeoutMs })
    if (index instanceof Error || index.status !== 503) return []
    return [finding("index", "the relay is rebuilding its index, or does not reach it")]
  }

  async #put(
    lengthBytes: number,
    pauseMs?: number,
  ): Promise<
    | { readonly kind: "through"; readonly reply: ProbeReply }
    | { readonly kind: "refused"; readonly said: string; readonly isLate: boolean }
  > {
    const answer = await this.#try({
      method: "PUT",
      path: "/v1/probe",
      body: { lengthBytes, ...(pauseMs !== undefined && { pauseMs }) },
      timeoutMs: bodyTimeoutMs,
    })
    if (answer instanceof Error) {
      const isLate = errorCode(answer) === "ETIMEDOUT"
      return { kind: "refused", said: connectionTrouble(answer), isLate }
    }
    if (answer.status !== 200) return refused(`status ${answer.status}`)
    try {
      const value: unknown = JSON.parse(new TextDecoder().decode(answer.body))
      return { kind: "through", reply: parseProbeReply(value) }
    } catch (error) {
      if (!(error instanceof FormatError) && !(error instanceof SyntaxError)) throw error
      return refused("an answer that is not the relay's")
    }
  }

  /** A connection that comes to nothing is a finding like any other. */
  async #try(question: Parameters<Asker["ask"]>[0]): Promise<Answer | Error> {
    try {
      return await this.#asker.ask(question)
    } catch (error) {
      this.#asker.throwIfAborted()
      return asError(error)
    }
  }
}

function refused(said: string): { kind: "refused"; said: string; isLate: boolean } {
  return { kind: "refused", said, isLate: false }
}

function probePath(waitSeconds: number, pause: number): string {
  return `/v1/probe?${encodeProbeQuery({ waitSeconds, pauseMs: pause })}`
}

function probeFailed(what: string, outcome: Answer | Error | { readonly said: string }): Finding {
  const said =
    outcome instanceof Error
      ? connectionTrouble(outcome)
      : "said" in outcome
        ? outcome.said
        : `status ${outcome.status}`
  return finding("probe_failed", `${what} does not pass (${said})`)
}

function namesRange({ headers }: Answer, wanted: { first: number; last: number }): boolean {
  try {
    const { first, last, size } = parseContentRange(headers["content-range"] ?? "")
    return first === wanted.first && last === wanted.last && size === probeBodyBytes
  } catch (error) {
    if (error instanceof FormatError) return false
    throw error
  }
}

function words(header: string | undefined): ReadonlySet<string> {
  return new Set((header ?? "").toLowerCase().split(/[\s,]+/))
}
