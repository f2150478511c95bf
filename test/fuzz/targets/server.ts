/** The relay's parsers: settings, paths, the body of a finish as it comes, and the records on its disk. */
import type { IncomingMessage, ServerResponse } from "node:http"
import { Readable } from "node:stream"
import type { Clock } from "../../../server/clock.js"
import type { Disk } from "../../../server/disk.js"
import type { Commit, Ended } from "../../../server/stores/blob-store.js"
import type { LoggedInbox } from "../../../server/stores/inbox-log.js"
import { mutateBytes, sketch, type FieldKind, type Sketch } from "../mutate-bytes.js"
import { fromJson, mutateJson, type Json } from "../mutate-json.js"
import { fromTexts } from "../mutate-text.js"
import { hex, type Subject, type Vectors } from "../subject.js"
import {
  judge,
  judgeLater,
  mustBeBytes,
  mustBeText,
  mustEqual,
  mustHold,
  type Target,
} from "../target.js"
import { finishSketches, readJson, says } from "./messages.js"

function isCount(value: number, least: number, most: number): boolean {
  return Number.isSafeInteger(value) && value >= least && value <= most
}

function configs({ config, errors }: Subject): Target {
  const samples: Json[] = [
    { flags: {}, env: { HOME: "/home/relay" } },
    {
      flags: {
        listen: "[::1]:8787",
        data: "/srv/relay",
        publicUrl: ["https://relay.example", "http://localhost:8787"],
        registration: "closed",
        keep: "90m",
        deliveryLimit: "64GiB",
        inboxLimit: "64 GiB",
        inboxDeliveries: "1000",
        diskHeadroom: "0",
        requestSize: "16MiB",
        trustedProxies: "10.0.0.0/8,::1",
      },
      env: {},
    },
    {
      flags: { listen: "127.0.0.1:0" },
      env: {
        KNOTHOLE_HOME: "/home/relay",
        KNOTHOLE_PUBLIC_URL: "https://relay.example https://other.example:8443",
        KNOTHOLE_KEEP: "30d",
        KNOTHOLE_REGISTRATION: "open",
      },
    },
    {
      flags: { tlsCert: "/etc/relay.pem", tlsKey: "/etc/relay.key", logLevel: "warning" },
      env: { HOME: "/home/relay", KNOTHOLE_PUBLIC_URL: "https://relay.example" },
    },
    {
      flags: { config: "/etc/relay" },
      env: { KNOTHOLE_KEEP: "30d" },
      file: '# a comment\nKNOTHOLE_DATA="/srv/relay"\nKNOTHOLE_KEEP = 7d\nKNOTHOLE_TRUSTED_PROXIES=1\n',
    },
  ]
  return {
    name: "relay's settings",
    ...fromJson(samples),
    run: (input) => {
      const sources = readSources(mustBeText(input))
      if (sources === undefined) return "refused"
      return judge(
        [errors.FormatError],
        () => {
          try {
            return config.loadConfig(sources)
          } catch (error) {
            if (!(error instanceof config.ConfigError)) throw error
            // It repeats what the operator wrote, however long, and is shown to nobody else.
            throw new errors.FormatError("settings", `${error.problems.length} problems`)
          }
        },
        (found) => {
          const { listen, keepMs, deliveryBytes, inboxBytes, inboxDeliveries, requestBytes } = found
          mustHold("it can be shown", config.showConfig(sources).includes("KNOTHOLE_LISTEN="))
          mustHold("a port", isCount(listen.port, 0, 65_535) && listen.host !== "")
          mustHold("a folder", found.dataFolder !== "" && !found.dataFolder.includes("\0"))
          mustHold("a time to keep", isCount(keepMs, 60_000, 30 * 86_400_000))
          mustHold("a longest", isCount(found.keepMaxMs, keepMs, 30 * 86_400_000))
          mustHold("a delivery's limit", isCount(deliveryBytes, 16_384, 2 ** 36))
          mustHold("an inbox's limit", isCount(inboxBytes, 16_384, 2 ** 53 - 1))
          mustHold("its deliveries", isCount(inboxDeliveries, 1, 100_000))
          mustHold("a request", isCount(requestBytes, 2 ** 20, 2 ** 24))
          mustHold("head-room", isCount(found.diskHeadroomBytes ?? 0, 0, 2 ** 53 - 1))
          for (const origin of found.publicOrigins) {
            mustHold("an origin of its own form", new URL(origin).origin === origin)
          }
        },
      )
    },
  }
}

