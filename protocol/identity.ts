// Who can be sent to: the bundle of public keys, the address that is its hash, the words that people
// compare, and the private keys behind them (docs/protocol.md §5).
import { bech32m } from "@scure/base"
import { wordlist } from "@scure/bip39/wordlists/english.js"
import { ByteReader, concatBytes, equalBytes, u16, utf8 } from "./bytes.js"
import { isGoodEd25519Key, isGoodX25519Key } from "./crypto/points.js"
import type { Random } from "./crypto/provider.js"
import { type RsaPrivateKey, rsaGenerate, rsaImportPrivate } from "./crypto/rsa.js"
import { isGoodXwingKey, type XwingKeys, xwingExpand, xwingPublicKeyBytes } from "./crypto/xwing.js"
import { FormatError } from "./errors.js"
import { label } from "./labels.js"
import { maxHostBytes } from "./limits.js"
import {
  ed25519PublicKey,
  random as providerRandom,
  sha256,
  x25519PublicKey,
} from "#crypto-provider"

export const inboxIdBytes: number = 20
const hasXwing = 1
const hasEd25519 = 2

/** Public keys as they are published. Made by `parseBundle` alone, so holding one means it is good. */
export interface Bundle {
  readonly bytes: Uint8Array
  readonly fingerprint: Uint8Array
  /** The first 20 bytes of the fingerprint. */
  readonly inboxId: Uint8Array
  /** `knot1…` without a host. */
  readonly address: string
  /** 384 or 512 bytes; the exponent is 65537. */
  readonly modulus: Uint8Array
  readonly authKey: Uint8Array
  readonly xwingKey: Uint8Array | undefined
  readonly signKey: Uint8Array | undefined
}

/**
 * Refuses other modulus sizes (a huge one is an attack on the sender's processor), even ones and ones
 * without their top bit, and Curve25519 keys of small order: under such an Ed25519 key one signature
 * fits every message, and with such an X25519 key every shared secret is the same.
 */
export function parseBundle(bytes: Uint8Array): Bundle {
  const own = new Uint8Array(bytes)
  const reader = new ByteReader(own, "bundle")
  reader.expectAscii("KNHB", "magic")
  reader.expectU8(1, "version")
  const flags = reader.u8("flags")
  if (flags > (hasXwing | hasEd25519)) reader.refuse("flags", "unknown bits are set")
  const modulusLength = reader.u16("modulus length")
  if (modulusLength !== 384 && modulusLength !== 512) {
    reader.refuse("modulus length", "neither 3072 nor 4096 bits")
  }
  const modulus = reader.take(modulusLength, "modulus")
  if ((modulus[0] ?? 0) < 0x80) reader.refuse("modulus", "its top bit is not set")
  if ((modulus[modulusLength - 1] ?? 0) % 2 === 0) reader.refuse("modulus", "even")
  const authKey = reader.take(32, "auth key")
  if (!isGoodX25519Key(authKey)) reader.refuse("auth key", "not a good X25519 key")
  let xwingKey: Uint8Array | undefined
  if (flags & hasXwing) {
    xwingKey = reader.take(xwingPublicKeyBytes, "X-Wing key")
    if (!isGoodXwingKey(xwingKey) || !isGoodX25519Key(xwingKey.subarray(-32))) {
      reader.refuse("X-Wing key", "not a good X-Wing key")
    }
  }
  let signKey: Uint8Array | undefined
  if (flags & hasEd25519) {
    signKey = reader.take(32, "Ed25519 key")
    if (!isGoodEd25519Key(signKey)) reader.refuse("Ed25519 key", "not a good Ed25519 key")
  }
  reader.end()
  const fingerprint = sha256(label("bundle"), own)
  const inboxId = fingerprint.subarray(0, inboxIdBytes)
  return {
    bytes: own,
    fingerprint,
    inboxId,
    address: encodeAddress(inboxId),
    modulus,
    authKey,
    xwingKey,
    signKey,
  }
}

