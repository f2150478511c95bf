// The indexes a relay can have, and what befalls each of them: inside its own process, in a real Redis,
// in a real Redis Cluster of three.
import { rmSync } from "node:fs"
import { join } from "node:path"
import type { RelayConfig } from "../../server/index.js"
import { parseRedisUrl } from "../../server/stores/redis-url.js"
import { type RedisServer, RedisServers } from "../redis/servers.js"

export interface Backend {
  readonly name: string
  /** What a relay needs to be told to use it. */
  config(): Partial<RelayConfig>
  /** Everything in it is gone, of a relay in this folder that is not running. */
  lose(folder: string): Promise<void>
  /** Where the index is a server: what can befall that while relays run. */
  readonly server: IndexServer | undefined
  close(): Promise<void>
}

export interface IndexServer {
  flush(): Promise<void>
  /** From now on nothing more can be written, or can be again. */
  setFull(isFull: boolean): Promise<void>
  /** Remembers what there is. */
  remember(): Promise<void>
  /** Is another one from now on, that has only what was remembered, or nothing. */
  failOver(): Promise<void>
}

export const embedded: Backend = {
  name: "embedded",
  config: () => ({}),
  lose(folder) {
    rmSync(join(folder, "index"), { recursive: true, force: true })
    return Promise.resolve()
  },
  server: undefined,
  close: () => Promise.resolve(),
}

export const backendNames = ["embedded", "redis", "cluster"] as const

/** Starts what it needs. */
export async function openBackend(name: (typeof backendNames)[number]): Promise<Backend> {
  if (name === "embedded") return embedded
  const servers = new RedisServers()
  if (name === "redis") {
    const server = await servers.server()
    return onServers(name, server.url, [server], servers)
  }
  const { nodes, url } = await servers.cluster()
  return onServers(name, url, nodes, servers)
}

function onServers(
  name: string,
  url: string,
  nodes: readonly RedisServer[],
  servers: RedisServers,
): Backend {
  const flush = async (): Promise<void> => {
    for (const { admin } of nodes) await admin.flushall()
  }
  return {
    name,
    config: () => ({ redis: parseRedisUrl(url) }),
    lose: flush,
    server: {
      flush,
      async setFull(isFull) {
        for (const { admin } of nodes) await admin.config("SET", "maxmemory", isFull ? 1 : 0)
      },
      async remember() {
        for (const { admin } of nodes) await admin.save()
      },
      async failOver() {
        for (const node of nodes) {
          await node.kill()
          await node.start()
        }
      },
    },
    close: () => servers.close(),
  }
}
