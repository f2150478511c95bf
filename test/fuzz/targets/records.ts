/** What a relay signs, reports, and what travels of a login. */
import { fromSketches, sketch, type FieldKind, type Sketch } from "../mutate-bytes.js"
import { hex, type Subject, type Vectors } from "../subject.js"
import { judge, mustBeBytes, mustEqual, mustHold, type Target } from "../target.js"

type Layout = readonly (readonly [FieldKind, number])[]

const prelude: Layout = [
  ["magic", 4],
  ["version", 1],
  ["number", 1],
  ["flags", 2],
]

const stampLayout: Layout = [
  ...prelude,
  ["number", 8],
  ["number", 8],
  ["opaque", 20],
  ["number", 8],
  ["opaque", 32],
  ["opaque", 32],
  ["opaque", 32],
  ["opaque", 64],
  ["opaque", 32],
]

const headerLayout: Layout = [
  ["magic", 4],
  ["version", 1],
  ["version", 1],
  ["reserved", 2],
  ["opaque", 16],
  ["number", 8],
  ["number", 4],
  ["number", 4],
  ["opaque", 32],
  ["opaque", 32],
  ["opaque", 32],
  ["opaque", 32],
  ["number", 8],
  ["reserved", 8],
]

function fixedInput(subject: Subject, vectors: Vectors) {
  const of = subject.records.parseStamp(hex(vectors.records.stamp))
  const source = {
    lane: 1,
    lineage: new Uint8Array(16).fill(3),
    sourcePseudonym: new Uint8Array(16),
  }
  const keys = vectors.records.random
  return {
    of,
    source,
    kFrank: hex(keys.K_frank),
    kSrc: hex(keys.K_src),
    signSeed: hex(keys.receipt_key),
    publicKey: hex(vectors.records.receipt_public_key),
    random: () => new Uint8Array(12).fill(9),
  }
}

/** `opaqueFrom`: where the signature or MAC begins, which a fuzzer cannot make again for other bytes. */
function signedRecord(options: {
  readonly name: string
  readonly subject: Subject
  readonly sketches: readonly Sketch[]
  readonly opaqueFrom: number
  readonly recode: (bytes: Uint8Array) => Uint8Array
  readonly verify: (bytes: Uint8Array) => boolean
}): Target {
  const { name, subject, sketches, opaqueFrom, recode, verify } = options
  const good = new Set(sketches.map(({ bytes }) => Buffer.from(bytes).toString("hex")))
  return {
    name,
    ...fromSketches(sketches),
    run: (input) => {
      const bytes = mustBeBytes(input)
      const isGood = good.has(Buffer.from(bytes).toString("hex"))
      mustHold("verified although nobody made it", verify(bytes) === isGood)
      return judge(
        [subject.errors.FormatError],
        () => recode(bytes),
        (again) => {
          mustEqual(name, again.subarray(0, opaqueFrom), bytes.subarray(0, opaqueFrom))
          mustHold("its length", again.length === bytes.length)
        },
      )
    },
  }
}

function stamps(subject: Subject, vectors: Vectors): Target {
  const { records } = subject
  const fixed = fixedInput(subject, vectors)
  const own = records.encodeStamp({ ...fixed.of, ...fixed, seq: 2 ** 53 - 1, kid: 255 })
  const link = { ...fixed.of, ...fixed, seq: 0, head: new Uint8Array(32) }
  return signedRecord({
    name: "stamp",
    subject,
    sketches: [hex(vectors.records.stamp), own, records.encodeStamp(link)].map((bytes) =>
      sketch(bytes, stampLayout),
    ),
    opaqueFrom: 148,
    recode: (bytes) => records.encodeStamp({ ...fixed, ...records.parseStamp(bytes) }),
    // The fixed kFrank is the one that all three were made with.
    verify: (bytes) => records.verifyStamp(bytes, fixed.kFrank),
  })
}

