import { tmpdir } from "node:os"
import path from "node:path"
import { fileURLToPath } from "node:url"
import { defineConfig, type TestProjectConfiguration } from "vitest/config"
import { hasRedis } from "./test/redis/servers.js"

const provider = (name: string) => ({
  "#crypto-provider": fileURLToPath(new URL(`./protocol/crypto/${name}.ts`, import.meta.url)),
})

// What touches the index, once more with the index in a Redis.
const onRedis: TestProjectConfiguration = {
  resolve: { alias: provider("node") },
  test: {
    name: "on-redis",
    include: ["deliveries", "inbox", "finish", "uploads", "sessions", "closed-inbox"].map(
      (stem) => `test/server/${stem}.test.ts`,
    ),
    globalSetup: ["test/redis/for-relays.ts"],
    env: {
      KNOTHOLE_TEST_REDIS: `redis+unix://${path.join(tmpdir(), `knothole-redis-${process.pid}.sock`)}`,
    },
    testTimeout: 60_000,
  },
}

// The protocol's tests run twice: once on each crypto provider, with the same vectors.
export default defineConfig({
  test: {
    projects: [
      {
        resolve: { alias: provider("node") },
        test: {
          name: "node",
          include: ["test/**/*.test.ts"],
          exclude: ["test/browser/**"],
          testTimeout: 30_000,
        },
      },
      ...(hasRedis("the relay's HTTP tests on Redis") ? [onRedis] : []),
      {
        resolve: { alias: provider("browser") },
        test: {
          name: "browser-provider",
          include: ["test/protocol/**/*.test.ts"],
          testTimeout: 60_000,
        },
      },
    ],
  },
})
