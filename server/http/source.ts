// Whom a request counts against. That is the peer's own address, unless the peer is a proxy that the
// operator trusts to say for whom it asks. What anybody else claims in a header counts for nothing.
//
// The header is X-Forwarded-For, to whose end every proxy adds the address it was asked from, so that
// only the beginning can be made up. `Forwarded` (RFC 7239) is not read: a proxy that writes the one
// passes the other on as its client wrote it, and a relay that believed both would believe anybody.
import type { IncomingMessage } from "node:http"
import { BlockList, isIP } from "node:net"
import type { Clock } from "../clock.js"
import type { Log } from "../log.js"
import type { Kind } from "../setting-kinds.js"

/** Whose word is taken. */
export type TrustedProxies =
  /** So many proxies stand before the relay; the nearest one is on this machine or a private network. */
  | { readonly kind: "hops"; readonly hops: number }
  /** Addresses, and networks such as 10.0.0.0/8. */
  | { readonly kind: "addresses"; readonly ranges: readonly string[] }

export type Source =
  /** `address` in its one spelling, an IPv4 address never as an IPv6 one. */
  | { readonly kind: "address"; readonly address: string; readonly proxy: "none" | "trusted" }
  /**
   * A proxy asks for somebody it does not name so that it could be believed: all whom it asks for are
   * one. `unset`: it is not trusted. `wrong`: it names fewer than it should, or nothing readable.
   */
  | { readonly kind: "shared"; readonly proxy: "unset" | "wrong" }

export interface Forwarded {
  /** The address that the connection comes from. */
  readonly peer: string | undefined
  /** All of X-Forwarded-For. */
  readonly forwardedFor: string | undefined
  /** Whether there is a Forwarded header. */
  readonly hasForwarded: boolean
}

/** How many proxies anybody has in a row. */
const mostHops = 8

export const trustedProxiesKind: Kind<TrustedProxies> = {
  form: "PROXIES",
  bounds: `1 to ${mostHops}, or addresses and networks with commas between them`,
  parse(text) {
    if (/^[0-9]+$/.test(text)) {
      const hops = Number(text)
      if (hops < 1 || hops > mostHops) throw new Error(`not from 1 to ${mostHops} proxies`)
      return { kind: "hops", hops }
    }
    const ranges = text.split(",").map((range) => range.trim())
    for (const range of ranges) parseRange(range)
    return { kind: "addresses", ranges }
  },
  encode: (trusted) => (trusted.kind === "hops" ? `${trusted.hops}` : trusted.ranges.join(",")),
}

interface Range {
  readonly network: string
  readonly family: "ipv4" | "ipv6"
  readonly bits: number
}

function parseRange(text: string): Range {
  const [, network = "", bitsText] = /^([0-9A-Fa-f.:]+)(?:\/([0-9]{1,3}))?$/.exec(text) ?? []
  const version = isIP(network)
  const most = version === 6 ? 128 : 32
  const bits = bitsText === undefined ? most : Number(bitsText)
  if (version === 0 || bits > most) {
    throw new Error(`${JSON.stringify(text)} is no address and no network such as 10.0.0.0/8`)
  }
  return { network, family: version === 6 ? "ipv6" : "ipv4", bits }
}

function listOf(ranges: readonly string[]): BlockList {
  const list = new BlockList()
  for (const { network, family, bits } of ranges.map(parseRange)) {
    list.addSubnet(network, bits, family)
  }
  return list
}

/** This machine, private networks, and the links between them: where a proxy of one's own would be. */
const near = listOf([
  ..."127.0.0.0/8 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 169.254.0.0/16 100.64.0.0/10".split(" "),
  ..."::1 fc00::/7 fe80::/10".split(" "),
])

/** Makes the one function that says whom a request counts against. */
export function sourceResolver(
  trusted: TrustedProxies | undefined,
): (forwarded: Forwarded) => Source {
  const list = trusted?.kind === "addresses" ? listOf(trusted.ranges) : near

  return ({ peer: peerText, forwardedFor, hasForwarded }) => {
    const peer = peerText === undefined ? undefined : canonicalAddress(peerText)
    // The connection is gone; there is nobody to count.
    if (peer === undefined) return { kind: "shared", proxy: "wrong" }
    const speaks = forwardedFor !== undefined || (trusted === undefined && hasForwarded)
    const isTrusted = trusted !== undefined && isIn(list, peer)
    if (!speaks || (!isTrusted && !isIn(near, peer))) {
      return { kind: "address", address: peer, proxy: "none" }
    }
    if (!isTrusted) return { kind: "shared", proxy: "unset" }
    const chain = (forwardedFor ?? "").split(",").map(forwardedAddress)
    const address = trusted.kind === "hops" ? chain.at(-trusted.hops) : firstOutside(chain, list)
    if (address === undefined) return { kind: "shared", proxy: "wrong" }
    return { kind: "address", address, proxy: "trusted" }
  }
}

