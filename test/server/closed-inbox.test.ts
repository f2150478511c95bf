import { afterEach, beforeEach, describe, expect, it } from "vitest"
import {
  encodeRegisterRequest,
  type Identity,
  parseTombstone,
  toHex,
} from "../../protocol/index.js"
import { personAt } from "./people.js"
import { makeDelivery, openRelay, type RelayUnderTest } from "./relay-under-test.js"

async function refuses(request: PromiseLike<{ status: number; body: { code?: string } }>) {
  const { status, body } = await request
  return `${status} ${body.code}`
}

describe("an inbox that its owner closes", () => {
  let under: RelayUnderTest
  let alice: Identity
  let bob: Identity
  let path: string

  beforeEach(async () => {
    under = await openRelay()
    alice = await personAt(0)
    bob = await personAt(1)
    await under.client.register(alice)
    await under.client.register(bob)
    path = `/v1/inboxes/${alice.bundle.address}`
  })

  afterEach(() => under.remove())

  it("takes nothing new and shows nothing, also after a restart, while others go on", async () => {
    const started = await under.client.start([alice])
    const delivery = makeDelivery([alice])
    await under.client.putBody(started, delivery.body)
    await under.client.delete(path, await under.client.login(alice)).expect(204)
    for (const round of ["at once", "after a restart"]) {
      const { client } = under
      expect(await refuses(client.get(path)), round).toBe("404 no_such_inbox")
      expect(await refuses(client.postUpload([alice])), round).toBe("404 no_such_inbox")
      expect(await refuses(client.postUpload([bob, alice])), round).toBe("404 no_such_inbox")
      const finish = client.postFinish(started, delivery.finish)
      expect(await refuses(finish), round).toBe("404 no_such_inbox")
      await client.send(makeDelivery([bob]))
      under = await under.restart()
    }
  })

  it("keeps nothing of what waited but its tombstones; another recipient's copy stays", async () => {
    const alone = await under.client.send(makeDelivery([alice]))
    const both = await under.client.send(makeDelivery([alice, bob]))
    const session = await under.client.login(alice)
    await under.client.delete(path, session).expect(204)
    const { entries, used } = await under.client.list(session)
    expect(used).toEqual({ bytes: 0, deliveries: 0 })
    const reasons = entries.map((entry) =>
      entry.kind === "gone" ? parseTombstone(entry.tombstone).reason : entry.kind,
    )
    expect(reasons).toEqual(["taken", "taken"])
    const bobs = await under.client.login(bob)
    expect((await under.client.list(bobs)).entries).toMatchObject([{ id: both.id }])
    const status = await under.client.get(
      `/v1/deliveries/${alone.id}/status`,
      `Bearer ${Buffer.from(alone.deleteCap).toString("base64url")}`,
    )
    expect(status.body).toMatchObject({ recipients: [{ state: "taken" }] })
  })

  it("is closed by its owner alone, and a second time as well", async () => {
    const bobs = await under.client.login(bob)
    expect(await refuses(under.client.delete(path, bobs))).toBe("404 not_found")
    const nobody = `Bearer ${"A".repeat(43)}`
    expect(await refuses(under.client.delete(path, nobody))).toBe("401 unauthorized")
    expect((await under.client.get(path)).status).toBe(200)
    await under.client.delete(path, await under.client.login(alice)).expect(204)
    await under.client.delete(path, await under.client.login(alice)).expect(204)
  })

  it("opens again when it is registered, and its chain goes on where it was", async () => {
    const { client } = under
    await client.send(makeDelivery([alice]))
    await client.delete(path, await client.login(alice)).expect(204)
    const before = await client.list(await client.login(alice))
    await client.register(alice)
    expect((await client.get(path)).status).toBe(200)
    await client.send(makeDelivery([alice]))
    const after = await client.list(await client.login(alice))
    expect(after.entries.map(({ seq }) => seq)).toEqual([1, 2])
    expect(toHex(after.floor.head)).toBe(toHex(before.floor.head))
  })

  it("stays closed where the relay takes no new inboxes", async () => {
    await under.client.delete(path, await under.client.login(alice)).expect(204)
    under = await under.restart({ config: { registration: "closed" } })
    const { fields } = await under.client.proof(alice)
    const request = encodeRegisterRequest({ bundle: alice.bundle.bytes, proof: fields })
    const reply = await under.client.http.put(path).send(request)
    expect(`${reply.status} ${reply.body.code}`).toBe("403 registration_closed")
    expect((await under.client.get(path)).status).toBe(404)
  })
})
