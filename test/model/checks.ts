// What the relay says, held against what the model says.
import {
  chainHead,
  encodeBearer,
  envelopeHash,
  gridCount,
  headerHash,
  leafHash,
  parseHead,
  parseReceipt,
  parseRelayInfo,
  parseStamp,
  parseStatusReply,
  parseTombstone,
  parseUploadState,
  toHex,
  verifyHead,
  verifyReceipt,
} from "../../protocol/index.js"
import type { Identity, InboxEntry, InboxPage } from "../../protocol/index.js"
import { partOf } from "../server/test-delivery.js"
import { among, between, same, sameBytes } from "./disagreement.js"
import type { Entry, Inbox, Model, Session, Upload } from "./model.js"
import type { World } from "./world.js"

/** Every signed word that the relay ever gave: the next ones must not contradict it. */
export class Testimony {
  readonly people: readonly Identity[]
  #signingKey: Uint8Array | undefined
  /** For each inbox, the head after each seq. */
  readonly #heads = new Map<number, Map<number, string>>()

  /** Nothing is accepted up to then any more, by what the signed heads say. */
  #vouchedMs = 0

  constructor(people: readonly Identity[]) {
    this.people = people
  }

  identity(person: number): Identity {
    const identity = this.people[person]
    if (identity === undefined) throw new RangeError("nobody there")
    return identity
  }

  async #key(world: World): Promise<Uint8Array> {
    const { signingKey } = parseRelayInfo((await world.client.get("/v1/relay").expect(200)).body)
    this.#signingKey ??= signingKey
    same(toHex(signingKey), toHex(this.#signingKey), "the relay's signing key")
    return signingKey
  }

  /** Everything that every inbox lists. */
  async checkInboxes(model: Model, world: World): Promise<void> {
    await this.#key(world)
    for (const inbox of model.inboxes.values()) {
      const session = await sessionFor(model, world, this.identity(inbox.person), inbox)
      const page = await world.client.list(encodeBearer(session.token))
      used(model, session)
      this.checkPage(model, inbox, page, 0)
    }
  }

  checkPage(model: Model, inbox: Inbox, page: InboxPage, after: number): void {
    const who = `inbox ${inbox.person}`
    const wanted = inbox.entries.slice(Math.max(after, inbox.floor))
    same(
      page.entries.map(({ seq }) => seq),
      wanted.map(({ seq }) => seq),
      `what ${who} lists`,
    )
    for (const [at, entry] of wanted.entries()) {
      const shown = page.entries[at]
      if (shown !== undefined) this.#checkEntry(model, inbox, entry, shown)
    }
    same(page.floor.seq, inbox.floor, `the floor of ${who}`)
    between(page.newAfter, inbox.listedLeast, inbox.listed, `what is new in ${who}`)
    inbox.listed = Math.max(page.newAfter, wanted.at(-1)?.seq ?? 0)
    inbox.listedLeast = inbox.listed
    const [least, most] = [model.used(inbox, "certain"), model.used(inbox)]
    for (const of of ["bytes", "deliveries"] as const) {
      between(page.used[of], least[of], most[of], `${of} used of ${who}`)
    }
    this.#checkHead(model, inbox, page, after)
  }

  #checkEntry(model: Model, inbox: Inbox, entry: Entry, shown: InboxEntry): void {
    const where = `inbox ${inbox.person}, seq ${entry.seq}`
    const { upload, acceptedMs, expiresMs } = entry
    const { header, envelopes } = upload.delivery
    const envelope = envelopes[upload.recipients.indexOf(inbox.person)] ?? new Uint8Array(0)
    const place = shown.kind === "gone" ? parseTombstone(shown.tombstone) : parseStamp(shown.stamp)
    const said = shown.kind === "gone" ? parseTombstone(shown.tombstone).reason : shown.kind
    among(said, model.shown(entry), where)
    if (said === entry.maybe) entry.gone = entry.maybe
    same([place.acceptedMs, place.expiresMs], [acceptedMs, expiresMs], `${where}, its times`)
    sameBytes(place.headerHash, headerHash(header), `${where}, its header's hash`)
    sameBytes(place.envelopeHash, envelopeHash(envelope), `${where}, its envelope's hash`)
    if (shown.kind === "waiting") {
      same(shown.id, upload.id, `${where}, its id`)
      sameBytes(shown.header, header, `${where}, its header`)
      if (shown.envelope !== undefined)
        sameBytes(shown.envelope, envelope, `${where}, its envelope`)
    }
  }