/** What the program hands over: texts, and of flags also lists of texts. */
function readSources(text: string): Parameters<Subject["config"]["loadConfig"]>[0] | undefined {
  const value: unknown = readJson(text)?.value
  if (typeof value !== "object" || value === null) return undefined
  const given = new Map<string, unknown>(Object.entries(value))
  const members = (name: string): [string, unknown][] => {
    const found = given.get(name)
    return typeof found === "object" && found !== null ? Object.entries(found) : []
  }
  const flags = members("flags").flatMap(([name, flag]): [string, string | string[]][] => {
    if (typeof flag === "string") return [[name, flag]]
    if (!Array.isArray(flag)) return []
    return [[name, flag.filter((item) => typeof item === "string")]]
  })
  // An environment's texts end at a NUL, so there is none in them.
  const env = members("env").filter((member): member is [string, string] => {
    return typeof member[1] === "string" && !member[1].includes("\0")
  })
  const file = given.get("file")
  return {
    flags: Object.fromEntries(flags),
    env: Object.fromEntries(env),
    readFile: () => (typeof file === "string" ? file : ""),
  }
}

function pathTexts({ ids, errors, refusals, uploads }: Subject, vectors: Vectors): Target[] {
  const id = "0123456789abcdef0123456789abcdef"
  const addresses = Object.values(vectors.people).map(({ address }) => address)
  const withHosts = addresses.map((address) => `${address}@relay.example`)
  const pathAddresses = {
    seeds: fromTexts(addresses).seeds,
    make: fromTexts([...addresses, ...withHosts]).make,
  }
  const documented = [errors.FormatError, refusals.RelayRefusal]
  return [
    {
      name: "relay's path id",
      ...fromTexts([id, id.replaceAll("0", "f")]),
      run: (input) =>
        judge(
          documented,
          () => ids.parsePathId(mustBeText(input)),
          (found) => mustHold("one spelling", ids.deliveryIdOf(hex(found)) === mustBeText(input)),
        ),
    },
    {
      name: "relay's inbox in a path",
      ...pathAddresses,
      allocation: { perByte: 4096, fixed: 8 * 1024 * 1024 },
      run: (input) =>
        judge(
          documented,
          () => ids.parseInboxAddress(mustBeText(input)),
          (found) => mustHold("one spelling", ids.addressOf(found) === mustBeText(input)),
        ),
    },
    {
      name: "relay's inbox on its page",
      ...pathAddresses,
      allocation: { perByte: 4096, fixed: 8 * 1024 * 1024 },
      run: (input) =>
        judge(
          [refusals.RelayRefusal],
          () => ids.parsePathInbox(mustBeText(input)),
          (found) => mustHold("one spelling", ids.addressOf(found) === mustBeText(input)),
        ),
    },
    {
      name: "idempotency key",
      ...fromTexts([id]),
      run: (input) =>
        judge(
          documented,
          () => uploads.parseIdempotencyKey(mustBeText(input)),
          (found) =>
            mustHold("one spelling", Buffer.from(found).toString("hex") === mustBeText(input)),
        ),
    },
  ]
}

/** No time passes in a fuzzer. */
const stoppedClock: Clock = {
  wallMs: () => 0,
  monotonicMs: () => 0,
  after: () => () => undefined,
}

