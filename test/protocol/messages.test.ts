import * as fc from "fast-check"
import { describe, expect, test } from "vitest"
import {
  concatBytes,
  encodeBearer,
  encodeChallenge,
  encodeContentRange,
  encodeExtend,
  encodeExtendReply,
  encodeFinish,
  encodeFinishReply,
  encodeInboxPage,
  encodeInboxQuery,
  encodeLoginProof,
  encodePartsReply,
  encodeRange,
  encodeRegisterReply,
  encodeRegisterRequest,
  encodeRelayInfo,
  encodeSessionList,
  encodeSessionReply,
  encodeSessionRequest,
  encodeStartUpload,
  encodeStartUploadReply,
  encodeStatusReply,
  encodeUploadState,
  FormatError,
  maxBodyBytes,
  maxEnvelopeBytes,
  maxFinishBytes,
  maxManifestBytes,
  maxParts,
  parseBearer,
  parseChallenge,
  parseContentRange,
  parseExtend,
  parseExtendReply,
  parseFinish,
  parseFinishReply,
  parseId,
  parseInboxPage,
  parseInboxQuery,
  parseIndex,
  parseLoginProof,
  parsePartsReply,
  parseRange,
  parseRegisterReply,
  parseRegisterRequest,
  parseRelayInfo,
  parseSessionList,
  parseSessionReply,
  parseSessionRequest,
  parseStartUpload,
  parseStartUploadReply,
  parseStatusReply,
  parseUploadState,
  recordBytes,
  relayDefaults,
  toBase64url,
  u32,
  usableLimits,
} from "../../protocol/index.js"

const bytes = (length: number, fill: number) => new Uint8Array(length).fill(fill)
const id = "00112233445566778899aabbccddeeff"
const address = "knot157v6qjssz8wra2rgjjluu3gdd5qflp9x949a0j"
const second = "knot1wsykuvsgzny5wne7ls3un66c4cnq9n70nqhh5g"
const proof = {
  origin: "https://relay.example",
  e: bytes(32, 1),
  nonce: bytes(36, 2),
  c: bytes(32, 3),
  boxNonce: bytes(24, 4),
  proof: bytes(48, 5),
}

interface Message {
  readonly name: string
  readonly request: boolean
  readonly value: unknown
  readonly wire: unknown
  readonly parse: (wire: unknown) => unknown
}

/** Ties a value to its own encoder and parser, so that a table can hold different ones. */
function message<T>(
  name: string,
  kind: "request" | "reply",
  value: T,
  encode: (value: T) => unknown,
  parse: (wire: unknown) => T,
): Message {
  // Through text, as on the wire.
  const wire: unknown = JSON.parse(JSON.stringify(encode(value)))
  return { name, request: kind === "request", value, wire, parse }
}

const { sessionIdleMs: _, sessionMs: __, ...limits } = relayDefaults

