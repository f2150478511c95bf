// The form of format-vectors.json and of independent-vectors.json, and what both tests of them need.
import { readFileSync } from "node:fs"
import { expect } from "vitest"
import {
  type Entry,
  fromHex,
  type Identity,
  identityFromKeys,
  type Random,
} from "../../protocol/index.js"

export interface PersonVector {
  rsa_pkcs8: string
  x25519_seed: string
  xwing_seed: string | null
  ed25519_seed: string | null
  bundle: string
  fp: string
  address: string
}

export interface EntryVector {
  type: "file" | "dir"
  path: string
  path_bytes: string
  size: number
  mtime_ms: number
  executable: boolean
  content?: string
  pattern_first?: number
  content_sha256?: string
  body_off: number
  ciphertext_sha256: string
  chunk_macs: string[]
  m: string
  mega_key?: string
  entry: string
  r: string
  oleaf: string
}

export interface SealedVector {
  ikm: string
  info: string
  kek: string
  com: string
  payload: string
  payload_hash: string
  message?: string
  envelope: string
}

export interface EnvelopeVector extends SealedVector {
  to: string
  suite: 1 | 2
  ct_rsa: string
  ct_xw: string | null
  ss_xw: string | null
  dh?: string
  tag_key?: string
  envelope_sha256: string
}

export interface LinkVector extends SealedVector {
  mode: 0 | 2
  sender: string | null
  password: string | null
  argon2: string | null
  access: string
  access_sha256: string
  stamp_inbox: string
  fragment: string
}

export interface DeliveryVector {
  name: string
  mode: 0 | 1 | 2
  sender: string | null
  created_ms: number
  not_after_ms: number
  thread_seq: number
  thread_prev: string
  reply_inbox: string
  reply_host: string
  note: string
  random: Record<string, string>
  entries: EntryVector[]
  K_commit: string
  K_manifest: string
  K_open: string
  K_pad: string
  content_len: number
  body_len: number
  body_sha256: string
  leaves: string[]
  leaf_tree: string
  body_root: string
  r_note: string
  nleaf: string
  oleaf_tree: string
  open_root: string
  manifest_plain_sha256: string
  manifest_plain_used: string
  manifest_plain_len: number
  manifest_len: number
  manifest_sha256: string
  header: string
  H_hdr: string
  envelopes: EnvelopeVector[]
  links: LinkVector[]
}

export interface RecordsVector {
  of: string
  kid: number
  accepted_ms: number
  expires_ms: number
  seq: number
  lane: number
  reason: number
  as_of_ms: number
  floor_seq: number
  head_0: string
  head_1: string
  stamp: string
  stamp_record36: string
  receipt: string
  head_record: string
  report_whole: string
  report_entry_3: string
  report_note: string
  link_stamp: string
  receipt_public_key: string
  random: Record<string, string>
}

export interface PathsVector {
  accepted: boolean
  why: string
  entries: ["file" | "dir", string][]
}

export interface VectorFile {
  people: Record<string, PersonVector>
  deliveries: DeliveryVector[]
  records: RecordsVector
  paths: PathsVector[]
}

export function readVectors(name: string): VectorFile {
  const url = new URL(`../vectors/${name}`, import.meta.url)
  // The form is checked by use: each test fails for a field that is missing, or that it left unread.
  return JSON.parse(readFileSync(url, "utf8")) as VectorFile
}

export const formatVectors: VectorFile = readVectors("format-vectors.json")

/** Runs `read` on the object and fails when it left one of its fields unread. */
export async function readingAll<T extends object>(
  object: T,
  read: (object: T) => unknown,
): Promise<void> {
  const unread = new Set(Object.keys(object))
  await read(
    new Proxy(object, {
      get(target, key, receiver) {
        if (typeof key === "string") unread.delete(key)
        return Reflect.get(target, key, receiver)
      },
    }),
  )
  expect([...unread], "fields of the vector left unread").toEqual([])
}

const identities = new Map<PersonVector, Promise<Identity>>()

export function identityOf(file: VectorFile, name: string): Promise<Identity> {
  const person = named(file.people, name)
  let identity = identities.get(person)
  if (identity === undefined) {
    identity = identityFromKeys({
      rsaPkcs8: fromHex(person.rsa_pkcs8),
      authSeed: fromHex(person.x25519_seed),
      xwingSeed: person.xwing_seed === null ? undefined : fromHex(person.xwing_seed),
      signSeed: person.ed25519_seed === null ? undefined : fromHex(person.ed25519_seed),
    })
    identities.set(person, identity)
  }
  return identity
}

export function deliveryOf(file: VectorFile, name: string): DeliveryVector {
  const delivery = file.deliveries.find((candidate) => candidate.name === name)
  if (delivery === undefined) throw new RangeError(`no delivery ${name}`)
  return delivery
}

/** The drawn values of a vector, handed out by name. */
export function drawFrom(random: Record<string, string>, prefix: string = ""): Random {
  return (length, name = "") => {
    const drawn = fromHex(named(random, prefix + name))
    expect(drawn).toHaveLength(length)
    return drawn
  }
}

export function named<T>(record: Record<string, T>, name: string): T {
  const value = record[name]
  if (value === undefined) throw new RangeError(`nothing named ${name}`)
  return value
}

/** The entries as a sender would hand them over. */
export function entriesOf(delivery: DeliveryVector): Entry[] {
  return delivery.entries.map((entry, index) => {
    const path = fromHex(entry.path_bytes)
    if (entry.type === "dir") return { type: "directory", path, mtimeMs: entry.mtime_ms }
    return {
      type: "file",
      path,
      size: entry.size,
      executable: entry.executable,
      mtimeMs: entry.mtime_ms,
      key: fromHex(named(delivery.random, `entry${index}/k`)),
      nonce: fromHex(named(delivery.random, `entry${index}/n`)),
      chunkMacs: fromHex(entry.chunk_macs.join("")),
    }
  })
}

export function contentOf(entry: EntryVector): Uint8Array {
  if (entry.content !== undefined) return fromHex(entry.content)
  const first = entry.pattern_first ?? 0
  const content = new Uint8Array(entry.size)
  for (let at = 0; at < content.length; at++) {
    const i = first + at
    content[at] = 7 * i + 13 * Math.floor(i / 256) + 29 * Math.floor(i / 65536)
  }
  return content
}
