// What people and their operator do with a relay: each deed asks the relay, knows from the model what may
// be answered, and tells the model what came of it.
import {
  bodyRoot,
  encodeBearer,
  encodeExtend,
  encodeFinish,
  encodeHeader,
  gridCount,
  gridOffset,
  parseExtendReply,
  parseFinishReply,
  parseHeader,
  parseReceipt,
  parseStartUploadReply,
  parseStatusReply,
  parseUploadState,
  sha256,
  toHex,
} from "../../protocol/index.js"
import type supertest from "supertest"
import { makeDelivery, partOf } from "../server/test-delivery.js"
import { checkUpload, login, sessionFor, type Testimony, used } from "./checks.js"
import { among, same, sameBytes } from "./disagreement.js"
import type { Answer, Model, Upload } from "./model.js"
import type { World } from "./world.js"

export interface Scene {
  readonly model: Model
  readonly world: World
  readonly testimony: Testimony
  readonly tally: Tally
}

/** How much was looked at. */
export interface Tally {
  runs: number
  commands: number
  deaths: number
}

/** One deed, of somebody certain to something certain. */
export interface Deed {
  readonly says: string
  /** What may be answered, as things stand. */
  readonly allowed: readonly Answer[]
  ask(): Promise<supertest.Response>
  /** What an "ok" means, and that it says what it should. */
  done(reply: supertest.Response): void
  /** After no answer came: the model learns what became of it. Left out where it is asked for again. */
  learn?(): Promise<void>
}

/** Numbers out of which a deed finds whom and what it is about. */
export type Picks = readonly [number, number, number]

/** Undefined when there is nothing to do it to. */
export type MakeDeed = (scene: Scene, picks: Picks) => Deed | undefined | Promise<Deed | undefined>

const bodyLengths = [0, 1, 16_384, 131_072, 131_073, 300_000, 393_221]
const manifestLengths = [4112, 40_000]
const hourMs = 3_600_000

/** Its body, its reservation and its recipients are as the picks say. */
function newUpload({ model, world, testimony }: Scene, [a, b, c]: Picks): Upload {
  const everybody = [...model.inboxes.keys()]
  const some = everybody.filter((_, at) => ((b >> at) & 1) === 1)
  const recipients = some.length > 0 ? some : everybody.slice(0, 1)
  const bodyLength = pick(bodyLengths, a)
  const notAfterMs = pick([0, 0, model.nowMs + hourMs / 2, model.nowMs + 60 * 24 * hourMs], c)
  const delivery = makeDelivery(
    recipients.map((person) => testimony.identity(person)),
    { bodyLength, manifestLength: pick(manifestLengths, b), notAfterMs, draw: world.random },
  )
  const { manifest, envelopes } = delivery
  const header = encodeHeader({
    ...parseHeader(delivery.header),
    bodyRoot: bodyRoot({
      bodyLength,
      leaves: Array.from({ length: gridCount(bodyLength) }, () => world.random(32)),
    }),
    deliveryId: world.random(16),
  })
  return {
    key: toHex(world.random(16)),
    cap: world.random(32),
    askedBytes: pick([bodyLength, 600_000, 140_000, bodyLength, 600_001], c >> 2),
    recipients,
    delivery,
    notAfterMs,
    wrongRoot: encodeFinish({ header, manifest, envelopes }),
    wrongManifest: encodeFinish({
      header: delivery.header,
      manifest: world.random(manifest.length),
      envelopes,
    }),
    id: "",
    token: new Uint8Array(0),
    state: "new",
    overUntilMs: 0,
    reservedBytes: 0,
    heldMost: 0,
    createdMs: 0,
    expiresMs: 0,
    parts: new Map(),
    receipts: [],
    acceptedMs: 0,
    leasedUntilMs: 0,
    isUnsure: false,
  }
}

