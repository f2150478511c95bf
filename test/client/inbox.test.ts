import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import path from "node:path"
import { describe, expect, test } from "vitest"
import {
  DeliveryGone,
  type InboxRow,
  registerInbox,
  UnknownInbox,
  Untrustworthy,
} from "../../client/index.js"
import { createIdentity, RelayRefusal } from "../../protocol/index.js"
import { patternBytes } from "./folders.js"
import { makeDelivery } from "./made-delivery.js"
import { makeSetting, type Setting } from "./setting.js"
import { type Asked, found, refusalAnswer } from "./small-relay.js"

const isManifest = ({ path: asked }: Asked) => asked.endsWith("/manifest")

async function deliver(setting: Setting, count: number, note: string = "note"): Promise<string[]> {
  const ids: string[] = []
  for (let i = 1; i <= count; i++) {
    const files = { [`file ${i}`]: patternBytes(100 * i, i) }
    const { relay, identity } = setting
    const made = await makeDelivery({
      relay,
      recipient: identity.bundle,
      files,
      note: `${note} ${i}`,
    })
    ids.push(made.id)
  }
  return ids
}

function cacheFile(setting: Setting): string {
  const inboxes = path.join(setting.owner.folder, "inboxes")
  return path.join(inboxes, found(readdirSync(inboxes)[0]), "cache")
}

