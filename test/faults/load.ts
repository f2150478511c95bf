// A mixed load on one relay: several people and senders at once, each doing what is drawn from the seed,
// and a ledger of what the relay promised them.
import {
  encodeBearer,
  encodeRegisterRequest,
  encodeSessionRequest,
  encodeStartUpload,
  gridCount,
  type Identity,
  type InboxPage,
  parseChallenge,
  parseFinishReply,
  parseHead,
  parseInboxPage,
  parseSessionReply,
  parseStartUploadReply,
  proveLogin,
  sha256,
  toHex,
} from "../../protocol/index.js"
import type { Draws } from "../fuzz/random.js"
import { makeDelivery, origin, partOf } from "../server/relay-under-test.js"
import type { Deed, Ledger, Owner, Sending } from "./ledger.js"
import type { Subject } from "./subject.js"
import { jsonOf, type Reply } from "./wire.js"

const minuteMs = 60_000
const dayMs = 1440 * minuteMs

/** Speaks to one relay and writes down what it says. */
export class Party {
  readonly #subject: Subject
  readonly #ledger: Ledger

  constructor(subject: Subject, ledger: Ledger) {
    this.#subject = subject
    this.#ledger = ledger
  }

  deed(): Deed {
    return { askedAt: this.#subject.changes, doneAt: undefined }
  }

  /** Notes whether it was done. Anything but the statuses named is a surprise. */
  #settle(deed: Deed | undefined, reply: Reply, what: string, ...statuses: number[]): boolean {
    const isDone = reply.status >= 200 && reply.status < 300
    if (isDone && deed !== undefined) deed.doneAt = reply.at
    if (!isDone) {
      const text = new TextDecoder().decode(reply.bytes).slice(0, 200)
      const list = statuses.includes(reply.status) ? "refusals" : "surprises"
      this.#ledger[list].push(`${what} was answered with ${reply.status} ${text}`)
    }
    return isDone
  }

  async #proof(identity: Identity): Promise<ReturnType<typeof proveLogin>> {
    const reply = await this.#subject.wire.ask("POST", "/v1/sessions/challenge")
    if (!this.#settle(undefined, reply, "a challenge")) throw new Error("no challenge")
    return proveLogin({ identity, origin, challenge: parseChallenge(jsonOf(reply)) })
  }

  async register(owner: Owner): Promise<boolean> {
    const { address, bytes } = owner.identity.bundle
    owner.registered ??= this.deed()
    const closing = owner.closings.at(-1)
    if (closing !== undefined) closing.reopened ??= this.deed()
    const { fields } = await this.#proof(owner.identity)
    const json = encodeRegisterRequest({ bundle: bytes, proof: fields })
    const reply = await this.#subject.wire.ask("PUT", `/v1/inboxes/${address}`, { json })
    if (!this.#settle(undefined, reply, "a registration")) return false
    owner.registered.doneAt ??= reply.at
    if (closing?.reopened !== undefined) closing.reopened.doneAt ??= reply.at
    return true
  }

  async login(owner: Owner): Promise<string> {
    const attempt = await this.#proof(owner.identity)
    const { address } = owner.identity.bundle
    const json = encodeSessionRequest({ address, proof: attempt.fields })
    const reply = await this.#subject.wire.ask("POST", "/v1/sessions", { json })
    if (!this.#settle(undefined, reply, "a login", 401)) throw new Error("no session")
    const session = parseSessionReply(jsonOf(reply))
    const authorization = encodeBearer(attempt.finish(session))
    owner.sessions.push({ at: reply.at, authorization, untilMs: session.expiresMs })
    return authorization
  }

  async #session(owner: Owner): Promise<string> {
    const known = owner.sessions.at(-1)
    const isGood = known !== undefined && known.untilMs > this.#subject.clock.wallMs()
    return isGood ? known.authorization : this.login(owner)
  }

  async list(owner: Owner): Promise<InboxPage> {
    const query = "/v1/inbox?limit=1000&envelopes=1"
    const ask = (authorization: string) => this.#subject.wire.ask("GET", query, { authorization })
    let reply = await ask(await this.#session(owner))
    // The session ended while the request was on its way: another actor let days pass.
    if (reply.status === 401) reply = await ask(await this.login(owner))
    if (!this.#settle(undefined, reply, "a listing")) throw new Error("no listing")
    const page = parseInboxPage(jsonOf(reply))
    const { seq, head, asOfMs, floorSeq } = parseHead(page.head)
    owner.heads.push({ at: reply.at, seq, head: toHex(head), asOfMs, floorSeq })
    return page
  }

  async start(sending: Sending): Promise<boolean> {
    const { delivery, deleteCap, idempotencyKey, started } = sending
    const json = encodeStartUpload({
      recipients: delivery.recipients.map(({ bundle }) => bundle.address),
      reserveBytes: delivery.body.length,
      deleteHash: sha256(deleteCap),
    })
    const headers = { "idempotency-key": idempotencyKey }
    const reply = await this.#subject.wire.ask("POST", "/v1/uploads", { json, headers })
    if (!this.#settle(started, reply, "a start", 404)) return false
    const { id, token, expiresMs } = parseStartUploadReply(jsonOf(reply))
    Object.assign(sending, { id, token, expiresMs })
    return true
  }

  async extend(sending: Sending): Promise<void> {
    const reply = await this.#subject.wire.ask("POST", `/v1/uploads/${sending.id}/extend`, {
      authorization: encodeBearer(sending.token),
      json: { reserve_bytes: sending.delivery.body.length },
    })
    this.#settle(undefined, reply, "an extension", 401, 409, 410)
  }

  async part(sending: Sending, index: number, bytes?: Uint8Array): Promise<number> {
    const reply = await this.#subject.wire.ask("PUT", `/v1/uploads/${sending.id}/parts/${index}`, {
      authorization: encodeBearer(sending.token),
      bytes: bytes ?? partOf(sending.delivery.body, index),
    })
    this.#settle(undefined, reply, "a part", 401, 409, 410)
    return reply.status
  }

