// Reading requests: what they must declare, and their bodies.
import type { IncomingMessage, ServerResponse } from "node:http"
import { FormatError, KIB, parseBearer, parseUtf8, RelayRefusal } from "../../protocol/index.js"
// Of Node alone, as the relay is.
import { giveBack } from "../../protocol/crypto/node.js"
import type { Clock } from "../clock.js"

/** Enough for the largest JSON request, a start with 32 recipients or a registration. */
const mostJsonBytes = 16 * KIB
/** A body slower than this is cut off: whoever holds a connection has to use it. */
const leastBytesAMinute = 60 * KIB
const minuteMs = 60_000
/** A JSON request fits in one packet or a few; there is no reason to take longer over it. */
const jsonDeadlineMs = 120_000

/** The client went away in the middle. There is nobody to answer. */
export class ClientGone extends Error {
  override readonly name = "ClientGone"
}

/** The bearer credential. Every way of not having one is the same refusal. */
export function readBearer(req: IncomingMessage): Uint8Array {
  try {
    return parseBearer(req.headers.authorization)
  } catch (error) {
    if (!(error instanceof FormatError)) throw error
    throw new RelayRefusal("unauthorized")
  }
}

/** Content-Length, which a body must declare. Transfer-Encoding was refused before. */
export function contentLength(req: IncomingMessage): number {
  const text = req.headers["content-length"]
  if (text === undefined) throw new RelayRefusal("length_required")
  const length = Number(text)
  if (!/^[0-9]{1,15}$/.test(text) || !Number.isSafeInteger(length)) {
    throw new FormatError("content-length", "not a length")
  }
  return length
}

export function checkContentType(req: IncomingMessage, wanted: string): void {
  const type = (req.headers["content-type"] ?? "").split(";", 1)[0]?.trim().toLowerCase()
  if (type !== wanted) throw new RelayRefusal("unsupported_media_type")
}

/** Refuses a body where there is to be none. */
export function checkNoBody(req: IncomingMessage): void {
  const text = req.headers["content-length"]
  if (text !== undefined && text !== "0") throw new FormatError("body", "there is none here")
}

export async function readJson(
  req: IncomingMessage,
  res: ServerResponse,
  clock: Clock,
): Promise<unknown> {
  checkContentType(req, "application/json")
  const lengthBytes = contentLength(req)
  if (lengthBytes > mostJsonBytes) {
    throw new RelayRefusal("too_large", { extras: { limit: mostJsonBytes } })
  }
  const bytes = new Uint8Array(lengthBytes)
  let at = 0
  await receiveBody(req, res, {
    clock,
    lengthBytes,
    deadlineMs: jsonDeadlineMs,
    take(chunk) {
      bytes.set(chunk, at)
      at += chunk.length
    },
  })
  try {
    return JSON.parse(parseUtf8(bytes, "body"))
  } catch (error) {
    if (error instanceof SyntaxError) throw new FormatError("body", "not JSON", { cause: error })
    throw error
  }
}

export interface ReceiveOptions {
  readonly clock: Clock
  readonly lengthBytes: number
  /** For bodies that have no business taking long. */
  readonly deadlineMs?: number
  /** The socket is not read while a promise is pending. */
  take(chunk: Uint8Array): Promise<void> | void
  /** The receiver has no more use for a chunk once it is taken. */
  readonly isCopied?: boolean
  /** Ends the reception, with the signal's reason. */
  readonly signal?: AbortSignal
}

/** Hands the body over as it comes. Resolves when all of it was taken. */
export function receiveBody(
  req: IncomingMessage,
  res: ServerResponse,
  options: ReceiveOptions,
): Promise<void> {
  const { clock, lengthBytes } = options
  if (lengthBytes === 0) return Promise.resolve()
  // Whoever left before this would not be heard leaving.
  if (req.destroyed) return Promise.reject(new ClientGone())
  return new Promise((resolve, reject) => {
    let received = 0
    let receivedBefore = 0
    let isTaking = false
    let hasEnded = false
    let isSettled = false
    let cancelPace: (() => void) | undefined
    let cancelDeadline: (() => void) | undefined

    function settle(done: () => void): void {
      if (isSettled) return
      isSettled = true
      cancelPace?.()
      cancelDeadline?.()
      options.signal?.removeEventListener("abort", onAbort)
      req.off("data", onData)
      req.off("end", onEnd)
      req.off("close", onClose)
      req.off("error", onClose)
      done()
    }
    function fail(error: unknown): void {
      settle(() => {
        req.pause()
        reject(error)
      })
    }
    function finishIfDone(): void {
      if (!hasEnded || isTaking) return
      if (received === lengthBytes) settle(resolve)
      else fail(new ClientGone())
    }
    function onData(chunk: Buffer): void {
      received += chunk.length
      if (received > lengthBytes) {
        fail(new FormatError("body", "longer than declared"))
        return
      }
      let taken: Promise<void> | void
      try {
        taken = options.take(chunk)
      } catch (error) {
        fail(error)
        return
      }
      if (taken === undefined) {
        if (options.isCopied === true) giveBack(chunk)
        return
      }
      isTaking = true
      req.pause()
      taken.then(() => {
        isTaking = false
        if (options.isCopied === true) giveBack(chunk)
        if (isSettled) return
        req.resume()
        finishIfDone()
      }, fail)
    }
    function onEnd(): void {
      hasEnded = true
      finishIfDone()
    }
    function onClose(): void {
      if (!hasEnded) fail(new ClientGone())
    }
    function onAbort(): void {
      fail(options.signal?.reason)
    }
    function watchPace(): void {
      cancelPace = clock.after(minuteMs, () => {
        // Time that the relay itself took, with the socket unread, is not the client's.
        if (!isTaking && received - receivedBefore < leastBytesAMinute) {
          fail(new RelayRefusal("too_slow"))
          return
        }
        receivedBefore = received
        watchPace()
      })
    }

    watchPace()
    if (options.deadlineMs !== undefined) {
      cancelDeadline = clock.after(options.deadlineMs, () => fail(new RelayRefusal("too_slow")))
    }
    options.signal?.addEventListener("abort", onAbort)
    req.on("data", onData)
    req.on("end", onEnd)
    req.on("close", onClose)
    req.on("error", onClose)
    if (/^100-continue$/i.test(req.headers.expect ?? "")) res.writeContinue()
    req.resume()
  })
}
