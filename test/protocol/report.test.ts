import { describe, expect, test } from "vitest"
import {
  encodeHeader,
  encodeReport,
  encodeStamp,
  type Entry,
  type EntryReport,
  FormatError,
  headerHash,
  makeReport,
  openManifest,
  parseHeader,
  parseReport,
  random,
  type Report,
  u16,
  u32,
  u64,
  utf8,
  verifyReport,
} from "../../protocol/index.js"
import { fileOf, folderOf, makeDelivery, type MadeDelivery } from "./sealed-delivery.js"

const kFrank = random(32)
const frankKey = (kid: number) => (kid === 1 ? kFrank : undefined)

const stampFor = (header: Uint8Array, key: Uint8Array = kFrank): Uint8Array =>
  encodeStamp({
    kid: 1,
    inboxId: random(20),
    seq: 1,
    head: random(32),
    headerHash: headerHash(header),
    envelopeHash: random(32),
    acceptedMs: 1,
    expiresMs: 2,
    source: { lane: 0, lineage: random(16), sourcePseudonym: random(16) },
    kFrank: key,
    kSrc: random(32),
  })

function reportsOf(delivery: MadeDelivery, index: number): [Report, Report, Report] {
  const { ds, headerBytes: header } = delivery
  const manifest = openManifest({ ...delivery, ciphertext: delivery.manifest })
  const base = { reason: "malware", stamp: stampFor(header), header, ds, manifest } as const
  return [
    makeReport({ ...base, about: { kind: "delivery" } }),
    makeReport({ ...base, about: { kind: "entry", index } }),
    makeReport({ ...base, about: { kind: "note" } }),
  ]
}

const entries: Entry[] = [
  folderOf("docs"),
  fileOf("docs/a", 100),
  fileOf("docs/b", 300_000),
  fileOf("c", 5),
  fileOf("d", 0),
]
const delivery = makeDelivery(entries, "Read this first.")
const [whole, entry, note] = reportsOf(delivery, 2)

const verify = (report: Report | Uint8Array, manifest: Uint8Array = delivery.manifest) =>
  verifyReport({
    report: report instanceof Uint8Array ? report : encodeReport(report),
    frankKey,
    manifest,
  })

function entryReport(report: Report): EntryReport {
  if (report.kind !== "entry") throw new RangeError("this is the one about an entry")
  return report
}

test("each kind comes back from its bytes and verifies", () => {
  for (const report of [whole, entry, note]) {
    expect(parseReport(encodeReport(report))).toEqual(report)
    expect(verify(report)).toMatchObject({ kind: report.kind, reason: "malware" })
  }
  expect(verify(entry)).toMatchObject({ index: 2, entry: { path: utf8("docs/b"), size: 300_000 } })
  expect(verify(note)).toMatchObject({ note: "Read this first." })
})

test("every entry of deliveries of every small size can be reported", () => {
  for (let count = 1; count <= 9; count++) {
    const some = makeDelivery(Array.from({ length: count }, (_, i) => fileOf(`f${i}`, i)))
    for (let index = 0; index < count; index++) {
      const [, about, aboutNote] = reportsOf(some, index)
      expect(verify(about)).toMatchObject({ index, entry: { path: utf8(`f${index}`) } })
      expect(verify(aboutNote)).toMatchObject({ note: "" })
    }
  }
  const [, , alone] = reportsOf(makeDelivery([fileOf("x", 1)], "just a note"), 0)
  expect(verify(alone)).toMatchObject({ note: "just a note" })
})

test("a report of an entry or of the note shows nothing of the others", () => {
  const shown = Buffer.from(encodeReport(entry)).toString("latin1")
  for (const hidden of ["docs/a", "Read this", "\0\x01c\0"]) expect(shown).not.toContain(hidden)
  const shownNote = Buffer.from(encodeReport(note)).toString("latin1")
  expect(shownNote).not.toContain("docs")
})

