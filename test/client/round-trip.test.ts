import path from "node:path"
import { beforeAll, describe, expect, onTestFinished, test } from "vitest"
import { openInbox, openState, send } from "../../client/index.js"
import { createIdentity, type Identity } from "../../protocol/index.js"
import { patternBytes, readTree, scratchFolder, writeTree } from "./folders.js"
import { SmallRelay } from "./small-relay.js"

let identity: Identity
beforeAll(async () => {
  identity = await createIdentity()
})

async function relayWithInbox(): Promise<SmallRelay> {
  const relay = await new SmallRelay().start()
  onTestFinished(() => relay.stop())
  relay.addInbox(identity.bundle)
  return relay
}

describe("sending and receiving", () => {
  test("a tree comes back as it was", async () => {
    const relay = await relayWithInbox()
    const folder = scratchFolder()
    const files = {
      "photos/one.jpg": patternBytes(300_000, 1),
      "photos/empty": new Uint8Array(0),
      "photos/deep/er/two.bin": patternBytes(1_500_000, 2),
      "photos/empty folder": undefined,
      "photos/ünï/☃.txt": patternBytes(17, 3),
    }
    writeTree(folder, files)
    const sent = await send({
      recipients: [`${identity.bundle.address}@${relay.host}`],
      sources: [{ kind: "path", path: path.join(folder, "photos") }],
      note: "hello",
      state: openState(path.join(folder, "sender")),
    })
    const inbox = await openInbox({
      identity,
      relay: relay.origin,
      state: openState(path.join(folder, "owner")),
    })
    const rows = await inbox.list()
    expect(rows).toMatchObject([{ id: sent.deliveries[0]?.id, note: "hello", isNew: true }])
    const into = path.join(folder, "out")
    const received = await inbox.receive(rows[0]?.id ?? "", { into })
    inbox.close()
    expect(received).toMatchObject({ failed: [], files: 4, paths: [path.join(into, "photos")] })
    expect(readTree(path.join(into, "photos"))).toEqual(readTree(path.join(folder, "photos")))
    expect(readTree(into)).not.toHaveProperty(`.knothole-${rows[0]?.id}`)
  })
})
