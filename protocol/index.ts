// The face of the protocol: formats, crypto, wire types and limits. Bytes in, values out.
export {
  ByteReader,
  concatBytes,
  equalBytes,
  fromBase64url,
  fromHex,
  isZero,
  parseUtf8,
  putU64,
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
export { type Json, type JsonObject, JsonReader, parseId } from "./json.js"
export * from "./messages.js"
export * from "./relay-status.js"
export type { Restoration } from "./restoration.js"
export * from "./probe.js"
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
  openDelivery,
  type OpenedDelivery,
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
export {
  checkKeyCommit,
  type DeliveryKeys,
  type DeliverySecret,
  deriveDeliveryKeys,
  encodeHeader,
  type Header,
  headerBytes,
  headerHash,
  parseHeader,
} from "./header.js"
export { checkPath, checkPaths, countFolders, type PathEntry } from "./paths.js"
export {
  type DirectoryEntry,
  encodeEntry,
  type Entry,
  entryBlinding,
  entryLeaf,
  entryLeaves,
  type FileEntry,
  type Manifest,
  noteBlinding,
  noteLeaf,
  type OpenedDirectoryEntry,
  type OpenedEntry,
  type OpenedFileEntry,
  openManifest,
  type OpenManifestInput,
  openRootOf,
  parseEntry,
  type SealedManifest,
  sealManifest,
  type SealManifestInput,
} from "./manifest.js"
export {
  identityFileInfo,
  type IdentityFileInfo,
  openIdentity,
  sealIdentity,
  type SealIdentityOptions,
} from "./key-file.js"
export {
  encodeLinkFragment,
  encodeLinkUrl,
  linkAccess,
  linkInboxId,
  type LinkParts,
  type LinkUrl,
  openLink,
  type OpenLinkInput,
  parseLink,
  parseLinkFragment,
  parseLinkUrl,
  type SealedLink,
  sealLink,
  type SealLinkInput,
} from "./link.js"
export {
  type DeliveryReport,
  encodeReport,
  type EntryReport,
  makeReport,
  type MakeReportInput,
  type NoteReport,
  parseReport,
  type Report,
  type ReportReason,
  type VerifiedReport,
  verifyReport,
  type VerifyReportInput,
} from "./report.js"
export { editDistance } from "./edit-distance.js"