const messages = [
  message(
    "relay info",
    "reply",
    {
      name: "knothole",
      version: "0.1.0",
      protocol: [1],
      timeMs: 1767225600000,
      origins: ["http://127.0.0.1:8787"],
      signingKey: bytes(32, 1),
      kid: 1,
      registration: "open",
      proxy: "unset",
      limits,
    },
    encodeRelayInfo,
    parseRelayInfo,
  ),
  message(
    "challenge",
    "reply",
    { e: bytes(32, 1), nonce: bytes(36, 2), signature: bytes(64, 3), kid: 255, expiresMs: 9 },
    encodeChallenge,
    parseChallenge,
  ),
  message("login proof", "request", proof, encodeLoginProof, parseLoginProof),
  message(
    "registration",
    "request",
    { bundle: bytes(1672, 6), proof },
    encodeRegisterRequest,
    parseRegisterRequest,
  ),
  message(
    "registration reply",
    "reply",
    { address, created: true },
    encodeRegisterReply,
    parseRegisterReply,
  ),
  message("session", "request", { address, proof }, encodeSessionRequest, parseSessionRequest),
  message(
    "session reply",
    "reply",
    { token: bytes(32, 1), expiresMs: 1, absoluteMs: 2, mac: bytes(32, 3) },
    encodeSessionReply,
    parseSessionReply,
  ),
  message(
    "session list",
    "reply",
    [{ id, createdMs: 1, lastUsedMs: 2, current: false }],
    encodeSessionList,
    parseSessionList,
  ),
  message(
    "upload start",
    "request",
    { recipients: [address, second], reserveBytes: maxBodyBytes, deleteHash: bytes(32, 7) },
    encodeStartUpload,
    parseStartUpload,
  ),
  message(
    "upload start reply",
    "reply",
    { id, token: bytes(32, 8), reservedBytes: 0, requestBytes: 1048576, expiresMs: 3 },
    encodeStartUploadReply,
    parseStartUploadReply,
  ),
  message("extension", "request", { reserveBytes: 16384 }, encodeExtend, parseExtend),
  message(
    "extension reply",
    "reply",
    { reservedBytes: 16384, expiresMs: 4 },
    encodeExtendReply,
    parseExtendReply,
  ),
  message("parts reply", "reply", { leaves: bytes(96, 9) }, encodePartsReply, parsePartsReply),
  message(
    "upload state",
    "reply",
    {
      state: "open",
      reservedBytes: 5,
      expiresMs: 6,
      runs: [
        { first: 0, leaves: bytes(64, 1) },
        { first: 2, leaves: bytes(32, 2) },
        { first: maxParts - 1, leaves: bytes(32, 3) },
      ],
    },
    encodeUploadState,
    parseUploadState,
  ),
  message(
    "finish reply",
    "reply",
    { id, receipts: [{ address, receipt: bytes(172, 1) }] },
    encodeFinishReply,
    parseFinishReply,
  ),
  message(
    "inbox page",
    "reply",
    {
      head: bytes(148, 1),
      floor: { seq: 2, head: bytes(32, 2) },
      entries: [
        { kind: "gone", seq: 3, tombstone: bytes(89, 3) },
        { kind: "waiting", seq: 4, id, stamp: bytes(244, 4), header: bytes(184, 5) },
        {
          kind: "waiting",
          seq: 9,
          id,
          stamp: bytes(244, 4),
          header: bytes(184, 5),
          envelope: bytes(2104, 6),
        },
      ],
      more: false,
      used: { bytes: 7, deliveries: 8 },
      newAfter: 3,
      restored: { backupMs: 10, restoredMs: 11 },
    },
    encodeInboxPage,
    parseInboxPage,
  ),
  message(
    "status",
    "reply",
    {
      id,
      acceptedMs: 1,
      expiresMs: 2,
      recipients: [
        { address, state: "waiting" },
        { address: second, state: "removed" },
      ],
    },
    encodeStatusReply,
    parseStatusReply,
  ),
]

type Path = readonly (string | number)[]

/** Where every value inside a JSON value stands, the whole left out. */
function paths(value: unknown, at: Path = []): Path[] {
  if (typeof value !== "object" || value === null) return [at]
  const inside = Object.entries(value).flatMap(([name, member]) =>
    paths(member, [...at, Array.isArray(value) ? Number(name) : name]),
  )
  return at.length === 0 ? inside : [at, ...inside]
}

function valueAt(value: unknown, path: Path): unknown {
  const [name, ...rest] = path
  if (name === undefined) return value
  if (typeof value !== "object" || value === null) throw new Error("no such path")
  return valueAt(Object.entries(value).find(([key]) => key === String(name))?.[1], rest)
}

/** A copy with the value at `path` replaced, or left out when the replacement is undefined. */
function replace(value: unknown, path: Path, by: unknown): unknown {
  const [name, ...rest] = path
  if (name === undefined) return by
  if (Array.isArray(value)) return value.map((v, i) => (i === name ? replace(v, rest, by) : v))
  if (typeof value !== "object" || value === null) throw new Error("no such path")
  return Object.fromEntries(
    Object.entries(value).flatMap(([key, member]) => {
      if (key !== name) return [[key, member]]
      const replaced = replace(member, rest, by)
      return replaced === undefined ? [] : [[key, replaced]]
    }),
  )
}

/** Members that may be missing, and what it then is. */
const optional = [
  "inbox page: restored",
  "relay info: proxy",
  "inbox page: entries.2.envelope",
  "inbox page: entries.0.tombstone",
]

/** What no member of a message may become, by what it was. */
function wrongValues(value: unknown): unknown[] {
  const always = [null, {}, [[]], [null]]
  if (typeof value === "number") {
    return [...always, -1, 0.5, 2 ** 53, -0.5, String(value), true, ...(value > 0 ? [-value] : [])]
  }
  if (typeof value === "boolean") return [...always, 0, "true"]
  if (typeof value === "string") {
    return [...always, 7, false, `${value}=`, `${value}A`, ` ${value}`, value.slice(1), "ü"]
  }
  return ["", 0, true, null]
}

