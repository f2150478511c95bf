/** T50: what was sealed once under a key is never sealed again under it with other content. */
import { execFileSync } from "node:child_process"
import { readdirSync, statSync, writeFileSync } from "node:fs"
import path from "node:path"
import { describe, expect, test } from "vitest"
import { reopenLog } from "../../client/append-log.js"
import type { ProgressEvent } from "../../client/index.js"
import {
  concatBytes,
  equalBytes,
  gridLength,
  gridOffset,
  MIB,
  paddedBodyLength,
  random,
  u32,
} from "../../protocol/index.js"
import { digest, patternBytes, readTree } from "../client/folders.js"
import { makeSetting, type Setting } from "../client/setting.js"
import { type Asked, found } from "../client/small-relay.js"

const size = 6 * MIB
const isPart = ({ method, path: asked }: Asked) => method === "PUT" && asked.includes("/parts/")

/** Every part that was ever put on the wire, by upload and index. */
function captured(asked: readonly Asked[]): { upload: string; part: number; bytes: Uint8Array }[] {
  return asked.filter(isPart).flatMap(({ path: asking, body }) => {
    const [, upload = "", first = ""] = /uploads\/([0-9a-f]+)\/parts\/(\d+)/.exec(asking) ?? []
    const parts: { upload: string; part: number; bytes: Uint8Array }[] = []
    for (let at = 0, part = Number(first); at < body.length; part++) {
      const length = gridLength(part, paddedBodyLength(size))
      parts.push({ upload, part, bytes: body.subarray(at, at + length) })
      at += length
    }
    return parts
  })
}

interface CutOff {
  setting: Setting
  file: string
  content: Uint8Array
  resend: () => Promise<{ id: string; told: ProgressEvent[] }>
}

/** A sending that was cut off with some parts at the relay and some on the wire, unanswered. */
async function cutOff(): Promise<CutOff> {
  const setting = await makeSetting()
  const content = patternBytes(size, 1)
  const file = path.join(setting.folder, "file")
  writeFileSync(file, content)
  const sources = [{ kind: "path", path: file }] as const
  const stop = new AbortController()
  let parts = 0
  setting.relay.change = (asked, answer) => {
    if (!isPart(asked) || ++parts <= 2) return answer
    // The relay never stored it, and does not say so.
    const index = Number(asked.path.split("/").at(-1))
    for (const upload of setting.relay.uploads.values()) upload.parts.delete(index)
    if (parts === 4) stop.abort()
    return new Promise(() => undefined)
  }
  await expect(setting.send({ sources, signal: stop.signal, parallel: 2 })).rejects.toThrow(
    "aborted",
  )
  setting.relay.change = (_, answer) => answer
  return {
    setting,
    file,
    content,
    resend: async () => {
      const told: ProgressEvent[] = []
      const { id } = await setting.send({ sources, onProgress: (event) => told.push(event) })
      return { id, told }
    },
  }
}

function changeOneByte(file: string, content: Uint8Array, at: number): Uint8Array {
  const changed = content.map((byte, index) => (index === at ? byte ^ 0x20 : byte))
  writeFileSync(file, changed)
  return changed
}

/** Under one upload, and so under one set of keys, every part that was sent was always the same. */
function expectNothingSealedTwice(setting: Setting): void {
  const seen = new Map<string, Uint8Array>()
  for (const { upload, part, bytes } of captured(setting.relay.asked)) {
    const before = seen.get(`${upload} ${part}`)
    if (before) expect(equalBytes(before, bytes)).toBe(true)
    seen.set(`${upload} ${part}`, bytes)
  }
}

/** Nor does any part of one upload differ from that of another by what differs in the content only. */
function expectFreshKeys(setting: Setting): void {
  const uploads = [...new Set(captured(setting.relay.asked).map(({ upload }) => upload))]
  expect(uploads).toHaveLength(2)
  const byUpload = uploads.map(
    (id) =>
      new Map(
        captured(setting.relay.asked)
          .filter(({ upload }) => upload === id)
          .map(({ part, bytes }) => [part, bytes]),
      ),
  )
  const [first, second] = [found(byUpload[0]), found(byUpload[1])]
  let compared = 0
  for (const [part, bytes] of first) {
    const other = found(second.get(part))
    const equal = bytes.reduce((sum, byte, at) => sum + (byte === other[at] ? 1 : 0), 0)
    // By chance one byte in 256 agrees.
    expect(equal / bytes.length).toBeLessThan(0.02)
    compared++
  }
  expect(compared).toBeGreaterThan(2)
}

