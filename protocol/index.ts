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
export * from "./login.js"
export * from "./mega.js"
export * from "./padding.js"
export * from "./tree.js"
export {
  type Address,
  type Bundle,
  createIdentity,
  type CreateIdentityOptions,
  encodeAddress,
  fingerprintWords,
  hostOf,
  type Identity,
  identityFromKeys,
  inboxIdBytes,
  isBundleOf,
  originOf,
  parseAddress,
  parseBundle,
  type SecretKeys,
} from "./identity.js"
export type {
  Authentication,
  ClaimedSender,
  PayloadFields,
  ReplyTo,
  Sender,
  SenderClaim,
  SenderMode,
} from "./payload.js"
export {
  envelopeHash,
  envelopeLength,
  type EnvelopeParts,
  envelopeSuite,
  type OpenedEnvelope,
  openEnvelope,
  type OpenEnvelopeInput,
  parseEnvelope,
  sealEnvelope,
  type SealEnvelopeInput,
} from "./envelope.js"
export {
  chainHead,
  type ChainLink,
  type DeliveryRecord,
  emptyChainHead,
  encodeHead,
  type EncodeHeadInput,
  encodeReceipt,
  type EncodeReceiptInput,
  encodeStamp,
  type EncodeStampInput,
  encodeTombstone,
  type Head,
  headBytes,
  openStampSource,
  parseHead,
  parseReceipt,
  parseStamp,
  parseTombstone,
  type Receipt,
  receiptBytes,
  type Stamp,
  stampBytes,
  stampEpoch,
  type StampSource,
  type Tombstone,
  tombstoneBytes,
  type TombstoneReason,
  verifyHead,
  verifyReceipt,
  verifyStamp,
} from "./records.js"
