import { rmSync } from "node:fs"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import {
  encodeBearer,
  gridCount,
  gridLength,
  type Identity,
  leafHash,
  parsePartsReply,
  parseStartUploadReply,
  parseUploadState,
  random,
  toHex,
} from "../../protocol/index.js"
import { ManualClock } from "./manual-clock.js"
import { personAt } from "./people.js"
import {
  leavesOf,
  makeDelivery,
  openRelay,
  partOf,
  type RelayUnderTest,
} from "./relay-under-test.js"

const hourMs = 3_600_000

describe("uploads", () => {
  let under: RelayUnderTest
  let alice: Identity
  let bob: Identity
  let clock: ManualClock

  beforeEach(async () => {
    clock = new ManualClock()
    under = await openRelay({
      ports: { clock },
      config: { deliveryBytes: 50_000_000, inboxBytes: 20_000_000, requestBytes: 4 * 1024 ** 2 },
    })
    alice = await personAt(0)
    bob = await personAt(1)
    await under.client.register(alice)
    await under.client.register(bob)
  })

  afterEach(() => under.remove())

  const post = (type: string, text: string) =>
    under.client.http
      .post("/v1/uploads")
      .set("Idempotency-Key", toHex(random(16)))
      .set("Content-Type", type)
      .send(text)

  const extend = (upload: { id: string; token: Uint8Array }, reserveBytes: unknown) =>
    under.client.http
      .post(`/v1/uploads/${upload.id}/extend`)
      .set("Authorization", encodeBearer(upload.token))
      .send({ reserve_bytes: reserveBytes })

  describe("starting", () => {
    it("answers with an id, a token and what was reserved", async () => {
      const reply = await under.client.postUpload([alice, bob], { reserveBytes: 20_000 })
      expect(reply.status).toBe(201)
      const upload = parseStartUploadReply(reply.body)
      expect(upload).toMatchObject({ reservedBytes: 20_000, requestBytes: 4 * 1024 ** 2 })
      expect(upload.expiresMs).toBe(clock.wallMs() + 24 * hourMs)
    })

    it("replays the same answer for the same key and body, also at the same time", async () => {
      const options = { idempotencyKey: toHex(random(16)), deleteCap: random(32) }
      const replies = await Promise.all(
        Array.from({ length: 8 }, () => under.client.postUpload([alice], options)),
      )
      clock.advance(1000)
      replies.push(await under.client.postUpload([alice], options))
      for (const reply of replies) {
        expect(reply.status).toBe(201)
        expect(reply.body).toEqual(replies[0]?.body)
      }
    })

    it("replays after a restart, with the token it gave before", async () => {
      const options = { idempotencyKey: toHex(random(16)), deleteCap: random(32) }
      const first = await under.client.postUpload([alice], options)
      under = await under.restart()
      const second = await under.client.postUpload([alice], options)
      expect(second.body).toEqual(first.body)
    })

    it("refuses another body under a key that was used", async () => {
      const idempotencyKey = toHex(random(16))
      await under.client.postUpload([alice], { idempotencyKey })
      const reply = await under.client.postUpload([bob], { idempotencyKey })
      expect(reply.status).toBe(422)
      expect(reply.body.code).toBe("idempotency_mismatch")
    })

    it("replays a finished upload's start, and refuses its parts", async () => {
      const { client } = under
      const delivery = makeDelivery([alice])
      const options = {
        idempotencyKey: toHex(random(16)),
        deleteCap: random(32),
        reserveBytes: delivery.body.length,
      }
      const upload = parseStartUploadReply((await client.postUpload([alice], options)).body)
      await client.putBody(upload, delivery.body)
      await client.postFinish(upload, delivery.finish).expect(200)
      const again = parseStartUploadReply((await client.postUpload([alice], options)).body)
      expect(toHex(again.token)).toBe(toHex(upload.token))
      const part = await client.putPart(again, 0, delivery.body)
      expect(part.body.code).toBe("upload_finished")
    })

    it("wants an idempotency key of 32 lower-case hex characters", async () => {
      for (const idempotencyKey of ["", "short", "A".repeat(32), "0".repeat(33)]) {
        const reply = await under.client.postUpload([alice], { idempotencyKey })
        expect([reply.status, reply.body.code]).toEqual([400, "bad_request"])
      }
    })

    it("names the inbox that is not there", async () => {
      const stranger = await personAt(2)
      const reply = await under.client.postUpload([alice, stranger])
      expect([reply.status, reply.body.code]).toEqual([404, "no_such_inbox"])
      expect(reply.body.address).toBe(stranger.bundle.address)
    })

    it("refuses a reservation beyond the largest delivery, naming the limit", async () => {
      const reply = await under.client.postUpload([alice], { reserveBytes: 50_000_001 })
      expect([reply.status, reply.body.code]).toEqual([413, "too_large"])
      expect(reply.body.limit).toBe(50_000_000)
    })

    it("refuses what would not fit into the inbox, and gives back what it had reserved", async () => {
      const { client } = under
      await client.start([alice], 15_000_000)
      const full = await client.postUpload([bob, alice], { reserveBytes: 15_000_000 })
      expect([full.status, full.body.code]).toEqual([507, "inbox_full"])
      expect(full.headers["retry-after"]).toBeDefined()
      expect((await client.postUpload([bob], { reserveBytes: 20_000_000 })).status).toBe(201)
    })

    it("refuses more deliveries than an inbox may hold", async () => {
      under = await under.restart({ config: { inboxDeliveries: 2 } })
      await under.client.start([alice])
      await under.client.start([alice])
      const reply = await under.client.postUpload([alice])
      expect([reply.status, reply.body.code]).toEqual([507, "inbox_full"])
    })

    it("refuses what would leave the disk less than its head-room", async () => {
      under = await under.restart({ config: { diskHeadroomBytes: Number.MAX_SAFE_INTEGER } })
      const reply = await under.client.postUpload([alice])
      expect([reply.status, reply.body.code]).toEqual([507, "relay_full"])
      expect(reply.headers["retry-after"]).toBeDefined()
      const { time: _, ...said } = under.log.at(-1) ?? {}
      expect(said).toEqual({
        level: "warning",
        event: "request_refused",
        route: "/v1/uploads",
        method: "POST",
        status: 507,
        code: "relay_full",
      })
    })

    it("refuses unknown members, the same inbox twice, nobody, and what is no address", async () => {
      const good = {
        recipients: [alice.bundle.address],
        reserve_bytes: 1,
        delete_hash: "A".repeat(43),
      }
      const bad = [
        { ...good, extra: 1 },
        { ...good, recipients: [alice.bundle.address, alice.bundle.address] },
        { ...good, recipients: [] },
        { ...good, recipients: [`${alice.bundle.address}@relay.test`] },
        { ...good, recipients: [alice.bundle.address.replace(/.$/, "q")] },
        { ...good, reserve_bytes: -1 },
        { ...good, reserve_bytes: "1" },
        [good],
        null,
      ]
      for (const body of bad) {
        const reply = await under.client.http
          .post("/v1/uploads")
          .set("Idempotency-Key", toHex(random(16)))
          .set("Content-Type", "application/json")
          .send(JSON.stringify(body))
        expect([reply.status, reply.body.code], JSON.stringify(body)).toEqual([400, "bad_request"])
      }
    })

    it("refuses what is not JSON, is not called JSON, or is too long", async () => {
      expect((await post("application/json", "{")).body.code).toBe("bad_request")
      expect((await post("text/plain", "{}")).status).toBe(415)
      expect((await post("application/json", " ".repeat(20_000))).status).toBe(413)
    })
  })

  describe("extending", () => {
    it("grows the reservation, never shrinks it, and renews the end up to 72 hours", async () => {
      const upload = await under.client.start([alice], 100_000)
      expect((await extend(upload, 300_000)).body.reserved_bytes).toBe(300_000)
      expect((await extend(upload, 200_000)).body.reserved_bytes).toBe(300_000)
      const started = clock.wallMs()
      for (const hours of [20, 40, 60]) {
        clock.advance(20 * hourMs)
        const expiresMs = Math.min(started + (hours + 24) * hourMs, started + 72 * hourMs)
        expect((await extend(upload, 0)).body.expires_ms).toBe(expiresMs)
      }
    })

    it("lets parts in up to the new total and no further", async () => {
      const { client } = under
      const body = random(200_000)
      const upload = await client.start([alice], 150_000)
      await client.putPart(upload, 0, partOf(body, 0)).expect(200)
      const refused = await client.putPart(upload, 1, partOf(body, 1))
      expect([refused.status, refused.body.code]).toEqual([413, "too_large"])
      await extend(upload, 200_000).expect(200)
      await client.putPart(upload, 1, partOf(body, 1)).expect(200)
    })

    it("keeps the old reservation when there is no room for the new one", async () => {
      const { client } = under
      const upload = await client.start([bob, alice], 100_000)
      await client.start([alice], 15_000_000)
      const refused = await extend(upload, 10_000_000)
      expect([refused.status, refused.body.code]).toEqual([507, "inbox_full"])
      await client.putPart(upload, 0, random(100_000)).expect(200)
      expect((await client.postUpload([bob], { reserveBytes: 19_900_000 })).status).toBe(201)
    })

    it("outlives the index", async () => {
      const upload = await under.client.start([alice], 100_000)
      clock.advance(hourMs)
      const extended = await extend(upload, 300_000).expect(200)
      await under.relay.stop()
      rmSync(join(under.folder, "index"), { recursive: true })
      under = await openRelay({ folder: under.folder, ports: { clock } })
      const state = await under.client.get(`/v1/uploads/${upload.id}`, encodeBearer(upload.token))
      expect(state.body).toMatchObject(extended.body)
      await under.client.putPart(upload, 1, random(100_000)).expect(200)
    })
  })

  describe("parts", () => {
    it("answers each request with the leaves of its parts", async () => {
      const { client } = under
      const body = random(3_000_000)
      const upload = await client.start([alice], body.length)
      const leaves = leavesOf(body)
      const first = await client.putPart(upload, 0, body.subarray(0, 1280 * 1024)).expect(200)
      expect(toHex(parsePartsReply(first.body).leaves)).toBe(leaves.slice(0, 4).map(toHex).join(""))
      const rest = await client.putPart(upload, 4, body.subarray(1280 * 1024)).expect(200)
      expect(toHex(parsePartsReply(rest.body).leaves)).toBe(leaves.slice(4).map(toHex).join(""))
      const state = await client.get(`/v1/uploads/${upload.id}`, encodeBearer(upload.token))
      const { runs } = parseUploadState(state.body)
      expect(runs).toHaveLength(1)
      expect(runs[0]?.leaves.length).toBe(32 * gridCount(body.length))
    })

    it("says which runs have arrived", async () => {
      const { client } = under
      const upload = await client.start([alice], 5_000_000)
      for (const index of [0, 1, 4]) {
        await client.putPart(upload, index, random(gridLength(index))).expect(200)
      }
      const state = await client.get(`/v1/uploads/${upload.id}`, encodeBearer(upload.token))
      const { runs } = parseUploadState(state.body)
      expect(runs.map((run) => [run.first, run.leaves.length / 32])).toEqual([
        [0, 2],
        [4, 1],
      ])
    })

    it("takes an equal part again and refuses a different one", async () => {
      const { client } = under
      const upload = await client.start([alice])
      const part = random(1000)
      await client.putPart(upload, 0, part).expect(200)
      const again = await client.putPart(upload, 0, part).expect(200)
      expect(toHex(parsePartsReply(again.body).leaves)).toBe(toHex(leafHash({ index: 0, part })))
      for (const other of [random(1000), part.subarray(1), random(2000)]) {
        const reply = await client.putPart(upload, 0, other)
        expect([reply.status, reply.body.code]).toEqual([409, "part_differs"])
      }
    })

    it("takes a short part only at the end of the body", async () => {
      const { client } = under
      const upload = await client.start([alice], 1_000_000)
      await client.putPart(upload, 1, random(1000)).expect(200)
      const beyond = await client.putPart(upload, 2, random(1000))
      expect([beyond.status, beyond.body.code]).toEqual([400, "bad_length"])
      const before = await client.putPart(upload, 0, random(1000))
      expect([before.status, before.body.code]).toEqual([400, "bad_length"])
      const empty = await client.putPart(upload, 0, random(0))
      expect([empty.status, empty.body.code]).toEqual([400, "bad_length"])
      await client.putPart(upload, 0, random(gridLength(0))).expect(200)
    })

    it("refuses a request longer than it offered, whatever was reserved", async () => {
      const upload = await under.client.start([alice], 10_000_000)
      const reply = await under.client.putPart(upload, 0, random(4 * 1024 ** 2 + 1))
      expect([reply.status, reply.body.code]).toEqual([413, "too_large"])
      expect(reply.body.limit).toBe(4 * 1024 ** 2)
    })

    it("refuses another type than octets", async () => {
      const upload = await under.client.start([alice])
      const reply = await under.client
        .putPart(upload, 0, random(1000))
        .set("Content-Type", "text/plain")
      expect([reply.status, reply.body.code]).toEqual([415, "unsupported_media_type"])
    })

    it("ends with the upload's time", async () => {
      const { client } = under
      const upload = await client.start([alice])
      clock.advance(24 * hourMs)
      const reply = await client.putPart(upload, 0, random(1000))
      expect([reply.status, reply.body.code]).toEqual([410, "upload_expired"])
      await under.relay.sweep()
      expect((await client.putPart(upload, 0, random(1000))).body.code).toBe("upload_expired")
      clock.advance(2 * hourMs)
      await under.relay.sweep()
      expect((await client.putPart(upload, 0, random(1000))).body.code).toBe("unauthorized")
    })
  })

  describe("giving up", () => {
    it("removes the upload and gives its reservation back", async () => {
      const { client } = under
      const upload = await client.start([alice], 15_000_000)
      await client.putPart(upload, 0, random(1000)).expect(200)
      const token = encodeBearer(upload.token)
      await client.delete(`/v1/uploads/${upload.id}`, token).expect(204)
      expect((await client.putPart(upload, 0, random(1000))).status).toBe(401)
      expect((await client.postUpload([alice], { reserveBytes: 15_000_000 })).status).toBe(201)
    })

    it("is too late for a finished one", async () => {
      const { client } = under
      const sent = await client.send(makeDelivery([alice]))
      const reply = await client.delete(`/v1/uploads/${sent.id}`, encodeBearer(sent.token))
      expect([reply.status, reply.body.code]).toEqual([409, "upload_finished"])
    })
  })
})
