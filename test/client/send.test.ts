import {
  appendFileSync,
  copyFileSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs"
import path from "node:path"
import { describe, expect, test } from "vitest"
import {
  deliveryStatus,
  DeliveryGone,
  forgetSent,
  listSent,
  Locked,
  openState,
  type ProgressEvent,
  revokeDelivery,
  SourceUnusable,
  UnknownInbox,
  Untrustworthy,
} from "../../client/index.js"
import {
  createIdentity,
  gridCount,
  KIB,
  MIB,
  paddedBodyLength,
  parseHeader,
  RelayRefusal,
  verifyReceipt,
  ed25519PublicKey,
} from "../../protocol/index.js"
import { digest, patternBytes, readTree, scratchFolder, writeTree } from "./folders.js"
import { type Setting, makeSetting } from "./setting.js"
import { type Asked, found, refusalAnswer } from "./small-relay.js"

const size = 3 * MIB + 17

function aFile(setting: Setting, content: Uint8Array = patternBytes(size, 5)) {
  const file = path.join(setting.folder, "file.bin")
  writeFileSync(file, content)
  return { sources: [{ kind: "path", path: file }] as const, file, content }
}

const isPart = ({ method, path: asked }: Asked) => method === "PUT" && asked.includes("/parts/")
const isFinish = ({ path: asked }: Asked) => asked.endsWith("/finish")

function journals(setting: Setting): string[] {
  const folder = path.join(setting.sender.folder, "uploads")
  return readdirSync(folder).map((name) => path.join(folder, name))
}

/** Sends until `enough` parts are acknowledged, then is called off, as by Ctrl-C. */
async function interrupted(
  setting: Setting,
  options: Parameters<Setting["send"]>[0],
  enough: number = 3,
): Promise<void> {
  const stop = new AbortController()
  let parts = 0
  setting.relay.change = (asked, answer) => {
    if (isPart(asked) && ++parts > enough) {
      stop.abort()
      return "hang up"
    }
    return answer
  }
  await expect(setting.send({ parallel: 1, ...options, signal: stop.signal })).rejects.toThrow()
  setting.relay.change = (_, answer) => answer
}

async function received(setting: Setting, id: string, name: string): Promise<string> {
  const inbox = await setting.open()
  const into = path.join(scratchFolder(), "into")
  await inbox.receive(id, { into, keep: true })
  return found(readTree(into)[name])
}

describe("a delivery", () => {
  test("is acknowledged by a receipt that verifies, and remembered", async () => {
    const setting = await makeSetting()
    const { sources } = aFile(setting)
    const sent = await setting.send({ sources, note: "for you" })
    const [receipt] = sent.receipts
    const key = ed25519PublicKey(setting.relay.signSeed)
    expect(verifyReceipt(found(receipt).receipt, key)).toBe(true)
    expect(await listSent(setting.sender)).toMatchObject([{ id: sent.id, contentBytes: size }])
  })

  test("leaves no secret behind", async () => {
    const setting = await makeSetting()
    await setting.send(aFile(setting))
    expect(journals(setting)).toEqual([])
    const record = path.join(setting.sender.folder, "sent")
    for (const name of readdirSync(record)) {
      expect(statSync(path.join(record, name)).mode & 0o777).toBe(0o600)
    }
  })

  test("may be a note alone", async () => {
    const setting = await makeSetting()
    const sent = await setting.send({ note: "nothing but words" })
    expect(sent).toMatchObject({ entries: 0, contentBytes: 0 })
    expect(await (await setting.open()).list()).toMatchObject([{ note: "nothing but words" }])
  })

  test("of nothing at all is a mistake", async () => {
    const setting = await makeSetting()
    await expect(setting.send({})).rejects.toThrow(RangeError)
    await expect(setting.send({ note: "x".repeat(16 * KIB + 1) })).rejects.toThrow(SourceUnusable)
  })

  test("goes to several recipients as one body, and to one named twice once", async () => {
    const setting = await makeSetting()
    const other = await createIdentity()
    setting.relay.addInbox(other.bundle)
    const { address, relay } = setting
    const second = `http://${relay.host}/to/${other.bundle.address}`
    const sent = await setting.send({ ...aFile(setting), recipients: [address, second, address] })
    expect(sent.addresses).toEqual([setting.identity.bundle.address, other.bundle.address])
    const theirs = await setting.open({ identity: other })
    expect(await theirs.list()).toMatchObject([{ id: sent.id, sizeBytes: size }])
    expect(relay.uploads.size).toBe(1)
  })

  test("to an inbox that is not there is refused before anything is sent", async () => {
    const setting = await makeSetting()
    const nobody = (await createIdentity()).bundle.address
    const sending = setting.send({
      ...aFile(setting),
      recipients: [`${nobody}@${setting.relay.host}`],
    })
    await expect(sending).rejects.toThrow(UnknownInbox)
    await expect(sending).rejects.toMatchObject({ address: nobody })
    expect(setting.relay.asked.filter(({ method }) => method !== "GET")).toEqual([])
  })

  test("can be asked about, revoked and forgotten by its sender", async () => {
    const setting = await makeSetting()
    const { id } = await setting.send(aFile(setting))
    const state = setting.sender
    expect((await deliveryStatus({ id, state })).recipients).toMatchObject([{ state: "waiting" }])
    await revokeDelivery({ id, state })
    expect((await deliveryStatus({ id, state })).recipients).toMatchObject([{ state: "taken" }])
    await forgetSent({ id, state })
    await expect(deliveryStatus({ id, state })).rejects.toThrow(DeliveryGone)
    expect(await listSent(state)).toEqual([])
  })

  test("is forgotten together with the journal that a crash behind its receipt left", async () => {
    const setting = await makeSetting()
    const aside = path.join(setting.folder, "aside")
    let journal = ""
    setting.relay.change = (asked, answer) => {
      if (isFinish(asked)) {
        journal = found(journals(setting).find((name) => !name.endsWith(".lock")))
        copyFileSync(journal, aside)
      }
      return answer
    }
    const { id } = await setting.send(aFile(setting))
    copyFileSync(aside, journal)
    const state = setting.sender
    expect(await forgetSent({ id: "0".repeat(32), state })).toBe(false)
    expect(journals(setting)).toEqual([journal])
    expect(await forgetSent({ id, state })).toBe(true)
    expect(journals(setting)).toEqual([])
    expect(await forgetSent({ id, state })).toBe(false)
  })

  test("whose receipt is of another key is not believed", async () => {
    const setting = await makeSetting()
    setting.relay.change = (asked, answer) => {
      if (!isFinish(asked)) return answer
      const body = Buffer.from(answer.body)
        .toString()
        .replace(/"receipt":"(.)/, '"receipt":"B')
      return { ...answer, body: Buffer.from(body) }
    }
    await expect(setting.send(aFile(setting))).rejects.toThrow(Untrustworthy)
  })

  test("that the relay finishes under the id of another is not believed", async () => {
    const setting = await makeSetting()
    const { id } = await setting.send({ note: "one" })
    setting.relay.change = (asked, answer) => {
      if (!isFinish(asked)) return answer
      const body = Buffer.from(answer.body)
        .toString()
        .replace(/"id":"\w+"/, `"id":"${id}"`)
      return { ...answer, body: Buffer.from(body) }
    }
    const sent = path.join(setting.sender.folder, "sent", id)
    const record = readFileSync(sent)
    await expect(setting.send({ note: "two" })).rejects.toThrow(Untrustworthy)
    expect(readFileSync(sent)).toEqual(record)
  })

  test("never takes the place of the record of one that was sent before", async () => {
    const setting = await makeSetting()
    const folder = path.join(setting.sender.folder, "sent")
    const { id } = await setting.send({ note: "one" })
    const record = readFileSync(path.join(folder, id))
    let taken = ""
    setting.relay.change = (asked, answer) => {
      if (!isFinish(asked)) return answer
      taken = path.join(folder, found(asked.path.split("/")[3]))
      copyFileSync(path.join(folder, id), taken)
      return answer
    }
    await expect(setting.send({ note: "two" })).rejects.toThrow(/the id \w+ of one sent before/)
    expect(readFileSync(taken)).toEqual(record)
  })

  test("of which the relay stored other bytes is not believed", async () => {
    const setting = await makeSetting()
    setting.relay.change = (asked, answer) => {
      if (!isPart(asked)) return answer
      const leaves = Buffer.alloc(32).toString("base64url")
      return { ...answer, body: Buffer.from(JSON.stringify({ leaves })) }
    }
    await expect(setting.send(aFile(setting))).rejects.toThrow(/stored something else/)
  })
})

describe("requests", () => {
  test("carry as many parts as the relay takes at once", async () => {
    const setting = await makeSetting()
    setting.relay.requestBytes = 4 * MIB
    await setting.send({ ...aFile(setting), parallel: 1 })
    const parts = setting.relay.asked.filter(isPart)
    const bytes = parts.reduce((sum, { body }) => sum + body.length, 0)
    expect(bytes).toBe(paddedBodyLength(size))
    expect(parts.length).toBeLessThan(gridCount(paddedBodyLength(size)))
  })

  test("shrink to 1 MiB, with a notice, when a proxy refuses larger ones", async () => {
    const setting = await makeSetting()
    setting.relay.requestBytes = 4 * MIB
    const told: ProgressEvent[] = []
    setting.relay.change = (asked, answer) =>
      asked.body.length > MIB
        ? { status: 413, headers: {}, body: Buffer.from("too large") }
        : answer
    const { content, ...options } = aFile(setting, patternBytes(7 * MIB - 1000, 1))
    const sent = await setting.send({ ...options, onProgress: (event) => told.push(event) })
    expect(told.filter(({ kind }) => kind === "notice")).toHaveLength(1)
    expect(await received(setting, sent.id, "file.bin")).toBe(digest(content))
  })

  test("are half as many at a time after the line was too slow for them, with a notice", async () => {
    const setting = await makeSetting()
    const told: ProgressEvent[] = []
    const tooSlow = new RelayRefusal("too_slow")
    let asked = 0
    let open = 0
    let mostLater = 0
    setting.relay.change = async (request, answer) => {
      if (!isPart(request)) return answer
      const turn = ++asked
      open++
      if (turn > 4) mostLater = Math.max(mostLater, open)
      // Long enough for others to come at the same time, if they may.
      await new Promise((resolve) => setTimeout(resolve, 20))
      open--
      return turn <= 4 ? refusalAnswer(tooSlow) : answer
    }
    const { content, ...options } = aFile(setting, patternBytes(7 * MIB - 1000, 1))
    const sent = await setting.send({ ...options, onProgress: (event) => told.push(event) })
    expect(mostLater).toBeLessThanOrEqual(2)
    expect(told.flatMap((event) => (event.kind === "notice" ? [event.text] : []))).toContain(
      "the line or the relay is slow; going on with 2 requests at a time",
    )
    expect(await received(setting, sent.id, "file.bin")).toBe(digest(content))
  })

  test("that are lost are repeated, and nothing is missing", async () => {
    const setting = await makeSetting()
    let asked = 0
    setting.relay.change = (_, answer) => (++asked % 3 === 0 ? "hang up" : answer)
    const { content, sources } = aFile(setting)
    const sent = await setting.send({ sources })
    setting.relay.change = (_, answer) => answer
    expect(await received(setting, sent.id, "file.bin")).toBe(digest(content))
  })

  test("for parts that the relay lost before the finish are made again", async () => {
    const setting = await makeSetting()
    const { content, sources } = aFile(setting)
    let lost = false
    setting.relay.change = (asked, answer) => {
      // Seen before the answer to the last part goes out, so the finish meets a gap.
      if (isPart(asked) && !lost && asked.path.endsWith("/4")) {
        lost = true
        for (const upload of setting.relay.uploads.values()) upload.parts.delete(4)
      }
      return answer
    }
    const sent = await setting.send({ sources })
    expect(lost).toBe(true)
    expect(await received(setting, sent.id, "file.bin")).toBe(digest(content))
  })
})

describe("run again after an interruption", () => {
  test("it sends what is missing and nothing twice", async () => {
    const setting = await makeSetting()
    const { sources, content } = aFile(setting)
    await interrupted(setting, { sources }, 2)
    const before = setting.relay.asked.filter(isPart).map((asked) => asked.path)
    const sent = await setting.send({ sources, parallel: 1 })
    const parts = setting.relay.asked.filter(isPart).map((asked) => asked.path)
    // The one that was on the wire when it was called off.
    expect(parts.length - new Set(parts).size).toBeLessThanOrEqual(1)
    expect(before.length).toBeGreaterThan(2)
    expect(sent).toMatchObject({ resumed: true })
    expect(sent.sentBytes).toBeLessThan(paddedBodyLength(size))
    expect(await received(setting, sent.id, "file.bin")).toBe(digest(content))
    expect(setting.relay.uploads.size).toBe(1)
  })

  test("it tells how much was there already", async () => {
    const setting = await makeSetting()
    const { sources } = aFile(setting)
    await interrupted(setting, { sources }, 2)
    const [upload] = setting.relay.uploads.values()
    const there = [...found(upload).parts.values()].reduce((sum, part) => sum + part.length, 0)
    const told: ProgressEvent[] = []
    await setting.send({ sources, onProgress: (event) => told.push(event) })
    const first = told.find((event) => event.kind === "bytes")
    expect(first).toMatchObject({ total: paddedBodyLength(size) })
    expect(first).toHaveProperty("alreadyThere", there)
    expect(there).toBeGreaterThan(0)
  })

  test("a torn last record of the journal is ignored", async () => {
    const setting = await makeSetting()
    const { sources, content } = aFile(setting)
    await interrupted(setting, { sources }, 2)
    const [journal] = journals(setting)
    appendFileSync(found(journal), Buffer.from([0, 0, 0, 36, 5, 1, 2, 3]))
    const sent = await setting.send({ sources })
    expect(sent.resumed).toBe(true)
    expect(await received(setting, sent.id, "file.bin")).toBe(digest(content))
  })

  test("cut off before the answer to the start, it begins the same upload", async () => {
    const setting = await makeSetting()
    const { sources } = aFile(setting)
    const stop = new AbortController()
    setting.relay.change = (asked, answer) => {
      if (asked.path !== "/v1/uploads") return answer
      stop.abort()
      return "hang up"
    }
    await expect(setting.send({ sources, signal: stop.signal })).rejects.toThrow()
    setting.relay.change = (_, answer) => answer
    await setting.send({ sources })
    expect(setting.relay.uploads.size).toBe(1)
  })

  test("cut off before the receipt came, it gets the same receipt without sending a part", async () => {
    const setting = await makeSetting()
    const { sources } = aFile(setting)
    const stop = new AbortController()
    setting.relay.change = (asked, answer) => {
      if (!isFinish(asked)) return answer
      stop.abort()
      return "hang up"
    }
    await expect(setting.send({ sources, signal: stop.signal })).rejects.toThrow()
    setting.relay.change = (_, answer) => answer
    const sent = await setting.send({ sources })
    expect(sent).toMatchObject({ resumed: true, sentBytes: 0 })
    expect(sent.receipts).toEqual(setting.relay.delivery(sent.id).receipts)
    expect(await (await setting.open()).list()).toHaveLength(1)
  })

  test("at a relay that forgot the upload, it starts over and says so", async () => {
    const setting = await makeSetting()
    const { sources, content } = aFile(setting)
    await interrupted(setting, { sources }, 2)
    setting.relay.uploads.clear()
    const told: ProgressEvent[] = []
    const sent = await setting.send({ sources, onProgress: (event) => told.push(event) })
    expect(told).toContainEqual({
      kind: "notice",
      text: "the relay no longer holds the interrupted upload; starting over with fresh keys",
    })
    expect(await received(setting, sent.id, "file.bin")).toBe(digest(content))
  })

  test("asked to start afresh, it gives the old upload up", async () => {
    const setting = await makeSetting()
    const { sources } = aFile(setting)
    await interrupted(setting, { sources }, 2)
    const [old] = setting.relay.uploads.keys()
    const sent = await setting.send({ sources, fresh: true })
    expect(sent.resumed).toBe(false)
    expect(setting.relay.uploads.has(found(old))).toBe(false)
  })

  test("a changed note or recipient is another sending", async () => {
    const setting = await makeSetting()
    const { sources } = aFile(setting)
    await interrupted(setting, { sources, note: "one" }, 2)
    expect(await setting.send({ sources, note: "two" })).toMatchObject({ resumed: false })
    expect(await setting.send({ sources, note: "one" })).toMatchObject({ resumed: true })
  })

  test("a folder that has more files now is sent as it was listed at first, and they are named", async () => {
    const setting = await makeSetting()
    const folder = writeTree(path.join(setting.folder, "in"), { b: patternBytes(size, 1) })
    const sources = [{ kind: "path", path: folder }] as const
    await interrupted(setting, { sources }, 2)
    writeTree(folder, { a: patternBytes(10, 2), "sub/c": patternBytes(10, 2) })
    const told: ProgressEvent[] = []
    const sent = await setting.send({ sources, onProgress: (event) => told.push(event) })
    const added = ["a", "sub", "sub/c"].map((name) => path.join(folder, name))
    expect(sent).toMatchObject({ resumed: true, entries: 2, addedLater: added })
    for (const name of added) {
      expect(told).toContainEqual({
        kind: "notice",
        text: `not included, added after this sending began: ${name}`,
      })
    }
    expect(await received(setting, sent.id, "in/b")).toBe(digest(patternBytes(size, 1)))
  })

  test("a folder that lost a file since is sent anew", async () => {
    const setting = await makeSetting()
    const files = { a: patternBytes(10, 1), b: patternBytes(size, 1) }
    const folder = writeTree(path.join(setting.folder, "in"), files)
    const sources = [{ kind: "path", path: folder }] as const
    await interrupted(setting, { sources }, 2)
    rmSync(path.join(folder, "a"))
    expect(await setting.send({ sources })).toMatchObject({ resumed: false, entries: 2 })
  })

  test("what is neither file nor folder is left out with a notice each, up to twenty", async () => {
    const setting = await makeSetting()
    const folder = writeTree(path.join(setting.folder, "in"), { a: patternBytes(10, 1) })
    for (let i = 10; i < 35; i++) symlinkSync("a", path.join(folder, `link${i}`))
    const told: string[] = []
    await setting.send({
      sources: [{ kind: "path", path: folder }],
      onProgress: (event) => event.kind === "notice" && told.push(event.text),
    })
    expect(told).toHaveLength(21)
    expect(told[0]).toBe(`left out: ${path.join(folder, "link10")} (a symbolic link)`)
    expect(told.at(-1)).toBe("left out: 5 more")
  })

  test("many small files come back, whichever of them were under way", async () => {
    const setting = await makeSetting()
    const files = Object.fromEntries(
      Array.from({ length: 300 }, (_, i) => [`in/${i % 7}/${i}`, patternBytes(20_000 + i, i)]),
    )
    writeTree(setting.folder, files)
    const sources = [{ kind: "path", path: path.join(setting.folder, "in") }] as const
    for (const enough of [1, 2, 3]) await interrupted(setting, { sources }, enough)
    const sent = await setting.send({ sources })
    expect(sent.resumed).toBe(true)
    const into = scratchFolder()
    await (await setting.open()).receive(sent.id, { into })
    expect(readTree(path.join(into, "in"))).toEqual(readTree(path.join(setting.folder, "in")))
  })

  test("two at once: the second is told who is at it", async () => {
    const setting = await makeSetting()
    const { sources } = aFile(setting)
    let second: Promise<unknown> | undefined
    setting.relay.change = async (asked, answer) => {
      if (isPart(asked))
        await (second ??= setting.send({ sources }).catch((error: unknown) => error))
      return answer
    }
    await setting.send({ sources })
    expect(await second).toBeInstanceOf(Locked)
  })
})

describe("a source that changes", () => {
  test("between listing and reading is named", async () => {
    const setting = await makeSetting()
    const { sources, file } = aFile(setting)
    setting.relay.change = (asked, answer) => {
      if (asked.path === "/v1/uploads") truncateSync(file, 100)
      return answer
    }
    await expect(setting.send({ sources })).rejects.toMatchObject({
      name: "SourceChanged",
      path: file,
    })
    expect(setting.relay.uploads.size).toBe(0)
    expect(setting.relay.asked.filter(isPart)).toEqual([])
  })
})

async function* pieces(content: Uint8Array, length: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < content.length; at += length) {
    yield content.subarray(at, Math.min(at + length, content.length))
  }
}

function aStream(length: number) {
  return { kind: "stream", name: "s", stream: pieces(patternBytes(length, 0), MIB) } as const
}

describe("a stream", () => {
  test("of unknown length is sent as it comes", async () => {
    for (const [length, piece] of [
      [0, 1],
      [1, 1],
      [200_000, 777],
      [128 * KIB, 128 * KIB],
      [5 * MIB + 3, 65_536],
    ] as const) {
      const setting = await makeSetting()
      const content = patternBytes(length, 9)
      const stream = pieces(content, piece)
      const sent = await setting.send({ sources: [{ kind: "stream", name: "stdin", stream }] })
      expect(sent).toMatchObject({ contentBytes: length, entries: 1 })
      const { bodyLength } = parseHeader(setting.relay.delivery(sent.id).header)
      expect(bodyLength).toBe(paddedBodyLength(length))
      expect(await received(setting, sent.id, "stdin")).toBe(digest(content))
    }
  })

  test("may follow files", async () => {
    const setting = await makeSetting()
    const { sources, content } = aFile(setting, patternBytes(300_001, 3))
    const streamed = patternBytes(400_000, 4)
    const stream = { kind: "stream", name: "more", stream: pieces(streamed, 1000) } as const
    const sent = await setting.send({ sources: [stream, ...sources] })
    expect(await received(setting, sent.id, "more")).toBe(digest(streamed))
    expect(await received(setting, sent.id, "file.bin")).toBe(digest(content))
  })

  test("beyond its first reservation gets more, and beyond the relay's limit is refused", async () => {
    const setting = await makeSetting()
    setting.relay.deliveryBytes = 6 * MIB
    await setting.send({ sources: [aStream(5 * MIB)] })
    const long = setting.send({ sources: [aStream(8 * MIB)] })
    await expect(long).rejects.toThrow(RelayRefusal)
    await expect(long).rejects.toMatchObject({ code: "too_large", extras: { limit: 6 * MIB } })
  })

  test("that breaks fails the sending with its own error", async () => {
    const setting = await makeSetting()
    const broken = new Error("the pipe broke")
    async function* breaking(): AsyncGenerator<Uint8Array> {
      yield patternBytes(300_000, 0)
      throw broken
    }
    const sources = [{ kind: "stream", name: "s", stream: breaking() }] as const
    await expect(setting.send({ sources })).rejects.toBe(broken)
  })

  test("that never ends does not hold up being called off", async () => {
    const setting = await makeSetting()
    const stop = new AbortController()
    async function* endless(): AsyncGenerator<Uint8Array> {
      yield patternBytes(300_000, 0)
      stop.abort()
      await new Promise(() => undefined)
    }
    const sources = [{ kind: "stream", name: "s", stream: endless() }] as const
    await expect(setting.send({ sources, signal: stop.signal })).rejects.toThrow("aborted")
  })
})

describe("a full relay", () => {
  test("is told apart from a full disk here", async () => {
    const setting = await makeSetting()
    setting.relay.change = (asked, answer) =>
      isPart(asked) ? refusalAnswer(new RelayRefusal("relay_full")) : answer
    const sending = setting.send({ ...aFile(setting), state: openState(scratchFolder()) })
    await expect(sending).rejects.toMatchObject({ name: "DiskFull", machine: "relay" })
  })
})
