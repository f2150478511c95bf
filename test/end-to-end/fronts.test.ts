// A relay behind the proxies that people have, with the configuration that is shipped.
import { readFileSync } from "node:fs"
import https from "node:https"
import path from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { freePort } from "../../bench/processes.js"
import { patternBytes, readTree, writeTree } from "../client/folders.js"
import {
  frontNames,
  hasProgram,
  originAt,
  type RealFront,
  startRealFront,
} from "../fronts/real-fronts.js"
import { Workshop } from "../program/processes.js"

/** Of this machine, and of nothing else on it. */
const someonesAddress = "127.0.0.99"

function statusFrom(
  localAddress: string,
  asked: {
    readonly front: RealFront
    readonly method: string
    readonly path: string
    readonly headers: Record<string, string>
  },
): Promise<number | undefined> {
  const { front, ...request } = asked
  const { hostname, port } = new URL(front.origin)
  const ca = readFileSync(front.env["NODE_EXTRA_CA_CERTS"] ?? "")
  const where = { host: "127.0.0.1", servername: hostname, port, ca, localAddress, agent: false }
  const headers: Record<string, string> = { ...request.headers, Host: hostname }
  return new Promise((resolve, reject) => {
    const asking = https.request({ ...where, ...request, headers }, (answer) => {
      answer.resume()
      asking.destroy()
      resolve(answer.statusCode)
    })
    asking.on("error", reject)
    // A request that announces a body and never sends it.
    if (headers["Content-Length"] === undefined) asking.end()
    else asking.flushHeaders()
  })
}

for (const name of frontNames) {
  const isThere = hasProgram(name)
  if (!isThere && process.env["CI"] !== undefined) {
    throw new Error(`${name} is not installed, and CI needs it`)
  }
  if (!isThere) console.warn(`left out: a relay behind ${name}, because it is not installed`)

  describe.runIf(isThere)(`a relay behind ${name}`, () => {
    const workshop = new Workshop()
    let front: RealFront
    let address = ""
    let stopRelay: () => Promise<void>

    beforeAll(async () => {
      const port = await freePort()
      const relay = await workshop.startRelay("relay", [
        "--public-url",
        originAt(port),
        "--registration",
        "open",
        "--trusted-proxies",
        "1",
      ])
      stopRelay = async () => {
        relay.child.kill("SIGTERM")
        await relay.ended
      }
      const relayPort = Number(new URL(relay.url).port)
      const folder = path.join(workshop.folder, name)
      front = await startRealFront(name, { folder, port, upstreams: `127.0.0.1:${relayPort}` })
      const init = ["init", "--relay", front.origin, "--no-passphrase", "-q"]
      const opened = await workshop.run("ann", init, { env: front.env })
      expect(opened).toMatchObject({ code: 0 })
      address = opened.stdout.trim()
    }, 60_000)

    afterAll(async () => {
      await front.stop()
      await workshop.close()
    })

    it("takes a tree and a list of it that is longer than any part, and gives it out as it was", async () => {
      const { env } = front
      const many = Array.from({ length: 5000 }, (_, index): [string, Uint8Array] => [
        `many/${String(index).padStart(5, "0")}-${"n".repeat(240)}`,
        new Uint8Array(0),
      ])
      const source = writeTree(path.join(workshop.folder, "tree"), {
        ...Object.fromEntries(many),
        large: patternBytes(20_000_000, 5),
      })
      const sent = await workshop.run("bob", ["send", source, "-r", address, "-q"], { env })
      expect(sent).toMatchObject({ code: 0, stderr: "" })
      const into = path.join(workshop.folder, "received")
      const received = await workshop.run("ann", ["receive", "-o", into, "-q"], { env })
      expect(received).toMatchObject({ code: 0, stderr: "" })
      expect(readTree(path.join(into, "tree"))).toEqual(readTree(source))
    }, 120_000)

    it("leaves doctor nothing to find", async () => {
      const { env } = front
      const looked = await workshop.run("bob", ["doctor", front.origin], { env })
      expect(looked).toMatchObject({ code: 0, stdout: "" })
    }, 120_000)

    it("writes down no id and nobody's address, not even of a request that fails", async () => {
      const id = "0123456789abcdef".repeat(2)
      const asked = (method: string, headers: Record<string, string> = {}) =>
        statusFrom(someonesAddress, { front, method, headers, path: `/v1/deliveries/${id}/header` })
      expect(await asked("GET")).toBe(401)
      // More than any front lets through: 413 by nginx, the relay's own answer through Caddy.
      expect(await asked("PUT", { "Content-Length": "999999999" })).toBeGreaterThan(400)
      await stopRelay()
      expect([502, 503]).toContain(await asked("GET"))
      await front.stop()
      expect(front.logged()).not.toMatch(id)
      expect(front.logged()).not.toMatch(someonesAddress)
    })
  })
}
