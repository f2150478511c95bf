import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { encodeBearer, type Identity, random } from "../../protocol/index.js"
import { ManualClock } from "../server/manual-clock.js"
import { personAt } from "../server/people.js"
import {
  makeDelivery,
  openRelay,
  type RelayUnderTest,
  type StartedUpload,
} from "../server/relay-under-test.js"

describe("credentials that are not good", () => {
  let under: RelayUnderTest
  let alice: Identity
  let upload: StartedUpload
  let clock: ManualClock

  beforeEach(async () => {
    clock = new ManualClock()
    under = await openRelay({ ports: { clock } })
    alice = await personAt(0)
    await under.client.register(alice)
    upload = await under.client.start([alice])
  })

  afterEach(() => under.remove())

  const state = (id: string, authorization?: string) =>
    under.client.get(`/v1/uploads/${id}`, authorization)

  it("T44: a token in the URL is no credential", async () => {
    const token = Buffer.from(upload.token).toString("base64url")
    for (const query of [
      `token=${token}`,
      `authorization=Bearer%20${token}`,
      `access_token=${token}`,
    ]) {
      const reply = await state(`${upload.id}?${query}`)
      expect([reply.status, reply.body.code]).toEqual([401, "unauthorized"])
    }
  })

  it("T44: a wrong token, another upload's, and an unknown upload are refused in one shape", async () => {
    const other = await under.client.start([alice])
    const replies = [
      await state(upload.id),
      await state(upload.id, "Bearer"),
      await state(upload.id, encodeBearer(random(32))),
      await state(upload.id, encodeBearer(other.token)),
      await state(upload.id, encodeBearer(upload.deleteCap)),
      await state("0".repeat(32), encodeBearer(upload.token)),
      await state(upload.id, `${encodeBearer(upload.token)}=`),
      await state(upload.id, encodeBearer(upload.token).replace("Bearer", "Basic")),
    ]
    for (const reply of replies) {
      expect(reply.status).toBe(401)
      expect(reply.body).toEqual(replies[0]?.body)
      expect(Object.keys(reply.headers).sort()).toEqual(
        Object.keys(replies[0]?.headers ?? {}).sort(),
      )
    }
    await state(upload.id, encodeBearer(upload.token)).expect(200)
  })

  it("T44: a token opens nothing once its upload has expired or is finished, but to say so", async () => {
    const { client } = under
    const sent = await client.send(makeDelivery([alice]))
    const late = await client.putPart(sent, 1, random(10))
    expect([late.status, late.body.code]).toEqual([409, "upload_finished"])
    await client.delete(`/v1/uploads/${sent.id}`, encodeBearer(sent.token)).expect(409)
    const session = await client.login(alice)
    expect((await client.list(session)).entries).toHaveLength(1)
    clock.advance(25 * 3_600_000)
    const expired = await client.putPart(upload, 0, random(10))
    expect([expired.status, expired.body.code]).toEqual([410, "upload_expired"])
  })

  it("T44: an upload's token opens no inbox, and a session no upload", async () => {
    const session = await under.client.login(alice)
    expect((await under.client.get("/v1/inbox", encodeBearer(upload.token))).status).toBe(401)
    expect((await state(upload.id, session)).status).toBe(401)
  })

  it("T44: ids that are not ids name nothing, however they are spelled", async () => {
    const token = encodeBearer(upload.token)
    const { id } = upload
    const bad = [
      "..%2f..%2fkeys",
      "%2e%2e",
      "..",
      id.toUpperCase(),
      `${id}0`,
      id.slice(1),
      `${id.slice(0, -1)}g`,
      "x".repeat(4000),
      "%00",
      "%",
      "%zz",
      `${id}%2e`,
      encodeURIComponent(`${id}\n`),
    ]
    for (const text of bad) {
      for (const path of [`/v1/uploads/${text}`, `/v1/deliveries/${text}/status`]) {
        const reply = await under.client.get(path, token)
        expect([text, reply.status, reply.body.code]).toEqual([text, 404, "not_found"])
      }
    }
  })

  it("T44: nothing that was tried is in the log", async () => {
    const token = encodeBearer(upload.token)
    await under.client.get(`/v1/uploads/${upload.id}?token=${token}`)
    await under.client.send(makeDelivery([alice]))
    await under.relay.stop()
    const text = JSON.stringify(under.log)
    for (const secret of [
      Buffer.from(upload.token).toString("base64url"),
      upload.id,
      alice.bundle.address,
      alice.bundle.address.slice(-8),
    ]) {
      expect(text).not.toContain(secret)
    }
  })
})
