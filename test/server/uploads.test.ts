import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { type Identity } from "../../protocol/index.js"
import { personAt } from "./people.js"
import { makeDelivery, openRelay, type RelayUnderTest } from "./relay-under-test.js"

describe("uploads", () => {
  let under: RelayUnderTest
  let alice: Identity

  beforeEach(async () => {
    under = await openRelay()
    alice = await personAt(0)
    await under.client.register(alice)
  })

  afterEach(() => under.remove())

  it("carries a delivery from start to the recipient's listing, byte for byte", async () => {
    const { client } = under
    const delivery = makeDelivery([alice], { bodyLength: 3_000_000 })
    const { id, reply } = await client.send(delivery)
    expect(reply.id).toBe(id)
    const session = await client.login(alice)
    const page = await client.list(session, "?envelopes=1")
    expect(page.entries).toMatchObject([{ kind: "waiting", seq: 1, id }])
    const body = await client.bytes(`/v1/deliveries/${id}/body`, session)
    expect(body.status).toBe(200)
    expect(Buffer.compare(body.body, delivery.body)).toBe(0)
  })
})