  async parts(sending: Sending): Promise<boolean> {
    for (let at = 0; at < gridCount(sending.delivery.body.length); at++) {
      if ((await this.part(sending, at)) !== 200) return false
    }
    return true
  }

  async finish(sending: Sending): Promise<boolean> {
    const deed = this.deed()
    sending.finished ??= deed
    const reply = await this.#subject.wire.ask("POST", `/v1/uploads/${sending.id}/finish`, {
      authorization: encodeBearer(sending.token),
      bytes: sending.delivery.finish,
    })
    const earliest = sending.finished
    if (!this.#settle(undefined, reply, "a finish", 401, 404, 409, 410)) return false
    earliest.doneAt ??= reply.at
    const receipts = parseFinishReply(jsonOf(reply)).receipts.map(({ receipt }) => receipt)
    if (sending.receipts.length > 0 && listed(sending.receipts) !== listed(receipts)) {
      this.#ledger.surprises.push("a finish that was repeated got other receipts")
    }
    sending.receipts = receipts
    return true
  }

  async giveUp(sending: Sending): Promise<void> {
    const deed = this.deed()
    sending.givenUp ??= deed
    const authorization = encodeBearer(sending.token)
    const path = `/v1/uploads/${sending.id}`
    const reply = await this.#subject.wire.ask("DELETE", path, { authorization })
    this.#settle(deed, reply, "giving up", 401, 409, 410)
  }

  async discard(owner: Owner, sending: Sending): Promise<void> {
    const authorization = await this.#session(owner)
    const deed = this.deed()
    const number = this.#ledger.owners.indexOf(owner)
    if (!sending.discarded.has(number)) sending.discarded.set(number, deed)
    const path = `/v1/deliveries/${sending.id}`
    const reply = await this.#subject.wire.ask("DELETE", path, { authorization })
    const first = sending.discarded.get(number)
    if (this.#settle(undefined, reply, "a discard", 404) && first) first.doneAt ??= reply.at
  }

  async revoke(sending: Sending): Promise<void> {
    const deed = this.deed()
    sending.revoked ??= deed
    const authorization = encodeBearer(sending.deleteCap)
    const path = `/v1/deliveries/${sending.id}`
    const reply = await this.#subject.wire.ask("DELETE", path, { authorization })
    // Of what was never finished, or is no longer remembered, the relay knows nothing.
    if (this.#settle(undefined, reply, "a revocation", 401)) sending.revoked.doneAt ??= reply.at
  }

  async fetch(owner: Owner, sending: Sending): Promise<Reply> {
    const authorization = await this.#session(owner)
    return this.#subject.wire.ask("GET", `/v1/deliveries/${sending.id}/body`, { authorization })
  }

  async close(owner: Owner): Promise<void> {
    const authorization = await this.#session(owner)
    const closed = this.deed()
    owner.closings.push({ closed, reopened: undefined })
    const path = `/v1/inboxes/${owner.identity.bundle.address}`
    const reply = await this.#subject.wire.ask("DELETE", path, { authorization })
    this.#settle(closed, reply, "closing an inbox")
  }
}

function listed(receipts: readonly Uint8Array[]): string {
  return receipts.map(toHex).join(" ")
}

export function newSending(
  party: Party,
  draws: Draws,
  recipients: readonly Identity[],
  bodyLength: number,
): Sending {
  return {
    delivery: makeDelivery(recipients, { bodyLength, manifestLength: 100 + draws.below(600) }),
    idempotencyKey: toHex(draws.bytes(16)),
    deleteCap: draws.bytes(32),
    started: party.deed(),
    id: "",
    token: new Uint8Array(32),
    expiresMs: 0,
    finished: undefined,
    receipts: [],
    givenUp: undefined,
    revoked: undefined,
    discarded: new Map(),
  }
}

export interface LoadOptions {
  readonly subject: Subject
  readonly ledger: Ledger
  readonly draws: Draws
  readonly actors: number
  readonly actions: number
}

/** What a relay lives through after its start. */
export async function runLoad(options: LoadOptions): Promise<void> {
  const { subject, ledger, draws, actors, actions } = options
  const party = new Party(subject, ledger)
  for (const owner of ledger.owners.slice(0, 2)) await party.register(owner)
  await Promise.all(
    Array.from({ length: actors }, async () => {
      for (let at = 0; at < actions; at++) await act(subject, ledger, party, draws)
    }),
  )
}

/** The same where the relay may fail: who cannot go on with one thing goes on with the next. */
export async function tryLoad(options: Omit<LoadOptions, "actors">): Promise<void> {
  const { subject, ledger, draws, actions } = options
  const party = new Party(subject, ledger)
  for (const owner of ledger.owners.slice(0, 2)) await attempt(() => party.register(owner))
  for (let at = 0; at < actions; at++) await attempt(() => act(subject, ledger, party, draws))
}

async function attempt(work: () => Promise<unknown>): Promise<void> {
  try {
    await work()
  } catch {
    // The ledger has what it was answered.
  }
}

async function act(subject: Subject, ledger: Ledger, party: Party, draws: Draws): Promise<void> {
  const { owners, sendings } = ledger
  const there = owners.filter(({ registered }) => registered?.doneAt !== undefined)
  const dice = draws.below(100)
  if (dice < 38) await send(ledger, party, draws)
  else if (dice < 46) await party.list(draws.pick(there))
  else if (dice < 64) {
    const sending = sendings.length > 0 ? draws.pick(sendings) : undefined
    if (sending?.finished?.doneAt === undefined) return
    const recipient = draws.pick(sending.delivery.recipients)
    const owner = owners.find(({ identity }) => identity === recipient)
    if (owner === undefined) return
    if (dice < 54) await party.fetch(owner, sending)
    else await party.discard(owner, sending)
  } else if (dice < 72) {
    if (sendings.length > 0) {
      const sending = draws.pick(sendings)
      if (sending.started.doneAt !== undefined) await party.revoke(sending)
    }
  } else if (dice < 76) {
    const sending = sendings.length > 0 ? draws.pick(sendings) : undefined
    if (sending?.finished?.doneAt !== undefined) await party.finish(sending)
  } else if (dice < 82) await subject.relay.sweep()
  else if (dice < 85) await subject.relay.reconcile()
  else if (dice < 89) {
    const owner = draws.pick(owners)
    if (isClosed(owner) || owner.registered === undefined) await party.register(owner)
  } else if (dice < 91) {
    const owner = draws.pick(there)
    if (!isClosed(owner)) await party.close(owner)
  } else if (dice < 97) subject.clock.advance(draws.below(10 * minuteMs))
  else {
    subject.clock.advance(draws.pick([2, 15, 46]) * dayMs)
    await subject.relay.sweep()
  }
}

function isClosed({ closings }: Owner): boolean {
  const last = closings.at(-1)
  return last !== undefined && last.reopened === undefined
}

async function send(ledger: Ledger, party: Party, draws: Draws): Promise<void> {
  const { owners, sendings } = ledger
  const open = owners.filter((owner) => owner.registered?.doneAt !== undefined && !isClosed(owner))
  if (open.length === 0) return
  const recipients = open.filter(() => draws.chance(0.5)).map(({ identity }) => identity)
  if (recipients.length === 0) recipients.push(draws.pick(open).identity)
  const bodyLength = draws.chance(0.1) ? 131_072 + draws.between(1, 2000) : draws.between(1, 3000)
  const sending = newSending(party, draws, recipients, bodyLength)
  sendings.push(sending)
  if (!(await party.start(sending))) return
  if (draws.chance(0.1)) await party.extend(sending)
  if (draws.chance(0.05)) return party.giveUp(sending)
  if (draws.chance(0.1))
    await party.part(sending, 0, draws.bytes(bodyLength > 131_072 ? 131_072 : 5))
  if (!(await party.parts(sending))) return
  if (draws.chance(0.1)) await party.parts(sending)
  if (draws.chance(0.05)) return
  await party.finish(sending)
  if (draws.chance(0.1)) await party.finish(sending)
}
