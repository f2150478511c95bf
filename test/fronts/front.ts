// A small reverse proxy before a relay, whole or broken in one way.
import { once } from "node:events"
import http from "node:http"
import https from "node:https"
import type { AddressInfo } from "node:net"
import { buffer as readAll } from "node:stream/consumers"
import type { KeyPair } from "./certificates.js"

export interface Fault {
  /** A longer body is refused as proxies do, by its announced length. */
  readonly bodyLimit?: number
  /** Passes requests and answers on only when it has all of them. */
  readonly buffers?: boolean
  readonly clockAheadMs?: number
  readonly stripsCors?: boolean
  readonly stripsRange?: boolean
  readonly readTimeoutMs?: number
  /** Answers by itself. */
  readonly answers?: (response: http.ServerResponse) => void
}

export interface Front {
  readonly port: number
  readonly close: () => void
  /** Where the relay is; told when it runs, because it has to know of its fronts when it starts. */
  relayPort: number
}

export async function startFront(fault: Fault = {}, tls?: KeyPair): Promise<Front> {
  const handle = (request: http.IncomingMessage, response: http.ServerResponse) => {
    void pass({ request, response, fault, relayPort: front.relayPort }).catch(() =>
      response.destroy(),
    )
  }
  const server =
    tls === undefined
      ? http.createServer(handle)
      : https.createServer({ key: tls.key, cert: tls.certificate }, handle)
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const front: Front = {
    // A TCP server's address is an object with a port.
    port: (server.address() as AddressInfo).port,
    close: () => {
      server.close()
      server.closeAllConnections()
    },
    relayPort: 0,
  }
  return front
}

async function pass(input: {
  readonly request: http.IncomingMessage
  readonly response: http.ServerResponse
  readonly fault: Fault
  readonly relayPort: number
}): Promise<void> {
  const { request, response, fault, relayPort } = input
  if (fault.answers !== undefined) {
    fault.answers(response)
    return
  }
  const length = Number(request.headers["content-length"] ?? 0)
  if (fault.bodyLimit !== undefined && length > fault.bodyLimit) {
    response.writeHead(413, { "content-type": "text/html" })
    response.end("<html>413 Request Entity Too Large</html>")
    // As nginx does: whoever still sends would not read the answer if it were cut off.
    request.resume()
    return
  }
  const headers: http.IncomingHttpHeaders = { ...request.headers, "x-forwarded-for": "192.0.2.1" }
  if (fault.stripsRange === true) delete headers.range
  const { method, url } = request
  const onward = http.request({ host: "127.0.0.1", port: relayPort, method, path: url, headers })
  request.on("error", () => onward.destroy())
  response.on("close", () => onward.destroy())
  if (fault.readTimeoutMs !== undefined) {
    onward.setTimeout(fault.readTimeoutMs, () => {
      if (!response.headersSent) response.writeHead(504).end("gateway time-out")
      onward.destroy()
    })
  }
  const answered = once(onward, "response")
  // Whoever asked may be gone while its body is still collected.
  answered.catch(() => undefined)
  if (fault.buffers === true) onward.end(await readAll(request))
  else request.pipe(onward)
  const [answer] = (await answered) as [http.IncomingMessage]
  const { headers: said } = answer
  if (fault.stripsCors === true) {
    for (const name of Object.keys(said)) if (name.startsWith("access-control-")) delete said[name]
  }
  if (fault.clockAheadMs !== undefined) {
    said.date = new Date(Date.now() + fault.clockAheadMs).toUTCString()
  }
  if (fault.buffers === true) {
    const body = await readAll(answer)
    response.writeHead(answer.statusCode ?? 502, said).end(body)
    return
  }
  response.writeHead(answer.statusCode ?? 502, said)
  answer.on("error", () => response.destroy())
  answer.pipe(response)
}