function stampSources(subject: Subject, vectors: Vectors): Target {
  const { records, errors, provider, bytes } = subject
  const { kSrc } = fixedInput(subject, vectors)
  const stamp = hex(vectors.records.stamp)
  return {
    name: "stamp source",
    ...fromSketches([
      sketch(hex(vectors.records.stamp_record36), [
        ["number", 1],
        ["number", 3],
        ["opaque", 16],
        ["reserved", 16],
      ]),
    ]),
    run: (input) => {
      const record = mustBeBytes(input)
      const nonce = stamp.subarray(148, 160)
      const sealed = provider.gcmSeal({
        key: kSrc,
        nonce,
        aad: stamp.subarray(0, 148),
        plaintext: record,
      })
      const whole = bytes.concatBytes(stamp.subarray(0, 160), sealed, new Uint8Array(32))
      return judge(
        [errors.FormatError, errors.OpenError],
        () => records.openStampSource(whole, kSrc),
        (source) => {
          const again = bytes.concatBytes(
            Uint8Array.of(source.lane),
            bytes.u64(records.stampEpoch(records.parseStamp(stamp).acceptedMs)).subarray(5),
            source.lineage,
            source.sourcePseudonym,
          )
          mustEqual("source", again, record)
        },
      )
    },
  }
}

function receipts(subject: Subject, vectors: Vectors): Target {
  const { records } = subject
  const fixed = fixedInput(subject, vectors)
  const layout: Layout = [
    ...prelude,
    ["opaque", 20],
    ["opaque", 32],
    ["opaque", 32],
    ["number", 8],
    ["number", 8],
    ["opaque", 64],
  ]
  const own = records.encodeReceipt({ ...fixed.of, ...fixed, acceptedMs: 0, kid: 0 })
  return signedRecord({
    name: "receipt",
    subject,
    sketches: [sketch(hex(vectors.records.receipt), layout), sketch(own, layout)],
    opaqueFrom: 108,
    recode: (bytes) => records.encodeReceipt({ ...fixed, ...records.parseReceipt(bytes) }),
    verify: (bytes) => records.verifyReceipt(bytes, fixed.publicKey),
  })
}

function heads(subject: Subject, vectors: Vectors): Target {
  const { records } = subject
  const fixed = fixedInput(subject, vectors)
  const layout: Layout = [
    ...prelude,
    ["opaque", 20],
    ["number", 8],
    ["number", 8],
    ["opaque", 32],
    ["number", 8],
    ["opaque", 64],
  ]
  const of = { ...records.parseHead(hex(vectors.records.head_record)), signSeed: fixed.signSeed }
  const restored = records.encodeHead({ ...of, restored: true, seq: 9, floorSeq: 9 })
  return signedRecord({
    name: "head",
    subject,
    sketches: [sketch(hex(vectors.records.head_record), layout), sketch(restored, layout)],
    opaqueFrom: 84,
    recode: (bytes) => records.encodeHead({ ...fixed, ...records.parseHead(bytes) }),
    verify: (bytes) => records.verifyHead(bytes, fixed.publicKey),
  })
}

function tombstones({ records, errors }: Subject, vectors: Vectors): Target {
  const layout: Layout = [
    ["number", 8],
    ["opaque", 32],
    ["opaque", 32],
    ["number", 8],
    ["number", 8],
    ["number", 1],
  ]
  const of = records.parseStamp(hex(vectors.records.stamp))
  const reasons = ["taken", "revoked", "expired", "lost", "removed"] as const
  return {
    name: "tombstone",
    ...fromSketches(
      reasons.map((reason) => sketch(records.encodeTombstone({ ...of, reason }), layout)),
    ),
    run: (input) =>
      judge(
        [errors.FormatError],
        () => records.parseTombstone(mustBeBytes(input)),
        (found) => mustEqual("tombstone", records.encodeTombstone(found), mustBeBytes(input)),
      ),
  }
}

