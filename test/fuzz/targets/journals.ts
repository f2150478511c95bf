/**
 * A client's own files after whatever happened to them: the journals of unfinished work, and what was
 * sent.
 */
import { mkdirSync, rmSync, writeFileSync } from "node:fs"
import path from "node:path"
import { crc32 } from "node:zlib"
import type { ScannedEntry } from "../../../client/scan.js"
import { mutateBytes, sketch, type FieldKind, type Sketch } from "../mutate-bytes.js"
import { fromJson } from "../mutate-json.js"
import type { Draws } from "../random.js"
import { hex, type Subject, type Vectors } from "../subject.js"
import { judgeLater, mustBeBytes, mustBeText, mustEqual, mustHold, type Target } from "../target.js"
import { filled, scratchFolder } from "./client.js"

function join(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts))
}

function u32(value: number): Uint8Array {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return new Uint8Array(bytes)
}

// Journals: records with a checksum, which is made anew as a rule, so that what is behind it is reached.

interface LogRecord {
  readonly type: number
  readonly payload: Uint8Array
}

function encodeJournal(magic: string, records: readonly LogRecord[]): Uint8Array {
  const parts = records.flatMap(({ type, payload }) => {
    const content = join(Uint8Array.of(type), payload)
    return [u32(payload.length), content, u32(crc32(content))]
  })
  return join(Buffer.from(magic), ...parts)
}

/** The records that a reader may believe: those in front of the first that is not whole. */
function wholeRecords(magic: string, file: Uint8Array): LogRecord[] {
  const bytes = Buffer.from(file)
  const records: LogRecord[] = []
  if (bytes.subarray(0, magic.length).toString("latin1") !== magic) return []
  for (let at = magic.length; at + 9 <= bytes.length;) {
    const end = at + 9 + bytes.readUInt32BE(at)
    if (end > bytes.length) break
    const content = bytes.subarray(at + 4, end - 4)
    if (crc32(content) !== bytes.readUInt32BE(end - 4)) break
    records.push({ type: content[0] ?? 0, payload: new Uint8Array(content.subarray(1)) })
    at = end
  }
  return records
}

interface SketchedRecord {
  readonly type: number
  readonly sketch: Sketch
}

type Layout = readonly (readonly [FieldKind, number])[]

function sketchedRecord(type: number, layout: Layout, ...parts: readonly Uint8Array[]) {
  return { type, sketch: sketch(join(...parts), layout) }
}

function makeJournal(
  draws: Draws,
  magic: string,
  known: readonly SketchedRecord[],
  types: number,
): Uint8Array {
  const list = draws.chance(0.3) ? known.slice(0, draws.between(0, known.length)) : [...known]
  const sketches = known.map((record) => record.sketch)
  const count = draws.chance(0.1) ? 0 : draws.between(1, 3)
  let records = list.map((record): LogRecord => ({
    type: record.type,
    payload: record.sketch.bytes,
  }))
  for (let i = 0; i < count && records.length > 0; i++) {
    const at = draws.below(records.length)
    const record = list[at]
    const same = records[at]
    if (record === undefined || same === undefined) break
    switch (draws.below(6)) {
      case 0:
        records = [...records.slice(0, at), ...records.slice(at + 1)]
        list.splice(at, 1)
        break
      case 1:
        records = [...records, same]
        list.push(record)
        break
      case 2:
        records[at] = { ...same, type: draws.below(types + 2) }
        break
      default:
        records[at] = { ...same, payload: mutateBytes(draws, record.sketch, sketches) }
    }
  }
  const file = encodeJournal(magic, records)
  if (draws.chance(0.85)) return file
  const whole = sketch(file, [
    ["magic", 8],
    ["number", Math.min(4, file.length - 8)],
    ["opaque", Math.max(0, file.length - 12)],
  ])
  return mutateBytes(draws, whole, [whole])
}

const uploadMagic = "KNHUPL1\n"
const scanned: readonly ScannedEntry[] = ["a.txt", "folder/b"].map((name, index) => ({
  type: "file",
  path: name,
  from: `/source/${name}`,
  mark: { size: 200_000 * (index + 1), mtimeNs: 1_767_225_600_000_000_000n, ino: 42n },
  mtimeMs: 0,
  executable: index === 1,
}))