function finishBodies(subject: Subject, vectors: Vectors): Target {
  const { finishBody, messages, errors } = subject
  const sketches = finishSketches(subject, vectors)
  return {
    name: "finish, as it comes",
    seeds: sketches.map(({ bytes }) => new Uint8Array(Buffer.concat([Uint8Array.of(3, 9), bytes]))),
    // The first two bytes say how it is cut into pieces.
    make: (draws) => {
      const cuts = Uint8Array.of(draws.below(256), draws.below(256))
      const bytes = mutateBytes(draws, draws.pick(sketches), sketches)
      return new Uint8Array(Buffer.concat([cuts, bytes]))
    },
    run: async (input) => {
      const [every = 0, first = 0] = mustBeBytes(input)
      const bytes = mustBeBytes(input).subarray(2)
      const chunks = [bytes.subarray(0, first)]
      const step = 1 + every * 16
      for (let at = first; at < bytes.length; at += step) chunks.push(bytes.subarray(at, at + step))
      const headers = { "content-length": String(bytes.length) }
      const request: unknown = Object.assign(
        Readable.from(chunks.filter(({ length }) => length > 0).map((chunk) => Buffer.from(chunk))),
        { headers },
      )
      const seen: { header?: Uint8Array; manifestLength?: number; manifest: Uint8Array[] } = {
        manifest: [],
      }
      return judgeLater(
        [errors.FormatError],
        () =>
          finishBody.receiveFinish({
            // A stream with headers is all of a request that is used, and an answer only for "100 Continue".
            req: request as IncomingMessage,
            res: {} as ServerResponse,
            clock: stoppedClock,
            lengthBytes: bytes.length,
            attempt: {
              header: async (header, manifestLength) => {
                seen.header = header.slice()
                seen.manifestLength = manifestLength
              },
              manifest: async (piece) => void seen.manifest.push(piece.slice()),
              complete: () => Promise.reject(new TypeError("not asked for here")),
              abandon: async () => undefined,
            },
          }),
        (envelopes) => {
          const manifest = new Uint8Array(Buffer.concat(seen.manifest))
          mustHold("the manifest's length", manifest.length === seen.manifestLength)
          const header = seen.header ?? new Uint8Array()
          // Counted only by whoever finishes: none, or one that is too long, fits no recipient.
          if (envelopes.length === 0) return
          mustEqual("finish", messages.encodeFinish({ header, manifest, envelopes }), bytes)
        },
      )
    },
  }
}

// Records with a MAC: with it made anew, so that what is behind it is reached, and as they are.

const recordKey = new Uint8Array(32).fill(51)

function macOf(subject: Subject, kind: string, name: string, line: string): string {
  const { provider, bytes } = subject
  const text = `${kind} ${name}\n${line}`
  return bytes.toHex(provider.hmacSha256(recordKey, new Uint8Array(Buffer.from(text))))
}

const hash = (byte: number) => new Uint8Array(32).fill(byte)

function storedRecords(subject: Subject, vectors: Vectors): Target[] {
  const { deliveryRecords: d, ids } = subject
  const id = ids.deliveryIdOf(new Uint8Array(16).fill(0xab))
  const inbox = ids.inboxIdOf(new Uint8Array(20).fill(0xcd))
  const upload = {
    id,
    tokenHash: hash(1),
    startHash: hash(2),
    deleteHash: hash(3),
    recipients: [inbox, ids.inboxIdOf(new Uint8Array(20).fill(0xce))],
    createdMs: 1,
    reservedBytes: 2 ** 36,
    expiresMs: 2,
  }
  const commit: Commit = {
    id,
    tokenHash: hash(1),
    startHash: hash(2),
    deleteHash: hash(3),
    createdMs: 1,
    acceptedMs: 2,
    expiresMs: 3,
    lane: 1,
    header: hex(vectors.deliveries[0]?.header ?? ""),
    links: [
      { inbox, envelopeHash: hash(4), envelopeBytes: 984 },
      { inbox, envelopeHash: hash(5), envelopeBytes: 2232 },
    ],
  }
  const ended: Ended = { commit, states: ["taken", "expired"], forgetMs: 9 }
  const record = <T>(
    kind: string,
    samples: readonly T[],
    encode: (key: Uint8Array, value: T) => Uint8Array,
    parse: (key: Uint8Array, name: typeof id, bytes: Uint8Array) => T,
  ) => {
    const parseHere = (key: Uint8Array, bytes: Uint8Array) => parse(key, id, bytes)
    return maced(subject, { kind, name: id, samples, encode, parse: parseHere })
  }
  return [
    ...record("upload.v1", [upload], d.encodeUpload, d.parseUpload),
    ...record("commit.v1", [commit], d.encodeCommit, d.parseCommit),
    ...record("ended.v1", [ended], d.encodeEnded, d.parseEnded),
    ...maced(subject, {
      kind: "login.v1",
      name: inbox,
      samples: [0, 180],
      encode: (key, servedDay) => d.encodeLogin(key, inbox, servedDay),
      parse: (key, bytes) => d.parseLogin(key, inbox, bytes),
    }),
    ...maced(subject, {
      kind: "days.v1",
      name: "relay",
      samples: [{ day: 20_000, count: 180 }],
      encode: d.encodeDays,
      parse: d.parseDays,
    }),
    linkSlots(subject, commit, vectors),
  ]
}

