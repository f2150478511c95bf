/** T02, T05, T07 to T09, T35: a relay that hands out something else than it was given. */
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs"
import path from "node:path"
import { describe, expect, onTestFinished, test, vi } from "vitest"
import { type Inbox, Untrustworthy } from "../../client/index.js"
import {
  bodyRoot,
  concatBytes,
  createIdentity,
  emptyChainHead,
  encodeHead,
  encodeHeader,
  encodeInboxPage,
  encodeStamp,
  encodeTombstone,
  type GoneEntry,
  gridCount,
  gridLength,
  gridOffset,
  headerHash,
  type JsonObject,
  leafHash,
  MIB,
  OpenError,
  parseHeader,
  parseStamp,
  random,
  toBase64url,
} from "../../protocol/index.js"
import { patternBytes } from "../client/folders.js"
import { cells, makeDelivery, type MadeDelivery } from "../client/made-delivery.js"
import { makeSetting, type Setting } from "../client/setting.js"
import { type Asked, found, json, type StoredDelivery } from "../client/small-relay.js"

interface Victim {
  setting: Setting
  made: MadeDelivery
  stored: StoredDelivery
  inbox: Inbox
  into: string
}

async function victim(): Promise<Victim> {
  const setting = await makeSetting()
  const { relay, identity } = setting
  const files = { one: patternBytes(3 * MIB, 1), two: patternBytes(500_000, 2) }
  const made = await makeDelivery({ relay, recipient: identity.bundle, files })
  const stored = relay.delivery(made.id)
  const inbox = await setting.open()
  const into = path.join(setting.folder, "into")
  mkdirSync(into)
  return { setting, made, stored, inbox, into }
}

/** Refused, with nothing of the delivery under any of its names, and the relay's copy left alone. */
async function expectRefused(
  { setting, made, inbox, into }: Victim,
  error: typeof Untrustworthy | typeof OpenError = Untrustworthy,
): Promise<void> {
  await expect(inbox.receive(made.id, { into })).rejects.toThrow(error)
  const visible = readdirSync(into).filter((name) => !name.startsWith(".knothole-"))
  expect(visible).toEqual([])
  expect(setting.relay.asked.some(({ method }) => method === "DELETE")).toBe(false)
}

function partBounds(body: Uint8Array, part: number): [number, number] {
  return [gridOffset(part), gridOffset(part) + gridLength(part, body.length)]
}

/** Two whole parts of one length, so that only their place tells them apart. */
function withSwappedParts(body: Uint8Array): Uint8Array {
  const swapped = body.slice()
  const [a, b] = [1, 2].map((part) => body.slice(...partBounds(body, part)))
  const shorter = Math.min(found(a).length, found(b).length)
  swapped.set(found(b).subarray(0, shorter), gridOffset(1))
  swapped.set(found(a).subarray(0, shorter), gridOffset(2))
  return swapped
}

function leavesOf(body: Uint8Array): Uint8Array {
  return concatBytes(...cells(body).map((part, index) => leafHash({ index, part })))
}

describe("T02 a relay that hands out other keys for an address", () => {
  test("gets nothing sent to them, and the address is named", async () => {
    const setting = await makeSetting()
    const { relay, identity } = setting
    const spy = await createIdentity()
    relay.inboxes.set(identity.bundle.address, {
      bundle: spy.bundle,
      entries: [],
      head: emptyChainHead(),
    })
    const sending = setting.send({ note: "secret" })
    await expect(sending).rejects.toThrow(Untrustworthy)
    await expect(sending).rejects.toThrow(identity.bundle.address)
    expect(relay.asked.every(({ method }) => method === "GET")).toBe(true)
  })

  test("is caught as well with keys that are none", async () => {
    const setting = await makeSetting()
    const { relay } = setting
    relay.change = (asked, answer) => {
      if (!asked.path.startsWith("/v1/inboxes/")) return answer
      return { ...answer, body: answer.body.subarray(0, 100) }
    }
    await expect(setting.send({ note: "secret" })).rejects.toThrow(Untrustworthy)
  })
})

