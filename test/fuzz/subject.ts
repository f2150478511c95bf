/**
 * The modules under test, loaded by whoever runs the fuzzer: from the source in the short tests, from
 * the built package or a copy of it with a planted bug otherwise.
 */
import { readFileSync } from "node:fs"
import path from "node:path"
import { pathToFileURL } from "node:url"
import type * as Backup from "../../client/backup.js"
import type * as Chain from "../../client/chain.js"
import type * as Contacts from "../../client/contacts.js"
import type * as ClientErrors from "../../client/errors.js"
import type * as InboxCache from "../../client/inbox-cache.js"
import type * as Pins from "../../client/pins.js"
import type * as Display from "../../client/program/display.js"
import type * as ProgramErrors from "../../client/program/errors.js"
import type * as Quantities from "../../client/program/quantities.js"
import type * as Recipients from "../../client/program/recipients.js"
import type * as Settings from "../../client/program/settings.js"
import type * as ReceiveJournal from "../../client/receive-journal.js"
import type * as Sent from "../../client/sent.js"
import type * as UploadJournal from "../../client/upload-journal.js"
import type * as Bytes from "../../protocol/bytes.js"
import type * as Provider from "../../protocol/crypto/node.js"
import type * as Envelope from "../../protocol/envelope.js"
import type * as Errors from "../../protocol/errors.js"
import type * as Header from "../../protocol/header.js"
import type * as Identity from "../../protocol/identity.js"
import type * as JsonModule from "../../protocol/json.js"
import type * as KeyFile from "../../protocol/key-file.js"
import type * as Labels from "../../protocol/labels.js"
import type * as Link from "../../protocol/link.js"
import type * as Login from "../../protocol/login.js"
import type * as Manifest from "../../protocol/manifest.js"
import type * as Mega from "../../protocol/mega.js"
import type * as Messages from "../../protocol/messages.js"
import type * as Padding from "../../protocol/padding.js"
import type * as Paths from "../../protocol/paths.js"
import type * as Payload from "../../protocol/payload.js"
import type * as Records from "../../protocol/records.js"
import type * as Refusals from "../../protocol/refusals.js"
import type * as Report from "../../protocol/report.js"
import type * as Tree from "../../protocol/tree.js"
import type * as Config from "../../server/config.js"
import type * as FinishBody from "../../server/http/finish-body.js"
import type * as Ids from "../../server/ids.js"
import type * as DeliveryRecords from "../../server/stores/delivery-records.js"
import type * as InboxLog from "../../server/stores/inbox-log.js"
import type * as MacedRecord from "../../server/stores/maced-record.js"
import type * as RedisRecords from "../../server/stores/redis-records.js"
import type * as RedisUrl from "../../server/stores/redis-url.js"
import type * as Uploads from "../../server/uploads.js"

export interface Subject {
  readonly bytes: typeof Bytes
  readonly provider: typeof Provider
  readonly envelope: typeof Envelope
  readonly errors: typeof Errors
  readonly header: typeof Header
  readonly identity: typeof Identity
  readonly json: typeof JsonModule
  readonly keyFile: typeof KeyFile
  readonly labels: typeof Labels
  readonly link: typeof Link
  readonly login: typeof Login
  readonly manifest: typeof Manifest
  readonly mega: typeof Mega
  readonly messages: typeof Messages
  readonly padding: typeof Padding
  readonly paths: typeof Paths
  readonly payload: typeof Payload
  readonly records: typeof Records
  readonly refusals: typeof Refusals
  readonly report: typeof Report
  readonly tree: typeof Tree
  readonly config: typeof Config
  readonly deliveryRecords: typeof DeliveryRecords
  readonly finishBody: typeof FinishBody
  readonly ids: typeof Ids
  readonly inboxLog: typeof InboxLog
  readonly macedRecord: typeof MacedRecord
  readonly redisRecords: typeof RedisRecords
  readonly redisUrl: typeof RedisUrl
  readonly uploads: typeof Uploads
  readonly backup: typeof Backup
  readonly chain: typeof Chain
  readonly clientErrors: typeof ClientErrors
  readonly contacts: typeof Contacts
  readonly display: typeof Display
  readonly inboxCache: typeof InboxCache
  readonly pins: typeof Pins
  readonly programErrors: typeof ProgramErrors
  readonly quantities: typeof Quantities
  readonly receiveJournal: typeof ReceiveJournal
  readonly recipients: typeof Recipients
  readonly sent: typeof Sent
  readonly settings: typeof Settings
  readonly uploadJournal: typeof UploadJournal
}

