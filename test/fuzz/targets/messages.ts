/** The HTTP interface: every JSON message, the finish's bytes, and what stands in headers and paths. */
import { fromSketches, sketch, type Sketch } from "../mutate-bytes.js"
import { fromJson, type Json } from "../mutate-json.js"
import { fromTexts } from "../mutate-text.js"
import { hex, type Subject, type Vectors } from "../subject.js"
import {
  Broken,
  judge,
  mustBeBytes,
  mustBeText,
  mustEqual,
  mustHold,
  type Target,
} from "../target.js"

/** JSON.parse stands in front of every parser here; what it refuses never reaches one. */
export function readJson(text: string): { value: unknown } | undefined {
  try {
    return { value: JSON.parse(text) as unknown }
  } catch {
    return undefined
  }
}

/**
 * Whether `document` says all that `encoded` says, in the same form. With `exact`, also nothing else:
 * a request has one encoding, a reply may hold members that a newer relay added.
 */
export function says(
  document: unknown,
  encoded: unknown,
  exact: boolean,
  isSame: (a: unknown, b: unknown) => boolean = Object.is,
): boolean {
  if (typeof encoded !== "object" || encoded === null) return isSame(document, encoded)
  if (typeof document !== "object" || document === null) return false
  if (Array.isArray(encoded)) {
    return (
      Array.isArray(document) &&
      document.length === encoded.length &&
      encoded.every((item, index) => says(document[index], item, exact, isSame))
    )
  }
  if (Array.isArray(document)) return false
  const there = new Map<string, unknown>(Object.entries(document))
  const wanted = Object.entries(encoded)
  if (exact && there.size !== wanted.length) return false
  return wanted.every(
    ([name, value]) => there.has(name) && says(there.get(name), value, exact, isSame),
  )
}

function mustNotPollute(): void {
  for (const name in {}) throw new Broken(`every object has a member ${name} now`)
}

export interface JsonForm<T> {
  readonly name: string
  readonly parse: (value: unknown) => T
  readonly encode: (value: T) => unknown
  readonly samples: readonly T[]
  readonly kind: "request" | "reply"
  readonly allocation?: Target["allocation"]
}

/** A message as a target: what is accepted encodes to what was read. */
export function jsonTarget<T>({ errors }: Pick<Subject, "errors">, form: JsonForm<T>): Target {
  // An encoder's answer is JSON by its very purpose.
  const values = form.samples.map((sample) => form.encode(sample) as Json)
  return {
    name: form.name,
    ...fromJson(values),
    ...(form.allocation && { allocation: form.allocation }),
    run: (input) => {
      const document = readJson(mustBeText(input))
      if (document === undefined) return "refused"
      const verdict = judge(
        [errors.FormatError],
        () => form.parse(document.value),
        (parsed) => {
          const encoded = form.encode(parsed)
          mustHold("one encoding", says(document.value, encoded, form.kind === "request"))
          const again = form.encode(form.parse(encoded))
          mustHold("a fixed point", JSON.stringify(again) === JSON.stringify(encoded))
        },
      )
      mustNotPollute()
      return verdict
    },
  }
}

const filled = (length: number, byte = 0xfb) => new Uint8Array(length).fill(byte)

