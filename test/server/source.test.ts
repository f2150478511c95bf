import { afterEach, describe, expect, it } from "vitest"
import { parseRelayInfo } from "../../protocol/index.js"
import { networkOf, sourceResolver, trustedProxiesKind } from "../../server/http/source.js"
import { ManualClock } from "./manual-clock.js"
import { openRelay, type RelayUnderTest } from "./relay-under-test.js"

function source(trusted: string | undefined, peer: string | undefined, forwardedFor?: string) {
  const proxies = trusted === undefined ? undefined : trustedProxiesKind.parse(trusted)
  const found = sourceResolver(proxies)({ peer, forwardedFor, hasForwarded: false })
  return found.kind === "address" ? `${found.proxy} ${found.address}` : found.proxy
}

describe("whom a request counts against", () => {
  it("is the peer, by one spelling of its address", () => {
    expect(source(undefined, "203.0.113.9")).toBe("none 203.0.113.9")
    expect(source(undefined, "::ffff:203.0.113.9")).toBe("none 203.0.113.9")
    expect(source(undefined, "::FFFF:cb00:7109")).toBe("none 203.0.113.9")
    expect(source(undefined, "2001:DB8:0::1")).toBe("none 2001:db8::1")
    expect(source(undefined, "fe80::1%eth0")).toBe("none fe80::1")
    expect(source(undefined, "127.0.0.1")).toBe("none 127.0.0.1")
  })

  it("is never whom a peer out in the network names", () => {
    for (const trusted of [undefined, "1", "3", "10.0.0.1"]) {
      expect(source(trusted, "203.0.113.9", "198.51.100.1")).toBe("none 203.0.113.9")
      expect(source(trusted, "2001:db8::9", "198.51.100.1, 10.0.0.1")).toBe("none 2001:db8::9")
    }
  })

  it("is whom the trusted proxies name, counted from the end, whatever a client put before", () => {
    expect(source("1", "127.0.0.1", "203.0.113.9")).toBe("trusted 203.0.113.9")
    expect(source("1", "::1", "10.1.1.1, spoofed, 203.0.113.9")).toBe("trusted 203.0.113.9")
    expect(source("2", "172.20.0.2", "1.1.1.1, 203.0.113.9, 10.0.0.1")).toBe("trusted 203.0.113.9")
    expect(source("1", "10.0.0.1", "[2001:db8::1]:4711")).toBe("trusted 2001:db8::1")
    expect(source("1", "10.0.0.1", "203.0.113.9:4711")).toBe("trusted 203.0.113.9")
    expect(source("1", "10.0.0.1", "::ffff:203.0.113.9")).toBe("trusted 203.0.113.9")
  })

  it("is the last who is no trusted proxy, where they are known by address", () => {
    const trusted = "198.51.100.0/24, 10.0.0.1,2001:db8:1::/48"
    expect(source(trusted, "198.51.100.7", "1.1.1.1, 203.0.113.9, 10.0.0.1")).toBe(
      "trusted 203.0.113.9",
    )
    expect(source(trusted, "2001:db8:1::5", "203.0.113.9")).toBe("trusted 203.0.113.9")
    expect(source(trusted, "10.0.0.1", "198.51.100.3, 198.51.100.4")).toBe("trusted 198.51.100.3")
    expect(source(trusted, "10.0.0.2", "203.0.113.9")).toBe("unset")
  })

  it("cannot be told where a proxy speaks that nobody told the relay of: then all are one", () => {
    for (const peer of [
      "127.0.0.1",
      "::1",
      "10.1.2.3",
      "192.168.1.1",
      "fd00::1",
      "::ffff:10.0.0.1",
    ]) {
      expect(source(undefined, peer, "203.0.113.9")).toBe("unset")
    }
    const forwarded = { peer: "127.0.0.1", forwardedFor: undefined, hasForwarded: true }
    expect(sourceResolver(undefined)(forwarded)).toEqual({ kind: "shared", proxy: "unset" })
    // Where X-Forwarded-For is believed, the other header is what the client itself sent.
    expect(sourceResolver({ kind: "hops", hops: 1 })(forwarded)).toMatchObject({ proxy: "none" })
  })

  it("cannot be told where the trusted proxies name fewer than they should, or nothing readable", () => {
    expect(source("2", "127.0.0.1", "203.0.113.9")).toBe("wrong")
    expect(source("1", "127.0.0.1", "203.0.113.9, unknown")).toBe("wrong")
    expect(source("1", "127.0.0.1", "")).toBe("wrong")
    expect(source("10.0.0.1", "10.0.0.1", "203.0.113.9, _hidden, 10.0.0.1")).toBe("wrong")
    expect(source("1", undefined, "203.0.113.9")).toBe("wrong")
  })

  it("is told by a number of proxies or by addresses, and by nothing else", () => {
    for (const text of ["0", "9", "-1", "", "proxy.test", "10.0.0.0/33", "10.0.0.1,", "::1/129"]) {
      expect(() => trustedProxiesKind.parse(text)).toThrow(Error)
    }
    for (const text of ["1", "8", "10.0.0.1", "10.0.0.0/8,::1"]) {
      expect(trustedProxiesKind.encode(trustedProxiesKind.parse(text))).toBe(text)
    }
  })
})