describe.each(messages)("$name", ({ name, request, value, wire, parse }) => {
  test("comes back as it was", () => {
    expect(parse(wire)).toEqual(value)
  })

  test(request ? "unknown members are refused" : "unknown members are ignored", () => {
    const objects = [[], ...paths(wire)].filter((path) => {
      const found = valueAt(wire, path)
      return typeof found === "object" && !Array.isArray(found)
    })
    expect(objects.length).toBeGreaterThan(0)
    for (const path of objects) {
      const more = replace(wire, path, { ...(valueAt(wire, path) as object), later: 1 })
      if (request) expect(() => parse(more)).toThrow(FormatError)
      else expect(parse(more)).toEqual(value)
    }
  })

  test("a missing member is refused", () => {
    for (const path of paths(wire).filter((p) => typeof p.at(-1) === "string")) {
      if (optional.includes(`${name}: ${path.join(".")}`)) continue
      expect(() => parse(replace(wire, path, undefined)), path.join(".")).toThrow(FormatError)
    }
  })

  test("a member of a wrong kind, or in another encoding, is refused", () => {
    // Free text has no wrong value of its own kind.
    const free = ["name", "version", "origin", "origins"]
    for (const path of paths(wire)) {
      const original = valueAt(wire, path)
      const isFree = path.some((step) => free.includes(String(step)))
      for (const wrong of wrongValues(original)) {
        if (isFree && typeof wrong === "string" && typeof original === "string") continue
        // Bundles and envelopes come in several lengths, of which their own parsers judge.
        const isAnyLength = path.at(-1) === "bundle" || path.at(-1) === "envelope"
        if (isAnyLength && typeof wrong === "string" && /^[\w-]+$/.test(wrong)) continue
        const changed = replace(wire, path, wrong)
        expect(() => parse(changed), `${path.join(".")}: ${String(wrong).slice(0, 60)}`).toThrow(
          FormatError,
        )
      }
    }
  })

  test.each([undefined, null, 1, "text", true, []])("%j in its place is refused", (wrong) => {
    expect(() => parse(wrong)).toThrow(FormatError)
  })
})

const page = (seqs: number[]) => () =>
  parseInboxPage(
    encodeInboxPage({
      head: bytes(148, 1),
      floor: { seq: 0, head: bytes(32, 0) },
      entries: seqs.map((seq) => ({ kind: "gone", seq, tombstone: bytes(89, 1) })),
      more: false,
      used: { bytes: 0, deliveries: 0 },
      newAfter: 0,
    }),
  )

const state = (runs: { first: number; leaves: Uint8Array }[]) => () =>
  parseUploadState(encodeUploadState({ state: "open", reservedBytes: 0, expiresMs: 0, runs }))

