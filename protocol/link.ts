// A share link: an envelope without a recipient, opened by a secret that stands in the fragment of a
// URL, which browsers do not send (docs/protocol.md §6). The format is final; no relay serves it yet.
import {
  ByteReader,
  concatBytes,
  equalBytes,
  fromBase64url,
  toBase64url,
  toHex,
  u16,
  utf8,
  fromHex,
} from "./bytes.js"
import { argon2id } from "./crypto/argon2id.js"
import type { Random } from "./crypto/provider.js"
import { type OpenedEnvelope, orOpenError, readPayload, sealedPayloadBytes } from "./envelope.js"
import { FormatError, OpenError } from "./errors.js"
import { hostOf, type Identity, inboxIdBytes, originOf } from "./identity.js"
import { label } from "./labels.js"
import { encodePayload, type PayloadFields, signPayload } from "./payload.js"
import { gcmOpen, gcmSeal, hkdfSha256, random as providerRandom, sha256 } from "#crypto-provider"

const passwordFlag = 1
/** A link has no recipient, and a signature in it is bound to none. */
const noRecipient = new Uint8Array(32)

export interface LinkParts {
  /** Whether a password is part of the key. */
  readonly hasPassword: boolean
  readonly salt: Uint8Array
  readonly headerHash: Uint8Array
  readonly com: Uint8Array
  /** All bytes before the sealed payload. */
  readonly aad: Uint8Array
  readonly sealedPayload: Uint8Array
}

/** Throws FormatError. Nothing of it is verified. */
export function parseLink(envelope: Uint8Array): LinkParts {
  const reader = new ByteReader(envelope, "link")
  reader.expectAscii("KNHL", "magic")
  reader.expectU8(1, "version")
  const flags = reader.u8("flags")
  if (flags > passwordFlag) reader.refuse("flags", "unknown bits are set")
  reader.zeros(2, "reserved")
  const salt = reader.take(16, "salt")
  const headerHash = reader.take(32, "header hash")
  const com = reader.take(32, "key commitment")
  const aad = envelope.subarray(0, reader.offset)
  const sealedPayload = reader.take(sealedPayloadBytes, "payload")
  reader.end()
  return { hasPassword: flags === passwordFlag, salt, headerHash, com, aad, sealedPayload }
}

export interface SealLinkInput {
  readonly headerHash: Uint8Array
  readonly payload: PayloadFields
  /** Part of the key, so the relay cannot let anyone past it. An empty one is none. */
  readonly password?: string | undefined
  /** Signs; there is no deniable tag without a recipient to make it for. */
  readonly signer?: Identity | undefined
  /** Draws "link_id", "secret" and "salt". */
  readonly random?: Random | undefined
}

export interface SealedLink {
  readonly linkId: Uint8Array
  readonly secret: Uint8Array
  readonly envelope: Uint8Array
}

export async function sealLink(input: SealLinkInput): Promise<SealedLink> {
  const { headerHash, signer } = input
  if (headerHash.length !== 32) throw new RangeError("a header hash is 32 bytes")
  const draw = input.random ?? providerRandom
  const linkId = draw(16, "link_id")
  const secret = draw(32, "secret")
  const salt = draw(16, "salt")
  const password = input.password === "" ? undefined : input.password
  const payload = encodePayload(input.payload)
  const { kek, com } = await deriveLinkKeys({ secret, password, salt, headerHash })
  if (signer) {
    signPayload(payload, signer, { recipientFingerprint: noRecipient, headerHash, com })
  }
  const flags = password === undefined ? 0 : passwordFlag
  const aad = concatBytes(utf8("KNHL"), Uint8Array.of(1, flags, 0, 0), salt, headerHash, com)
  const envelope = concatBytes(aad, gcmSeal({ key: kek, aad, plaintext: payload }))
  return { linkId, secret, envelope }
}

export interface OpenLinkInput {
  readonly secret: Uint8Array
  /** Used if the link has one. */
  readonly password?: string | undefined
  readonly envelope: Uint8Array
  readonly headerHash: Uint8Array
}

