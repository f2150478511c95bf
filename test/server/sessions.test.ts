import { afterEach, beforeEach, describe, expect, it } from "vitest"
import {
  encodeRegisterRequest,
  type Identity,
  parseSessionList,
  random,
  toHex,
} from "../../protocol/index.js"
import { ManualClock } from "./manual-clock.js"
import { personAt } from "./people.js"
import { openRelay, type RelayUnderTest } from "./relay-under-test.js"

const minuteMs = 60_000

describe("inboxes and sessions", () => {
  let under: RelayUnderTest
  let alice: Identity
  let bob: Identity
  let clock: ManualClock

  beforeEach(async () => {
    clock = new ManualClock()
    under = await openRelay({ ports: { clock } })
    alice = await personAt(0)
    bob = await personAt(1)
  })

  afterEach(() => under.remove())

  async function register(identity: Identity, change: { readonly bundle?: Uint8Array } = {}) {
    const { fields } = await under.client.proof(identity)
    const bundle = change.bundle ?? identity.bundle.bytes
    return under.client.http
      .put(`/v1/inboxes/${identity.bundle.address}`)
      .send(encodeRegisterRequest({ bundle, proof: fields }))
  }

  it("opens an inbox once and serves its bundle to anybody", async () => {
    const { client } = under
    const { address, bytes } = alice.bundle
    expect((await client.get(`/v1/inboxes/${address}`)).body.code).toBe("no_such_inbox")
    const first = await register(alice)
    expect([first.status, first.body]).toEqual([201, { address, created: true }])
    const second = await register(alice)
    expect([second.status, second.body]).toEqual([200, { address, created: false }])
    const bundle = await client.http
      .get(`/v1/inboxes/${address}`)
      .buffer(true)
      .parse((res, done) => {
        const chunks: Buffer[] = []
        res.on("data", (chunk: Buffer) => chunks.push(chunk))
        res.on("end", () => done(null, Buffer.concat(chunks)))
      })
    expect(toHex(bundle.body)).toBe(toHex(bytes))
  })

  it("keeps inboxes over a restart", async () => {
    await register(alice)
    under = await under.restart()
    expect((await under.client.get(`/v1/inboxes/${alice.bundle.address}`)).status).toBe(200)
  })

  it("opens no inbox with another's bundle, a proof by another key, or none", async () => {
    const foreign = await register(alice, { bundle: bob.bundle.bytes })
    expect([foreign.status, foreign.body.code]).toEqual([400, "bad_request"])
    const damaged = await register(alice, { bundle: alice.bundle.bytes.subarray(1) })
    expect([damaged.status, damaged.body.code]).toEqual([400, "bad_request"])
    const { fields } = await under.client.proof(bob)
    const posing = await under.client.http
      .put(`/v1/inboxes/${alice.bundle.address}`)
      .send(encodeRegisterRequest({ bundle: alice.bundle.bytes, proof: fields }))
    expect([posing.status, posing.body.code]).toEqual([401, "unauthorized"])
    expect((await under.client.get(`/v1/inboxes/${alice.bundle.address}`)).status).toBe(404)
  })

  it("opens no new inbox where registration is closed, and keeps those it has", async () => {
    await register(alice)
    under = await under.restart({ config: { registration: "closed" } })
    const refused = await register(bob)
    expect([refused.status, refused.body.code]).toEqual([403, "registration_closed"])
    expect((await register(alice)).status).toBe(200)
    await under.client.login(alice)
  })

  it("knows no inbox by what is not an address", async () => {
    const { address } = alice.bundle
    await register(alice)
    for (const text of [
      address.toUpperCase(),
      `${address}@relay.test`,
      address.slice(0, -1),
      address.replace(/.$/, "q"),
      "..%2f..%2fkeys",
      "%ff",
      "x".repeat(500),
    ]) {
      const reply = await under.client.get(`/v1/inboxes/${text}`)
      expect([text, reply.status, reply.body.code]).toEqual([text, 404, "not_found"])
    }
  })

  it("lists an owner's sessions and ends them one by one", async () => {
    const { client } = under
    await register(alice)
    await register(bob)
    const first = await client.login(alice)
    clock.advance(1000)
    const second = await client.login(alice)
    const other = await client.login(bob)
    const sessions = parseSessionList((await client.get("/v1/sessions", second)).body)
    expect(sessions.map(({ current }) => current)).toEqual([false, true])
    const id = sessions[0]?.id ?? ""
    // Another inbox's owner cannot end it, and is not told that it exists.
    await client.delete(`/v1/sessions/${id}`, other).expect(204)
    await client.get("/v1/inbox", first).expect(200)
    await client.delete(`/v1/sessions/${id}`, second).expect(204)
    await client.delete(`/v1/sessions/${id}`, second).expect(204)
    expect((await client.get("/v1/inbox", first)).status).toBe(401)
    await client.get("/v1/inbox", second).expect(200)
    expect(parseSessionList((await client.get("/v1/sessions", second)).body)).toHaveLength(1)
  })

  it("ends a session that is idle for a quarter of an hour, and any after an hour", async () => {
    const { client } = under
    await register(alice)
    const idle = await client.login(alice)
    const busy = await client.login(alice)
    for (let minutes = 0; minutes < 50; minutes += 10) {
      clock.advance(10 * minuteMs)
      await client.get("/v1/inbox", busy).expect(200)
    }
    expect((await client.get("/v1/inbox", idle)).status).toBe(401)
    clock.advance(10 * minuteMs)
    expect((await client.get("/v1/inbox", busy)).status).toBe(401)
  })

  it("keeps sessions over a restart", async () => {
    await register(alice)
    const session = await under.client.login(alice)
    under = await under.restart()
    await under.client.get("/v1/inbox", session).expect(200)
  })

  it("refuses every credential that is no session in one shape", async () => {
    await register(alice)
    const replies = []
    for (const header of [undefined, "Bearer x", "Basic YTpi", `Bearer ${"A".repeat(43)}`]) {
      replies.push(await under.client.get("/v1/inbox", header))
    }
    for (const reply of replies) {
      expect(reply.status).toBe(401)
      expect(reply.body).toEqual(replies[0]?.body)
    }
  })

  it("makes a challenge that needs no memory, and refuses a body with the request for one", async () => {
    const first = await under.client.http.post("/v1/sessions/challenge").expect(200)
    const second = await under.client.http.post("/v1/sessions/challenge").expect(200)
    expect(first.body.e).toBe(second.body.e)
    expect(first.body.nonce).not.toBe(second.body.nonce)
    const refused = await under.client.http
      .post("/v1/sessions/challenge")
      .send({ extra: toHex(random(4)) })
    expect([refused.status, refused.body.code]).toEqual([400, "bad_request"])
  })
})