describe("limits inside messages", () => {
  test("an upload goes to someone, to nobody twice, and to 255 at most", () => {
    const start = { recipients: [address], reserveBytes: 0, deleteHash: bytes(32, 1) }
    const parse = (recipients: string[]) => () =>
      parseStartUpload(encodeStartUpload({ ...start, recipients }))
    expect(parse([])).toThrow(FormatError)
    expect(parse([address, address])).toThrow(FormatError)
    expect(parse([address.toUpperCase()])).toThrow(FormatError)
    expect(parse([`${address}@host`])).toThrow(FormatError)
    const many = Array.from({ length: 256 }, (_, i) => {
      const digits = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
      return `${address.slice(0, -2)}${digits[i >> 5] ?? ""}${digits[i & 31] ?? ""}`
    })
    expect(parse(many.slice(1))().recipients).toHaveLength(255)
    expect(parse(many)).toThrow(FormatError)
  })

  test("no body above the format's largest is asked for", () => {
    expect(() => parseExtend({ reserve_bytes: maxBodyBytes + 1 })).toThrow(FormatError)
  })

  test("runs of parts ascend, do not overlap and end with the largest body", () => {
    const leaves = bytes(64, 1)
    expect(
      state([
        { first: 3, leaves },
        { first: 5, leaves },
      ]),
    ).not.toThrow()
    expect(
      state([
        { first: 3, leaves },
        { first: 4, leaves },
      ]),
    ).toThrow(FormatError)
    expect(
      state([
        { first: 3, leaves },
        { first: 0, leaves },
      ]),
    ).toThrow(FormatError)
    expect(state([{ first: maxParts - 1, leaves }])).toThrow(FormatError)
    expect(state([{ first: 0, leaves: bytes(0, 0) }])).toThrow(FormatError)
    expect(state([{ first: 0, leaves: bytes(33, 0) }])).toThrow(FormatError)
  })

  test("entries of an inbox ascend from 1", () => {
    expect(page([1, 2, 9])).not.toThrow()
    expect(page([0])).toThrow(FormatError)
    expect(page([2, 2])).toThrow(FormatError)
    expect(page([3, 2])).toThrow(FormatError)
  })

  test("a relay that offers more than a client uses is used as far as that goes", () => {
    const info = messages.find(({ name }) => name === "relay info")
    const offer = (member: string, value: number) =>
      usableLimits(parseRelayInfo(replace(info?.wire, ["limits", member], value)).limits)
    for (const [member, field, most] of [
      ["request_bytes", "requestBytes", 2 ** 24],
      ["long_poll_seconds", "longPollSeconds", 40],
      ["recipients", "recipients", 255],
      ["manifest_bytes", "manifestBytes", 2 ** 26 + 16],
    ] as const) {
      for (const offered of [most, most + 1, Number.MAX_SAFE_INTEGER]) {
        expect(offer(member, offered)[field], member).toBe(most)
      }
      expect(() => offer(member, 2 ** 53), member).toThrow(FormatError)
    }
  })

  test("what a relay says of itself is lines of text", () => {
    const info = messages.find(({ name }) => name === "relay info")
    for (const evil of ["0.1\nknothole: all is well", "0.1\u001B[2J", "0.1\u202E"]) {
      for (const member of [["name"], ["version"], ["origins", 0]]) {
        const said = replace(info?.wire, member, evil)
        expect(() => parseRelayInfo(said), member.join(".")).toThrow(FormatError)
      }
    }
  })

  test("a relay that takes less than one part a request is none", () => {
    const reply = { id, token: bytes(32, 8), reservedBytes: 0, requestBytes: 1048575, expiresMs: 3 }
    expect(() => parseStartUploadReply(encodeStartUploadReply(reply))).toThrow(FormatError)
  })
})

describe("finish", () => {
  const finish = {
    header: bytes(recordBytes.header, 1),
    manifest: bytes(4112, 2),
    envelopes: [bytes(984, 3), bytes(maxEnvelopeBytes, 4)],
  }
  const encoded = encodeFinish(finish)

  test("comes back as it was, in the room that its limit allows", () => {
    expect(parseFinish(encoded)).toEqual(finish)
    expect(encoded.length).toBeLessThanOrEqual(maxFinishBytes(4112, 2))
    const largest = encodeFinish({ ...finish, envelopes: [bytes(maxEnvelopeBytes, 4)] })
    expect(largest).toHaveLength(maxFinishBytes(4112, 1))
  })

  test("its prefix is fixed to the last bit", () => {
    for (let at = 0; at < 8; at++) {
      const changed = encoded.slice()
      changed[at] = (changed[at] ?? 0) ^ 1
      expect(() => parseFinish(changed), String(at)).toThrow(FormatError)
    }
  })

  test("neither shortened nor lengthened is it a finish", () => {
    for (let length = 0; length < encoded.length; length += 1) {
      expect(() => parseFinish(encoded.subarray(0, length))).toThrow(FormatError)
    }
    expect(() => parseFinish(concatBytes(encoded, bytes(1, 0)))).toThrow(FormatError)
  })

  test("lengths beyond the format's are refused before anything is taken", () => {
    const manifest = encoded.slice()
    manifest.set(u32(maxManifestBytes + 1), 8 + recordBytes.header)
    expect(() => parseFinish(manifest)).toThrow(/manifest_len: too large/)
    const long = encodeFinish({ ...finish, envelopes: [bytes(maxEnvelopeBytes + 1, 0)] })
    expect(() => parseFinish(long)).toThrow(/envelopes\.0\.len: too large/)
  })

  test("one without an envelope, or with too many, cannot be made", () => {
    expect(() => encodeFinish({ ...finish, envelopes: [] })).toThrow(RangeError)
    const envelopes = Array.from({ length: 256 }, () => bytes(1, 0))
    expect(() => encodeFinish({ ...finish, envelopes })).toThrow(RangeError)
    expect(() => encodeFinish({ ...finish, header: bytes(183, 0) })).toThrow(RangeError)
  })
})