/** Of the two zeros that JSON can write, a relay writes one and reads both. */
function isSame(a: unknown, b: unknown): boolean {
  return a === b
}

function maced<T>(
  subject: Subject,
  form: {
    readonly kind: string
    /** Of what it is a record. */
    readonly name: string
    readonly samples: readonly T[]
    readonly encode: (key: Uint8Array, value: T) => Uint8Array
    readonly parse: (key: Uint8Array, bytes: Uint8Array) => T
  },
): Target[] {
  const { kind, name, samples, encode, parse } = form
  const records = samples.map((sample) => encode(recordKey, sample))
  const lines = records.map((record) => Buffer.from(record).toString().slice(0, -66))
  const values = lines.map((line) => JSON.parse(line) as Json)
  const sketches = records.map((bytes) =>
    sketch(bytes, [
      ["opaque", bytes.length - 66],
      ["magic", 1],
      ["opaque", 64],
      ["magic", 1],
    ]),
  )
  const good = new Set(records.map((record) => Buffer.from(record).toString("hex")))
  return [
    {
      name: kind,
      seeds: lines,
      make: (draws) => mutateJson(draws, draws.pick(values), values),
      run: (input) => {
        const line = mustBeText(input)
        const document = readJson(line)
        // A relay never puts a MAC on what is not JSON.
        if (document === undefined || line.includes("\n")) return "refused"
        const bytes = Buffer.from(`${line}\n${macOf(subject, kind, name, line)}\n`)
        return judge(
          [subject.macedRecord.DamagedRecord],
          () => parse(recordKey, new Uint8Array(bytes)),
          (found) => {
            const again = Buffer.from(encode(recordKey, found)).toString().slice(0, -66)
            mustHold("one meaning", says(document.value, JSON.parse(again), false, isSame))
          },
        )
      },
    },
    {
      name: `${kind}, with its MAC`,
      seeds: records,
      make: (draws) => mutateBytes(draws, draws.pick(sketches), sketches),
      run: (input) =>
        judge(
          [subject.macedRecord.DamagedRecord],
          () => parse(recordKey, mustBeBytes(input)),
          () => {
            const mine = good.has(Buffer.from(mustBeBytes(input)).toString("hex"))
            mustHold("a record nobody made", mine)
          },
        ),
    },
  ]
}

