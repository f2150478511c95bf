// The delivery secret, wrapped to one recipient (docs/protocol.md §6). Opening has one failure,
// OpenError, and nothing here tells apart why.
import { ByteReader, concatBytes, equalBytes, u16, utf8 } from "./bytes.js"
import type { Random } from "./crypto/provider.js"
import { rsaUnwrap, rsaWrap } from "./crypto/rsa.js"
import { xwingCiphertextBytes, xwingEncapsulate, type XwingKeys } from "./crypto/xwing.js"
import { FormatError, OpenError } from "./errors.js"
import { checkKeyCommit, type Header, headerHash, parseHeader } from "./header.js"
import type { Bundle, Identity } from "./identity.js"
import { label } from "./labels.js"
import { gcmTagBytes } from "./limits.js"
import {
  type Authentication,
  claimedSender,
  encodePayload,
  parsePayload,
  payloadBytes,
  type PayloadFields,
  type Sender,
  signPayload,
  tagPayload,
} from "./payload.js"
import { gcmOpen, gcmSeal, hkdfSha256, random as providerRandom, sha256 } from "#crypto-provider"

/** Magic, version, suite, flags, header hash. */
const publicBytes = 40
const comBytes = 32
export const sealedPayloadBytes: number = payloadBytes + gcmTagBytes

/** The best that a bundle allows: a recipient with an X-Wing key accepts nothing less. */
export function envelopeSuite(bundle: Bundle): 1 | 2 {
  return bundle.xwingKey ? 2 : 1
}

export function envelopeLength(bundle: Bundle): number {
  const xwing = bundle.xwingKey ? xwingCiphertextBytes : 0
  return publicBytes + bundle.modulus.length + xwing + comBytes + sealedPayloadBytes
}

/** H_env, by which stamps, receipts and the chain name an envelope. */
export function envelopeHash(envelope: Uint8Array): Uint8Array {
  return sha256(envelope)
}

/** The parts of an envelope, none of them verified. All are views. */
export interface EnvelopeParts {
  readonly suite: 1 | 2
  readonly headerHash: Uint8Array
  readonly rsaCiphertext: Uint8Array
  /** Empty in suite 1. */
  readonly xwingCiphertext: Uint8Array
  readonly com: Uint8Array
  /** All bytes before the sealed payload. */
  readonly aad: Uint8Array
  readonly sealedPayload: Uint8Array
}

/**
 * What can be checked without a key, so by the relay: magic, version, the suite that this bundle asks
 * for (a lower one is a downgrade), and the length. Throws FormatError.
 */
export function parseEnvelope(envelope: Uint8Array, recipient: Bundle): EnvelopeParts {
  const reader = new ByteReader(envelope, "envelope")
  reader.expectAscii("KNHE", "magic")
  reader.expectU8(1, "version")
  const suite = envelopeSuite(recipient)
  reader.expectU8(suite, "suite")
  reader.zeros(2, "flags")
  const headerHash = reader.take(32, "header hash")
  const rsaCiphertext = reader.take(recipient.modulus.length, "RSA ciphertext")
  const xwingCiphertext = reader.take(suite === 2 ? xwingCiphertextBytes : 0, "X-Wing ciphertext")
  const com = reader.take(comBytes, "key commitment")
  const aad = envelope.subarray(0, reader.offset)
  const sealedPayload = reader.take(sealedPayloadBytes, "payload")
  reader.end()
  return { suite, headerHash, rsaCiphertext, xwingCiphertext, com, aad, sealedPayload }
}

export interface SealEnvelopeInput {
  readonly recipient: Bundle
  readonly headerHash: Uint8Array
  readonly payload: PayloadFields
  /** Left out, the delivery is anonymous. */
  readonly sender?: Sender | undefined
  /** Draws "r", "oaep_seed" and "xwing_eseed". */
  readonly random?: Random | undefined
}

export async function sealEnvelope(input: SealEnvelopeInput): Promise<Uint8Array> {
  const { recipient, headerHash, sender, random } = input
  if (headerHash.length !== 32) throw new RangeError("a header hash is 32 bytes")
  const payload = encodePayload(input.payload)
  const r = (random ?? providerRandom)(32, "r")
  const rsaCiphertext = await rsaWrap({
    modulus: recipient.modulus,
    label: label("wrap"),
    secret: r,
    ...(random && { seed: random(32, "oaep_seed") }),
  })
  const xwing = recipient.xwingKey && xwingEncapsulate(recipient.xwingKey, random)
  const suite = envelopeSuite(recipient)
  const xwingCiphertext = xwing?.ciphertext ?? nothing
  const { kek, com } = deriveEnvelopeKeys({
    suite,
    r,
    xwingSecret: xwing?.sharedSecret,
    fingerprint: recipient.fingerprint,
    headerHash,
    rsaCiphertext,
    xwingCiphertext,
  })
  const binding = { recipientFingerprint: recipient.fingerprint, headerHash, com }
  if (sender?.mode === "deniable") {
    tagPayload(payload, sender.identity, recipient.authKey, binding)
  } else if (sender?.mode === "signature") {
    signPayload(payload, sender.identity, binding)
  }
  const aad = concatBytes(
    utf8("KNHE"),
    Uint8Array.of(1, suite, 0, 0),
    headerHash,
    rsaCiphertext,
    xwingCiphertext,
    com,
  )
  return concatBytes(aad, gcmSeal({ key: kek, aad, plaintext: payload }))
}