describe("T38 a report that was changed is refused", () => {
  test("any byte flipped, of any kind", () => {
    for (const report of [whole, entry, note]) {
      const bytes = encodeReport(report)
      for (let at = 0; at < bytes.length; at++) {
        // The reason is the reporter's own word and bound to nothing.
        if (at === 6 || at === 7) continue
        const changed = bytes.slice()
        changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8))
        expect(() => verify(changed)).toThrow(FormatError)
      }
    }
  })

  test("any truncation, and a byte added", () => {
    for (const report of [whole, entry, note]) {
      const bytes = encodeReport(report)
      for (let length = 0; length < bytes.length; length++) {
        expect(() => parseReport(bytes.subarray(0, length))).toThrow(FormatError)
      }
      expect(() => parseReport(new Uint8Array([...bytes, 0]))).toThrow(FormatError)
    }
  })

  test("another index, count, path or entry", () => {
    const about = entryReport(entry)
    const other = entryReport(reportsOf(delivery, 3)[1])
    for (const changed of [
      { index: 3 },
      { entryCount: 6 },
      { entryCount: 4 },
      { path: about.path.slice(1) },
      { path: [...about.path, random(32)] },
      { path: about.path.toReversed() },
      { entry: other.entry },
      { entry: other.entry, r: other.r },
      { noteLeaf: random(32) },
    ]) {
      expect(() => verify({ ...about, ...changed })).toThrow(FormatError)
    }
    expect(() => verify(other)).not.toThrow()
  })

  test("another delivery's stamp, header, secret or manifest", () => {
    const second = makeDelivery(entries, "Read this first.")
    const [otherWhole] = reportsOf(second, 2)
    const { headerBytes: header, ds } = second
    expect(() => verify({ ...whole, stamp: otherWhole.stamp })).toThrow(/report.header/)
    expect(() => verify({ ...whole, header })).toThrow(/report.header/)
    expect(() => verify({ ...whole, header, stamp: otherWhole.stamp })).toThrow(/report.ds/)
    if (whole.kind !== "delivery") throw new RangeError("this is the one about a delivery")
    expect(() => verify({ ...whole, ds })).toThrow(/report.ds/)
    expect(() => verify(whole, second.manifest)).toThrow(/report.ds/)
    expect(verify({ ...whole, ds, header, stamp: otherWhole.stamp }, second.manifest).kind).toBe(
      "delivery",
    )
  })

  test("a stamp that this relay did not make, or whose key is gone", () => {
    const forged = stampFor(delivery.headerBytes, random(32))
    expect(() => verify({ ...whole, stamp: forged })).toThrow(/report.stamp/)
    const report = encodeReport(whole)
    expect(() => verifyReport({ report, frankKey: () => undefined })).toThrow(/report.stamp/)
  })
})

test("T39 two deliveries of one ciphertext under different keys can both be reported", () => {
  // The relay sees equal bodies; each header commits to its own keys.
  for (const made of [makeDelivery(entries), makeDelivery(entries)]) {
    for (const report of reportsOf(made, 1)) {
      expect(verify(report, made.manifest).kind).toBe(report.kind)
    }
  }
})

function changed(report: Report, at: number, value: Uint8Array): Uint8Array {
  const bytes = encodeReport(report)
  bytes.set(value, at)
  return bytes
}

describe("refused for its form", () => {
  const shownAt = 436
  test.each<[string, Uint8Array, string]>([
    ["an unknown kind", changed(whole, 5, Uint8Array.of(4)), "kind"],
    ["reason 0", changed(whole, 6, u16(0)), "reason"],
    ["reason 6", changed(whole, 6, u16(6)), "reason"],
    ["an index at the count", changed(entry, shownAt, u64(5)), "index"],
    ["more entries than there can be", changed(entry, shownAt + 8, u64(262_145)), "entry count"],
    ["an entry beyond all bounds", changed(entry, shownAt + 80, u32(2 ** 32 - 1)), "entry length"],
    ["a note beyond its bound", changed(note, shownAt + 40, u32(16_385)), "note length"],
  ])("%s", (_, bytes, field) => {
    expect(() => parseReport(bytes)).toThrow(expect.objectContaining({ field: `report.${field}` }))
  })

  test("a stamp or header of another length is misuse", () => {
    expect(() => encodeReport({ ...whole, stamp: random(243) })).toThrow(RangeError)
    expect(() => encodeReport({ ...whole, header: random(185) })).toThrow(RangeError)
    const base = { reason: "other", stamp: whole.stamp, header: whole.header } as const
    const manifest = openManifest({ ...delivery, ciphertext: delivery.manifest })
    const about = { kind: "entry", index: 5 } as const
    expect(() => makeReport({ ...base, ds: delivery.ds, manifest, about })).toThrow(RangeError)
  })
})

test("an entry that claims to lie beyond the body is refused", () => {
  // The header says a smaller body than the entries need; only a hostile sender makes that.
  const small = { ...parseHeader(delivery.headerBytes), bodyLength: 16_384, partCount: 1 }
  const header = encodeHeader(small)
  const moved = { ...entryReport(entry), header, stamp: stampFor(header) }
  expect(() => verify(moved)).toThrow(/entry.size/)
})