function linkSlots(subject: Subject, commit: Commit, vectors: Vectors): Target {
  const { deliveryRecords: d, provider, bytes, errors, macedRecord } = subject
  const envelope = hex(vectors.deliveries[0]?.envelopes[0]?.envelope ?? "")
  const place = { id: commit.id, slot: 0 }
  const commitLink = {
    inbox: commit.links[0]?.inbox ?? missing(),
    envelopeHash: new Uint8Array(32),
  }
  const link = { seq: 7, head: new Uint8Array(32).fill(1), stamp: hex(vectors.records.stamp) }
  const published = d.encodeSlots([envelope])
  published.set(d.encodeLink(recordKey, place, link))
  const layout: readonly (readonly [FieldKind, number])[] = [
    ["number", 8],
    ["opaque", 32],
    ["opaque", 244],
    ["opaque", 196],
    ["opaque", 32],
    ["opaque", envelope.length],
    ["opaque", d.slotBytes - 512 - envelope.length],
  ]
  const sketches = [published, d.encodeSlots([envelope])].map((slot) => sketch(slot, layout))
  return {
    name: "links.v1",
    seeds: sketches.map((one) => one.bytes),
    make: (draws) => {
      const slot = mutateBytes(draws, draws.pick(sketches), sketches)
      if (draws.chance(0.5) && slot.length >= 512) {
        const open = slot.subarray(0, 480)
        const prefix = new Uint8Array(Buffer.from(`links.v1 ${place.id} ${place.slot}\n`))
        slot.set(provider.hmacSha256(recordKey, prefix, open), 480)
      }
      return slot
    },
    run: (input) =>
      judge(
        [macedRecord.DamagedRecord, errors.FormatError],
        () =>
          d.parseSlot(recordKey, place, mustBeBytes(input), {
            ...commitLink,
            envelopeBytes: envelope.length,
          }),
        (found) => {
          const slot = mustBeBytes(input)
          mustEqual("envelope", found.envelope, slot.subarray(512, 512 + envelope.length))
          const prefix = new Uint8Array(Buffer.from(`links.v1 ${place.id} ${place.slot}\n`))
          const mac = provider.hmacSha256(recordKey, prefix, slot.subarray(0, 480))
          const isOurs = bytes.equalBytes(mac, slot.subarray(480, 512))
          mustHold("a link nobody made", (found.link !== undefined) === isOurs)
          if (found.link === undefined) return
          const { seq, head, stamp } = found.link
          const again = bytes.concatBytes(bytes.u64(seq), head, stamp)
          mustEqual("link", again, slot.subarray(0, again.length))
        },
      ),
  }
}

function missing(): never {
  throw new TypeError("the sample has a link")
}

// The log of an inbox

const logRecordBytes = 192

function inboxLogs(subject: Subject, vectors: Vectors): Target {
  const { inboxLog, provider, ids, bytes } = subject
  const inbox = ids.inboxIdOf(new Uint8Array(20).fill(0xcd))
  const withMac = (open: Uint8Array) =>
    bytes.concatBytes(
      open,
      provider.hmacSha256(recordKey, new Uint8Array(Buffer.from(`log.v1 ${inbox}\n`)), open),
    )
  const layout: readonly (readonly [FieldKind, number])[] = [
    ["number", 1],
    ["number", 1],
    ["number", 2],
    ["number", 2],
    ["reserved", 2],
    ["number", 8],
    ["opaque", 16],
    ["opaque", 64],
    ["number", 8],
    ["number", 8],
    ["opaque", 32],
    ["reserved", 16],
    ["opaque", 32],
  ]
  const record = (kind: number, reason: number, seq: number): Sketch => {
    const open = bytes.concatBytes(
      Uint8Array.of(kind, reason, 0, 0, 0, 0, 0, 0),
      bytes.u64(seq),
      new Uint8Array(80).fill(kind === 3 ? 0 : seq),
      bytes.u64(kind === 3 ? 0 : 1000 + seq),
      bytes.u64(kind === 3 ? 0 : 2000 + seq),
      new Uint8Array(32).fill(seq),
      new Uint8Array(16),
    )
    return sketch(withMac(open), layout)
  }
  const records = [record(1, 0, 1), record(1, 0, 2), record(2, 1, 1), record(3, 0, 1)]
  const more = [...records, record(1, 0, 3), record(2, 5, 2), record(3, 0, 0)]
  const log = (...some: readonly Sketch[]) => bytes.concatBytes(...some.map((one) => one.bytes))
  const bundle = hex(vectors.people.rsaOnly.bundle)
  return {
    name: "inbox log",
    seeds: [new Uint8Array(0), log(...records.slice(0, 2)), log(...records)],
    make: (draws) => {
      const some = Array.from({ length: draws.between(0, 6) }, () => {
        const one = draws.pick(more)
        if (draws.chance(0.5)) return one.bytes
        const changed = mutateBytes(draws, one, more)
        if (draws.chance(0.3) || changed.length < logRecordBytes) return changed
        return withMac(changed.subarray(0, logRecordBytes - 32))
      })
      return bytes.concatBytes(...some)
    },
    // It is read in pieces of one size, whatever its length.
    allocation: { perByte: 64, fixed: 1024 * 1024 },
    run: async (input) => {
      const file = mustBeBytes(input)
      const logs = inboxLog.openInboxLogs({
        disk: readOnlyDisk(
          new Map([
            ["bundle", bundle],
            ["log.v1", file],
          ]),
        ),
        path: "inboxes",
        recordKey,
        random: (length) => new Uint8Array(length),
      })
      const found = await logs.read(inbox)
      if (found === undefined) return "refused"
      checkFold(subject, file, withMac, found)
      return found.damaged === 0 ? "accepted" : "refused"
    },
  }
}