/** Throws OpenError and nothing else. */
export async function openLink(input: OpenLinkInput): Promise<OpenedEnvelope> {
  const { secret, headerHash } = input
  const parts = orOpenError(() => parseLink(new Uint8Array(input.envelope)))
  if (!equalBytes(parts.headerHash, headerHash)) throw new OpenError()
  const password = parts.hasPassword ? input.password : undefined
  if (parts.hasPassword && (password === undefined || password === "")) throw new OpenError()
  const { kek, com } = await deriveLinkKeys({ secret, password, salt: parts.salt, headerHash })
  if (!equalBytes(com, parts.com)) throw new OpenError()
  const payload = gcmOpen({ key: kek, aad: parts.aad, ciphertext: parts.sealedPayload })
  const opened = readPayload(payload, {
    binding: { recipientFingerprint: noRecipient, headerHash: parts.headerHash, com },
    authSeed: undefined,
  })
  if (opened.authentication.mode === "deniable") throw new OpenError()
  return opened
}

export interface LinkKeyInput {
  readonly secret: Uint8Array
  readonly password: string | undefined
  readonly salt: Uint8Array
  readonly headerHash: Uint8Array
}

export async function deriveLinkKeys(
  input: LinkKeyInput,
): Promise<{ kek: Uint8Array; com: Uint8Array }> {
  const { secret, password, salt, headerHash } = input
  if (secret.length !== 32) throw new RangeError("a link's secret is 32 bytes")
  const ikm = [u16(secret.length), secret]
  if (password !== undefined) {
    const stretched = await argon2id({
      password: utf8(password.normalize("NFC")),
      salt,
      memoryKib: 64 * 1024,
      passes: 3,
      lanes: 1,
      length: 32,
    })
    ikm.push(u16(stretched.length), stretched)
  }
  const flags = Uint8Array.of(password === undefined ? 0 : passwordFlag)
  const okm = hkdfSha256({
    ikm: concatBytes(...ikm),
    salt: label("wrap"),
    info: concatBytes(label("link"), flags, headerHash),
    length: 64,
  })
  return { kek: okm.subarray(0, 32), com: okm.subarray(32) }
}

/** What the relay asks for before it serves anything of a link; it keeps only the SHA-256. */
export function linkAccess(input: {
  readonly secret: Uint8Array
  readonly linkId: Uint8Array
}): Uint8Array {
  const info = concatBytes(label("link"), utf8("access"))
  return hkdfSha256({ ikm: input.secret, salt: input.linkId, info, length: 32 })
}

/** Stands where an inbox would in a link's stamp and receipt. */
export function linkInboxId(linkId: Uint8Array): Uint8Array {
  return sha256(label("link"), linkId).slice(0, inboxIdBytes)
}

const fragmentLead = "v1."

/** What stands behind the "#". */
export function encodeLinkFragment(secret: Uint8Array): string {
  if (secret.length !== 32) throw new RangeError("a link's secret is 32 bytes")
  return fragmentLead + toBase64url(secret)
}

export function parseLinkFragment(fragment: string): Uint8Array {
  if (!fragment.startsWith(fragmentLead)) throw new FormatError("link", "of an unknown version")
  const secret = fromBase64url(fragment.slice(fragmentLead.length), "link")
  if (secret.length !== 32) throw new FormatError("link", "its secret is cut short or too long")
  return secret
}

export interface LinkUrl {
  readonly host: string
  readonly linkId: Uint8Array
  readonly secret: Uint8Array
}

export function encodeLinkUrl({ host, linkId, secret }: LinkUrl): string {
  if (linkId.length !== 16) throw new RangeError("a link id is 16 bytes")
  return `${originOf(host)}/l/${toHex(linkId)}#${encodeLinkFragment(secret)}`
}

/** Takes "%23" for "#": some mail gateways rewrite it. */
export function parseLinkUrl(text: string): LinkUrl {
  const match = /^(https?:\/\/[^/?#]+)\/l\/([0-9a-f]{32})(?:#|%23)(.*)$/.exec(text)
  const [, origin, id, fragment] = match ?? []
  if (origin === undefined || id === undefined || fragment === undefined) {
    throw new FormatError("link", "not of the form https://host/l/<id>#v1.<secret>")
  }
  return { host: hostOf(origin), linkId: fromHex(id), secret: parseLinkFragment(fragment) }
}