describe("T05 an envelope", () => {
  test("of another delivery is not opened with this one", async () => {
    const v = await victim()
    const { relay, identity } = v.setting
    const other = await makeDelivery({
      relay,
      recipient: identity.bundle,
      files: { x: patternBytes(9, 9) },
    })
    const { address } = identity.bundle
    v.stored.envelopes.set(address, found(other.envelopes.get(address)))
    await expectRefused(v)
  })

  test("glued to this header by a relay that stamps anything does not open", async () => {
    const v = await victim()
    const { relay, identity } = v.setting
    const { address } = identity.bundle
    const other = await makeDelivery({ relay, recipient: identity.bundle, files: {} })
    const inbox = found(relay.inboxes.get(address))
    inbox.entries.length = 0
    inbox.head = emptyChainHead()
    const envelope = found(other.envelopes.get(address))
    v.stored.envelopes.set(address, envelope)
    relay.publish(address, v.made.id, v.stored, envelope)
    await expectRefused(v, OpenError)
  })
})

describe("T07 two parts", () => {
  test("swapped are refused at the first of them", async () => {
    const v = await victim()
    v.stored.body = withSwappedParts(v.stored.body)
    await expectRefused(v)
  })

  test("swapped together with their leaves are refused at the list of leaves", async () => {
    const v = await victim()
    v.stored.body = withSwappedParts(v.stored.body)
    v.stored.leaves = leavesOf(v.stored.body)
    v.setting.relay.asked.length = 0
    await expectRefused(v)
    expect(v.setting.relay.asked.some(({ path: asked }) => asked.endsWith("/body"))).toBe(false)
  })

  test("of which one is flipped by a bit are refused, wherever the bit is", async () => {
    const v = await victim()
    const whole = v.stored.body
    for (const at of [0, gridOffset(1) - 1, gridOffset(1), whole.length >> 1, whole.length - 1]) {
      v.stored.body = whole.map((byte, index) => (index === at ? byte ^ 1 : byte))
      await expectRefused(v)
    }
  })
})

describe("T08 a body", () => {
  test("that ends a part early is refused", async () => {
    const v = await victim()
    const last = gridCount(v.stored.body.length) - 1
    v.stored.body = v.stored.body.subarray(0, gridOffset(last))
    await expectRefused(v)
  })

  test("whose last leaf is left out is refused", async () => {
    const v = await victim()
    v.stored.leaves = v.stored.leaves.subarray(0, -32)
    await expectRefused(v)
  })

  for (const [what, change] of [
    ["with zeros cut from its end", -16],
    ["with zeros added to its end", 16],
  ] as const) {
    test(`${what} is refused`, async () => {
      const v = await victim()
      const { body } = v.stored
      v.stored.body =
        change < 0 ? body.subarray(0, change) : concatBytes(body, new Uint8Array(change))
      v.setting.relay.change = (asked, answer) => {
        if (!asked.path.endsWith("/body")) return answer
        // The answer claims the length the header names.
        const range = answer.headers["content-range"]?.replace(/\/.*/, `/${body.length}`)
        return {
          ...answer,
          headers: { ...answer.headers, ...(range && { "content-range": range }) },
        }
      }
      // Asked for what is not there, a relay can only answer with something else.
      const { relay } = v.setting
      const header = parseHeader(v.stored.header)
      v.stored.leaves = change < 0 ? v.stored.leaves : leavesOf(v.stored.body)
      expect(relay.delivery(v.made.id).body.length).not.toBe(header.bodyLength)
      await expectRefused(v)
    })
  }

  test("for which the header was changed to a shorter one does not match its stamp", async () => {
    const v = await victim()
    v.stored.header = shorterHeader(v.stored)
    const [entry] = found(v.setting.relay.inboxes.get(v.setting.identity.bundle.address)).entries
    Object.assign(found(entry), { header: v.stored.header })
    await expectRefused(v)
  })

  test("for which header and stamp were changed to a shorter one does not open", async () => {
    const v = await victim()
    const { relay, identity } = v.setting
    const { address } = identity.bundle
    v.stored.header = shorterHeader(v.stored)
    const inbox = found(relay.inboxes.get(address))
    inbox.entries.length = 0
    inbox.head = emptyChainHead()
    relay.publish(address, v.made.id, v.stored, found(v.stored.envelopes.get(address)))
    await expectRefused(v, OpenError)
  })
})