export interface OpenEnvelopeInput {
  readonly identity: Identity
  readonly envelope: Uint8Array
  /** Of the header in hand: an envelope glued to another header does not open. */
  readonly headerHash: Uint8Array
}

export interface OpenedEnvelope {
  readonly payload: PayloadFields
  readonly authentication: Authentication
}

/**
 * Throws OpenError and nothing else. A wrapped secret that does not open is replaced by random bytes,
 * so that a failure of either half shows only as a key commitment that does not match: who could
 * tell them apart would have Manger's oracle on the RSA key. The commitment is compared before the
 * AEAD, because AES-GCM alone can be made to open under two keys.
 */
export async function openEnvelope(input: OpenEnvelopeInput): Promise<OpenedEnvelope> {
  const { identity, headerHash } = input
  const { bundle, expanded } = identity
  const parts = splitOrRefuse(new Uint8Array(input.envelope), bundle)
  if (!equalBytes(parts.headerHash, headerHash)) throw new OpenError()

  const { rsaCiphertext, xwingCiphertext } = parts
  const insteadOfR = providerRandom(32)
  const unwrapped = await rsaUnwrap({
    key: expanded.rsa,
    label: label("wrap"),
    wrapped: rsaCiphertext,
  })
  const { kek, com } = deriveEnvelopeKeys({
    suite: parts.suite,
    r: unwrapped?.length === 32 ? unwrapped : insteadOfR,
    xwingSecret: expanded.xwing && decapsulateOrDraw(expanded.xwing, xwingCiphertext),
    fingerprint: bundle.fingerprint,
    headerHash,
    rsaCiphertext,
    xwingCiphertext,
  })
  if (!equalBytes(com, parts.com)) throw new OpenError()
  const payload = gcmOpen({ key: kek, aad: parts.aad, ciphertext: parts.sealedPayload })
  return readPayload(payload, {
    binding: { recipientFingerprint: bundle.fingerprint, headerHash: parts.headerHash, com },
    authSeed: identity.authSeed,
  })
}

/** Turns opened bytes into values. Bad bytes inside are the same OpenError as bad bytes outside. */
export function readPayload(
  payload: Uint8Array,
  context: {
    readonly binding: Parameters<typeof claimedSender>[2]
    readonly authSeed: Uint8Array | undefined
  },
): OpenedEnvelope {
  const { fields, claim } = orOpenError(() => parsePayload(payload))
  const authentication: Authentication = claim
    ? claimedSender(payload, claim, context.binding, context.authSeed)
    : { mode: "none" }
  return { payload: fields, authentication }
}

export interface OpenedDelivery extends OpenedEnvelope {
  readonly header: Header
  readonly headerHash: Uint8Array
}

/**
 * Opens an envelope against the header it came with: the header parses, its hash is the one sealed
 * inside, and the secret is the one it commits to. Throws OpenError and nothing else.
 */
export async function openDelivery(input: {
  readonly identity: Identity
  readonly header: Uint8Array
  readonly envelope: Uint8Array
}): Promise<OpenedDelivery> {
  const header = orOpenError(() => parseHeader(input.header))
  const hash = headerHash(input.header)
  const opened = await openEnvelope({
    identity: input.identity,
    envelope: input.envelope,
    headerHash: hash,
  })
  checkKeyCommit({ ds: opened.payload.ds, header })
  return { ...opened, header, headerHash: hash }
}

export function orOpenError<T>(parse: () => T): T {
  try {
    return parse()
  } catch (error) {
    if (error instanceof FormatError) throw new OpenError()
    throw error
  }
}

const nothing = new Uint8Array(0)

function splitOrRefuse(envelope: Uint8Array, bundle: Bundle): EnvelopeParts {
  return orOpenError(() => parseEnvelope(envelope, bundle))
}

function decapsulateOrDraw(keys: XwingKeys, ciphertext: Uint8Array): Uint8Array {
  const instead = providerRandom(32)
  try {
    return keys.decapsulate(ciphertext)
  } catch (error) {
    if (error instanceof FormatError) return instead
    throw error
  }
}

export interface EnvelopeKeyInput {
  readonly suite: 1 | 2
  readonly r: Uint8Array
  readonly xwingSecret: Uint8Array | undefined
  readonly fingerprint: Uint8Array
  readonly headerHash: Uint8Array
  readonly rsaCiphertext: Uint8Array
  readonly xwingCiphertext: Uint8Array
}

/**
 * Both secrets and both ciphertexts go in, so the result is safe while either half is (Giacon, Heuer
 * and Poettering, eprint 2018/024), and the recipient and the header, so it fits nothing else.
 */
export function deriveEnvelopeKeys(input: EnvelopeKeyInput): { kek: Uint8Array; com: Uint8Array } {
  const { r, xwingSecret } = input
  const ikm = [u16(r.length), r]
  if (xwingSecret) ikm.push(u16(xwingSecret.length), xwingSecret)
  const okm = hkdfSha256({
    ikm: concatBytes(...ikm),
    salt: label("wrap"),
    info: concatBytes(
      label("wrap"),
      Uint8Array.of(input.suite),
      input.fingerprint,
      input.headerHash,
      sha256(input.rsaCiphertext),
      sha256(input.xwingCiphertext),
    ),
    length: 64,
  })
  return { kek: okm.subarray(0, 32), com: okm.subarray(32) }
}
