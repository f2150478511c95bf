// The built library against a real relay on loopback: large enough for threads, long enough to be cut
// off. What needs a hand in the relay's answers is in test/client and test/hostile.
import { appendFileSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import path from "node:path"
import {
  createIdentity,
  deliveryStatus,
  type Identity,
  openInbox,
  openState,
  type ProgressEvent,
  registerInbox,
  revokeDelivery,
  send,
  type SendOptions,
  type SentDelivery,
  SourceChanged,
} from "knothole/client"
import { createRelay, loadConfig, type Relay } from "knothole/server"
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest"
import {
  digest,
  patternBytes,
  readTree,
  scratchFolder,
  treeOf,
  writeTree,
} from "../client/folders.js"

const MIB = 1024 * 1024
let identity: Identity
let relay: Relay
let origin = ""
let data = ""
let folder = ""

async function startRelay(port: number): Promise<void> {
  const flags = { listen: `127.0.0.1:${port}`, data, "request-size": "4MiB" }
  relay = await createRelay(loadConfig({ flags: renamed(flags), env: {} }))
  origin = (await relay.start()).url
}

/** The table of settings names them without dashes. */
function renamed(flags: Record<string, string>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(flags).map(([name, value]) => [
      name.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase()),
      value,
    ]),
  )
}

beforeAll(async () => {
  data = path.join(process.env["TMPDIR"] ?? "/tmp", `knothole-library-${process.pid}`)
  await startRelay(0)
  identity = await createIdentity()
})
afterAll(async () => {
  await relay.stop()
  rmSync(data, { recursive: true, force: true })
})
beforeEach(async () => {
  folder = scratchFolder()
  await registerInbox({ identity, relay: origin, state: openState(path.join(folder, "owner")) })
})

async function sendHere(options: Partial<SendOptions>): Promise<SentDelivery> {
  const { deliveries } = await send({
    recipients: [identity.bundle.address],
    relay: origin,
    sources: [],
    state: openState(path.join(folder, "sender")),
    ...options,
  })
  const [delivery] = deliveries
  if (delivery === undefined) throw new Error("there is one relay")
  return delivery
}

async function receiveHere(
  id: string,
  options: { signal?: AbortSignal; onProgress?: (event: ProgressEvent) => void } = {},
) {
  const inbox = await openInbox({
    identity,
    relay: origin,
    state: openState(path.join(folder, "owner")),
  })
  try {
    return await inbox.receive(id, { into: path.join(folder, "into"), ...options })
  } finally {
    inbox.close()
  }
}

/** Aborts once that many bytes have been done in this run. */
function abortAfter(bytes: number) {
  const stop = new AbortController()
  const onProgress = (event: ProgressEvent) => {
    if (event.kind === "bytes" && event.done - event.alreadyThere >= bytes) stop.abort()
  }
  return { signal: stop.signal, onProgress }
}

function largeTree(): Record<string, Uint8Array | undefined> {
  const small = Array.from({ length: 400 }, (_, i): [string, Uint8Array] => [
    `in/many/${i % 10}/file ${i}`,
    patternBytes(i * 97, i),
  ])
  return {
    ...Object.fromEntries(small),
    "in/large": patternBytes(23 * MIB + 1, 1),
    "in/other": patternBytes(9 * MIB - 1, 2),
    "in/none": new Uint8Array(0),
    "in/empty": undefined,
  }
}

