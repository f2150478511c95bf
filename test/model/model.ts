// What people may rely on, in the words of product.md, as plain as it can be said: no files, no index,
// no awaiting. Where a crash leaves it open whether something happened, it says so and learns it later.
import { gridCount, gridLength, gridOffset, type TombstoneReason } from "../../protocol/index.js"
import type { TestDelivery } from "../server/test-delivery.js"
import { between } from "./disagreement.js"
import { limits, roomBytes } from "./world.js"

const minuteMs = 60_000
const hourMs = 60 * minuteMs
const dayMs = 24 * hourMs
const keepMs = 14 * dayMs
const keepMaxMs = 30 * dayMs

/** An answer that was to be expected: "ok", or the code of a refusal. */
export type Answer = string

export interface Session {
  readonly token: Uint8Array
  readonly createdMs: number
  lastUsedMs: number
}

/** A delivery's place in one inbox. */
export interface Entry {
  readonly seq: number
  readonly upload: Upload
  readonly acceptedMs: number
  readonly expiresMs: number
  gone: TombstoneReason | undefined
  /** Asked for by somebody who got no answer: it is or will be gone for this, or waits on. */
  maybe: TombstoneReason | undefined
}

export interface Inbox {
  readonly person: number
  isClosed: boolean
  /** From seq 1 on; those up to the floor are no longer listed. */
  readonly entries: Entry[]
  floor: number
  /** The highest seq in any listing. */
  listed: number
  /** Less, where an index was put back. */
  listedLeast: number
  sessions: Session[]
}

export interface Upload {
  readonly key: string
  readonly cap: Uint8Array
  askedBytes: number
  readonly recipients: readonly number[]
  readonly delivery: TestDelivery
  /** The sender's wish. */
  readonly notAfterMs: number
  readonly wrongRoot: Uint8Array
  readonly wrongManifest: Uint8Array
  id: string
  token: Uint8Array
  /** One that is over was given up, or was past its time and swept. What was delivered is forgotten in the end. */
  state: "new" | "open" | "final" | "over" | "forgotten"
  /** Until then its key starts no other one. */
  overUntilMs: number
  reservedBytes: number
  /** The most it may hold, after something was broken off. */
  heldMost: number
  createdMs: number
  expiresMs: number
  readonly parts: Map<number, Uint8Array>
  receipts: readonly Uint8Array[]
  acceptedMs: number
  /** Somebody who was fetching when it expired may go on until then. */
  leasedUntilMs: number
  /** Since then the index was put back: it may have forgotten a lease, or that this is over. */
  isUnsure: boolean
}

/** What the relay takes for the time: the wall clock, but for its leaps and never backwards. */
export class RelayTime {
  #believed = { wallMs: 0, monotonicMs: 0 }
  #steadySince: { wallMs: number; monotonicMs: number } | undefined
  #told = { wallMs: 0, monotonicMs: 0 }
  #notedMs = 0

  start(wallMs: number, monotonicMs: number): void {
    const isBehind = wallMs < this.#notedMs - 5 * minuteMs
    this.#steadySince = isBehind ? { wallMs, monotonicMs } : undefined
    this.#believed = { wallMs: isBehind ? this.#notedMs : wallMs, monotonicMs }
    this.#told = { wallMs: Math.max(wallMs, this.#notedMs), monotonicMs }
  }

