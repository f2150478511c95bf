import { readdirSync, statSync } from "node:fs"
import { join } from "node:path"
import { afterEach, describe, expect, it } from "vitest"
import { encodeBearer, type Identity } from "../../protocol/index.js"
import { personAt } from "../server/people.js"
import { makeDelivery, openRelay, type RelayUnderTest } from "../server/relay-under-test.js"
import { contentsUnder, spellings } from "./spellings.js"

describe("what the relay keeps", () => {
  let under: RelayUnderTest | undefined

  afterEach(async () => {
    await under?.remove()
    under = undefined
  })

  it("T01: no credential stands anywhere in the data folder or the log, in no spelling", async () => {
    under = await openRelay()
    const { client } = under
    const alice: Identity = await personAt(0)
    await client.register(alice)
    const open = await client.start([alice])
    const sent = await client.send(makeDelivery([alice], { bodyLength: 200_000 }))
    const session = await client.login(alice)
    await client.get(`/v1/deliveries/${sent.id}/body`, session)
    const ended = await client.send(makeDelivery([alice]))
    await client.delete(`/v1/deliveries/${ended.id}`, encodeBearer(ended.deleteCap)).expect(204)
    await under.relay.sweep()
    await under.relay.stop()
    const sessionToken = Buffer.from(session.replace("Bearer ", ""), "base64url")
    const secrets = [open, sent, ended]
      .flatMap(({ token, deleteCap }) => [token, deleteCap])
      .concat(sessionToken)
    const places = contentsUnder(under.folder)
    places.push(Buffer.from(JSON.stringify(under.log)))
    expect(places.length).toBeGreaterThan(15)
    for (const secret of secrets) {
      for (const spelling of spellings(secret)) {
        expect(places.some((place) => place.includes(spelling))).toBe(false)
      }
    }
    // The search finds what is there: a part of the body, as it was sent.
    expect(places.some((place) => place.includes("KNHE"))).toBe(true)
    under = await openRelay({ folder: under.folder })
  })

  it("T01: everything in the data folder is its owner's alone", async () => {
    under = await openRelay()
    const alice = await personAt(0)
    await under.client.register(alice)
    await under.client.send(makeDelivery([alice]))
    for (const name of readdirSync(under.folder, { recursive: true, encoding: "utf8" })) {
      // The index's library makes its files itself; their folder keeps others out.
      if (name.startsWith("index/")) continue
      expect([name, statSync(join(under.folder, name)).mode & 0o077]).toEqual([name, 0])
    }
  })
})
