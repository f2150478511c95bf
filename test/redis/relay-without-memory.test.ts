/** A relay whose Redis is out of memory, as its users see it. */
import { rmSync } from "node:fs"
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest"
import type { Identity } from "../../protocol/index.js"
import { parseRedisUrl } from "../../server/stores/redis-url.js"
import { personAt } from "../server/people.js"
import { makeDelivery, openRelay, type RelayUnderTest } from "../server/relay-under-test.js"
import { hasRedis, type RedisServer, RedisServers } from "./servers.js"

const what = "a relay whose Redis is out of memory"

describe.runIf(hasRedis(what))(what, () => {
  const servers = new RedisServers()
  let redis: RedisServer
  let under: RelayUnderTest
  let alice: Identity

  beforeEach(async () => {
    redis = await servers.server()
    under = await openRelay({ config: { redis: parseRedisUrl(redis.url) } })
    alice = await personAt(0)
    await under.client.register(alice)
  })

  afterEach(async () => {
    await under.relay.stop()
    rmSync(under.folder, { recursive: true, force: true })
  })

  afterAll(() => servers.close())

  it("T25 asks senders to come again, and lets recipients log in, list, fetch and discard", async () => {
    const { client } = under
    const first = makeDelivery([alice])
    const sent = await client.send(first)
    const second = makeDelivery([alice])
    const upload = await client.start([alice], second.body.length)
    await client.putBody(upload, second.body)
    // Less than it has in use already.
    await redis.admin.config("SET", "maxmemory", "1")

    for (const refused of [
      await client.postUpload([alice]),
      await client.postFinish(upload, second.finish),
    ]) {
      expect(refused.status, refused.text).toBe(503)
      expect(Number(refused.headers["retry-after"])).toBeGreaterThan(0)
    }

    const session = await client.login(alice)
    const { entries } = await client.list(session)
    expect(entries).toMatchObject([{ kind: "waiting", id: sent.id }])
    const body = await client.bytes(`/v1/deliveries/${sent.id}/body`, session)
    expect(new Uint8Array(body.body)).toEqual(first.body)
    await client.delete(`/v1/deliveries/${sent.id}`, session).expect(204)
    expect((await client.list(session)).entries).toMatchObject([{ kind: "gone" }])

    await redis.admin.config("SET", "maxmemory", "0")
    await client.postFinish(upload, second.finish).expect(200)
    const after = await client.list(session, "?after=1")
    expect(after.entries).toMatchObject([{ kind: "waiting", id: upload.id }])
  })
})
