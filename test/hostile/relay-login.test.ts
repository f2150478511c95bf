import { afterEach, beforeEach, describe, expect, it } from "vitest"
import {
  type Challenge,
  concatBytes,
  type Identity,
  parseChallenge,
  proveLogin,
  random,
  x25519KeyPair,
} from "../../protocol/index.js"
import type { ManualClock } from "../server/manual-clock.js"
import { personAt } from "../server/people.js"
import {
  changed,
  openRelayWithInboxes,
  origin,
  type RelayUnderTest,
} from "../server/relay-under-test.js"

const minuteMs = 60_000

describe("logging in without the right", () => {
  let under: RelayUnderTest
  let alice: Identity
  let bob: Identity
  let clock: ManualClock

  beforeEach(async () => {
    ;({ under, clock, alice, bob } = await openRelayWithInboxes())
  })

  afterEach(() => under.remove())

  async function challenge(): Promise<Challenge> {
    return parseChallenge((await under.client.http.post("/v1/sessions/challenge")).body)
  }

  async function outcome(
    address: string,
    fields: Parameters<RelayUnderTest["client"]["postSession"]>[1],
  ): Promise<[number, string | undefined]> {
    const reply = await under.client.postSession(address, fields)
    return [reply.status, reply.body.code]
  }

  const refused = [401, "unauthorized"]

  it("T45: a proof is taken once", async () => {
    const { fields } = await under.client.proof(alice)
    expect((await outcome(alice.bundle.address, fields))[0]).toBe(201)
    expect(await outcome(alice.bundle.address, fields)).toEqual(refused)
  })

  it("T45: of the same proof sent many times at once one is taken", async () => {
    const { fields } = await under.client.proof(alice)
    const outcomes = await Promise.all(
      Array.from({ length: 10 }, () => outcome(alice.bundle.address, fields)),
    )
    expect(outcomes.filter(([status]) => status === 201)).toHaveLength(1)
  })

  it("T45: a proof is not taken again after a restart", async () => {
    const { fields } = await under.client.proof(alice)
    expect((await outcome(alice.bundle.address, fields))[0]).toBe(201)
    under = await under.restart()
    expect((await outcome(alice.bundle.address, fields))[0]).toBe(401)
  })

  it("T45: a proof for another origin is refused, and the answer names ours", async () => {
    const { fields } = await under.client.proof(alice, "https://phish.test")
    const reply = await under.client.postSession(alice.bundle.address, fields)
    expect([reply.status, reply.body.code]).toEqual([400, "wrong_origin"])
    expect(reply.body.origins).toContain(origin)
    const relabelled = changed(fields, { origin })
    expect(await outcome(alice.bundle.address, relabelled)).toEqual(refused)
  })

  it("T45: a proof by one inbox opens no other one", async () => {
    const { fields } = await under.client.proof(bob)
    expect(await outcome(alice.bundle.address, fields)).toEqual(refused)
  })

  it("T45: a proof for an inbox that is not there fails like a wrong one", async () => {
    const stranger = await personAt(2)
    const { fields } = await under.client.proof(stranger)
    const unknown = await under.client.postSession(stranger.bundle.address, fields)
    const wrong = await under.client.postSession(
      alice.bundle.address,
      (await under.client.proof(bob)).fields,
    )
    expect(unknown.status).toBe(401)
    expect(unknown.body).toEqual(wrong.body)
  })

  it("T45: keys of low order, of either side, are refused", async () => {
    const good = await under.client.proof(alice)
    const zero = new Uint8Array(32)
    const one = Uint8Array.from({ length: 32 }, (_, at) => (at === 0 ? 1 : 0))
    for (const point of [zero, one]) {
      expect(await outcome(alice.bundle.address, changed(good.fields, { c: point }))).toEqual(
        refused,
      )
      expect(await outcome(alice.bundle.address, changed(good.fields, { e: point }))).toEqual(
        refused,
      )
    }
  })

  it("T45: any field changed makes the proof worthless, and leaves the good one good", async () => {
    const { fields } = await under.client.proof(alice)
    for (const bad of [
      changed(fields, { nonce: flip(fields.nonce) }),
      changed(fields, { nonce: flip(fields.nonce, 0) }),
      changed(fields, { c: x25519KeyPair().publicKey }),
      changed(fields, { e: x25519KeyPair().publicKey }),
      changed(fields, { boxNonce: flip(fields.boxNonce) }),
      changed(fields, { proof: flip(fields.proof) }),
    ]) {
      expect(await outcome(alice.bundle.address, bad)).toEqual(refused)
    }
    expect((await outcome(alice.bundle.address, fields))[0]).toBe(201)
  })

  it("T45: a challenge made up, or one of a minute to come, is refused", async () => {
    const { e, nonce } = await challenge()
    const own = x25519KeyPair()
    for (const made of [
      { e: own.publicKey, nonce },
      { e, nonce: random(36).fill(0, 16, 20) },
      { e, nonce: new Uint8Array([...random(16), 0x7f, 0, 0, 0, ...random(16)]) },
    ]) {
      const forged = { ...(await challenge()), ...made }
      const { fields } = proveLogin({ identity: alice, origin, challenge: forged })
      const [status] = await outcome(alice.bundle.address, fields)
      expect(status).toBe(401)
    }
  })

  it("T45: a challenge that the relay did not make is refused although its minute and key are right", async () => {
    const made = await challenge()
    const minute = made.nonce.subarray(16, 20)
    const forged = { ...made, nonce: concatBytes(random(16), minute, random(16)) }
    const { fields } = proveLogin({ identity: alice, origin, challenge: forged })
    expect(await outcome(alice.bundle.address, fields)).toEqual(refused)
  })

  it("T45: a challenge ages, and says so", async () => {
    const fresh = await challenge()
    clock.advance(3 * minuteMs)
    const inTime = proveLogin({ identity: alice, origin, challenge: fresh })
    expect((await outcome(alice.bundle.address, inTime.fields))[0]).toBe(201)
    clock.advance(minuteMs)
    const late = proveLogin({ identity: alice, origin, challenge: fresh })
    expect(await outcome(alice.bundle.address, late.fields)).toEqual([401, "challenge_expired"])
  })
})

/** With one bit of one byte changed, the last one unless it is said which. */
function flip(bytes: Uint8Array, at: number = bytes.length - 1): Uint8Array {
  const flipped = new Uint8Array(bytes)
  flipped[at] = (flipped[at] ?? 0) ^ 1
  return flipped
}