function jsonMessages(subject: Subject, vectors: Vectors): Target[] {
  const m = subject.messages
  const form = <T>(one: JsonForm<T>) => jsonTarget(subject, one)
  const id = "00112233445566778899aabbccddeeff"
  const addresses = Object.values(vectors.people).map(({ address }) => address)
  const [address = "", second = ""] = addresses
  const proof = {
    origin: "https://relay.example:8443",
    e: filled(32),
    nonce: filled(36),
    c: filled(32, 3),
    boxNonce: filled(24),
    proof: filled(48),
  }
  const limits = {
    deliveryBytes: 10 * 2 ** 30,
    requestBytes: 2 ** 20,
    parallelRequests: 4,
    recipients: 32,
    manifestBytes: 2 ** 26 + 16,
    inboxBytes: 20 * 2 ** 30,
    inboxDeliveries: 1000,
    keepMs: 14 * 86_400_000,
    keepMaxMs: 30 * 86_400_000,
    uploadMs: 86_400_000,
    uploadMaxMs: 3 * 86_400_000,
    longPollSeconds: 30,
    page: 1000,
  }
  const record = vectors.records
  const waiting = {
    kind: "waiting" as const,
    seq: 7,
    id,
    stamp: hex(record.stamp),
    header: hex(vectors.deliveries[1]?.header ?? ""),
  }
  const envelope = hex(vectors.deliveries[0]?.envelopes[0]?.envelope ?? "")
  const gone = { kind: "gone" as const, seq: 9, tombstone: filled(89) }
  const page = {
    head: hex(record.head_record),
    floor: { seq: 3, head: filled(32) },
    entries: [waiting, { ...waiting, seq: 8, envelope }, gone],
    more: true,
    used: { bytes: 16_384, deliveries: 2 },
    newAfter: 7,
    restored: { backupMs: 8, restoredMs: 9 },
  }
  return [
    form({
      name: "relay info",
      kind: "reply",
      parse: m.parseRelayInfo,
      encode: m.encodeRelayInfo,
      samples: [
        {
          name: "knothole",
          version: "0.1.0",
          protocol: [1],
          timeMs: 1_767_225_600_000,
          origins: ["http://127.0.0.1:8787", "https://relay.example"],
          signingKey: hex(record.receipt_public_key),
          kid: 1,
          registration: "open" as const,
          limits,
        },
      ],
    }),
    form({
      name: "challenge",
      kind: "reply",
      parse: m.parseChallenge,
      encode: m.encodeChallenge,
      samples: [{ e: filled(32), nonce: filled(36), signature: filled(64), kid: 1, expiresMs: 9 }],
    }),
    form({
      name: "login proof",
      kind: "request",
      parse: m.parseLoginProof,
      encode: m.encodeLoginProof,
      samples: [proof],
    }),
    form({
      name: "registration",
      kind: "request",
      parse: m.parseRegisterRequest,
      encode: m.encodeRegisterRequest,
      samples: [{ bundle: hex(vectors.people.rsaOnly.bundle), proof }],
    }),
    form({
      name: "registration reply",
      kind: "reply",
      parse: m.parseRegisterReply,
      encode: m.encodeRegisterReply,
      samples: [{ address, created: true }],
    }),
    form({
      name: "session request",
      kind: "request",
      parse: m.parseSessionRequest,
      encode: m.encodeSessionRequest,
      samples: [{ address, proof }],
    }),
    form({
      name: "session reply",
      kind: "reply",
      parse: m.parseSessionReply,
      encode: m.encodeSessionReply,
      samples: [{ token: filled(32), expiresMs: 1, absoluteMs: 2 ** 53 - 1, mac: filled(32) }],
    }),
    form({
      name: "session list",
      kind: "reply",
      parse: m.parseSessionList,
      encode: m.encodeSessionList,
      samples: [
        [],
        [
          { id, createdMs: 1, lastUsedMs: 2, current: true },
          { id: id.replaceAll("0", "1"), createdMs: 1, lastUsedMs: 2, current: false },
        ],
      ],
    }),
    form({
      name: "upload start",
      kind: "request",
      parse: m.parseStartUpload,
      encode: m.encodeStartUpload,
      samples: [
        { recipients: [address], reserveBytes: 0, deleteHash: filled(32) },
        { recipients: addresses, reserveBytes: 64 * 2 ** 30, deleteHash: filled(32) },
      ],
    }),
    form({
      name: "upload start reply",
      kind: "reply",
      parse: m.parseStartUploadReply,
      encode: m.encodeStartUploadReply,
      samples: [{ id, token: filled(32), reservedBytes: 9, requestBytes: 2 ** 20, expiresMs: 10 }],
    }),
    form({
      name: "extend",
      kind: "request",
      parse: m.parseExtend,
      encode: m.encodeExtend,
      samples: [{ reserveBytes: 64 * 2 ** 30 }],
    }),
    form({
      name: "extend reply",
      kind: "reply",
      parse: m.parseExtendReply,
      encode: m.encodeExtendReply,
      samples: [{ reservedBytes: 5, expiresMs: 6 }],
    }),
    form({
      name: "parts reply",
      kind: "reply",
      parse: m.parsePartsReply,
      encode: m.encodePartsReply,
      samples: [{ leaves: filled(32) }, { leaves: filled(96) }],
    }),
    form({
      name: "upload state",
      kind: "reply",
      parse: m.parseUploadState,
      encode: m.encodeUploadState,
      samples: [
        {
          state: "open" as const,
          reservedBytes: 2 ** 30,
          expiresMs: 5,
          runs: [
            { first: 0, leaves: filled(64) },
            { first: 2, leaves: filled(32) },
            { first: 65_000, leaves: filled(32) },
          ],
        },
        // The last part of the largest body: one leaf more is one too many.
        {
          state: "final" as const,
          reservedBytes: 64 * 2 ** 30,
          expiresMs: 5,
          runs: [{ first: 65_539, leaves: filled(32) }],
        },
      ],
    }),
    form({
      name: "finish reply",
      kind: "reply",
      parse: m.parseFinishReply,
      encode: m.encodeFinishReply,
      samples: [
        {
          id,
          receipts: [
            { address, receipt: hex(record.receipt) },
            { address: second, receipt: hex(record.receipt) },
          ],
        },
      ],
    }),
    form({
      name: "inbox page",
      kind: "reply",
      parse: m.parseInboxPage,
      encode: m.encodeInboxPage,
      samples: [page, { ...page, entries: [], more: false }],
    }),
    form({
      name: "status reply",
      kind: "reply",
      parse: m.parseStatusReply,
      encode: m.encodeStatusReply,
      samples: [
        {
          id,
          acceptedMs: 1,
          expiresMs: 2,
          recipients: [
            { address, state: "waiting" as const },
            { address: second, state: "removed" as const },
          ],
        },
      ],
    }),
  ]
}

