// `npm run demo -- --redis`, which the README names; without a Redis it is what everybody sees first.
import { spawnSync } from "node:child_process"
import { mkdirSync, readdirSync, symlinkSync } from "node:fs"
import path from "node:path"
import { describe, expect, it } from "vitest"
import { scratchFolder, writeTree } from "../client/folders.js"
import { hasRedis } from "../redis/servers.js"

function demo(args: readonly string[], env: Record<string, string>) {
  const script = path.resolve("dist/client/demo.js")
  const options = { env: { ...process.env, ...env }, encoding: "utf8" } as const
  return spawnSync(process.execPath, [script, ...args], options)
}

describe("the demo with --redis", () => {
  it.runIf(hasRedis("the demo with --redis"))(
    "sends and picks up with the index there",
    () => {
      const folder = scratchFolder()
      const source = writeTree(path.join(folder, "letters"), { "one.txt": new Uint8Array(1000) })
      const { status, stdout, stderr } = demo(["--redis", source], { TMPDIR: folder })
      expect({ status, stderr }).toEqual({ status: 0, stderr: "" })
      expect(stdout).toMatch(/A relay starts, with its index in that Redis/)
      expect(stdout).toMatch(/Every name and every byte is compared .*all the same/)
    },
    60_000,
  )

  it("says that redis-server is missing, and leaves nothing behind", () => {
    const folder = scratchFolder()
    const programs = path.join(folder, "programs")
    mkdirSync(programs)
    symlinkSync(process.execPath, path.join(programs, "node"))
    const { status, stderr } = demo(["--redis"], { PATH: programs, TMPDIR: folder })
    expect(status).toBe(1)
    expect(stderr).toMatch(/redis-server is not installed; install Redis, or leave out --redis/)
    expect(readdirSync(folder)).toEqual(["programs"])
  })
})
