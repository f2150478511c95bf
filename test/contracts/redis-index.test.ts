import { afterAll, beforeAll, describe } from "vitest"
import { openIndexOn } from "../redis/index-on.js"
import { hasRedis, RedisServers } from "../redis/servers.js"
import { describeIndex } from "./index-contract.js"

const kinds: readonly (readonly [
  name: string,
  start: (servers: RedisServers) => Promise<string>,
])[] = [
  ["one Redis", async (servers) => (await servers.server()).url],
  ["a Redis Cluster of three", async (servers) => (await servers.cluster()).url],
  ["a Redis that sentinels watch", async (servers) => (await servers.watched()).url],
]

for (const [name, start] of kinds) {
  describe.runIf(hasRedis(`the index on ${name}`))(`the index on ${name}`, () => {
    const servers = new RedisServers()
    let url = ""

    beforeAll(async () => {
      url = await start(servers)
    }, 60_000)

    afterAll(() => servers.close())

    describeIndex(name, async (now) => {
      const index = await openIndexOn(url, undefined, now)
      return { index, close: () => index.close() }
    })
  })
}
