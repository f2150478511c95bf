// The listening side: Node's HTTP server with its limits set, started and drained.
import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from "node:http"
import { createServer as createTlsServer } from "node:https"
import type { AddressInfo, Socket } from "node:net"
import type { SecureContextOptions } from "node:tls"
import { encodeProblem, KIB, RelayRefusal } from "../protocol/index.js"
import type { Clock } from "./clock.js"
import type { ListenAddress } from "./config.js"
import { hasCode } from "./disk.js"
import { commonHeaders } from "./http/replies.js"

export interface HttpServer {
  /** Resolves to where it listens. */
  start(listen: ListenAddress): Promise<ListenAddress>
  /** For connections from now on. Only for a server that began with a certificate. */
  useCertificate(context: SecureContextOptions): void
  /** Takes nothing new, lets what is under way end, for a while, and then cuts it off. */
  stop(): Promise<void>
  /** How many are open. */
  connections(): Promise<number>
}

/** A request line and the headers that our clients send fit several times. */
const headerBytes = 8 * KIB
const headersAtMost = 40
const headersTimeoutMs = 10_000
/** A connection on which nothing moves: longer than the longest long poll. */
const idleMs = 60_000
const keepAliveMs = 5_000
const checkEveryMs = 5_000
const requestsPerConnection = 1000
const connectionsAtMost = 16_384
const drainMs = 10_000
const drainLookMs = 50

/** Speaks TLS when it is given a certificate. */
export function createHttpServer(
  app: RequestListener,
  clock: Clock,
  certificate?: SecureContextOptions,
): HttpServer {
  /** Those that are not out yet, by the connection they are for. */
  const answers = new WeakMap<Socket, Set<ServerResponse>>()
  const listener = (req: IncomingMessage, res: ServerResponse): void => {
    const ours = answers.get(req.socket) ?? new Set()
    answers.set(req.socket, ours.add(res))
    res.once("close", () => ours.delete(res))
    app(req, res)
  }
  const options: ServerOptions = {
    maxHeaderSize: headerBytes,
    headersTimeout: headersTimeoutMs,
    // A large body over a slow line takes as long as it takes; http/requests.ts watches its pace.
    requestTimeout: 0,
    keepAliveTimeout: keepAliveMs,
    connectionsCheckingInterval: checkEveryMs,
  }
  const tlsServer =
    certificate === undefined
      ? undefined
      : createTlsServer(
          { ...options, ...certificate, handshakeTimeout: headersTimeoutMs },
          listener,
        )
  const server: Server = tlsServer ?? createServer(options, listener)
  server.maxHeadersCount = headersAtMost
  server.maxRequestsPerSocket = requestsPerConnection
  server.maxConnections = connectionsAtMost
  server.setTimeout(idleMs)
  // The body is asked for when a handler wants it, so a refused upload is never sent.
  server.on("checkContinue", listener)
  server.on("checkExpectation", listener)
  server.on("clientError", (error: Error, socket: Socket) => {
    const isAnswering = [...(answers.get(socket) ?? [])].some((res) => res.headersSent)
    // In the middle of an answer another one would be read as part of it.
    if (hasCode(error, "ECONNRESET") || !socket.writable || isAnswering) socket.destroy()
    else answerBadRequest(error, socket)
  })
  server.on("upgrade", (_req: IncomingMessage, socket: Socket) => socket.destroy())
  server.on("connect", (_req: IncomingMessage, socket: Socket) => socket.destroy())

  return {
    start({ host, port }) {
      return new Promise((resolve, reject) => {
        server.once("error", reject)
        server.listen(port, host, () => {
          server.off("error", reject)
          resolve({ host, port: boundPort(server) ?? port })
        })
      })
    },

    connections() {
      return new Promise((resolve, reject) => {
        server.getConnections((error, count) => {
          if (error === null) resolve(count)
          else reject(error)
        })
      })
    },

    useCertificate(context) {
      tlsServer?.setSecureContext(context)
    },

    async stop() {
      if (!server.listening) return
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      let stopLooking: (() => void) | undefined
      const look = (): void => {
        server.closeIdleConnections()
        stopLooking = clock.after(drainLookMs, look)
      }
      look()
      const cancel = clock.after(drainMs, () => server.closeAllConnections())
      await closed
      cancel()
      stopLooking?.()
    },
  }
}

function boundPort(server: Server): number | undefined {
  const address: AddressInfo | string | null = server.address()
  return typeof address === "object" ? address?.port : undefined
}

/** What is no HTTP gets an answer in the form of all others, and the connection is closed. */
function answerBadRequest(error: Error, socket: Socket): void {
  const refusal = hasCode(error, "ERR_HTTP_REQUEST_TIMEOUT")
    ? new RelayRefusal("too_slow")
    : new RelayRefusal("bad_request", { detail: "not a request this relay can read" })
  const body = JSON.stringify(encodeProblem(refusal))
  const headers = {
    ...commonHeaders,
    "Content-Type": "application/problem+json",
    "Content-Length": String(Buffer.byteLength(body)),
    Connection: "close",
  }
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}`)
  const status = `HTTP/1.1 ${refusal.status} ${refusal.status === 408 ? "Request Timeout" : "Bad Request"}`
  socket.end(`${[status, ...lines].join("\r\n")}\r\n\r\n${body}`)
}
