import { appendFileSync, readFileSync, truncateSync, writeFileSync } from "node:fs"
import path from "node:path"
import { describe, expect, test } from "vitest"
import { createLog, reopenLog } from "../../client/append-log.js"
import { scratchFolder } from "./folders.js"
import { found } from "./small-relay.js"

const magic = "KNHTEST\n"

async function written(...payloads: string[]): Promise<string> {
  const file = path.join(scratchFolder(), "log")
  const log = await createLog(file, magic)
  for (const payload of payloads) log.append(payload.length, Buffer.from(payload))
  await log.flush()
  await log.close()
  return file
}

async function payloadsOf(file: string): Promise<string[]> {
  const { log, records } = found(await reopenLog(file, magic))
  await log.close()
  return records.map(({ payload }) => Buffer.from(payload).toString())
}

describe("a log", () => {
  test("gives back what was appended, in order and with its type", async () => {
    const file = await written("one", "", "three")
    const { log, records } = found(await reopenLog(file, magic))
    await log.close()
    expect(records.map(({ type }) => type)).toEqual([3, 0, 5])
    expect(await payloadsOf(file)).toEqual(["one", "", "three"])
  })

  test("cut at any length, it gives the records before the cut and takes new ones", async () => {
    const content = readFileSync(await written("one", "two", "three"))
    const ends = [8, 20, 32, 46]
    const whole = content.subarray(0, 46)
    // Behind the records there is nothing but room for more.
    expect(content.subarray(46).every((byte) => byte === 0)).toBe(true)
    for (let length = magic.length; length < whole.length; length++) {
      const file = path.join(scratchFolder(), "log")
      writeFileSync(file, whole.subarray(0, length))
      const expected = ["one", "two", "three"].slice(
        0,
        ends.filter((end) => end <= length).length - 1,
      )
      const { log, records } = found(await reopenLog(file, magic))
      expect(records.length).toBe(expected.length)
      log.append(9, Buffer.from("later"))
      await log.flush()
      await log.close()
      expect(await payloadsOf(file)).toEqual([...expected, "later"])
    }
  })

  test("a record that was torn, not cut, ends it as well", async () => {
    const file = await written("one", "two")
    const bytes = readFileSync(file)
    // The last five of the 32 bytes that two records and the magic take.
    bytes.fill(0, 27)
    writeFileSync(file, bytes)
    expect(await payloadsOf(file)).toEqual(["one"])
    appendFileSync(file, Buffer.alloc(4096))
    expect(await payloadsOf(file)).toEqual(["one"])
  })

  test("takes the room of zeros that an earlier run left behind", async () => {
    const file = await written("one")
    for (const payload of ["two", "three"]) {
      const { log } = found(await reopenLog(file, magic))
      log.append(1, Buffer.from(payload))
      await log.flush()
      await log.close()
    }
    expect(await payloadsOf(file)).toEqual(["one", "two", "three"])
  })

  test("grows past the room it took at first", async () => {
    const file = path.join(scratchFolder(), "log")
    const log = await createLog(file, magic)
    const payloads = Array.from({ length: 40 }, (_, index) => String(index).padEnd(5000, "."))
    for (const payload of payloads) {
      log.append(1, Buffer.from(payload))
      await log.flush()
    }
    await log.close()
    expect(await payloadsOf(file)).toEqual(payloads)
  })

  test("of another kind, it is no log", async () => {
    const file = await written("one")
    expect(await reopenLog(file, "KNHELSE\n")).toBeUndefined()
    truncateSync(file, 3)
    expect(await reopenLog(file, magic)).toBeUndefined()
    expect(await reopenLog(`${file}-none`, magic)).toBeUndefined()
  })

  test("what was appended before a flush is in the file when the flush ends, also with many at once", async () => {
    const file = path.join(scratchFolder(), "log")
    const log = await createLog(file, magic)
    await Promise.all(
      Array.from({ length: 50 }, async (_, index) => {
        log.append(1, Buffer.from(`record ${index}`))
        await log.flush()
        expect(readFileSync(file, "latin1")).toContain(`record ${index}`)
      }),
    )
    await log.close()
    expect(await payloadsOf(file)).toHaveLength(50)
  })

  test("starting one anew empties it", async () => {
    const file = await written("one")
    await (await createLog(file, magic)).close()
    expect(await payloadsOf(file)).toEqual([])
  })
})
