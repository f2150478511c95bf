import { getEventListeners, once } from "node:events"
import { createServer, get } from "node:http"
import type { AddressInfo } from "node:net"
import { text as readAll } from "node:stream/consumers"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { untilEnough } from "../../server/http/enough.js"

/** How many listen to it, and how many signals it keeps because they depend on it. */
function keptBy(signal: AbortSignal): { readonly listeners: number; readonly dependants: number } {
  const name = Object.getOwnPropertySymbols(signal).find(
    ({ description }) => description === "kDependantSignals",
  )
  const kept: unknown = name && Reflect.get(signal, name)
  return {
    listeners: getEventListeners(signal, "abort").length,
    dependants: typeof kept === "object" && kept !== null && "size" in kept ? Number(kept.size) : 0,
  }
}

/** Answers how it ended. */
function aborted(enough: AbortSignal): Promise<string> {
  return new Promise((resolve) => {
    if (enough.aborted) resolve("over before")
    enough.addEventListener("abort", () => resolve("over"))
  })
}

describe("a request that waits", () => {
  const server = createServer()
  let stopping = new AbortController()
  let waits: ((enough: AbortSignal) => Promise<string>) | undefined
  let url = ""

  beforeEach(async () => {
    stopping = new AbortController()
    server.removeAllListeners("request")
    server.on("request", (_req, res) => {
      const work = waits ?? (() => Promise.resolve("at once"))
      void untilEnough({ res, stopping: stopping.signal }, work).then((said) => res.end(said))
    })
    server.listen(0, "127.0.0.1")
    await once(server, "listening")
    // A TCP server's address is an object with a port.
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
  })

  afterEach(async () => {
    waits = undefined
    const closed = once(server, "close")
    server.close()
    server.closeAllConnections()
    await closed
  })

  async function ask(): Promise<string> {
    const [answer] = await once(get(url, { agent: false }), "response")
    return readAll(answer)
  }

  it("leaves nothing behind in what lasts as long as the relay", async () => {
    for (let at = 0; at < 50; at++) expect(await ask()).toBe("at once")
    expect(keptBy(stopping.signal)).toEqual({ listeners: 0, dependants: 0 })
    // Both are seen where they are. Later Nodes keep a signal only once somebody listens to it.
    stopping.signal.addEventListener("abort", () => undefined)
    // oxlint-disable-next-line no-restricted-properties -- to see what it leaves behind
    AbortSignal.any([stopping.signal]).addEventListener("abort", () => undefined)
    expect(keptBy(stopping.signal)).toEqual({ listeners: 1, dependants: 1 })
  })

  it("is over when the relay stops, and at once when it was stopping already", async () => {
    waits = aborted
    const asking = ask()
    await once(server, "request")
    stopping.abort()
    expect(await asking).toBe("over")
    expect(await ask()).toBe("over before")
  })

  it("is over when its client goes", async () => {
    const over = new Promise<string>((resolve) => {
      waits = async (enough) => {
        const how = await aborted(enough)
        resolve(how)
        return how
      }
    })
    const asking = get(url, { agent: false }).on("error", () => undefined)
    await once(server, "request")
    asking.destroy()
    expect(await over).toBe("over")
  })
})
