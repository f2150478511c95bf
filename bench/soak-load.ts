/**
 * A steady mixed load on one relay, for as long as it is wanted: what its users do, and what is refused
 * to those who are not its users. It paces itself, so that a relay that slows down is not asked less.
 */
import { setMaxListeners } from "node:events"
import { request } from "node:http"
import {
  concatBytes,
  createIdentity,
  equalBytes,
  gridLength,
  gridOffset,
  type Identity,
  identityFromKeys,
  KIB,
  MIB,
  paddedBodyLength,
  random,
  toHex,
} from "../protocol/index.js"
import { RelayUnreachable } from "../client/errors.js"
import { Caller, isRefusal, type UploadAccess } from "../test/faults/caller.js"
import { Draws } from "../test/fuzz/random.js"
import { leavesOf, makeDelivery, type TestDelivery } from "../test/server/test-delivery.js"

/** Small ones are what there is most of; the largest fills every buffer a sender may have. */
const contentLengths = [
  ...Array.from({ length: 12 }, () => 3 * KIB),
  ...Array.from({ length: 5 }, () => 300 * KIB),
  ...Array.from({ length: 3 }, () => 3 * MIB),
  24 * MIB,
]
const inboxCount = 4
const senderCount = 3
const hangingPolls = 12
const requestBytes = 4 * MIB
const parallelRequests = 3

export class SoakLoad {
  readonly #origin: string
  readonly #caller: Caller
  readonly #draws = new Draws("soak", 1)
  readonly #owners: readonly Identity[]
  readonly #open = new Set<UploadAccess>()
  readonly counts: Record<string, number> = {}
  /** What the relay should not have said. */
  readonly surprises: string[] = []
  #isOver = false
  #running: Promise<unknown> = Promise.resolve()
  readonly #hangUp = new AbortController()
  readonly #revoked = new Set<string>()

