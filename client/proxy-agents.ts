/**
 * Connections through a SOCKS5 proxy or an HTTP proxy's CONNECT. Loaded only by those who have one: without
 * a proxy connections are made by reading-agent.ts.
 */
import http from "node:http"
import https from "node:https"
import { isIP, isIPv6 } from "node:net"
import type net from "node:net"
import tls from "node:tls"
import { Agent, type AgentConnectOpts } from "agent-base"
import { SocksProxyAgent } from "socks-proxy-agent"
import { errorCode } from "./error-code.js"
import { ProxyFailure } from "./proxies.js"

/** Of a connection through Tor, most take a few seconds and some take twenty. */
const connectTimeoutMs = 30_000

interface ProxyAgentOptions extends http.AgentOptions {
  /** Whether the relay behind the proxy speaks TLS. */
  readonly secure: boolean
}

type Connect = (request: http.ClientRequest, options: AgentConnectOpts) => Promise<net.Socket>

export function proxyAgent(proxy: URL, { secure, ...options }: ProxyAgentOptions): http.Agent {
  const connect =
    proxy.protocol === "socks5h:" ? connectBySocks(proxy, options) : connectByTunnel(proxy, secure)
  return new ProxyAgent(connect, secure, options)
}

class ProxyAgent extends Agent {
  readonly #connect: Connect
  readonly #secure: boolean

  constructor(connect: Connect, secure: boolean, options: http.AgentOptions) {
    super(options)
    this.#connect = connect
    this.#secure = secure
  }

  /** Told by what was asked for, where the package would look at its caller's stack. */
  override isSecureEndpoint(): boolean {
    return this.#secure
  }

  override connect(request: http.ClientRequest, options: AgentConnectOpts): Promise<net.Socket> {
    return this.#connect(request, options)
  }
}

function connectBySocks(proxy: URL, options: http.AgentOptions): Connect {
  const socks = new SocksProxyAgent(proxy, options)
  return async (request, asked) => {
    try {
      return await socks.connect(request, asked)
    } catch (error) {
      throw socksFailure(proxy, error)
    }
  }
}

/**
 * Asks by node:http. The package there is for this reads an answer of any length into memory, and hands on
 * what a proxy says instead of connecting as if the relay had said it.
 */
function connectByTunnel(proxy: URL, secure: boolean): Connect {
  return async (_request, options) => {
    const { host = "", port } = options
    const authority = `${isIPv6(host) ? `[${host}]` : host}:${port}`
    const { status, socket } = await askForTunnel(proxy, authority)
    if (status !== 200) {
      socket.destroy()
      throw refusedTunnel(proxy, status)
    }
    if (!secure) return socket
    // The path of the request, which tls would take for that of a Unix socket.
    const { path: _, ...asked }: AgentConnectOpts & { path?: string | undefined } = options
    return tls.connect({ ...asked, socket, ...(isIP(host) === 0 && { servername: host }) })
  }
}

function askForTunnel(
  proxy: URL,
  authority: string,
): Promise<{ status: number | undefined; socket: net.Socket }> {
  const { protocol, hostname, port, username, password } = proxy
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
      reject(new ProxyFailure(proxy, "does not answer", { retryable: true }))
      asking.destroy()
    }, connectTimeoutMs)
    asking.once("connect", ({ statusCode }, socket: net.Socket, ahead) => {
      clearTimeout(timer)
      if (ahead.length > 0) socket.unshift(ahead)
      resolve({ status: statusCode, socket })
    })
    asking.on("error", (error) => {
      clearTimeout(timer)
      reject(tunnelFailure(proxy, error))
    })
    asking.end()
  })
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