describe("a tree of 50 MiB", () => {
  test("comes back as it was, and leaves nothing behind on either side", async () => {
    const files = largeTree()
    writeTree(folder, files)
    const sent = await sendHere({ sources: [{ kind: "path", path: path.join(folder, "in") }] })
    const received = await receiveHere(sent.id)
    expect(received).toMatchObject({ failed: [], resumed: false, bytes: sent.contentBytes })
    const tree = readTree(path.join(folder, "into"))
    expect(tree).toMatchObject(treeOf(files))
    expect(tree).toEqual(prefixed(readTree(path.join(folder, "in"))))
    // Small records stay for the sender's status, and unlinking goes on behind the answer.
    const left = readdirSync(data, { recursive: true, encoding: "utf8" })
    const parts = left.filter((name) =>
      /^(store|spool)\/.*\/(p[0-9]+-|manifest|envelope)/.test(name),
    )
    expect(parts).toEqual([])
    expect(readdirSync(path.join(folder, "into"))).toEqual(["in"])
  })

  test("comes back as it was although both sides are cut off again and again", async () => {
    const files = largeTree()
    writeTree(folder, files)
    const sources = [{ kind: "path", path: path.join(folder, "in") }] as const
    let sentBytes = 0
    for (const bytes of [2 * MIB, 4 * MIB]) {
      await expect(sendHere({ sources, ...abortAfter(bytes) })).rejects.toThrow("aborted")
      sentBytes += bytes
    }
    const sent = await sendHere({ sources })
    expect(sent.resumed).toBe(true)
    // What the cut-offs left done is not sent again.
    expect(sent.sentBytes).toBeLessThanOrEqual(sent.contentBytes * 1.05 - sentBytes)
    for (const bytes of [2 * MIB, 4 * MIB]) {
      await expect(receiveHere(sent.id, abortAfter(bytes))).rejects.toThrow("aborted")
    }
    const received = await receiveHere(sent.id)
    expect(received.resumed).toBe(true)
    expect(received.fetchedBytes).toBeLessThan(sent.contentBytes - MIB)
    const tree = readTree(path.join(folder, "into"))
    expect(tree).toEqual(prefixed(readTree(path.join(folder, "in"))))
  })

  test("comes back as it was although the relay was restarted in the middle of both ways", async () => {
    const files = { in: patternBytes(40 * MIB + 5, 3) }
    writeTree(folder, files)
    const port = Number(new URL(origin).port)
    const restartOnce = () => {
      let restarted: Promise<void> | undefined
      const onProgress = (event: ProgressEvent) => {
        if (event.kind !== "bytes" || event.done < 8 * MIB) return
        restarted ??= relay.stop().then(() => startRelay(port))
      }
      return { onProgress, ended: () => restarted }
    }
    const up = restartOnce()
    const sources = [{ kind: "path", path: path.join(folder, "in") }] as const
    const sent = await sendHere({ sources, onProgress: up.onProgress })
    await up.ended()
    expect(up.ended()).toBeDefined()
    const down = restartOnce()
    await receiveHere(sent.id, { onProgress: down.onProgress })
    await down.ended()
    expect(down.ended()).toBeDefined()
    expect(readTree(path.join(folder, "into"))).toEqual(treeOf(files))
  })
})

function prefixed(tree: ReturnType<typeof readTree>): ReturnType<typeof readTree> {
  const entries = Object.entries(tree).map(([name, value]) => [`in/${name}`, value])
  return { in: undefined, ...Object.fromEntries(entries) }
}

describe("a source", () => {
  test("that grows while it is sent is named, and nothing of it is delivered", async () => {
    const file = path.join(folder, "log")
    writeFileSync(file, patternBytes(64 * MIB, 1))
    let grown = false
    const sending = sendHere({
      sources: [{ kind: "path", path: file }],
      onProgress: (event) => {
        if (event.kind !== "bytes" || event.done === 0 || grown) return
        grown = true
        appendFileSync(file, "one more line\n")
      },
    })
    await expect(sending).rejects.toThrow(SourceChanged)
    await expect(sending).rejects.toMatchObject({ path: file })
    // Nor is it resumed: left alone now, it goes as a whole.
    const sent = await sendHere({ sources: [{ kind: "path", path: file }] })
    expect(sent).toMatchObject({ resumed: false, contentBytes: 64 * MIB + 14 })
    await receiveHere(sent.id)
    const into = readTree(path.join(folder, "into"))
    expect(into).toEqual({ log: digest(readFileSync(file)) })
  })

  test("that is a stream longer than its first reservation arrives whole", async () => {
    const content = patternBytes(80 * MIB + 11, 8)
    async function* pieces(): AsyncGenerator<Uint8Array> {
      for (let at = 0; at < content.length; at += 300_000) yield content.subarray(at, at + 300_000)
    }
    const sent = await sendHere({ sources: [{ kind: "stream", name: "stdin", stream: pieces() }] })
    expect(sent.contentBytes).toBe(content.length)
    await receiveHere(sent.id)
    expect(readTree(path.join(folder, "into"))).toEqual({ stdin: digest(content) })
  })
})

describe("a sender", () => {
  test("learns what became of a delivery, and can take it back", async () => {
    const state = openState(path.join(folder, "sender"))
    const [one, two] = [await sendHere({ note: "one" }), await sendHere({ note: "two" })]
    const stateOf = async (id: string) => (await deliveryStatus({ id, state })).recipients[0]?.state
    expect(await stateOf(one.id)).toBe("waiting")
    await receiveHere(one.id)
    expect(await stateOf(one.id)).toBe("taken")
    await revokeDelivery({ id: two.id, state })
    expect(await stateOf(two.id)).toBe("revoked")
    await expect(receiveHere(two.id)).rejects.toMatchObject({ name: "DeliveryGone" })
  })
})
