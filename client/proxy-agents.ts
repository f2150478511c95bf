/**
 * Connections through a SOCKS5 proxy or an HTTP proxy's CONNECT. Loaded only by those who have one: without
 * a proxy connections are made by reading-agent.ts.
 */
import http from "node:http"
import https from "node:https"
import { isIP, isIPv6 } from "node:net"
import type net from "node:net"
import tls from "node:tls"
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

  /**
   * Asks by node:http: the package's own way reads an answer of any length into memory, and hands on what
   * a proxy says instead of connecting as if the relay had said it.
   */
  override async connect(_request: http.ClientRequest, options: ConnectOptions) {
    const { host = "", port } = options
    const { status, socket } = await this.#ask(`${isIPv6(host) ? `[${host}]` : host}:${port}`)
    if (status !== 200) {
      socket.destroy()
      throw refusedTunnel(this.#url, status)
    }
    if (!this.#secure) return socket
    // The path of the request, which tls would take for that of a Unix socket.
    const { path: _, ...asked }: ConnectOptions & { path?: string | undefined } = options
    return tls.connect({ ...asked, socket, ...(isIP(host) === 0 && { servername: host }) })
  }

  #ask(authority: string): Promise<{ status: number | undefined; socket: net.Socket }> {
    const { protocol, hostname, port, username, password } = this.#url
    const credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`
    const asking = (protocol === "https:" ? https : http).request({
      agent: false,
      hostname: hostname.replace(/^\[|\]$/g, ""),
      port,
      method: "CONNECT",
      path: authority,
      headers: {
        host: authority,
        ...(credentials !== ":" && {
          "proxy-authorization": `Basic ${Buffer.from(credentials).toString("base64")}`,
        }),
      },
    })
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new ProxyFailure(this.#url, "does not answer", { retryable: true }))
        asking.destroy()
      }, connectTimeoutMs)
      asking.once("connect", ({ statusCode }, socket: net.Socket, ahead) => {
        clearTimeout(timer)
        if (ahead.length > 0) socket.unshift(ahead)
        resolve({ status: statusCode, socket })
      })
      asking.on("error", (error) => {
        clearTimeout(timer)
        reject(tunnelFailure(this.#url, error))
      })
      asking.end()
    })
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

function tunnelFailure(proxy: URL, error: Error): ProxyFailure {
  const code = errorCode(error) ?? ""
  if (code.startsWith("HPE_")) {
    const reason = "does not speak as one; check its address"
    return new ProxyFailure(proxy, reason, { retryable: false, cause: error })
  }
  const reason = unreachableProxy[code] ?? `failed (${code === "" ? error.message : code})`
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