/** An identity's secrets. Each key does one job, so none can be turned against another. */
export interface SecretKeys {
  /** Unwraps envelopes. PKCS#8. */
  readonly rsaPkcs8: Uint8Array
  /** Logs in, and makes and checks deniable tags. 32 bytes, X25519. */
  readonly authSeed: Uint8Array
  /** Opens the second half of an envelope. 32 bytes. */
  readonly xwingSeed: Uint8Array | undefined
  /** Signs in mode 2. 32 bytes, Ed25519. */
  readonly signSeed: Uint8Array | undefined
}

export interface Identity extends SecretKeys {
  readonly bundle: Bundle
  /** Imported and expanded once: expanding costs more than opening an envelope. */
  readonly expanded: { readonly rsa: RsaPrivateKey; readonly xwing: XwingKeys | undefined }
}

export interface CreateIdentityOptions {
  /** 3072 unless said otherwise: what lasts is X-Wing's part, not a larger modulus. */
  readonly modulusBits?: 3072 | 4096
  /** For all but the RSA key, which only its own generator draws. */
  readonly random?: Random
}

export async function createIdentity(options: CreateIdentityOptions = {}): Promise<Identity> {
  const draw = options.random ?? providerRandom
  return identityFromKeys({
    rsaPkcs8: await rsaGenerate(options.modulusBits ?? 3072),
    authSeed: draw(32, "x25519_seed"),
    xwingSeed: draw(32, "xwing_seed"),
    signSeed: draw(32, "ed25519_seed"),
  })
}

/** Throws FormatError when `rsaPkcs8` is no RSA key of 3072 or 4096 bits with exponent 65537. */
export async function identityFromKeys(keys: SecretKeys): Promise<Identity> {
  for (const seed of [keys.authSeed, keys.xwingSeed, keys.signSeed]) {
    if (seed !== undefined && seed.length !== 32) throw new RangeError("a seed is 32 bytes")
  }
  const rsa = await rsaImportPrivate(keys.rsaPkcs8)
  const xwing = keys.xwingSeed && xwingExpand(keys.xwingSeed)
  const parts = [
    utf8("KNHB"),
    Uint8Array.of(1, (xwing ? hasXwing : 0) | (keys.signSeed ? hasEd25519 : 0)),
    u16(rsa.modulus.length),
    rsa.modulus,
    x25519PublicKey(keys.authSeed),
  ]
  if (xwing) parts.push(xwing.publicKey)
  if (keys.signSeed) parts.push(ed25519PublicKey(keys.signSeed))
  return { ...keys, bundle: parseBundle(concatBytes(...parts)), expanded: { rsa, xwing } }
}

/** The first 88 bits as eight words of the English BIP-39 list, for people to compare by voice. */
export function fingerprintWords(fingerprint: Uint8Array): string[] {
  const words: string[] = []
  let pending = 0
  let bits = 0
  for (const byte of fingerprint.subarray(0, 11)) {
    pending = ((pending << 8) | byte) & 0xfffff
    bits += 8
    if (bits >= 11) {
      bits -= 11
      words.push(wordlist[(pending >> bits) & 0x7ff] ?? "")
    }
  }
  return words
}

export interface Address {
  readonly inboxId: Uint8Array
  /** `knot1…` without a host. */
  readonly address: string
  /** `host[:port]` without a default port. */
  readonly host: string | undefined
}

/** `host` as in `originOf`. */
export function encodeAddress(inboxId: Uint8Array, host?: string): string {
  if (inboxId.length !== inboxIdBytes) throw new RangeError("an inbox id is 20 bytes")
  const bare = bech32m.encode(prefix, bech32m.toWords(inboxId))
  return host === undefined ? bare : `${bare}@${parseHost(host).host}`
}

/**
 * Reads `knot1…`, `knot1…@host[:port]`, or the link of a drop page, `https://host/to/knot1…`. A
 * mistyped address throws a FormatError that says where the mistake is, when the checksum can tell.
 */
