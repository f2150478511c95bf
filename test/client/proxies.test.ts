import { createHook } from "node:async_hooks"
import http from "node:http"
import type { AddressInfo } from "node:net"
import { describe, expect, onTestFinished, test } from "vitest"
import { openProxies, ProxyNotUsable, type ProxySettings } from "../../client/index.js"
import { parseProxy, proxyChooser, showProxy } from "../../client/proxies.js"
import { RelayClient, type RelayRequest } from "../../client/relay-client.js"
import { patternBytes } from "./folders.js"
import { startConnectProxy, startSocks5 } from "./proxy-servers.js"

const get: RelayRequest = { method: "GET", path: "/x", persistence: "once" }
const body = patternBytes(300_000, 3)

/** A server on loopback that only a proxy finds under the names used here. */
async function startServer(): Promise<number> {
  const server = http.createServer((_, response) => {
    response.writeHead(200, { "content-type": "application/octet-stream" }).end(body)
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  // A TCP server's address is an object with a port.
  return (server.address() as AddressInfo).port
}

async function ask(origin: string, settings: ProxySettings, times = 1): Promise<Uint8Array[]> {
  const client = new RelayClient({
    origin,
    proxies: await openProxies(settings),
    pause: async () => undefined,
  })
  onTestFinished(() => client.close())
  return Promise.all(Array.from({ length: times }, () => client.bytes(get, body.length)))
}

test("a look-up of a name would be noticed", async () => {
  const noticed = await looksUpNames(() => ask("http://localhost:1", {}).catch(() => undefined))
  expect(noticed).toBe(true)
})

/** Whether this process asked the system for the address of any name meanwhile. */
async function looksUpNames(work: () => Promise<unknown>): Promise<boolean> {
  let looked = false
  const hook = createHook({
    init: (_id, type) => {
      if (/^(GETADDRINFO|QUERY)/.test(type)) looked = true
    },
  }).enable()
  try {
    await work()
  } finally {
    hook.disable()
  }
  return looked
}

describe("a relay behind a SOCKS5 proxy", () => {
  for (const scheme of ["socks5h", "socks5"]) {
    test(`is reached by ${scheme} without its name being looked up here`, async () => {
      const proxy = await startSocks5({ port: await startServer() })
      const looked = await looksUpNames(async () => {
        const [answer] = await ask("abc.onion", { proxy: `${scheme}://${proxy.host}` })
        expect(Buffer.from(answer ?? []).equals(body)).toBe(true)
      })
      expect(looked).toBe(false)
      expect(proxy.asked).toEqual(["name abc.onion:80"])
    })
  }

  test("is asked side by side over as many connections as a client makes", async () => {
    const proxy = await startSocks5({ port: await startServer() })
    const answers = await ask("abc.onion", { proxy: `socks5h://${proxy.host}` }, 20)
    expect(answers.every((answer) => Buffer.from(answer).equals(body))).toBe(true)
    expect(proxy.asked.length).toBeLessThanOrEqual(5)
  })

  test("is reached with the proxy's credentials", async () => {
    const credentials = { user: "ann", password: "s3cr@t/" }
    const proxy = await startSocks5({ port: await startServer(), credentials })
    await ask("abc.onion", { proxy: `socks5h://ann:s3cr%40t%2F@${proxy.host}` })
    expect(proxy.asked).toHaveLength(1)
  })

  test("is not reached with wrong ones, and the message holds neither of them", async () => {
    const credentials = { user: "ann", password: "right" }
    const proxy = await startSocks5({ port: await startServer(), credentials })
    const asking = ask("abc.onion", { proxy: `socks5h://mallory:wr0ng@${proxy.host}` })
    await expect(asking).rejects.toThrow(/wants other credentials; put them into KNOTHOLE_PROXY/)
    await expect(asking).rejects.not.toThrow(/mallory|wr0ng/)
  })

  test("that does not find it is told from one that is not there", async () => {
    const port = await startServer()
    const proxy = await startSocks5({ port, refuse: 4 })
    await expect(ask("abc.onion", { proxy: `socks5h://${proxy.host}` })).rejects.toThrow(
      `cannot reach http://abc.onion: the proxy socks5h://${proxy.host} does not find the relay`,
    )
    await expect(ask("abc.onion", { proxy: "socks5h://127.0.0.1:1" })).rejects.toThrow(
      /the proxy socks5h:\/\/127.0.0.1:1 is not there: nothing listens/,
    )
  })
})

describe("a relay behind an HTTP proxy", () => {
  test("is reached by CONNECT without its name being looked up here", async () => {
    const proxy = await startConnectProxy({ port: await startServer() })
    const looked = await looksUpNames(async () => {
      const answers = await ask("abc.onion", { proxy: `http://${proxy.host}` }, 20)
      expect(answers.every((answer) => Buffer.from(answer).equals(body))).toBe(true)
    })
    expect(looked).toBe(false)
    expect(new Set(proxy.asked)).toEqual(new Set(["abc.onion:80"]))
    expect(proxy.asked.length).toBeLessThanOrEqual(5)
  })

  test("is reached with the proxy's credentials, and not without", async () => {
    const credentials = { user: "ann", password: "p:w" }
    const proxy = await startConnectProxy({ port: await startServer(), credentials })
    await ask("abc.onion", { proxy: `http://ann:p%3Aw@${proxy.host}` })
    const asking = ask("abc.onion", { proxy: `http://ann:wr0ng@${proxy.host}` })
    await expect(asking).rejects.toThrow(/wants other credentials/)
    await expect(asking).rejects.not.toThrow(/wr0ng/)
  })

  test("is not what the proxy says instead of connecting", async () => {
    const forged = `HTTP/1.1 201 Created\r\nContent-Type: application/octet-stream\r\nContent-Length: 6\r\n\r\nforged`
    const proxy = await startConnectProxy({ port: await startServer(), refuse: forged })
    await expect(ask("abc.onion", { proxy: `http://${proxy.host}` })).rejects.toThrow(
      /does not connect to the relay \(status 201\)/,
    )
    await expect(ask("https://relay.example", { proxy: `http://${proxy.host}` })).rejects.toThrow(
      /does not connect to the relay \(status 201\)/,
    )
  })

  test("is not reached through a proxy that answers CONNECT at any length, or with lines of its own", async () => {
    for (const head of [
      `HTTP/1.1 200 OK\r\nX: ${"x".repeat(100_000)}`,
      "HTTP/1.1 200 OK\r\nno header\nknothole: all is well",
      "SSH-2.0-OpenSSH_9.6\nknothole: all is well",
    ]) {
      const refuse = `${head}\r\n\r\n`
      const proxy = await startConnectProxy({ port: await startServer(), refuse })
      await expect(ask("abc.onion", { proxy: `http://${proxy.host}` })).rejects.toThrow(
        /: the proxy http:\/\/127.0.0.1:\d+ does not speak as one; check/,
      )
    }
  })
})

test("an onion service is not asked for without a proxy, and the error says which one it needs", async () => {
  const looked = await looksUpNames(async () => {
    await expect(ask("abc.onion", {})).rejects.toThrow(/--proxy socks5h:\/\/127.0.0.1:9050/)
  })
  expect(looked).toBe(false)
})

function hostFor(origin: string, settings: ProxySettings): string | undefined {
  return proxyChooser(settings)?.(origin)?.host
}

describe("the proxy of a relay", () => {
  const env = {
    HTTPS_PROXY: "http://secure:1",
    http_proxy: "http://plain:2",
    NO_PROXY: "example.org, .internal,10.0.0.0/8 relay.test:8443,[fd00::]/8,192.0.2.7",
  }

  test("comes from the variable of the relay's scheme, in either case, the small one first", () => {
    expect(hostFor("https://a.example", { env })).toBe("secure:1")
    expect(hostFor("http://a.onion", { env })).toBe("plain:2")
    const both = { ...env, https_proxy: "http://small:3" }
    expect(hostFor("https://a.example", { env: both })).toBe("small:3")
    expect(hostFor("https://a.example", { env: { all_proxy: "socks5://all:4" } })).toBe("all:4")
    expect(hostFor("https://a.example", { env: { ALL_PROXY: "all:4", HTTPS_PROXY: "" } })).toBe(
      "all:4",
    )
  })

  test("is none where NO_PROXY, or its being on this machine, excepts the relay", () => {
    for (const origin of [
      "https://example.org",
      "https://drop.example.org",
      "https://a.b.internal",
      "https://10.1.2.3",
      "https://relay.test:8443",
      "https://[fd12::1]",
      "https://192.0.2.7",
      "http://127.0.0.1:8787",
      "http://localhost:8787",
      "http://[::1]:8787",
    ]) {
      expect([origin, hostFor(origin, { env })]).toEqual([origin, undefined])
    }
    for (const origin of ["https://notexample.org", "https://relay.test", "https://11.0.0.1"]) {
      expect([origin, hostFor(origin, { env })]).toEqual([origin, "secure:1"])
    }
    expect(hostFor("https://a.example", { env: { ...env, no_proxy: "*" } })).toBeUndefined()
  })

  test("is the one named on purpose for every relay, whatever NO_PROXY says", () => {
    const proxy = "socks5h://127.0.0.1:9050"
    expect(hostFor("https://example.org", { proxy, env })).toBe("127.0.0.1:9050")
    expect(hostFor("http://127.0.0.1:8787", { proxy, env })).toBe("127.0.0.1:9050")
  })

  test("that is not written as one is refused without being repeated", () => {
    for (const text of [
      "ftp://u:s3cret@host",
      "socks4://u:s3cret@host",
      "socks5h://",
      "http://u:s3cret@",
    ]) {
      expect(() => parseProxy(text, "ALL_PROXY")).toThrow(ProxyNotUsable)
      expect(() => parseProxy(text, "ALL_PROXY")).not.toThrow(/s3cret/)
    }
    expect(showProxy(parseProxy("socks5://u:s3cret@host:9", "x"))).toBe("socks5h://host:9")
  })
})
