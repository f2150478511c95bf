// The index on a Redis, for several relays at once and for what outgrows one process (docs/operating.md,
// "Redis"). Nothing rests on it: the blob store has everything that matters, so a Redis that forgot, or
// that failed over to a copy that lags behind, costs time and no delivery.
//
// Each step is a script or a command about keys of one hash tag (redis-keys.ts), and may run twice.
// Everything expires, by the time that is left of it and later than the relay asks for it; what has
// ended has ended by the relay's clock, whatever Redis has removed.
import { FormatError } from "../../protocol/index.js"
import { IndexRefused } from "./index-errors.js"
import { type Command, connectRedis, type RedisConnection, refusedFor } from "./redis-connection.js"
import { redisInboxes } from "./redis-inboxes.js"
import { inboxMs, redisKeys } from "./redis-keys.js"
import { item, parsed, Reply } from "./redis-records.js"
import { script, scriptsOn } from "./redis-scripts.js"
import { redisSessions } from "./redis-sessions.js"
import { redisUploads } from "./redis-uploads.js"
import type { RedisPlace } from "./redis-url.js"
import type { RelayIndex } from "./relay-index.js"

export interface RedisIndexOptions {
  readonly place: RedisPlace
  /** Tells the relays apart that share one Redis; the same for all processes of one relay. */
  readonly relay: string
  readonly now: () => number
}

export interface RedisIndex extends RelayIndex {
  /** Redis writes what it knows to a file; without that, it knows nothing after a restart. */
  readonly isPersistent: boolean
  /** Names the servers, and this run of each: another one may lack what was written last. */
  servers(): Promise<string>
}

const oldestVersion = 7

/** Throws IndexRefused, which says what to do. */
export async function openRedisIndex(options: RedisIndexOptions): Promise<RedisIndex> {
  const { place, relay, now } = options
  const keys = redisKeys(relay)
  const connection = await connectRedis(place)
  try {
    const isPersistent = await checkServers(connection, place)
    const { command } = connection
    const run = scriptsOn(command)
    await run(probe, [keys.marker], []).catch((error: unknown) => {
      throw refusedFor(error)
    })
    const uploads = redisUploads({ keys, now, run, command })
    const inboxes = redisInboxes({ keys, now, run, command })
    const sessions = redisSessions({ keys, now, run, command })
    const { tally, news, ...inboxIndex } = inboxes
    await connection.listen(keys.channel, news).catch((error: unknown) => {
      throw refusedFor(error)
    })
    return {
      ...uploads,
      ...inboxIndex,
      ...sessions,
      isPersistent,

      async marker() {
        const reply = new Reply(await command("get", keys.marker))
        return parsed("marker", () => (reply.isNothing() ? undefined : reply.text()))
      },

      async setMarker(marker) {
        await command("set", keys.marker, marker, "px", inboxMs)
      },

      async clear() {
        // The marker first: whoever opens what is left half-way sees that it is nobody's.
        await command("unlink", keys.marker)
        await connection.eachMaster((node) => unlinkAll(node, `${keys.prefix}*`))
        news.missed()
      },

      async servers() {
        const runs: string[] = []
        await connection.eachMaster(async (node) => {
          const reply = new Reply(await node("info", "server"))
          runs.push(parsed("info", () => parseInfo(reply)).get("run_id") ?? "")
        })
        return runs.toSorted().join(" ")
      },

      tally: () => tally.read(),

      async reclaim() {
        await uploads.reclaimNow()
        await tally.reclaimNow()
        await command("pexpire", keys.marker, inboxMs)
      },

      close: () => connection.close(),
    }
  } catch (error) {
    await connection.close()
    throw error
  }
}

/** Does nothing, and needs the right to run a script that writes. */
const probe = script("frees", `return redis.call("PEXPIRE", KEYS[1], "${inboxMs}")`)

async function unlinkAll(node: Command, pattern: string): Promise<void> {
  let cursor = "0"
  do {
    const reply = new Reply(await node("scan", cursor, "match", pattern, "count", 1000))
    const [next, found] = parsed("scan", () => {
      const values = reply.fields(2)
      return [
        item(values, 0).text(),
        item(values, 1)
          .list()
          .map((key) => key.bytes()),
      ] as const
    })
    // One by one: on a cluster they belong to many slots.
    await Promise.all(found.map((key) => node("unlink", key)))
    cursor = next
  } while (cursor !== "0")
}

/** Whether all servers keep a file. Throws IndexRefused for one that would lose or refuse entries. */
async function checkServers(connection: RedisConnection, place: RedisPlace): Promise<boolean> {
  let isPersistent = true
  await connection
    .eachMaster(async (node) => {
      const info = parseInfo(new Reply(await node("info")))
      checkServer(info, place)
      if (info.get("aof_enabled") !== "1") isPersistent = false
    })
    .catch((error: unknown) => {
      if (error instanceof IndexRefused) throw error
      if (error instanceof FormatError) throw new IndexRefused("what answers there is no Redis")
      throw refusedFor(error)
    })
  return isPersistent
}

function checkServer(info: ReadonlyMap<string, string>, place: RedisPlace): void {
  const version = info.get("redis_version") ?? ""
  if (Number(version.split(".")[0]) < oldestVersion) {
    throw new IndexRefused(`this is Redis ${version}; a relay needs ${oldestVersion}.0 or later`)
  }
  if (info.get("role") === "slave")
    throw new IndexRefused("this Redis is a replica; name its master")
  if (info.get("cluster_enabled") === "1" && place.kind !== "cluster") {
    throw new IndexRefused("this Redis is a node of a cluster; write redis+cluster://")
  }
  const policy = info.get("maxmemory_policy")
  if (policy !== "noeviction") {
    throw new IndexRefused(
      `with maxmemory-policy ${policy ?? "unknown"} Redis drops entries that are needed when its memory is full; set maxmemory-policy noeviction in redis.conf (redis-cli config set maxmemory-policy noeviction)`,
    )
  }
}

/** Lines of NAME:VALUE, as the command INFO has them. Throws FormatError. */
export function parseInfo(reply: Reply): ReadonlyMap<string, string> {
  const facts = new Map<string, string>()
  for (const line of reply.text().split("\r\n")) {
    const colon = line.indexOf(":")
    if (!line.startsWith("#") && colon > 0) facts.set(line.slice(0, colon), line.slice(colon + 1))
  }
  if (facts.get("redis_version") === undefined) throw new FormatError("redis.info", "no version")
  return facts
}