function startOf(scene: Scene, upload: Upload, askedBytes: number): Deed {
  const { model, world, testimony } = scene
  return {
    says: `start ${name(scene, upload)} for ${upload.recipients.join(" and ")}, ${askedBytes} bytes`,
    allowed: model.start(upload, askedBytes),
    ask: async () =>
      world.client.postUpload(
        upload.recipients.map((person) => testimony.identity(person)),
        { reserveBytes: askedBytes, idempotencyKey: upload.key, deleteCap: upload.cap },
      ),
    done(reply) {
      const { id, token, reservedBytes } = parseStartUploadReply(reply.body)
      if (upload.id === "") Object.assign(upload, { id, token })
      same([id, toHex(token)], [upload.id, toHex(upload.token)], "the upload once more")
      model.started(upload, askedBytes)
      if (upload.state === "open") same(reservedBytes, upload.reservedBytes, "what is reserved")
    },
  }
}

const start: MakeDeed = (scene, picks) => {
  if (scene.model.inboxes.size === 0) return undefined
  const upload = newUpload(scene, picks)
  return startOf(scene, upload, upload.askedBytes)
}

/** Asks for so much of one inbox, and means to send nothing. */
export function reserving(scene: Scene, person: number, bytes: number): Deed {
  const upload = { ...newUpload(scene, [0, 0, 0]), recipients: [person] }
  return startOf(scene, upload, bytes)
}

const startAgain: MakeDeed = (scene, [a, b]) => {
  const known = scene.model.uploads.filter(({ state }) => state !== "forgotten")
  const upload = choose(known, a)
  return upload && startOf(scene, upload, upload.askedBytes + (b % 3 === 0 ? 1 : 0))
}

const extend: MakeDeed = ({ model, world }, [a, b]) => {
  const upload = choose(model.uploads, a)
  if (upload === undefined) return undefined
  const bytes = pick([upload.delivery.body.length, 0, 500_000, 600_000, 600_001], b)
  return {
    says: `extend ${upload.id.slice(0, 4)} to ${bytes} bytes`,
    allowed: model.extend(upload, bytes),
    ask: async () =>
      world.client.http
        .post(`/v1/uploads/${upload.id}/extend`)
        .set("Authorization", encodeBearer(upload.token))
        .send(encodeExtend({ reserveBytes: bytes })),
    done(reply) {
      model.extended(upload, bytes)
      const { reservedBytes, expiresMs } = upload
      same(parseExtendReply(reply.body), { reservedBytes, expiresMs }, "what was granted")
    },
  }
}

/** The right part in its place, mostly; else another one, a short one, or one beyond the body. */
const part: MakeDeed = (scene, [a, b, c]) => {
  const upload = choose(openFirst(scene.model), a)
  return upload && partOfUpload(scene, upload, b, c)
}

function partOfUpload({ model, world }: Scene, upload: Upload, b: number, c: number): Deed {
  const { body } = upload.delivery
  const count = Math.max(1, gridCount(body.length))
  const missing = Array.from({ length: count }, (_, index) => index).filter(
    (index) => !upload.parts.has(index),
  )
  const kind = pick(["next", "next", "next", "any", "any", "other", "short", "beyond"] as const, c)
  const index =
    kind === "beyond"
      ? count
      : kind === "next"
        ? (missing[b % count] ?? missing[0] ?? 0)
        : b % count
  const right = index < count ? partOf(body, index) : new Uint8Array(10)
  const bytes =
    kind === "other"
      ? world.random(Math.max(1, right.length))
      : kind === "short"
        ? world.random(Math.max(1, right.length - 1))
        : right
  return {
    says: `part ${index} of ${upload.id.slice(0, 4)}, ${kind}, ${bytes.length} bytes`,
    allowed: model.part(upload, index, bytes),
    ask: async () => world.client.putPart(upload, index, bytes),
    done() {
      upload.parts.set(index, new Uint8Array(bytes))
    },
  }
}

/** The whole body in one request, where none of it is there yet. */
const putAll: MakeDeed = (scene, [a]) => {
  const upload = choose(openFirst(scene.model), a)
  return upload && bodyOfUpload(scene, upload)
}

