import { afterEach, describe, expect, it } from "vitest"
import { parseChallenge, parseRelayInfo, verifyMinute } from "../../protocol/index.js"
import { FaultyDisk, systemError } from "./faulty-disk.js"
import { ManualClock } from "./manual-clock.js"
import { openRelay, origin, type RelayUnderTest } from "./relay-under-test.js"

describe("what the relay says of itself", () => {
  let under: RelayUnderTest | undefined

  afterEach(async () => {
    await under?.remove()
    under = undefined
  })

  it("is its name, its key, its limits, its time and where it may be reached", async () => {
    const clock = new ManualClock()
    under = await openRelay({ ports: { clock }, config: { requestBytes: 4 * 1024 ** 2 } })
    const info = parseRelayInfo((await under.client.get("/v1/relay").expect(200)).body)
    expect(info).toMatchObject({
      name: "knothole",
      protocol: [1],
      timeMs: clock.wallMs(),
      origins: [origin],
      kid: 1,
      registration: "open",
      limits: {
        deliveryBytes: 10 * 1024 ** 3,
        requestBytes: 4 * 1024 ** 2,
        recipients: 32,
        inboxDeliveries: 1000,
        longPollSeconds: 30,
        page: 1000,
      },
    })
    const challenge = parseChallenge((await under.client.http.post("/v1/sessions/challenge")).body)
    expect(verifyMinute(challenge, info.signingKey)).toBe(true)
  })

  it("names its loopback origins when it listens there, and keeps its key over a restart", async () => {
    under = await openRelay()
    const { url } = await under.relay.start()
    const info = parseRelayInfo(await (await fetch(`${url}/v1/relay`)).json())
    const { port } = new URL(url)
    expect(info.origins).toEqual([
      origin,
      `http://127.0.0.1:${port}`,
      `http://localhost:${port}`,
      `http://[::1]:${port}`,
    ])
    under = await under.restart()
    const later = parseRelayInfo((await under.client.get("/v1/relay")).body)
    expect(later.signingKey).toEqual(info.signingKey)
  })

  it("is that it is well, as long as it can write", async () => {
    const disk = new FaultyDisk()
    const clock = new ManualClock()
    under = await openRelay({ ports: { disk, clock } })
    expect((await under.client.get("/healthz")).status).toBe(200)
    disk.before = () => {
      throw systemError("EROFS")
    }
    clock.advance(1000)
    expect((await under.client.get("/healthz")).status).toBe(503)
    disk.before = () => undefined
    clock.advance(1000)
    expect((await under.client.get("/healthz")).text).toBe("ok\n")
  })

  it("is nothing in its log that came from a failing request but where it failed", async () => {
    const disk = new FaultyDisk()
    under = await openRelay({ ports: { disk } })
    disk.before = () => {
      throw systemError("EIO")
    }
    const id = "0123456789abcdef0123456789abcdef"
    const bearer = `Bearer ${"A".repeat(43)}`
    const reply = await under.client.get(`/v1/deliveries/${id}/status`, bearer)
    expect([reply.status, reply.body]).toEqual([
      503,
      {
        type: "about:blank",
        title: "The relay's disk does not work",
        status: 503,
        code: "disk_unavailable",
        detail: "The relay's disk does not work",
      },
    ])
    disk.before = () => undefined
    const [line] = under.log.filter(({ event }) => event === "request_failed")
    expect(line).toMatchObject({
      level: "warning",
      route: "/v1/deliveries/:id/status",
      method: "GET",
      status: 503,
      system: "EIO",
    })
    expect(JSON.stringify(line)).not.toContain(id)
  })
})
