import {
  appendFileSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { chainHead, emptyChainHead, random, toHex } from "../../protocol/index.js"
import { deliveryIdOf, type InboxId, inboxIdOf } from "../../server/ids.js"
import { nodeDisk } from "../../server/node-disk.js"
import { type InboxLogs, type LogRecord, openInboxLogs } from "../../server/stores/inbox-log.js"
import type { ChainPlace } from "../../server/stores/relay-index.js"
import { FaultyDisk, systemError } from "./faulty-disk.js"

const recordBytes = 192

describe("the log of an inbox", () => {
  let path: string
  let logs: InboxLogs
  let inbox: InboxId
  let bundle: Uint8Array
  const recordKey = random(32)

  beforeEach(async () => {
    path = mkdtempSync(join(tmpdir(), "knothole-logs-"))
    logs = openInboxLogs({ disk: nodeDisk, path, recordKey, random })
    inbox = inboxIdOf(random(20))
    bundle = random(100)
    await logs.create(inbox, bundle)
  })

  afterEach(() => rmSync(path, { recursive: true }))

  const file = () => join(path, inbox, "log.v1")

  it("begins with nothing, and is made once", async () => {
    expect(await logs.create(inbox, bundle)).toBe(false)
    expect(await logs.list()).toEqual([inbox])
    const read = await logs.read(inbox)
    expect(read).toMatchObject({ floorSeq: 0, places: [], damaged: 0 })
    expect(toHex(read?.bundle ?? random(1))).toBe(toHex(bundle))
    expect(await logs.read(inboxIdOf(random(20)))).toBeUndefined()
  })

  it("takes a burial on a full disk, for which it kept a reserve, and nothing else", async () => {
    const disk = new FaultyDisk()
    const full = openInboxLogs({ disk, path, recordKey, random })
    await full.keepReserve()
    const places = chain(1)
    await full.append(inbox, places.map(published))
    let isFreed = false
    disk.before = (operation) => {
      if (operation === "unlink") isFreed = true
      if (operation === "file.write" && !isFreed) throw systemError("ENOSPC")
    }
    await expect(full.append(inbox, places.map(published))).rejects.toThrow("ENOSPC")
    await full.append(inbox, places.map(taken))
    expect((await logs.read(inbox))?.places.map(({ kind }) => kind)).toEqual(["buried"])
  })

  it("reads a log of any length, in pieces", async () => {
    truncateSync(file(), 200_001 * recordBytes)
    await logs.append(inbox, chain(3).map(published))
    const read = await logs.read(inbox)
    expect(read?.places.map(({ seq }) => seq)).toEqual([1, 2, 3])
    expect(read?.damaged).toBe(200_001)
  }, 60_000)

  it("says what was published and what of it is gone", async () => {
    const places = chain(3)
    await logs.append(inbox, places.map(published))
    const [first] = places
    if (first === undefined) throw new Error("no place")
    await logs.append(inbox, [taken(first)])
    const read = await logs.read(inbox)
    expect(read?.places.map(({ seq, kind }) => [seq, kind])).toEqual([
      [1, "buried"],
      [2, "published"],
      [3, "published"],
    ])
    expect(toHex(read?.places[2]?.head ?? random(1))).toBe(toHex(places[2]?.head ?? random(1)))
  })

  it("comes to the same when records stand in it twice, also after what followed them", async () => {
    const places = chain(2)
    await logs.append(inbox, [
      ...places.map(published),
      ...places.map(taken),
      ...places.map(published),
    ])
    const read = await logs.read(inbox)
    expect(read?.places.map(({ kind }) => kind)).toEqual(["buried", "buried"])
    expect(read?.damaged).toBe(0)
  })

  it("ends before a record that was torn, and writes over it", async () => {
    const places = chain(3)
    await logs.append(inbox, places.slice(0, 2).map(published))
    for (const torn of [1, 100, 191]) {
      writeFileSync(file(), readFileSync(file()).subarray(0, 2 * recordBytes))
      appendFileSync(file(), random(torn))
      expect((await logs.read(inbox))?.places).toHaveLength(2)
      await logs.append(inbox, places.slice(2).map(published))
      expect(statSync(file()).size).toBe(3 * recordBytes)
      expect((await logs.read(inbox))?.places).toHaveLength(3)
    }
  })

  it("has all of an append or nothing, whichever of its sectors a power cut took", async () => {
    const places = chain(9)
    await logs.append(inbox, places.slice(0, 2).map(published))
    const before = readFileSync(file())
    await logs.append(inbox, places.slice(2, 8).map(published))
    const after = readFileSync(file())
    const sectors = Math.ceil(after.length / 512)
    for (let lost = 0; lost < 2 ** sectors; lost++) {
      const left = Buffer.from(after)
      for (let sector = 0; sector < sectors; sector++) {
        if ((lost & (2 ** sector)) === 0) continue
        left.fill(0, Math.max(512 * sector, before.length), 512 * (sector + 1))
      }
      writeFileSync(file(), left)
      const again = openInboxLogs({ disk: nodeDisk, path, recordKey, random })
      const read = await again.read(inbox)
      expect([read?.damaged, read?.places.length], `sectors ${lost}`).toEqual([
        0,
        left.equals(after) ? 8 : 2,
      ])
      const next = read?.places.length === 8 ? places.slice(8) : places.slice(2)
      await again.append(inbox, next.map(published))
      const seqs = (await again.read(inbox))?.places.map(({ seq }) => seq)
      expect(seqs, `sectors ${lost}`).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9])
    }
  })

  it("writes an append that failed to sync again in its own place", async () => {
    const disk = new FaultyDisk()
    const failing = openInboxLogs({ disk, path, recordKey, random })
    disk.before = (operation) => {
      if (operation === "file.sync" && statSync(file()).size > 0) throw systemError("EIO")
    }
    const places = chain(1)
    await expect(failing.append(inbox, places.map(published))).rejects.toThrow("EIO")
    disk.before = () => undefined
    await failing.append(inbox, places.map(published))
    expect(statSync(file()).size).toBe(recordBytes)
  })

  it("makes durable what an earlier process wrote before it is relied on", async () => {
    await logs.append(inbox, chain(1).map(published))
    const disk = new FaultyDisk()
    const later = openInboxLogs({ disk, path, recordKey, random })
    await later.settle(inbox)
    await later.settle(inbox)
    expect(disk.operations.filter((operation) => operation === "file.sync")).toHaveLength(1)
  })

  it("counts what is damaged or missing, and believes no record of another inbox", async () => {
    const places = chain(4)
    await logs.append(inbox, places.map(published))
    const bytes = readFileSync(file())
    const other = inboxIdOf(random(20))
    await logs.create(other, bundle)
    writeFileSync(join(path, other, "log.v1"), bytes)
    expect(await logs.read(other)).toMatchObject({ places: [], damaged: 4 })
    bytes[recordBytes + 20] = (bytes[recordBytes + 20] ?? 0) ^ 1
    writeFileSync(file(), bytes)
    const read = await logs.read(inbox)
    // One record that is not ours, and one sequence number that is missing because of it.
    expect(read?.damaged).toBe(2)
    expect(read?.places.map(({ seq }) => seq)).toEqual([1, 3, 4])
  })

  it("forgets what is below its floor, and is no longer than what is left when compacted", async () => {
    const places = chain(5)
    const [, , third] = places
    if (third === undefined) throw new Error("no place")
    await logs.append(inbox, [...places.map(published), ...places.slice(0, 3).map(taken)])
    await logs.append(inbox, [{ kind: "floor", seq: 3, head: third.head }])
    const before = await logs.read(inbox)
    expect(before).toMatchObject({ floorSeq: 3 })
    expect(before?.places.map(({ seq }) => seq)).toEqual([4, 5])
    await logs.compact(inbox)
    expect(statSync(file()).size).toBe(3 * recordBytes)
    expect(await logs.read(inbox)).toEqual(before)
  })
})

function chain(length: number): ChainPlace[] {
  const places: ChainPlace[] = []
  let previous = emptyChainHead()
  for (let seq = 1; seq <= length; seq++) {
    const place = {
      seq,
      id: deliveryIdOf(random(16)),
      headerHash: random(32),
      envelopeHash: random(32),
      acceptedMs: seq * 1000,
      expiresMs: seq * 2000,
    }
    const head = chainHead({ previous, ...place })
    places.push({ ...place, head })
    previous = head
  }
  return places
}

const published = (place: ChainPlace): LogRecord => ({ kind: "published", ...place })
const taken = (place: ChainPlace): LogRecord => ({ kind: "buried", reason: "taken", ...place })
