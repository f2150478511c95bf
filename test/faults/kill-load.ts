/**
 * A mixed load on one relay, and what it was promised on the way. Every answer is written down; `check`
 * holds a relay that came back against all of it. What was asked for without an answer may have
 * happened or not, but not in part.
 */
import {
  concatBytes,
  createIdentity,
  envelopeHash,
  equalBytes,
  type FinishReply,
  headerHash,
  type Identity,
  identityFromKeys,
  parseReceipt,
  random,
  RelayRefusal,
  toHex,
  verifyReceipt,
} from "../../protocol/index.js"
import { RelayUnreachable } from "../../client/errors.js"
import type { Draws } from "../fuzz/random.js"
import { leavesOf, makeDelivery, partOf, type TestDelivery } from "../server/test-delivery.js"
import { type Caller, isRefusal, type UploadAccess } from "./caller.js"
import { broken, InboxMemory, pairFor } from "./inbox-memory.js"

/** What was asked for may have happened; what was answered has. */
type Asked = "no" | "asked" | "done"

/** The request that is about to go on the wire: where a kill may wish to strike. */
export const phases = [
  "register",
  "start",
  "extend",
  "part",
  "finish",
  "give up",
  "discard",
  "revoke",
  "fetch",
  "list",
  "close session",
] as const
export type Phase = (typeof phases)[number]

/** One sending, as its sender and its recipients remember it. */
interface Sending {
  readonly delivery: TestDelivery
  readonly leaves: readonly Uint8Array[]
  readonly deleteCap: Uint8Array
  readonly idempotencyKey: string
  readonly firstReserve: number
  /** The same content by way of another upload: it takes no place of its own. */
  readonly twinOf: Sending | undefined
  access: UploadAccess | undefined
  reservedBytes: number
  readonly storedParts: Set<number>
  finish: Asked
  gaveUp: Asked
  revoked: Asked
  /** By address. */
  readonly taken: Map<string, Asked>
  /** By address, once there was an answer. */
  receipts: ReadonlyMap<string, Uint8Array> | undefined
  /** Every byte of it was read since the relay last came back with something new about it. */
  wasRead: boolean
}

interface Sender {
  readonly draws: Draws
  current: Sending | undefined
}

interface Inbox {
  readonly owner: Identity
  readonly memory: InboxMemory
}

/** As many take part; each registration makes one more inbox to list at every check. */
const mostInboxes = 6
const firstInboxes = 3
const senders = 3
const recipients = 2
const busyPauseMs = 25
const pollSeconds = 2

export class Load {
  readonly #sendings: Sending[] = []
  readonly #inboxes: Inbox[] = []
  readonly #senders: readonly Sender[]
  readonly #recipients: readonly Draws[]
  readonly #odd: Draws
  readonly #checking: Draws
  readonly #rsaPkcs8: Uint8Array
  readonly #onPhase: (phase: Phase) => void
  readonly #hasOwnIndex: boolean
  /** Asked for, without an answer. */
  #registering: Identity | undefined
  readonly #endedSessions: { readonly token: Uint8Array; readonly owner: Identity }[] = []
  readonly counts: Record<string, number> = {}