  look(wallMs: number, monotonicMs: number): void {
    const seen = { wallMs, monotonicMs }
    const goneBy = (from: typeof seen) => from.wallMs + monotonicMs - from.monotonicMs
    const agrees = (from: typeof seen) => Math.abs(wallMs - goneBy(from)) <= 5 * minuteMs
    if (this.#steadySince === undefined && !agrees(this.#believed)) this.#steadySince = seen
    else if (this.#steadySince !== undefined && !agrees(this.#steadySince)) this.#steadySince = seen
    const steady = this.#steadySince
    if (steady === undefined || monotonicMs - steady.monotonicMs >= hourMs) {
      this.#steadySince = undefined
      this.#believed = seen
    }
    const slowed = this.#told.wallMs + (monotonicMs - this.#told.monotonicMs) / 2
    this.#told = { wallMs: Math.max(goneBy(this.#believed), slowed), monotonicMs }
  }

  /** It survives the relay from here on. */
  note(): void {
    this.#notedMs = this.nowMs
  }

  /** A head was signed: what it says of the time is not taken back after a death. */
  noteForHead(): void {
    if (this.nowMs >= this.#notedMs + 2000) this.note()
  }

  /** A relay that died over signing a head noted the time for it, or did not. */
  died(notedMs: number): void {
    between(notedMs, this.#notedMs, this.nowMs, "the time noted by who died")
    this.#notedMs = notedMs
  }

  get nowMs(): number {
    return Math.floor(this.#told.wallMs)
  }

  get isSuspicious(): boolean {
    return this.#steadySince !== undefined
  }
}

export class Model {
  readonly time = new RelayTime()
  readonly inboxes = new Map<number, Inbox>()
  readonly uploads: Upload[] = []
  /** What the disk has left. */
  freeBytes: number = roomBytes

  get nowMs(): number {
    return this.time.nowMs
  }

  // What the relay is to answer

  start(upload: Upload, askedBytes: number): Answer[] {
    if (askedBytes > limits.deliveryBytes) return ["too_large"]
    if (upload.state === "open" || upload.state === "final") {
      if (askedBytes !== upload.askedBytes) return ["idempotency_mismatch"]
      return upload.state === "open" && upload.expiresMs <= this.nowMs ? ["upload_expired"] : ["ok"]
    }
    if (upload.overUntilMs > this.nowMs && !upload.isUnsure) return ["upload_expired"]
    const again = this.#startAnew(upload, askedBytes)
    return upload.overUntilMs > this.nowMs ? [...again, "upload_expired"] : again
  }

  #startAnew(upload: Upload, askedBytes: number): Answer[] {
    if (upload.recipients.some((person) => !this.isOpen(person))) return ["no_such_inbox"]
    return this.#room(upload, askedBytes, askedBytes)
  }

  extend(upload: Upload, bytes: number): Answer[] {
    if (upload.state === "final") return ["upload_finished"]
    const refusal = this.#known(upload)
    if (refusal !== undefined) return [refusal]
    if (bytes > limits.deliveryBytes) return ["too_large"]
    const wanted = Math.max(upload.reservedBytes, bytes)
    return this.#room(upload, wanted, wanted)
  }

  part(upload: Upload, index: number, bytes: Uint8Array): Answer[] {
    if (upload.state === "final") return ["upload_finished"]
    const refusal = this.#known(upload)
    if (refusal !== undefined) return [refusal]
    if (bytes.length === 0) return ["bad_length"]
    if (gridOffset(index) + bytes.length > upload.reservedBytes) return ["too_large"]
    const known = upload.parts.get(index)
    if (known !== undefined) return [Buffer.compare(known, bytes) === 0 ? "ok" : "part_differs"]
    // Only the last part may be shorter than its place.
    const isShort = bytes.length < gridLength(index)
    const others = [...upload.parts].filter(([at]) => at !== index)
    const hasShort = others.some(([at, part]) => part.length < gridLength(at))
    const isBehindShort = others.some(([at, part]) => part.length < gridLength(at) && at < index)
    const isBeforeAny = others.some(([at]) => at > index)
    if (isBehindShort || (isShort && (hasShort || isBeforeAny))) return ["bad_length"]
    return ["ok"]
  }

  finish(upload: Upload, what: "right" | "root" | "manifest"): Answer[] {
    if (upload.state === "final") {
      return [what === "root" ? "upload_finished" : "ok"]
    }
    const refusal = this.#known(upload)
    if (refusal !== undefined) return [refusal]
    const { body, manifest } = upload.delivery
    if (body.length > upload.reservedBytes) return ["too_large"]
    const indexes = Array.from({ length: gridCount(body.length) }, (_, index) => index)
    const wrong = indexes.filter((index) => {
      const part = upload.parts.get(index)
      return part !== undefined && part.length !== gridLength(index, body.length)
    })
    if (wrong.length > 0) return ["root_mismatch"]
    if (indexes.some((index) => !upload.parts.has(index))) return ["parts_missing"]
    const isRight =
      upload.parts.size === indexes.length &&
      indexes.every((index) => isPartOf(upload.delivery, index, upload.parts.get(index)))
    if (!isRight || what === "root") return ["root_mismatch"]
    const share = Math.max(upload.reservedBytes, body.length + manifest.length)
    // The body is on the disk by now: its room is there for the manifest.
    const room = manifest.length > upload.reservedBytes ? manifest.length : undefined
    const refusals = share > upload.reservedBytes ? this.#room(upload, share, room) : ["ok"]
    if (!refusals.includes("ok")) return refusals
    const rest = refusals.filter((code) => code !== "ok")
    if (what === "manifest") return [...rest, "root_mismatch"]
    if (upload.recipients.some((person) => !this.isOpen(person))) return [...rest, "no_such_inbox"]
    return refusals
  }

  giveUp(upload: Upload): Answer {
    if (upload.state === "final") return "upload_finished"
    return this.#known(upload) ?? "ok"
  }

  fetch({ gone, maybe, expiresMs, upload }: Entry): Answer[] {
    const isLeased = upload.leasedUntilMs > this.nowMs
    const kept = expiresMs > this.nowMs || isLeased ? "ok" : "expired"
    if (gone === undefined && isLeased && upload.isUnsure) return ["ok", "expired"]
    if (gone !== undefined) return [refusalOf(gone)]
    return maybe === undefined ? [kept] : [kept, refusalOf(maybe)]
  }

  /** What an entry is shown as. */
  shown(entry: Entry): readonly (TombstoneReason | "waiting")[] {
    if (entry.gone !== undefined) return [entry.gone]
    const now = entry.expiresMs <= this.nowMs ? "expired" : "waiting"
    return entry.maybe === undefined ? [now] : [now, entry.maybe]
  }

  isOpen(person: number): boolean {
    return this.inboxes.get(person)?.isClosed === false
  }

  /** Undefined where the last moments of its time are a matter of when its use was noted. */
  isLoggedIn({ createdMs, lastUsedMs }: Session): boolean | undefined {
    if (this.nowMs >= Math.min(createdMs + hourMs, lastUsedMs + 15 * minuteMs)) return false
    return this.nowMs < lastUsedMs + 14 * minuteMs ? true : undefined
  }

  /** What waits counts, until it has a tombstone; the most of it, or what is certain to. */
  used(inbox: Inbox, certain?: "certain"): { readonly bytes: number; readonly deliveries: number } {
    const waiting = inbox.entries.filter(
      ({ gone, maybe }) => gone === undefined && (certain === undefined || maybe === undefined),
    )
    return { bytes: sum(waiting.map(({ upload }) => sizeOf(upload))), deliveries: waiting.length }
  }

  // What happened

  started(upload: Upload, askedBytes: number): void {
    if (upload.state !== "new" && upload.state !== "over") return
    upload.state = "open"
    upload.createdMs = this.nowMs
    upload.parts.clear()
    upload.overUntilMs = 0
    upload.isUnsure = false
    upload.askedBytes = askedBytes
    upload.reservedBytes = askedBytes
    upload.heldMost = askedBytes
    upload.expiresMs = this.nowMs + dayMs
    if (!this.uploads.includes(upload)) this.uploads.push(upload)
  }

  extended(upload: Upload, bytes: number): void {
    upload.reservedBytes = Math.max(upload.reservedBytes, bytes)
    upload.heldMost = upload.reservedBytes
    const latestMs = upload.createdMs + 3 * dayMs
    upload.expiresMs = Math.max(upload.expiresMs, Math.min(this.nowMs + dayMs, latestMs))
  }

  finished(upload: Upload, acceptedMs: number): void {
    if (upload.state === "final") return
    upload.state = "final"
    upload.acceptedMs = acceptedMs
    upload.expiresMs = expiryOf(upload.notAfterMs, acceptedMs)
    for (const person of upload.recipients) {
      const entries = this.inboxes.get(person)?.entries
      const { expiresMs } = upload
      const seq = (entries?.length ?? 0) + 1
      entries?.push({ seq, upload, acceptedMs, expiresMs, gone: undefined, maybe: undefined })
    }
  }

  gaveUp(upload: Upload): void {
    upload.state = "over"
    upload.overUntilMs = this.nowMs + dayMs
  }

  /** Gone is gone: what had a tombstone to everybody's eyes keeps it. */
  buried(entry: Entry, reason: TombstoneReason): void {
    const isLeased = entry.upload.leasedUntilMs > this.nowMs
    entry.gone ??= entry.expiresMs <= this.nowMs && !isLeased ? "expired" : reason
    entry.maybe = undefined
  }

  fetched({ upload, expiresMs }: Entry): void {
    if (expiresMs - this.nowMs > 10 * minuteMs) return
    const untilMs = Math.min(this.nowMs + 10 * minuteMs, expiresMs + hourMs)
    upload.leasedUntilMs = Math.max(upload.leasedUntilMs, untilMs)
  }

  swept(): void {
    if (this.time.isSuspicious) return
    for (const upload of this.uploads) this.#sweepUpload(upload)
    for (const inbox of this.inboxes.values()) {
      const isPast = ({ gone, expiresMs }: Entry) =>
        gone !== undefined && expiresMs <= this.nowMs - 30 * dayMs
      while (inbox.floor < inbox.entries.length) {
        const next = inbox.entries[inbox.floor]
        if (next === undefined || !isPast(next)) break
        inbox.floor += 1
      }
    }
    this.time.note()
  }

  #sweepUpload(upload: Upload): void {
    const { state, expiresMs } = upload
    if (state === "open" && expiresMs + hourMs <= this.nowMs) upload.state = "over"
    if (state === "over" && upload.overUntilMs <= this.nowMs) upload.overUntilMs = 0
    if (state !== "final" || expiresMs > this.nowMs) return
    const waiting = this.placesOf(upload).filter(({ gone }) => gone === undefined)
    // A sweep removes what expired, and a later one forgets that it was there.
    if (waiting.length === 0 && expiresMs + 30 * dayMs <= this.nowMs) upload.state = "forgotten"
    if (upload.leasedUntilMs > this.nowMs) return
    for (const entry of waiting) this.buried(entry, "expired")
  }

  placesOf(upload: Upload): Entry[] {
    return [...this.inboxes.values()].flatMap(({ entries }) =>
      entries.filter((entry) => entry.upload === upload),
    )
  }

  /** A relay that comes back to nothing but its folder. */
  lostIndex(): void {
    for (const inbox of this.inboxes.values()) {
      inbox.sessions = []
      inbox.listed = inbox.listedLeast = inbox.entries.length
    }
    for (const upload of this.uploads) {
      upload.leasedUntilMs = 0
      upload.overUntilMs = 0
      upload.heldMost = upload.reservedBytes
      if (upload.state === "open" && upload.expiresMs + hourMs <= this.nowMs) upload.state = "over"
    }
  }

  /** A relay whose index is put back to an earlier moment: sessions and listings since then are not known. */
  fellBehind(): void {
    for (const inbox of this.inboxes.values()) {
      inbox.sessions = []
      inbox.listedLeast = 0
    }
    for (const upload of this.uploads) upload.isUnsure = true
  }

  #known({ state, expiresMs }: Upload): Answer | undefined {
    if (state !== "open") return "unauthorized"
    return expiresMs <= this.nowMs ? "upload_expired" : undefined
  }

  /** Whether an upload may hold so much, in place of what it holds: of the disk, and of each inbox. */
  #room(upload: Upload, share: number, room: number | undefined): Answer[] {
    const holding = this.uploads.filter(
      (other) => other !== upload && other.state === "open" && other.expiresMs > this.nowMs,
    )
    const answers = new Set<Answer>()
    for (const [held, certain] of [
      [reservedOf, "certain"] as const,
      [mostOf, undefined] as const,
    ]) {
      if (room !== undefined && sum(holding.map(held)) + room > this.freeBytes) {
        answers.add("relay_full")
        continue
      }
      const isFull = upload.recipients.some((person) => {
        const inbox = this.inboxes.get(person)
        if (inbox === undefined) return false
        const used = this.used(inbox, certain)
        const rivals = holding.filter(({ recipients }) => recipients.includes(person))
        return (
          used.bytes + sum(rivals.map(held)) + share > limits.inboxBytes ||
          used.deliveries + rivals.length >= limits.inboxDeliveries
        )
      })
      answers.add(isFull ? "inbox_full" : "ok")
    }
    return [...answers]
  }
}

export function expiryOf(notAfterMs: number, acceptedMs: number): number {
  if (notAfterMs === 0) return acceptedMs + keepMs
  return Math.min(Math.max(notAfterMs, acceptedMs + hourMs), acceptedMs + keepMaxMs)
}

function refusalOf(reason: TombstoneReason): Answer {
  return reason === "expired" ? "expired" : "not_found"
}

export function sizeOf({ delivery }: Upload): number {
  return delivery.body.length + delivery.manifest.length
}

function isPartOf({ body }: TestDelivery, index: number, part: Uint8Array | undefined): boolean {
  const start = gridOffset(index)
  const wanted = body.subarray(start, start + gridLength(index, body.length))
  return part !== undefined && Buffer.compare(part, wanted) === 0
}

const reservedOf = ({ reservedBytes }: Upload): number => reservedBytes
const mostOf = ({ reservedBytes, heldMost }: Upload): number => Math.max(reservedBytes, heldMost)

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0)
}