  #checkHead(model: Model, inbox: Inbox, page: InboxPage, after: number): void {
    const who = `inbox ${inbox.person}`
    same(
      verifyHead(page.head, this.#signingKey ?? new Uint8Array(32)),
      true,
      `${who}'s head is signed`,
    )
    const head = parseHead(page.head)
    same(
      [head.seq, head.floorSeq, head.restored],
      [inbox.entries.length, inbox.floor, false],
      `the head of ${who}`,
    )
    const heads = this.#heads.get(inbox.person) ?? new Map<number, string>([[0, zeroHead]])
    this.#heads.set(inbox.person, heads)
    const noteHead = (seq: number, hex: string): void => {
      same(hex, heads.get(seq) ?? hex, `the head of ${who} after ${seq}, as it was signed before`)
      heads.set(seq, hex)
    }
    noteHead(page.floor.seq, toHex(page.floor.head))
    let previous = Buffer.from(heads.get(Math.max(after, inbox.floor)) ?? "", "hex")
    for (const shown of page.entries) {
      const place =
        shown.kind === "gone" ? parseTombstone(shown.tombstone) : parseStamp(shown.stamp)
      previous = Buffer.from(chainHead({ previous, ...place }))
      noteHead(shown.seq, toHex(previous))
    }
    noteHead(head.seq, toHex(head.head))
    // It vouches for all that was accepted until 5 s before it, and is not made to say less for ever.
    same(head.asOfMs, model.nowMs, `the time of the head of ${who}`)
    model.time.noteForHead()
    this.#vouchedMs = Math.max(this.#vouchedMs, head.asOfMs - 5000)
  }