  /** `draws` gives each client its own. */
  constructor(needs: {
    readonly draws: (name: string) => Draws
    readonly rsaPkcs8: Uint8Array
    readonly onPhase: (phase: Phase) => void
    /** The relay's index is in itself. */
    readonly hasOwnIndex: boolean
  }) {
    const { draws } = needs
    this.#rsaPkcs8 = needs.rsaPkcs8
    this.#onPhase = needs.onPhase
    this.#hasOwnIndex = needs.hasOwnIndex
    this.#senders = Array.from({ length: senders }, (_, at) => ({
      draws: draws(`sender ${at}`),
      current: undefined,
    }))
    this.#recipients = Array.from({ length: recipients }, (_, at) => draws(`recipient ${at}`))
    this.#odd = draws("odd")
    this.#checking = draws("checking")
  }

  /**
   * Goes on until it is over. `callers` are those that can be asked now: to be cut off by one that is not
   * among them any more is no surprise. Throws BrokenPromise.
   */
  async run(callers: () => readonly Caller[], over: AbortSignal): Promise<void> {
    const [first] = callers()
    if (first === undefined) return
    while (this.#inboxes.length < firstInboxes) await this.#register(first)
    const clients: { readonly draws: Draws; readonly step: (caller: Caller) => Promise<void> }[] = [
      ...this.#senders.map((sender) => ({
        draws: sender.draws,
        step: (caller: Caller) => this.#send(caller, sender),
      })),
      ...this.#recipients.map((draws) => ({
        draws,
        step: (caller: Caller) => this.#receive(caller, draws, over),
      })),
      { draws: this.#odd, step: (caller) => this.#doOddThings(caller) },
    ]
    const outcomes = await Promise.allSettled(
      clients.map(async ({ draws, step }) => {
        while (!over.aborted) {
          const caller = draws.pick(callers())
          try {
            await step(caller)
          } catch (error) {
            if (this.#isPassing(error)) await this.#waitForOthers()
            else if (!over.aborted && callers().includes(caller)) throw error
            else if (!isCutOff(error)) throw error
          }
        }
      }),
    )
    for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason
  }

  /**
   * Another process is at work on the same upload, or was when it was killed; or the index, which is not
   * the relay's own, is being found again.
   */
  #isPassing(error: unknown): boolean {
    if (isRefusal(error, "busy")) return true
    return this.#hasOwnIndex ? false : isRefusal(error, "index_unavailable", "rebuilding")
  }

  async #waitForOthers(): Promise<void> {
    this.#count("told to come again")
    await new Promise((resolve) => setTimeout(resolve, busyPauseMs))
  }

  // What senders do

  #newSending(draws: Draws): Sending {
    const twin = draws.chance(0.08)
      ? this.#sendings.findLast(({ twinOf, receipts }) => twinOf === undefined && receipts)
      : undefined
    const to = this.#inboxes
      .map(({ owner }) => ({ owner, at: draws.u32() }))
      .toSorted((a, b) => a.at - b.at)
      .slice(0, draws.pick([1, 1, 1, 2, 3]))
      .map(({ owner }) => owner)
    const bodyLength = draws.pick([16_384, 16_384, 40_000, 131_072, 131_073, 700_000, 1_300_000])
    const delivery = twin?.delivery ?? makeDelivery(to, { bodyLength })
    const wholeBytes = delivery.body.length
    return {
      delivery,
      leaves: leavesOf(delivery.body),
      deleteCap: random(32),
      idempotencyKey: toHex(random(16)),
      firstReserve: draws.chance(0.3) ? Math.ceil(wholeBytes / 2) : wholeBytes,
      twinOf: twin,
      access: undefined,
      reservedBytes: 0,
      storedParts: new Set(),
      finish: "no",
      gaveUp: "no",
      revoked: "no",
      taken: new Map(),
      receipts: undefined,
      wasRead: false,
    }
  }

  async #send(caller: Caller, sender: Sender): Promise<void> {
    const { draws } = sender
    if (sender.current === undefined) {
      sender.current = this.#newSending(draws)
      this.#sendings.push(sender.current)
    }
    const sending = sender.current
    const access = await this.#start(caller, sending, draws)
    const goesOn =
      sending.gaveUp === "no" &&
      (sending.finish !== "no" || !draws.chance(0.06)) &&
      (await this.#upload(caller, sending, access, draws))
    if (!goesOn) {
      await this.#giveUp(caller, sending, access)
      sender.current = undefined
      return
    }
    await this.#finish(caller, sending, access, draws)
    sender.current = undefined
    if (sending.twinOf !== undefined) return
    if (draws.chance(0.2)) await this.#finish(caller, sending, access, draws)
    if (draws.chance(0.15)) {
      sending.revoked = "asked"
      this.#phase("revoke")
      await caller.revoke(access.id, sending.deleteCap)
      sending.revoked = "done"
      this.#count("revocations")
    }
    if (draws.chance(0.2)) await this.#checkStatus(caller, sending)
  }

  async #start(caller: Caller, sending: Sending, draws: Draws): Promise<UploadAccess> {
    if (sending.access !== undefined && !draws.chance(0.2)) return sending.access
    const { delivery, idempotencyKey, deleteCap, firstReserve: reserveBytes } = sending
    const recipientsOf = delivery.recipients
    this.#phase("start")
    try {
      const started = await caller.start({
        idempotencyKey,
        deleteCap,
        recipients: recipientsOf,
        reserveBytes,
      })
      const { id, token } = started
      const known = sending.access
      if (known && (known.id !== id || !equalBytes(known.token, token))) {
        broken("a start that was repeated gave another upload")
      }
      sending.access = { id, token }
      sending.reservedBytes = Math.max(sending.reservedBytes, started.reservedBytes)
      this.#count("starts")
      return sending.access
    } catch (error) {
      // After it was given up the id stays used.
      if (sending.access !== undefined && sending.gaveUp !== "no" && error instanceof RelayRefusal)
        return sending.access
      throw error
    }
  }

  /** False when the relay knows the upload no longer, as it must not unless it was given up. */
  async #upload(
    caller: Caller,
    sending: Sending,
    access: UploadAccess,
    draws: Draws,
  ): Promise<boolean> {
    const state = await caller.state(access)
    checkState(sending, state)
    if (state.state === "final") return true
    const { delivery, leaves } = sending
    const { body } = delivery
    if (sending.reservedBytes < body.length) {
      this.#phase("extend")
      sending.reservedBytes = (await caller.extend(access, body.length)).reservedBytes
      this.#count("extensions")
    }
    const there = new Set(state.runs.flatMap((run) => indexesOf(run)))
    const missing = leaves.map((_, at) => at).filter((at) => !there.has(at))
    if (missing.length > 0 && draws.chance(0.1)) {
      await this.#finishTooEarly(caller, sending, access, missing)
    }
    for (let at = 0; at < missing.length;) {
      const first = missing[at] ?? 0
      let count = 1
      const most = draws.between(1, 4)
      while (count < most && missing[at + count] === first + count) count += 1
      at += count
      const parts = Array.from({ length: count }, (_, more) => partOf(body, first + more))
      const bytes = concatBytes(...parts)
      const wanted = concatBytes(...leaves.slice(first, first + count))
      const times = draws.chance(0.15) ? 3 : 1
      this.#phase("part")
      const puts = Array.from({ length: times }, () => caller.putParts(access, first, bytes))
      for (const put of await Promise.allSettled(puts)) {
        if (put.status === "rejected") throw put.reason
        if (!equalBytes(put.value, wanted)) broken("a part was stored under another leaf")
      }
      for (let more = 0; more < count; more++) sending.storedParts.add(first + more)
      this.#count("parts", count)
      if (draws.chance(0.1)) await this.#putDifferent(caller, access, first, parts[0])
    }
    return true
  }

  async #putDifferent(
    caller: Caller,
    access: UploadAccess,
    first: number,
    part: Uint8Array | undefined,
  ): Promise<void> {
    const bytes = new Uint8Array(part ?? [])
    bytes[0] = (bytes[0] ?? 0) ^ 1
    await refused(caller.putParts(access, first, bytes), "part_differs")
    this.#count("refused parts")
  }

  async #finishTooEarly(
    caller: Caller,
    { delivery }: Sending,
    access: UploadAccess,
    missing: readonly number[],
  ): Promise<void> {
    const refusal = await refused(caller.finish(access, delivery.finish), "parts_missing")
    if (String(refusal.extras.missing) !== String(missing)) {
      broken(`missing are ${String(missing)}, said to be ${String(refusal.extras.missing)}`)
    }
  }

  async #finish(
    caller: Caller,
    sending: Sending,
    access: UploadAccess,
    draws: Draws,
  ): Promise<void> {
    const { finish } = sending.delivery
    if (sending.finish === "no") sending.finish = "asked"
    const times = draws.chance(0.15) ? 2 : 1
    this.#phase("finish")
    const attempts = await Promise.allSettled(
      Array.from({ length: times }, () => caller.finish(access, finish)),
    )
    for (const attempt of attempts) {
      if (attempt.status === "fulfilled") this.#keepReceipts(caller, sending, attempt.value)
    }
    for (const attempt of attempts) {
      if (attempt.status === "fulfilled") continue
      // One of two at once may be told that the other is at work.
      const isOneEnough = isRefusal(attempt.reason, "busy") && sending.finish === "done"
      if (!isOneEnough) throw attempt.reason
    }
  }

  #keepReceipts(caller: Caller, sending: Sending, { id, receipts }: FinishReply): void {
    const { delivery, access, twinOf } = sending
    if (id !== access?.id) broken("a finish was answered for another upload")
    const given = new Map(receipts.map(({ address, receipt }) => [address, receipt]))
    for (const [at, { bundle }] of delivery.recipients.entries()) {
      const bytes = given.get(bundle.address)
      if (bytes === undefined) broken("a recipient without a receipt")
      if (!verifyReceipt(bytes, caller.relay.info.signingKey)) broken("a receipt is not signed")
      const receipt = parseReceipt(bytes)
      const isRight =
        equalBytes(receipt.inboxId, bundle.inboxId) &&
        equalBytes(receipt.headerHash, headerHash(delivery.header)) &&
        equalBytes(receipt.envelopeHash, envelopeHash(delivery.envelopes[at] ?? new Uint8Array()))
      if (!isRight) broken("a receipt names something else")
      const known = (twinOf ?? sending).receipts?.get(bundle.address)
      if (known !== undefined && !equalBytes(known, bytes)) {
        broken("finishing again gave another receipt")
      }
    }
    if (sending.receipts === undefined) this.#count("receipts", given.size)
    sending.receipts ??= given
    sending.finish = "done"
  }

  async #giveUp(caller: Caller, sending: Sending, access: UploadAccess): Promise<void> {
    const wasAsked = sending.gaveUp !== "no"
    sending.gaveUp = "asked"
    this.#phase("give up")
    try {
      await caller.giveUp(access)
    } catch (error) {
      // The first try went through, and its answer did not.
      if (!wasAsked || !isRefusal(error, "unauthorized")) throw error
    }
    sending.gaveUp = "done"
    this.#count("uploads given up")
  }

  async #checkStatus(caller: Caller, sending: Sending): Promise<void> {
    const { access, deleteCap, revoked, taken } = sending
    if (access === undefined) return
    const isRevoked = revoked === "done"
    const wasTaken = new Map(taken)
    const status = await caller.status(access.id, deleteCap)
    for (const { address, state } of status.recipients) {
      const mayBeTaken = (taken.get(address) ?? "no") !== "no"
      const mayBeRevoked = sending.revoked !== "no"
      const isGone = isRevoked || wasTaken.get(address) === "done"
      const isPossible =
        (state === "waiting" && !isGone) ||
        (state === "taken" && mayBeTaken) ||
        (state === "revoked" && mayBeRevoked)
      if (!isPossible) broken(`a status says ${state}`)
    }
  }

  // What recipients do

  async #receive(caller: Caller, draws: Draws, over: AbortSignal): Promise<void> {
    const inbox = draws.pick(this.#inboxes)
    if (draws.chance(0.25)) {
      await this.#poll(caller, inbox, over)
      return
    }
    const waiting = await this.#list(caller, inbox)
    if (waiting.length === 0) return
    const { id } = draws.pick(waiting)
    const sending = this.#sendingOf(id)
    const { address } = inbox.owner.bundle
    const mayBeGone = () =>
      sending.revoked !== "no" || (sending.taken.get(address) ?? "no") !== "no"
    if (draws.chance(0.5)) {
      this.#phase("fetch")
      try {
        await this.#read(caller, inbox.owner, sending)
      } catch (error) {
        if (!isRefusal(error, "not_found") || !mayBeGone()) throw error
      }
      return
    }
    if (sending.taken.get(address) !== "done") sending.taken.set(address, "asked")
    this.#phase("discard")
    await caller.discard(inbox.owner, id)
    sending.taken.set(address, "done")
    this.#count("discards")
  }

  async #poll(caller: Caller, { owner, memory }: Inbox, over: AbortSignal): Promise<void> {
    const after = memory.seq
    const page = await caller.list(owner, { after, waitSeconds: pollSeconds }, over)
    memory.read(page, { after, leastSeq: after })
    this.#count("long polls")
  }

  async #list(caller: Caller, inbox: Inbox): Promise<ReturnType<InboxMemory["read"]>> {
    const { owner, memory } = inbox
    this.#phase("list")
    const waiting: ReturnType<InboxMemory["read"]> = []
    for (let after = 0; ;) {
      const leastSeq = memory.seq
      const page = await caller.list(owner, { after })
      waiting.push(...memory.read(page, { after, leastSeq }))
      after = page.entries.at(-1)?.seq ?? after
      if (!page.more) break
    }
    this.#count("listings")
    return waiting
  }

  #sendingOf(id: string): Sending {
    const sending = this.#sendings.find(({ access }) => access?.id === id)
    return sending ?? broken("a delivery is listed that nobody sent")
  }

  /** Every byte of it, as this recipient gets it. */
  async #read(caller: Caller, owner: Identity, sending: Sending): Promise<void> {
    const { delivery, leaves, access } = sending
    if (access === undefined) throw new RangeError("what was never started cannot be read")
    const { id } = access
    const at = delivery.recipients.indexOf(owner)
    const { header, body, manifest } = delivery
    const envelope = delivery.envelopes[at] ?? new Uint8Array()
    const [gotEnvelope, gotManifest, gotLeaves, gotBody] = await Promise.all([
      caller.envelope(owner, id),
      caller.manifest(owner, id),
      caller.leaves(owner, id),
      caller.body(owner, id, body.length),
    ])
    if (!equalBytes(gotEnvelope, envelope)) broken("an envelope came back changed")
    if (!equalBytes(gotManifest, manifest)) broken("a manifest came back changed")
    if (!equalBytes(gotLeaves, concatBytes(...leaves))) broken("leaves came back changed")
    if (!equalBytes(gotBody, body)) broken("a body came back changed")
    if (header.length === 0) throw new RangeError("a delivery has a header")
    this.#count("deliveries read")
  }

  // The rest

  async #register(caller: Caller): Promise<void> {
    const owner = (this.#registering ??= await identityFromKeys({
      rsaPkcs8: this.#rsaPkcs8,
      authSeed: random(32),
      xwingSeed: undefined,
      signSeed: random(32),
    }))
    this.#phase("register")
    await caller.register(owner)
    this.#registering = undefined
    const { signingKey } = caller.relay.info
    this.#inboxes.push({ owner, memory: new InboxMemory(owner.bundle.inboxId, signingKey) })
    this.#count("registrations")
  }

  async #doOddThings(caller: Caller): Promise<void> {
    const draws = this.#odd
    const { owner } = draws.pick(this.#inboxes)
    if (this.#inboxes.length < mostInboxes && draws.chance(0.02)) await this.#register(caller)
    const token = await caller.login(owner)
    const ids = await caller.sessions(token)
    const own = ids.find(({ current }) => current)
    if (own === undefined) broken("a session does not list itself")
    if (draws.chance(0.5)) {
      this.#phase("close session")
      await caller.endSession(token, own.id)
      this.#endedSessions.push({ token, owner })
      this.#count("sessions ended")
    }
    const { address, bytes } = owner.bundle
    if (!equalBytes(await caller.bundle(address), bytes)) broken("a bundle came back changed")
    await refused(caller.status(toHex(random(16)), random(32)), "not_found")
  }

  // What is checked when the relay is back

  /** While nobody else asks. `whole` reads every byte again; without it what is new, and a few more. */
  async check(caller: Caller, whole: boolean): Promise<void> {
    const draws = this.#checking
    const listed = new Map<string, ReadonlySet<string>>()
    for (const inbox of this.#inboxes) {
      const waiting = await this.#list(caller, inbox)
      for (const { id } of waiting) this.#sendingOf(id)
      inbox.memory.checkCompleteness()
      listed.set(inbox.owner.bundle.address, new Set(waiting.map(({ id }) => id)))
      if (!equalBytes(await caller.bundle(inbox.owner.bundle.address), inbox.owner.bundle.bytes)) {
        broken("a bundle came back changed")
      }
    }
    const looked = new Set(this.#sendings.filter(() => whole || draws.chance(0.05)))
    for (const sending of this.#sendings) {
      if (sending.access === undefined || sending.twinOf !== undefined) continue
      if (sending.finish === "no") await this.#checkOpen(caller, sending, sending.access)
      else await this.#checkFinished(caller, sending, { listed, isLooked: looked.has(sending) })
    }
    for (const { token } of this.#endedSessions.splice(0)) {
      await refused(caller.sessions(token), "unauthorized")
    }
    this.#count("checks")
  }

  async #checkOpen(caller: Caller, sending: Sending, access: UploadAccess): Promise<void> {
    if (sending.gaveUp === "done") {
      await refused(caller.state(access), "unauthorized", "upload_expired")
      return
    }
    try {
      checkState(sending, await caller.state(access))
    } catch (error) {
      if (sending.gaveUp === "no" || !isRefusal(error, "unauthorized", "upload_expired"))
        throw error
    }
  }

  async #checkFinished(
    caller: Caller,
    sending: Sending,
    how: { readonly listed: ReadonlyMap<string, ReadonlySet<string>>; readonly isLooked: boolean },
  ): Promise<void> {
    const { delivery, access, receipts, revoked } = sending
    if (access === undefined) return
    const places = delivery.recipients.map(({ bundle }, at) => {
      const inbox = this.#inboxes.find(({ owner }) => owner.bundle.address === bundle.address)
      const pair = pairFor(delivery.header, delivery.envelopes[at] ?? new Uint8Array())
      return { address: bundle.address, place: inbox?.memory.places.get(pair) }
    })
    const isThere = places.some(({ place }) => place !== undefined)
    if (receipts !== undefined && !isThere) broken("a delivery with a receipt is not in the chain")
    // Asked for, never answered, and not there: it did not happen, and the parts are where they were.
    if (!isThere) {
      const state = await caller.state(access)
      checkState(sending, state)
      if (state.state === "final") broken("an upload is finished and came to no inbox")
      return
    }
    for (const [at, { address, place }] of places.entries()) {
      if (place === undefined) broken("a delivery came to some of its inboxes only")
      const bytes = receipts?.get(address)
      const receipt = bytes && parseReceipt(bytes)
      if (
        receipt &&
        (receipt.acceptedMs !== place.acceptedMs || receipt.expiresMs !== place.expiresMs)
      ) {
        broken("the chain has other times than the receipt")
      }
      const taken = sending.taken.get(address) ?? "no"
      const isWaiting = how.listed.get(address)?.has(access.id) === true
      if (isWaiting) {
        if (place.gone !== undefined) broken(`what was ${place.gone} waits again`)
        if (taken === "done" || revoked === "done") broken("what was discarded waits again")
        const owner = delivery.recipients[at]
        if (owner && (how.isLooked || !sending.wasRead)) await this.#read(caller, owner, sending)
      } else {
        const isExplained =
          (place.gone === "taken" && taken !== "no") ||
          (place.gone === "revoked" && revoked !== "no")
        if (!isExplained) broken(`a delivery is gone, as ${place.gone ?? "nothing"}`)
      }
    }
    const isNew = !sending.wasRead
    sending.wasRead = true
    if (!how.isLooked && !isNew) return
    this.#keepReceipts(caller, sending, await caller.finish(access, delivery.finish))
    await this.#checkStatus(caller, sending)
  }

  #phase(phase: Phase): void {
    this.#onPhase(phase)
  }

  #count(what: string, times: number = 1): void {
    this.counts[what] = (this.counts[what] ?? 0) + times
  }
}