function problems({ refusals, errors }: Subject): Target {
  const of = (refusal: InstanceType<typeof refusals.RelayRefusal>, retryAfter?: string) => ({
    status: refusal.status,
    retryAfter: retryAfter ?? null,
    // The document is JSON; its type has optional members, which JSON's own has not.
    problem: refusals.encodeProblem(refusal) as unknown as Json,
  })
  const { RelayRefusal } = refusals
  const samples: Json[] = [
    of(new RelayRefusal("too_large", { detail: "at most 1 GiB", extras: { limit: 2 ** 30 } })),
    of(new RelayRefusal("wrong_origin", { extras: { origins: ["https://relay.example"] } })),
    of(new RelayRefusal("no_such_inbox", { extras: { address: "knot1" } })),
    of(new RelayRefusal("parts_missing", { extras: { missing: [0, 5, 65_000] } })),
    of(new RelayRefusal("relay_full"), "120"),
  ]
  return {
    name: "problem document",
    ...fromJson(samples),
    run: (input) => {
      const document = readJson(mustBeText(input))
      const value: unknown = document?.value
      if (typeof value !== "object" || value === null) return "refused"
      const given = new Map<string, unknown>(Object.entries(value))
      const status = given.get("status")
      const retryAfter = given.get("retryAfter")
      const verdict = judge(
        [errors.FormatError],
        () =>
          refusals.parseProblem(
            typeof status === "number" ? status : 500,
            given.get("problem"),
            typeof retryAfter === "string" ? retryAfter : null,
          ),
        (refusal) => {
          const { retryAfterSeconds, message, extras } = refusal
          mustHold("a status of ours", refusal.status === refusals.refusalStatus[refusal.code])
          mustHold(
            "a wait within a day",
            (retryAfterSeconds ?? 0) >= 0 && (retryAfterSeconds ?? 0) <= 86_400,
          )
          mustHold("a short message", message.length <= 1000)
          mustHold(
            "few extras",
            (extras.missing?.length ?? 0) + (extras.origins?.length ?? 0) <= 2000,
          )
          const again = refusals.parseProblem(refusal.status, refusals.encodeProblem(refusal))
          mustHold("a fixed point", JSON.stringify(again.extras) === JSON.stringify(extras))
          mustHold("the code", again.code === refusal.code && again.message === message)
        },
      )
      mustNotPollute()
      return verdict
    },
  }
}

export function finishSketches({ messages }: Subject, vectors: Vectors): readonly Sketch[] {
  const header = hex(vectors.deliveries[0]?.header ?? "")
  const envelopes = vectors.deliveries.flatMap((one) => one.envelopes.map((e) => hex(e.envelope)))
  const make = (manifest: Uint8Array, some: readonly Uint8Array[]) =>
    sketch(messages.encodeFinish({ header, manifest, envelopes: some }), [
      ["magic", 4],
      ["version", 1],
      ["reserved", 2],
      ["number", 1],
      ["opaque", 184],
      ["number", 4],
      ["opaque", manifest.length],
      ...some.flatMap(({ length }) => [["number", 2] as const, ["opaque", length] as const]),
    ])
  return [
    make(new Uint8Array(4112).fill(7), envelopes.slice(0, 1)),
    make(new Uint8Array(16), envelopes.slice(0, 3)),
    make(new Uint8Array(0), [new Uint8Array(0), ...envelopes.slice(0, 1)]),
  ]
}

function finishes(subject: Subject, vectors: Vectors): Target {
  const { messages, errors } = subject
  return {
    name: "finish",
    ...fromSketches(finishSketches(subject, vectors)),
    run: (input) =>
      judge(
        [errors.FormatError],
        () => messages.parseFinish(mustBeBytes(input)),
        (found) => mustEqual("finish", messages.encodeFinish(found), mustBeBytes(input)),
      ),
  }
}

