/**
 * The face of the client library: send, pick up, and what both need. Every function takes an
 * AbortSignal where it may wait, and keeps what it must remember in a `ClientState` that the caller
 * opened.
 */
export {
  type Bundle,
  createIdentity,
  type CreateIdentityOptions,
  type Identity,
  identityFileInfo,
  openIdentity,
  parseAddress,
  sealIdentity,
} from "../protocol/index.js"
export {
  CannotMakeFolder,
  DeliveryGone,
  DestinationExists,
  DestinationNotFolder,
  DiskFull,
  Locked,
  NotARelay,
  RelayUnreachable,
  SourceChanged,
  SourceUnusable,
  UnknownEntry,
  UnknownInbox,
  type Unlike,
  Untrustworthy,
  UnusableContacts,
} from "./errors.js"
export type { CallOptions, OnProgress, Phase, ProgressEvent } from "./progress.js"
export { type ClientState, openState } from "./state.js"
export { forgetPin } from "./pins.js"
export { fetchBundle, type RelayFacts, relayInfo, type RelayOptions } from "./relay.js"
export { type Examination, type ExamineOptions, examineRelay } from "./doctor/examine.js"
export type { Finding, FindingCode } from "./doctor/findings.js"
export { parseOrigin } from "./relay-client.js"
export { openProxies, type Proxies, ProxyNotUsable, type ProxySettings } from "./proxies.js"
export { closeInbox, registerInbox } from "./session.js"
export type { Skipped, Source } from "./scan.js"
export { send, type SendOptions, type SendResult, type SentDelivery } from "./send.js"
export {
  type DeliveryStatus,
  deliveryStatus,
  forgetSent,
  listSent,
  revokeDelivery,
  sentIds,
  type SentOptions,
  type SentRecord,
} from "./sent.js"
export {
  backupInfo,
  encodeBackup,
  type IdentityHome,
  openBackup,
  type OpenedBackup,
} from "./backup.js"
export { parseContactName } from "./contact-name.js"
export {
  changeContacts,
  type Contact,
  contactAddress,
  contactOf,
  findContact,
  knownSenders,
  readContacts,
} from "./contacts.js"
export type { KnownSenders, Sender } from "./delivery.js"
export {
  forgetInboxes,
  type Inbox,
  type InboxRow,
  type ListOptions,
  type OpenDelivery,
  openInbox,
  type OpenInboxOptions,
} from "./inbox.js"
export type { ReceiveOptions, ReceiveResult } from "./receive.js"