function bodyOfUpload({ model, world }: Scene, upload: Upload): Deed | undefined {
  if (upload.state !== "open") return undefined
  const { body } = upload.delivery
  const first = 0
  const whole = body.subarray(0, gridOffset(first) + 512 * 1024)
  const indexes = Array.from({ length: gridCount(body.length) }, (_, index) => index)
  if (indexes.length < 2 || [...upload.parts.keys()].length > 0) return undefined
  const answers = indexes.map((index) => model.part(upload, index, partOf(body, index)))
  const refusal = answers.flat().find((answer) => answer !== "ok")
  return {
    says: `all ${indexes.length} parts of ${upload.id.slice(0, 4)} in one request`,
    allowed: [refusal ?? "ok"],
    ask: async () => world.client.putPart(upload, first, whole),
    done() {
      for (const index of indexes) upload.parts.set(index, partOf(body, index))
    },
  }
}

/** What a finish still needs, of an upload of which nothing has arrived. */
export function sendBody(scene: Scene, upload: Upload): Deed | undefined {
  if (upload.delivery.body.length === 0) return undefined
  return bodyOfUpload(scene, upload) ?? partOfUpload(scene, upload, 0, 0)
}

const finish: MakeDeed = ({ model, world, testimony }, [a, b]) => {
  const upload = choose(model.uploads, a)
  if (upload === undefined) return undefined
  const drawn = pick(["right", "right", "right", "right", "root", "manifest"] as const, b)
  // There is but one root of nothing.
  const what = drawn === "root" && upload.delivery.body.length === 0 ? "right" : drawn
  const body = {
    right: upload.delivery.finish,
    root: upload.wrongRoot,
    manifest: upload.wrongManifest,
  }[what]
  const ask = async (): Promise<supertest.Response> => world.client.postFinish(upload, body)
  const done = (reply: supertest.Response): void => {
    const { id, receipts } = parseFinishReply(reply.body)
    same(id, upload.id, "the id of what was finished")
    const raw = receipts.map(({ receipt }) => receipt)
    const acceptedMs = raw[0] === undefined ? 0 : parseReceipt(raw[0]).acceptedMs
    if (upload.state === "open") {
      same(acceptedMs, model.nowMs, "the time of acceptance")
      testimony.checkAcceptance(acceptedMs)
    }
    model.finished(upload, acceptedMs)
    testimony.checkReceipts(upload, raw)
    upload.receipts = raw
  }
  return {
    says: `finish ${upload.id.slice(0, 4)}, ${what}`,
    allowed: model.finish(upload, what),
    ask,
    done,
    async learn() {
      if (upload.state !== "open") return
      const { body, manifest } = upload.delivery
      upload.heldMost = Math.max(upload.heldMost, body.length + manifest.length)
      const reply = await world.client.get(`/v1/uploads/${upload.id}`, encodeBearer(upload.token))
      if (reply.status !== 200 || parseUploadState(reply.body).state === "open") return
      // It is a delivery: then it is in its inboxes, whether or not its sender comes back for receipts.
      same(what, "right", "what was finished")
      const path = `/v1/deliveries/${upload.id}/status`
      const told = await world.client.get(path, encodeBearer(upload.cap))
      same(told.status, 200, `the status of what was finished (${told.text})`)
      model.finished(upload, parseStatusReply(told.body).acceptedMs)
    },
  }
}

const giveUp: MakeDeed = ({ model, world }, [a]) => {
  const upload = choose(model.uploads, a)
  return (
    upload && {
      says: `give up ${upload.id.slice(0, 4)}`,
      allowed: [model.giveUp(upload)],
      ask: async () => world.client.delete(`/v1/uploads/${upload.id}`, encodeBearer(upload.token)),
      done: () => model.gaveUp(upload),
      // Asked for again by nobody, it may stay half given up until its time is over.
      async learn() {
        const bearer = encodeBearer(upload.token)
        const reply = await world.client.delete(`/v1/uploads/${upload.id}`, bearer)
        among(reply.status, [204, 401, 409, 410], `given up again (${reply.text})`)
        if (upload.state === "open" && (reply.status === 204 || reply.status === 401)) {
          model.gaveUp(upload)
        }
      },
    }
  )
}

const arrived: MakeDeed = (scene, [a]) => {
  const { model, world } = scene
  const upload = choose(model.uploads, a)
  return (
    upload &&
    looking(`ask what has arrived of ${upload.id.slice(0, 4)}`, () =>
      checkUpload(model, world, upload),
    )
  )
}

