import { once } from "node:events"
import { chmodSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { Agent, request } from "node:https"
import type { IncomingMessage } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { buffer } from "node:stream/consumers"
import { connect, type TLSSocket } from "node:tls"
import { afterAll, afterEach, describe, expect, it } from "vitest"
import { encodeBearer, parseRelayInfo, random } from "../../protocol/index.js"
import { createRelay } from "../../server/index.js"
import { writeSelfSigned } from "../fronts/certificates.js"
import { ManualClock } from "./manual-clock.js"
import { personAt } from "./people.js"
import {
  configFor,
  makeDelivery,
  openRelay,
  partOf,
  type RelayUnderTest,
} from "./relay-under-test.js"

const folder = mkdtempSync(join(tmpdir(), "knothole-tls-"))
const certFile = join(folder, "cert.pem")
const keyFile = join(folder, "key.pem")
const tls = { certFile, keyFile }

afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Puts a fresh pair in place, each file by a rename, as renewals do. */
function renew(name: string = "relay.test", days: number = 90): void {
  const fresh = { cert: `${certFile}.new`, key: `${keyFile}.new` }
  writeSelfSigned(fresh, { name, days })
  chmodSync(fresh.key, 0o600)
  renameSync(fresh.cert, certFile)
  renameSync(fresh.key, keyFile)
}

async function shownBy(port: number): Promise<string> {
  const socket: TLSSocket = connect({ port, host: "127.0.0.1", rejectUnauthorized: false })
  await once(socket, "secureConnect")
  const { fingerprint256 } = socket.getPeerCertificate()
  socket.destroy()
  return fingerprint256
}

describe("a relay that speaks TLS itself", () => {
  let under: RelayUnderTest | undefined
  const clock = new ManualClock(Date.now())
  const events = () => under?.log.map(({ event }) => event) ?? []

  afterEach(async () => {
    await under?.remove()
    under = undefined
  })

  async function begin(): Promise<number> {
    under = await openRelay({ config: { tls }, ports: { clock } })
    const { url } = await under.relay.start()
    expect(url).toMatch(/^https:/)
    return Number(new URL(url).port)
  }

  it("shows its certificate, and every byte goes through whole", async () => {
    renew()
    const port = await begin()
    if (under === undefined) throw new Error("no relay")
    const { client } = under
    const agent = new Agent({ ca: readFileSync(certFile), keepAlive: true })
    const ask = (method: string, path: string, bearer?: string, body?: Uint8Array) => {
      const headers = {
        ...(bearer !== undefined && { Authorization: bearer }),
        ...(body !== undefined && {
          "Content-Type": "application/octet-stream",
          "Content-Length": body.length,
        }),
      }
      const where = { host: "127.0.0.1", port, servername: "relay.test", agent }
      const asked = request({ ...where, method, path, headers })
      return new Promise<IncomingMessage>((resolve, reject) => {
        asked.once("response", resolve).once("error", reject).end(body)
      })
    }
    const info = await buffer(await ask("GET", "/v1/relay"))
    expect(parseRelayInfo(JSON.parse(info.toString())).origins).toEqual(["https://relay.test"])

    const alice = await personAt(0)
    await client.register(alice)
    const session = await client.login(alice)
    const delivery = makeDelivery([alice], { bodyLength: 5 * 1024 ** 2 })
    const upload = await client.start([alice], delivery.body.length)
    for (let index = 0; partOf(delivery.body, index).length > 0; index++) {
      const path = `/v1/uploads/${upload.id}/parts/${index}`
      const token = encodeBearer(upload.token)
      const reply = await ask("PUT", path, token, partOf(delivery.body, index))
      expect((await buffer(reply), reply.statusCode)).toBe(200)
    }
    expect((await client.postFinish(upload, delivery.finish)).status).toBe(200)
    const body = await buffer(await ask("GET", `/v1/deliveries/${upload.id}/body`, session))
    expect(body.equals(delivery.body)).toBe(true)
    agent.destroy()
  })

  it("tells browsers never to ask it in the clear again, with every answer, and only over TLS", async () => {
    renew()
    const port = await begin()
    const agent = new Agent({ ca: readFileSync(certFile) })
    for (const path of ["/v1/relay", "/nowhere"]) {
      const where = { host: "127.0.0.1", port, servername: "relay.test", agent }
      const [answer] = await once(request({ ...where, path }).end(), "response")
      expect(answer.headers["strict-transport-security"]).toBe("max-age=31536000")
      answer.resume()
    }
    agent.destroy()
    const plain = await under?.client.get("/v1/relay")
    expect(plain?.headers).not.toHaveProperty("strict-transport-security")
  })

  it("shows a new one when the files change or it is asked to look, and ends no transfer for it", async () => {
    renew()
    const port = await begin()
    if (under === undefined) throw new Error("no relay")
    const before = await shownBy(port)
    const alice = await personAt(0)
    await under.client.register(alice)
    const upload = await under.client.start([alice])
    const part = random(131_072)
    const where = { host: "127.0.0.1", port, rejectUnauthorized: false, method: "PUT" }
    const transfer = request({
      ...where,
      path: `/v1/uploads/${upload.id}/parts/0`,
      headers: {
        Authorization: encodeBearer(upload.token),
        "Content-Type": "application/octet-stream",
        "Content-Length": part.length,
      },
    })
    await new Promise<void>(
      (resolve) => void transfer.write(part.subarray(0, 60_000), () => resolve()),
    )

    renew()
    clock.advance(30_000)
    await expect.poll(events).toContain("tls_certificate_changed")
    const after = await shownBy(port)
    expect(after).not.toBe(before)
    const answered = once(transfer, "response")
    transfer.end(part.subarray(60_000))
    const [reply] = await answered
    expect(reply.statusCode).toBe(200)
    reply.resume()

    renew()
    await under.relay.reload?.()
    expect(await shownBy(port)).not.toBe(after)
  })

  it("keeps the one it has while the files cannot be used, and says so once", async () => {
    renew()
    const port = await begin()
    const before = await shownBy(port)
    const goodKey = readFileSync(keyFile)
    const [cert, key] = [readFileSync(certFile), Buffer.from("no key")]
    for (const bad of [
      () => renew("other.test"),
      () => writeFileSync(certFile, "no certificate"),
      () => rmSync(certFile),
    ]) {
      bad()
      // Another pair's key, for the first.
      writeFileSync(keyFile, goodKey)
      const refusals = events().filter((event) => event === "tls_certificate_refused").length
      await under?.relay.reload?.()
      await under?.relay.reload?.()
      expect(events().filter((event) => event === "tls_certificate_refused")).toHaveLength(
        refusals + 1,
      )
      expect(await shownBy(port)).toBe(before)
    }
    writeFileSync(certFile, cert)
    writeFileSync(keyFile, key)
    await under?.relay.reload?.()
    expect(await shownBy(port)).toBe(before)
    expect(JSON.stringify(under?.log)).not.toContain("PRIVATE")
    renew()
    await under?.relay.reload?.()
    expect(await shownBy(port)).not.toBe(before)
  })

  it("says what clients will hold against it, and who can read its key", async () => {
    renew("other.test", 3)
    chmodSync(keyFile, 0o644)
    await begin()
    expect(events()).toEqual(
      expect.arrayContaining([
        "tls_certificate_other_host",
        "tls_certificate_expires_soon",
        "tls_key_readable_by_others",
      ]),
    )
    clock.advance(4 * 86_400_000)
    await under?.relay.reload?.()
    expect(events()).toContain("tls_certificate_expired")
  })

  it("does not start with files it cannot use, and touches nothing", async () => {
    renew()
    const data = join(folder, "never made")
    const start = (change: Partial<typeof tls>) =>
      createRelay(configFor(data, { tls: { ...tls, ...change } }), { writeLog: () => undefined })
    await expect(start({ certFile: join(folder, "missing") })).rejects.toThrow(/--tls-cert.*ENOENT/)
    await expect(start({ certFile: keyFile })).rejects.toThrow(/not a certificate/)
    await expect(start({ keyFile: certFile })).rejects.toThrow(/not the certificate's key/)
    expect(() => readFileSync(data)).toThrow(/ENOENT/)
  })
})
