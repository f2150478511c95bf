// A backup is a copy of the data folder, made while the relay works in it.
import { execFile } from "node:child_process"
import {
  cpSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { type Identity, random } from "../../protocol/index.js"
import { declareRestored } from "../../server/index.js"
import { personAt } from "./people.js"
import {
  makeDelivery,
  openRelay,
  type RelayUnderTest,
  type TestDelivery,
} from "./relay-under-test.js"

/** As `cp -a` does it; what vanishes meanwhile is not there, and makes it end with 1. */
function copyFolder(from: string, to: string): Promise<void> {
  return new Promise((resolve) => {
    execFile("cp", ["-a", from, to], () => resolve())
  })
}

let original: RelayUnderTest
let copy: RelayUnderTest | undefined
let place: string
let alice: Identity

beforeEach(async () => {
  place = join(mkdtempSync(join(tmpdir(), "knothole-backup-")), "data")
  alice = await personAt(0)
  original = await openRelay()
  await original.client.register(alice)
})

afterEach(async () => {
  await copy?.remove()
  copy = undefined
  await original.remove()
  rmSync(join(place, ".."), { recursive: true, force: true })
})

async function openCopy(): Promise<RelayUnderTest> {
  copy = await openRelay({ folder: place })
  return copy
}

const events = ({ log }: RelayUnderTest) => log.map(({ event }) => event)

async function expectBody(at: RelayUnderTest, id: string, delivery: TestDelivery): Promise<void> {
  const session = await at.client.login(alice)
  const body = await at.client.bytes(`/v1/deliveries/${id}/body`, session)
  expect(body.status).toBe(200)
  expect(Buffer.compare(body.body, delivery.body)).toBe(0)
}

describe("a copy of the folder of a relay at work", () => {
  it("starts beside it, and has every delivery that was receipted before the copying began", async () => {
    const sent = new Map<string, TestDelivery>()
    const takenMeanwhile = new Set<string>()
    const over = new AbortController()
    async function sendOn(): Promise<void> {
      while (!over.signal.aborted) {
        const delivery = makeDelivery([alice], { bodyLength: 400_000 })
        sent.set((await original.client.send(delivery)).id, delivery)
      }
    }
    async function takeNow(): Promise<void> {
      const session = await original.client.login(alice)
      while (!over.signal.aborted) {
        const [id] = [...sent.keys()].filter((each) => !takenMeanwhile.has(each)).slice(-1)
        if (id === undefined) {
          await new Promise(setImmediate)
          continue
        }
        takenMeanwhile.add(id)
        await original.client.delete(`/v1/deliveries/${id}`, session).expect(204)
      }
    }
    for (let at = 0; at < 10; at++) {
      const delivery = makeDelivery([alice], { bodyLength: 400_000 })
      sent.set((await original.client.send(delivery)).id, delivery)
    }
    const before = new Map(sent)
    const load = [sendOn(), sendOn(), takeNow()]
    await copyFolder(original.folder, place)
    over.abort()
    await Promise.all(load)

    const restored = await openCopy()
    expect(events(restored)).toContain("folder_was_copied")
    expect(events(restored)).toContain("index_rebuilt")
    const session = await restored.client.login(alice)
    const page = await restored.client.list(session)
    const waiting = new Set(
      page.entries.flatMap((entry) => (entry.kind === "waiting" ? entry.id : [])),
    )
    for (const [id, delivery] of before) {
      if (takenMeanwhile.has(id)) continue
      expect(waiting).toContain(id)
      await expectBody(restored, id, delivery)
    }
    // And what is listed beyond that is whole as well.
    for (const id of waiting) {
      const delivery = sent.get(id)
      if (delivery !== undefined) await expectBody(restored, id, delivery)
    }
    await restored.client.send(makeDelivery([alice]))
  }, 60_000)

  it("does not believe the index that was copied with it, whatever is in it", async () => {
    const delivery = makeDelivery([alice])
    const { id } = await original.client.send(delivery)
    await copyFolder(original.folder, place)
    writeFileSync(join(place, "index", "data.mdb"), random(100_000))
    await expectBody(await openCopy(), id, delivery)
  })

  it("needs no index at all", async () => {
    const delivery = makeDelivery([alice])
    const { id } = await original.client.send(delivery)
    await copyFolder(original.folder, place)
    rmSync(join(place, "index"), { recursive: true })
    await expectBody(await openCopy(), id, delivery)
  })

  it("says that a delivery is lost which was copied in part", async () => {
    const kept = makeDelivery([alice], { bodyLength: 400_000 })
    const keptId = (await original.client.send(kept)).id
    const torn = ["a part is missing", "a part is short", "no manifest", "no leaves", "no commit"]
    const ids: string[] = []
    for (const _ of torn) {
      ids.push((await original.client.send(makeDelivery([alice], { bodyLength: 400_000 }))).id)
    }
    await copyFolder(original.folder, place)
    const file = (at: number, name: string) => {
      const folder = join(place, "store", ids[at] ?? "")
      return join(folder, readdirSync(folder).find((each) => each.startsWith(name)) ?? name)
    }
    rmSync(file(0, "p1-"))
    truncateSync(file(1, "p0-"), 1000)
    rmSync(file(2, "manifest"))
    rmSync(file(3, "leaves"))
    rmSync(file(4, "commit.v1"))
    const restored = await openCopy()
    expect(restored.log).toContainEqual(
      expect.objectContaining({ event: "copied_in_part", count: 5 }),
    )
    const session = await restored.client.login(alice)
    const { entries } = await restored.client.list(session)
    expect(entries.map(({ kind }) => kind)).toEqual(["waiting", ...torn.map(() => "gone")])
    await expectBody(restored, keptId, kept)
    await restored.relay.sweep()
    expect(readdirSync(join(place, "store"))).toEqual([keptId])
  })

  it("has a delivery once that was renamed or removed while it was copied", async () => {
    const delivery = makeDelivery([alice])
    const sent = await original.client.send(delivery)
    await copyFolder(original.folder, place)
    // The folder of the upload was copied first, its delivery later.
    cpSync(join(place, "store", sent.id), join(place, "spool", sent.id), { recursive: true })
    const session = await original.client.login(alice)
    await original.client.delete(`/v1/deliveries/${sent.id}`, session).expect(204)
    // And what is remembered of its end later still.
    cpSync(join(original.folder, "ended", sent.id), join(place, "ended", sent.id))
    const restored = await openCopy()
    await expectBody(restored, sent.id, delivery)
    expect(readdirSync(join(place, "spool"))).toEqual([])
    expect(readdirSync(join(place, "ended"))).toEqual([])
  })

  it("is declared also where the time noted in it is damaged, and starts with that", async () => {
    await copyFolder(original.folder, place)
    writeFileSync(join(place, "clock"), "17900000x0000")
    const { backupMs, restoredMs } = await declareRestored({ dataFolder: place })
    expect(backupMs).toBe(Math.floor(statSync(join(place, "version")).mtimeMs))
    const { client } = await openCopy()
    const page = await client.list(await client.login(alice))
    expect(page.restored).toEqual({ backupMs, restoredMs })
  })

  it("is not taken for a copy where it was only moved and started again", async () => {
    await original.client.send(makeDelivery([alice]))
    await original.relay.stop()
    renameSync(original.folder, place)
    const moved = await openCopy()
    expect(events(moved)).not.toContain("folder_was_copied")
    expect(events(moved)).not.toContain("index_rebuilt")
  })
})
