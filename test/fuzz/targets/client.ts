/** What a client reads: its own files after whatever happened to them, and a relay's listing. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { fromSketches, sketch } from "../mutate-bytes.js"
import { fromJson, type Json } from "../mutate-json.js"
import { fromTexts, mutateText } from "../mutate-text.js"
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
import { personOf } from "./identity.js"
import { readJson } from "./messages.js"

/** A folder for the files that parsers here insist on opening themselves; gone with the process. */
export function scratchFolder(): string {
  const folder = mkdtempSync(path.join(tmpdir(), "knothole-fuzz-client-"))
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }))
  return folder
}

export const filled = (length: number, byte: number) => new Uint8Array(length).fill(byte)

function pinFiles({ pins, errors, clientErrors }: Subject, vectors: Vectors): Target {
  const folder = scratchFolder()
  const origin = "https://relay.example"
  const key = hex(vectors.records.receipt_public_key)
  const text = `${origin} ${Buffer.from(key).toString("base64url")}\n`
  // Its name is a hash of the origin: the first meeting tells which.
  let file: string | undefined
  return {
    name: "pin",
    ...fromTexts([text]),
    run: async (input) => {
      const content = mustBeText(input)
      file ??= await pinFileOf(pins, folder, origin, key)
      writeFileSync(file, content)
      return judgeLater(
        [errors.FormatError, clientErrors.Untrustworthy],
        () => pins.checkPin({ folder }, origin, key),
        () => mustHold("the key that was met", content.includes(text.trim().split(" ")[1] ?? "")),
      )
    },
  }
}

async function pinFileOf(
  pins: Subject["pins"],
  folder: string,
  origin: string,
  key: Uint8Array,
): Promise<string> {
  await pins.checkPin({ folder }, origin, key)
  const [name = ""] = readdirSync(path.join(folder, "pins"))
  return path.join(folder, "pins", name)
}

async function inboxCaches(subject: Subject, vectors: Vectors): Promise<Target> {
  const { inboxCache, provider, bytes } = subject
  const identity = await personOf(subject, vectors.people.rsaOnly)
  const file = path.join(scratchFolder(), "cache")
  const row = { id: "00", seq: 1, pair: "00", receivedMs: 1, expiresMs: 2, note: "note" }
  const key = provider.hkdfSha256({
    ikm: identity.authSeed,
    salt: new Uint8Array(0),
    info: new Uint8Array(Buffer.from("knothole client inbox cache v1")),
    length: 32,
  })
  const nonce = filled(12, 3)
  const plaintext = new Uint8Array(Buffer.from(JSON.stringify([row])))
  const sealed = provider.gcmSeal({ key, nonce, plaintext })
  const valid = bytes.concatBytes(Buffer.from("KNHC\x01"), nonce, sealed)
  return {
    name: "inbox cache",
    ...fromSketches([
      sketch(valid, [
        ["magic", 4],
        ["version", 1],
        ["opaque", 12],
        ["opaque", sealed.length],
      ]),
    ]),
    run: async (input) => {
      const content = mustBeBytes(input)
      if (content.length === 0) rmSync(file, { force: true })
      else writeFileSync(file, content)
      const cache = new inboxCache.InboxCache(file, identity)
      await cache.load()
      const isValid = Buffer.compare(content, valid) === 0
      mustHold("it knows what it sealed and nothing else", cache.isEmpty !== isValid)
      return isValid ? "accepted" : "refused"
    },
  }
}

// A relay's listing, whose relay may lie

/** What a relay could do otherwise than an honest one, each caught by another check. */
interface ListingLie {
  readonly headInbox?: Uint8Array
  readonly headSeq?: number
  readonly signSeed?: Uint8Array
  readonly floorHead?: Uint8Array
  readonly stampInbox?: Uint8Array
  readonly stampSeq?: number
  readonly stampHead?: Uint8Array
  readonly id?: string
  readonly envelope?: Uint8Array
  /** Not a lie: the entries up to here are no longer listed. */
  readonly floorSeq?: number
}

