// Clients of a relay that is rebuilding its index: they say that they wait, and go on by themselves.
import { EventEmitter, once } from "node:events"
import { rmSync } from "node:fs"
import path from "node:path"
import {
  createIdentity,
  openInbox,
  openState,
  type ProgressEvent,
  registerInbox,
  send,
} from "../../client/index.js"
import { createRelay, type Relay, type RelayPorts } from "../../server/index.js"
import { expect, onTestFinished, test } from "vitest"
import { scratchFolder } from "../client/folders.js"
import { FaultyDisk } from "../server/faulty-disk.js"
import { configFor } from "../server/relay-under-test.js"

class Gate {
  readonly #events = new EventEmitter()
  readonly passed: Promise<unknown> = once(this.#events, "open")

  open(): void {
    this.#events.emit("open")
  }
}

const writeLog = (): void => undefined

async function* pieces(text: string): AsyncGenerator<Uint8Array> {
  yield new TextEncoder().encode(text)
}

test("sending and listing wait for the index of the relay, say so, and go on by themselves", async () => {
  const folder = scratchFolder()
  const data = path.join(folder, "relay")
  const identity = await createIdentity()
  let relay: Relay | undefined
  let port = 0
  const start = async (ports: RelayPorts): Promise<string> => {
    const listen = { host: "127.0.0.1", port }
    relay = await createRelay(configFor(data, { listen, publicOrigins: [] }), {
      writeLog,
      ...ports,
    })
    const { url } = await relay.start()
    port = Number(new URL(url).port)
    return url
  }
  onTestFinished(async () => relay?.stop())

  const origin = await start({})
  const owner = openState(path.join(folder, "owner"))
  const sender = openState(path.join(folder, "sender"))
  await registerInbox({ identity, relay: origin, state: owner })
  const letter = (text: string) => ({
    recipients: [identity.bundle.address],
    relay: origin,
    state: sender,
    sources: [{ kind: "stream", name: "letter.txt", stream: pieces(text) } as const],
  })
  const { deliveries } = await send(letter("before"))

  await relay?.stop()
  rmSync(path.join(data, "index"), { recursive: true })
  const disk = new FaultyDisk()
  const rebuilding = new Gate()
  const list = disk.list.bind(disk)
  disk.list = async (where) => {
    if (where.endsWith("spool")) await rebuilding.passed
    return list(where)
  }
  onTestFinished(() => rebuilding.open())
  await start({ disk })

  const waits = new Map<string, string[]>()
  const bothWait = new Gate()
  const noteWaits = (who: string) => (event: ProgressEvent) => {
    if (event.kind !== "retry") return
    waits.set(who, [...(waits.get(who) ?? []), event.reason])
    if (waits.size === 2) bothWait.open()
  }
  const sent = send({ ...letter("meanwhile"), onProgress: noteWaits("sender") })
  const onProgress = noteWaits("recipient")
  const listed = openInbox({ identity, relay: origin, state: owner, onProgress }).then((inbox) =>
    inbox.list({ onProgress }),
  )
  await bothWait.passed
  for (const reasons of waits.values()) {
    expect(reasons[0]).toMatch(/index/)
  }
  rebuilding.open()
  expect((await sent).deliveries).toHaveLength(1)
  const ids = (await listed).map(({ id }) => id)
  expect(ids).toContain(deliveries[0]?.id)
}, 30_000)
