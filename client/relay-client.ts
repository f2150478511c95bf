/**
 * The only place that speaks HTTP, but for doctor/asking.ts, which wants to see what is hidden here. It
 * knows how to ask and how to take no for an answer: problem documents become RelayRefusal, silence
 * becomes RelayUnreachable, anything that no relay would say becomes NotARelay. What the routes mean is
 * the callers' business.
 *
 * node:http and not fetch: at a gigabyte a second of ciphertext the web streams under fetch cost more
 * than the sealing does. Redirects are never followed, so a credential only goes where it was meant to.
 */
import http from "node:http"
import https from "node:https"
import {
  concatBytes,
  FormatError,
  hostOf,
  KIB,
  MIB,
  originOf,
  parseProblem,
  type RefusalCode,
  RelayRefusal,
  toBase64url,
} from "../protocol/index.js"
// Of no use in a browser, and neither is this file.
import { giveBack } from "../protocol/crypto/node.js"
import { backoffMs } from "./backoff.js"
import { errorCode } from "./error-code.js"
import { NotARelay, RelayUnreachable } from "./errors.js"
import type { Parallel } from "./parallel.js"
import { asError, type CallOptions, say } from "./progress.js"
import { type Proxies, ProxyFailure } from "./proxies.js"
import { takeAtOnce } from "./reading-agent.js"
import { relayAgent } from "./relay-agent.js"

/**
 * `patient` keeps trying while a relay restarts or the network is gone for ten minutes, `brisk` through a
 * hiccup, so that a mistyped host is reported soon.
 */
export type Persistence = "patient" | "brisk" | "once"
const attempts: Readonly<Record<Exclude<Persistence, "patient">, number>> = { brisk: 3, once: 1 }
/** Not by the clock, which goes on while a laptop is asleep: see #withRetries. */
const patienceMs = 15 * 60_000
/** What is broken in the relay itself does not pass like an outage: about a minute and a half. */
const mostFailures = 26

const connectTimeoutMs = 15_000
const idleTimeoutMs = 60_000
/** A line slower than this is none: the relay cuts a body off that is. */
const leastBytesASecond = KIB
const mostProblemBytes = 64 * KIB
/** A page of 1,000 waiting deliveries with their envelopes is about 4 MiB. */
const mostJsonBytes = 16 * MIB
/** A relay that asks for more patience than this gets its answer back as an error instead. */
const longestRetryAfterSeconds = 600

export interface RelayRequest extends CallOptions {
  method: "GET" | "PUT" | "POST" | "DELETE"
  /** From the origin's root, query included. Never holds a credential. */
  path: string
  credential?: Uint8Array | undefined
  /** A function is asked again for each attempt. */
  headers?: Readonly<Record<string, string>> | (() => Readonly<Record<string, string>>)
  /** Sent one behind the other. They must not change until the call has ended. */
  body?: readonly Uint8Array[]
  contentType?: "application/json" | "application/octet-stream"
  persistence?: Persistence
  idleTimeoutMs?: number
  /** Each attempt waits here for its turn. */
  parallel?: Parallel
  /** Called whenever the request goes on the wire, repeats included. */
  onAttempt?: () => void
}

/** Takes a reply as it arrives. `start` is called again when an attempt failed half-way. */
export interface ReplySink {
  /** False when a chunk is of no more use once `write` has returned. */
  readonly keepsChunks: boolean
  start(reply: ReplyHead): void
  write(chunk: Uint8Array): void
}

export interface RelayClientOptions {
  origin: string
  proxies: Proxies | undefined
  parallel?: number
  /** Handed in by tests, which must neither wait nor roll dice. */
  pause?: (ms: number, signal: AbortSignal | undefined) => Promise<void>
  random?: () => number
}

export interface ReplyHead {
  readonly status: number
  readonly headers: http.IncomingHttpHeaders
}

/** What is worth asking again, told apart from what is not by being wrapped in this. */
class Retry {
  readonly error: Error
  readonly reason: string
  readonly retryAfterSeconds: number | undefined
  /** It took too long, at one end or the other. */
  readonly timedOut: boolean
  /** A kept-alive connection that the relay had closed meanwhile says nothing about the relay. */
  readonly atOnce: boolean