describe("request lines and headers", () => {
  test.each(["0", "7", "65540", "2147483647"])("%s is an index", (text) => {
    expect(parseIndex(text)).toBe(Number(text))
  })

  test.each(["", "00", "01", "+1", "-1", "1.0", "1e3", " 1", "0x1", "2147483648", "１"])(
    "%j is no index",
    (text) => {
      expect(() => parseIndex(text)).toThrow(FormatError)
    },
  )

  test.each(["", id.slice(1), `${id}0`, id.toUpperCase(), `${id.slice(1)}g`, `${id.slice(1)} `])(
    "%j is no id",
    (text) => {
      expect(() => parseId(text)).toThrow(FormatError)
    },
  )

  test("a credential comes back from its header", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (token) => {
        expect(parseBearer(encodeBearer(token))).toEqual(token)
      }),
    )
  })

  test.each([
    undefined,
    "",
    "Bearer",
    `Basic ${toBase64url(bytes(32, 1))}`,
    `Bearer ${toBase64url(bytes(31, 1))}`,
    `Bearer  ${toBase64url(bytes(32, 1))}`,
    `Bearer ${toBase64url(bytes(32, 1))}=`,
    `Bearer ${toBase64url(bytes(32, 0)).slice(0, -1)}B`,
  ])("%j holds no credential", (header) => {
    expect(() => parseBearer(header)).toThrow(FormatError)
  })

  test("a range comes back and is cut at the end", () => {
    expect(parseRange(encodeRange({ first: 3, last: 9 }), 100)).toEqual({ first: 3, last: 9 })
    expect(parseRange("bytes=90-200", 100)).toEqual({ first: 90, last: 99 })
    expect(parseRange("bytes=90-", 100)).toEqual({ first: 90, last: 99 })
  })

  test.each([
    "bytes=100-",
    "bytes=100-200",
    "bytes=5-4",
    "bytes=-5",
    "bytes=0-1,3-4",
    "bytes=0-1, 3-4",
    "bytes 0-1",
    "bytes=01-2",
    "bytes=a-b",
    "items=0-1",
    "bytes=99999999999999999999-",
    "",
  ])("%j cannot be served of 100 bytes", (header) => {
    expect(() => parseRange(header, 100)).toThrow(FormatError)
  })

  test("nothing can be served of nothing", () => {
    expect(() => parseRange("bytes=0-", 0)).toThrow(FormatError)
  })

  test("a Content-Range comes back, and only one inside its size", () => {
    const range = { first: 3, last: 9 }
    expect(parseContentRange(encodeContentRange(range, 10))).toEqual({ ...range, size: 10 })
    const bad = ["bytes 3-9/9", "bytes 9-3/10", "bytes 3-9/*", "bytes */10", "bytes=3-9/10", ""]
    for (const header of bad) expect(() => parseContentRange(header)).toThrow(FormatError)
  })
})

describe("the query of an inbox", () => {
  const defaults = { after: 0, limit: 1000, waitSeconds: 0, envelopes: false }
  const parse = (query: string) => parseInboxQuery(new URLSearchParams(query), defaults)

  test("comes back as it was", () => {
    fc.assert(
      fc.property(
        fc.record({
          after: fc.maxSafeNat(),
          limit: fc.integer({ min: 1, max: 1000 }),
          waitSeconds: fc.integer({ min: 0, max: 30 }),
          envelopes: fc.boolean(),
        }),
        (query) => {
          expect(parse(encodeInboxQuery(query))).toEqual(query)
        },
      ),
    )
    expect(parse("")).toEqual(defaults)
    expect(parse("envelopes=0")).toEqual(defaults)
  })

  test.each([
    "after=-1",
    "after=01",
    "after=9007199254740992",
    "after=1&after=1",
    "limit=0",
    "limit=",
    "wait=1.5",
    "envelopes=true",
    "envelopes=2",
    "since=1",
    "After=1",
  ])("%s is refused", (query) => {
    expect(() => parse(query)).toThrow(FormatError)
  })
})