const seqOf = (one: Uint8Array) => Buffer.from(one).readBigUInt64BE(8)

/** What a relay could have written: a MAC that the fuzzer made says nothing of that. */
function isWhole(record: Uint8Array): boolean {
  const bytes = Buffer.from(record)
  const numbers = [8, 96, 104].map((at) => bytes.readBigUInt64BE(at))
  const [kind = 0, reason = 0] = record
  return (
    numbers.every((number) => number < 2n ** 53n) &&
    bytes.subarray(6, 8).every((byte) => byte === 0) &&
    bytes.subarray(144, 160).every((byte) => byte === 0) &&
    (kind !== 2 || (reason >= 1 && reason <= 5))
  )
}

/** Only what its own records say, in order, and never more than they do. */
function checkFold(
  { bytes }: Subject,
  file: Uint8Array,
  withMac: (open: Uint8Array) => Uint8Array,
  found: LoggedInbox,
): void {
  const good: Uint8Array[] = []
  for (let at = 0; at + logRecordBytes <= file.length; at += logRecordBytes) {
    const one = file.subarray(at, at + logRecordBytes)
    if (bytes.equalBytes(withMac(one.slice(0, -32)), one) && isWhole(one)) good.push(one)
  }
  // One that claims to be of an append with others may have been torn with them.
  const areAlone = good.every((one) => one.subarray(2, 6).every((byte) => byte === 0))
  const buried = new Set(areAlone ? good.filter(([kind]) => kind === 2).map(seqOf) : [])
  let last = found.floorSeq
  for (const place of found.places) {
    mustHold("places ascend from the floor", place.seq > last)
    last = place.seq
    const says = good.some(
      (one) =>
        seqOf(one) === BigInt(place.seq) &&
        bytes.equalBytes(one.subarray(32, 64), place.headerHash) &&
        bytes.equalBytes(one.subarray(112, 144), place.head),
    )
    mustHold("a place that no record names", says)
    if (place.kind === "published") {
      mustHold("a buried entry came back", !buried.has(BigInt(place.seq)))
    }
  }
  mustHold("damage is counted", Number.isSafeInteger(found.damaged) && found.damaged >= 0)
}

const refuse = () => Promise.reject(new TypeError("a log is only read here"))

/** Files by the last component of their path. */
function readOnlyDisk(files: ReadonlyMap<string, Uint8Array>): Disk {
  return {
    create: refuse,
    rename: refuse,
    unlink: refuse,
    makeFolder: refuse,
    removeFolder: refuse,
    list: refuse,
    stat: refuse,
    syncFolder: refuse,
    space: refuse,
    readSmallFiles: refuse,
    open: async (path) => {
      const content = files.get(path.slice(path.lastIndexOf("/") + 1)) ?? new Uint8Array(0)
      return {
        read: async (into, position) => {
          const piece = content.subarray(position, position + into.length)
          into.set(piece)
          return piece.length
        },
        write: refuse,
        truncate: refuse,
        sync: refuse,
        sizeBytes: async () => content.length,
        close: async () => undefined,
      }
    },
  }
}

export function serverTargets(subject: Subject, vectors: Vectors): Target[] {
  return [
    configs(subject),
    ...pathTexts(subject, vectors),
    finishBodies(subject, vectors),
    ...storedRecords(subject, vectors),
    inboxLogs(subject, vectors),
  ]
}
