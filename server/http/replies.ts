// What every answer of the relay looks like. Headers are an allow-list: what is not set here is not
// sent, except for Date, Connection and Keep-Alive, which Node adds.
import type { ServerResponse } from "node:http"
import { encodeProblem, type JsonObject, type RelayRefusal } from "../../protocol/index.js"

/** Nothing the relay serves is to be shown, run, cached or read into another page's process. */
export const commonHeaders: Readonly<Record<string, string>> = {
  "Access-Control-Allow-Origin": "*",
  "Access-Control-Expose-Headers": "Content-Range, Retry-After, Accept-Ranges",
  "Cache-Control": "no-store",
  "Content-Security-Policy": "sandbox; default-src 'none'",
  "Cross-Origin-Resource-Policy": "cross-origin",
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
}

/** Any origin may ask: no cookie or other ambient authority exists that a page could borrow. */
const preflightHeaders: Readonly<Record<string, string>> = {
  "Access-Control-Allow-Headers": "Authorization, Content-Type, Range, Idempotency-Key",
  "Access-Control-Max-Age": "86400",
}

export function setCommonHeaders(res: ServerResponse): void {
  for (const [name, value] of Object.entries(commonHeaders)) res.setHeader(name, value)
}

export function replyJson(res: ServerResponse, value: JsonObject, status: number = 200): void {
  send(res, status, "application/json", JSON.stringify(value))
}

export function replyText(res: ServerResponse, text: string, status: number = 200): void {
  send(res, status, "text/plain; charset=utf-8", text)
}

export function replyHtml(res: ServerResponse, text: string): void {
  send(res, 200, "text/html; charset=utf-8", text)
}

export function replyEmpty(res: ServerResponse): void {
  res.writeHead(204).end()
}

export function replyPreflight(res: ServerResponse, methods: readonly string[]): void {
  const allowed = methods.join(", ")
  res
    .writeHead(204, {
      ...preflightHeaders,
      "Access-Control-Allow-Methods": allowed,
      Allow: allowed,
    })
    .end()
}

export function replyProblem(
  res: ServerResponse,
  refusal: RelayRefusal,
  headers: Readonly<Record<string, string>> = {},
): void {
  for (const [name, value] of Object.entries(headers)) res.setHeader(name, value)
  if (refusal.retryAfterSeconds !== undefined) {
    res.setHeader("Retry-After", refusal.retryAfterSeconds)
  }
  const problem = { ...encodeProblem(refusal) }
  send(res, refusal.status, "application/problem+json", JSON.stringify(problem))
}

export function replyBytes(res: ServerResponse, bytes: Uint8Array): void {
  setDataHeaders(res, bytes.length)
  res.writeHead(200).end(bytes)
}

/** For bytes that follow. They are somebody's sealed data, whatever they look like. */
export function setDataHeaders(res: ServerResponse, lengthBytes: number): void {
  res.setHeader("Content-Type", "application/octet-stream")
  res.setHeader("Content-Disposition", "attachment")
  res.setHeader("Content-Length", lengthBytes)
}

function send(res: ServerResponse, status: number, type: string, text: string): void {
  const body = Buffer.from(text)
  res.writeHead(status, { "Content-Type": type, "Content-Length": body.length }).end(body)
}
