/**
 * An identity and where it is at home, in one file to keep elsewhere (docs/protocol.md §5, "Backup").
 * The key is sealed as in a key file; the rest under a key that only this identity has, so that nobody
 * who gets hold of the file can send its owner to another relay.
 */
import {
  ByteReader,
  concatBytes,
  equalBytes,
  FormatError,
  gcmOpen,
  gcmSeal,
  hkdfSha256,
  hostOf,
  type Identity,
  identityFileInfo,
  type IdentityFileInfo,
  JsonReader,
  openIdentity,
  originOf,
  parseUtf8,
  random,
  sha256,
  u16,
  utf8,
} from "../protocol/index.js"

/** What an identity needs beside its key to be used again. */
export interface IdentityHome {
  /** As its owner calls it. */
  readonly name: string
  /** The origin where it has its inbox; undefined before there is one. */
  readonly relay: string | undefined
  /** Where it had its inbox before, and something may still wait. */
  readonly formerRelays: readonly string[]
}

const nonceBytes = 12
const digestBytes = 32
const mostFormerRelays = 100

/** `keyFile` is this identity's own and sealed under a passphrase; RangeError for another. */
export function encodeBackup(options: {
  identity: Identity
  keyFile: Uint8Array
  home: IdentityHome
}): Uint8Array {
  const { identity, keyFile, home } = options
  const { sealed, bundle } = identityFileInfo(keyFile)
  if (!sealed) throw new RangeError("a backup is sealed")
  if (!equalBytes(bundle.bytes, identity.bundle.bytes)) throw new RangeError("another's key file")
  const nonce = random(nonceBytes)
  const plaintext = utf8(
    JSON.stringify({
      name: home.name,
      ...(home.relay !== undefined && { relay: home.relay }),
      former_relays: home.formerRelays,
    }),
  )
  const open = concatBytes(utf8("KNHU"), Uint8Array.of(1), u16(keyFile.length), keyFile, nonce)
  const ciphertext = gcmSeal({ key: homeKey(identity), nonce, aad: open, plaintext })
  const file = concatBytes(open, u16(ciphertext.length), ciphertext)
  return concatBytes(file, sha256(file))
}

/** What a backup says without its passphrase. Throws FormatError when it is damaged or none. */
export function backupInfo(file: Uint8Array): IdentityFileInfo {
  return parseBackup(file).info
}

export interface OpenedBackup {
  readonly identity: Identity
  readonly home: IdentityHome
  /** To be kept as it is: sealed under the backup's passphrase. */
  readonly keyFile: Uint8Array
}

/** Throws OpenError for a wrong passphrase, and FormatError when the file is damaged. */
export async function openBackup(file: Uint8Array, passphrase: string): Promise<OpenedBackup> {
  const { keyFile, nonce, open, ciphertext } = parseBackup(file)
  const identity = await openIdentity(keyFile, passphrase)
  const plaintext = gcmOpen({ key: homeKey(identity), nonce, aad: open, ciphertext })
  return { identity, home: parseHome(plaintext), keyFile }
}

interface ParsedBackup {
  readonly keyFile: Uint8Array
  readonly info: IdentityFileInfo
  readonly nonce: Uint8Array
  /** All bytes before the sealed home. */
  readonly open: Uint8Array
  readonly ciphertext: Uint8Array
}

function parseBackup(file: Uint8Array): ParsedBackup {
  const reader = new ByteReader(file, "backup")
  reader.expectAscii("KNHU", "magic")
  reader.expectU8(1, "version")
  const body = file.subarray(0, -digestBytes)
  if (!equalBytes(sha256(body), file.subarray(-digestBytes))) {
    throw new FormatError("backup.digest", "the file is damaged")
  }
  const keyFile = reader.take(reader.u16("key file length"), "key file").slice()
  const info = identityFileInfo(keyFile)
  if (!info.sealed) reader.refuse("key file", "not sealed")
  const nonce = reader.take(nonceBytes, "nonce")
  const open = file.subarray(0, reader.offset)
  const ciphertext = reader.take(reader.u16("home length"), "home")
  reader.take(digestBytes, "digest")
  reader.end()
  return { keyFile, info, nonce, open, ciphertext }
}

function parseHome(plaintext: Uint8Array): IdentityHome {
  let value: unknown
  try {
    value = JSON.parse(parseUtf8(plaintext, "backup.home"))
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error
    throw new FormatError("backup.home", "not JSON", { cause: error })
  }
  const reader = new JsonReader(value, "backup.home")
  const name = reader.text("name")
  const relay = reader.has("relay") ? wholeOrigin(reader.text("relay")) : undefined
  const formerRelays = reader.lines("former_relays", mostFormerRelays).map(wholeOrigin)
  return { name, relay, formerRelays }
}

function wholeOrigin(text: string): string {
  return originOf(hostOf(text))
}

function homeKey(identity: Identity): Uint8Array {
  return hkdfSha256({
    ikm: identity.authSeed,
    salt: new Uint8Array(0),
    info: utf8("knothole client backup v1"),
    length: 32,
  })
}
