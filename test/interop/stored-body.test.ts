// What lies on the relay's disk, seen with MEGA's eyes: a slice of a stored body and the classic key of
// 43 characters are a genuine MEGA file. Sizes stay off the boundaries at which megajs is known to differ.
import { decrypt } from "megajs"
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import type { Transform } from "node:stream"
import { buffer } from "node:stream/consumers"
import { createIdentity, openInbox, openState, registerInbox, send } from "knothole/client"
import { composeMegaKey, concatBytes } from "knothole/protocol"
import { createRelay, loadConfig, type Relay } from "knothole/server"
import { afterAll, beforeAll, expect, test } from "vitest"

const sizes = [1, 17, 131_073, 700_001, 5_000_003]
const work = mkdtempSync(path.join(tmpdir(), "knothole-megajs-"))
const data = path.join(work, "relay")
const content = (size: number) => Uint8Array.from({ length: size }, (_, i) => i * 7 + (i >> 8))
let relay: Relay | undefined
let origin = ""

beforeAll(async () => {
  relay = await createRelay(loadConfig({ flags: { listen: "127.0.0.1:0", data }, env: {} }))
  origin = (await relay.start()).url
})
afterAll(async () => {
  await relay?.stop()
  rmSync(work, { recursive: true, force: true })
})

function storedBody(id: string): Uint8Array {
  const names = readdirSync(path.join(data, "store"), { recursive: true, encoding: "utf8" })
  const parts = names
    .filter((name) => name.includes(id))
    .flatMap((name) => {
      const index = /\/p(\d+)-[0-9a-f]{64}$/.exec(name)?.[1]
      return index === undefined ? [] : [{ name, index: Number(index) }]
    })
    .toSorted((a, b) => a.index - b.index)
  return concatBytes(...parts.map(({ name }) => readFileSync(path.join(data, "store", name))))
}

test("megajs opens and verifies every file cut out of a stored body", async () => {
  const identity = await createIdentity()
  const state = openState(path.join(work, "state"))
  const { address } = await registerInbox({ identity, relay: origin, state })
  const source = path.join(work, "source")
  mkdirSync(source)
  for (const size of sizes) writeFileSync(path.join(source, `${size}.bin`), content(size))
  const sent = await send({
    recipients: [address],
    relay: origin,
    sources: [{ kind: "path", path: source }],
    state,
  })
  const id = sent.deliveries[0]?.id ?? ""
  const body = storedBody(id)
  const inbox = await openInbox({ identity, relay: origin, state })
  const { manifest } = await inbox.open(id)
  inbox.close()

  const opened: number[] = []
  for (const entry of manifest.entries) {
    if (entry.type !== "file") continue
    const slice = body.subarray(entry.bodyOffset, entry.bodyOffset + entry.size)
    const stream: Transform = decrypt(Buffer.from(composeMegaKey(entry)))
    stream.end(Buffer.from(slice))
    // It ends with an error when its MAC does not match.
    const plaintext = await buffer(stream)
    expect(Buffer.compare(plaintext, content(entry.size))).toBe(0)
    opened.push(entry.size)
  }
  expect(opened.toSorted((a, b) => a - b)).toEqual(sizes)
})
