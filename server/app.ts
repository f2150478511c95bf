// The HTTP face: headers first, then the routes, then one place where failures become answers.
import express, {
  type ErrorRequestHandler,
  type Express,
  type Request,
  type RequestHandler,
  type Response,
} from "express"
import type { IncomingMessage } from "node:http"
import { FormatError, RelayRefusal } from "../protocol/index.js"
import type { Clock } from "./clock.js"
import { hasCode, isDiskBroken, isDiskFull } from "./disk.js"
import { MethodRefusal, mount, type Route } from "./http/method-table.js"
import { replyProblem, setCommonHeaders } from "./http/replies.js"
import { ClientGone } from "./http/requests.js"
import type { Sources } from "./http/source.js"
import { failureFields, type Log } from "./log.js"
import type { Counts, RequestLabels } from "./operator/counts.js"
import { RangeRefusal } from "./routes/deliveries.js"
import { IndexUnavailable } from "./stores/index-errors.js"
import { DamagedRecord } from "./stores/maced-record.js"
import { busy, indexUnavailable, relayFull, diskUnavailable } from "./relay-refusals.js"

export interface AppNeeds {
  /** What answers at any time. */
  readonly always: readonly Route[]
  /** What needs the index whole. */
  readonly indexed: readonly Route[]
  readonly isReady: () => boolean
  /** Why it cannot be used, where it is not. */
  readonly refusal: () => RelayRefusal
  /** Looks whether it is whole still, where it may cease to be. */
  readonly doubt: (() => Promise<void>) | undefined
  readonly sources: Sources
  readonly counts: Pick<Counts, "request" | "came">
  readonly log: Log
  readonly clock: Clock
}

/** How long an unread body may go on arriving after its request was answered. */
const lingerMs = 10_000

export function createApp(needs: AppNeeds): Express {
  const app = express()
  app.disable("x-powered-by")
  app.disable("etag")
  app.set("query parser", false)
  app.enable("case sensitive routing")
  app.enable("strict routing")
  const refusals = new WeakMap<IncomingMessage, string>()
  app.use((req, res, next) => {
    const startedMs = needs.clock.monotonicMs()
    res.once("close", () => {
      const code = refusals.get(req)
      const durationMs = Math.round(needs.clock.monotonicMs() - startedMs)
      const said = { route: routeOf(req), method: req.method, status: res.statusCode, durationMs }
      needs.log("request", { ...said, ...(code !== undefined && { code }) }, "debug")
      needs.counts.request(labelsOf(req, res))
    })
    res.once("finish", () => lingerOverBody(req, needs.clock))
    next()
  })
  app.use(everyRequest)
  app.use((req, _res, next) => {
    // Nothing is held against anybody yet, but a proxy that is not trusted shall be heard of at once.
    needs.counts.came(needs.sources.of(req).proxy)
    next()
  })
  mount(app, needs.always)
  const waitForIndex: RequestHandler = (_req, _res, next) => {
    if (needs.isReady()) next()
    else throw needs.refusal()
  }
  app.use(waitForIndex)
  mount(app, needs.indexed)
  app.use(() => {
    throw new RelayRefusal("not_found")
  })
  app.use(errorHandler(needs, refusals))
  return app
}

/** As the table has it; "" where no route was found. */
function routeOf(req: Request): string {
  return typeof req.route?.path === "string" ? req.route.path : ""
}

/** What a request counts as: a route of the table, and never a method that only its client knows. */
function labelsOf(req: Request, res: Response): RequestLabels {
  const route = routeOf(req) || "unknown"
  const method = methods.includes(req.method) ? req.method : "other"
  return { route, method, status: res.headersSent ? String(res.statusCode) : "none" }
}

const methods: readonly string[] = ["GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD"]

