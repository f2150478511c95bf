/** A Redis for a whole run of tests: relays under test keep their indexes there (vitest.config.ts). */
import { rmSync } from "node:fs"
import type { TestProject } from "vitest/node"
import { parseRedisUrl } from "../../server/stores/redis-url.js"
import { RedisServers } from "./servers.js"

export default async function setup({ config }: TestProject): Promise<() => Promise<void>> {
  const place = parseRedisUrl(config.env["KNOTHOLE_TEST_REDIS"] ?? "")
  if (place.kind !== "socket") throw new Error("a socket, so that it is known before it is there")
  const servers = new RedisServers()
  await servers.server({ unixsocket: place.path })
  return async () => {
    await servers.close()
    // One that was killed leaves its socket.
    rmSync(place.path, { force: true })
  }
}
