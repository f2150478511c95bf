/**
 * Connections through a SOCKS5 proxy or an HTTP proxy's CONNECT. Loaded only by those who have one: without
 * a proxy connections are made by reading-agent.ts.
 */
import type http from "node:http"
import type net from "node:net"
import { HttpsProxyAgent } from "https-proxy-agent"
import { SocksProxyAgent } from "socks-proxy-agent"
import { errorCode } from "./error-code.js"
import { ProxyFailure } from "./proxies.js"

/** Of a connection through Tor, most take a few seconds and some take twenty. */
const connectTimeoutMs = 30_000

interface ProxyAgentOptions extends http.AgentOptions {
  /** Whether the relay behind the proxy speaks TLS. */
  readonly secure: boolean
}

type ConnectOptions = Parameters<SocksProxyAgent["connect"]>[1]

export function proxyAgent(proxy: URL, { secure, ...options }: ProxyAgentOptions): http.Agent {
  return proxy.protocol === "socks5h:"
    ? new SocksAgent(proxy, secure, options)
    : new TunnelAgent(proxy, secure, options)
}

class SocksAgent extends SocksProxyAgent {
  readonly #url: URL
  readonly #secure: boolean

  constructor(proxy: URL, secure: boolean, options: http.AgentOptions) {
    super(proxy, options)
    this.#url = proxy
    this.#secure = secure
  }

  /** Told by what was asked for, where the package would look at its caller's stack. */
  override isSecureEndpoint(): boolean {
    return this.#secure
  }

  override async connect(request: http.ClientRequest, options: ConnectOptions) {
    try {
      return await super.connect(request, options)
    } catch (error) {
      throw socksFailure(this.#url, error)
    }
  }
}

class TunnelAgent extends HttpsProxyAgent<string> {
  readonly #url: URL
  readonly #secure: boolean

  constructor(proxy: URL, secure: boolean, options: http.AgentOptions) {
    super(proxy, options)
    this.#url = proxy
    this.#secure = secure
  }

  override isSecureEndpoint(): boolean {
    return this.#secure
  }

  override async connect(request: http.ClientRequest, options: ConnectOptions) {
    let status: number | undefined
    const seen = ({ statusCode }: { statusCode: number }) => (status = statusCode)
    request.once("proxyConnect", seen)
    const tooLate = new AbortController()
    const timer = setTimeout(() => tooLate.abort(), connectTimeoutMs)
    let socket: net.Socket
    try {
      // An agent for each connection: only so can one that never answers be given up.
      const dial = new HttpsProxyAgent<string>(this.#url, { signal: tooLate.signal })
      socket = await dial.connect(request, options)
    } catch (error) {
      if (tooLate.signal.aborted) {
        throw new ProxyFailure(this.#url, "does not answer", { retryable: true, cause: error })
      }
      throw tunnelFailure(this.#url, error)
    } finally {
      clearTimeout(timer)
      request.off("proxyConnect", seen)
    }
    // The package hands on what a proxy says instead of a connection as if the relay had said it, and
    // nobody's certificate has been looked at.
    if (status !== 200) {
      socket.destroy()
      throw refusedTunnel(this.#url, status)
    }
    return socket
  }
}

function refusedTunnel(proxy: URL, status: number | undefined): ProxyFailure {
  if (status === 407) return wantsCredentials(proxy)
  const passes = status === 429 || (status !== undefined && status >= 500)
  const reason = `does not connect to the relay (status ${status ?? "unknown"})`
  return new ProxyFailure(proxy, reason, { retryable: passes })
}

function wantsCredentials(proxy: URL, cause?: unknown): ProxyFailure {
  const reason = `wants other credentials; put them into KNOTHOLE_PROXY, as ${proxy.protocol}//USER:PASSWORD@${proxy.host}`
  return new ProxyFailure(proxy, reason, { retryable: false, cause })
}

function tunnelFailure(proxy: URL, error: unknown): ProxyFailure {
  const code = errorCode(error)
  const said = unreachableProxy[code ?? ""]
  const reason =
    said ?? `failed (${code ?? (error instanceof Error ? error.message : String(error))})`
  return new ProxyFailure(proxy, reason, { retryable: code !== "ENOTFOUND", cause: error })
}

/** The package tells its failures apart by their text alone. */
function socksFailure(proxy: URL, error: unknown): ProxyFailure {
  const text = error instanceof Error ? error.message : String(error)
  if (/authenticat/i.test(text)) return wantsCredentials(proxy, error)
  const [, reply] = /rejected connection - (\w+)/.exec(text) ?? []
  const [, code] =
    /\b(ECONNREFUSED|ENOTFOUND|ECONNRESET|EHOSTUNREACH|ENETUNREACH)\b/.exec(text) ?? []
  const reason =
    reply !== undefined
      ? (socksReplies[reply] ?? `does not connect to the relay (${reply})`)
      : (unreachableProxy[code ?? ""] ??
        (/timed out/.test(text) ? "does not answer" : `failed (${text})`))
  return new ProxyFailure(proxy, reason, {
    retryable: reply !== "NotAllowed" && code !== "ENOTFOUND",
    cause: error,
  })
}

const unreachableProxy: Readonly<Record<string, string>> = {
  ECONNREFUSED: "is not there: nothing listens at that address",
  ECONNRESET: "broke the connection off",
  ENOTFOUND: "is not there: no such host",
  EHOSTUNREACH: "cannot be reached: no route to it",
  ENETUNREACH: "cannot be reached: no network",
}

/** RFC 1928, section 6, in the package's spelling. */
const socksReplies: Readonly<Record<string, string>> = {
  Failure: "failed to connect to the relay",
  NotAllowed: "does not allow a connection to the relay",
  NetworkUnreachable: "finds no network that leads to the relay",
  HostUnreachable: "does not find the relay",
  ConnectionRefused: "was refused by the relay's host: nothing listens there",
  TTLExpired: "does not reach the relay in time",
}