const discard: MakeDeed = async (scene, [a, b]) => {
  const { model, world, testimony } = scene
  const inbox = choose([...model.inboxes.values()], a)
  if (inbox === undefined) return undefined
  const entry = choose(inbox.entries.slice(inbox.floor), b)
  if (entry === undefined) return undefined
  const session = await sessionFor(model, world, testimony.identity(inbox.person), inbox)
  return {
    says: `discard seq ${entry.seq} of inbox ${inbox.person}`,
    allowed: ["ok"],
    ask: async () =>
      world.client.delete(`/v1/deliveries/${entry.upload.id}`, encodeBearer(session.token)),
    done() {
      used(model, session)
      model.buried(entry, "taken")
    },
    learn() {
      if (entry.gone === undefined) entry.maybe ??= "taken"
      return Promise.resolve()
    },
  }
}

const revoke: MakeDeed = ({ model, world }, [a, b]) => {
  const upload = choose(model.uploads, a)
  if (upload === undefined) return undefined
  const isRight = b % 4 !== 0
  const cap = isRight ? upload.cap : world.random(32)
  return {
    says: `revoke ${upload.id.slice(0, 4)}${isRight ? "" : " with a wrong capability"}`,
    allowed: [isRight && upload.state === "final" ? "ok" : "unauthorized"],
    ask: async () => world.client.delete(`/v1/deliveries/${upload.id}`, encodeBearer(cap)),
    done() {
      for (const entry of model.placesOf(upload)) model.buried(entry, "revoked")
    },
    learn() {
      if (!isRight || upload.state !== "final") return Promise.resolve()
      for (const entry of model.placesOf(upload)) {
        if (entry.gone === undefined) entry.maybe ??= "revoked"
      }
      return Promise.resolve()
    },
  }
}

const status: MakeDeed = (scene, [a]) => {
  const { model, world, testimony } = scene
  const upload = choose(
    model.uploads.filter(({ state }) => state === "final"),
    a,
  )
  return (
    upload &&
    looking(`ask for the status of ${upload.id.slice(0, 4)}`, () =>
      testimony.checkStatus(model, world, upload),
    )
  )
}

const list: MakeDeed = async (scene, [a, b, c]) => {
  const { model, world, testimony } = scene
  const inbox = choose([...model.inboxes.values()], a)
  if (inbox === undefined) return undefined
  const session = await sessionFor(model, world, testimony.identity(inbox.person), inbox)
  const after = b % (inbox.entries.length + 1)
  const query = `?after=${after}&envelopes=${c % 2}`
  return looking(`list inbox ${inbox.person}${query}`, async () => {
    const page = await world.client.list(encodeBearer(session.token), query)
    used(model, session)
    testimony.checkPage(model, inbox, page, after)
  })
}

const fetchAll: MakeDeed = (scene, [a, b]) => {
  const { model, world, testimony } = scene
  const inbox = choose([...model.inboxes.values()], a)
  if (inbox === undefined) return undefined
  const entry = choose(inbox.entries.slice(inbox.floor), b)
  return (
    entry &&
    looking(`fetch seq ${entry.seq} of inbox ${inbox.person}`, () =>
      testimony.checkBytes(model, world, inbox, entry),
    )
  )
}

const fetchRange: MakeDeed = async (scene, [a, b, c]) => {
  const { model, world, testimony } = scene
  const inbox = choose([...model.inboxes.values()], a)
  const entry = inbox && choose(inbox.entries.slice(inbox.floor), b)
  if (inbox === undefined || entry === undefined) return undefined
  const { body } = entry.upload.delivery
  if (body.length === 0) return undefined
  const first = (c * 7919) % body.length
  const last = Math.min(body.length - 1, first + ((c * 104_729) % 200_000))
  const session = await sessionFor(model, world, testimony.identity(inbox.person), inbox)
  return {
    says: `fetch bytes ${first} to ${last} of seq ${entry.seq} of inbox ${inbox.person}`,
    allowed: model.fetch(entry),
    ask: async () =>
      world.client.bytes(
        `/v1/deliveries/${entry.upload.id}/body`,
        encodeBearer(session.token),
        `bytes=${first}-${last}`,
      ),
    done(reply) {
      used(model, session)
      model.fetched(entry)
      same(reply.status, 206, "a range of the body")
      sameBytes(reply.body, body.subarray(first, last + 1), "a range of the body")
    },
  }
}