describe("listing an inbox", () => {
  test("gives what waits, oldest first, with what only the owner can read", async () => {
    const setting = await makeSetting()
    const ids = await deliver(setting, 3)
    const rows = await (await setting.open()).list()
    expect(
      rows.map(({ id, seq, note, sizeBytes, entries }) => [id, seq, note, sizeBytes, entries]),
    ).toEqual([
      [ids[0], 1, "note 1", 100, 1],
      [ids[1], 2, "note 2", 200, 1],
      [ids[2], 3, "note 3", 300, 1],
    ])
    expect(rows.every((row) => row.sender.kind === "unverified" && row.isNew)).toBe(true)
  })

  test("of nothing gives nothing", async () => {
    expect(await (await (await makeSetting()).open()).list()).toEqual([])
  })

  test("hands out rows as they open, in order", async () => {
    const setting = await makeSetting()
    await deliver(setting, 12)
    const rows: InboxRow[] = []
    const listed = await (await setting.open()).list({ onRow: (row) => rows.push(row) })
    expect(rows).toEqual(listed)
    expect(rows.map(({ seq }) => seq)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
  })

  test("a second time fetches no envelope and no manifest, and calls nothing new", async () => {
    const setting = await makeSetting()
    await deliver(setting, 3)
    const first = await (await setting.open()).list()
    setting.relay.asked.length = 0
    const second = await (await setting.open()).list()
    expect(second).toEqual(first.map((row) => ({ ...row, isNew: false })))
    const asked = setting.relay.asked.map((one) => one.path)
    expect(asked.filter((one) => one.includes("/deliveries/"))).toEqual([])
    expect(asked.filter((one) => one.includes("envelopes"))).toEqual([])
  })

  test("opens only what came since, by fetching just that", async () => {
    const setting = await makeSetting()
    await deliver(setting, 3)
    await (await setting.open()).list()
    const [id] = await deliver(setting, 1, "later")
    setting.relay.asked.length = 0
    const rows = await (await setting.open()).list()
    expect(rows.map(({ isNew }) => isNew)).toEqual([false, false, false, true])
    const pieces = setting.relay.asked
      .map((one) => one.path)
      .filter((one) => one.includes("deliveries"))
    expect(pieces.sort()).toEqual([
      `/v1/deliveries/${id}/envelope`,
      `/v1/deliveries/${id}/manifest`,
    ])
  })

  test("cut off half-way keeps what it had opened", async () => {
    const setting = await makeSetting()
    await deliver(setting, 12)
    let manifests = 0
    setting.relay.change = (asked, answer) =>
      isManifest(asked) && ++manifests > 9 ? refusalAnswer(new RelayRefusal("not_found")) : answer
    await expect((await setting.open()).list()).rejects.toThrow(RelayRefusal)
    setting.relay.change = (_, answer) => answer
    setting.relay.asked.length = 0
    const rows = await (await setting.open()).list()
    expect(rows).toHaveLength(12)
    expect(setting.relay.asked.filter(isManifest).length).toBeLessThan(12)
  })

  test("more than a page is fetched page by page", async () => {
    const setting = await makeSetting()
    await deliver(setting, 5)
    setting.relay.change = (asked, answer) => {
      const body = Buffer.from(answer.body).toString()
      if (asked.path !== "/v1/relay") return answer
      return { ...answer, body: Buffer.from(body.replace('"page":1000', '"page":2')) }
    }
    expect(await (await setting.open()).list()).toHaveLength(5)
    expect(setting.relay.asked.filter((one) => one.path.startsWith("/v1/inbox?"))).toHaveLength(3)
  })

  test("what cannot be opened stays in the list, says so, and hides nothing else", async () => {
    const setting = await makeSetting()
    const stranger = await createIdentity()
    const { relay, identity } = setting
    await deliver(setting, 1)
    // Sealed to somebody else, and put into this inbox by whoever sent it.
    relay.inboxes.set(stranger.bundle.address, {
      bundle: stranger.bundle,
      entries: [],
      head: new Uint8Array(32),
    })
    const theirs = await makeDelivery({ relay, recipient: stranger.bundle, files: {} })
    const envelope = found(theirs.envelopes.get(stranger.bundle.address))
    relay.publish(identity.bundle.address, theirs.id, theirs, envelope)
    relay.delivery(theirs.id).envelopes.set(identity.bundle.address, envelope)
    const rows = await (await setting.open()).list()
    expect(rows.map(({ problem }) => problem)).toEqual([undefined, "cannot open"])
  })

  test("T36 the same sealed delivery put in again is marked as the duplicate it is", async () => {
    const setting = await makeSetting()
    const [id] = await deliver(setting, 1)
    const { relay, identity } = setting
    const again = relay.delivery(found(id))
    const copy = "0".repeat(32)
    relay.uploads.set(copy, { ...relay.upload(found(id)), id: copy })
    relay.publish(
      identity.bundle.address,
      copy,
      again,
      found(again.envelopes.get(identity.bundle.address)),
    )
    const inbox = await setting.open()
    expect((await inbox.list()).map(({ duplicateOf }) => duplicateOf)).toEqual([undefined, id])
    // Also when the first one was taken long before.
    await inbox.discard(found(id))
    expect(await inbox.list()).toMatchObject([{ id: copy, duplicateOf: id }])
  })
})

describe("the cache of an inbox", () => {
  test("holds nothing that can be read without the identity", async () => {
    const setting = await makeSetting()
    await deliver(setting, 3, "an unlikely note")
    await (await setting.open()).list()
    const file = cacheFile(setting)
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(readFileSync(file).includes(Buffer.from("an unlikely"))).toBe(false)
  })

  test("that is damaged is made anew", async () => {
    const setting = await makeSetting()
    await deliver(setting, 2)
    const first = await (await setting.open()).list()
    const file = cacheFile(setting)
    const bytes = readFileSync(file)
    for (const at of [0, 10, bytes.length - 1]) {
      writeFileSync(
        file,
        bytes.map((byte, index) => (index === at ? byte ^ 1 : byte)),
      )
      expect(await (await setting.open()).list()).toEqual(first)
    }
    writeFileSync(file, bytes.subarray(0, 7))
    expect(await (await setting.open()).list()).toEqual(first)
  })
})

describe("a sender", () => {
  for (const mode of ["deniable", "signature"] as const) {
    const kind = mode === "deniable" ? "deniable" : "signed"

    test(`that gives a ${mode} proof is unverified until its bundle is known`, async () => {
      const setting = await makeSetting()
      const friend = await createIdentity()
      const { relay, identity } = setting
      const sender = { identity: friend, mode }
      await makeDelivery({ relay, recipient: identity.bundle, files: {}, sender })
      expect(await (await setting.open()).list()).toMatchObject([
        { sender: { kind: "unverified", claimedFingerprint: friend.bundle.fingerprint } },
      ])
      const senders = () => friend.bundle
      const known = await (await setting.open({ senders })).list()
      expect(known).toMatchObject([{ sender: { kind, fingerprint: friend.bundle.fingerprint } }])
      // And is not shown as known by somebody who knows nobody.
      expect(await (await setting.open()).list()).toMatchObject([
        { sender: { kind: "unverified", claimedFingerprint: friend.bundle.fingerprint } },
      ])
    })

    test(`whose ${mode} proof is another's is refused, and not received`, async () => {
      const setting = await makeSetting()
      const [friend, impostor] = [await createIdentity(), await createIdentity()]
      const { relay, identity } = setting
      const claimed = {
        ...impostor,
        bundle: { ...impostor.bundle, fingerprint: friend.bundle.fingerprint },
      }
      const sender = { identity: claimed, mode }
      const made = await makeDelivery({ relay, recipient: identity.bundle, files: {}, sender })
      const inbox = await setting.open({ senders: () => friend.bundle })
      expect(await inbox.list()).toMatchObject([{ sender: { kind: "refused" } }])
      await expect(inbox.receive(made.id, { into: setting.folder })).rejects.toThrow(Untrustworthy)
      await expect(inbox.open(made.id)).rejects.toThrow(Untrustworthy)
      // The same from the cache.
      const later = await setting.open({ senders: () => friend.bundle })
      expect(await later.list()).toMatchObject([{ sender: { kind: "refused" } }])
    })
  }
})

describe("a delivery that is gone", () => {
  for (const [reason, text] of [
    ["taken", /was taken already/],
    ["revoked", /taken back by its sender/],
    ["expired", /expired on 20\d\d-/],
  ] as const) {
    test(`says that it is ${reason}`, async () => {
      const setting = await makeSetting()
      const [id] = await deliver(setting, 1)
      await (await setting.open()).list()
      setting.relay.takeAway(setting.identity.bundle.address, found(id), reason)
      const inbox = await setting.open()
      const receiving = inbox.receive(found(id), { into: setting.folder })
      await expect(receiving).rejects.toThrow(DeliveryGone)
      await expect(receiving).rejects.toThrow(text)
      await expect(inbox.discard(found(id))).rejects.toMatchObject({ reason })
    })
  }

  test("between listing and receiving is noticed", async () => {
    const setting = await makeSetting()
    const [id] = await deliver(setting, 1)
    const inbox = await setting.open()
    await inbox.list()
    setting.relay.takeAway(setting.identity.bundle.address, found(id), "revoked")
    await expect(inbox.receive(found(id), { into: setting.folder })).rejects.toMatchObject({
      name: "DeliveryGone",
      reason: "revoked",
    })
  })

  test("or never was, is not in this inbox", async () => {
    const inbox = await (await makeSetting()).open()
    await expect(inbox.discard("0".repeat(32))).rejects.toMatchObject({ reason: "unknown" })
  })
})

describe("logging in", () => {
  test("happens again when the session has ended", async () => {
    const setting = await makeSetting()
    await deliver(setting, 1)
    const inbox = await setting.open()
    await inbox.list()
    setting.relay.endSessions()
    expect(await inbox.list()).toHaveLength(1)
  })

  test("happens once for many requests at the same time", async () => {
    const setting = await makeSetting()
    await deliver(setting, 8)
    const inbox = await setting.open()
    await inbox.list()
    await deliver(setting, 8)
    setting.relay.endSessions()
    setting.relay.asked.length = 0
    await inbox.list()
    expect(setting.relay.asked.filter((one) => one.path === "/v1/sessions")).toHaveLength(1)
  })

  test("to an inbox that is not there says that it has to be opened first", async () => {
    const setting = await makeSetting()
    const identity = await createIdentity()
    const inbox = await setting.open({ identity })
    await expect(inbox.list()).rejects.toThrow(UnknownInbox)
    await expect(inbox.list()).rejects.toThrow(/open one there first/)
    const { relay, owner: state } = setting
    const registered = await registerInbox({ identity, relay: relay.origin, state })
    expect(registered).toEqual({ address: identity.bundle.address, created: true })
    expect(await inbox.list()).toEqual([])
  })

  test("T45 does not go on with a challenge that the relay did not sign", async () => {
    const setting = await makeSetting()
    setting.relay.change = (asked, answer) => {
      if (!asked.path.endsWith("/challenge")) return answer
      const body = Buffer.from(answer.body).toString()
      return { ...answer, body: Buffer.from(body.replace(/"signature":"(..)/, '"signature":"AA')) }
    }
    await expect((await setting.open()).list()).rejects.toThrow(/not signed by the relay's key/)
    expect(setting.relay.asked.some((one) => one.path === "/v1/sessions")).toBe(false)
  })

  test("T45 does not use a session of somebody who cannot show the shared secret", async () => {
    const setting = await makeSetting()
    setting.relay.change = (asked, answer) => {
      if (asked.path !== "/v1/sessions") return answer
      const body = Buffer.from(answer.body).toString()
      return { ...answer, body: Buffer.from(body.replace(/"mac":"(..)/, '"mac":"__')) }
    }
    await expect((await setting.open()).list()).rejects.toThrow(/without proving/)
  })
})