const everyRequest: RequestHandler = (req, res, next) => {
  setCommonHeaders(res)
  if (req.headers["transfer-encoding"] !== undefined) {
    // Without a length nothing could be bounded before it is read; and two ways of saying where a
    // request ends are how requests are smuggled past a proxy.
    res.setHeader("Connection", "close")
    throw new RelayRefusal("bad_request", { detail: "Transfer-Encoding is not taken here" })
  }
  const { expect } = req.headers
  if (expect !== undefined && !/^100-continue$/i.test(expect)) {
    throw new RelayRefusal("bad_request", { detail: "an unknown expectation" })
  }
  next()
}

/** What is said of something that is not there. An index that has just been lost has nothing. */
const absences: ReadonlySet<RelayRefusal["code"]> = new Set([
  "unauthorized",
  "not_found",
  "no_such_inbox",
  "upload_expired",
  "parts_missing",
])

function errorHandler(
  needs: AppNeeds,
  refusals: WeakMap<IncomingMessage, string>,
): ErrorRequestHandler {
  const { log, doubt } = needs

  function answer(error: unknown, req: Request, res: Response): void {
    const refusal = refusalFor(error)
    refusals.set(req, refusal.code)
    if (error instanceof DamagedRecord) log("record_refused", failureFields(error), "alarm")
    const { code, status } = refusal
    if (error instanceof IndexUnavailable) {
      const said = { route: routeOf(req), method: req.method, status, code: error.reason }
      log("request_failed", { ...said, ...failureFields(error) }, "warning")
    } else if (code === "internal" || code === "relay_full" || !isExpected(error)) {
      const said = { route: routeOf(req), method: req.method, status }
      // What the relay decided is no failure, though its operator has to know that there is no room.
      if (error === refusal) log("request_refused", { ...said, code }, "warning")
      else log("request_failed", { ...said, ...failureFields(error) }, "warning")
    }
    if (res.headersSent) {
      // Half of an answer cannot be taken back; the client must not take it for a whole one.
      res.destroy()
      return
    }
    if (!req.complete && (code === "too_slow" || code === "too_large")) {
      res.setHeader("Connection", "close")
    }
    replyProblem(res, refusal, extraHeaders(refusal))
  }

  // Express knows an error handler by its four parameters.
  return (error: unknown, req, res, _next) => {
    if (error instanceof ClientGone) {
      res.destroy()
      return
    }
    if (doubt === undefined || !(error instanceof RelayRefusal && absences.has(error.code))) {
      answer(error, req, res)
      return
    }
    void doubt().then(() => answer(needs.isReady() ? error : needs.refusal(), req, res))
  }
}

/** What clients do that is not as it should be, and the relay's own no. */
function isExpected(error: unknown): boolean {
  return [RelayRefusal, FormatError, URIError].some((kind) => error instanceof kind)
}

export function refusalFor(error: unknown): RelayRefusal {
  if (error instanceof RelayRefusal) return error
  if (error instanceof FormatError) {
    return new RelayRefusal("bad_request", { detail: error.message })
  }
  // The router's word for a path whose %-escapes do not decode.
  if (error instanceof URIError) return new RelayRefusal("not_found")
  if (isDiskFull(error)) return relayFull()
  if (isDiskBroken(error)) return diskUnavailable()
  // Connections take descriptors, and most of them go soon.
  if (hasCode(error, "EMFILE", "ENFILE")) return busy()
  if (error instanceof IndexUnavailable) return indexUnavailable()
  return new RelayRefusal("internal")
}

function extraHeaders(refusal: RelayRefusal): Record<string, string> {
  if (refusal instanceof MethodRefusal) return { Allow: refusal.allow }
  if (refusal instanceof RangeRefusal) return { "Content-Range": `bytes */${refusal.size}` }
  return {}
}

/**
 * A client that is still sending when it has its answer would not read it if the connection were cut
 * under it. The rest of the body is read and thrown away, for a while.
 */
function lingerOverBody(req: IncomingMessage, clock: Clock): void {
  if (req.complete) return
  const { socket } = req
  const stop = (): void => {
    cancel()
    socket.off("close", stop)
  }
  const cancel = clock.after(lingerMs, () => socket.destroy())
  req.once("end", stop)
  // An answered request does not hear that its connection is gone.
  socket.once("close", stop)
  req.resume()
}
