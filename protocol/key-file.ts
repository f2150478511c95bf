// An identity at rest. The bundle is in the clear, so that the address can be shown without a
// passphrase; the secrets are sealed under one, or plain if the owner wants none. A digest at the end
// tells a damaged file from a wrong passphrase (docs/protocol.md §5).
//
//   0   4 "KNHK"   4 1 version 1   5 1 flags: 1 = sealed   6 1 logN of scrypt   7 1 zero
//   8  16 salt     24 2 length of the bundle, the bundle, 2 length of the secrets, the secrets
//         then 32 SHA-256 of all bytes before
//
// Secrets: u16 length ‖ PKCS#8 ‖ auth seed ‖ X-Wing seed if the bundle has its key ‖ Ed25519 seed if
// the bundle has its key. Sealed: AES-256-GCM under scrypt(passphrase in NFC, salt, N = 2^logN, r 8,
// p 1), nonce zero because the salt makes each key new, all bytes before as associated data. Without
// a passphrase logN and salt are zero.
import { ByteReader, concatBytes, equalBytes, u16, utf8 } from "./bytes.js"
import type { Random } from "./crypto/provider.js"
import { OpenError } from "./errors.js"
import {
  type Bundle,
  type Identity,
  identityFromKeys,
  parseBundle,
  type SecretKeys,
} from "./identity.js"
import { gcmOpen, gcmSeal, random as providerRandom, scrypt, sha256 } from "#crypto-provider"

const sealedFlag = 1
const saltBytes = 16
/** 64 MiB of memory: with 128, opening an identity alone would pass a client's 200 MiB. */
const defaultLogN = 16
/** Below this scrypt slows nobody down. */
const leastLogN = 10
/** 1 GiB: a file from elsewhere must not be able to take all memory. */
const mostLogN = 20

export interface SealIdentityOptions {
  /** Memory and time are 2^logN KiB and proportional; 10 to 20. */
  readonly logN?: number
  /** Draws "salt". */
  readonly random?: Random
}

/** Without a passphrase the file is as secret as its bytes. */
export async function sealIdentity(
  identity: Identity,
  passphrase: string | undefined,
  options: SealIdentityOptions = {},
): Promise<Uint8Array> {
  if (passphrase === "") throw new RangeError("an empty passphrase protects nothing")
  const logN = passphrase === undefined ? 0 : (options.logN ?? defaultLogN)
  if (passphrase !== undefined && !isLogN(logN)) throw new RangeError("logN is from 10 to 20")
  const salt =
    passphrase === undefined
      ? new Uint8Array(saltBytes)
      : (options.random ?? providerRandom)(saltBytes, "salt")
  const secrets = encodeSecrets(identity)
  const sealedLength = secrets.length + (passphrase === undefined ? 0 : 16)
  const open = concatBytes(
    utf8("KNHK"),
    Uint8Array.of(1, passphrase === undefined ? 0 : sealedFlag, logN, 0),
    salt,
    u16(identity.bundle.bytes.length),
    identity.bundle.bytes,
    u16(sealedLength),
  )
  const sealed =
    passphrase === undefined
      ? secrets
      : gcmSeal({
          key: await passphraseKey({ passphrase, salt, logN }),
          aad: open,
          plaintext: secrets,
        })
  const file = concatBytes(open, sealed)
  return concatBytes(file, sha256(file))
}

export interface IdentityFileInfo {
  /** Whether `openIdentity` needs a passphrase. */
  readonly sealed: boolean
  /** As the file says. That it belongs to the secrets is checked when they are opened. */
  readonly bundle: Bundle
}

/** What a key file says without a passphrase. Throws FormatError when it is damaged. */
export function identityFileInfo(file: Uint8Array): IdentityFileInfo {
  const { sealed, bundle } = parseFile(file)
  return { sealed, bundle }
}

/** Throws OpenError for a wrong or missing passphrase, and FormatError when the file is damaged. */
export async function openIdentity(
  file: Uint8Array,
  passphrase: string | undefined,
): Promise<Identity> {
  const parsed = parseFile(file)
  const { bundle, salt, logN, open } = parsed
  let secrets = parsed.secrets
  if (parsed.sealed) {
    if (passphrase === undefined) throw new OpenError()
    const key = await passphraseKey({ passphrase, salt, logN })
    secrets = gcmOpen({ key, aad: open, ciphertext: secrets })
  }
  const reader = new ByteReader(secrets, "key file")
  const identity = await identityFromKeys(readSecrets(reader, bundle))
  if (!equalBytes(identity.bundle.bytes, bundle.bytes)) {
    reader.refuse("bundle", "not the one of these keys")
  }
  return identity
}

interface ParsedFile extends IdentityFileInfo {
  readonly logN: number
  readonly salt: Uint8Array
  /** All bytes before the secrets. */
  readonly open: Uint8Array
  readonly secrets: Uint8Array
}

function parseFile(file: Uint8Array): ParsedFile {
  const reader = new ByteReader(file, "key file")
  reader.expectAscii("KNHK", "magic")
  reader.expectU8(1, "version")
  if (!equalBytes(sha256(file.subarray(0, -32)), file.subarray(-32))) {
    reader.refuse("digest", "the file is damaged")
  }
  const flags = reader.u8("flags")
  if (flags > sealedFlag) reader.refuse("flags", "unknown bits are set")
  const sealed = flags === sealedFlag
  const logN = reader.u8("work factor")
  if (sealed ? !isLogN(logN) : logN !== 0) reader.refuse("work factor", "out of range")
  reader.zeros(1, "reserved")
  const salt = reader.take(saltBytes, "salt")
  if (!sealed && salt.some((byte) => byte !== 0)) reader.refuse("salt", "set without a passphrase")
  const bundle = parseBundle(reader.take(reader.u16("bundle length"), "bundle"))
  const secretsLength = reader.u16("secrets length")
  const open = file.subarray(0, reader.offset)
  const secrets = reader.take(secretsLength, "secrets")
  reader.take(32, "digest")
  reader.end()
  return { sealed, bundle, logN, salt, open, secrets }
}

function isLogN(logN: number): boolean {
  return Number.isInteger(logN) && logN >= leastLogN && logN <= mostLogN
}

function encodeSecrets({ rsaPkcs8, authSeed, xwingSeed, signSeed }: SecretKeys): Uint8Array {
  const none = new Uint8Array(0)
  return concatBytes(u16(rsaPkcs8.length), rsaPkcs8, authSeed, xwingSeed ?? none, signSeed ?? none)
}

function readSecrets(reader: ByteReader, bundle: Bundle): SecretKeys {
  const rsaPkcs8 = reader.take(reader.u16("PKCS#8 length"), "PKCS#8").slice()
  const authSeed = reader.take(32, "auth seed").slice()
  const xwingSeed = bundle.xwingKey && reader.take(32, "X-Wing seed").slice()
  const signSeed = bundle.signKey && reader.take(32, "Ed25519 seed").slice()
  reader.end()
  return { rsaPkcs8, authSeed, xwingSeed, signSeed }
}

function passphraseKey(input: {
  readonly passphrase: string
  readonly salt: Uint8Array
  readonly logN: number
}): Promise<Uint8Array> {
  const { passphrase, salt, logN } = input
  // NFC, so that a passphrase typed on another machine is the same bytes.
  return scrypt({ password: utf8(passphrase.normalize("NFC")), salt, logN, length: 32 })
}
