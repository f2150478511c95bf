/** The index on a Redis that a test started. */
import { openRedisIndex, type RedisIndex } from "../../server/stores/redis-index.js"
import { parseRedisUrl } from "../../server/stores/redis-url.js"

let relays = 0

/** A relay of its own, which meets no other one on the same Redis. */
export function relayName(): string {
  return `relay-${process.pid}-${(relays += 1)}`
}

export function openIndexOn(
  url: string,
  relay: string = relayName(),
  now: () => number = Date.now,
): Promise<RedisIndex> {
  return openRedisIndex({ place: parseRedisUrl(url), relay, now })
}