function sketchReport(bytes: Uint8Array): Sketch {
  const length = (at: number) => Buffer.from(bytes).readUInt32BE(at)
  const shown = (): Layout => {
    switch (bytes[5] ?? 0) {
      case 1:
        return [["opaque", 32]]
      case 2: {
        const entry = length(516)
        const path = bytes.length - 436 - 16 - 64 - 4 - entry - 1
        return [
          ["number", 8],
          ["number", 8],
          ["opaque", 32],
          ["opaque", 32],
          ["number", 4],
          ...([
            ["number", 1],
            ["flags", 1],
            ["number", 2],
            ["opaque", entry - 4],
          ] as const),
          ["number", 1],
          ["opaque", path],
        ]
      }
      default:
        return [
          ["number", 8],
          ["opaque", 32],
          ["number", 4],
          ["opaque", length(476)],
          ["opaque", 32],
        ]
    }
  }
  return sketch(bytes, [
    ["magic", 4],
    ["version", 1],
    ["number", 1],
    ["number", 2],
    ...stampLayout,
    ...headerLayout,
    ...shown(),
  ])
}

function reports(subject: Subject, vectors: Vectors): Target[] {
  const { report, errors } = subject
  const { kFrank } = fixedInput(subject, vectors)
  const { report_whole, report_entry_3, report_note } = vectors.records
  const { manifest, made } = reportsOnTree(subject, vectors)
  const sketches = [report_whole, report_entry_3, report_note]
    .map(hex)
    .concat(made)
    .map(sketchReport)
  const good = new Map(sketches.map(({ bytes }) => [Buffer.from(bytes).toString("hex"), bytes]))
  return [
    {
      name: "report",
      ...fromSketches(sketches),
      run: (input) =>
        judge(
          [errors.FormatError],
          () => report.parseReport(mustBeBytes(input)),
          (found) => mustEqual("report", report.encodeReport(found), mustBeBytes(input)),
        ),
    },
    {
      name: "report, verified",
      ...fromSketches(sketches),
      run: (input) =>
        judge(
          [errors.FormatError],
          () =>
            report.verifyReport({
              report: mustBeBytes(input),
              frankKey: (kid) => (kid === 1 ? kFrank : undefined),
              manifest,
            }),
          (found) => {
            // All but the reason is bound by the stamp.
            const bytes = mustBeBytes(input).slice()
            bytes[7] = 3
            mustHold("a report nobody could make", good.has(Buffer.from(bytes).toString("hex")))
            mustHold("its kind", ["delivery", "entry", "note"].indexOf(found.kind) + 1 === bytes[5])
          },
        ),
    },
  ]
}

/** The manifest is sealed again: the vectors hold what it hashes to, not the ciphertext. */
function reportsOnTree(subject: Subject, vectors: Vectors) {
  const delivery = vectors.deliveries.find((one) => one.header === reportedHeader(vectors))
  if (delivery === undefined) throw new TypeError("the vectors hold no delivery for their reports")
  const header = subject.header.parseHeader(hex(delivery.header))
  const ds = hex(delivery.random["ds"] ?? "")
  const { ciphertext } = subject.manifest.sealManifest({
    ds,
    deliveryId: header.deliveryId,
    bodyRoot: header.bodyRoot,
    note: delivery.note,
    entries: delivery.entries.map(({ entry }) => subject.manifest.parseEntry(hex(entry))),
  })
  const input = {
    reason: "unlawful" as const,
    stamp: hex(vectors.records.stamp),
    header: hex(delivery.header),
    ds,
    manifest: subject.manifest.openManifest({ ds, header, ciphertext }),
  }
  const about = [
    { kind: "delivery" as const },
    { kind: "note" as const },
    ...delivery.entries.map((_, index) => ({ kind: "entry" as const, index })),
  ]
  const made = about.map((one) =>
    subject.report.encodeReport(subject.report.makeReport({ ...input, about: one })),
  )
  return { manifest: ciphertext, made }
}

function reportedHeader(vectors: Vectors): string {
  return vectors.records.report_whole.slice(2 * 252, 2 * 436)
}

export { headerLayout }

export function recordTargets(subject: Subject, vectors: Vectors): Target[] {
  return [
    stamps(subject, vectors),
    stampSources(subject, vectors),
    receipts(subject, vectors),
    heads(subject, vectors),
    tombstones(subject, vectors),
    ...reports(subject, vectors),
  ]
}
