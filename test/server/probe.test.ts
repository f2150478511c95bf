import { afterEach, describe, expect, it } from "vitest"
import { parseProbeReply, probeBody } from "../../protocol/index.js"
import { ManualClock } from "./manual-clock.js"
import { openRelay, type RelayUnderTest } from "./relay-under-test.js"

describe("a probe", () => {
  let under: RelayUnderTest | undefined

  afterEach(async () => {
    await under?.remove()
    under = undefined
  })

  it("is answered with a known body, whole or in part", async () => {
    under = await openRelay()
    const whole = await under.client.http.get("/v1/probe").responseType("blob").expect(200)
    expect(Buffer.from(whole.body).equals(probeBody())).toBe(true)
    const part = await under.client.http
      .get("/v1/probe")
      .set("Range", "bytes=1000-1999")
      .responseType("blob")
      .expect(206)
    expect(part.headers["content-range"]).toBe("bytes 1000-1999/32768")
    expect(Buffer.from(part.body).equals(probeBody().subarray(1000, 2000))).toBe(true)
    await under.client.http.get("/v1/probe").set("Range", "bytes=99999-").expect(416)
  })

  it("is silent for as long as it is asked to be", async () => {
    const clock = new ManualClock()
    under = await openRelay({ ports: { clock } })
    const answered = new AbortController()
    const asking = under.client.http.get("/v1/probe?wait=45").then(() => answered.abort())
    let passedMs = 0
    while (!answered.signal.aborted) {
      clock.advance(500)
      passedMs += 500
      await new Promise((resolve) => setImmediate(resolve))
    }
    await asking
    expect(passedMs).toBeGreaterThanOrEqual(45_000)
  })

  it("takes a body as large as a finish may be, and no larger", async () => {
    under = await openRelay()
    const put = (length: string, bytes: Uint8Array) =>
      under?.client.http
        .put("/v1/probe")
        .set("Content-Type", "application/octet-stream")
        .set("Content-Length", length)
        .send(Buffer.from(bytes))
    const reply = await put("1048576", new Uint8Array(1024 ** 2))
    expect(parseProbeReply(reply?.body)).toMatchObject({ hasRoom: true })
    const refused = await put("999999999", new Uint8Array(1))
    expect(refused).toMatchObject({ status: 413, body: { code: "too_large" } })
  })

  it("says when the disk has no room for uploads", async () => {
    under = await openRelay({ config: { diskHeadroomBytes: Number.MAX_SAFE_INTEGER } })
    const reply = await under.client.http
      .put("/v1/probe")
      .set("Content-Type", "application/octet-stream")
      .send(Buffer.from("x"))
    expect(parseProbeReply(reply.body)).toMatchObject({ hasRoom: false })
  })

  it("that asks for anything else is refused", async () => {
    under = await openRelay()
    for (const query of ["wait=46", "wait=-1", "wait=1.5", "pause=10001", "wait=1&wait=1", "x=1"]) {
      await under.client.http.get(`/v1/probe?${query}`).expect(400)
    }
  })
})