/** Nobody knows what became of it: nobody answered, or what answered cannot tell at the moment. */
export function isCutOff(error: unknown): boolean {
  if (error instanceof RelayUnreachable) return true
  if (error instanceof Error && error.name === "AbortError") return true
  return isRefusal(error, "index_unavailable", "rebuilding")
}

function indexesOf({
  first,
  leaves,
}: {
  readonly first: number
  readonly leaves: Uint8Array
}): number[] {
  return Array.from({ length: leaves.length / 32 }, (_, at) => first + at)
}

/** What the relay says of an upload against what it acknowledged. */
function checkState(sending: Sending, state: Awaited<ReturnType<Caller["state"]>>): void {
  const { leaves, storedParts, finish } = sending
  if (state.state === "final") {
    if (finish === "no") broken("an upload was finished that nobody finished")
    return
  }
  if (finish === "done") broken("an upload with a receipt is open again")
  if (state.reservedBytes < sending.reservedBytes) broken("a reservation became smaller")
  const there = new Set<number>()
  for (const run of state.runs) {
    for (const [more, at] of indexesOf(run).entries()) {
      const leaf = run.leaves.subarray(32 * more, 32 * (more + 1))
      if (!equalBytes(leaf, leaves[at] ?? new Uint8Array())) broken(`part ${at} is another one`)
      there.add(at)
    }
  }
  // Killed with its page cache intact, the machine has every part that was written.
  for (const at of storedParts)
    if (!there.has(at)) broken(`part ${at} was acknowledged and is gone`)
}

/** The relay has to say no, with one of these codes. */
async function refused(
  asked: Promise<unknown>,
  ...codes: readonly RelayRefusal["code"][]
): Promise<RelayRefusal> {
  try {
    await asked
  } catch (error) {
    if (error instanceof RelayRefusal && codes.includes(error.code)) return error
    throw error
  }
  return broken(`the relay did what it should have refused with ${codes.join(" or ")}`)
}

let rsaKey: Promise<Uint8Array> | undefined

/** Making one takes longer than many rounds of the load; the relay sees only what is made from it. */
export function sharedRsaKey(): Promise<Uint8Array> {
  return (rsaKey ??= createIdentity().then(({ rsaPkcs8 }) => rsaPkcs8))
}
