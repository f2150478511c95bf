// §5 and §6 of docs/protocol.md (identity, envelope), written from that page alone; it shares no
// code with the project. Left out: share links, and telling who sent a delivery (envelopes of mode
// 1 and 2 are opened, their sender stays unknown).

import {
  constants,
  createHash,
  createPublicKey,
  generateKeyPair,
  privateDecrypt,
  publicEncrypt,
  type KeyObject,
} from "node:crypto"
import { promisify } from "node:util"
import { ed25519 } from "@noble/curves/ed25519.js"
import { ml_kem768 } from "@noble/post-quantum/ml-kem.js"
import { bech32m } from "@scure/base"
import nacl from "tweetnacl"
import {
  equal,
  FormatError,
  H,
  hkdf,
  insist,
  join,
  L,
  openGcm,
  random,
  Reader,
  sealGcm,
  u16,
  u64,
  u8,
  utf8,
  zeros,
} from "./second-client-bytes.js"

// ---- §5 Identity

export type Bundle = {
  bytes: Uint8Array
  rsa: KeyObject
  rsaBytes: number
  auth: Uint8Array
  /** The X-Wing key, where the identity has one: with it suite 2 is the only suite. */
  xwing: Uint8Array | undefined
  fingerprint: Uint8Array
  inboxId: Uint8Array
}

export type Identity = {
  bundle: Bundle
  rsaSecret: KeyObject
  authSecret: Uint8Array
  xwingSeed: Uint8Array | undefined
}

/** X25519; an all-zero result means a key of small order and is refused. */
export function exchange(secret: Uint8Array, theirs: Uint8Array): Uint8Array {
  const shared = nacl.scalarMult(secret, theirs)
  insist(!equal(shared, zeros(32)), "an X25519 key of small order")
  return shared
}

function rsaPublicKey(modulus: Uint8Array): KeyObject {
  const n = Buffer.from(modulus).toString("base64url")
  return createPublicKey({ key: { kty: "RSA", n, e: "AQAB" }, format: "jwk" })
}

export function parseBundle(bytes: Uint8Array): Bundle {
  const from = new Reader(bytes)
  from.expect(utf8("KNHB"), u8(1))
  const flags = from.number(1)
  insist(flags <= 3, "an unknown flag")
  const rsaBytes = from.number(2)
  insist(rsaBytes === 384 || rsaBytes === 512, "an RSA modulus of another size")
  const modulus = from.take(rsaBytes)
  insist(((modulus[0] ?? 0) & 128) !== 0 && ((modulus.at(-1) ?? 0) & 1) === 1, "no RSA modulus")
  const auth = from.take(32)
  const xwing = flags & 1 ? from.take(1216) : undefined
  const signing = flags & 2 ? from.take(32) : undefined
  from.end()
  const anySecret = random(32)
  exchange(anySecret, auth)
  if (xwing) exchange(anySecret, xwing.subarray(1184))
  insist(
    !signing || !ed25519.Point.fromBytes(signing).isSmallOrder(),
    "an Ed25519 key of small order",
  )
  const fingerprint = H(L("bundle"), bytes)
  const inboxId = fingerprint.slice(0, 20)
  return { bytes, rsa: rsaPublicKey(modulus), rsaBytes, auth, xwing, fingerprint, inboxId }
}

/** A new identity of RSA-3072, with an X-Wing key for suite 2. It has no Ed25519 key. */
export async function makeIdentity(suite: 1 | 2): Promise<Identity> {
  const { publicKey, privateKey } = await promisify(generateKeyPair)("rsa", { modulusLength: 3072 })
  const modulus = new Uint8Array(
    Buffer.from(publicKey.export({ format: "jwk" }).n ?? "", "base64url"),
  )
  const auth = nacl.box.keyPair()
  const xwingSeed = suite === 2 ? random(32) : undefined
  const bytes = join(
    utf8("KNHB"),
    u8(1),
    u8(xwingSeed ? 1 : 0),
    u16(modulus.length),
    modulus,
    auth.publicKey,
    xwingSeed ? xwingKeys(xwingSeed).publicKey : zeros(0),
  )
  return {
    bundle: parseBundle(bytes),
    rsaSecret: privateKey,
    authSecret: auth.secretKey,
    xwingSeed,
  }
}

export const encodeAddress = (inboxId: Uint8Array): string =>
  bech32m.encode("knot", bech32m.toWords(inboxId))

export function parseAddress(text: string): Uint8Array {
  const decoded = bech32m.decodeUnsafe(text)
  const inboxId = decoded && bech32m.fromWordsUnsafe(decoded.words)
  // Encoding it again refuses another prefix and capitals, which bech32m alone allows.
  insist(inboxId?.length === 20 && encodeAddress(inboxId) === text, "not an address")
  return inboxId
}

// ---- §6 Envelope

function xwingKeys(seed: Uint8Array) {
  const expanded = createHash("shake256", { outputLength: 96 }).update(seed).digest()
  const kem = ml_kem768.keygen(new Uint8Array(expanded.subarray(0, 64)))
  const x25519 = new Uint8Array(expanded.subarray(64))
  const x25519Public = nacl.scalarMult.base(x25519)
  return { kem, x25519, x25519Public, publicKey: join(kem.publicKey, x25519Public) }
}

const xwingSecret = (...parts: Uint8Array[]): Uint8Array =>
  new Uint8Array(
    createHash("sha3-256")
      .update(join(...parts, utf8("\\.//^\\")))
      .digest(),
  )