function makeListing(subject: Subject, vectors: Vectors, lie: ListingLie) {
  const { messages, records, header } = subject
  const { K_frank, K_src, receipt_key } = vectors.records.random
  const inboxId = filled(20, 9)
  const floorSeq = lie.floorSeq ?? 0
  const deliveries = vectors.deliveries.slice(0, 3)
  let head = records.emptyChainHead()
  const heads = [head]
  const entries = deliveries.map((delivery, index) => {
    const seq = index + 1
    const headerBytes = hex(delivery.header)
    const envelope = hex(delivery.envelopes[0]?.envelope ?? "")
    const record = {
      headerHash: header.headerHash(headerBytes),
      envelopeHash: subject.envelope.envelopeHash(envelope),
      acceptedMs: 1000 + seq,
      expiresMs: 2000 + seq,
    }
    head = records.chainHead({ ...record, previous: head, seq })
    heads.push(head)
    if (seq === 2) {
      const tombstone = records.encodeTombstone({ ...record, seq, reason: "taken" })
      return { kind: "gone" as const, seq, tombstone }
    }
    const stamp = records.encodeStamp({
      ...record,
      kid: 1,
      inboxId: lie.stampInbox ?? inboxId,
      seq: lie.stampSeq ?? seq,
      head: lie.stampHead ?? head,
      source: { lane: 1, lineage: filled(16, 1), sourcePseudonym: filled(16, 0) },
      kFrank: hex(K_frank),
      kSrc: hex(K_src),
      random: (length) => filled(length, 4),
    })
    const id = lie.id ?? String(seq).padStart(32, "0")
    const withEnvelope = seq === 3 && { envelope: lie.envelope ?? envelope }
    return { kind: "waiting" as const, seq, id, stamp, header: headerBytes, ...withEnvelope }
  })
  const signed = records.encodeHead({
    kid: 1,
    inboxId: lie.headInbox ?? inboxId,
    asOfMs: 5000,
    seq: lie.headSeq ?? 3,
    head,
    floorSeq,
    signSeed: lie.signSeed ?? hex(receipt_key),
  })
  const page = {
    head: signed,
    floor: { seq: floorSeq, head: lie.floorHead ?? heads[floorSeq] ?? head },
    entries: entries.slice(floorSeq),
    more: false,
    used: { bytes: 1, deliveries: 2 },
    newAfter: 0,
  }
  // A page is a message as the relay's encoder makes it, and that is JSON.
  return { page: { ...messages.encodeInboxPage(page) } as Json, heads, inboxId }
}

function listings(subject: Subject, vectors: Vectors): Target {
  const { chain, clientErrors, errors, messages, records, header, bytes } = subject
  const { envelope: envelopes } = subject
  const honest = makeListing(subject, vectors, {})
  const { inboxId, heads } = honest
  const signingKey = hex(vectors.records.receipt_public_key)
  const owner = { origin: "https://relay.example", inboxId, signingKey }
  const known = vectors.deliveries.slice(0, 3).map((delivery) => {
    const envelope = hex(delivery.envelopes[0]?.envelope ?? "")
    const headerHash = header.headerHash(hex(delivery.header))
    return { pair: chain.pairOf({ headerHash, envelopeHash: envelopes.envelopeHash(envelope) }) }
  })
  const good = [honest.page, makeListing(subject, vectors, { floorSeq: 1 }).page]
  const lies: ListingLie[] = [
    { headInbox: filled(20, 8) },
    { headSeq: 4 },
    { headSeq: 2 },
    { headSeq: 2 ** 40 },
    { signSeed: filled(32, 8) },
    { floorHead: filled(32, 8) },
    { stampInbox: filled(20, 8) },
    { stampSeq: 2 },
    { stampHead: filled(32, 8) },
    { id: "1".padStart(32, "0") },
    { envelope: filled(984, 8) },
  ]
  const all = good.concat(lies.map((lie) => makeListing(subject, vectors, lie).page))
  const names = vectors.deliveries
    .slice(0, 3)
    .map((delivery) => bytes.toHex(header.headerHash(hex(delivery.header))))
  // Seen when there were two entries.
  const seenBytes = records.encodeHead({
    kid: 1,
    inboxId,
    asOfMs: 4000,
    seq: 2,
    head: heads[2] ?? filled(32, 0),
    floorSeq: 0,
    signSeed: hex(vectors.records.random.receipt_key),
  })
  const seen = { head: records.parseHead(seenBytes), bytes: seenBytes }
  const elsewhere = { ...seen, head: { ...seen.head, head: filled(32, 8) } }
  return {
    name: "listing, verified",
    seeds: fromJson(good).seeds,
    make: fromJson(all).make,
    run: (input) => {
      const document = readJson(mustBeText(input))
      if (document === undefined) return "refused"
      return judge(
        [errors.FormatError, clientErrors.Untrustworthy],
        () => {
          const pages = [messages.parseInboxPage(document.value)]
          return [undefined, seen, elsewhere].map((remembered) => {
            const check = new chain.ListingCheck(owner, { remembered, known })
            for (const page of pages) check.add(page)
            return check.end()
          })
        },
        ([listing, again, contradicted]) => {
          if (listing === undefined) return
          const floor = listing.head.floorSeq
          const waiting = listing.waiting.map(({ stamp }) => bytes.toHex(stamp.headerHash))
          const gone = listing.gone.map((tombstone) => bytes.toHex(tombstone.headerHash))
          mustHold(
            "what was delivered",
            waiting.join() === [names[0], names[2]].slice(floor).join(),
          )
          mustHold("what was taken", gone.join() === names[1])
          const hashes = listing.waiting.map((one) => header.headerHash(one.headerBytes))
          mustHold("its headers", hashes.map(bytes.toHex).join() === waiting.join())
          mustEqual("the head", listing.head.head, heads[3] ?? filled(32, 0))
          mustHold("goes on from what was seen", again?.extendsRemembered === true)
          mustHold("not from anything else", contradicted?.extendsRemembered === false)
        },
      )
    },
  }
}

