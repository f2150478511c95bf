import { spawn } from "node:child_process"
import { once } from "node:events"
import http from "node:http"
import net, { type AddressInfo } from "node:net"
import { describe, expect, onTestFinished, test } from "vitest"
import { NotARelay, parseOrigin, RelayUnreachable } from "../../client/index.js"
import { Parallel } from "../../client/parallel.js"
import { ProxyLimit, RelayClient, type RelayRequest } from "../../client/relay-client.js"
import { FormatError, MIB, RelayRefusal, toBase64url } from "../../protocol/index.js"

type Handler = (
  request: http.IncomingMessage,
  response: http.ServerResponse,
) => void | Promise<void>

/** A server that does as told, and a client that neither waits nor rolls dice. */
async function serve(
  handler: Handler,
): Promise<{ client: RelayClient; origin: string; waits: number[]; server: http.Server }> {
  const server = http.createServer((request, response) => {
    void handler(request, response)
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  // A TCP server's address is one of host and port.
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  const waits: number[] = []
  const client = new RelayClient({
    proxies: undefined,
    origin,
    random: () => 0,
    pause: async (ms) => {
      waits.push(ms)
    },
  })
  onTestFinished(() => {
    client.close()
    server.closeAllConnections()
    server.close()
  })
  return { client, origin, waits, server }
}

const get: RelayRequest = { method: "GET", path: "/v1/relay", persistence: "brisk" }
const parseAnything = (value: unknown) => value

function problem(response: http.ServerResponse, status: number, code: string, headers = {}): void {
  response.writeHead(status, { "content-type": "application/problem+json", ...headers })
  response.end(
    JSON.stringify({ type: "about:blank", title: "no", status, code, detail: "because" }),
  )
}

function answer(response: http.ServerResponse, value: unknown): void {
  response.writeHead(200, { "content-type": "application/json" })
  response.end(JSON.stringify(value))
}

describe("asking a relay", () => {
  test("sends the credential in a header, and the body with its length", async () => {
    const seen: { headers: http.IncomingHttpHeaders; body: string }[] = []
    const { client } = await serve(async (request, response) => {
      let body = ""
      for await (const piece of request) body += String(piece)
      seen.push({ headers: request.headers, body })
      answer(response, { fine: true })
    })
    const credential = new Uint8Array(32).fill(7)
    const body = [Buffer.from("hello "), Buffer.from("there")]
    await client.json({ method: "PUT", path: "/x", credential, body }, parseAnything)
    expect(seen[0]?.headers.authorization).toBe(`Bearer ${toBase64url(credential)}`)
    expect(seen[0]?.headers["content-length"]).toBe("11")
    expect(seen[0]?.headers["transfer-encoding"]).toBeUndefined()
    expect(seen[0]?.body).toBe("hello there")
  })

  test("a refusal comes back as the relay meant it, at once", async () => {
    const { client, waits } = await serve((_, response) => problem(response, 404, "not_found"))
    const asking = client.json(get, parseAnything)
    await expect(asking).rejects.toThrow(RelayRefusal)
    await expect(asking).rejects.toMatchObject({ code: "not_found", message: "because" })
    expect(waits).toEqual([])
  })

  test("what passes by itself is asked again, later each time", async () => {
    let asked = 0
    const { client, waits } = await serve((_, response) => {
      asked++
      if (asked < 3) problem(response, 503, "busy")
      else answer(response, { asked })
    })
    expect(await client.json(get, parseAnything)).toEqual({ asked: 3 })
    expect(waits).toEqual([125, 250])
  })

  test("Retry-After is waited for", async () => {
    let asked = 0
    const { client, waits } = await serve((_, response) => {
      asked++
      if (asked === 1) problem(response, 429, "too_many_requests", { "retry-after": "17" })
      else answer(response, {})
    })
    await client.json(get, parseAnything)
    expect(waits).toEqual([17_000])
  })

  test("a Retry-After of hours is the caller's to decide on", async () => {
    const { client, waits } = await serve((_, response) =>
      problem(response, 429, "too_many_requests", { "retry-after": "7200" }),
    )
    await expect(client.json(get, parseAnything)).rejects.toMatchObject({
      code: "too_many_requests",
      retryAfterSeconds: 7200,
    })
    expect(waits).toEqual([])
  })

  test("an outage of ten minutes is outlasted by whoever is patient, and one of an hour is not", async () => {
    let isThere = false
    const { client, waits } = await serve((request, response) => {
      if (isThere) answer(response, {})
      else request.socket.destroy()
      isThere = waits.reduce((sum, ms) => sum + ms, 0) >= 600_000
    })
    const { persistence: _, ...patient } = get
    await client.json(patient, parseAnything)
    isThere = false
    const gone = await serve((request) => void request.socket.destroy())
    await expect(gone.client.json(patient, parseAnything)).rejects.toThrow(RelayUnreachable)
    const waitedMs = gone.waits.reduce((sum, ms) => sum + ms, 0)
    expect(waitedMs).toBeGreaterThan(600_000)
    expect(waitedMs).toBeLessThan(3_600_000)
  })

  test("a relay that fails by itself is given up sooner than one that is not there", async () => {
    const { client, waits } = await serve((_, response) => problem(response, 500, "internal"))
    const { persistence: _, ...patient } = get
    await expect(client.json(patient, parseAnything)).rejects.toMatchObject({ code: "internal" })
    expect(waits.length).toBe(25)
  })

  test("the patient wait for room as long as a full relay says, unless that is long or it says nothing", async () => {
    const { persistence: _, ...patient } = get
    let asked = 0
    const { client, waits } = await serve((_, response) => {
      asked++
      if (asked === 1) problem(response, 507, "inbox_full", { "retry-after": "60" })
      else if (asked === 2) answer(response, {})
      else if (asked === 3) problem(response, 507, "relay_full", { "retry-after": "3600" })
      else problem(response, 507, "relay_full")
    })
    await client.json(patient, parseAnything)
    expect(waits).toEqual([60_000])
    for (let time = 0; time < 2; time++) {
      await expect(client.json(patient, parseAnything)).rejects.toMatchObject({
        code: "relay_full",
      })
    }
    expect(waits).toEqual([60_000])
  })

  test("after each timeout a body gets more time, down to a kibibyte a second", async () => {
    const heldMs: number[] = []
    const { client } = await serve((request, response) => {
      const beganMs = performance.now()
      request.resume()
      if (heldMs.length === 5) answer(response, {})
      else response.once("close", () => heldMs.push(performance.now() - beganMs))
    })
    const body = [new Uint8Array(512)]
    await client.json(
      { method: "PUT", path: "/x", body, idleTimeoutMs: 100, persistence: "patient" },
      parseAnything,
    )
    // No timer ends before its time; and the relay heard of the request a little after it was sent.
    for (const [at, atLeastMs] of [100, 200, 400, 500, 500].entries()) {
      expect(heldMs[at]).toBeGreaterThan(atLeastMs * 0.8)
    }
  })

  test("requests of one transfer are fewer at a time after a timeout, repeats included", async () => {
    const open = new Set<http.ServerResponse>()
    const most: number[] = []
    let asked = 0
    const { client } = await serve((_, response) => {
      asked++
      open.add(response)
      most[asked] = open.size
      response.once("close", () => open.delete(response))
      // The first four time out.
      if (asked > 4) setImmediate(() => answer(response, {}))
    })
    const parallel = new Parallel(4)
    const request = { ...get, parallel, idleTimeoutMs: 1000 }
    await Promise.all(Array.from({ length: 12 }, () => client.json(request, parseAnything)))
    expect(Math.max(...most.slice(1, 5))).toBe(4)
    expect(Math.max(...most.slice(5))).toBeLessThanOrEqual(2)
  })

  test("a full relay is not asked again by who is brisk", async () => {
    const { client, waits } = await serve((_, response) =>
      problem(response, 507, "relay_full", { "retry-after": "60" }),
    )
    await expect(client.json(get, parseAnything)).rejects.toMatchObject({ code: "relay_full" })
    expect(waits).toEqual([])
  })

  test("a connection that breaks is tried again, then given up with the reason", async () => {
    let asked = 0
    const { client, waits } = await serve((request) => {
      asked++
      request.socket.destroy()
    })
    const asking = client.json(get, parseAnything)
    await expect(asking).rejects.toThrow(RelayUnreachable)
    await expect(asking).rejects.toThrow(/check the address and the network/)
    await expect(asking).rejects.toMatchObject({ retryable: true })
    expect([asked, waits.length]).toEqual([3, 2])
  })

  test("where nothing listens, it says so", async () => {
    const { client, server } = await serve((_, response) => answer(response, {}))
    await new Promise((resolve) => server.close(resolve))
    await expect(client.json(get, parseAnything)).rejects.toThrow(/nothing listens there/)
  })

  test("an answer cut short is not an answer", async () => {
    let asked = 0
    const { client } = await serve((request, response) => {
      asked++
      response.writeHead(200, { "content-type": "application/json", "content-length": "100" })
      response.write('{"a":1}')
      setImmediate(() => request.socket.destroy())
    })
    await expect(client.json(get, parseAnything)).rejects.toThrow(RelayUnreachable)
    expect(asked).toBe(3)
  })

  test("a kept connection that the relay closed meanwhile costs no wait", async () => {
    let asked = 0
    const { client, waits } = await serve((request, response) => {
      asked++
      if (asked === 2) request.socket.resetAndDestroy()
      else answer(response, { asked })
    })
    await client.json(get, parseAnything)
    expect(await client.json({ ...get, persistence: "once" }, parseAnything)).toEqual({ asked: 3 })
    expect(waits).toEqual([])
  })

  test("a call that is called off ends with that reason, also between two attempts", async () => {
    const reason = new Error("enough")
    const stop = new AbortController()
    const { client } = await serve(() => stop.abort(reason))
    await expect(client.json({ ...get, signal: stop.signal }, parseAnything)).rejects.toBe(reason)
    const { origin } = client
    const later = new AbortController()
    const waiting = new RelayClient({
      proxies: undefined,
      origin: origin.replace(/:\d+$/, ":1"),
      random: () => 0,
    })
    const asking = waiting.json(
      { ...get, signal: later.signal, onProgress: () => later.abort(reason) },
      parseAnything,
    )
    await expect(asking).rejects.toBe(reason)
  })

  test("an answer to a body that is still being sent counts for nothing, and ends the sending", async () => {
    const body = [new Uint8Array(64 * MIB)]
    const ended: Promise<number>[] = []
    const server = net.createServer((socket) => {
      let read = 0
      socket.once("data", () => {
        socket.pause()
        socket.write(
          "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        )
        ended.push(
          new Promise((resolve) => {
            socket.on("error", () => undefined)
            socket.on("close", () => resolve(read))
          }),
        )
      })
      asking.finally(() => socket.resume()).catch(() => undefined)
      socket.on("data", (chunk) => (read += chunk.length))
    })
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    onTestFinished(() => void server.close())
    // A TCP server's address is one of host and port.
    const { port } = server.address() as AddressInfo
    const client = new RelayClient({
      proxies: undefined,
      origin: `http://127.0.0.1:${port}`,
      pause: async () => undefined,
    })
    const request = { ...get, method: "PUT", body } as const
    const asking = client.json(request, parseAnything)
    await expect(asking).rejects.toThrow(/before it had everything/)
    for (const read of await Promise.all(ended)) expect(read).toBeLessThan(64 * MIB)
    expect(ended).toHaveLength(3)
  })

  test("an answer to all of a body is taken, although it comes before word that the body is out", async () => {
    // In a process of its own, whose answer comes when it likes.
    const source = `require("node:http").createServer((request, response) => {
      request.on("data", () => {}).on("end", () => {
        response.writeHead(200, { "content-type": "application/json" }).end("{}")
      })
    }).listen(0, "127.0.0.1", function () { console.log(this.address().port) })`
    const server = spawn(process.execPath, ["-e", source], { stdio: ["ignore", "pipe", "inherit"] })
    onTestFinished(() => void server.kill())
    const [port] = await once(server.stdout.setEncoding("utf8"), "data")
    const waits: number[] = []
    const client = new RelayClient({
      proxies: undefined,
      origin: `http://127.0.0.1:${String(port).trim()}`,
      pause: async (ms) => {
        waits.push(ms)
      },
    })
    onTestFinished(() => client.close())
    const body = [new Uint8Array(4 * MIB)]
    for (let round = 0; round < 100; round++) {
      await Promise.all(
        [1, 2, 3, 4].map(() => client.json({ ...get, method: "PUT", body }, parseAnything)),
      )
    }
    expect(waits).toEqual([])
  })

  test("each retry is told, with its reason", async () => {
    const told: unknown[] = []
    const { client } = await serve((_, response) => problem(response, 503, "rebuilding"))
    const onProgress = (event: unknown) => told.push(event)
    await expect(client.json({ ...get, onProgress }, parseAnything)).rejects.toThrow(RelayRefusal)
    expect(told).toEqual([
      { kind: "retry", reason: "because", delayMs: 125, attempt: 1 },
      { kind: "retry", reason: "because", delayMs: 250, attempt: 2 },
    ])
  })
})

function parseNamed(value: unknown): object {
  if (typeof value !== "object" || value === null || !("name" in value)) {
    throw new FormatError("relay.name", "not there")
  }
  return value
}

describe("what is not a relay", () => {
  const notRelays: Record<string, Handler> = {
    "a web page": (_, response) => {
      response.writeHead(200, { "content-type": "text/html" }).end("<html>hello</html>")
    },
    "JSON of something else": (_, response) => answer(response, { hello: 1 }),
    "JSON that is none": (_, response) => {
      response.writeHead(200, { "content-type": "application/json" }).end("{")
    },
    "a 404 of its own": (_, response) => {
      response.writeHead(404, { "content-type": "text/plain" }).end("not found")
    },
    "a 500 of its own": (_, response) => {
      response.writeHead(500).end()
    },
    "a problem of another kind": (_, response) => problem(response, 400, "something_else"),
    "a redirect": (_, response) => {
      response.writeHead(302, { location: "https://elsewhere.example/" }).end()
    },
    "a change of protocol": (_, response) => {
      response.writeHead(101, { connection: "upgrade", upgrade: "other" }).end()
    },
  }
  for (const [what, handler] of Object.entries(notRelays)) {
    test(`${what} is told from one`, async () => {
      const { client, waits } = await serve(handler)
      const asking = client.json(get, parseNamed)
      await expect(asking).rejects.toThrow(NotARelay)
      await expect(asking).rejects.toThrow(/check the address/)
      expect(waits).toEqual([])
    })
  }

  test("something that speaks no HTTP is told from one, or at least as unreachable", async () => {
    const server = net.createServer((socket) => socket.end("220 mail.example ESMTP\r\n"))
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    onTestFinished(() => void server.close())
    // A TCP server's address is one of host and port.
    const { port } = server.address() as AddressInfo
    const client = new RelayClient({
      proxies: undefined,
      origin: `http://127.0.0.1:${port}`,
      pause: async () => undefined,
    })
    await expect(client.json(get, parseAnything)).rejects.toThrow(RelayUnreachable)
    client.close()
  })

  test("a connection that closes without a word of why is unreachable, not waited for", async () => {
    class Closing extends http.Agent {
      addRequest(request: http.ClientRequest): void {
        setImmediate(() => request.emit("close"))
      }
    }
    const client = new RelayClient({
      proxies: { agentFor: () => new Closing() },
      origin: "http://127.0.0.1:1",
      pause: async () => undefined,
    })
    await expect(client.json(get, parseAnything)).rejects.toThrow(/closed without an answer/)
  })

  test("a redirect is never followed, so the credential stays here", async () => {
    let asked = 0
    const elsewhere = await serve((_, response) => {
      asked++
      answer(response, {})
    })
    const { client } = await serve((_, response) => {
      response.writeHead(307, { location: `${elsewhere.origin}/v1/relay` }).end()
    })
    const credential = new Uint8Array(32)
    await expect(client.json({ ...get, credential }, parseAnything)).rejects.toThrow(NotARelay)
    expect(asked).toBe(0)
  })

  test("an answer without end is cut off", async () => {
    const { client } = await serve((_, response) => {
      response.writeHead(200, { "content-type": "application/octet-stream" })
      const more = () => {
        while (!response.destroyed && response.write(Buffer.alloc(65_536)));
        if (!response.destroyed) response.once("drain", more)
      }
      more()
    })
    await expect(client.bytes(get, 1_000_000)).rejects.toThrow(/longer than 1000000 bytes/)
  })

  test("a 413 without a problem document is a proxy's", async () => {
    const { client } = await serve((_, response) => {
      response.writeHead(413, { "content-type": "text/html" }).end("too large")
    })
    await expect(client.json(get, parseAnything)).rejects.toThrow(ProxyLimit)
  })

  test("a 502 of a proxy is worth asking again", async () => {
    let asked = 0
    const { client } = await serve((_, response) => {
      asked++
      if (asked === 1) response.writeHead(502, { "content-type": "text/html" }).end("bad gateway")
      else answer(response, { asked })
    })
    expect(await client.json(get, parseAnything)).toEqual({ asked: 2 })
  })
})

describe("origins", () => {
  test("are https, but http on loopback and for onion services", () => {
    expect(parseOrigin("relay.example")).toBe("https://relay.example")
    expect(parseOrigin("https://relay.example:8443/")).toBe("https://relay.example:8443")
    expect(parseOrigin("127.0.0.1:8787")).toBe("http://127.0.0.1:8787")
    expect(parseOrigin("http://[::1]:8787")).toBe("http://[::1]:8787")
    expect(parseOrigin("abc.onion")).toBe("http://abc.onion")
  })

  test("in plain http to any other host are refused before anything is sent", () => {
    for (const origin of [
      "http://relay.example",
      "http://10.0.0.1:8787",
      "http://127.0.0.1.example",
    ]) {
      expect(() => new RelayClient({ proxies: undefined, origin })).toThrow(FormatError)
    }
  })

  test("have no path", () => {
    for (const origin of ["https://relay.example/relay", "https://user@relay.example", "ftp://x"]) {
      expect(() => new RelayClient({ proxies: undefined, origin })).toThrow(FormatError)
    }
  })
})
