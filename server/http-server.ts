// The listening side: Node's HTTP server with its limits set, started and drained.
import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerOptions,
} from "node:http"
import { createServer as createTlsServer } from "node:https"
import type { AddressInfo, Socket } from "node:net"
import type { SecureContextOptions } from "node:tls"
import { encodeProblem, KIB, RelayRefusal } from "../protocol/index.js"
import type { Clock } from "./clock.js"
import type { ListenAddress } from "./config.js"
import { hasCode } from "./disk.js"
import { createDoor } from "./http/connections.js"
import { commonHeaders } from "./http/replies.js"
import { createTurns } from "./http/turns.js"
import { failureFields, type Log, type LogFields } from "./log.js"

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

/**
 * A browser that saw this never asks this host in the clear again, for a year. For the host alone: what
 * else its operator has under the name is none of the relay's business.
 */
const onlyTls = "max-age=31536000"
/** A request line and the headers that our clients send fit several times. */
const headerBytes = 8 * KIB
const headersAtMost = 40
const headersTimeoutMs = 10_000
/** A connection on which nothing moves: longer than the longest long poll. */
const idleMs = 60_000
const keepAliveMs = 5_000
const checkEveryMs = 5_000
/** How long a client may take to read why its connection ends. */
const lingerMs = 10_000
const sayEveryMs = 60_000
const drainMs = 10_000
const drainLookMs = 50

export interface HttpServerNeeds {
  readonly app: RequestListener
  readonly clock: Clock
  readonly log: Log
  readonly connectionsAtMost: number
  /** Speaks TLS when there is one. */
  readonly certificate?: SecureContextOptions | undefined
}

export function createHttpServer(needs: HttpServerNeeds): HttpServer {
  const { clock, log, certificate } = needs
  let isStopping = false
  const turns = createTurns((req, res) => {
    // Whoever keeps asking on one connection goes elsewhere with the next request.
    if (isStopping) res.setHeader("Connection", "close")
    if (certificate !== undefined) res.setHeader("Strict-Transport-Security", onlyTls)
    needs.app(req, res)
  })
  const { listener } = turns
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
  server.setTimeout(idleMs)
  // The body is asked for when a handler wants it, so a refused upload is never sent.
  server.on("checkContinue", listener)
  server.on("checkExpectation", listener)
  server.on("clientError", (error: Error, socket: Socket) => {
    // In the middle of an answer another one would be read as part of it; and who said nothing at all
    // asked nothing. Of those there may be thousands at once.
    const isSilent = socket.bytesRead === 0
    const isAnswering = turns.isAnswering(socket)
    if (hasCode(error, "ECONNRESET") || !socket.writable || isSilent || isAnswering) {
      socket.destroy()
      return
    }
    answerBadRequest(error, socket)
    const cancel = clock.after(lingerMs, () => socket.destroy())
    socket.once("close", cancel)
  })
  const refused = sayNowAndThen("connections_refused", { clock, log })
  const door = createDoor(needs.connectionsAtMost, () => refused({}))
  server.on("connection", door)
  // Node ends the process over an error that nobody hears: here one of accepting, as when there are no
  // descriptors left.
  server.on("error", (error) => {
    if (server.listening) refused(failureFields(error))
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
      isStopping = true
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

/** A warning at once, and then once a minute with how many there were. */
function sayNowAndThen(
  event: string,
  { clock, log }: { readonly clock: Clock; readonly log: Log },
): (fields: LogFields) => void {
  let count = 0
  let isQuiet = false
  return (fields) => {
    count += 1
    if (isQuiet) return
    isQuiet = true
    log(event, { ...fields, count }, "warning")
    count = 0
    clock.after(sayEveryMs, () => (isQuiet = false))
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