export function parseAddress(text: string): Address {
  const link = /^(https?:\/\/[^/?#]+)\/to\/([^/?#]*)\/?$/.exec(text)
  if (link) {
    const [, origin = "", bare = ""] = link
    return { inboxId: parseBareAddress(bare), address: bare, host: hostOf(origin) }
  }
  if (/^[a-z]+:\/\//i.test(text)) {
    throw new FormatError("address", "a link to an inbox has the form https://host/to/knot1…")
  }
  const at = text.indexOf("@")
  const bare = at < 0 ? text : text.slice(0, at)
  return {
    inboxId: parseBareAddress(bare),
    address: bare,
    host: at < 0 ? undefined : parseHost(text.slice(at + 1)).host,
  }
}

/** Where an inbox at `host` is asked for: https, but http on loopback and for onion services. */
export function originOf(host: string): string {
  return parseHost(host).origin
}

/** The inverse of `originOf`; refuses origins that no address can name. */
export function hostOf(origin: string): string {
  const [, scheme, host] = /^(https?):\/\/([^/]*)\/?$/.exec(origin) ?? []
  if (scheme === undefined || host === undefined) {
    throw new FormatError("origin", "not of the form https://host[:port]")
  }
  const parsed = parseHost(host, scheme)
  if (!parsed.origin.startsWith(`${scheme}://`)) {
    throw new FormatError(
      "origin",
      scheme === "http"
        ? "http is only for loopback and .onion hosts; use https"
        : "loopback and .onion hosts are reached by http",
    )
  }
  return parsed.host
}

function parseHost(text: string, scheme?: string): { host: string; origin: string } {
  const lower = text.toLowerCase()
  if (lower === "" || lower.length > maxHostBytes || !/^[a-z0-9.\-_:[\]]+$/.test(lower)) {
    throw new FormatError("host", "not of the form host or host:port")
  }
  const local = isLocalName(lower)
  const url = parseUrl(`${scheme ?? (local ? "http" : "https")}://${lower}`)
  const defaultPort = url.protocol === "http:" ? ":80" : ":443"
  // The URL standard reads 127.1 or [0::1] as other spellings of one host; we keep one of each.
  if (url.host !== lower && url.host + defaultPort !== lower) {
    throw new FormatError("host", `this host is written ${url.host}`)
  }
  return { host: url.host, origin: `${local ? "http" : "https"}://${url.host}` }
}

function parseUrl(text: string): URL {
  try {
    return new URL(text)
  } catch (error) {
    throw new FormatError("host", "not of the form host or host:port", { cause: error })
  }
}

function isLocalName(host: string): boolean {
  const name = host.replace(/:[0-9]*$/, "")
  return (
    name === "localhost" ||
    name === "[::1]" ||
    /^127(\.[0-9]{1,3}){3}$/.test(name) ||
    name.endsWith(".onion")
  )
}

// The text form of an inbox: bech32m (BIP-350) with the prefix "knot".

const prefix = "knot"
const alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
const lead = `${prefix}1`
/** The lead, 32 characters of 5 bits, and 6 of checksum. */
const addressCharacters = lead.length + 32 + 6

function parseBareAddress(text: string): Uint8Array {
  if (text !== text.toLowerCase()) {
    throw mistyped(
      text === text.toUpperCase()
        ? "it is in upper case; an address is written in lower case"
        : `character ${firstUpperCase(text)} is upper case; an address is all lower case`,
    )
  }
  if (!text.startsWith(lead)) {
    throw mistyped(`an address begins with ${lead}${wrongLead(text)}`)
  }
  const foreign = text
    .slice(lead.length)
    .split("")
    .findIndex((c) => !alphabet.includes(c))
  if (foreign >= 0) {
    const at = lead.length + foreign
    const found = String.fromCodePoint(text.codePointAt(at) ?? 0)
    const fits = text.length === addressCharacters ? substitutes(text, at) : []
    throw mistyped(
      `character ${at + 1}, ${printable(found)}, does not occur in addresses` +
        (fits.length === 1 ? `; "${fits[0]}" would fit` : ""),
    )
  }
  const inboxId = decodeAddress(text)
  if (inboxId !== undefined) return inboxId
  if (text.length !== addressCharacters) {
    throw mistyped(
      `${text.length} characters where an address has ${addressCharacters}${wrongLength(text)}`,
    )
  }
  throw mistyped(`it is mistyped: ${likelyMistake(text)}`)
}

function mistyped(reason: string): FormatError {
  return new FormatError("address", reason)
}

function decodeAddress(text: string): Uint8Array | undefined {
  if (text.length !== addressCharacters) return undefined
  const decoded = bech32m.decodeUnsafe(text)
  if (decoded === undefined || decoded.prefix !== prefix) return undefined
  return bech32m.fromWordsUnsafe(decoded.words) ?? undefined
}

function firstUpperCase(text: string): number {
  return text.split("").findIndex((c) => c !== c.toLowerCase()) + 1
}

function wrongLead(text: string): string {
  if (text.length !== addressCharacters) return ""
  const corrected = lead + text.slice(lead.length)
  if (decodeAddress(corrected) === undefined) return ""
  const at = lead.split("").findIndex((c, i) => text[i] !== c)
  return `; character ${at + 1} is ${printable(text[at] ?? "")} where "${lead[at]}" belongs`
}

/** The characters that, put at this place, make the checksum fit. */
function substitutes(text: string, at: number): string[] {
  return alphabet
    .split("")
    .filter((c) => c !== text[at] && decodeAddress(text.slice(0, at) + c + text.slice(at + 1)))
}

/**
 * Says what single slip would explain the text. Only ever told to a person, never applied: a
 * corrected address that passes the checksum may still be another one than was meant.
 */
function likelyMistake(text: string): string {
  const found: string[] = []
  for (let at = lead.length; at < text.length; at++) {
    for (const c of substitutes(text, at)) {
      found.push(`character ${at + 1} is "${text[at]}" where "${c}" would fit`)
    }
    const [a = "", b = ""] = text.slice(at, at + 2)
    const swapped = text.slice(0, at) + b + a + text.slice(at + 2)
    if (a !== b && decodeAddress(swapped)) {
      found.push(`characters ${at + 1} and ${at + 2}, "${a}${b}", look swapped`)
    }
  }
  const [only] = found
  return found.length === 1 && only !== undefined
    ? only
    : "more than one character is wrong; copy it again"
}

function wrongLength(text: string): string {
  const missing = addressCharacters - text.length
  if (missing === 1) {
    const found = new Map<string, string>()
    for (let at = lead.length; at <= text.length; at++) {
      for (const c of alphabet) {
        const longer = text.slice(0, at) + c + text.slice(at)
        if (decodeAddress(longer)) found.set(longer, `"${c}" is missing after character ${at}`)
      }
    }
    if (found.size === 1) return `: ${[...found.values()].join()}`
  }
  if (missing === -1) {
    const found = new Map<string, string>()
    for (let at = lead.length; at < text.length; at++) {
      const shorter = text.slice(0, at) + text.slice(at + 1)
      if (decodeAddress(shorter)) found.set(shorter, `character ${at + 1}, "${text[at]}", is extra`)
    }
    if (found.size === 1) return `: ${[...found.values()].join()}`
  }
  return missing > 0 ? "; the end is missing" : "; there is something too much"
}

/** For terminals: a pasted address may hold anything, also characters that turn text around. */
function printable(character: string): string {
  if (/^[!-~]$/.test(character)) return JSON.stringify(character)
  return `U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`
}

/** Whether a fetched bundle is the one an address names: the relay is not trusted with keys. */
export function isBundleOf(bundle: Bundle, inboxId: Uint8Array): boolean {
  return equalBytes(bundle.inboxId, inboxId)
}
