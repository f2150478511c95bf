/** Whom the index on Redis takes for its server, what it says to the others, and what it needs to be allowed. */
import { readFileSync } from "node:fs"
import { Redis } from "ioredis"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { random } from "../../protocol/index.js"
import { IndexRefused, IndexUnavailable } from "../../server/stores/index-errors.js"
import { describeIndex } from "../contracts/index-contract.js"
import { freePort } from "../../bench/processes.js"
import { entryAfter, inboxWithOne } from "./index-fixtures.js"
import { openIndexOn, relayName } from "./index-on.js"
import { hasRedis, type RedisServer, RedisServers, until } from "./servers.js"

const rights = /^ {4}user relay (.*)$/m.exec(readFileSync("docs/operating.md", "utf8"))?.[1] ?? ""

describe.runIf(hasRedis("starting on Redis"))("starting on Redis", () => {
  const servers = new RedisServers()

  afterAll(() => servers.close())

  it("T25 is refused with every policy that drops entries, and says how to change it", async () => {
    const server = await servers.server()
    const policies = [
      "allkeys-lru",
      "allkeys-random",
      "volatile-lru",
      "volatile-lfu",
      "volatile-ttl",
    ]
    for (const policy of policies) {
      await server.admin.config("SET", "maxmemory-policy", policy)
      const said = await refusal(server.url)
      expect(said).toContain(policy)
      expect(said).toContain("set maxmemory-policy noeviction")
    }
    await server.admin.config("SET", "maxmemory-policy", "noeviction")
    await (await openIndexOn(server.url)).close()
  })

  it("T25 is refused when one node of a cluster has another policy", async () => {
    const { nodes, url } = await servers.cluster()
    await nodes[2]?.admin.config("SET", "maxmemory-policy", "volatile-lru")
    expect(await refusal(url)).toContain("volatile-lru")
    const [node] = nodes
    expect(await refusal(node?.url ?? "")).toContain("redis+cluster://")
  }, 60_000)

  it("waits for a server that is reading its files", async () => {
    // Each key takes it a tenth of a second to read, and it says so meanwhile.
    const slow = { "key-load-delay": 100_000, "loading-process-events-interval-bytes": 1024 }
    const server = await servers.server(slow)
    for (let at = 0; at < 20; at++) await server.admin.set(`key ${at}`, Buffer.from(random(3000)))
    await server.admin.save()
    await server.kill()
    const started = server.start()
    const looking = new Redis({
      port: server.port,
      enableReadyCheck: false,
      retryStrategy: () => 20,
      maxRetriesPerRequest: null,
    })
    looking.on("error", () => undefined)
    await until(async () => isLoading(await looking.info("persistence")))
    looking.disconnect()
    const index = await openIndexOn(server.url)
    expect(await index.marker()).toBeUndefined()
    expect(isLoading(await server.admin.info("persistence"))).toBe(false)
    await started
    await index.close()
  }, 60_000)

  it("knows whether the server keeps a file", async () => {
    const without = await openIndexOn((await servers.server()).url)
    expect(without.isPersistent).toBe(false)
    const withFile = await openIndexOn((await servers.server({ appendonly: "yes" })).url)
    expect(withFile.isPersistent).toBe(true)
    await Promise.all([without.close(), withFile.close()])
  })

  it("works by a socket, and in another database", async () => {
    const server = await servers.server()
    const relay = relayName()
    const one = await openIndexOn(`redis+unix://${server.socket}?db=3`, relay)
    await one.setMarker("mine")
    const other = await openIndexOn(`${server.url}/3`, relay)
    expect(await other.marker()).toBe("mine")
    await Promise.all([one.close(), other.close()])
  })

  it("says what is wrong with a password, an address, a replica and a way of writing", async () => {
    const server = await servers.server({ requirepass: "right" })
    const at = (login: string) => `redis://${login}127.0.0.1:${server.port}`
    expect(await refusal(at(""))).toMatch(/wants a password/)
    expect(await refusal(at(":wrong@"))).toMatch(/does not take this user and password/)
    await (await openIndexOn(at(":right@"))).close()
    expect(await refusal(`redis://127.0.0.1:${await freePort()}`)).toMatch(/cannot be reached/)
    expect(await refusal(`redis+unix://${server.socket}.not`)).toMatch(/cannot be reached/)
    const single = await servers.server()
    const replica = await servers.server({ replicaof: `127.0.0.1 ${single.port}` })
    expect(await refusal(replica.url)).toMatch(/is a replica; name its master/)
    expect(await refusal(`redis+cluster://127.0.0.1:${single.port}`)).toMatch(/is no cluster/)
    expect(await refusal(`${single.url}/99`)).toMatch(/no database of that number/)
    expect(await refusal(`redis+sentinel://127.0.0.1:${await freePort()}/relay`)).toMatch(
      /sentinel/,
    )
    expect(await refusal(`rediss://127.0.0.1:${single.port}`)).toMatch(/reached|certificate/)
  }, 60_000)

  it("is refused to a user without the rights, and says where they are written", async () => {
    const server = await servers.server()
    await server.admin.call(
      "acl",
      "setuser",
      "poor",
      "on",
      ">pw",
      "~*",
      "&*",
      "-@all",
      "+info",
      "+ping",
    )
    const said = await refusal(`redis://poor:pw@127.0.0.1:${server.port}`)
    expect(said).toContain('docs/operating.md, "Redis"')
  })

  it("leaves no password in what it says", async () => {
    const server = await servers.server()
    const outcome = await openIndexOn(`redis://who:S3cret@127.0.0.1:${server.port}`).catch(
      (error: unknown) => error,
    )
    expect(String(outcome)).not.toContain("S3cret")
  })

  it("goes on with the new master after a failover", async () => {
    const { master, replica, url } = await servers.watched()
    const index = await openIndexOn(url)
    const { inbox, entry } = await inboxWithOne(index)
    await until(() => isInStep(master, replica))
    let woken = 0
    index.watch(inbox, () => (woken += 1))
    await master.kill()
    await expect(index.chain(inbox)).rejects.toThrow(IndexUnavailable)
    await until(async () => (await index.chain(inbox).catch(unlessUnavailable))?.seq === 1)
    expect(await index.assign({ inbox, afterSeq: 1, entries: [entryAfter(entry)] })).toBe(
      "assigned",
    )
    await until(() => Promise.resolve(woken > 0))
    const before = woken
    await index.reveal({ inbox, seq: 2 })
    await until(() => Promise.resolve(woken > before))
    await index.close()
  }, 60_000)

  it("goes on when a replica takes the place of a master of a cluster", async () => {
    const { nodes, url } = await servers.cluster()
    const [lost, ...others] = nodes
    if (lost === undefined) throw new Error("a cluster has nodes")
    const replica = await servers.follow(lost)
    await until(async () => {
      const seen = await Promise.all(others.map(({ admin }) => admin.call("cluster", "nodes")))
      return seen.every((list) => /slave/.test(String(list)))
    })
    const index = await openIndexOn(url)
    const inboxes = await Promise.all(Array.from({ length: 12 }, () => inboxWithOne(index)))
    await until(() => isInStep(lost, replica))
    let woken = 0
    for (const { inbox } of inboxes) index.watch(inbox, () => (woken += 1))
    await lost.kill()
    await until(async () => {
      const chains = inboxes.map(({ inbox }) => index.chain(inbox).catch(unlessUnavailable))
      return (await Promise.all(chains)).every((chain) => chain?.seq === 1)
    })
    // Whoever waits is told to look.
    await until(() => Promise.resolve(woken >= inboxes.length))
    for (const { inbox, entry } of inboxes) {
      const entries = [entryAfter(entry)]
      expect(await index.assign({ inbox, afterSeq: 1, entries })).toBe("assigned")
    }
    await index.close()
  }, 90_000)

  describe("as a user with the rights that docs/operating.md gives, and no others", () => {
    let url = ""
    let clusterUrl = ""

    beforeAll(async () => {
      expect(rights).toContain("-@all")
      const server = await servers.server()
      const cluster = await servers.cluster()
      for (const { admin } of [server, ...cluster.nodes]) {
        await admin.call("acl", "setuser", "relay", ...rights.replace("PASSWORD", "pw").split(" "))
        await admin.call("acl", "setuser", "default", "off")
      }
      url = server.url.replace("://", "://relay:pw@")
      clusterUrl = cluster.url.replace("://", "://relay:pw@")
    }, 60_000)

    for (const [name, urlOf] of [
      ["by a user with few rights", () => url],
      ["by such a user on a cluster", () => clusterUrl],
    ] as const) {
      describeIndex(name, async (now) => {
        const index = await openIndexOn(urlOf(), undefined, now)
        return { index, close: () => index.close() }
      })
    }
  })
})

async function refusal(url: string): Promise<string> {
  const outcome = await openIndexOn(url).catch((error: unknown) => error)
  if (outcome instanceof IndexRefused) return outcome.message
  throw new Error(`not refused: ${String(outcome)}`)
}

function isLoading(info: string): boolean {
  return /^loading:1/m.test(info)
}

function unlessUnavailable(error: unknown): undefined {
  if (!(error instanceof IndexUnavailable)) throw error
}

async function isInStep(master: RedisServer, replica: RedisServer): Promise<boolean> {
  const [one, other] = await Promise.all([master.admin.info(), replica.admin.info()])
  return offset(one) === offset(other)
}

function offset(info: string): string | undefined {
  return /master_repl_offset:(\d+)/.exec(info)?.[1]
}
