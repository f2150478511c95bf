// How much there is in all inboxes, kept as they change. The inboxes lie on many nodes and the sums on
// one, so a sum is told after the change. Each inbox numbers its changes: what is told twice counts
// once, and what is told late counts not at all.
import type { InboxId } from "../ids.js"
import { afterEndMs, inboxMs, renewAfterMs } from "./redis-keys.js"
import { item, parsed, Reply } from "./redis-records.js"
import { script } from "./redis-scripts.js"
import type { RedisParts } from "./redis-uploads.js"
import type { Tally } from "./relay-index.js"

export interface InboxCount {
  readonly version: number
  readonly bytes: number
  readonly deliveries: number
}

export interface RedisTally {
  count(inbox: InboxId, count: InboxCount): Promise<void>
  drop(inbox: InboxId, version: number): Promise<void>
  read(): Promise<Tally>
  reclaimNow(): Promise<void>
}

// KEYS: what is known of each inbox as "version bytes deliveries", or "version gone"; the sums; when
// those went that are gone. A report may come after that of its inbox's end, for which its number is
// remembered for a while.

const count = script(
  "frees",
  `
  local inbox, version, bytes, deliveries, now = unpack(ARGV)
  local known = redis.call("HGET", KEYS[1], inbox)
  local change = { inboxes = 0, bytes = 0, deliveries = 0 }
  if bytes ~= "gone" then
    change = { inboxes = 1, bytes = int(bytes), deliveries = int(deliveries) }
  end
  if known then
    local knownVersion, rest = string.match(known, "^(%d+) (.+)$")
    if not knownVersion then damaged() end
    if int(knownVersion) >= int(version) then return end
    if rest ~= "gone" then
      local knownBytes, knownDeliveries = string.match(rest, "^(%d+) (%d+)$")
      if not knownBytes then damaged() end
      change.inboxes = change.inboxes - 1
      change.bytes = change.bytes - int(knownBytes)
      change.deliveries = change.deliveries - int(knownDeliveries)
    end
  end
  local sums = redis.call("HMGET", KEYS[2], "inboxes", "bytes", "deliveries")
  local inboxes = int(sums[1] or "0") + change.inboxes
  local sumBytes = int(sums[2] or "0") + change.bytes
  local sumDeliveries = int(sums[3] or "0") + change.deliveries
  redis.call("HSET", KEYS[2], "inboxes", digits(inboxes), "bytes", digits(sumBytes),
    "deliveries", digits(sumDeliveries))
  if bytes == "gone" then
    redis.call("HSET", KEYS[1], inbox, version .. " gone")
    redis.call("ZADD", KEYS[3], now, inbox)
  else
    redis.call("HSET", KEYS[1], inbox, version .. " " .. bytes .. " " .. deliveries)
    redis.call("ZREM", KEYS[3], inbox)
  end
  for at = 1, 3 do
    local left = redis.call("PTTL", KEYS[at])
    if left ~= -2 and left < ${inboxMs - renewAfterMs} then
      redis.call("PEXPIRE", KEYS[at], "${inboxMs}")
    end
  end`,
)

const reclaim = script(
  "frees",
  `
  for _, inbox in ipairs(redis.call("ZRANGE", KEYS[3], "-inf", ARGV[1], "BYSCORE", "LIMIT", 0, 1000)) do
    redis.call("HDEL", KEYS[1], inbox)
    redis.call("ZREM", KEYS[3], inbox)
  end`,
)

export function createRedisTally({ keys, now, run, command }: RedisParts): RedisTally {
  return {
    async count(inbox, { version, bytes, deliveries }) {
      await run(count, keys.tally, [inbox, version, bytes, deliveries, now()])
    },

    async drop(inbox, version) {
      await run(count, keys.tally, [inbox, version, "gone", "", now()])
    },

    async read() {
      const [sums, open] = await Promise.all([
        command("hmget", keys.tally[1], "inboxes", "bytes", "deliveries"),
        command("zcard", keys.due[0]),
      ])
      return parsed("tally", () => {
        const values = new Reply(sums).fields(3)
        const count = (at: number): number => {
          const value = item(values, at)
          return value.isNothing() ? 0 : value.count()
        }
        return {
          inboxes: count(0),
          waiting: { bytes: count(1), deliveries: count(2) },
          openUploads: new Reply(open).count(),
        }
      })
    },

    async reclaimNow() {
      await run(reclaim, keys.tally, [now() - afterEndMs])
    },
  }
}
