// What lies in the spool and is not the relay's, or not any more: left by a crash, an operator, a backup
// program, or somebody who hopes that the relay follows where it leads.
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { type Identity, random, toHex } from "../../protocol/index.js"
import { ManualClock } from "../server/manual-clock.js"
import { personAt } from "../server/people.js"
import {
  makeDelivery,
  openRelay,
  type RelayUnderTest,
  type StartedUpload,
  type TestDelivery,
} from "../server/relay-under-test.js"

const dayMs = 24 * 3_600_000

function id(): string {
  return toHex(random(16))
}

describe("a spool with things in it that are no uploads", () => {
  let under: RelayUnderTest
  let clock: ManualClock
  let alice: Identity
  let outside: string
  let delivery: TestDelivery
  let upload: StartedUpload

  beforeEach(async () => {
    // The age of what has no record is the disk's to say.
    clock = new ManualClock(Date.now())
    under = await openRelay({ ports: { clock } })
    alice = await personAt(0)
    await under.client.register(alice)
    outside = mkdtempSync(join(tmpdir(), "knothole-outside-"))
    writeFileSync(join(outside, "precious"), "precious")
    delivery = makeDelivery([alice], { bodyLength: 100_000 })
    upload = await under.client.start([alice], delivery.body.length)
    await under.client.putBody(upload, delivery.body)
  })

  afterEach(async () => {
    await under.remove()
    rmSync(outside, { recursive: true })
  })

  const spool = (...names: string[]) => join(under.folder, "spool", ...names)

  /** Names that no upload has. */
  function plantForeign(): string[] {
    const folders = [
      id().toUpperCase(),
      id().slice(1),
      `${id()}0`,
      "..%2f",
      "line\nbreak",
      "-rf",
      "ä",
    ]
    for (const name of folders) {
      mkdirSync(spool(name))
      writeFileSync(spool(name, "upload.v1"), "not one")
    }
    const files = [
      `${id()}.bak`,
      "t-000000000000000000000000",
      "p0-00000000",
      "upload.v1",
      ".hidden",
    ]
    for (const name of files) writeFileSync(spool(name), "foreign")
    symlinkSync(outside, spool("link"))
    return [...folders, ...files, "link"].sort()
  }

  /** Names that an upload could have. */
  function plantOrphans(): void {
    const [empty, torn, written, file, link] = [id(), id(), id(), id(), id()]
    mkdirSync(spool(empty))
    mkdirSync(spool(torn))
    writeFileSync(spool(torn, "t-000000000000000000000000"), random(1000))
    mkdirSync(spool(written))
    writeFileSync(spool(written, "upload.v1"), random(200))
    writeFileSync(spool(written, "p0-0000000000000000"), random(1000))
    writeFileSync(spool(file), "a file")
    symlinkSync(outside, spool(link))
    for (const place of ["store", "trash"]) {
      mkdirSync(join(under.folder, place, id()))
      writeFileSync(join(under.folder, place, id()), "a file")
      symlinkSync(outside, join(under.folder, place, id()))
    }
  }

  async function goOn(): Promise<void> {
    await under.relay.reconcile()
    await under.relay.sweep()
  }

  for (const how of [
    "while the relay runs",
    "before it starts",
    "before it starts without an index",
  ]) {
    it(`T32: planted ${how}, what has no name of an upload is left alone, what has one is removed in time, and neither keeps anybody from anything`, async () => {
      if (how === "before it starts without an index") rmSync(join(under.folder, "index-state"))
      const foreign = plantForeign()
      plantOrphans()
      for (const name of ["t-ffffffffffffffffffffffff", "notes.txt", "p1-00", "upload.v1.new"]) {
        writeFileSync(spool(upload.id, name), "stray")
      }
      if (how !== "while the relay runs") under = await under.restart()
      await goOn()
      // The upload goes on, and as a delivery has what it should have.
      await under.client.postFinish(upload, delivery.finish).expect(200)
      expect(readdirSync(join(under.folder, "store", upload.id)).sort()).toEqual(
        expect.not.arrayContaining(["notes.txt", "p1-00", "t-ffffffffffffffffffffffff"]),
      )
      const body = await under.client.bytes(
        `/v1/deliveries/${upload.id}/body`,
        await under.client.login(alice),
      )
      expect(Buffer.compare(body.body, delivery.body)).toBe(0)
      const sent = await under.client.send(makeDelivery([alice]))
      expect(existsSync(join(under.folder, "store", sent.id))).toBe(true)

      clock.advance(4 * dayMs)
      await goOn()
      clock.advance(4 * dayMs)
      await goOn()
      under = await under.restart()
      await goOn()
      // What has the name of an upload and no record is gone when it is older than one could be.
      expect(readdirSync(spool()).sort()).toEqual(foreign)
      expect(readFileSync(join(outside, "precious"), "utf8")).toBe("precious")
    })
  }
})
