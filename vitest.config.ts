import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

const provider = (name: string) => ({
  "#crypto-provider": fileURLToPath(new URL(`./protocol/crypto/${name}.ts`, import.meta.url)),
})

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