const sweep: MakeDeed = ({ model, world }) =>
  operators(
    "sweep",
    () => world.relay.sweep(),
    () => model.swept(),
  )

const reconcile: MakeDeed = ({ world }) =>
  operators(
    "reconcile",
    () => world.relay.reconcile(),
    () => undefined,
  )

/** An inbox for the first time, once more, or again after it was closed. */
const register: MakeDeed = async ({ model, world, testimony }, [a]) => {
  const person = a % testimony.people.length
  const identity = testimony.identity(person)
  const isNew = !model.isOpen(person)
  return {
    says: `open inbox ${person}`,
    allowed: ["ok"],
    async ask() {
      await world.client.register(identity)
      return answered(200)
    },
    done() {
      const known = model.inboxes.get(person)
      if (known === undefined) {
        const fresh = {
          person,
          isClosed: false,
          entries: [],
          floor: 0,
          listed: 0,
          listedLeast: 0,
          sessions: [],
        }
        model.inboxes.set(person, fresh)
      } else if (isNew) {
        known.isClosed = false
      }
    },
  }
}

const close: MakeDeed = async ({ model, world, testimony }, [a]) => {
  const inbox = choose([...model.inboxes.values()], a)
  if (inbox === undefined) return undefined
  const { address } = testimony.identity(inbox.person).bundle
  const session = await sessionFor(model, world, testimony.identity(inbox.person), inbox)
  return {
    says: `close inbox ${inbox.person}`,
    allowed: ["ok"],
    ask: async () => world.client.delete(`/v1/inboxes/${address}`, encodeBearer(session.token)),
    done() {
      used(model, session)
      inbox.isClosed = true
      for (const entry of inbox.entries) model.buried(entry, "taken")
    },
    async learn() {
      const reply = await world.client.get(`/v1/inboxes/${address}`)
      inbox.isClosed = reply.status === 404
      for (const entry of inbox.entries) {
        if (entry.gone === undefined) entry.maybe ??= "taken"
      }
    },
  }
}

const bundle: MakeDeed = ({ model, world, testimony }, [a]) => {
  const person = a % testimony.people.length
  const { address, bytes } = testimony.identity(person).bundle
  return {
    says: `ask for the bundle of inbox ${person}`,
    allowed: [model.isOpen(person) ? "ok" : "no_such_inbox"],
    ask: async () => world.client.get(`/v1/inboxes/${address}`).buffer(true),
    done: (reply) => sameBytes(reply.body, bytes, "a bundle"),
  }
}

const logIn: MakeDeed = ({ model, world, testimony }, [a]) => {
  const inbox = choose([...model.inboxes.values()], a)
  return (
    inbox && {
      says: `log in to inbox ${inbox.person}`,
      allowed: ["ok"],
      async ask() {
        await login(model, world, testimony.identity(inbox.person), inbox)
        return answered(200)
      },
      done: () => undefined,
      learn: () => Promise.resolve(),
    }
  )
}

const logOut: MakeDeed = async (scene, [a, b]) => {
  const { model, world, testimony } = scene
  const inbox = choose([...model.inboxes.values()], a)
  const ending = inbox && choose(inbox.sessions, b)
  if (inbox === undefined || ending === undefined) return undefined
  const session = await sessionFor(model, world, testimony.identity(inbox.person), inbox)
  const id = toHex(sha256(ending.token).subarray(0, 16))
  return {
    says: `log out of inbox ${inbox.person}`,
    allowed: ["ok"],
    ask: async () => world.client.delete(`/v1/sessions/${id}`, encodeBearer(session.token)),
    done() {
      used(model, session)
      inbox.sessions = inbox.sessions.filter((one) => one !== ending)
    },
  }
}

