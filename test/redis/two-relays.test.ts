import { rmSync } from "node:fs"
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest"
import {
  encodeBearer,
  gridCount,
  type Identity,
  parseFinishReply,
  parseRelayInfo,
  parseStartUploadReply,
  parseUploadState,
  random,
  toHex,
} from "../../protocol/index.js"
import { parseRedisUrl } from "../../server/stores/redis-url.js"
import { personAt } from "../server/people.js"
import {
  makeDelivery,
  openRelay,
  partOf,
  type RelayUnderTest,
  SmallClient,
} from "../server/relay-under-test.js"
import { hasRedis, type RedisServer, RedisServers } from "./servers.js"

const what = "two relays on one folder and one Redis"

describe.runIf(hasRedis(what))(what, () => {
  const servers = new RedisServers()
  let redis: RedisServer
  let relays: RelayUnderTest[] = []
  let one: SmallClient
  let two: SmallClient
  let alice: Identity
  let bob: Identity

  beforeAll(async () => {
    redis = await servers.server()
  })
  afterAll(() => servers.close())

  beforeEach(async () => {
    const config = { redis: parseRedisUrl(redis.url) }
    const first = await openRelay({ config })
    const second = await openRelay({ config, folder: first.folder })
    relays = [first, second]
    ;[one, two] = [first.client, second.client]
    ;[alice, bob] = [await personAt(0), await personAt(1)]
    await one.register(alice)
    await two.register(bob)
  })

  afterEach(async () => {
    for (const { relay } of relays) await relay.stop()
    for (const { folder } of relays) rmSync(folder, { recursive: true, force: true })
  })

  it("are one relay: keys, sessions, uploads, inboxes", async () => {
    const keys = [one, two].map(async (client) =>
      toHex(parseRelayInfo((await client.get("/v1/relay")).body).signingKey),
    )
    expect(new Set(await Promise.all(keys)).size).toBe(1)
    const session = await one.login(alice)
    const delivery = makeDelivery([alice, bob], { bodyLength: 700_000 })
    const upload = await one.start(delivery.recipients, delivery.body.length)
    for (let at = 0; at < gridCount(delivery.body.length); at++) {
      const client = at % 2 === 0 ? one : two
      await client.putPart(upload, at, partOf(delivery.body, at)).expect(200)
    }
    const heard = two.list(session, "?wait=20")
    const { receipts } = parseFinishReply(
      (await one.postFinish(upload, delivery.finish).expect(200)).body,
    )
    expect(receipts).toHaveLength(2)
    expect((await heard).entries.map((entry) => entry.kind)).toEqual(["waiting"])
    const body = await two.bytes(`/v1/deliveries/${upload.id}/body`, session)
    expect(new Uint8Array(body.body)).toEqual(delivery.body)
  })

  it("give the same receipts when both are asked to finish at once", async () => {
    const delivery = makeDelivery([alice])
    const upload = await one.start([alice], delivery.body.length)
    await one.putBody(upload, delivery.body)
    const finish = async (client: SmallClient): Promise<string> => {
      for (;;) {
        const reply = await client.postFinish(upload, delivery.finish)
        if (reply.status === 503) continue
        const [first] = parseFinishReply(reply.body).receipts
        return toHex(first?.receipt ?? new Uint8Array())
      }
    }
    const receipts = await Promise.all([finish(one), finish(two), finish(one), finish(two)])
    expect(new Set(receipts).size).toBe(1)
    expect((await one.list(await two.login(alice))).entries).toHaveLength(1)
  })

  it("start one upload when both are asked for it at once", async () => {
    const options = { deleteCap: random(32), idempotencyKey: toHex(random(16)) }
    const replies = await Promise.all([one, two].map((c) => c.postUpload([alice], options)))
    const started = replies.map(({ body }) => parseStartUploadReply(body))
    expect(started[0]).toEqual(started[1])
  })

  it("T18, T19: store one part of many that both are sent for one place, and what is finished is whole", async () => {
    const delivery = makeDelivery([alice], { bodyLength: 60_000 })
    const upload = await one.start([alice], delivery.body.length)
    const sent = await Promise.all(
      Array.from({ length: 24 }, (_, at) => {
        const client = at % 2 === 0 ? one : two
        return client.putPart(upload, 0, at % 3 === 2 ? random(60_000) : delivery.body)
      }),
    )
    const codes = new Set(sent.map(({ status }) => status))
    expect(codes).toEqual(new Set([200, 409]))
    const { runs } = parseUploadState(
      (await two.get(`/v1/uploads/${upload.id}`, encodeBearer(upload.token))).body,
    )
    expect(runs).toHaveLength(1)
    const reply = await two.postFinish(upload, delivery.finish)
    expect([200, 409]).toContain(reply.status)
    if (reply.status === 200) {
      const session = await one.login(alice)
      const body = await one.bytes(`/v1/deliveries/${upload.id}/body`, session)
      expect(new Uint8Array(body.body)).toEqual(delivery.body)
    }
  })

  it("grant what both are asked for: the greater extension stands", async () => {
    const upload = await one.start([alice], 100_000)
    const extend = async (client: SmallClient, bytes: number): Promise<void> => {
      for (;;) {
        const reply = await client.http
          .post(`/v1/uploads/${upload.id}/extend`)
          .set("Authorization", encodeBearer(upload.token))
          .send({ reserve_bytes: bytes })
        if (reply.status === 200) return
        expect(reply.status).toBe(503)
      }
    }
    await Promise.all(
      [one, two].flatMap((c, at) => [1, 2, 3].map((n) => extend(c, 200_000 * n + at))),
    )
    const state = await one.get(`/v1/uploads/${upload.id}`, encodeBearer(upload.token))
    expect(parseUploadState(state.body).reservedBytes).toBe(600_001)
    // What the disk has is what an index that is lost comes back with.
    await redis.admin.flushall()
    const again = await until200(() =>
      two.get(`/v1/uploads/${upload.id}`, encodeBearer(upload.token)),
    )
    expect(parseUploadState(again).reservedBytes).toBe(600_001)
  })

  it("say that their index cannot be reached while it cannot, and go on when it is back", async () => {
    const upload = await one.start([alice], 100_000)
    await redis.kill()
    const path = `/v1/uploads/${upload.id}`
    for (const client of [one, two]) {
      const { status, body, headers } = await client.get(path, encodeBearer(upload.token))
      expect([status, body.code]).toEqual([503, "index_unavailable"])
      expect(Number(headers["retry-after"])).toBeGreaterThan(0)
    }
    await redis.start()
    await until200(() => two.get(path, encodeBearer(upload.token)))
  })

  it("let an owner log in as soon as they are back, when Redis lost what they share as well", async () => {
    await one.login(alice)
    await redis.admin.flushall()
    const { address } = alice.bundle
    for (const client of [one, two]) {
      await until200(() => client.get(`/v1/inboxes/${address}`))
      expect((await client.list(await client.login(alice))).entries).toEqual([])
    }
  })

  it("list nothing after the greatest number there can be", async () => {
    await one.send(makeDelivery([alice]))
    const session = await one.login(alice)
    const { entries } = await one.list(session, `?after=${Number.MAX_SAFE_INTEGER}`)
    expect(entries).toEqual([])
  })

  it("number what both publish in one inbox in one row, without a gap", async () => {
    const sends = Array.from({ length: 12 }, (_, at) =>
      (at % 2 === 0 ? one : two).send(makeDelivery([alice])),
    )
    await Promise.all(sends)
    const { entries } = await two.list(await one.login(alice), "?limit=100")
    expect(entries.map(({ seq }) => seq)).toEqual(Array.from({ length: 12 }, (_, at) => at + 1))
  })

  it("sweep, reconcile and stop beside one another", async () => {
    await one.send(makeDelivery([alice]))
    await Promise.all(relays.flatMap(({ relay }) => [relay.sweep(), relay.reconcile()]))
    const { entries } = await two.list(await one.login(alice))
    expect(entries).toHaveLength(1)
    await relays[0]?.relay.stop()
    await two.send(makeDelivery([alice]))
    expect((await two.list(await two.login(alice))).entries).toHaveLength(2)
    const alarms = relays.flatMap(({ log }) => log.filter(({ level }) => level === "alarm"))
    expect(alarms).toEqual([])
  })
})

/** The body of the answer that comes when the relay is ready again. */
async function until200(ask: () => PromiseLike<{ status: number; body: unknown }>) {
  for (;;) {
    const { status, body } = await ask()
    if (status === 200) return body
    expect(status).toBe(503)
  }
}
