// The face of the protocol: formats, crypto, wire types and limits. Bytes in, values out.
export {
  ByteReader,
  concatBytes,
  equalBytes,
  fromBase64url,
  fromHex,
  isZero,
  parseUtf8,
  toBase64url,
  toHex,
  u16,
  u32,
  u64,
  utf8,
} from "./bytes.js"
export { FormatError, OpenError } from "./errors.js"
export {
  encodeProblem,
  parseProblem,
  type Problem,
  type RefusalCode,
  type RefusalExtras,
  type RefusalOptions,
  refusalStatus,
  RelayRefusal,
} from "./refusals.js"
export * from "./limits.js"
export { label, type LabelName } from "./labels.js"
export type { CryptoProvider, Random, X25519KeyPair } from "./crypto/provider.js"
export {
  blake3,
  ed25519PublicKey,
  ed25519Sign,
  ed25519Verify,
  gcmOpen,
  gcmSeal,
  hkdfSha256,
  hmacSha256,
  random,
  sha256,
  x25519,
  x25519KeyPair,
  x25519PublicKey,
} from "#crypto-provider"
export { type Json, type JsonObject, parseId } from "./json.js"
export * from "./messages.js"
