import { readdirSync } from "node:fs"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { encodeBearer, type Identity, parseUploadState, random } from "../../protocol/index.js"
import { personAt } from "../server/people.js"
import { makeDelivery, openRelay, type RelayUnderTest } from "../server/relay-under-test.js"

describe("senders who do not behave", () => {
  let under: RelayUnderTest
  let alice: Identity

  beforeEach(async () => {
    under = await openRelay()
    alice = await personAt(0)
    await under.client.register(alice)
  })

  afterEach(() => under.remove())

  const filesOf = (id: string) => readdirSync(join(under.folder, "spool", id))

  it("T18: a part posted fifty times at once with equal bytes is stored once, and every post is answered well", async () => {
    const { client } = under
    const delivery = makeDelivery([alice])
    const upload = await client.start([alice], delivery.body.length)
    const replies = await Promise.all(
      Array.from({ length: 50 }, () => client.putPart(upload, 0, delivery.body)),
    )
    expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([200]))
    expect(new Set(replies.map(({ text }) => text)).size).toBe(1)
    const state = await client.get(`/v1/uploads/${upload.id}`, encodeBearer(upload.token))
    expect(parseUploadState(state.body).runs).toHaveLength(1)
    expect(filesOf(upload.id).sort()).toEqual([expect.stringMatching(/^p0-/), "upload.v1"])
    await client.postFinish(upload, delivery.finish).expect(200)
    const page = await client.list(await client.login(alice))
    expect(page.used.bytes).toBe(delivery.body.length + delivery.manifest.length)
  })

  it("T19: of different parts for one place posted at once one wins, the others are refused, and nothing strays", async () => {
    const { client } = under
    const upload = await client.start([alice])
    const replies = await Promise.all(
      Array.from({ length: 30 }, () => client.putPart(upload, 0, random(1000))),
    )
    const won = replies.filter(({ status }) => status === 200)
    expect(won).toHaveLength(1)
    for (const reply of replies) {
      if (reply.status !== 200)
        expect([reply.status, reply.body.code]).toEqual([409, "part_differs"])
    }
    await under.relay.sweep()
    expect(filesOf(upload.id).sort()).toEqual([expect.stringMatching(/^p0-/), "upload.v1"])
    const state = await client.get(`/v1/uploads/${upload.id}`, encodeBearer(upload.token))
    const [run] = parseUploadState(state.body).runs
    expect(won[0]?.body.leaves).toBe(Buffer.from(run?.leaves ?? random(1)).toString("base64url"))
  })

  it("T31: refuses part indices that are negative, too large, or not canonical", async () => {
    const { client } = under
    const upload = await client.start([alice], 10 * 1024 ** 3)
    for (const index of [
      "2147483648",
      "99999999999999999999",
      "-1",
      "1e3",
      "01",
      "0x1",
      "1.0",
      "+1",
    ]) {
      const reply = await client.putPart(upload, index, random(10))
      expect([index, reply.status, reply.body.code]).toEqual([index, 400, "bad_request"])
    }
    for (const index of [2 ** 31 - 1, 70_000, 10_300]) {
      const reply = await client.putPart(upload, index, random(10))
      expect([index, reply.status, reply.body.code]).toEqual([index, 413, "too_large"])
    }
    expect(filesOf(upload.id)).toEqual(["upload.v1"])
  })

  it("T31: counts what arrives and not what was declared, whichever way the declaration lies", async () => {
    const { client } = under
    // Reserved too little: parts beyond it are refused before they are read.
    const small = await client.start([alice], 1000)
    expect((await client.putPart(small, 0, random(1001))).body.code).toBe("too_large")
    // Reserved too much: what was not sent is missing, and then counts for nothing.
    const delivery = makeDelivery([alice])
    const large = await client.start([alice], 5 * 1024 ** 3)
    expect((await client.postFinish(large, delivery.finish)).body.code).toBe("parts_missing")
    await client.putBody(large, delivery.body)
    await client.postFinish(large, delivery.finish).expect(200)
    const page = await client.list(await client.login(alice))
    expect(page.used.bytes).toBe(delivery.body.length + delivery.manifest.length)
  })

  it("T31: refuses repeated query parameters", async () => {
    const session = await under.client.login(alice)
    const reply = await under.client.get("/v1/inbox?limit=1&limit=2", session)
    expect([reply.status, reply.body.code]).toEqual([400, "bad_request"])
  })
})
