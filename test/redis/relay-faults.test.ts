// A relay whose Redis is killed, emptied, put back to an earlier moment, or written to by somebody else.
import { copyFileSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest"
import {
  type FinishReply,
  type Identity,
  parseFinishReply,
  parseHead,
  parseInboxPage,
  random,
  sha256,
  toHex,
} from "../../protocol/index.js"
import type { Disk } from "../../server/index.js"
import { inboxIdOf, isDeliveryId } from "../../server/ids.js"
import { nodeDisk } from "../../server/node-disk.js"
import { parseRedisUrl } from "../../server/stores/redis-url.js"
import { personAt } from "../server/people.js"
import { openRelay, type RelayUnderTest, type StartedUpload } from "../server/relay-under-test.js"
import { makeDelivery, type TestDelivery } from "../server/test-delivery.js"
import { openIndexOn } from "./index-on.js"
import { hasRedis, type RedisServer, RedisServers, until } from "./servers.js"

describe.runIf(hasRedis("a relay and what becomes of its Redis"))("a relay on Redis", () => {
  const servers = new RedisServers()
  let redis: RedisServer
  let under: RelayUnderTest
  let alice: Identity
  /** Runs before the disk does what is named. */
  let before: (operation: string, path: string) => Promise<void>

  const disk: Disk = {
    ...nodeDisk,
    async rename(from, to) {
      await before("rename", to)
      await nodeDisk.rename(from, to)
    },
    async open(path, access) {
      await before(access, path)
      return nodeDisk.open(path, access)
    },
  }

  afterAll(() => servers.close())

  beforeEach(async () => {
    before = () => Promise.resolve()
    redis = await servers.server()
    under = await openRelay({ config: { redis: parseRedisUrl(redis.url) }, ports: { disk } })
    alice = await personAt(0)
    await under.client.register(alice)
  })

  afterEach(async () => {
    await under.remove()
    await redis.kill()
  })

  async function finish(upload: StartedUpload, delivery: TestDelivery): Promise<FinishReply> {
    const reply = await again(() => under.client.postFinish(upload, delivery.finish))
    expect(reply.status, reply.text).toBe(200)
    return parseFinishReply(reply.body)
  }

  async function login(): Promise<string> {
    await again(() => under.client.http.post("/v1/sessions/challenge"))
    return under.client.login(alice)
  }

  const alarms = () => under.log.flatMap(({ level, event }) => (level === "alarm" ? [event] : []))

  const moments: readonly (readonly [string, (operation: string, path: string) => boolean])[] = [
    [
      "the delivery is committed",
      (op, path) => op === "rename" && /\/store\/[0-9a-f]+$/.test(path),
    ],
    ["its place is noted beside it", (op, path) => op === "update" && path.endsWith("/links.v1")],
    ["its place is in the inbox's log", (op, path) => op === "update" && path.endsWith("/log.v1")],
  ]
  const faults: readonly (readonly [string, () => Promise<unknown>])[] = [
    ["emptied", () => redis.admin.flushall()],
    ["killed and started empty", () => redis.kill().then(() => redis.start())],
  ]
  for (const [moment, isThen] of moments) {
    for (const [fault, strike] of faults) {
      it(`T24: is the same delivery, with the same receipt, when Redis is ${fault} before ${moment}`, async () => {
        const delivery = makeDelivery([alice])
        const upload = await under.client.start([alice], delivery.body.length)
        await under.client.putBody(upload, delivery.body)
        let strikes = 0
        before = async (operation, path) => {
          if (strikes > 0 || !isThen(operation, path)) return
          strikes += 1
          await strike()
        }
        const first = await finish(upload, delivery)
        expect(strikes).toBe(1)
        expect(toHex((await finish(upload, delivery)).receipts[0]?.receipt ?? random(1))).toBe(
          toHex(first.receipts[0]?.receipt ?? random(1)),
        )
        const session = await login()
        const { entries } = await under.client.list(session)
        expect(entries).toMatchObject([{ kind: "waiting", seq: 1, id: upload.id }])
        await under.relay.sweep()
        const body = await under.client.bytes(`/v1/deliveries/${upload.id}/body`, session)
        expect(new Uint8Array(body.body)).toEqual(delivery.body)
        expect(alarms().filter((event) => event !== "index_away")).toEqual([])
      })
    }
  }

  it("T26: goes on from what was signed when a failover lost the last writes", async () => {
    const taken = await under.client.send(makeDelivery([alice]))
    const dump = join(String((await redis.admin.config("GET", "dir"))[1]), "dump.rdb")
    await redis.admin.save()
    copyFileSync(dump, `${dump}.earlier`)
    // What the server forgets: a delivery, the end of one, and parts of a third.
    const kept = await under.client.send(makeDelivery([alice]))
    const session = await under.client.login(alice)
    await under.client.delete(`/v1/deliveries/${taken.id}`, session).expect(204)
    const third = makeDelivery([alice])
    const upload = await under.client.start([alice], third.body.length)
    await under.client.putBody(upload, third.body)
    const { head } = await under.client.list(session)
    await redis.kill()
    copyFileSync(`${dump}.earlier`, dump)
    await redis.start()
    await until(() =>
      Promise.resolve(
        under.log.some(({ event }) => event === "index_doubted" || event === "index_away"),
      ),
    )
    await finish(upload, third)
    const page = await under.client.list(await login())
    expect(page.entries).toMatchObject([
      { kind: "gone", seq: 1 },
      { kind: "waiting", seq: 2, id: kept.id },
      { kind: "waiting", seq: 3, id: upload.id },
    ])
    expect(parseHead(head).seq).toBe(2)
    expect(parseHead(page.head).seq).toBe(3)
    expect(alarms().filter((event) => event !== "index_away")).toEqual([])
  })

  it("T26: signs no chain that lags behind what it signed, however soon it is asked after a failover", async () => {
    const session = await under.client.login(alice)
    await under.client.send(makeDelivery([alice]))
    const dump = join(String((await redis.admin.config("GET", "dir"))[1]), "dump.rdb")
    await redis.admin.save()
    copyFileSync(dump, `${dump}.earlier`)
    await under.client.send(makeDelivery([alice]))
    expect(parseHead((await under.client.list(session)).head).seq).toBe(2)
    await redis.kill()
    copyFileSync(`${dump}.earlier`, dump)
    await redis.start()
    const signed: number[] = []
    const isSettled = () => under.log.some(({ event }) => event === "index_mended")
    while (!isSettled() || signed.length === 0) {
      const reply = await under.client.get("/v1/inbox", session)
      if (reply.status === 200) signed.push(parseHead(parseInboxPage(reply.body).head).seq)
      else expect(reply.status).toBe(503)
    }
    expect(new Set(signed)).toEqual(new Set([2]))
  })

  it("answers 503 with a time to ask again while Redis is away, says so, and goes on by itself", async () => {
    const session = await under.client.login(alice)
    await redis.kill()
    await until(async () => {
      const { text } = await under.client.get("/healthz")
      return text.includes("the index cannot be reached")
    })
    const refused = await under.client.get("/v1/inbox", session).expect(503)
    expect(Number(refused.headers["retry-after"])).toBeGreaterThan(0)
    await under.client.get("/v1/relay").expect(200)
    await redis.start()
    const { entries } = await under.client.list(await login())
    expect(entries).toEqual([])
    expect(alarms()).toEqual(["index_away"])
  })

  /** Somebody who may write to the relay's Redis. */
  async function intruder(): ReturnType<typeof openIndexOn> {
    const state: unknown = JSON.parse(readFileSync(join(under.folder, "shared-index"), "utf8"))
    const name = typeof state === "object" && state !== null && "name" in state ? state.name : ""
    return openIndexOn(redis.url, String(name))
  }

  it("T53: finishes for whom and by whose word the disk says, whatever Redis says, and raises an alarm", async () => {
    const mallory = await personAt(1)
    await under.client.register(mallory)
    const delivery = makeDelivery([alice])
    const upload = await under.client.start([alice], delivery.body.length)
    await under.client.putBody(upload, delivery.body)
    const index = await intruder()
    try {
      if (!isDeliveryId(upload.id)) throw new Error("an id")
      const known = await index.upload(upload.id)
      if (known?.state !== "open") throw new Error("an open upload")
      const parts = await index.parts(upload.id)
      await index.forgetUpload(upload.id)
      await index.startUpload({
        ...known,
        recipients: [inboxIdOf(mallory.bundle.inboxId)],
        deleteHash: sha256(random(32)),
      })
      for (const part of parts) await index.setPart({ ...part, id: upload.id })
    } finally {
      await index.close()
    }
    await finish(upload, delivery)
    expect((await under.client.list(await under.client.login(alice))).entries).toHaveLength(1)
    expect((await under.client.list(await under.client.login(mallory))).entries).toHaveLength(0)
    const status = await under.client.get(
      `/v1/deliveries/${upload.id}/status`,
      `Bearer ${Buffer.from(upload.deleteCap).toString("base64url")}`,
    )
    expect(status.status).toBe(200)
    expect(alarms()).toContain("record_refused")
  })

  it("T53: keeps what the disk has not seen expire, and puts the edited entry right", async () => {
    const sent = await under.client.send(makeDelivery([alice]))
    const index = await intruder()
    try {
      const inbox = inboxIdOf(alice.bundle.inboxId)
      const [entry] = await index.entriesAfter({ inbox, seq: 0, limit: 1 })
      const envelope = await index.envelope({ inbox, seq: 1 })
      const bundle = await index.bundle(inbox)
      if (entry?.kind !== "waiting" || !envelope || !bundle) throw new Error("an entry")
      const edited = { ...entry, envelope, expiresMs: 1 }
      const floor = { floorSeq: 0, floorHead: new Uint8Array(32) }
      await index.restoreInbox({ inbox, bundle, ...floor, entries: [edited] })
      if (isDeliveryId(sent.id)) await index.closeUpload({ id: sent.id, dueMs: 1 })
    } finally {
      await index.close()
    }
    await under.relay.sweep()
    await under.relay.reconcile()
    const { entries } = await under.client.list(await under.client.login(alice))
    expect(entries).toMatchObject([{ kind: "waiting", seq: 1, id: sent.id }])
    const session = await under.client.login(alice)
    await under.client.get(`/v1/deliveries/${sent.id}/header`, session).expect(200)
  })
})

/** As a client does: what is busy, away or being rebuilt is asked again. */
async function again<T extends { status: number }>(ask: () => PromiseLike<T>): Promise<T> {
  let reply: T | undefined
  await until(async () => {
    reply = await ask()
    return reply.status !== 503
  })
  if (reply === undefined) throw new Error("never asked")
  return reply
}
