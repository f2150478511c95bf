/** What the index on Redis promises beyond every index: several processes, and a server that fails. */
import { Redis } from "ioredis"
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest"
import { emptyChainHead, random, toHex } from "../../protocol/index.js"
import { IndexUnavailable } from "../../server/stores/index-errors.js"
import { connectRedis } from "../../server/stores/redis-connection.js"
import { redisKeys } from "../../server/stores/redis-keys.js"
import { scriptsOn } from "../../server/stores/redis-scripts.js"
import { createRedisTally } from "../../server/stores/redis-tally.js"
import { parseRedisUrl } from "../../server/stores/redis-url.js"
import { DamagedRecord } from "../../server/stores/maced-record.js"
import type { RedisIndex } from "../../server/stores/redis-index.js"
import type { RelayIndex } from "../../server/stores/relay-index.js"
import { type CuttingProxy, startCuttingProxy } from "./cutting-proxy.js"
import {
  bytesOf,
  entryAfter,
  hourMs,
  inboxWithOne,
  someDelivery,
  someInbox,
  someSession,
  someUpload,
} from "./index-fixtures.js"
import { openIndexOn, relayName } from "./index-on.js"
import { hasRedis, type RedisServer, RedisServers, until } from "./servers.js"

const quota = { bytes: 10_000, deliveries: 100 }
const share = (bytes: number) => ({ bytes, quota, untilMs: Date.now() + hourMs })