/** One line of text whose encoder gives it back. */
function lineTarget<T>(
  { errors }: Pick<Subject, "errors">,
  line: {
    readonly name: string
    readonly seeds: readonly string[]
    readonly parse: (text: string) => T
    readonly check: (value: T, text: string) => void
  },
): Target {
  return {
    name: line.name,
    ...fromTexts(line.seeds),
    run: (input) => {
      const text = mustBeText(input)
      return judge(
        [errors.FormatError],
        () => line.parse(text),
        (value) => line.check(value, text),
      )
    },
  }
}

const mustBeSame = (found: string, text: string) =>
  mustHold(`one spelling: ${JSON.stringify(found).slice(0, 100)}`, found === text)

function lines(subject: Subject): Target[] {
  const { messages: m, bytes, json } = subject
  const size = 1_000_000
  return [
    lineTarget(subject, {
      name: "part index",
      seeds: ["0", "7", "65536", "2147483647"],
      parse: (text) => m.parseIndex(text),
      check: (index, text) => {
        mustBeSame(String(index), text)
        mustHold("below 2^31", index < 2 ** 31)
      },
    }),
    lineTarget(subject, {
      name: "path id",
      seeds: ["0123456789abcdef0123456789abcdef", "ffffffffffffffffffffffffffffffff"],
      parse: (text) => json.parseId(text),
      check: (id, text) => {
        mustBeSame(id, text)
        mustBeSame(bytes.toHex(bytes.fromHex(id)), text)
      },
    }),
    lineTarget(subject, {
      name: "bearer credential",
      seeds: [m.encodeBearer(new Uint8Array(32)), m.encodeBearer(new Uint8Array(32).fill(0xfb))],
      parse: (text) => m.parseBearer(text),
      check: (token, text) => {
        mustHold("32 bytes", token.length === 32)
        mustBeSame(m.encodeBearer(token).slice(7), text.slice(7))
      },
    }),
    lineTarget(subject, {
      name: "range",
      seeds: [
        "bytes=0-0",
        "bytes=0-499999",
        "bytes=999999-999999",
        "bytes=100-",
        "bytes=5-2000000",
      ],
      parse: (text) => m.parseRange(text, size),
      check: (range, text) => {
        const { first, last } = range
        mustHold("inside", first >= 0 && first <= last && last < size)
        const open = last === size - 1
        const asked = /^bytes=([0-9]+)-([0-9]*)$/.exec(text)
        mustBeSame(String(first), asked?.[1] ?? "")
        if (!open) mustBeSame(m.encodeRange(range), text)
        else mustHold("cut", asked?.[2] === "" || Number(asked?.[2]) >= last)
      },
    }),
    lineTarget(subject, {
      name: "content range",
      seeds: ["bytes 0-0/1", "bytes 5-9/10", "bytes 0-1048575/68719476736"],
      parse: (text) => m.parseContentRange(text),
      check: (range, text) => {
        mustHold("inside", range.first <= range.last && range.last < range.size)
        mustBeSame(m.encodeContentRange(range, range.size), text)
      },
    }),
    lineTarget(subject, {
      name: "inbox query",
      seeds: [
        "after=0&limit=1000",
        "after=12&limit=10&wait=30&envelopes=1",
        "envelopes=0",
        "",
        "limit=5&after=9007199254740991",
      ],
      parse: (text) =>
        m.parseInboxQuery(new URLSearchParams(text), {
          after: 0,
          limit: 1000,
          waitSeconds: 0,
          envelopes: false,
        }),
      check: (query) => {
        mustHold("after", Number.isSafeInteger(query.after) && query.after >= 0)
        mustHold("limit", Number.isSafeInteger(query.limit) && query.limit >= 1)
        mustHold("wait", Number.isSafeInteger(query.waitSeconds) && query.waitSeconds >= 0)
        const again = m.parseInboxQuery(new URLSearchParams(m.encodeInboxQuery(query)), {
          after: 0,
          limit: 1,
          waitSeconds: 0,
          envelopes: false,
        })
        mustHold("a fixed point", JSON.stringify(again) === JSON.stringify(query))
      },
    }),
    lineTarget(subject, {
      name: "hex",
      seeds: ["", "00ff", "0123456789abcdef"],
      parse: (text) => bytes.fromHex(text),
      check: (value, text) => mustBeSame(bytes.toHex(value), text),
    }),
    lineTarget(subject, {
      name: "base64url",
      seeds: ["", "AA", "AAA", "AAAA", "-_-_", "__8", "_w", "SGVsbG8"],
      parse: (text) => bytes.fromBase64url(text),
      check: (value, text) => {
        mustBeSame(bytes.toBase64url(value), text)
        mustBeSame(Buffer.from(value).toString("base64url"), text)
      },
    }),
  ]
}

