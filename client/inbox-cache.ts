/**
 * What listing an inbox found out, kept so that it need not be found out again: opening an envelope
 * costs milliseconds and a manifest a round trip. It tells what was sent by whom, so it is sealed
 * under a key that only the identity has. It may be deleted at any time.
 *
 * It also remembers deliveries that are gone, until a month past their end, so that the same sealed
 * delivery is recognised when it comes again, and "taken" is told from "never was".
 */
import { readFile } from "node:fs/promises"
import path from "node:path"
import {
  concatBytes,
  equalBytes,
  FormatError,
  gcmOpen,
  gcmSeal,
  hkdfSha256,
  type Identity,
  OpenError,
  parseUtf8,
  random,
  type Tombstone,
  type TombstoneReason,
  utf8,
} from "../protocol/index.js"
import { type Listed, pairOf } from "./chain.js"
import { errorCode } from "./error-code.js"
import { makePrivateFolder, replacePrivateFile } from "./private-files.js"

export interface CachedRow {
  readonly id: string
  readonly seq: number
  /** H_hdr and H_env in hex: what makes it this delivery. */
  readonly pair: string
  readonly receivedMs: number
  readonly expiresMs: number
  readonly sizeBytes: number
  readonly entries: number
  readonly note: string
  /** What the envelope claims; "none" and the fingerprint of nobody for an anonymous one. */
  readonly mode: "none" | "deniable" | "signature"
  readonly claimed: string
  /** The claim was checked against a bundle of the claimed sender. */
  readonly verified: boolean
  readonly problem?: string
  readonly gone?: TombstoneReason
}

const magic = utf8("KNHC\x01")
const nonceBytes = 12
/** As long as the relay keeps a tombstone. */
const rememberedMs = 30 * 24 * 60 * 60 * 1000

export class InboxCache {
  readonly #file: string
  readonly #key: Uint8Array
  readonly #rows = new Map<string, CachedRow>()
  #changed = false

  constructor(file: string, identity: Identity) {
    this.#file = file
    this.#key = hkdfSha256({
      ikm: identity.authSeed,
      salt: new Uint8Array(0),
      // No label of the protocol: this never leaves the machine.
      info: utf8("knothole client inbox cache v1"),
      length: 32,
    })
  }

  async load(): Promise<void> {
    let bytes: Uint8Array
    try {
      bytes = await readFile(this.#file)
    } catch (error) {
      if (errorCode(error) === "ENOENT") return
      throw error
    }
    for (const row of this.#open(bytes)) this.#rows.set(row.id, row)
  }

  /** A cache that does not open is as good as none: it is written anew. */
  #open(bytes: Uint8Array): CachedRow[] {
    const sealedAt = magic.length + nonceBytes
    if (bytes.length < sealedAt || !equalBytes(bytes.subarray(0, magic.length), magic)) return []
    try {
      const plaintext = gcmOpen({
        key: this.#key,
        nonce: bytes.subarray(magic.length, sealedAt),
        ciphertext: bytes.subarray(sealedAt),
      })
      // Authenticated under the identity's own key, so it is what `save` wrote.
      return JSON.parse(parseUtf8(plaintext, "inbox cache")) as CachedRow[]
    } catch (error) {
      if (error instanceof OpenError || error instanceof FormatError) return []
      throw error
    }
  }

  get isEmpty(): boolean {
    return this.#rows.size === 0
  }

  /** What is known of exactly this delivery. */
  find(listed: Listed): CachedRow | undefined {
    const row = this.#rows.get(listed.id)
    // One that was gone and is there again, from a backup, is opened again: its note was forgotten.
    if (row === undefined || row.gone !== undefined || row.seq !== listed.seq) return undefined
    return row.pair === pairOf(listed.stamp) ? row : undefined
  }

  get rows(): readonly CachedRow[] {
    return [...this.#rows.values()]
  }

  /** The first delivery whose id was that of another one before. */
  renamedAmong(waiting: readonly Listed[]): Listed | undefined {
    return waiting.find(({ id, stamp }) => {
      const row = this.#rows.get(id)
      return row !== undefined && row.pair !== pairOf(stamp)
    })
  }

  byId(id: string): CachedRow | undefined {
    return this.#rows.get(id)
  }

  /** Of the deliveries that wait, those that came before: the id of each, and that of the first one. */
  duplicatesAmong(waiting: readonly Listed[]): Map<string, string> {
    const first = new Map<string, { id: string; seq: number }>()
    const note = (pair: string, { id, seq }: { id: string; seq: number }) => {
      if (seq < (first.get(pair)?.seq ?? Infinity)) first.set(pair, { id, seq })
    }
    for (const row of this.#rows.values()) note(row.pair, row)
    for (const listed of waiting) note(pairOf(listed.stamp), listed)
    const duplicates = new Map<string, string>()
    for (const { id, stamp } of waiting) {
      const original = first.get(pairOf(stamp))?.id
      if (original !== undefined && original !== id) duplicates.set(id, original)
    }
    return duplicates
  }

  put(row: CachedRow): void {
    this.#rows.set(row.id, row)
    this.#changed = true
  }

  /** Notes what became of deliveries, and forgets those that ended long ago. */
  settle(waiting: readonly Listed[], gone: readonly Tombstone[], nowMs: number): void {
    const there = new Set(waiting.map(({ id }) => id))
    const reasons = new Map(gone.map((tombstone) => [pairOf(tombstone), tombstone.reason]))
    for (const row of this.#rows.values()) {
      if (there.has(row.id)) continue
      if (row.expiresMs + rememberedMs < nowMs) {
        this.#rows.delete(row.id)
        this.#changed = true
      } else if (row.gone === undefined) {
        this.put({ ...row, note: "", gone: reasons.get(row.pair) ?? "lost" })
      }
    }
  }

  async save(): Promise<void> {
    if (!this.#changed) return
    const nonce = random(nonceBytes)
    const plaintext = utf8(JSON.stringify([...this.#rows.values()]))
    const ciphertext = gcmSeal({ key: this.#key, nonce, plaintext })
    await makePrivateFolder(path.dirname(this.#file))
    await replacePrivateFile(this.#file, concatBytes(magic, nonce, ciphertext))
    this.#changed = false
  }
}
