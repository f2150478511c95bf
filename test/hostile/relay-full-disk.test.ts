// A disk without a byte left, which somebody else may have filled: what waits can be fetched and
// discarded, also by a relay that has to start on it.
import { spawnSync } from "node:child_process"
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, statSync, writeSync } from "node:fs"
import { join } from "node:path"
import { afterAll, describe, expect, it } from "vitest"
import { random } from "../../protocol/index.js"
import { openEmbeddedIndex } from "../../server/stores/embedded-index.js"
import { Workshop } from "../program/processes.js"

const workshop = new Workshop()
const small = join(workshop.folder, "small disk")
mkdirSync(small)
const isMounted =
  spawnSync("mount", ["-t", "tmpfs", "-o", "size=6m,mode=700", "tmpfs", small]).status === 0
if (!isMounted)
  console.warn("left out: starts on a full disk, because no tmpfs can be mounted here")

afterAll(async () => {
  if (isMounted) spawnSync("umount", ["-l", small])
  await workshop.close()
})

/** Takes all the room there is; says how much that was. */
function fill(file: string): number {
  const descriptor = openSync(file, "a")
  try {
    for (const size of [65_536, 1]) {
      try {
        for (;;) writeSync(descriptor, random(size))
      } catch (error) {
        if (!(error instanceof Error && "code" in error && error.code === "ENOSPC")) throw error
      }
    }
  } finally {
    closeSync(descriptor)
  }
  return statSync(file).size
}

describe("the index on a full disk", () => {
  it.runIf(isMounted)(
    "takes small steps in the room it kept, and names what is wrong",
    async () => {
      const filler = join(small, "filler")
      const path = join(small, "index")
      const index = openEmbeddedIndex({ path, now: Date.now })
      const careless = openEmbeddedIndex({ path: `${path} 2`, now: Date.now })
      try {
        await index.keepSpare()
        fill(filler)
        for (let at = 0; at < 300; at++) await index.setMarker(`marker ${at}`)
        expect(await index.marker()).toBe("marker 299")
        const steps = async () => {
          for (let at = 0; at < 300; at++) await careless.setMarker(`marker ${at}`)
        }
        await expect(steps()).rejects.toMatchObject({ code: "ENOSPC" })
        // There is no room to keep, which is no reason to fail.
        await index.keepSpare()
      } finally {
        await index.close()
        await careless.close()
        rmSync(filler)
        rmSync(path, { recursive: true })
        rmSync(`${path} 2`, { recursive: true })
      }
    },
  )
})

describe("a relay on a full disk", () => {
  it.runIf(isMounted)(
    "starts again after a stop and after a kill, and gives out and discards what waits",
    async () => {
      const data = ["--data", join(small, "relay"), "--disk-headroom", "0"]
      let relay = await workshop.startRelay("relay", data)
      const port = new URL(relay.url).port
      const init = await workshop.run("alice", ["init", "--relay", relay.url, "--no-passphrase"])
      expect(init).toMatchObject({ code: 0 })
      const file = join(workshop.folder, "for alice")
      const content = Buffer.from(random(50_000))
      const descriptor = openSync(file, "w")
      writeSync(descriptor, content)
      closeSync(descriptor)
      for (let at = 0; at < 3; at++) {
        const sent = await workshop.run("bob", ["send", file, "-r", init.stdout.trim()])
        expect(sent).toMatchObject({ code: 0 })
      }
      const filler = join(small, "filler")
      expect(fill(filler)).toBeGreaterThan(100_000)

      for (const signal of ["SIGTERM", "SIGKILL", "SIGKILL", "SIGTERM"] as const) {
        relay.child.kill(signal)
        const ended = await relay.ended
        if (signal === "SIGTERM") expect(ended).toMatchObject({ code: 0 })
        relay = await workshop.startRelay("relay", [...data, "--listen", `127.0.0.1:${port}`])
        const listed = await workshop.run("alice", ["inbox", "--json"])
        expect(listed, `${signal} ${relay.stderr.text}`).toMatchObject({ code: 0 })
        expect(JSON.parse(listed.stdout)).toHaveLength(3)
      }

      const [first, second, third] = JSON.parse(
        (await workshop.run("alice", ["inbox", "--json"])).stdout,
      ).map(({ id }: { id: string }) => id)
      // What the relay's start gave up and did not use is gone as well now.
      fill(filler)
      const folder = join(workshop.folder, "received")
      const received = await workshop.run("alice", ["receive", first, "-o", folder])
      expect(received).toMatchObject({ code: 0 })
      expect(readFileSync(join(folder, "for alice")).equals(content)).toBe(true)
      expect(await workshop.run("alice", ["discard", second])).toMatchObject({ code: 0 })
      expect(await workshop.run("alice", ["discard", third])).toMatchObject({ code: 0 })

      // With room again it takes deliveries again.
      rmSync(filler)
      const again = await workshop.run("bob", ["send", file, "-r", init.stdout.trim()])
      expect(again).toMatchObject({ code: 0 })
    },
    60_000,
  )
})
