// Sizes and lifetimes, each with its unit and its reason.

export const KIB: number = 1024
export const MIB: number = 1024 * KIB
export const GIB: number = 1024 * MIB

const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS
const DAY_MS = 24 * HOUR_MS

// What the format allows. A relay or a client may set less, never more.

/** 2^33 AES blocks under one key: the advantage of the birthday bound stays near 2^-63. */
export const maxBodyBytes: number = 64 * GIB
/** The smallest body: below it the length would say too much about a short message. */
export const minBodyBytes: number = 16 * KIB
/** The manifest is opened in memory in one piece, because nothing of it may be used unverified. */
export const maxManifestPlainBytes: number = 64 * MIB
export const minManifestPlainBytes: number = 4 * KIB
/** What AES-GCM adds. */
export const gcmTagBytes: number = 16
/** The manifest as the relay sees it. */
export const maxManifestBytes: number = maxManifestPlainBytes + gcmTagBytes
/** 2^18 entries of the smallest kind fill about a third of the largest manifest. */
export const maxEntries: number = 262_144
/** A covering message, not a document. */
export const maxNoteBytes: number = 16 * KIB
/** Below the 4096 of Linux's PATH_MAX, so that a receiver has room for its own folder. */
export const maxPathBytes: number = 1024
export const maxPathComponents: number = 64
/** NAME_MAX of the common file systems. */
export const maxComponentBytes: number = 255
/** `host[:port]` of a reply inbox: its length is one byte in the payload. */
export const maxHostBytes: number = 255

/** The largest piece of the grid, hence the largest part and chunk. */
export const maxPartBytes: number = 1 * MIB
/** Parts of the largest body: eight growing ones over the first 4608 KiB, then 1 MiB each. */
export const maxParts: number = 8 + Math.ceil((maxBodyBytes - 4608 * KIB) / MIB)

/** Lengths of the records of fixed size. */
export const recordBytes: Readonly<
  Record<"header" | "stamp" | "receipt" | "head" | "tombstone", number>
> = { header: 184, stamp: 244, receipt: 172, head: 148, tombstone: 89 }
/** Suite 2 for a key of 4096 bits: 40 + 512 + 1120 + 32 + 512 + 16. */
export const maxEnvelopeBytes: number = 2232
/** A bundle with a modulus of 4096 bits and every optional key. */
export const maxBundleBytes: number = 1800

/** The most a request carries, whatever a relay offers: what more costs in memory and when it is lost buys no speed. */
export const maxRequestBytes: number = 16 * MIB
/**
 * The longest silence a client asks for, whatever a relay offers: below the 60 s after which common proxies hang up, and below
 * what a probe may ask for, which has to be longer.
 */
export const maxLongPollSeconds: number = 40

/** What may wait in one inbox: so much that its owner's client can list it in a few hundred MiB. */
export const maxInboxDeliveries: number = 100_000
/** Places in an inbox's chain for each delivery that may wait: those that are gone keep theirs for weeks. */
export const chainPlacesPerDelivery: number = 10
/** So many with what may still arrive of uploads that were begun while there was room. */
export const maxChainPlaces: number = (chainPlacesPerDelivery + 1) * maxInboxDeliveries

/** What a relay tells its clients of its limits. */
export interface RelayLimits {
  readonly deliveryBytes: number
  readonly requestBytes: number
  readonly parallelRequests: number
  readonly recipients: number
  readonly manifestBytes: number
  readonly inboxBytes: number
  readonly inboxDeliveries: number
  readonly keepMs: number
  readonly keepMaxMs: number
  readonly uploadMs: number
  readonly uploadMaxMs: number
  readonly longPollSeconds: number
  readonly page: number
}

/** What a relay does unless its operator says otherwise. */
export interface RelayDefaults extends RelayLimits {
  readonly sessionIdleMs: number
  readonly sessionMs: number
}

export const relayDefaults: RelayDefaults = {
  deliveryBytes: 10 * GIB,
  /** One largest part: what every proxy in front of a relay can be told to let through. */
  requestBytes: 1 * MIB,
  parallelRequests: 4,
  recipients: 32,
  manifestBytes: maxManifestBytes,
  inboxBytes: 20 * GIB,
  inboxDeliveries: 1000,
  keepMs: 14 * DAY_MS,
  keepMaxMs: 30 * DAY_MS,
  uploadMs: 24 * HOUR_MS,
  uploadMaxMs: 72 * HOUR_MS,
  sessionIdleMs: 15 * MINUTE_MS,
  sessionMs: 60 * MINUTE_MS,
  page: 1000,
  /** Below the 60 s after which common proxies drop a silent connection. */
  longPollSeconds: 30,
}

/** Without a login an inbox takes nothing new after so many days that the relay was there. */
export const inboxIdleDays: number = 180

/** A login challenge is good from the start of its minute for this long, plus the grace below. */
export const challengeMs: number = 3 * MINUTE_MS
/** For clocks and requests under way at the turn of a minute. */
export const challengeGraceMs: number = 1 * MINUTE_MS