/** The same delivery without its last part, as consistent as a relay can make it. */
function shorterHeader(stored: StoredDelivery): Uint8Array {
  const header = parseHeader(stored.header)
  const partCount = header.partCount - 1
  const bodyLength = gridOffset(partCount)
  const leaves = stored.leaves.subarray(0, 32 * partCount)
  return encodeHeader({
    ...header,
    partCount,
    bodyLength,
    bodyRoot: bodyRoot({ bodyLength, leaves }),
  })
}

describe("T09 a part", () => {
  test("that is another one again is refused", async () => {
    const v = await victim()
    const body = v.stored.body.slice()
    const [from, to] = partBounds(body, 0)
    body.set(body.subarray(from, to), gridOffset(1))
    v.stored.body = body
    await expectRefused(v)
  })

  test("of another delivery of the same sender is refused", async () => {
    const v = await victim()
    const { relay, identity } = v.setting
    const files = { one: patternBytes(3 * MIB, 1), two: patternBytes(500_000, 2) }
    const other = await makeDelivery({ relay, recipient: identity.bundle, files })
    const body = v.stored.body.slice()
    const [from, to] = partBounds(body, 2)
    body.set(other.body.subarray(from, to), from)
    v.stored.body = body
    await expectRefused(v)
    v.stored.leaves = leavesOf(body)
    await expectRefused(v)
  })
})

describe("the answer to a range", () => {
  const lies: Record<
    string,
    (asked: Asked, body: Uint8Array) => { status: number; range: string }
  > = {
    "names other bytes": ({ headers }, body) => {
      const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? "") ?? []
      return { status: 206, range: `bytes ${Number(first) + 16}-${last}/${body.length}` }
    },
    "names another length": (_, body) => ({ status: 206, range: `bytes 0-15/${body.length + 1}` }),
    "names none": () => ({ status: 206, range: "" }),
    "is the whole": (_, body) => ({
      status: 200,
      range: `bytes 0-${body.length - 1}/${body.length}`,
    }),
  }
  for (const [what, lie] of Object.entries(lies)) {
    test(`that ${what} is refused`, async () => {
      const v = await victim()
      v.setting.relay.change = (asked, answer) => {
        if (!asked.path.endsWith("/body")) return answer
        const { status, range } = lie(asked, v.stored.body)
        return { ...answer, status, headers: { ...answer.headers, "content-range": range } }
      }
      await expectRefused(v)
    })
  }

  test("that has bytes too many is refused", async () => {
    const v = await victim()
    v.setting.relay.change = (asked, answer) =>
      asked.path.endsWith("/body")
        ? { ...answer, body: concatBytes(answer.body, new Uint8Array(1)) }
        : answer
    await expectRefused(v)
  })
})

/** An inbox of three, listed once. */
async function seen(): Promise<{ setting: Setting; inbox: Inbox }> {
  const setting = await makeSetting()
  const { relay, identity } = setting
  for (const note of ["one", "two", "three"]) {
    await makeDelivery({ relay, recipient: identity.bundle, files: {}, note })
  }
  const inbox = await setting.open()
  await inbox.list()
  return { setting, inbox }
}

function passDays(days: number): void {
  if (days === 0) return
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + days * 86_400_000 })
  onTestFinished(() => void vi.useRealTimers())
}

/** An answer that shows nothing, and signs that there was something that is forgotten by now. */
function raiseFloor({ relay, identity }: Setting, daysTold: number): void {
  const head = new Uint8Array(32).fill(7)
  const signed = encodeHead({
    kid: 1,
    inboxId: identity.bundle.inboxId,
    asOfMs: Date.now() + daysTold * 86_400_000,
    seq: 4,
    head,
    floorSeq: 4,
    signSeed: relay.signSeed,
  })
  const page = encodeInboxPage({
    head: signed,
    floor: { seq: 4, head },
    entries: [],
    more: false,
    used: { bytes: 0, deliveries: 0 },
    newAfter: 0,
  })
  relay.change = (asked, answer) => (asked.path.startsWith("/v1/inbox?") ? json(200, page) : answer)
}

