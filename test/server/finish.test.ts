import { afterEach, beforeEach, describe, expect, it } from "vitest"
import {
  encodeBearer,
  encodeFinish,
  envelopeHash,
  headerHash,
  type Identity,
  parseFinishReply,
  parseReceipt,
  parseRelayInfo,
  parseStamp,
  parseStatusReply,
  parseUploadState,
  random,
  toHex,
  verifyReceipt,
} from "../../protocol/index.js"
import type { ManualClock } from "./manual-clock.js"
import { personAt } from "./people.js"
import {
  makeDelivery,
  openRelayWithInboxes,
  partOf,
  type RelayUnderTest,
} from "./relay-under-test.js"

const dayMs = 86_400_000

describe("finishing", () => {
  let under: RelayUnderTest
  let alice: Identity
  let bob: Identity
  let wide: Identity
  let clock: ManualClock

  beforeEach(async () => {
    ;({ under, clock, alice, bob } = await openRelayWithInboxes())
    wide = await personAt(2)
    await under.client.register(wide)
  })

  afterEach(() => under.remove())

  it("gives each recipient's receipt, signed by the relay over exactly this delivery", async () => {
    const { client } = under
    const recipients = [alice, bob, wide]
    const delivery = makeDelivery(recipients, { bodyLength: 700_000, manifestLength: 3_000_000 })
    const { reply, id } = await client.send(delivery)
    const { signingKey } = parseRelayInfo((await client.get("/v1/relay")).body)
    expect(reply.id).toBe(id)
    expect(reply.receipts.map(({ address }) => address)).toEqual(
      recipients.map(({ bundle }) => bundle.address),
    )
    for (const [at, { receipt }] of reply.receipts.entries()) {
      expect(verifyReceipt(receipt, signingKey)).toBe(true)
      const said = parseReceipt(receipt)
      expect(toHex(said.headerHash)).toBe(toHex(headerHash(delivery.header)))
      const envelope = delivery.envelopes[at] ?? new Uint8Array()
      expect(toHex(said.envelopeHash)).toBe(toHex(envelopeHash(envelope)))
      expect(toHex(said.inboxId)).toBe(toHex(recipients[at]?.bundle.inboxId ?? new Uint8Array()))
      expect(said.acceptedMs).toBe(clock.wallMs())
      expect(said.expiresMs).toBe(clock.wallMs() + 14 * dayMs)
    }
  })

  it("answers the same content with the same receipts, however often, also after a restart", async () => {
    const delivery = makeDelivery([alice, bob])
    const sent = await under.client.send(delivery)
    clock.advance(1000)
    const again = await under.client.postFinish(sent, delivery.finish).expect(200)
    expect(parseFinishReply(again.body)).toEqual(sent.reply)
    under = await under.restart()
    const later = await under.client.postFinish(sent, delivery.finish).expect(200)
    expect(parseFinishReply(later.body)).toEqual(sent.reply)
    const page = await under.client.list(await under.client.login(alice))
    expect(page.entries).toHaveLength(1)
  })

  it("answers it so when the recipients have taken it meanwhile, too", async () => {
    const { client } = under
    const delivery = makeDelivery([alice])
    const sent = await client.send(delivery)
    const session = await client.login(alice)
    await client.delete(`/v1/deliveries/${sent.id}`, session).expect(204)
    const again = await client.postFinish(sent, delivery.finish).expect(200)
    expect(parseFinishReply(again.body)).toEqual(sent.reply)
    expect((await client.list(session)).entries).toMatchObject([{ kind: "gone" }])
  })

  it("refuses other content under the same upload", async () => {
    const delivery = makeDelivery([alice])
    const sent = await under.client.send(delivery)
    for (const other of [
      makeDelivery([alice]).finish,
      encodeFinish({ ...delivery, envelopes: makeDelivery([alice]).envelopes }),
    ]) {
      const reply = await under.client.postFinish(sent, other)
      expect([reply.status, reply.body.code]).toEqual([409, "upload_finished"])
    }
  })

  it("answers the first receipt when the same delivery arrives by another upload", async () => {
    const { client } = under
    const delivery = makeDelivery([alice, bob])
    const first = await client.send(delivery)
    clock.advance(5000)
    const second = await client.send(delivery)
    expect(second.id).not.toBe(first.id)
    expect(second.reply.receipts).toEqual(first.reply.receipts)
    const session = await client.login(alice)
    const page = await client.list(session)
    expect(page.entries).toMatchObject([{ id: first.id }])
    expect(page.used.deliveries).toBe(1)
  })

  it("answers the first receipt also when the second copy has been cleared away", async () => {
    const { client } = under
    const delivery = makeDelivery([alice, bob])
    const first = await client.send(delivery)
    clock.advance(5000)
    const second = await client.send(delivery)
    await under.relay.reconcile()
    const again = await client.postFinish(second, delivery.finish).expect(200)
    expect(parseFinishReply(again.body)).toEqual({ ...first.reply, id: second.id })
    // For as long as the first is in the chain, and no longer.
    clock.advance(44 * dayMs - 6000)
    await under.relay.sweep()
    const late = await client.postFinish(second, delivery.finish).expect(200)
    expect(parseFinishReply(late.body)).toEqual({ ...first.reply, id: second.id })
    clock.advance(2000)
    await under.relay.sweep()
    expect((await client.postFinish(second, delivery.finish)).status).toBe(401)
  })

  it("tells the sender of a second copy what becomes of the first", async () => {
    const { client } = under
    const delivery = makeDelivery([alice, bob])
    const first = await client.send(delivery)
    const second = await client.send(delivery)
    await under.relay.reconcile()
    await client.delete(`/v1/deliveries/${first.id}`, await client.login(alice)).expect(204)
    const path = `/v1/deliveries/${second.id}/status`
    const reply = await client.get(path, encodeBearer(second.deleteCap)).expect(200)
    expect(parseStatusReply(reply.body).recipients.map(({ state }) => state)).toEqual([
      "taken",
      "waiting",
    ])
  })

  it("takes another envelope over a known header as a delivery of its own", async () => {
    const { client } = under
    const delivery = makeDelivery([alice])
    await client.send(delivery)
    const { envelopes } = delivery
    const other = envelopes.map((envelope) => {
      const changed = new Uint8Array(envelope)
      changed[envelope.length - 1] = (changed[envelope.length - 1] ?? 0) ^ 1
      return changed
    })
    const finish = encodeFinish({ ...delivery, envelopes: other })
    await client.send({ ...delivery, envelopes: other, finish })
    const page = await client.list(await client.login(alice))
    expect(page.entries.map(({ seq }) => seq)).toEqual([1, 2])
  })

  it("names the parts that are missing", async () => {
    const { client } = under
    const delivery = makeDelivery([alice], { bodyLength: 2_000_000 })
    const upload = await client.start([alice], 2_000_000)
    await client.putPart(upload, 1, partOf(delivery.body, 1)).expect(200)
    const reply = await client.postFinish(upload, delivery.finish)
    expect([reply.status, reply.body.code]).toEqual([409, "parts_missing"])
    expect(reply.body.missing).toEqual([0, 2, 3, 4, 5])
    await client.putBody(upload, delivery.body)
    await client.postFinish(upload, delivery.finish).expect(200)
  })

  it("refuses parts that do not add up to the header, and leaves the upload as it was", async () => {
    const { client } = under
    const delivery = makeDelivery([alice])
    const upload = await client.start([alice], delivery.body.length)
    await client.putBody(upload, delivery.body)
    const other = makeDelivery([alice])
    const wrong = [
      // Another body's header, then a manifest that is not the header's.
      other.finish,
      encodeFinish({ ...delivery, manifest: random(delivery.manifest.length) }),
    ]
    for (const finish of wrong) {
      const reply = await client.postFinish(upload, finish)
      expect([reply.status, reply.body.code]).toEqual([409, "root_mismatch"])
    }
    const state = await client.get(`/v1/uploads/${upload.id}`, encodeBearer(upload.token))
    expect(parseUploadState(state.body).state).toBe("open")
    await client.postFinish(upload, delivery.finish).expect(200)
  })

  it("counts a manifest against the inbox before it takes it, and gives that back when it fails", async () => {
    under = await under.restart({ config: { inboxBytes: 1_000_000 }, ports: { clock } })
    const { client } = under
    const large = makeDelivery([alice], { manifestLength: 1_000_000 })
    const upload = await client.start([alice], large.body.length)
    await client.putBody(upload, large.body)
    const refused = await client.postFinish(upload, large.finish)
    expect([refused.status, refused.body.code]).toEqual([507, "inbox_full"])
    const fitting = makeDelivery([alice], { manifestLength: 900_000 })
    const other = await client.start([alice], fitting.body.length)
    await client.putBody(other, fitting.body)
    const wrong = encodeFinish({ ...fitting, manifest: random(900_000) })
    expect((await client.postFinish(other, wrong)).body.code).toBe("root_mismatch")
    const third = await client.start([alice], 950_000)
    expect((await client.postFinish(other, fitting.finish)).body.code).toBe("inbox_full")
    await client.delete(`/v1/uploads/${third.id}`, encodeBearer(third.token)).expect(204)
    await client.postFinish(other, fitting.finish).expect(200)
  })

  it("refuses a part of the wrong length and parts beyond the body", async () => {
    const { client } = under
    const delivery = makeDelivery([alice], { bodyLength: 131_072 })
    const long = await client.start([alice], 1_000_000)
    await client.putPart(long, 0, delivery.body).expect(200)
    await client.putPart(long, 1, random(10)).expect(200)
    expect((await client.postFinish(long, delivery.finish)).body.code).toBe("root_mismatch")
    const short = await client.start([alice], 1_000_000)
    await client.putPart(short, 0, delivery.body.subarray(1)).expect(200)
    expect((await client.postFinish(short, delivery.finish)).body.code).toBe("root_mismatch")
  })

  it("refuses envelopes of another count, suite, length or header", async () => {
    const { client } = under
    const delivery = makeDelivery([alice, bob])
    const upload = await client.start([alice, bob], delivery.body.length)
    await client.putBody(upload, delivery.body)
    const [forAlice = new Uint8Array(), forBob = new Uint8Array()] = delivery.envelopes
    const downgraded = new Uint8Array(forAlice)
    downgraded[5] = 1
    const foreign = makeDelivery([alice]).envelopes[0] ?? new Uint8Array()
    for (const envelopes of [
      [forAlice],
      [forBob, forAlice],
      [forAlice.subarray(1), forBob],
      [downgraded, forBob],
      [foreign, forBob],
    ]) {
      const reply = await client.postFinish(upload, encodeFinish({ ...delivery, envelopes }))
      expect([reply.status, reply.body.code]).toEqual([400, "bad_request"])
    }
    await client.postFinish(upload, delivery.finish).expect(200)
  })

  it("refuses a finish that is cut short, too long, or declares another manifest", async () => {
    const { client } = under
    const delivery = makeDelivery([alice])
    const upload = await client.start([alice], delivery.body.length)
    await client.putBody(upload, delivery.body)
    const { finish } = delivery
    const declared = new Uint8Array(finish)
    new DataView(declared.buffer).setUint32(192, delivery.manifest.length + 1)
    const bad = [
      finish.subarray(0, 100),
      finish.subarray(0, 5000),
      finish.subarray(0, finish.length - 1),
      new Uint8Array([...finish, 0]),
      declared,
      new Uint8Array(finish).fill(0xff, 192, 196),
      new Uint8Array(finish).fill(1, 0, 8),
    ]
    for (const bytes of bad) {
      const reply = await client.postFinish(upload, bytes)
      expect([reply.status, reply.body.code]).toEqual([400, "bad_request"])
    }
    await client.postFinish(upload, finish).expect(200)
  })

  it("refuses a body longer than what was reserved for it", async () => {
    const { client } = under
    const upload = await client.start([alice], 1000)
    const reply = await client.postFinish(upload, makeDelivery([alice]).finish)
    expect([reply.status, reply.body.code]).toEqual([413, "too_large"])
  })

  it("lets one of two finishes at once through and tells the other to come back", async () => {
    const { client } = under
    const delivery = makeDelivery([alice])
    const upload = await client.start([alice], delivery.body.length)
    await client.putBody(upload, delivery.body)
    const replies = await Promise.all(
      Array.from({ length: 4 }, () => client.postFinish(upload, delivery.finish)),
    )
    for (const reply of replies) {
      if (reply.status === 200) continue
      expect([reply.status, reply.body.code]).toEqual([503, "busy"])
      expect(reply.headers["retry-after"]).toBe("1")
    }
    const done = replies.filter(({ status }) => status === 200).map(({ body }) => body)
    expect(done.length).toBeGreaterThanOrEqual(1)
    expect((await client.postFinish(upload, delivery.finish)).body).toEqual(done[0])
    expect((await client.list(await client.login(alice))).entries).toHaveLength(1)
  })

  it("keeps a delivery as long as the sender wishes, within an hour and thirty days", async () => {
    const wishes = [
      { notAfterMs: clock.wallMs() + 2 * dayMs, keptMs: 2 * dayMs },
      { notAfterMs: clock.wallMs() + 1, keptMs: 3_600_000 },
      { notAfterMs: clock.wallMs() + 20 * dayMs, keptMs: 20 * dayMs },
      { notAfterMs: clock.wallMs() + 99 * dayMs, keptMs: 30 * dayMs },
    ]
    for (const { notAfterMs, keptMs } of wishes) {
      const { reply } = await under.client.send(makeDelivery([alice], { notAfterMs }))
      const { acceptedMs, expiresMs } = parseReceipt(reply.receipts[0]?.receipt ?? random(1))
      expect(expiresMs - acceptedMs).toBe(keptMs)
    }
  })

  it("keeps none longer than the operator says, and tells clients so", async () => {
    under = await under.restart({ config: { keepMs: 2 * dayMs, keepMaxMs: 2 * dayMs } })
    const { limits } = parseRelayInfo((await under.client.get("/v1/relay")).body)
    expect(limits).toMatchObject({ keepMs: 2 * dayMs, keepMaxMs: 2 * dayMs })
    const notAfterMs = clock.wallMs() + 30 * dayMs
    const { reply } = await under.client.send(makeDelivery([alice], { notAfterMs }))
    const { acceptedMs, expiresMs } = parseReceipt(reply.receipts[0]?.receipt ?? random(1))
    expect(expiresMs - acceptedMs).toBe(2 * dayMs)
  })

  it("stamps each recipient's entry for that inbox alone", async () => {
    const { client } = under
    const delivery = makeDelivery([alice, bob])
    await client.send(delivery)
    for (const [at, person] of [alice, bob].entries()) {
      const page = await client.list(await client.login(person), "?envelopes=1")
      const [entry] = page.entries
      if (entry?.kind !== "waiting") throw new Error("nothing waits")
      const stamp = parseStamp(entry.stamp)
      expect(toHex(stamp.inboxId)).toBe(toHex(person.bundle.inboxId))
      expect(stamp.seq).toBe(1)
      expect(toHex(entry.envelope ?? random(1))).toBe(toHex(delivery.envelopes[at] ?? random(1)))
      expect(toHex(entry.header)).toBe(toHex(delivery.header))
    }
  })
})