/** From the end, the first that is no trusted proxy; the very first where all of them are. */
function firstOutside(chain: readonly (string | undefined)[], list: BlockList): string | undefined {
  for (const address of chain.toReversed()) {
    if (address === undefined || !isIn(list, address)) return address
  }
  return chain[0]
}

function isIn(list: BlockList, address: string): boolean {
  return list.check(address, isIP(address) === 6 ? "ipv6" : "ipv4")
}

/** An entry of X-Forwarded-For; some proxies add the port. */
function forwardedAddress(text: string): string | undefined {
  const entry = text.trim()
  const bare = /^\[([^\]]*)\](?::[0-9]+)?$/.exec(entry)?.[1] ?? entry
  return canonicalAddress(bare) ?? canonicalAddress(bare.replace(/:[0-9]+$/, ""))
}

function canonicalAddress(text: string): string | undefined {
  const [bare = ""] = text.split("%", 1)
  const version = isIP(bare)
  if (version === 0) return undefined
  if (version === 4) return bare
  const { hostname } = new URL(`http://[${bare}]`)
  const [, high = "", low = ""] = /^\[::ffff:([0-9a-f]+):([0-9a-f]+)\]$/.exec(hostname) ?? []
  if (high === "") return hostname.slice(1, -1)
  const bits = Number.parseInt(high, 16) * 0x1_0000 + Number.parseInt(low, 16)
  return [24, 16, 8, 0].map((shift) => Math.floor(bits / 2 ** shift) % 256).join(".")
}

/**
 * What one customer of a provider has to himself: of IPv4 one address, of IPv6 often all that begins
 * with the same 48 bits.
 */
export function networkOf(addressText: string): string {
  const address = canonicalAddress(addressText) ?? ""
  if (isIP(address) !== 6) return address
  const [head = "", tail = ""] = address.split("::")
  const zeros = Math.max(0, 8 - groups(head).length - groups(tail).length)
  return [...groups(head), ...Array<string>(zeros).fill("0"), ...groups(tail)].slice(0, 3).join(":")
}

function groups(text: string): string[] {
  return text === "" ? [] : text.split(":")
}

export interface Sources {
  /** Whom this request counts against. Says so in the log when it cannot be told. */
  of(req: IncomingMessage): Source
  /** The network it comes from, or one for all whom a proxy does not name. */
  networkOf(req: IncomingMessage): string
}

const alarmEveryMs = 60 * 60_000

export function createSources(needs: {
  readonly trusted: TrustedProxies | undefined
  readonly log: Log
  readonly clock: Clock
}): Sources {
  const { trusted, log, clock } = needs
  const resolve = sourceResolver(trusted)
  const known = new WeakMap<IncomingMessage, Source>()
  const alarms = new Map<"unset" | "wrong", { atMs: number; count: number }>()

  /** Once an hour, with how many requests it was since the last time. */
  function alarm(proxy: "unset" | "wrong"): void {
    const nowMs = clock.monotonicMs()
    const last = alarms.get(proxy)
    const count = (last?.count ?? 0) + 1
    const isDue = last === undefined || nowMs - last.atMs >= alarmEveryMs
    alarms.set(proxy, isDue ? { atMs: nowMs, count: 0 } : { ...last, count })
    if (isDue) log(`trusted_proxies_${proxy}`, { count }, "alarm")
  }

  const sources: Sources = {
    networkOf(req) {
      const source = sources.of(req)
      return source.kind === "address" ? networkOf(source.address) : source.kind
    },

    of(req) {
      const before = known.get(req)
      if (before !== undefined) return before
      const peer = req.socket.remoteAddress
      const source = resolve({
        peer,
        forwardedFor: headerText(req.headers["x-forwarded-for"]),
        hasForwarded: req.headers.forwarded !== undefined,
      })
      known.set(req, source)
      if (source.kind === "shared" && peer !== undefined) alarm(source.proxy)
      return source
    },
  }
  return sources
}

/** Node joins repeated lines of this header; its type does not know. */
function headerText(value: string | readonly string[] | undefined): string | undefined {
  return typeof value === "object" ? value.join(",") : value
}
