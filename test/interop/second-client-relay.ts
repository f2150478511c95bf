// §9 and Part II of docs/protocol.md (what a relay signs, and how to talk to it), written from that
// page alone; it shares no code with the project.

import { createPublicKey, verify, type KeyObject } from "node:crypto"
import { setTimeout as wait } from "node:timers/promises"
import nacl from "tweetnacl"
import {
  equal,
  H,
  hkdf,
  hmac,
  insist,
  join,
  L,
  random,
  Reader,
  u16,
  u64,
  u8,
  utf8,
  zeros,
} from "./second-client-bytes.js"
import { encodeAddress, exchange, parseAddress, type Identity } from "./second-client-identity.js"

/** The relay said no; `code` is stable. */
export class RelayRefusal extends Error {
  override name = "RelayRefusal"
  readonly code: string

  constructor(code: string, detail: string) {
    super(`${code}: ${detail}`)
    this.code = code
  }
}

// ---- JSON replies. Fields that are not known are passed over, fields that are wanted are checked.

export type Json = { readonly [name: string]: unknown }

export function object(value: unknown): Json {
  insist(isObject(value), "not a JSON object")
  return value
}

const isObject = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value)

export function list(from: Json, name: string): Json[] {
  const value = from[name]
  insist(Array.isArray(value), `${name} is not a list`)
  return value.map(object)
}

export function text(from: Json, name: string): string {
  const value = from[name]
  insist(typeof value === "string", `${name} is not a text`)
  return value
}

export function number(from: Json, name: string): number {
  const value = from[name]
  insist(typeof value === "number" && Number.isSafeInteger(value), `${name} is not an integer`)
  return value
}

export const b64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64url")

export function bytes(from: Json, name: string, length?: number): Uint8Array {
  const value = text(from, name)
  const decoded = new Uint8Array(Buffer.from(value, "base64url"))
  insist(
    b64(decoded) === value && decoded.length === (length ?? decoded.length),
    `${name} is not b64`,
  )
  return decoded
}

// ---- Requests

export type Ask = {
  method?: "GET" | "POST" | "PUT" | "DELETE"
  /** A session, an upload token: what the route asks for. */
  credential?: Uint8Array
  idempotencyKey?: string
  json?: unknown
  bytes?: Uint8Array
  /** More than this is not read: a relay must not be able to fill our memory. */
  maxBytes?: number
}

export async function ask(origin: string, path: string, request: Ask = {}): Promise<Uint8Array> {
  const headers = new Headers()
  if (request.credential) headers.set("authorization", `Bearer ${b64(request.credential)}`)
  if (request.idempotencyKey) headers.set("idempotency-key", request.idempotencyKey)
  if (request.json) headers.set("content-type", "application/json")
  if (request.bytes) headers.set("content-type", "application/octet-stream")
  const body = request.json ? utf8(JSON.stringify(request.json)) : request.bytes
  for (let attempt = 1; ; attempt += 1) {
    // A redirect would carry the credential to a place nobody chose.
    const response = await fetch(origin + path, {
      method: request.method ?? "GET",
      headers,
      body: body ? new Uint8Array(body) : null,
      redirect: "error",
    })
    const reply = await readAtMost(response, request.maxBytes ?? 2 ** 24)
    if (response.ok) return reply
    if ((response.status !== 429 && response.status !== 503) || attempt === 5) throw refusal(reply)
    await wait(1000 * Math.min(60, Number(response.headers.get("retry-after") ?? attempt)))
  }
}

export const askJson = async (origin: string, path: string, request?: Ask): Promise<Json> =>
  parseJson(await ask(origin, path, request))

const parseJson = (reply: Uint8Array): Json => object(JSON.parse(Buffer.from(reply).toString()))

async function readAtMost(response: Response, maxBytes: number): Promise<Uint8Array> {
  const pieces: Uint8Array[] = []
  let room = maxBytes
  for await (const piece of response.body ?? []) {
    room -= piece.length
    insist(room >= 0, "the relay answers more than it was asked for")
    pieces.push(piece)
  }
  return join(...pieces)
}

function refusal(reply: Uint8Array): Error {
  try {
    const problem = parseJson(reply)
    return new RelayRefusal(text(problem, "code"), text(problem, "detail"))
  } catch {
    return new Error("the relay answered with an error that is not its own")
  }
}

// ---- The relay, and what it signs (§9)

export type Relay = { origin: string; signingKey: KeyObject; kid: number }

/** `pinned` is the signing key as it was learned before; without it the first answer is believed. */
export async function connect(origin: string, pinned?: Uint8Array): Promise<Relay> {
  const about = await askJson(origin, "/v1/relay")
  const key = bytes(about, "signing_key", 32)
  insist(!pinned || equal(key, pinned), "this relay signs with another key than before")
  const signingKey = createPublicKey({
    key: { kty: "OKP", crv: "Ed25519", x: b64(key) },
    format: "jwk",
  })
  return { origin, signingKey, kid: number(about, "kid") }
}

/** A reader over `signed`, past what all records begin with; the signature at its end was checked. */
function openSigned(relay: Relay, label: "head" | "receipt", signed: Uint8Array): Reader {
  const message = signed.slice(0, -64)
  const holds = verify(null, join(L(label), message), relay.signingKey, signed.slice(-64))
  insist(holds, `the relay's ${label} is not signed by it`)
  const from = new Reader(message)
  from.expect(utf8(label === "head" ? "KNHI" : "KNHR"), u8(1), u8(relay.kid))
  return from
}

/** What a record names: H_hdr and H_env. */
export type Named = { hdr: Uint8Array; env: Uint8Array }

