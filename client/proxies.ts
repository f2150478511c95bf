/**
 * Which proxy a connection goes through. Whoever names a proxy wants nothing to go around it, so one
 * named on purpose is used for every relay; what the machine's own variables name is used as other
 * programs use it, NO_PROXY included. Names of relays are always left to the proxy to resolve.
 */
import type http from "node:http"
import { BlockList, isIP } from "node:net"

export interface ProxySettings {
  /** Named for Knothole alone: used for every relay. */
  readonly proxy?: string | undefined
  /** Where HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY are looked up, in upper and lower case. */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined
}

/** What every call is handed that shall go through proxies. */
export interface Proxies {
  /** An agent that reaches `origin` through its proxy; undefined where there is none for it. */
  agentFor(origin: string, options: http.AgentOptions): http.Agent | undefined
}

/** A proxy that cannot be meant. The text of what was written is left out: it may hold a password. */
export class ProxyNotUsable extends Error {
  override readonly name = "ProxyNotUsable"
}

/** The proxy did not let us through. Nothing is known of the relay behind it. */
export class ProxyFailure extends Error {
  override readonly name = "ProxyFailure"
  readonly retryable: boolean

  constructor(proxy: URL, reason: string, options: { retryable: boolean; cause?: unknown }) {
    super(`the proxy ${showProxy(proxy)} ${reason}`, { cause: options.cause })
    this.retryable = options.retryable
  }
}

/** Throws ProxyNotUsable for a proxy that is not written as one, from wherever it comes. */
export async function openProxies(settings: ProxySettings): Promise<Proxies> {
  const choose = proxyChooser(settings)
  if (choose === undefined) return { agentFor: () => undefined }
  // Two packages that nobody waits for who has no proxy.
  const { proxyAgent } = await import("./proxy-agents.js")
  return {
    agentFor(origin, options) {
      const proxy = choose(origin)
      return proxy && proxyAgent(proxy, { ...options, secure: origin.startsWith("https:") })
    },
  }
}

/** Undefined when no setting names any proxy. */
export function proxyChooser({
  proxy,
  env = {},
}: ProxySettings): ((origin: string) => URL | undefined) | undefined {
  if (proxy !== undefined && proxy !== "") {
    const url = parseProxy(proxy, "the proxy")
    return () => url
  }
  const named = (name: string) => {
    for (const spelling of [name.toLowerCase(), name]) {
      const value = env[spelling]
      if (value !== undefined && value !== "") return parseProxy(value, spelling)
    }
    return undefined
  }
  const forAll = named("ALL_PROXY")
  const forHttps = named("HTTPS_PROXY") ?? forAll
  const forHttp = named("HTTP_PROXY") ?? forAll
  if (forHttps === undefined && forHttp === undefined) return undefined
  const isExcepted = exceptions(env["no_proxy"] || env["NO_PROXY"] || "")
  return (origin) => {
    const url = new URL(origin)
    if (isExcepted(url)) return undefined
    return url.protocol === "https:" ? forHttps : forHttp
  }
}

const schemes: ReadonlySet<string> = new Set(["socks5:", "socks5h:", "http:", "https:"])

/** `source` is what an error calls it. A bare `host:port` is an HTTP proxy, as it is elsewhere. */
export function parseProxy(text: string, source: string): URL {
  const written = text.includes("://") ? text : `http://${text}`
  const url = URL.canParse(written) ? new URL(written) : undefined
  if (url === undefined || !schemes.has(url.protocol) || url.hostname === "") {
    throw new ProxyNotUsable(
      `${source} is not of the form socks5h://host:port, socks5://…, http://… or https://…`,
    )
  }
  // Resolving a relay's name here would tell the network what the proxy is there to hide.
  if (url.protocol === "socks5:") return new URL(url.href.replace(/^socks5:/, "socks5h:"))
  return url
}

/** Without credentials. */
export function showProxy(proxy: URL): string {
  return `${proxy.protocol}//${proxy.host}`
}

/** As curl and Go read NO_PROXY: hosts with all below them, addresses, networks, `*`, each with or without port. */
function exceptions(text: string): (url: URL) => boolean {
  const networks = new BlockList()
  const names: { readonly name: string; readonly port: string }[] = []
  let isAll = false
  for (const entry of text.toLowerCase().split(/[\s,]+/)) {
    const [, address = "", bits = ""] = /^\[?([0-9a-f.:]+)\]?\/([0-9]{1,3})$/.exec(entry) ?? []
    const family = familyOf(address)
    const [, host = "", port = ""] = /^(.+?)(?::([0-9]{1,5}))?$/.exec(entry) ?? []
    if (entry === "*") isAll = true
    else if (family !== undefined && Number(bits) <= (family === "ipv4" ? 32 : 128)) {
      networks.addSubnet(address, Number(bits), family)
    } else if (isIP(entry) > 0) names.push({ name: entry, port: "" })
    else if (host !== "") {
      names.push({ name: host.replace(/^\*?\./, "").replace(/^\[(.*)\]$/, "$1"), port })
    }
  }
  return (url) => {
    const host = url.hostname.replace(/^\[(.*)\]$/, "$1")
    const port = url.port || (url.protocol === "https:" ? "443" : "80")
    // A proxy elsewhere cannot reach what only this machine can.
    if (isAll || host === "localhost" || host === "::1" || host.startsWith("127.")) return true
    const family = familyOf(host)
    if (family !== undefined && networks.check(host, family)) return true
    return names.some(
      ({ name, port: only }) =>
        (host === name || (family === undefined && host.endsWith(`.${name}`))) &&
        (only === "" || only === port),
    )
  }
}

function familyOf(address: string): "ipv4" | "ipv6" | undefined {
  const version = isIP(address)
  return version === 0 ? undefined : version === 4 ? "ipv4" : "ipv6"
}