function utf8Text({ bytes, errors }: Subject): Target {
  const seeds = [
    "",
    "a",
    "\u00e9",
    "\u20ac",
    "\u{1f600}",
    "\ufeffx",
    "\u07ff\u0800\uffff\u{10ffff}",
  ]
  return {
    name: "UTF-8",
    ...fromSketches(
      seeds.map((text) => {
        const own = new Uint8Array(Buffer.from(text))
        return sketch(own, [["opaque", own.length]])
      }),
    ),
    run: (input) =>
      judge(
        [errors.FormatError],
        () => bytes.parseUtf8(mustBeBytes(input), "text"),
        (text) => mustEqual("UTF-8", bytes.utf8(text), mustBeBytes(input)),
      ),
  }
}

const drawn = (length: number) => filled(length, 43)

/** A login whose proof was changed on the way: never accepted, and never more than a plain no. */
function logins(subject: Subject, vectors: Vectors): Target[] {
  const { login, messages, provider, identity, errors, bytes } = subject
  const bundle = identity.parseBundle(hex(vectors.people.full.bundle))
  const minuteSecret = new Uint8Array(32).fill(41)
  const nonceKey = new Uint8Array(32).fill(42)
  const origin = "https://relay.example"
  const signSeed = hex(vectors.records.random.receipt_key)
  const e = provider.x25519PublicKey(minuteSecret)
  const minute = 29_000_000
  const challenge = {
    e,
    nonce: login.makeChallengeNonce({ key: nonceKey, minute, e, random: drawn }),
    signature: login.signMinute({ minute, e, signSeed }),
    kid: 1,
    expiresMs: 1,
  }
  const own = { authSeed: hex(vectors.people.full.x25519_seed), bundle }
  const attempt = login.proveLogin({ identity: own, origin, challenge, random: drawn })
  const encoded = { ...messages.encodeLoginProof(attempt.fields) }
  const accepted = login.verifyLogin({
    proof: attempt.fields,
    origin,
    inboxId: bundle.inboxId,
    authKey: bundle.authKey,
    minuteSecret,
  })
  if (accepted === undefined) throw new TypeError("a login of our own is not accepted")
  const token = filled(32, 44)
  const reply = {
    token,
    expiresMs: 1,
    absoluteMs: 2,
    mac: login.sessionMac({ ...accepted, token }),
  }
  const finishing: Target = {
    name: "session reply, checked",
    ...fromJson([{ ...messages.encodeSessionReply(reply) }]),
    run: (input) => {
      const document = readJson(mustBeText(input))
      if (document === undefined) return "refused"
      return judge(
        [errors.FormatError, errors.OpenError],
        () => attempt.finish(messages.parseSessionReply(document.value)),
        (found) => mustEqual("the token that was issued", found, token),
      )
    },
  }
  const proving: Target = {
    name: "login, verified",
    ...fromJson([encoded]),
    run: (input) => {
      const document = readJson(mustBeText(input))
      if (document === undefined) return "refused"
      return judge(
        [errors.FormatError],
        () => messages.parseLoginProof(document.value),
        (proof) => {
          const verified = login.verifyLogin({
            proof,
            origin,
            inboxId: bundle.inboxId,
            authKey: bundle.authKey,
            minuteSecret,
          })
          const isOwn = JSON.stringify(messages.encodeLoginProof(proof)) === JSON.stringify(encoded)
          mustHold("a proof nobody made", (verified !== undefined) === isOwn)
          const { nonce } = proof
          const known = login.verifyChallengeNonce({ key: nonceKey, nonce, e: proof.e })
          const sameChallenge =
            bytes.equalBytes(nonce, challenge.nonce) && bytes.equalBytes(proof.e, e)
          mustHold("a nonce nobody made", known === sameChallenge)
          const signed = { ...challenge, nonce, e: proof.e }
          const sameMinute = login.nonceMinute(nonce) === minute && bytes.equalBytes(proof.e, e)
          const publicKey = hex(vectors.records.receipt_public_key)
          mustHold("a minute nobody signed", login.verifyMinute(signed, publicKey) === sameMinute)
        },
      )
    },
  }
  return [proving, finishing]
}

export function messageTargets(subject: Subject, vectors: Vectors): Target[] {
  return [
    ...jsonMessages(subject, vectors),
    problems(subject),
    finishes(subject, vectors),
    ...lines(subject),
    utf8Text(subject),
    ...logins(subject, vectors),
  ]
}