  private constructor(origin: string, caller: Caller, owners: readonly Identity[]) {
    setMaxListeners(0, this.#hangUp.signal)
    this.#origin = origin
    this.#caller = caller
    this.#owners = owners
  }

  static async begin(origin: string): Promise<SoakLoad> {
    const caller = await Caller.meet(origin)
    const { rsaPkcs8 } = await createIdentity()
    const owners: Identity[] = []
    for (let at = 0; at < inboxCount; at++) {
      const seeds = { authSeed: random(32), xwingSeed: undefined, signSeed: undefined }
      const owner = await identityFromKeys({ rsaPkcs8, ...seeds })
      await caller.register(owner)
      owners.push(owner)
    }
    const load = new SoakLoad(origin, caller, owners)
    load.#running = load.#run()
    return load
  }

  /** Ends everything that is under way, and takes away all that waits. */
  async end(): Promise<void> {
    this.#isOver = true
    this.#hangUp.abort()
    await this.#running
    for (const access of this.#open) await this.#caller.giveUp(access)
    for (const owner of this.#owners) await this.#caller.closeInbox(owner)
    this.#caller.close()
  }

  async #run(): Promise<void> {
    await Promise.all([
      ...Array.from({ length: senderCount }, () => this.#every(700, () => this.#send())),
      ...this.#owners.map((owner) => this.#pickUp(owner)),
      ...Array.from({ length: hangingPolls }, () => this.#every(1, () => this.#hang())),
      this.#every(1_000, () => this.#logIn()),
      this.#every(200, () => this.#askInVain()),
      this.#every(15_000, () => this.#listAll()),
    ])
  }

  /** Again and again, beginning no more often than this, give or take a half. */
  async #every(ms: number, work: () => Promise<void>): Promise<void> {
    while (!this.#isOver) {
      const dueMs = performance.now() + ms * (0.5 + this.#draws.below(1000) / 1000)
      await this.#try(work)
      while (!this.#isOver && performance.now() < dueMs) {
        await pause(Math.min(100, dueMs - performance.now()))
      }
    }
  }

  async #try(work: () => Promise<void>): Promise<void> {
    try {
      await work()
    } catch (error) {
      if (this.#isOver && error instanceof Error && error.name === "AbortError") return
      if (this.surprises.length < 20) {
        this.surprises.push(error instanceof Error ? (error.stack ?? error.message) : String(error))
      }
      // A relay that is gone would be asked without end.
      if (error instanceof RelayUnreachable) await pause(1_000)
    }
  }

  async #send(): Promise<void> {
    const draws = this.#draws
    const first = draws.pick(this.#owners)
    const others = this.#owners.filter((owner) => owner !== first && draws.chance(0.15))
    const bodyLength = paddedBodyLength(draws.pick(contentLengths))
    const delivery = makeDelivery([first, ...others], { bodyLength })
    const deleteCap = random(32)
    const access = await this.#caller.start({
      idempotencyKey: toHex(random(16)),
      recipients: delivery.recipients,
      reserveBytes: Math.ceil(bodyLength / 2),
      deleteCap,
    })
    this.#open.add(access)
    await this.#caller.extend(access, bodyLength)
    const isCutOff = draws.chance(0.08)
    if (isCutOff) await this.#cutOff(access, delivery)
    if (isCutOff && draws.chance(0.5)) {
      await this.#caller.giveUp(access)
      this.#open.delete(access)
      this.#count("uploads given up")
      return
    }
    await this.#putBody(access, delivery)
    const times = draws.chance(0.05) ? 2 : 1
    for (let at = 0; at < times; at++) await this.#caller.finish(access, delivery.finish)
    this.#open.delete(access)
    this.#count("deliveries", delivery.recipients.length)
    this.#count("MiB sent", bodyLength / MIB)
    if (draws.chance(0.05)) {
      this.#revoked.add(access.id)
      await this.#caller.revoke(access.id, deleteCap)
      this.#count("revocations")
    } else await this.#caller.status(access.id, deleteCap)
  }

  async #putBody(access: UploadAccess, { body }: TestDelivery): Promise<void> {
    const requests = requestsOf(body)
    await Promise.all(
      Array.from({ length: parallelRequests }, async () => {
        for (let next = requests.shift(); next !== undefined; next = requests.shift()) {
          await this.#caller.putParts(access, next.first, next.bytes)
        }
      }),
    )
  }

  /** A sender that vanishes in the middle of a body. */
  async #cutOff({ id, token }: UploadAccess, { body }: TestDelivery): Promise<void> {
    const [part] = requestsOf(body)
    if (part === undefined) return
    const asked = request(`${this.#origin}/v1/uploads/${id}/parts/0`, {
      method: "PUT",
      headers: {
        authorization: `Bearer ${Buffer.from(token).toString("base64url")}`,
        "content-type": "application/octet-stream",
        "content-length": part.bytes.length,
      },
    })
    await new Promise<void>((resolve) => {
      asked.on("error", () => resolve())
      asked.on("close", () => resolve())
      asked.write(part.bytes.subarray(0, part.bytes.length / 2), () => asked.destroy())
    })
    this.#count("bodies cut off")
  }