  constructor(
    error: Error,
    reason: string,
    more: {
      readonly retryAfterSeconds?: number | undefined
      readonly timedOut?: boolean
      readonly atOnce?: boolean
    } = {},
  ) {
    this.error = error
    this.reason = reason
    this.retryAfterSeconds = more.retryAfterSeconds
    this.timedOut = more.timedOut === true
    this.atOnce = more.atOnce === true
  }
}

/** `https://host[:port]`; plain http only for loopback and .onion. Accepts a bare `host[:port]`. */
export function parseOrigin(text: string): string {
  return originOf(text.includes("://") ? hostOf(text.replace(/\/$/, "")) : text)
}

export class RelayClient {
  readonly origin: string
  readonly #agent: http.Agent
  readonly #secure: boolean
  readonly #target: { hostname: string; port: string }
  readonly #pause: (ms: number, signal: AbortSignal | undefined) => Promise<void>
  readonly #random: () => number

  constructor(options: RelayClientOptions) {
    this.origin = parseOrigin(options.origin)
    const url = new URL(this.origin)
    this.#secure = url.protocol === "https:"
    // A socket address has no brackets; a URL's IPv6 host has.
    this.#target = { hostname: url.hostname.replace(/^\[|\]$/g, ""), port: url.port }
    this.#agent = relayAgent(this.origin, options.proxies, {
      keepAlive: true,
      maxSockets: (options.parallel ?? 4) + 1,
    })
    this.#pause = options.pause ?? pause
    this.#random = options.random ?? Math.random
  }

  async json<T>(request: RelayRequest, parse: (value: unknown) => T): Promise<T> {
    const { body } = await this.#collect(request, mostJsonBytes, "application/json")
    let value: unknown
    try {
      value = JSON.parse(new TextDecoder().decode(body))
    } catch {
      throw this.#notARelay("its answer is not JSON")
    }
    try {
      return parse(value)
    } catch (error) {
      if (error instanceof FormatError)
        throw this.#notARelay(`its answer is not understood (${error.message})`)
      throw error
    }
  }

  /** A reply of bytes, of at most `most` of them. */
  async bytes(request: RelayRequest, most: number): Promise<Uint8Array> {
    return (await this.#collect(request, most, "application/octet-stream")).body
  }

  async nothing(request: RelayRequest): Promise<void> {
    await this.#collect(request, mostProblemBytes, undefined)
  }

  /** A reply too long to collect. What `sink` throws ends the call. */
  async stream(request: RelayRequest, sink: ReplySink): Promise<void> {
    await this.#withRetries(request, (timeoutMs) =>
      this.#once(request, "application/octet-stream", { sink, timeoutMs }),
    )
  }

  close(): void {
    this.#agent.destroy()
  }

  async #collect(
    request: RelayRequest,
    most: number,
    contentType: string | undefined,
  ): Promise<{ body: Uint8Array }> {
    return this.#withRetries(request, async (timeoutMs) => {
      const collector = new Collector(most, () =>
        this.#notARelay(`its answer is longer than ${most} bytes`),
      )
      await this.#once(request, contentType, { sink: collector, timeoutMs })
      return { body: collector.join() }
    })
  }

  async #withRetries<T>(
    request: RelayRequest,
    once: (timeoutMs: number) => Promise<T>,
  ): Promise<T> {
    const persistence = request.persistence ?? "patient"
    let wentOnAtOnce = false
    let timeoutMs = request.idleTimeoutMs ?? idleTimeoutMs
    let failures = 0
    let spentMs = 0
    for (let attempt = 0; ; attempt++) {
      request.signal?.throwIfAborted()
      const turn = await request.parallel?.turn(request.signal)
      const beganMs = performance.now()
      let retry: Retry
      try {
        const result = await once(timeoutMs)
        turn?.end("answered")
        return result
      } catch (error) {
        if (!(error instanceof Retry)) {
          turn?.end("failed")
          throw error
        }
        turn?.end(error.timedOut ? "timed out" : "failed")
        retry = error
      }
      // An abort surfaces as a broken connection; it is the caller's wish, not a failure.
      request.signal?.throwIfAborted()
      if (retry.atOnce && !wentOnAtOnce) {
        wentOnAtOnce = true
        attempt--
        continue
      }
      const { error } = retry
      const refusal = error instanceof RelayRefusal ? error : undefined
      if (refusal !== undefined && failing.has(refusal.code)) failures++
      // A machine that slept in between was not waiting.
      spentMs += Math.min(performance.now() - beganMs, timeoutMs)
      const isEnough =
        persistence === "patient"
          ? failures === mostFailures || spentMs > patienceMs
          : attempt + 1 >= attempts[persistence] || refusal?.status === 507
      const tooLong = (retry.retryAfterSeconds ?? 0) > longestRetryAfterSeconds
      if (isEnough || tooLong) throw error
      if (retry.timedOut) timeoutMs = longerTimeout(timeoutMs, request)
      const delayMs = backoffMs({
        attempt,
        retryAfterSeconds: retry.retryAfterSeconds,
        random: this.#random(),
      })
      spentMs += delayMs
      say(request, { kind: "retry", reason: retry.reason, delayMs, attempt: attempt + 1 })
      await this.#pause(delayMs, request.signal)
    }
  }

  /** One attempt. Throws Retry for what may go better next time. */
  #once(
    request: RelayRequest,
    contentType: string | undefined,
    { sink, timeoutMs }: { readonly sink: ReplySink; readonly timeoutMs: number },
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      request.onAttempt?.()
      const length = lengthOf(request)
      const mayHaveBody = request.method === "PUT" || request.method === "POST"
      const outgoing = (this.#secure ? https : http).request({
        ...this.#target,
        agent: this.#agent,
        method: request.method,
        path: request.path,
        headers: {
          accept: contentType ?? "application/json",
          ...(mayHaveBody && { "content-length": String(length) }),
          ...(length > 0 && { "content-type": request.contentType ?? "application/json" }),
          ...(request.credential && {
            authorization: `Bearer ${toBase64url(request.credential)}`,
          }),
          ...(typeof request.headers === "function" ? request.headers() : request.headers),
        },
      })

      let sent = false
      outgoing.on("finish", () => (sent = true))
      let answered = false
      let settled = false
      const settle = (finish: () => void) => {
        if (settled) return
        settled = true
        request.signal?.removeEventListener("abort", onAbort)
        // The caller may now put something else where the body is, and a connection that still sends
        // reads from there.
        if (!sent) outgoing.destroy()
        finish()
      }
      const onAbort = () => {
        outgoing.destroy()
        settle(() => reject(asError(request.signal?.reason)))
      }
      if (request.signal?.aborted) {
        onAbort()
        return
      }
      request.signal?.addEventListener("abort", onAbort, { once: true })

      outgoing.setTimeout(timeoutMs, () => {
        const silence = new Error(`no byte for ${Math.round(timeoutMs / 1000)} s`)
        outgoing.destroy(Object.assign(silence, { code: "ETIMEDOUT" }))
      })
      outgoing.on("socket", (socket) => {
        if (!socket.connecting) return
        const timer = setTimeout(() => {
          const silence = new Error("no connection")
          outgoing.destroy(Object.assign(silence, { code: "ETIMEDOUT" }))
        }, connectTimeoutMs)
        const stop = () => clearTimeout(timer)
        socket.once("connect", stop)
        socket.once("close", stop)
      })
      outgoing.on("error", (error) => {
        // Once the relay answers, its answer counts; a broken pipe behind it is a refused body.
        if (answered) return
        settle(() => reject(this.#failure(error, outgoing.reusedSocket)))
      })
      // Without this Node would close the connection, and say nothing of it but that it is closed.
      outgoing.on("upgrade", (_, socket) => {
        socket.destroy()
        settle(() => reject(this.#notARelay("it answers with status 101, unasked")))
      })
      outgoing.on("close", () => {
        if (answered) return
        const closed = new Error("the connection was closed without an answer")
        settle(() => reject(this.#failure(closed, false)))
      })
      outgoing.on("response", (incoming) => {
        answered = true
        const broken = (error: Error) => settle(() => reject(this.#failure(error, false)))
        incoming.on("error", broken)
        incoming.on("aborted", () => broken(new Error("the connection broke off")))
        const status = incoming.statusCode ?? 0
        if (status >= 200 && status < 300) {
          this.#take(incoming, contentType, sink).then(
            () => {
              // A socket that can be both read and written is read first, so an answer to all of a
              // body may come before word that the last of it went out: later in the same turn.
              setImmediate(() => {
                if (sent) settle(resolve)
                else broken(new Error("it answered before it had everything"))
              })
            },
            (error: unknown) => {
              outgoing.destroy()
              settle(() => reject(asError(error)))
            },
          )
          return
        }
        this.#refusal(incoming, status).then(
          (error) => settle(() => reject(error)),
          (error: unknown) => settle(() => reject(asError(error))),
        )
      })

      for (const piece of request.body ?? []) outgoing.write(piece)
      outgoing.end()
    })
  }

  async #take(
    incoming: http.IncomingMessage,
    contentType: string | undefined,
    sink: ReplySink,
  ): Promise<void> {
    const given = mediaType(incoming)
    if (contentType !== undefined && given !== contentType) {
      throw this.#notARelay(`it answers with ${given === "" ? "no media type" : given}`)
    }
    sink.start({ status: incoming.statusCode ?? 0, headers: incoming.headers })
    return new Promise((resolve, reject) => {
      if (!sink.keepsChunks) incoming.once("data", () => takeAtOnce(incoming))
      incoming.on("data", (chunk: Buffer) => {
        try {
          sink.write(chunk)
          if (!sink.keepsChunks) giveBack(chunk)
        } catch (error) {
          reject(asError(error))
        }
      })
      incoming.on("end", () => {
        if (incoming.complete) resolve()
        else reject(this.#failure(new Error("the connection broke off"), false))
      })
    })
  }

  async #refusal(incoming: http.IncomingMessage, status: number): Promise<unknown> {
    const collector = new Collector(mostProblemBytes, () =>
      this.#notARelay("its refusal has no end"),
    )
    for await (const chunk of incoming) {
      // Node hands out Buffers unless an encoding was set, and none was.
      if (chunk instanceof Uint8Array) collector.write(chunk)
    }
    if (status >= 300 && status < 400) {
      return this.#notARelay(
        "it points elsewhere, and a relay never does; give the address it points to",
      )
    }
    if (mediaType(incoming) === "application/problem+json") {
      try {
        const value: unknown = JSON.parse(new TextDecoder().decode(collector.join()))
        const refusal = parseProblem(status, value, incoming.headers["retry-after"])
        // Room may be made; a relay that says nothing of when says that it does not expect it.
        const isWorthIt = refusal.status !== 507 || refusal.retryAfterSeconds !== undefined
        return passing.has(refusal.code) && isWorthIt
          ? new Retry(refusal, refusal.message, {
              retryAfterSeconds: refusal.retryAfterSeconds,
              timedOut: refusal.code === "too_slow",
            })
          : refusal
      } catch (error) {
        if (!(error instanceof FormatError) && !(error instanceof SyntaxError)) throw error
      }
    }
    // A proxy in front of the relay speaks for itself, without problem documents.
    if (status === 413) return new ProxyLimit(this.origin)
    if (status === 429 || status === 408 || (status >= 502 && status <= 504)) {
      const said = Number(incoming.headers["retry-after"] ?? "")
      const message = `something in front of ${this.origin} answers with status ${status}; try again later`
      return new Retry(
        new RelayUnreachable(this.origin, message, { retryable: true }),
        `status ${status}`,
        {
          retryAfterSeconds: Number.isInteger(said) && said > 0 ? said : undefined,
          timedOut: status === 408 || status === 504,
        },
      )
    }
    return this.#notARelay(`it answers with status ${status} and no problem document`)
  }

  #notARelay(reason: string): NotARelay {
    return new NotARelay(
      this.origin,
      `what answers at ${this.origin} is not a Knothole relay: ${reason}; check the address`,
    )
  }

  #failure(error: Error, reusedSocket: boolean): Error | Retry {
    if (error instanceof ProxyFailure) {
      const { message, retryable } = error
      const unreachable = new RelayUnreachable(
        this.origin,
        `cannot reach ${this.origin}: ${message}`,
        { retryable, cause: error },
      )
      return retryable ? new Retry(unreachable, message) : unreachable
    }
    const code = "code" in error && typeof error.code === "string" ? error.code : ""
    const isCertificate =
      /^(CERT_|ERR_TLS|UNABLE_TO_|DEPTH_ZERO|SELF_SIGNED|HOSTNAME_MISMATCH)/.test(code)
    if (isCertificate || code === "EPROTO") {
      const clock = /EXPIRED|NOT_YET_VALID/.test(code) ? " Check this machine's clock." : ""
      const message = `${this.origin} shows a certificate that does not verify (${code}).${clock}`
      return new RelayUnreachable(this.origin, message, { retryable: false, cause: error })
    }
    const reason = connectionTrouble(error)
    const unreachable = new RelayUnreachable(
      this.origin,
      `cannot reach ${this.origin}: ${reason}; check the address and the network, or try again later`,
      { retryable: code !== "ENOTFOUND", cause: error },
    )
    return new Retry(unreachable, reason, {
      timedOut: code === "ETIMEDOUT",
      atOnce: reusedSocket && code === "ECONNRESET",
    })
  }
}