const modules: Readonly<Record<keyof Subject, string>> = {
  bytes: "protocol/bytes",
  provider: "protocol/crypto/node",
  envelope: "protocol/envelope",
  errors: "protocol/errors",
  header: "protocol/header",
  identity: "protocol/identity",
  json: "protocol/json",
  keyFile: "protocol/key-file",
  labels: "protocol/labels",
  link: "protocol/link",
  login: "protocol/login",
  manifest: "protocol/manifest",
  mega: "protocol/mega",
  messages: "protocol/messages",
  padding: "protocol/padding",
  paths: "protocol/paths",
  payload: "protocol/payload",
  records: "protocol/records",
  refusals: "protocol/refusals",
  report: "protocol/report",
  tree: "protocol/tree",
  config: "server/config",
  deliveryRecords: "server/stores/delivery-records",
  finishBody: "server/http/finish-body",
  ids: "server/ids",
  inboxLog: "server/stores/inbox-log",
  macedRecord: "server/stores/maced-record",
  redisRecords: "server/stores/redis-records",
  redisUrl: "server/stores/redis-url",
  uploads: "server/uploads",
  backup: "client/backup",
  chain: "client/chain",
  clientErrors: "client/errors",
  contacts: "client/contacts",
  display: "client/program/display",
  inboxCache: "client/inbox-cache",
  pins: "client/pins",
  programErrors: "client/program/errors",
  quantities: "client/program/quantities",
  receiveJournal: "client/receive-journal",
  recipients: "client/program/recipients",
  sent: "client/sent",
  settings: "client/program/settings",
  uploadJournal: "client/upload-journal",
}

/** `load` takes a module's name without extension, such as "protocol/bytes". */
export async function loadSubject(load: (name: string) => Promise<unknown>): Promise<Subject> {
  // One after the other: a loader that is asked for a module twice at once may make two of it.
  const loaded: [string, unknown][] = []
  for (const [key, name] of Object.entries(modules)) loaded.push([key, await load(name)])
  // Each key's module is the one whose type it has above; only the loader's folder differs.
  return Object.fromEntries(loaded) as unknown as Subject
}

/** From compiled files below `folder`, such as dist. */
export function loadCompiled(folder: string): Promise<Subject> {
  return loadSubject(
    (name) => import(pathToFileURL(path.resolve(folder, `${name}.js`)).href) as Promise<unknown>,
  )
}

// What the targets take from the vectors: people with keys, and records that a relay signed.

export interface Person {
  readonly rsa_pkcs8: string
  readonly x25519_seed: string
  readonly xwing_seed: string | null
  readonly ed25519_seed: string | null
  readonly bundle: string
  readonly address: string
}

/** `payload` is cut after its last field. */
interface SealedVector {
  readonly envelope: string
  readonly payload: string
  readonly kek: string
}

export interface Vectors {
  readonly people: Readonly<Record<"full" | "rsaOnly" | "wide" | "sender", Person>>
  readonly deliveries: readonly {
    readonly header: string
    readonly H_hdr: string
    readonly random: Readonly<Record<string, string>>
    readonly entries: readonly { readonly entry: string; readonly path_bytes: string }[]
    readonly note: string
    readonly envelopes: readonly (SealedVector & { readonly to: keyof Vectors["people"] })[]
    readonly links: readonly (SealedVector & {
      readonly fragment: string
      readonly password: string | null
    })[]
  }[]
  readonly records: Readonly<
    Record<
      | "stamp"
      | "stamp_record36"
      | "receipt"
      | "head_record"
      | "report_whole"
      | "report_entry_3"
      | "report_note"
      | "link_stamp"
      | "receipt_public_key",
      string
    >
  > & { readonly random: Readonly<Record<"K_src" | "K_frank" | "receipt_key", string>> }
  readonly paths: readonly {
    readonly accepted: boolean
    readonly entries: readonly (readonly ["file" | "dir", string])[]
  }[]
}

export function readVectors(): Vectors {
  // The file is ours and frozen; what is missing from it shows when the targets are made.
  return JSON.parse(readFileSync("test/vectors/format-vectors.json", "utf8")) as Vectors
}

export function hex(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, "hex"))
}