// The program's

function programTexts(subject: Subject, vectors: Vectors): Target[] {
  const { quantities, recipients, programErrors, display, settings, identity } = subject
  const documented = [programErrors.UsageError]
  const addresses = Object.values(vectors.people).map(({ address }) => address)
  const file = path.join(scratchFolder(), "config.json")
  return [
    {
      name: "length of time",
      ...fromTexts(["90m", "36h", "7d", "2w", "99999w"]),
      run: (input) =>
        judge(
          documented,
          () => quantities.parseDuration(mustBeText(input)),
          (ms) => mustHold("whole minutes", ms >= 60_000 && ms % 60_000 === 0),
        ),
    },
    {
      name: "name of an identity",
      ...fromTexts(["default", "work-2", "a_b", "x".repeat(63)]),
      run: (input) =>
        judge(
          documented,
          () => quantities.parseIdentityName(mustBeText(input)),
          (name) => mustHold("a file name", path.basename(name) === name && !name.startsWith(".")),
        ),
    },
    {
      name: "recipients file",
      ...fromTexts([`# friends\n${addresses.join("\n")}\n\n`, `${addresses[0]}@relay.example\r\n`]),
      run: (input) => {
        const named = recipients.parseRecipientsFile(mustBeText(input), "file")
        for (const { who } of named) {
          mustHold("one line each", who !== "" && !/^[#\s]|[\n]/.test(who))
        }
        return named.length > 0 ? "accepted" : "refused"
      },
    },
    {
      name: "relay as it is written",
      ...fromTexts(["https://relay.example", "relay.example:8443", "localhost:8787"]),
      run: (input) =>
        judge(
          documented,
          () => recipients.parseRelay(mustBeText(input)),
          (origin) => mustHold("an origin", identity.originOf(identity.hostOf(origin)) === origin),
        ),
    },
    {
      name: "text that is shown",
      seeds: ["a name", "r\u00e9sum\u00e9.txt"],
      make: (draws) => {
        const names = ["a name", "\u{1f600}\u200d", "\u202efdp.exe", "\u001b[2J", "\ufeff\u2028"]
        return mutateText(draws, draws.pick(names), names)
      },
      run: (input) => {
        const shown = display.showText(mustBeText(input))
        mustHold("nothing that moves or hides", !/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u.test(shown))
        mustHold("a fixed point", display.showText(shown) === shown)
        return shown === mustBeText(input) ? "accepted" : "refused"
      },
    },
    {
      name: "program's settings",
      seeds: ["", '{"v":1,"relay":"https://relay.example"}', "{}"],
      make: fromJson([{ v: 1, relay: "https://relay.example", identity: "default" }, {}]).make,
      run: (input) => {
        // No settings at all are good ones.
        if (mustBeText(input) === "") rmSync(file, { force: true })
        else writeFileSync(file, mustBeText(input))
        return judge(
          documented,
          () =>
            settings.readConfig({
              configFile: file,
              contactsFile: "none",
              identitiesFolder: "none",
              stateFolder: "none",
            }),
          ({ relay, identity: name }) => {
            mustHold("texts", typeof (relay ?? "") === "string" && typeof (name ?? "") === "string")
          },
        )
      },
    },
  ]
}

export async function clientTargets(subject: Subject, vectors: Vectors): Promise<Target[]> {
  return [
    pinFiles(subject, vectors),
    await inboxCaches(subject, vectors),
    listings(subject, vectors),
    ...programTexts(subject, vectors),
  ]
}