function scannedBytes({ mark, executable, path: name }: ScannedEntry): Uint8Array {
  const fixed = Buffer.alloc(26)
  fixed[0] = 1
  fixed[1] = executable ? 1 : 0
  fixed.writeBigUInt64BE(BigInt(mark.size), 2)
  fixed.writeBigInt64BE(mark.mtimeNs, 10)
  fixed.writeBigUInt64BE(mark.ino, 18)
  return join(fixed, Buffer.from(name))
}

function uploadRecords(vectors: Vectors): SketchedRecord[] {
  const entries = scanned.map(scannedBytes)
  const header = hex(vectors.deliveries[0]?.header ?? "")
  const envelope = hex(vectors.deliveries[0]?.envelopes[0]?.envelope ?? "")
  const entryLayout = entries.flatMap(({ length }): Layout => [
    ["number", 2],
    ["number", 1],
    ["flags", 1],
    ["number", 8],
    ["number", 8],
    ["number", 8],
    ["opaque", length - 26],
    ["opaque", 24],
  ])
  const u16 = (value: number) => u32(value).subarray(2)
  return [
    sketchedRecord(
      1,
      [
        ["opaque", 32],
        ["opaque", 16],
        ["opaque", 16],
        ["opaque", 32],
        ["number", 4],
      ],
      join(filled(96, 1), u32(entries.length)),
    ),
    sketchedRecord(
      2,
      entryLayout,
      ...entries.flatMap((entry) => [u16(entry.length), entry, filled(24, 2)]),
    ),
    sketchedRecord(
      3,
      [
        ["opaque", 16],
        ["opaque", 32],
      ],
      filled(48, 3),
    ),
    sketchedRecord(
      4,
      [
        ["number", 4],
        ["opaque", 16],
        ["opaque", 16],
      ],
      u32(0),
      filled(32, 4),
    ),
    ...[0, 1, 2].map((part) =>
      sketchedRecord(
        5,
        [
          ["number", 4],
          ["opaque", 32],
        ],
        u32(part),
        filled(32, 5 + part),
      ),
    ),
    sketchedRecord(
      6,
      [
        ["opaque", 184],
        ["number", 1],
        ["number", 2],
        ["opaque", envelope.length],
      ],
      header,
      Uint8Array.of(1),
      u16(envelope.length),
      envelope,
    ),
  ]
}

function uploadJournals({ uploadJournal }: Subject, vectors: Vectors): Target {
  const known = uploadRecords(vectors)
  const valid = encodeJournal(
    uploadMagic,
    known.map((record) => ({ type: record.type, payload: record.sketch.bytes })),
  )
  const file = path.join(scratchFolder(), "journal")
  return {
    name: "upload journal",
    seeds: [valid, encodeJournal(uploadMagic, wholeRecords(uploadMagic, valid).slice(0, 2))],
    make: (draws) => makeJournal(draws, uploadMagic, known, 6),
    run: async (input) => {
      const bytes = mustBeBytes(input)
      writeFileSync(file, bytes)
      const reopened = await uploadJournal.reopenUploadJournal(file, scanned)
      if (reopened.kind === "none") return "refused"
      const { journal } = reopened
      await journal.close()
      const records = wholeRecords(uploadMagic, bytes)
      const start = records[0]?.payload ?? new Uint8Array()
      mustEqual("the secret", journal.secrets.ds, start.subarray(0, 32))
      const holds = (type: number, payload: Uint8Array) =>
        records.some(
          (record) => record.type === type && Buffer.compare(record.payload, payload) === 0,
        )
      for (const [part, leaf] of Object.entries(journal.leaves)) {
        if (leaf !== undefined)
          mustHold("a leaf it was told", holds(5, join(u32(Number(part)), leaf)))
      }
      if (journal.upload) {
        const { id, token } = journal.upload
        mustHold("the upload it was told", holds(3, join(hex(id), token)))
      }
      if (reopened.kind === "resumed") {
        mustHold("as many secrets as entries", journal.entryCount === reopened.entries.length)
      }
      return reopened.kind === "resumed" ? "accepted" : "refused"
    },
  }
}

const receiveMagic = "KNHRCV1\n"