function xwingEncapsulate(publicKey: Uint8Array) {
  const theirs = publicKey.slice(1184)
  const kem = ml_kem768.encapsulate(publicKey.slice(0, 1184))
  const once = nacl.box.keyPair()
  const shared = exchange(once.secretKey, theirs)
  return {
    ciphertext: join(kem.cipherText, once.publicKey),
    secret: xwingSecret(kem.sharedSecret, shared, once.publicKey, theirs),
  }
}

function xwingDecapsulate(seed: Uint8Array, ciphertext: Uint8Array): Uint8Array {
  const { kem, x25519, x25519Public } = xwingKeys(seed)
  const theirs = ciphertext.slice(1088)
  const shared = exchange(x25519, theirs)
  const kemShared = ml_kem768.decapsulate(ciphertext.slice(0, 1088), kem.secretKey)
  return xwingSecret(kemShared, shared, theirs, x25519Public)
}

const OAEP = { padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: "sha256", oaepLabel: L("wrap") }

/** `top` is the envelope up to and with ct_xw; the two secrets are what its ciphertexts carry. */
function envelopeKeys(
  bundle: Bundle,
  top: Uint8Array,
  secrets: { rsa: Uint8Array; xwing: Uint8Array | undefined },
) {
  const from = new Reader(top)
  from.take(5)
  const [suite, , hdr] = [from.take(1), from.take(2), from.take(32)]
  const [ctRsa, ctXwing] = [from.take(bundle.rsaBytes), from.take(secrets.xwing ? 1120 : 0)]
  const out = hkdf({
    ikm: join(u16(32), secrets.rsa, ...(secrets.xwing ? [u16(32), secrets.xwing] : [])),
    salt: L("wrap"),
    info: join(L("wrap"), suite, bundle.fingerprint, hdr, H(ctRsa), H(ctXwing)),
    length: 64,
  })
  return { key: out.slice(0, 32), commitment: out.slice(32) }
}

/** Wraps the delivery secret for one recipient, in the suite its bundle asks for, from nobody. */
export function sealEnvelope(recipient: Bundle, hdr: Uint8Array, ds: Uint8Array): Uint8Array {
  const rsa = random(32)
  const xwing = recipient.xwing ? xwingEncapsulate(recipient.xwing) : undefined
  const top = join(
    utf8("KNHE"),
    u8(1),
    u8(xwing ? 2 : 1),
    u16(0),
    hdr,
    publicEncrypt({ key: recipient.rsa, ...OAEP }, rsa),
    xwing?.ciphertext ?? zeros(0),
  )
  const { key, commitment } = envelopeKeys(recipient, top, { rsa, xwing: xwing?.secret })
  const aad = join(top, commitment)
  const payload = join(u8(1), u8(0), zeros(2), ds, u64(Date.now()), zeros(512 - 44))
  return join(aad, sealGcm({ key, aad }, payload))
}

const orRandom = (open: () => Uint8Array): Uint8Array => {
  try {
    const secret = open()
    return secret.length === 32 ? secret : random(32)
  } catch {
    return random(32)
  }
}

/** The delivery secret out of an envelope that must name `hdr`. Every failure is one error. */
export function openEnvelope(
  identity: Identity,
  hdr: Uint8Array,
  envelope: Uint8Array,
): Uint8Array {
  try {
    return openPayload(unwrap(identity, hdr, envelope))
  } catch {
    throw new FormatError("the envelope does not open")
  }
}

function unwrap(identity: Identity, hdr: Uint8Array, envelope: Uint8Array): Uint8Array {
  const { bundle, rsaSecret, xwingSeed } = identity
  const from = new Reader(envelope)
  from.expect(utf8("KNHE"), u8(1), u8(xwingSeed ? 2 : 1), u16(0), hdr)
  const ctRsa = from.take(bundle.rsaBytes)
  const ctXwing = from.take(xwingSeed ? 1120 : 0)
  const top = envelope.slice(0, from.position)
  const given = from.take(32)
  const sealed = from.take(528)
  from.end()
  const rsa = orRandom(() => new Uint8Array(privateDecrypt({ key: rsaSecret, ...OAEP }, ctRsa)))
  const xwing = xwingSeed && orRandom(() => xwingDecapsulate(xwingSeed, ctXwing))
  const { key, commitment } = envelopeKeys(bundle, top, { rsa, xwing })
  // GCM does not commit to its key, so this comparison comes before it.
  insist(equal(given, commitment), "made for another key")
  return openGcm({ key, aad: join(top, given) }, sealed)
}

function openPayload(payload: Uint8Array): Uint8Array {
  const from = new Reader(payload)
  from.expect(u8(1))
  const mode = from.number(1)
  insist(mode <= 2, "an unknown mode")
  from.expect(zeros(2))
  const ds = from.take(32)
  from.number(8)
  const sequence = from.number(8)
  const previous = from.take(32)
  insist(sequence > 1 || equal(previous, zeros(32)), "a first delivery that follows another")
  // Without the sender's bundle nothing in here says who sent this, so the sender stays unknown.
  const [sender, tagEnd] = [from.take(96), from.take(32)]
  insist(mode !== 0 || equal(sender, zeros(96)), "a sender in mode 0")
  insist(mode === 2 || equal(tagEnd, zeros(32)), "bytes behind the tag")
  const replyInbox = from.take(20)
  const host = Buffer.from(from.take(from.number(1))).toString("latin1")
  insist(/^[a-z0-9.\-_:[\]]*$/.test(host), "not a host")
  insist(host !== "" || equal(replyInbox, zeros(20)), "a reply inbox without a host")
  from.expect(zeros(512 - from.position))
  return ds
}