describe.runIf(hasRedis("the index on Redis"))("the index on Redis", () => {
  const servers = new RedisServers()
  const open: RelayIndex[] = []
  let server: RedisServer

  async function openOne(relay?: string, url: string = server.url): Promise<RedisIndex> {
    const index = await openIndexOn(url, relay)
    open.push(index)
    return index
  }

  async function openTwo(url?: string): Promise<readonly [RedisIndex, RedisIndex]> {
    const relay = relayName()
    return [await openOne(relay, url), await openOne(relay, url)]
  }

  beforeAll(async () => {
    server = await servers.server()
  })

  afterEach(async () => {
    await Promise.all(open.splice(0).map((index) => index.close()))
  })

  afterAll(() => servers.close())

  const kinds: readonly (readonly [name: string, url: () => Promise<string>])[] = [
    ["one server", () => Promise.resolve(server.url)],
    ["a cluster", async () => (await servers.cluster()).url],
  ]
  for (const [name, urlOf] of kinds) {
    describe(`two processes of one relay, on ${name}`, () => {
      let url = ""

      beforeAll(async () => {
        url = await urlOf()
      }, 60_000)

      it("give a claim to one of them", async () => {
        const both = await openTwo(url)
        const claim = {
          what: "upload",
          name: someDelivery(),
          untilMs: Date.now() + hourMs,
        } as const
        const given = await Promise.all(
          both.map((index, at) => index.claim({ ...claim, owner: `owner ${at}` })),
        )
        expect(given.filter(Boolean)).toHaveLength(1)
      })

      it("let the first of two different parts win", async () => {
        const both = await openTwo(url)
        const upload = someUpload(someInbox())
        await both[0].startUpload(upload)
        const outcomes = await Promise.all(
          both.map((index) =>
            index.setPart({ id: upload.id, index: 0, leaf: random(32), lengthBytes: 9 }),
          ),
        )
        expect([...outcomes].sort()).toEqual(["differs", "stored"])
      })

      it("have the same secrets and sessions, and spend a value once", async () => {
        const both = await openTwo(url)
        const untilMs = Date.now() + hourMs
        const secrets = await Promise.all(
          both.map((index) =>
            index.sharedSecret({ name: "minute 7", candidate: random(32), untilMs }),
          ),
        )
        expect(new Set(secrets.map((secret) => toHex(secret))).size).toBe(1)
        const session = someSession(someInbox())
        await both[0].addSession(session)
        const { tokenHash, idleMs } = session
        expect(await both[1].useSession({ tokenHash, idleMs })).toMatchObject({
          inbox: session.inbox,
        })
        const value = random(32)
        const spent = await Promise.all(both.map((index) => index.spend({ value, untilMs })))
        expect(spent.filter(Boolean)).toHaveLength(1)
      })

      it("wake each other's watchers", async () => {
        const [one, other] = await openTwo(url)
        const { inbox, entry } = await inboxWithOne(one)
        const woken = new Promise<void>((resolve) => {
          other.watch(inbox, resolve)
        })
        await one.assign({ inbox, afterSeq: 1, entries: [entryAfter(entry)] })
        await one.reveal({ inbox, seq: 2 })
        await woken
        expect((await other.chain(inbox))?.visibleSeq).toBe(2)
      })

      it("number what both deliver without gaps", async () => {
        const both = await openTwo(url)
        const inbox = someInbox()
        await both[0].openInbox(inbox, bytesOf("bundle"))
        const append = async (index: RelayIndex): Promise<void> => {
          for (;;) {
            const chain = await index.chain(inbox)
            if (chain === undefined) throw new Error("no such inbox")
            const entries = [entryAfter(chain)]
            if ((await index.assign({ inbox, afterSeq: chain.seq, entries })) === "assigned") return
          }
        }
        await Promise.all(both.flatMap((index) => Array.from({ length: 10 }, () => append(index))))
        expect((await both[1].chain(inbox))?.seq).toBe(20)
        expect((await both[1].tally()).waiting).toEqual({ bytes: 2000, deliveries: 20 })
      })

      it("go on when the servers have forgotten every script", async () => {
        const [one] = await openTwo(url)
        const { inbox } = await inboxWithOne(one)
        for (const port of portsIn(url)) {
          const admin = new Redis({ port })
          await admin.script("FLUSH")
          admin.disconnect()
        }
        expect((await one.chain(inbox))?.seq).toBe(1)
        await one.openInbox(someInbox(), bytesOf("bundle"))
      })
    })
  }

  it("keeps the relays apart that share it", async () => {
    const [one, other] = [await openOne(), await openOne()]
    const { inbox } = await inboxWithOne(one)
    expect(await other.chain(inbox)).toBeUndefined()
    await other.clear()
    expect((await one.chain(inbox))?.seq).toBe(1)
    expect(await other.inboxes()).toEqual([])
  })

  it("leaves nothing in Redis that does not expire, and nothing that expires first", async () => {
    const relay = relayName()
    const index = await openOne(relay)
    const { inbox, entry } = await inboxWithOne(index)
    const upload = someUpload(inbox)
    const { id } = upload
    const untilMs = Date.now() + hourMs
    await index.startUpload(upload)
    await index.setPart({ id, index: 0, leaf: random(32), lengthBytes: 9 })
    await index.reserveRoom({ id, bytes: 1, roomBytes: 10, untilMs })
    await index.reserveShare({ inbox, id, ...share(1) })
    await index.beginAccepting({ inbox, id, acceptedMs: Date.now() })
    await index.lease({ id, untilMs })
    await index.claim({ what: "upload", name: id, owner: "me", untilMs })
    await index.closeUpload({ id: entry.id, dueMs: entry.expiresMs })
    await index.addSession(someSession(inbox))
    await index.spend({ value: random(32), untilMs })
    await index.sharedSecret({ name: "minute 7", candidate: random(32), untilMs })
    await index.setMarker("mine")
    const gone = await inboxWithOne(index)
    await index.removeInbox(gone.inbox)
    const names = await server.admin.keys(`knothole:{${relay}:*`)
    expect(names.length).toBeGreaterThan(20)
    for (const name of names) {
      const leftMs = await server.admin.pttl(name)
      // A secret is gone soon after its end; all else an hour later at the earliest.
      expect(leftMs, name).toBeGreaterThan(
        name.includes("k:minute 7") ? hourMs : 2 * hourMs - 60_000,
      )
      expect(leftMs, name).toBeLessThan(91 * 24 * hourMs)
    }
  })

  it("keeps an inbox that is only looked at", async () => {
    const relay = relayName()
    const { inbox } = await inboxWithOne(await openOne(relay))
    const names = await server.admin.keys(`knothole:{${relay}:i:${inbox}}*`)
    for (const name of names) await server.admin.pexpire(name, hourMs)
    await (await openOne(relay)).chain(inbox)
    for (const name of names) {
      expect(await server.admin.pttl(name), name).toBeGreaterThan(89 * 24 * hourMs)
    }
  })

  it("names and counts an inbox again that another node's failover made it forget", async () => {
    const relay = relayName()
    const { inbox } = await inboxWithOne(await openOne(relay))
    const forgotten = await server.admin.keys(`knothole:{${relay}:inboxes}*`)
    forgotten.push(...(await server.admin.keys(`knothole:{${relay}:tally}*`)))
    await server.admin.unlink(...forgotten)
    const index = await openOne(relay)
    expect(await index.inboxes()).toEqual([])
    await index.chain(inbox)
    expect(await index.inboxes()).toEqual([inbox])
    expect(await index.tally()).toMatchObject({
      inboxes: 1,
      waiting: { bytes: 100, deliveries: 1 },
    })
  })

  it("counts a report that comes late not at all", async () => {
    const connection = await connectRedis(parseRedisUrl(server.url))
    const { command } = connection
    const parts = { keys: redisKeys(relayName()), now: Date.now, command, run: scriptsOn(command) }
    const tally = createRedisTally(parts)
    const inbox = someInbox()
    await tally.count(inbox, { version: 2, bytes: 200, deliveries: 2 })
    await tally.count(inbox, { version: 1, bytes: 100, deliveries: 1 })
    expect(await tally.read()).toMatchObject({ waiting: { bytes: 200, deliveries: 2 } })
    await tally.drop(inbox, 4)
    await tally.count(inbox, { version: 3, bytes: 300, deliveries: 3 })
    expect(await tally.read()).toMatchObject({ inboxes: 0, waiting: { bytes: 0, deliveries: 0 } })
    await connection.close()
  })

  it("tells all that waits in an inbox with very many places", async () => {
    const index = await openOne()
    const inbox = someInbox()
    await index.openInbox(inbox, bytesOf("bundle"))
    const ids: string[] = []
    let last: { readonly seq: number; readonly head: Uint8Array } = {
      seq: 0,
      head: emptyChainHead(),
    }
    while (last.seq < 4100) {
      const afterSeq = last.seq
      const entries = Array.from({ length: 100 }, () => {
        const entry = entryAfter(last)
        last = entry
        ids.push(entry.id)
        return entry
      })
      expect(await index.assign({ inbox, afterSeq, entries })).toBe("assigned")
    }
    await index.reveal({ inbox, seq: last.seq })
    await index.bury({ inbox, seqs: [{ seq: 2001, reason: "taken" }] })
    expect(await index.waiting(inbox)).toEqual(ids.filter((_, at) => at !== 2000))
  })

  it("says that a record is damaged which somebody else has written", async () => {
    const relay = relayName()
    const index = await openOne(relay)
    const { inbox, entry } = await inboxWithOne(index)
    const upload = someUpload(inbox)
    const { id } = upload
    await index.startUpload(upload)
    await index.setPart({ id, index: 0, leaf: random(32), lengthBytes: 9 })
    const session = someSession(inbox)
    await index.addSession(session)
    const at = (family: string) => `knothole:{${relay}:${family}`
    const { admin } = server
    const list = () => index.listing({ inbox, afterSeq: 0, limit: 9, envelopes: true })
    const damages: readonly (readonly [() => Promise<unknown>, () => Promise<unknown>])[] = [
      [() => admin.hset(at(`u:${id}}`), "record", "x"), () => index.upload(id)],
      [() => admin.hset(at(`u:${id}}`), "state", "x"), () => index.upload(id)],
      [() => admin.hset(at(`u:${id}}:parts`), "0", "x"), () => index.parts(id)],
      [() => admin.hset(at(`i:${inbox}}:entries`), "1", "x"), list],
      [
        () => admin.hset(at(`i:${inbox}}:entries`), "1", "x"),
        () => index.entryById({ inbox, id: entry.id }),
      ],
      [
        () => admin.hset(at(`i:${inbox}}:entries`), "1", "x"),
        () => index.bury({ inbox, seqs: [{ seq: 1, reason: "taken" }] }),
      ],
      [() => admin.hset(at(`i:${inbox}}`), "visible", "many"), list],
      [() => admin.hset(at(`i:${inbox}}`), "head", "short"), () => index.chain(inbox)],
      [
        () => admin.hset(at(`s:${toHex(session.tokenHash.subarray(0, 16))}}`), "absolute", "-"),
        () => index.useSession(session),
      ],
      [() => admin.set(at(`i:${inbox}}`), "of another type"), list],
      [() => admin.zadd(at("due}:open"), 0, "x"), () => index.due(9)],
    ]
    for (const [damage, step] of damages) {
      await damage()
      await expect(step(), String(step)).rejects.toThrow(DamagedRecord)
    }
  })

  it("tells watchers that they may have missed something when it was away", async () => {
    const own = await servers.server({ appendonly: "yes" })
    const relay = relayName()
    const [one, other] = [await openOne(relay, own.url), await openOne(relay, own.url)]
    const { inbox, entry } = await inboxWithOne(one)
    const wakes: string[] = []
    await own.kill()
    other.watch(inbox, () => wakes.push("again"))
    await own.start()
    await until(() => Promise.resolve(wakes.length === 1))
    await until(() => works(() => one.chain(inbox)))
    await one.assign({ inbox, afterSeq: 1, entries: [entryAfter(entry)] })
    await one.reveal({ inbox, seq: 2 })
    await until(() => Promise.resolve(wakes.length === 2))
  })

  it("is unavailable while the server is gone or silent, and there again with it", async () => {
    const own = await servers.server({ appendonly: "yes" })
    const index = await openOne(undefined, own.url)
    const { inbox } = await inboxWithOne(index)
    own.pause()
    await expect(index.chain(inbox)).rejects.toThrow(IndexUnavailable)
    own.resume()
    await until(() => works(() => index.chain(inbox)))
    await own.kill()
    await expect(index.chain(inbox)).rejects.toThrow(IndexUnavailable)
    await own.start()
    await until(() => works(() => index.chain(inbox)))
    expect((await index.chain(inbox))?.seq).toBe(1)
  })

  it("goes on when a node of a cluster comes back", async () => {
    const { nodes, url } = await servers.cluster()
    const index = await openOne(undefined, url)
    const inboxes = Array.from({ length: 12 }, someInbox)
    for (const inbox of inboxes) await index.openInbox(inbox, bytesOf("bundle"))
    await nodes[1]?.kill()
    const outcomes = await Promise.all(
      inboxes.map((inbox) => index.chain(inbox).catch((error: unknown) => error)),
    )
    expect(outcomes.some((outcome) => outcome instanceof IndexUnavailable)).toBe(true)
    await nodes[1]?.start()
    await until(() => works(() => Promise.all(inboxes.map((inbox) => index.chain(inbox)))))
    const [inbox = someInbox()] = inboxes
    const woken = new Promise<void>((resolve) => {
      index.watch(inbox, resolve)
    })
    await until(() => works(() => index.openInbox(inbox, bytesOf("bundle"))))
    const entries = [entryAfter({ seq: 0, head: emptyChainHead() })]
    expect(await index.assign({ inbox, afterSeq: 0, entries })).toBe("assigned")
    await index.reveal({ inbox, seq: 1 })
    await woken
  }, 60_000)

  it("tells watchers when a node of a cluster is lost that they do not listen to", async () => {
    const { nodes, url } = await servers.cluster()
    const index = await openOne(undefined, url)
    const inboxes = Array.from({ length: 12 }, someInbox)
    for (const inbox of inboxes) await index.openInbox(inbox, bytesOf("bundle"))
    const heard = await Promise.all(
      nodes.map(({ admin }) => admin.pubsub("CHANNELS", "knothole:*")),
    )
    const lost = nodes.find((_, at) => heard[at]?.length === 0)
    const woken = new Promise<void>((resolve) => {
      index.watch(someInbox(), resolve)
    })
    await lost?.kill()
    await Promise.all(inboxes.map((inbox) => index.chain(inbox).catch(() => undefined)))
    await woken
  }, 60_000)

  it("T25 without memory takes nothing in, goes on reading, and lets people fetch and discard", async () => {
    const own = await servers.server()
    const index = await openOne(undefined, own.url)
    const { inbox, entry } = await inboxWithOne(index)
    const upload = someUpload(inbox)
    const { id } = upload
    await index.startUpload(upload)
    const session = someSession(inbox)
    await index.addSession(session)
    const before = await index.listing({ inbox, afterSeq: 0, limit: 9, envelopes: true })
    // Less than it has in use already.
    await own.admin.config("SET", "maxmemory", "1")

    const later = entryAfter(entry)
    const growing: readonly (() => Promise<unknown>)[] = [
      () => index.startUpload(someUpload(inbox)),
      () => index.extendUpload({ id, reservedBytes: 2000, expiresMs: upload.expiresMs }),
      () => index.setPart({ id, index: 0, leaf: random(32), lengthBytes: 9 }),
      () => index.reserveRoom({ id, bytes: 1, roomBytes: 10, untilMs: Date.now() + hourMs }),
      () => index.reserveShare({ inbox, id, ...share(1) }),
      () => index.openInbox(someInbox(), bytesOf("bundle")),
      () => index.beginAccepting({ inbox, id, acceptedMs: Date.now() }),
      () => index.assign({ inbox, afterSeq: 1, entries: [later] }),
    ]
    for (const step of growing) {
      await expect(step(), String(step)).rejects.toMatchObject({
        name: "IndexUnavailable",
        reason: "OOM",
      })
    }

    expect(await index.listing({ inbox, afterSeq: 0, limit: 9, envelopes: true })).toEqual({
      ...before,
      listedSeq: 1,
    })
    expect(await index.upload(id)).toMatchObject({ state: "open", reservedBytes: 1000 })
    expect(await index.parts(id)).toEqual([])
    expect(await index.envelope({ inbox, seq: 1 })).toHaveLength(entry.envelope.length)
    expect(await index.accepting(inbox)).toEqual([])
    expect(await index.useSession(session)).toMatchObject({ inbox })
    // Somebody comes and fetches.
    await index.addSession(someSession(inbox))
    expect(await index.spend({ value: random(32), untilMs: Date.now() + hourMs })).toBe(true)
    await index.lease({ id: entry.id, untilMs: Date.now() + hourMs })
    const claim = { what: "inbox", name: inbox, owner: "me", untilMs: Date.now() + hourMs } as const
    expect(await index.claim(claim)).toBe(true)
    await index.bury({ inbox, seqs: [{ seq: 1, reason: "taken" }] })
    await index.closeUpload({ id, dueMs: Date.now() + hourMs })
    expect(await index.tally()).toMatchObject({ waiting: { bytes: 0, deliveries: 0 } })

    await own.admin.config("SET", "maxmemory", "0")
    expect(await index.assign({ inbox, afterSeq: 1, entries: [later] })).toBe("assigned")
  })

  describe("T27 a line that is cut after a step was done and before it was answered", () => {
    let proxy: CuttingProxy

    beforeAll(async () => {
      proxy = await startCuttingProxy(server.port)
    })

    afterAll(() => proxy.close())

    /**
     * Takes the step with its first answer lost, with its second, and so on until none is lost any more;
     * each time again when the line is back, and then `check`.
     */
    async function cutEverywhere(
      prepare: (index: RelayIndex) => Promise<{
        readonly step: (index: RelayIndex) => Promise<unknown>
        readonly check: (index: RelayIndex) => Promise<void>
      }>,
    ): Promise<void> {
      let cuts = 0
      for (;;) {
        const relay = relayName()
        const direct = await openOne(relay)
        const { step, check } = await prepare(direct)
        // Opened now: an answer is what it gets to a step, and no news of what was prepared.
        const cut = await openOne(relay, proxy.url)
        proxy.cutAt(cuts + 1)
        const outcome = await step(cut).catch((error: unknown) => error)
        if (!proxy.hasCut()) break
        cuts += 1
        expect(outcome).toBeInstanceOf(IndexUnavailable)
        await until(() => works(() => cut.marker()))
        await step(cut)
        await check(direct)
        await Promise.all([direct.close(), cut.close()])
      }
      expect(cuts).toBeGreaterThan(0)
    }

    it("appends no entry twice and counts its size once", () =>
      cutEverywhere(async (index) => {
        const { inbox, entry } = await inboxWithOne(index)
        const next = entryAfter(entry)
        await index.reserveShare({ inbox, id: next.id, ...share(100) })
        return {
          step: async (cut) => {
            expect(await cut.assign({ inbox, afterSeq: 1, entries: [next] })).toBe("assigned")
          },
          check: async (direct) => {
            expect(await direct.chain(inbox)).toMatchObject({ seq: 2 })
            const listing = await direct.listing({ inbox, afterSeq: 0, limit: 9, envelopes: false })
            expect(listing?.used).toEqual({ bytes: 200, deliveries: 2 })
            expect((await direct.tally()).waiting).toEqual({ bytes: 200, deliveries: 2 })
            // The share became use: all that is left of the quota can be had, and no more.
            const rest = {
              inbox,
              quota: { bytes: 300, deliveries: 9 },
              untilMs: Date.now() + hourMs,
            }
            const id = someDelivery()
            expect(await direct.reserveShare({ ...rest, id, bytes: 100 })).toBe("reserved")
            const another = someDelivery()
            expect(await direct.reserveShare({ ...rest, id: another, bytes: 1 })).toBe("full")
          },
        }
      }))

    it("reserves a share of an inbox and room on the disk once", () =>
      cutEverywhere(async (index) => {
        const { inbox } = await inboxWithOne(index)
        const id = someDelivery()
        const untilMs = Date.now() + hourMs
        const whole = { bytes: 150, deliveries: 3 }
        return {
          step: async (cut) => {
            await cut.reserveRoom({ id, bytes: 50, roomBytes: 100, untilMs })
            await cut.reserveShare({ inbox, id, bytes: 25, quota: whole, untilMs })
          },
          check: async (direct) => {
            const another = { id: someDelivery(), untilMs }
            expect(await direct.reserveRoom({ ...another, bytes: 50, roomBytes: 100 })).toBe(true)
            const asked = { inbox, ...another, quota: whole }
            expect(await direct.reserveShare({ ...asked, bytes: 26 })).toBe("full")
            expect(await direct.reserveShare({ ...asked, bytes: 25 })).toBe("reserved")
          },
        }
      }))

    it("starts one upload, stores its part once, and closes it once", () =>
      cutEverywhere((_index) => {
        const upload = someUpload(someInbox())
        const { id } = upload
        const part = { id, index: 0, leaf: random(32), lengthBytes: 9 }
        const closed = someUpload(someInbox())
        return Promise.resolve({
          step: async (cut) => {
            await cut.startUpload(upload)
            await cut.setPart(part)
            await cut.startUpload(closed)
            await cut.closeUpload({ id: closed.id, dueMs: closed.expiresMs })
          },
          check: async (direct) => {
            expect(await direct.parts(id)).toHaveLength(1)
            expect(await direct.setPart(part)).toBe("same")
            expect(await direct.upload(closed.id)).toMatchObject({ state: "closed" })
            expect((await direct.tally()).openUploads).toBe(1)
          },
        })
      }))

    it("opens an inbox, takes it back, buries in it and removes it, each once", () =>
      cutEverywhere(async (index) => {
        const { inbox, entry } = await inboxWithOne(index)
        const gone = await inboxWithOne(index)
        const opened = someInbox()
        const restored = {
          inbox: someInbox(),
          bundle: bytesOf("bundle"),
          floorSeq: 0,
          floorHead: emptyChainHead(),
        }
        const first = entryAfter({ seq: 0, head: emptyChainHead() })
        const entries = [entryAfter(first)]
        return {
          step: async (cut) => {
            await cut.openInbox(opened, bytesOf("bundle"))
            await cut.restoreInbox({ ...restored, entries: [first] })
            await cut.restoreEntries({ inbox: restored.inbox, afterSeq: 1, entries })
            await cut.bury({ inbox, seqs: [{ seq: entry.seq, reason: "taken" }] })
            await cut.removeInbox(gone.inbox)
          },
          check: async (direct) => {
            expect(await direct.chain(opened)).toMatchObject({ seq: 0 })
            expect(await direct.chain(restored.inbox)).toMatchObject({ seq: 2, visibleSeq: 2 })
            expect(await direct.chain(gone.inbox)).toBeUndefined()
            expect(await direct.tally()).toMatchObject({
              inboxes: 3,
              waiting: { bytes: 200, deliveries: 2 },
            })
            expect([...(await direct.inboxes())].sort()).toEqual(
              [opened, restored.inbox, inbox].sort(),
            )
          },
        }
      }))
  })
})

function portsIn(url: string): number[] {
  return [...url.matchAll(/:(\d+)/g)].map(([, port]) => Number(port))
}

async function works(step: () => Promise<unknown>): Promise<boolean> {
  try {
    await step()
    return true
  } catch (error) {
    if (error instanceof IndexUnavailable) return false
    throw error
  }
}