  /** Of what was not accepted before. */
  checkAcceptance(acceptedMs: number): void {
    between(acceptedMs, this.#vouchedMs + 1, Infinity, "the time of acceptance")
  }

  /** A finish's receipts, which are also what each entry says. */
  checkReceipts(upload: Upload, receipts: readonly Uint8Array[]): void {
    same(receipts.length, upload.recipients.length, "how many receipts there are")
    for (const [at, receipt] of receipts.entries()) {
      const identity = this.identity(upload.recipients[at] ?? -1)
      const said = parseReceipt(receipt)
      const { header, envelopes } = upload.delivery
      const isSigned = verifyReceipt(receipt, this.#signingKey ?? new Uint8Array(32))
      same(isSigned, true, "a receipt is signed")
      sameBytes(said.inboxId, identity.bundle.inboxId, "a receipt's inbox")
      sameBytes(said.headerHash, headerHash(header), "a receipt's header")
      const envelope = envelopes[at] ?? new Uint8Array(0)
      sameBytes(said.envelopeHash, envelopeHash(envelope), "a receipt's envelope")
      const { acceptedMs, expiresMs } = upload
      same([said.acceptedMs, said.expiresMs], [acceptedMs, expiresMs], "a receipt's times")
      sameBytes(receipt, upload.receipts[at] ?? receipt, "a receipt that was given before")
    }
  }

  /** Every byte of everything, every upload, and what each sender is told. */
  async checkAll(model: Model, world: World): Promise<void> {
    await this.checkInboxes(model, world)
    for (const inbox of model.inboxes.values()) {
      for (const entry of inbox.entries.slice(inbox.floor)) {
        await this.checkBytes(model, world, inbox, entry)
      }
    }
    for (const upload of model.uploads) {
      await checkUpload(model, world, upload)
      if (upload.state === "final") await this.checkStatus(model, world, upload)
    }
    const { inboxes, waiting, openUploads } = await world.status()
    const all = [...model.inboxes.values()]
    same(inboxes, all.length, "inboxes by the relay's own count")
    for (const of of ["bytes", "deliveries"] as const) {
      const [least, most] = (["certain", undefined] as const).map((certain) =>
        all.reduce((total, inbox) => total + model.used(inbox, certain)[of], 0),
      )
      between(waiting[of], least ?? 0, most ?? 0, `${of} by the relay's own count`)
    }
    const open = model.uploads.filter(({ state }) => state === "open")
    same(openUploads, open.length, "open uploads by the relay's own count")
  }

  async checkBytes(model: Model, world: World, inbox: Inbox, entry: Entry): Promise<void> {
    const { upload, seq } = entry
    const where = `inbox ${inbox.person}, seq ${seq}`
    const { header, manifest, body, envelopes } = upload.delivery
    const pieces: Readonly<Record<string, Uint8Array>> = {
      header,
      envelope: envelopes[upload.recipients.indexOf(inbox.person)] ?? new Uint8Array(0),
      manifest,
      leaves: leavesOf(body),
      body,
    }
    for (const [name, bytes] of Object.entries(pieces)) {
      const session = await sessionFor(model, world, this.identity(inbox.person), inbox)
      const allowed = model.fetch(entry)
      const path = `/v1/deliveries/${upload.id}/${name}`
      const reply = await world.client.bytes(path, encodeBearer(session.token))
      used(model, session)
      if (reply.status === 200) {
        among("ok", allowed, `${where}, whether its ${name} can be fetched`)
        sameBytes(reply.body, bytes, `${where}, its ${name}`)
        model.fetched(entry)
      } else {
        const code = String(JSON.parse(Buffer.from(reply.body).toString()).code)
        among(code, allowed, `${where}, whether its ${name} can be fetched`)
      }
    }
  }

  async checkStatus(model: Model, world: World, upload: Upload): Promise<void> {
    const reply = await world.client.get(
      `/v1/deliveries/${upload.id}/status`,
      encodeBearer(upload.cap),
    )
    same(reply.status, 200, `the status of ${upload.id} (${reply.text})`)
    const status = parseStatusReply(reply.body)
    for (const entry of model.placesOf(upload)) {
      const person = [...model.inboxes.values()].find(({ entries }) => entries.includes(entry))
      const at = upload.recipients.indexOf(person?.person ?? -1)
      const state = status.recipients[at]?.state
      among(state, model.shown(entry), `the status of ${upload.id} for its recipient ${at}`)
    }
  }
}

export async function checkUpload(model: Model, world: World, upload: Upload): Promise<void> {
  const reply = await world.client.get(`/v1/uploads/${upload.id}`, encodeBearer(upload.token))
  if (upload.state === "over" || upload.state === "forgotten") {
    same(reply.status, 401, `upload ${upload.id}, which is ${upload.state}`)
    return
  }
  if (upload.state === "open" && upload.expiresMs <= model.nowMs) {
    same(reply.status, 410, `upload ${upload.id}, which is past its time`)
    return
  }
  same(reply.status, 200, `upload ${upload.id}, which is ${upload.state} (${reply.text})`)
  const state = parseUploadState(reply.body)
  same(state.state, upload.state, `upload ${upload.id}`)
  if (upload.state === "final") return
  same(
    [state.reservedBytes, state.expiresMs],
    [upload.reservedBytes, upload.expiresMs],
    `what upload ${upload.id} may have`,
  )
  const leaves = state.runs.flatMap(({ first, leaves }) =>
    Array.from({ length: leaves.length / 32 }, (_, at): [number, string] => [
      first + at,
      toHex(leaves.subarray(32 * at, 32 * at + 32)),
    ]),
  )
  const wanted = [...upload.parts]
    .sort(([a], [b]) => a - b)
    .map(([index, part]): [number, string] => [index, toHex(leafHash({ index, part }))])
  same(leaves, wanted, `parts of upload ${upload.id}`)
}

/** A session that is certain to be good. */
export async function sessionFor(
  model: Model,
  world: World,
  identity: Identity,
  inbox: Inbox,
): Promise<Session> {
  const known = inbox.sessions.findLast((session) => model.isLoggedIn(session) === true)
  return known ?? login(model, world, identity, inbox)
}

export async function login(
  model: Model,
  world: World,
  identity: Identity,
  inbox: Inbox,
): Promise<Session> {
  const bearer = await world.client.login(identity)
  const token = Buffer.from(bearer.replace("Bearer ", ""), "base64url")
  const session = { token, createdMs: model.nowMs, lastUsedMs: model.nowMs }
  inbox.sessions.push(session)
  return session
}

/** It lasts from now on again. */
export function used(model: Model, session: Session): void {
  session.lastUsedMs = model.nowMs
}

const zeroHead = "00".repeat(32)

function leavesOf(body: Uint8Array): Uint8Array {
  return Buffer.concat(
    Array.from({ length: gridCount(body.length) }, (_, index) =>
      leafHash({ index, part: partOf(body, index) }),
    ),
  )
}