describe("T50 a source changed by one byte while its sending was cut off", () => {
  const places = {
    "in a part that the relay has": 10,
    "in a part that was on the wire": gridOffset(5) + 10,
    "in a part that was not sealed yet": size - 10,
  }
  for (const [where, at] of Object.entries(places)) {
    test(`${where} is sent under fresh keys, and the user is told`, async () => {
      const { setting, file, content, resend } = await cutOff()
      const changed = changeOneByte(file, content, at)
      const { id, told } = await resend()
      expectNothingSealedTwice(setting)
      expectFreshKeys(setting)
      expect(
        told.some((event) => event.kind === "notice" && event.text.includes("fresh keys")),
      ).toBe(true)
      const into = path.join(setting.folder, "into")
      await (await setting.open()).receive(id, { into })
      expect(readTree(into)["file"]).toBe(digest(changed))
    })
  }

  test("with its time set back is found by the leaf that was written down before", async () => {
    const { setting, file, content, resend } = await cutOff()
    const stored = new Set(
      [...setting.relay.uploads.values()].flatMap(({ parts }) => [...parts.keys()]),
    )
    const onTheWire = captured(setting.relay.asked).find(({ part }) => !stored.has(part))
    const before = statSync(file, { bigint: true })
    const changed = changeOneByte(file, content, gridOffset(found(onTheWire).part) + 5)
    setTimeTo(file, before.mtimeNs)
    const { id, told } = await resend()
    expect(told).toContainEqual({
      kind: "notice",
      text: `${file} is not what it was; starting over with fresh keys`,
    })
    expectNothingSealedTwice(setting)
    expectFreshKeys(setting)
    const into = path.join(setting.folder, "into")
    await (await setting.open()).receive(id, { into })
    expect(readTree(into)["file"]).toBe(digest(changed))
  })

  test("in a way that neither its time nor its MACs show is found by the leaf that was written down before", async () => {
    const { setting, content, resend } = await cutOff()
    const [upload] = setting.relay.uploads.keys()
    const stored = new Set(found(setting.relay.uploads.get(found(upload))).parts.keys())
    const onTheWire = captured(setting.relay.asked).find(({ part }) => !stored.has(part))
    const { part } = found(onTheWire)
    await rewriteLeaf(setting, part, random(32))
    const askedBefore = setting.relay.asked.length
    const { id, told } = await resend()
    const sentAgain = captured(setting.relay.asked.slice(askedBefore))
    expect(sentAgain).not.toContainEqual(expect.objectContaining({ upload, part }))
    expect(told).toContainEqual(
      expect.objectContaining({
        kind: "notice",
        text: expect.stringContaining("a part is not what it was when it was first sealed"),
      }),
    )
    expectFreshKeys(setting)
    const into = path.join(setting.folder, "into")
    await (await setting.open()).receive(id, { into })
    expect(readTree(into)["file"]).toBe(digest(content))
  })

  test("and back again is sent on under the same keys", async () => {
    const { setting, file, content, resend } = await cutOff()
    const before = statSync(file, { bigint: true })
    changeOneByte(file, content, 0)
    writeFileSync(file, content)
    setTimeTo(file, before.mtimeNs)
    const { told } = await resend()
    expectNothingSealedTwice(setting)
    expect(told.filter(({ kind }) => kind === "notice")).toEqual([])
    expect(new Set(captured(setting.relay.asked).map(({ upload }) => upload)).size).toBe(1)
  })
})

/**
 * The journal says of a part what it would have said of another content. Content of which every chunk's
 * MAC is the same takes the file's key to make; to the sender it comes to this.
 */
async function rewriteLeaf(setting: Setting, part: number, leaf: Uint8Array): Promise<void> {
  const folder = path.join(setting.sender.folder, "uploads")
  const [name] = readdirSync(folder).filter((each) => !each.includes("."))
  const { log } = found(await reopenLog(path.join(folder, found(name)), "KNHUPL1\n"))
  const leafRecord = 5
  log.append(leafRecord, concatBytes(u32(part), leaf))
  await log.flush()
  await log.close()
}

/** To the nanosecond, which utimes of Node cannot. */
function setTimeTo(file: string, ns: bigint): void {
  const fraction = String(ns % 1_000_000_000n).padStart(9, "0")
  execFileSync("touch", ["-d", `@${ns / 1_000_000_000n}.${fraction}`, file])
  expect(statSync(file, { bigint: true }).mtimeNs).toBe(ns)
}