  /** One recipient's client: waits for news, fetches most of it, takes away most of that. */
  async #pickUp(owner: Identity): Promise<void> {
    let after = 0
    while (!this.#isOver) {
      await this.#try(async () => {
        const query = { after, waitSeconds: 5 }
        const page = await this.#caller.list(owner, query, this.#hangUp.signal)
        this.#count("long polls")
        for (const entry of page.entries) {
          after = entry.seq
          if (entry.kind === "gone" || this.#draws.chance(0.25)) continue
          await this.#fetch(owner, entry.id)
          if (this.#draws.chance(0.9)) await this.#caller.discard(owner, entry.id)
          this.#count("picked up")
        }
      })
    }
  }

  async #fetch(owner: Identity, id: string): Promise<void> {
    try {
      await this.#caller.envelope(owner, id)
      await this.#caller.manifest(owner, id)
      const leaves = await this.#caller.leaves(owner, id)
      const body = await this.#caller.body(owner, id, 64 * MIB)
      if (!equalBytes(concatBytes(...leavesOf(body)), leaves)) throw new Error("a body was changed")
    } catch (error) {
      // Expired; or revoked, which may also end an answer in its middle.
      const isEnded = this.#revoked.has(id) && error instanceof RelayUnreachable
      if (!isEnded && !isRefusal(error, "not_found", "expired")) throw error
    }
  }

  /** Somebody who waits for what does not come, and hangs up at some time. */
  async #hang(): Promise<void> {
    const owner = this.#draws.pick(this.#owners)
    const bored = new AbortController()
    const hangUp = (): void => bored.abort()
    this.#hangUp.signal.addEventListener("abort", hangUp)
    const timer = setTimeout(hangUp, this.#draws.below(20_000))
    try {
      const query = { after: Number.MAX_SAFE_INTEGER, waitSeconds: 30 }
      await this.#caller.list(owner, query, bored.signal)
    } catch (error) {
      if (!bored.signal.aborted) throw error
      this.#count("hung up")
    } finally {
      clearTimeout(timer)
      this.#hangUp.signal.removeEventListener("abort", hangUp)
    }
  }

  async #logIn(): Promise<void> {
    const token = await this.#caller.login(this.#draws.pick(this.#owners))
    const sessions = await this.#caller.sessions(token)
    const own = sessions.find(({ current }) => current)
    if (own === undefined) throw new Error("a session does not list itself")
    if (this.#draws.chance(0.8)) await this.#caller.endSession(token, own.id)
    this.#count("logins")
  }

  async #listAll(): Promise<void> {
    for (const owner of this.#owners) {
      for (let after = 0; ;) {
        const page = await this.#caller.list(owner, { after, envelopes: true })
        after = page.entries.at(-1)?.seq ?? after
        if (!page.more) break
      }
    }
    this.#count("whole listings")
  }

  /** Everything here is refused, each time in the same way. */
  async #askInVain(): Promise<void> {
    const stranger = { id: toHex(random(16)), token: random(32) }
    const address = this.#owners[0]?.bundle.address ?? ""
    const attempts: (() => Promise<number | undefined>)[] = [
      () => statusOf(this.#caller.putParts(stranger, 0, random(16 * KIB))),
      () => statusOf(this.#caller.finish(stranger, random(9000))),
      () => statusOf(this.#caller.state(stranger)),
      () => statusOf(this.#caller.status(stranger.id, stranger.token)),
      () => statusOf(this.#caller.sessions(stranger.token)),
      () => this.#raw("POST", "/v1/uploads", "{"),
      () => this.#raw("POST", "/v1/sessions", `{"address":"${address}"}`),
      () => this.#raw("PUT", `/v1/inboxes/${address}`, "[]"),
      () => this.#raw("GET", `/v1/${stranger.id}`),
      () => this.#raw("DELETE", "/v1/relay"),
      () => this.#raw("GET", "/v1/inbox?after=x"),
    ]
    const status = await this.#draws.pick(attempts)()
    if (status === undefined || status < 400 || status >= 500) {
      throw new Error(`what has to be refused was answered with ${status}`)
    }
    this.#count("refusals")
  }

  async #raw(method: string, path: string, body?: string): Promise<number> {
    const headers = { "content-type": "application/json" }
    const answer = await fetch(this.#origin + path, { method, headers, ...(body && { body }) })
    await answer.arrayBuffer()
    return answer.status
  }

  #count(what: string, times: number = 1): void {
    this.counts[what] = (this.counts[what] ?? 0) + times
  }
}

/** A body in requests of several whole parts. */
function requestsOf(body: Uint8Array): { readonly first: number; readonly bytes: Uint8Array }[] {
  const requests: { readonly first: number; readonly bytes: Uint8Array }[] = []
  for (let first = 0, start = 0; start < body.length;) {
    let next = first
    let end = start
    while (end < body.length && end + gridLength(next, body.length) - start <= requestBytes) {
      end += gridLength(next, body.length)
      next += 1
    }
    requests.push({ first, bytes: body.subarray(start, end) })
    first = next
    start = gridOffset(next)
  }
  return requests
}

async function statusOf(asked: Promise<unknown>): Promise<number | undefined> {
  try {
    await asked
    return undefined
  } catch (error) {
    if (error instanceof Error && "status" in error && typeof error.status === "number") {
      return error.status
    }
    throw error
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