/** A 413 that no relay of ours wrote: a proxy allows less than the relay offers. */
export class ProxyLimit extends RelayUnreachable {
  constructor(origin: string) {
    super(
      origin,
      `a proxy in front of ${origin} refuses requests of this size; its operator has to allow at least 1 MiB and a manifest`,
      { retryable: false },
    )
  }
}

/** Why a connection came to nothing, in a few words. */
export function connectionTrouble(error: Error): string {
  const code = errorCode(error) ?? ""
  return reasons[code] ?? (code === "" ? error.message : code)
}

const reasons: Readonly<Record<string, string>> = {
  ECONNREFUSED: "nothing listens there",
  ECONNRESET: "the connection was reset",
  EPIPE: "the connection was closed",
  ETIMEDOUT: "it does not answer",
  ENOTFOUND: "no such host",
  EAI_AGAIN: "the name cannot be looked up now",
  EHOSTUNREACH: "no route to it",
  ENETUNREACH: "no network",
}

/** What passes by itself. */
const passing: ReadonlySet<RefusalCode> = new Set<RefusalCode>([
  "too_slow",
  "too_many_requests",
  "internal",
  "busy",
  "rebuilding",
  "index_unavailable",
  "disk_unavailable",
  "relay_full",
  "inbox_full",
])