/** Any session there ever was is good or not, as the model says. */
const useSession: MakeDeed = ({ model, world }, [a, b]) => {
  const inbox = choose([...model.inboxes.values()], a)
  const session = inbox && choose(inbox.sessions, b)
  if (inbox === undefined || session === undefined) return undefined
  const isGood = model.isLoggedIn(session)
  return {
    says: `use a session of inbox ${inbox.person}`,
    allowed: isGood === undefined ? ["ok", "unauthorized"] : [isGood ? "ok" : "unauthorized"],
    ask: async () => world.client.get("/v1/sessions", encodeBearer(session.token)),
    done: () => used(model, session),
  }
}

/** Waits for news that do not come, until the time is over. */
const poll: MakeDeed = async (scene, [a]) => {
  const { model, world, testimony } = scene
  const inbox = choose([...model.inboxes.values()], a)
  if (inbox === undefined) return undefined
  const session = await sessionFor(model, world, testimony.identity(inbox.person), inbox)
  const after = inbox.entries.length
  return looking(`wait for news of inbox ${inbox.person}`, async () => {
    const before = world.clock.waiting
    const path = `/v1/inbox?after=${after}&wait=5`
    const waiting = world.client.list(encodeBearer(session.token), path.slice("/v1/inbox".length))
    used(model, session)
    while (world.clock.waiting === before) await world.turn()
    await world.advance(5000)
    model.time.look(world.clock.wallMs(), world.clock.monotonicMs())
    testimony.checkPage(model, inbox, await waiting, after)
  })
}

/** Deeds by name, and how often each is done. */
export const deeds: Readonly<Record<string, { readonly make: MakeDeed; readonly weight: number }>> =
  {
    start: { make: start, weight: 6 },
    startAgain: { make: startAgain, weight: 2 },
    extend: { make: extend, weight: 2 },
    part: { make: part, weight: 10 },
    putAll: { make: putAll, weight: 4 },
    finish: { make: finish, weight: 8 },
    giveUp: { make: giveUp, weight: 1 },
    arrived: { make: arrived, weight: 1 },
    discard: { make: discard, weight: 4 },
    revoke: { make: revoke, weight: 2 },
    status: { make: status, weight: 1 },
    list: { make: list, weight: 2 },
    fetchAll: { make: fetchAll, weight: 2 },
    fetchRange: { make: fetchRange, weight: 2 },
    sweep: { make: sweep, weight: 4 },
    reconcile: { make: reconcile, weight: 1 },
    register: { make: register, weight: 2 },
    close: { make: close, weight: 1 },
    bundle: { make: bundle, weight: 1 },
    logIn: { make: logIn, weight: 1 },
    logOut: { make: logOut, weight: 1 },
    useSession: { make: useSession, weight: 1 },
    poll: { make: poll, weight: 1 },
  }

/** A deed that changes nothing, and checks what it sees itself. */
function looking(says: string, look: () => Promise<void>): Deed {
  return {
    says,
    allowed: ["ok"],
    async ask() {
      await look()
      return answered(200)
    },
    done: () => undefined,
    learn: () => Promise.resolve(),
  }
}

function operators(says: string, work: () => Promise<void>, done: () => void): Deed {
  return {
    says,
    allowed: ["ok"],
    async ask() {
      await work()
      return answered(200)
    },
    done,
  }
}

function answered(status: number): supertest.Response {
  return { status, body: {}, text: "" } as supertest.Response
}

/** Those that are open are of more interest. */
function openFirst({ uploads }: Model): Upload[] {
  const open = uploads.filter(({ state }) => state === "open")
  return open.length > 0 ? [...open, ...open, ...uploads] : uploads
}

function name({ model }: Scene, upload: Upload): string {
  const at = model.uploads.indexOf(upload)
  return at === -1 ? "an upload" : upload.id.slice(0, 4)
}

function pick<T>(from: readonly T[], at: number): T {
  // An index below the length is there; the list is never empty.
  return from[at % from.length] as T
}

function choose<T>(from: readonly T[], at: number): T | undefined {
  return from.length === 0 ? undefined : from[at % from.length]
}