describe("T35 an inbox", () => {
  test("that was rolled back is refused, and both signed heads are kept as proof", async () => {
    const { setting, inbox } = await seen()
    const { relay, identity } = setting
    const stored = found(relay.inboxes.get(identity.bundle.address))
    const last = found(stored.entries.pop())
    expect(last.kind).toBe("waiting")
    const before = found(stored.entries.at(-1))
    stored.head = before.kind === "waiting" ? parseStamp(before.stamp).head : stored.head
    const listing = inbox.list()
    await expect(listing).rejects.toThrow(/rewrote the history/)
    const error: unknown = await listing.catch((reason: unknown) => reason)
    const proofFile = error instanceof Untrustworthy ? error.proofFile : undefined
    const proof = readFileSync(found(proofFile), "utf8")
    expect(JSON.parse(proof)).toMatchObject({ origin: relay.origin })
    // And it stays refused.
    await expect((await setting.open()).list()).rejects.toThrow(/rewrote the history/)
  })

  test("of which an entry was left out does not lead to its signed head", async () => {
    const { setting, inbox } = await seen()
    setting.relay.change = (asked, answer) => {
      if (!asked.path.startsWith("/v1/inbox?")) return answer
      const page: { entries: unknown[] } = JSON.parse(Buffer.from(answer.body).toString())
      page.entries.splice(1, 1)
      return { ...answer, body: Buffer.from(JSON.stringify(page)) }
    }
    await expect(inbox.list()).rejects.toThrow(/number 2 is missing/)
  })

  test("of which the last entry was left out does not either", async () => {
    const { setting, inbox } = await seen()
    setting.relay.change = (asked, answer) => {
      if (!asked.path.startsWith("/v1/inbox?")) return answer
      const page: { entries: unknown[] } = JSON.parse(Buffer.from(answer.body).toString())
      page.entries.pop()
      return { ...answer, body: Buffer.from(JSON.stringify(page)) }
    }
    await expect(inbox.list()).rejects.toThrow(/do not lead to its signed head/)
  })

  for (const [what, days, told] of [
    ["at once", 0, 0],
    ["a month later as the relay tells it", 0, 46],
    ["before what was listed can have been forgotten", 32, 0],
  ] as const) {
    test(`whose floor hides all that was seen is refused (${what})`, async () => {
      const { setting, inbox } = await seen()
      passDays(days)
      raiseFloor(setting, told)
      const listing = inbox.list()
      await expect(listing).rejects.toThrow(/rewrote the history/)
      const error: unknown = await listing.catch((reason: unknown) => reason)
      expect(existsSync(found(error instanceof Untrustworthy ? error.proofFile : ""))).toBe(true)
    })
  }

  test("whose floor hides what is long past is taken", async () => {
    const { setting, inbox } = await seen()
    passDays(45)
    raiseFloor(setting, 0)
    expect(await inbox.list()).toEqual([])
  })

  test("that calls a delivery by the id of another one is refused", async () => {
    const { setting, inbox } = await seen()
    const { entries } = found(setting.relay.inboxes.get(setting.identity.bundle.address))
    const [first, second] = entries
    if (first?.kind !== "waiting" || second?.kind !== "waiting") throw new Error("they wait")
    const ids = [first.id, second.id]
    const into = path.join(setting.folder, "into")
    Object.assign(first, { id: ids[1] })
    await expect(inbox.list()).rejects.toThrow(/two deliveries are called/)
    Object.assign(second, { id: ids[0] })
    await expect(inbox.list()).rejects.toThrow(/another delivery/)
    const again = await setting.open()
    await expect(again.receive(first.id, { into })).rejects.toThrow(/another delivery/)
  })

  test("whose head is signed by somebody else is refused", async () => {
    const { setting, inbox } = await seen()
    setting.relay.signSeed.fill(9)
    await expect(inbox.list()).rejects.toThrow(Untrustworthy)
    await expect(setting.open()).rejects.toThrow(/another signing key/)
  })

  test("with a stamp that names another place in the chain is refused", async () => {
    const { setting, inbox } = await seen()
    const { relay, identity } = setting
    const entry = found(found(relay.inboxes.get(identity.bundle.address)).entries[1])
    if (entry.kind !== "waiting") throw new Error("it waits")
    const stamp = parseStamp(entry.stamp)
    const source = { lane: 0, lineage: new Uint8Array(16), sourcePseudonym: new Uint8Array(16) }
    const keys = { kFrank: new Uint8Array(32), kSrc: new Uint8Array(32) }
    const lies = [
      { ...stamp, seq: 7 },
      { ...stamp, head: new Uint8Array(32) },
      { ...stamp, acceptedMs: 1 },
      { ...stamp, inboxId: new Uint8Array(20) },
      { ...stamp, headerHash: headerHash(new Uint8Array(184)) },
    ]
    for (const lie of lies) {
      Object.assign(entry, { stamp: encodeStamp({ ...lie, source, ...keys }) })
      await expect(inbox.list()).rejects.toThrow(Untrustworthy)
    }
  })
})