/** What is broken in the relay itself, and passes if somebody mends it. */
const failing: ReadonlySet<RefusalCode> = new Set<RefusalCode>(["internal", "disk_unavailable"])

function lengthOf({ body = [] }: RelayRequest): number {
  return body.reduce((sum, piece) => sum + piece.length, 0)
}

/**
 * After a timeout. What the system has taken of a body to send it moves without our seeing it, on a slow
 * line for longer than any other silence would be borne.
 */
function longerTimeout(timeoutMs: number, request: RelayRequest): number {
  const slowestMs = (1000 * lengthOf(request)) / leastBytesASecond
  return Math.max(timeoutMs, Math.min(2 * timeoutMs, slowestMs))
}

class Collector implements ReplySink {
  readonly keepsChunks = true
  readonly #most: number
  readonly #tooMuch: () => Error
  #pieces: Uint8Array[] = []
  #length = 0

  constructor(most: number, tooMuch: () => Error) {
    this.#most = most
    this.#tooMuch = tooMuch
  }

  start(): void {
    this.#pieces = []
    this.#length = 0
  }

  write(chunk: Uint8Array): void {
    this.#length += chunk.length
    if (this.#length > this.#most) throw this.#tooMuch()
    this.#pieces.push(chunk)
  }

  join(): Uint8Array {
    return concatBytes(...this.#pieces)
  }
}

function mediaType(incoming: http.IncomingMessage): string {
  const [type = ""] = (incoming.headers["content-type"] ?? "").split(";")
  return type.trim().toLowerCase()
}

function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", onAbort)
      resolve()
    }, ms)
    const onAbort = () => {
      clearTimeout(timer)
      reject(asError(signal?.reason))
    }
    signal?.addEventListener("abort", onAbort, { once: true })
  })
}