function receiveJournals({ receiveJournal }: Subject): Target {
  const headerHash = filled(32, 7)
  const names = Buffer.from('["a.txt","folder"]')
  const renamed = Buffer.from('["a:b","a%3Ab"]')
  const former = Buffer.from("this file system does not allow its name")
  const run: Layout = [
    ["number", 1],
    ["number", 4],
    ["number", 4],
  ]
  const known = [
    sketchedRecord(1, [["opaque", 32]], headerHash),
    sketchedRecord(2, [["opaque", 36]], Buffer.from("0f0f0f0f-0000-4000-8000-000000000000")),
    sketchedRecord(3, run, Uint8Array.of(0), u32(0), u32(4)),
    sketchedRecord(3, run, Uint8Array.of(1), u32(9), u32(1)),
    sketchedRecord(4, [["number", 4]], u32(2)),
    sketchedRecord(
      5,
      [
        ["number", 4],
        ["opaque", former.length],
      ],
      u32(1),
      former,
    ),
    sketchedRecord(
      9,
      [
        ["number", 4],
        ["number", 1],
        ["opaque", 5],
      ],
      u32(2),
      Uint8Array.of(1),
      Buffer.from("a.txt"),
    ),
    sketchedRecord(8, [["opaque", renamed.length]], renamed),
    sketchedRecord(6, [["opaque", names.length]], names),
    sketchedRecord(10, [["opaque", names.length]], names),
    sketchedRecord(7, []),
  ]
  const valid = encodeJournal(
    receiveMagic,
    known.map((record) => ({ type: record.type, payload: record.sketch.bytes })),
  )
  const file = path.join(scratchFolder(), "journal")
  return {
    name: "receive journal",
    seeds: [valid, encodeJournal(receiveMagic, wholeRecords(receiveMagic, valid).slice(0, 5))],
    make: (draws) => makeJournal(draws, receiveMagic, known, 10),
    run: async (input) => {
      const bytes = mustBeBytes(input)
      writeFileSync(file, bytes)
      const journal = await receiveJournal.reopenReceiveJournal(
        file,
        (start) => Buffer.compare(start, headerHash) === 0,
      )
      if (journal === undefined) return "refused"
      await journal.close()
      const records = wholeRecords(receiveMagic, bytes)
      mustEqual("the delivery", records[0]?.payload ?? new Uint8Array(), headerHash)
      for (const { kind, first, count } of journal.done) {
        const told = join(u32(first), u32(count))
        const isTold = records.some(
          ({ type, payload }) =>
            type === 3 &&
            (payload[0] === 0) === (kind === "chunks") &&
            Buffer.compare(payload.subarray(1, 9), told) === 0,
        )
        mustHold("a run that was done", isTold)
      }
      const failures = records.filter(({ type }) => type === 5 || type === 9)
      mustHold("as many failures as noted", journal.failed.length === failures.length)
      const isPlaced = records.some(({ type }) => type === 7)
      mustHold("placed only when told", journal.stage !== "placed" || isPlaced)
      return "accepted"
    },
  }
}

function sentRecords({ sent, errors }: Subject, vectors: Vectors): Target {
  const folder = scratchFolder()
  const id = "00112233445566778899aabbccddeeff"
  const other = id.replaceAll("0", "1")
  const [address = ""] = Object.values(vectors.people).map((person) => person.address)
  const receipt = Buffer.from(vectors.records.receipt, "hex").toString("base64url")
  const sample = {
    v: 1,
    id,
    origin: "https://relay.example",
    addresses: [address],
    receipts: [{ address, receipt }],
    acceptedMs: 1,
    expiresMs: 2,
    entries: 3,
    contentBytes: 4,
    deleteCapability: Buffer.alloc(32, 9).toString("base64url"),
  }
  return {
    name: "sent record",
    seeds: ["", JSON.stringify(sample)],
    make: fromJson([sample]).make,
    run: (input) => {
      const text = mustBeText(input)
      // Nothing was sent yet, or this and one more.
      rmSync(path.join(folder, "sent"), { recursive: true, force: true })
      if (text !== "") {
        mkdirSync(path.join(folder, "sent"))
        writeFileSync(path.join(folder, "sent", id), text)
        writeFileSync(path.join(folder, "sent", other), JSON.stringify({ ...sample, id: other }))
      }
      return judgeLater(
        [errors.FormatError],
        () => sent.listSent({ folder }),
        (records) => {
          mustHold("as many as there are", records.length === (text === "" ? 0 : 2))
          mustHold(
            "no capability",
            records.every((record) => !("deleteCapability" in record)),
          )
        },
      )
    },
  }
}

export function journalTargets(subject: Subject, vectors: Vectors): Target[] {
  return [uploadJournals(subject, vectors), receiveJournals(subject), sentRecords(subject, vectors)]
}