describe("a relay behind a proxy", () => {
  let under: RelayUnderTest | undefined

  afterEach(async () => {
    await under?.remove()
    under = undefined
  })

  async function proxyOf(header?: string) {
    if (under === undefined) throw new Error("no relay")
    const asked = under.client.get("/v1/relay")
    const reply = await (header === undefined ? asked : asked.set("X-Forwarded-For", header))
    return parseRelayInfo(reply.body).proxy
  }

  it("says how a request came to it, and once an hour that it was not told of its proxy", async () => {
    const clock = new ManualClock()
    under = await openRelay({ ports: { clock } })
    const alarms = () => under?.log.filter(({ event }) => event === "trusted_proxies_unset")
    expect(await proxyOf()).toBe("none")
    expect(alarms()).toEqual([])
    expect(await proxyOf("203.0.113.9")).toBe("unset")
    for (let count = 0; count < 3; count++) await proxyOf("203.0.113.9")
    expect(alarms()).toEqual([expect.objectContaining({ level: "alarm", count: 1 })])
    clock.advance(60 * 60_000)
    await proxyOf("203.0.113.9")
    expect(alarms()).toEqual([expect.anything(), expect.objectContaining({ count: 4 })])
    expect(JSON.stringify(under.log)).not.toContain("203.0.113.9")
  })

  it("believes the proxies it was told of, and says when there are fewer", async () => {
    under = await openRelay({ config: { trustedProxies: { kind: "hops", hops: 2 } } })
    expect(await proxyOf("203.0.113.9, 10.0.0.1")).toBe("trusted")
    expect(await proxyOf("203.0.113.9")).toBe("wrong")
    expect(under.log.map(({ event }) => event)).toContain("trusted_proxies_wrong")
  })
})

describe("the network that an address belongs to", () => {
  it("is an IPv4 address itself, however it is written", () => {
    for (const text of ["198.51.100.7", "::ffff:198.51.100.7", "::ffff:c633:6407"]) {
      expect(networkOf(text)).toBe("198.51.100.7")
    }
  })

  it("is the first 48 bits of an IPv6 address, however it is written", () => {
    for (const text of ["2001:db8:7::1", "2001:DB8:7:ffff:1:2:3:4", "2001:0db8:0007::%eth0"]) {
      expect(networkOf(text)).toBe("2001:db8:7")
    }
    expect(networkOf("2001:db8::1")).toBe("2001:db8:0")
    expect(networkOf("::1")).toBe("0:0:0")
    expect(networkOf("::2:3:4:5:6:7:8")).toBe("0:2:3")
  })
})