export function checkReceipt(
  relay: Relay,
  inboxId: Uint8Array,
  of: Named,
  receipt: Uint8Array,
): void {
  const from = openSigned(relay, "receipt", receipt)
  from.expect(u16(0), inboxId, of.hdr, of.env)
  from.take(16) // accepted and expires: the relay's own business
  from.end()
}

/** A place in an inbox's chain. */
export type ChainPoint = { sequence: number; head: Uint8Array }

export const CHAIN_START: ChainPoint = { sequence: 0, head: zeros(32) }

export type Head = { point: ChainPoint; floorSequence: number }

export function parseHead(relay: Relay, inboxId: Uint8Array, signed: Uint8Array): Head {
  const from = openSigned(relay, "head", signed)
  insist(from.number(2) <= 1, "a head with an unknown flag")
  from.expect(inboxId)
  from.number(8) // as_of
  const point: ChainPoint = { sequence: from.number(8), head: from.take(32) }
  const floorSequence = from.number(8)
  from.end()
  return { point, floorSequence }
}

export type Link = Named & { sequence: number; acceptedMs: number; expiresMs: number }

export const follow = (before: ChainPoint, link: Link): ChainPoint => ({
  sequence: link.sequence,
  head: H(
    L("chain"),
    before.head,
    u64(link.sequence),
    link.hdr,
    link.env,
    u64(link.acceptedMs),
    u64(link.expiresMs),
  ),
})

/** The link a stamp stands for, and the chain head it claims. */
export type Stamp = { link: Link; head: Uint8Array }

/** Its key, source and tag are the relay's: a stamp is believed for the chain it fits in. */
export function parseStamp(inboxId: Uint8Array, stamp: Uint8Array): Stamp {
  const from = new Reader(stamp)
  from.expect(utf8("KNHS"), u8(1))
  from.number(1)
  from.expect(u16(0))
  const [acceptedMs, expiresMs] = [from.number(8), from.number(8)]
  from.expect(inboxId)
  const sequence = from.number(8)
  const link: Link = { acceptedMs, expiresMs, sequence, hdr: from.take(32), env: from.take(32) }
  const head = from.take(32)
  from.take(96)
  from.end()
  return { link, head }
}

export function parseTombstone(tombstone: Uint8Array): Link {
  const from = new Reader(tombstone)
  const [sequence, hdr, env] = [from.number(8), from.take(32), from.take(32)]
  const link: Link = { sequence, hdr, env, acceptedMs: from.number(8), expiresMs: from.number(8) }
  const reason = from.number(1)
  insist(reason >= 1 && reason <= 5, "an unknown reason")
  from.end()
  return link
}

// ---- Registering and logging in

export type Session = { relay: Relay; identity: Identity; token: Uint8Array }

/** Proves that `identity` is ours: for one relay, one challenge and one use. */
async function prove(relay: Relay, identity: Identity) {
  const challenge = await askJson(relay.origin, "/v1/sessions/challenge", { method: "POST" })
  const e = bytes(challenge, "e", 32)
  const nonce = bytes(challenge, "nonce", 36)
  const signature = bytes(challenge, "signature", 64)
  const minute = nonce.slice(16, 20)
  const signed = verify(null, join(L("minute"), minute, e), relay.signingKey, signature)
  insist(signed, "the challenge is not signed by this relay")

  const c = nacl.box.keyPair()
  const origin = utf8(relay.origin)
  const inboxId = identity.bundle.inboxId
  const T = H(L("chal"), u16(origin.length), origin, inboxId, e, c.publicKey, nonce)
  const boxNonce = random(24)
  // Both exchanges refuse a key of small order before the auth key answers to it in the box.
  const ikm = join(exchange(c.secretKey, e), exchange(identity.authSecret, e))
  return {
    T,
    sessionKey: hkdf({ ikm, salt: nonce, info: T, length: 32 }),
    fields: {
      origin: relay.origin,
      e: b64(e),
      nonce: b64(nonce),
      c: b64(c.publicKey),
      box_nonce: b64(boxNonce),
      proof: b64(nacl.box(T, boxNonce, e, identity.authSecret)),
    },
  }
}

/** Registers the identity's inbox and answers its address. Doing so again changes nothing. */
export async function register(relay: Relay, identity: Identity): Promise<string> {
  const address = encodeAddress(identity.bundle.inboxId)
  const { fields } = await prove(relay, identity)
  const json = { bundle: b64(identity.bundle.bytes), ...fields }
  await ask(relay.origin, `/v1/inboxes/${address}`, { method: "PUT", json })
  return `${address}@${new URL(relay.origin).host}`
}

export async function logIn(relay: Relay, identity: Identity): Promise<Session> {
  const address = encodeAddress(identity.bundle.inboxId)
  const { T, sessionKey, fields } = await prove(relay, identity)
  const json = { address, ...fields }
  const reply = await askJson(relay.origin, "/v1/sessions", { method: "POST", json })
  const token = bytes(reply, "token", 32)
  const mac = hmac(sessionKey, join(T, H(token)))
  insist(equal(mac, bytes(reply, "mac", 32)), "the session was not made by this relay")
  return { relay, identity, token }
}

/** `knot1…@host` in its two halves: who, and where (§5). */
export function splitAddress(full: string): { address: string; origin: string } {
  const [address = "", host = "", ...rest] = full.split("@")
  insist(rest.length === 0 && host !== "" && !host.includes("/"), "not an address with its host")
  parseAddress(address)
  const plain = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\]|.+\.onion)(:\d+)?$/.test(host)
  return { address, origin: new URL(`${plain ? "http" : "https"}://${host}`).origin }
}