function pagesAsked({ relay }: Setting): number {
  return relay.asked.filter(({ path: asked }) => asked.startsWith("/v1/inbox?")).length
}

describe("T17 an inbox without end", () => {
  const perPage = 100
  /** So many pages, and this test's own relay ends it: a client that has not by then would not. */
  const mostPages = 20

  /** Places that nobody ever took, page after page, under a head that promises so many of them. */
  async function endless(
    promised: number,
    wrongSeq = 0,
  ): Promise<{ setting: Setting; inbox: Inbox }> {
    const setting = await makeSetting()
    const { relay, identity } = setting
    const head = encodeHead({
      kid: 1,
      inboxId: identity.bundle.inboxId,
      asOfMs: Date.now(),
      seq: promised,
      head: new Uint8Array(32).fill(7),
      floorSeq: 0,
      signSeed: relay.signSeed,
    })
    const gone = (seq: number): GoneEntry => ({
      kind: "gone",
      seq,
      tombstone: encodeTombstone({
        seq: seq === wrongSeq ? 1 : seq,
        headerHash: random(32),
        envelopeHash: random(32),
        acceptedMs: 1,
        expiresMs: 2,
        reason: "taken",
      }),
    })
    relay.change = (asked, answer) => {
      if (!asked.path.startsWith("/v1/inbox?")) return answer
      const after = Number(new URL(asked.path, relay.origin).searchParams.get("after"))
      const page = encodeInboxPage({
        head,
        floor: { seq: 0, head: emptyChainHead() },
        entries: Array.from({ length: perPage }, (_, index) => gone(after + 1 + index)),
        more: after < mostPages * perPage,
        used: { bytes: 0, deliveries: 0 },
        newAfter: 0,
      })
      return json(200, page)
    }
    return { setting, inbox: await setting.open() }
  }

  test("that goes on beyond its signed head is refused there", async () => {
    const { setting, inbox } = await endless(perPage + 1)
    await expect(inbox.list()).rejects.toThrow(/beyond its signed head/)
    expect(pagesAsked(setting)).toBe(2)
  })

  test("whose head promises more than any inbox holds is refused at its first page", async () => {
    const { setting, inbox } = await endless(2 ** 50)
    await expect(inbox.list()).rejects.toThrow(/longer than any inbox/)
    expect(pagesAsked(setting)).toBe(1)
  })

  test("is not begun anew for ever because its floor moves", async () => {
    const { setting, inbox } = await seen()
    const { relay, identity } = setting
    setting.relay.asked.length = 0
    relay.change = (asked, answer) => {
      if (!asked.path.startsWith("/v1/inbox?")) return answer
      const floorSeq = asked.path.includes("after=0") ? 0 : 1
      const page: JsonObject = JSON.parse(Buffer.from(answer.body).toString())
      const entries = page.entries as unknown[]
      const stored = found(relay.inboxes.get(identity.bundle.address))
      const head = encodeHead({
        kid: 1,
        inboxId: identity.bundle.inboxId,
        asOfMs: Date.now(),
        seq: 3,
        head: stored.head,
        floorSeq,
        signSeed: relay.signSeed,
      })
      const floor = { seq: floorSeq, head: toBase64url(emptyChainHead()) }
      const some = { head: toBase64url(head), floor, entries: entries.slice(0, 1), more: true }
      return json(200, { ...page, ...some } as JsonObject)
    }
    await expect(inbox.list()).rejects.toThrow(/raised the floor/)
    expect(pagesAsked(setting)).toBe(6)
  })

  test("is refused at the first page that is wrong", async () => {
    const { setting, inbox } = await endless(1_000_000, 3 * perPage)
    await expect(inbox.list()).rejects.toThrow(/another one's record/)
    expect(pagesAsked(setting)).toBe(3)
  })
})
