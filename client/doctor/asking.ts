/**
 * Requests as an examiner makes them: one each on a connection of its own, any answer is an answer, and
 * when its pieces came is told. A certificate that does not verify is written down and the rest is
 * examined all the same: nothing that is sent here is a secret, and nothing that comes is believed.
 */
import http from "node:http"
import https from "node:https"
import { TLSSocket, type DetailedPeerCertificate } from "node:tls"
import { concatBytes } from "../../protocol/index.js"
import { asError, type CallOptions } from "../progress.js"
import { relayAgent } from "../relay-agent.js"

export interface Question {
  readonly method: "GET" | "PUT" | "POST" | "OPTIONS"
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: {
    readonly lengthBytes: number
    /** Silence after the first piece. */
    readonly pauseMs?: number
    /** No more than the first piece is sent; without an answer by then the asker hangs up. */
    readonly hangUpAfterMs?: number
  }
  readonly timeoutMs: number
}

export interface Answer {
  readonly status: number
  readonly headers: http.IncomingHttpHeaders
  readonly body: Uint8Array
  /** How long before the end so many bytes were there. */
  readonly earlyMs: (lengthBytes: number) => number
  readonly certificate: Certificate | undefined
}

export interface Certificate {
  /** Why it does not verify, as OpenSSL or Node names it. */
  readonly problem: string | undefined
  /** What was sent, the relay's own first. */
  readonly chain: readonly {
    readonly subject: string
    readonly issuer: string
    readonly validFromMs: number
    readonly validToMs: number
  }[]
}

/** The asker hung up as it meant to: nobody refused what it announced. */
export class NotRefused extends Error {
  override readonly name = "NotRefused"
}

export const firstPieceBytes: number = 16 * 1024
const mostAnswerBytes = 1024 * 1024

export class Asker {
  readonly #origin: string
  readonly #call: CallOptions

  constructor(origin: string, call: CallOptions) {
    this.#origin = origin
    this.#call = call
  }

  throwIfAborted(): void {
    this.#call.signal?.throwIfAborted()
  }

  async ask(question: Question): Promise<Answer> {
    const agent = relayAgent(this.#origin, this.#call.proxies, { keepAlive: false })
    try {
      return await this.#exchange(question, agent)
    } finally {
      agent.destroy()
    }
  }

  #exchange(question: Question, agent: http.Agent): Promise<Answer> {
    const { signal } = this.#call
    const url = new URL(this.#origin)
    const secure = url.protocol === "https:"
    return new Promise((resolve, reject) => {
      const outgoing = (secure ? https : http).request({
        hostname: url.hostname.replace(/^\[|\]$/g, ""),
        port: url.port,
        agent,
        method: question.method,
        path: question.path,
        headers: {
          accept: "*/*",
          ...(question.body && {
            "content-type": "application/octet-stream",
            "content-length": String(question.body.lengthBytes),
          }),
          ...(question.body === undefined &&
            question.method === "POST" && { "content-length": "0" }),
          ...question.headers,
        },
        ...(secure && { rejectUnauthorized: false }),
      })
      const timers: NodeJS.Timeout[] = []
      const settle = (finish: () => void) => {
        for (const timer of timers) clearTimeout(timer)
        signal?.removeEventListener("abort", onAbort)
        outgoing.destroy()
        finish()
      }
      const fail = (error: unknown) => settle(() => reject(asError(error)))
      const onAbort = () => fail(signal?.reason)
      if (signal?.aborted) {
        onAbort()
        return
      }
      signal?.addEventListener("abort", onAbort, { once: true })
      const after = (ms: number, then: () => void) => void timers.push(setTimeout(then, ms))
      after(question.timeoutMs, () =>
        fail(Object.assign(new Error("no answer in time"), { code: "ETIMEDOUT" })),
      )
      let answered = false
      outgoing.on("error", (error) => {
        if (!answered) fail(error)
      })
      // Without this Node would close the connection, and say nothing of it but that it is closed.
      outgoing.on("upgrade", (incoming, socket) => {
        socket.destroy()
        settle(() => resolve(bare(incoming)))
      })
      outgoing.on("close", () => {
        if (!answered) fail(new Error("the connection was closed without an answer"))
      })
      outgoing.on("response", (incoming) => {
        answered = true
        collect(incoming).then((answer) => settle(() => resolve(answer)), fail)
      })
      sendBody(outgoing, question, { after, fail })
    })
  }
}

function sendBody(
  outgoing: http.ClientRequest,
  { body }: Question,
  { after, fail }: { after: (ms: number, then: () => void) => void; fail: (error: Error) => void },
): void {
  if (body === undefined) {
    outgoing.end()
    return
  }
  const first = Math.min(firstPieceBytes, body.lengthBytes)
  const rest = () => outgoing.end(new Uint8Array(body.lengthBytes - first))
  outgoing.write(new Uint8Array(first), () => {
    if (body.hangUpAfterMs !== undefined) after(body.hangUpAfterMs, () => fail(new NotRefused()))
    else if (body.pauseMs === undefined) rest()
    else after(body.pauseMs, rest)
  })
}

/** An answer without a body. */
function bare({ statusCode = 0, headers }: http.IncomingMessage): Answer {
  return {
    status: statusCode,
    headers,
    body: new Uint8Array(0),
    earlyMs: () => 0,
    certificate: undefined,
  }
}

async function collect(incoming: http.IncomingMessage): Promise<Answer> {
  const certificate = incoming.socket instanceof TLSSocket ? describe(incoming.socket) : undefined
  const pieces: Uint8Array[] = []
  const arrivals: { readonly lengthBytes: number; readonly atMs: number }[] = []
  const beganMs = performance.now()
  let lengthBytes = 0
  for await (const piece of incoming) {
    // Node hands out Buffers unless an encoding was set, and none was.
    if (!(piece instanceof Uint8Array)) continue
    lengthBytes += piece.length
    if (lengthBytes > mostAnswerBytes) throw new Error("an answer without end")
    pieces.push(piece)
    arrivals.push({ lengthBytes, atMs: performance.now() })
  }
  const endMs = arrivals.at(-1)?.atMs ?? beganMs
  return {
    status: incoming.statusCode ?? 0,
    headers: incoming.headers,
    body: concatBytes(...pieces),
    earlyMs: (wanted) =>
      endMs - (arrivals.find((arrival) => arrival.lengthBytes >= wanted)?.atMs ?? endMs),
    certificate,
  }
}

function describe(socket: TLSSocket): Certificate {
  const chain: Certificate["chain"][number][] = []
  const seen = new Set<string>()
  let certificate: DetailedPeerCertificate | undefined = socket.getPeerCertificate(true)
  while (certificate?.fingerprint256 !== undefined && !seen.has(certificate.fingerprint256)) {
    seen.add(certificate.fingerprint256)
    chain.push({
      subject: nameOf(certificate.subject),
      issuer: nameOf(certificate.issuer),
      validFromMs: Date.parse(certificate.valid_from),
      validToMs: Date.parse(certificate.valid_to),
    })
    certificate = certificate.issuerCertificate
  }
  // Typed as an Error; what Node puts there is its code.
  const problem = socket.authorized ? undefined : String(socket.authorizationError)
  return { problem, chain }
}

function nameOf(name: DetailedPeerCertificate["subject"]): string {
  return String(name.CN ?? name.O ?? "")
}
