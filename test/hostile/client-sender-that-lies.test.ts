/** T10, T13, T54: a sender who seals something else than the manifest says. */
import { chmodSync, mkdirSync, readdirSync, writeFileSync } from "node:fs"
import path from "node:path"
import { describe, expect, test } from "vitest"
import { DestinationExists, Untrustworthy } from "../../client/index.js"
import { startReceiveJournal } from "../../client/receive-journal.js"
import { concatBytes, headerHash, MIB, OpenError } from "../../protocol/index.js"
import { digest, patternBytes, readTree, treeOf } from "../client/folders.js"
import { makeDelivery } from "../client/made-delivery.js"
import { makeSetting } from "../client/setting.js"

const files = {
  first: patternBytes(400_000, 1),
  spoilt: patternBytes(2 * MIB, 2),
  last: patternBytes(100, 3),
}

/** Flips a bit in the MAC of one chunk of "spoilt". */
async function spoiltDelivery(chunk: number) {
  const setting = await makeSetting()
  const made = await makeDelivery({
    relay: setting.relay,
    recipient: setting.identity.bundle,
    files,
    change: ([first, spoilt, last]) => {
      if (!first || !spoilt || !last) throw new Error("there are three")
      const chunkMacs = spoilt.chunkMacs.map((byte, at) => (at === 16 * chunk ? byte ^ 1 : byte))
      return [first, { ...spoilt, chunkMacs }, last]
    },
  })
  return { setting, made, inbox: await setting.open(), into: path.join(setting.folder, "into") }
}

describe("T10 a chunk whose MAC is wrong", () => {
  for (const chunk of [0, 2, 5]) {
    test(`fails its file and no other (chunk ${chunk})`, async () => {
      const { setting, made, inbox, into } = await spoiltDelivery(chunk)
      const result = await inbox.receive(made.id, { into })
      expect(result.failed).toMatchObject([{ path: "spoilt" }])
      expect(result.files).toBe(2)
      expect(readTree(into)).toEqual(treeOf({ first: files.first, last: files.last }))
      // What cannot be put in place can still be reported, so the relay keeps it.
      expect(setting.relay.asked.some(({ method }) => method === "DELETE")).toBe(false)
    })
  }

  test("fails its file also when it was found before an interruption", async () => {
    const { setting, made, inbox, into } = await spoiltDelivery(5)
    const stop = new AbortController()
    // Called off when everything has been fetched.
    const onProgress = (event: { kind: string; phase?: string }) => {
      if (event.phase === "syncing") stop.abort()
    }
    const cutOff = inbox.receive(made.id, { into, onProgress, signal: stop.signal })
    await expect(cutOff).rejects.toThrow("aborted")
    setting.relay.asked.length = 0
    const result = await inbox.receive(made.id, { into })
    expect(setting.relay.asked.some(({ path: asked }) => asked.endsWith("/body"))).toBe(false)
    expect(result.failed).toMatchObject([{ path: "spoilt" }])
    expect(readdirSync(into).sort()).toEqual(["first", "last"])
  })

  test("T54 is not read from, while the chunks before and after it are", async () => {
    const { made, inbox } = await spoiltDelivery(2)
    const { read } = await inbox.open(made.id)
    const before = await read({ entry: 1, offset: 0, length: 384 * 1024 })
    expect(digest(before)).toBe(digest(files.spoilt.subarray(0, 384 * 1024)))
    const after = await read({ entry: 1, offset: 768 * 1024, length: 1000 })
    expect(digest(after)).toBe(digest(files.spoilt.subarray(768 * 1024, 768 * 1024 + 1000)))
    await expect(read({ entry: 1, offset: 384 * 1024, length: 1 })).rejects.toThrow(OpenError)
    await expect(read({ entry: 1, offset: 0, length: files.spoilt.length })).rejects.toThrow(
      OpenError,
    )
  })
})

test("a time beyond every calendar costs no delivery", async () => {
  const setting = await makeSetting()
  const { id } = await makeDelivery({
    relay: setting.relay,
    recipient: setting.identity.bundle,
    files: { late: files.last },
    change: (entries) => entries.map((e) => ({ ...e, mtimeMs: Number.MAX_SAFE_INTEGER })),
  })
  const into = path.join(setting.folder, "into")
  await (await setting.open()).receive(id, { into, times: true })
  expect(readTree(into)).toEqual(treeOf({ late: files.last }))
})

describe("a delivery that holds a private folder of another one", () => {
  for (const name of [".knothole-0/journal", ".KnotHole-0/tree/contract", ".\u212anothole-0"]) {
    test(`is refused whole (${name})`, async () => {
      const setting = await makeSetting()
      const { relay, identity } = setting
      const planted = { letter: patternBytes(10, 1), [name]: patternBytes(10, 2) }
      const { id } = await makeDelivery({ relay, recipient: identity.bundle, files: planted })
      const into = path.join(setting.folder, "into")
      mkdirSync(into)
      await expect((await setting.open()).receive(id, { into })).rejects.toThrow(Untrustworthy)
      expect(readdirSync(into)).toEqual([])
      expect(relay.asked.some(({ method }) => method === "DELETE")).toBe(false)
    })
  }

  const genuine = { contract: patternBytes(1000, 1) }

  /** A private folder that says: all is fetched and checked, only to be put in place. */
  async function planted(stage: "placing" | "placed") {
    const setting = await makeSetting()
    const { relay, identity } = setting
    const made = await makeDelivery({ relay, recipient: identity.bundle, files: genuine })
    const into = path.join(setting.folder, "into")
    const folder = path.join(into, `.knothole-${made.id}`)
    mkdirSync(path.join(folder, "tree"), { recursive: true })
    chmodSync(folder, 0o700)
    writeFileSync(path.join(folder, "tree/contract"), "forged")
    const start = concatBytes(headerHash(made.header), new Uint8Array(32))
    const journal = await startReceiveJournal(path.join(folder, "journal"), start)
    await journal.notePlacing(["contract"], [])
    if (stage === "placed") await journal.notePlaced()
    await journal.close()
    return { receive: async () => (await setting.open()).receive(made.id, { into }), into, folder }
  }

  test.each(["placing", "placed"] as const)(
    "is not believed, however it got there (%s)",
    async (stage) => {
      const { receive, into } = await planted(stage)
      expect(await receive()).toMatchObject({ resumed: false, files: 1 })
      expect(readTree(into)).toEqual(treeOf(genuine))
    },
  )

  test("is not touched when others may write to it", async () => {
    const { receive, into, folder } = await planted("placing")
    chmodSync(folder, 0o770)
    await expect(receive()).rejects.toThrow(DestinationExists)
    expect(readdirSync(into)).toEqual([path.basename(folder)])
  })
})
