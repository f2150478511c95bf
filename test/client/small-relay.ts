/**
 * A relay in a page, in memory and honest, for tests of the client: it keeps what it is given, signs
 * what it promises, and forgets everything at the end. A test that needs a liar changes what it keeps
 * or what it answers.
 */
import http from "node:http"
import type { AddressInfo } from "node:net"
import {
  type Bundle,
  chainHead,
  ed25519PublicKey,
  emptyChainHead,
  encodeChallenge,
  encodeContentRange,
  encodeHead,
  encodeInboxPage,
  encodePartsReply,
  encodeProblem,
  encodeReceipt,
  encodeRelayInfo,
  encodeSessionReply,
  encodeStamp,
  encodeStartUploadReply,
  encodeStatusReply,
  encodeTombstone,
  encodeUploadState,
  encodeFinishReply,
  equalBytes,
  FormatError,
  type GoneEntry,
  gridCount,
  gridIndex,
  gridLength,
  gridOffset,
  headerHash,
  type Json,
  leafHash,
  makeChallengeNonce,
  MIB,
  parseBundle,
  parseFinish,
  parseHeader,
  parseRange,
  parseRegisterRequest,
  parseSessionRequest,
  parseStartUpload,
  random,
  type RefusalCode,
  RelayRefusal,
  type RefusalOptions,
  envelopeHash,
  sessionMac,
  sha256,
  signMinute,
  toBase64url,
  toHex,
  verifyLogin,
  type WaitingEntry,
  x25519PublicKey,
} from "../../protocol/index.js"

export interface StoredUpload {
  id: string
  token: Uint8Array
  key: string
  recipients: string[]
  deleteHash: Uint8Array
  reservedBytes: number
  parts: Map<number, Uint8Array>
  delivery: StoredDelivery | undefined
}

export interface StoredDelivery {
  header: Uint8Array
  manifest: Uint8Array
  envelopes: Map<string, Uint8Array>
  leaves: Uint8Array
  body: Uint8Array
  acceptedMs: number
  expiresMs: number
  receipts: { address: string; receipt: Uint8Array }[]
}

export interface StoredInbox {
  bundle: Bundle
  entries: (WaitingEntry | GoneEntry)[]
  head: Uint8Array
}

export interface Answer {
  status: number
  headers: Record<string, string>
  body: Uint8Array
}

export interface Asked {
  method: string
  path: string
  headers: http.IncomingHttpHeaders
  body: Uint8Array
}

export class SmallRelay {
  readonly signSeed: Uint8Array = random(32)
  readonly inboxes: Map<string, StoredInbox> = new Map()
  readonly uploads: Map<string, StoredUpload> = new Map()
  /** Everything that was asked, in order. */
  readonly asked: Asked[] = []
  requestBytes: number = MIB
  deliveryBytes: number = 1024 * MIB
  nowMs: () => number = Date.now
  /** Sees each answer before it goes out, and may give another one, or none. */
  change: (asked: Asked, answer: Answer) => Answer | "hang up" | Promise<Answer | "hang up"> = (
    _,
    answer,
  ) => answer
  readonly #sessions = new Map<string, string>()
  readonly #minuteSecret = random(32)
  readonly #nonceKey = random(32)
  readonly #server: http.Server
  #origin = ""

  constructor() {
    this.#server = http.createServer((request, response) => {
      void this.#serve(request, response)
    })
  }

  get origin(): string {
    return this.#origin
  }

  get host(): string {
    return this.#origin.slice("http://".length)
  }

  async start(port: number = 0): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(port, "127.0.0.1", resolve))
    // A TCP server's address is one of host and port.
    this.#origin = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
    return this
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise<void>((resolve) => this.#server.close(() => resolve()))
  }

  addInbox(bundle: Bundle): void {
    this.inboxes.set(bundle.address, { bundle, entries: [], head: emptyChainHead() })
  }

  upload(id: string): StoredUpload {
    return found(this.uploads.get(id))
  }

  delivery(id: string): StoredDelivery {
    return found(this.upload(id).delivery)
  }

  endSessions(): void {
    this.#sessions.clear()
  }

  async #serve(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const pieces: Buffer[] = []
    try {
      // Node's own streams hand out Buffers.
      for await (const piece of request) pieces.push(piece as Buffer)
    } catch {
      return
    }
    const asked = {
      method: request.method ?? "",
      path: request.url ?? "",
      headers: request.headers,
      body: new Uint8Array(Buffer.concat(pieces)),
    }
    this.asked.push(asked)
    const answer = await this.change(asked, this.#answer(asked))
    if (answer === "hang up") {
      response.destroy()
      return
    }
    response.writeHead(answer.status, { ...answer.headers, "content-length": answer.body.length })
    response.end(answer.body)
  }

  #answer(asked: Asked): Answer {
    try {
      return this.#route(asked)
    } catch (error) {
      if (error instanceof RelayRefusal) return refusalAnswer(error)
      if (error instanceof FormatError) {
        return refusalAnswer(new RelayRefusal("bad_request", { detail: error.message }))
      }
      throw error
    }
  }

  #route({ method, path, headers, body }: Asked): Answer {
    const url = new URL(path, "http://relay")
    const [, version, ...names] = url.pathname.split("/")
    const [kind, id = "", what = "", index = ""] = names
    if (version !== "v1") return refuse("not_found")
    const bearer = headers.authorization?.slice("Bearer ".length) ?? ""
    switch (`${method} ${kind}`) {
      case "GET relay":
        return json(200, this.#info())
      case "POST sessions":
        return id === "challenge" ? this.#challenge() : this.#login(body)
      case "PUT inboxes":
        return this.#register(id, body)
      case "GET inboxes": {
        const inbox = this.inboxes.get(id) ?? refuse("no_such_inbox", { extras: { address: id } })
        return bytes(200, inbox.bundle.bytes)
      }
      case "POST uploads":
        if (id === "") return this.#begin(String(headers["idempotency-key"]), body)
        if (what === "extend") return this.#extend(this.#uploadOf(id, bearer), body)
        return this.#finish(this.#uploadOf(id, bearer), body)
      case "GET uploads":
        return this.#state(this.#uploadOf(id, bearer))
      case "PUT uploads":
        return this.#putParts(this.#uploadOf(id, bearer), Number(index), body)
      case "DELETE uploads":
        this.#uploadOf(id, bearer)
        this.uploads.delete(id)
        return bytes(204, new Uint8Array(0))
      case "GET inbox":
        return json(200, this.#page(this.#inboxOf(bearer), url.searchParams))
      case "GET deliveries":
        return what === "status"
          ? this.#status(id, bearer)
          : this.#piece(id, what, this.#inboxOf(bearer), headers.range)
      case "DELETE deliveries":
        return this.#remove(id, bearer)
      default:
        return refuse("not_found")
    }
  }

  #info(): Json {
    return encodeRelayInfo({
      name: "knothole",
      version: "0.1.0",
      protocol: [1],
      timeMs: this.nowMs(),
      origins: [this.#origin],
      signingKey: ed25519PublicKey(this.signSeed),
      kid: 1,
      registration: "open",
      limits: {
        deliveryBytes: this.deliveryBytes,
        requestBytes: this.requestBytes,
        parallelRequests: 4,
        recipients: 32,
        manifestBytes: 64 * MIB + 16,
        inboxBytes: 2 * this.deliveryBytes,
        inboxDeliveries: 1000,
        keepMs: 14 * 86_400_000,
        keepMaxMs: 30 * 86_400_000,
        uploadMs: 86_400_000,
        uploadMaxMs: 3 * 86_400_000,
        longPollSeconds: 30,
        page: 1000,
      },
    })
  }

  #challenge(): Answer {
    const minute = Math.floor(this.nowMs() / 60_000)
    const e = x25519PublicKey(this.#minuteSecret)
    const challenge = {
      e,
      nonce: makeChallengeNonce({ minute, e, key: this.#nonceKey }),
      signature: signMinute({ minute, e, signSeed: this.signSeed }),
      kid: 1,
      expiresMs: (minute + 4) * 60_000,
    }
    return json(200, encodeChallenge(challenge))
  }

  #login(body: Uint8Array): Answer {
    const { address, proof } = parseSessionRequest(parseJson(body))
    const inbox = this.inboxes.get(address)
    const login =
      inbox &&
      verifyLogin({
        proof,
        origin: this.#origin,
        inboxId: inbox.bundle.inboxId,
        authKey: inbox.bundle.authKey,
        minuteSecret: this.#minuteSecret,
      })
    if (!login) return refuse("unauthorized")
    const token = random(32)
    this.#sessions.set(toBase64url(token), address)
    const mac = sessionMac({ ...login, token })
    const expiresMs = this.nowMs() + 900_000
    return json(201, encodeSessionReply({ token, mac, expiresMs, absoluteMs: expiresMs }))
  }

  #register(address: string, body: Uint8Array): Answer {
    const bundle = parseBundle(parseRegisterRequest(parseJson(body)).bundle)
    if (bundle.address !== address) return refuse("bad_request")
    const created = !this.inboxes.has(address)
    if (created) this.addInbox(bundle)
    return json(created ? 201 : 200, { address, created })
  }

  #begin(key: string, body: Uint8Array): Answer {
    const start = parseStartUpload(parseJson(body))
    for (const address of start.recipients) {
      if (!this.inboxes.has(address)) refuse("no_such_inbox", { extras: { address } })
    }
    if (start.reserveBytes > this.deliveryBytes) {
      refuse("too_large", { extras: { limit: this.deliveryBytes } })
    }
    let upload = [...this.uploads.values()].find((one) => one.key === key)
    if (!upload) {
      const id = toHex(random(16))
      upload = {
        id,
        token: random(32),
        key,
        recipients: [...start.recipients],
        deleteHash: start.deleteHash,
        reservedBytes: start.reserveBytes,
        parts: new Map(),
        delivery: undefined,
      }
      this.uploads.set(id, upload)
    }
    const { id, token, reservedBytes } = upload
    const expiresMs = this.nowMs() + 86_400_000
    const { requestBytes } = this
    return json(201, encodeStartUploadReply({ id, token, reservedBytes, requestBytes, expiresMs }))
  }

  #uploadOf(id: string, bearer: string): StoredUpload {
    const upload = this.uploads.get(id)
    if (!upload || toBase64url(upload.token) !== bearer) return refuse("unauthorized")
    return upload
  }

  #extend(upload: StoredUpload, body: Uint8Array): Answer {
    const value = parseJson(body)
    const wanted =
      typeof value === "object" && value !== null && "reserve_bytes" in value
        ? Number(value.reserve_bytes)
        : 0
    if (wanted > this.deliveryBytes) refuse("too_large", { extras: { limit: this.deliveryBytes } })
    upload.reservedBytes = Math.max(upload.reservedBytes, wanted)
    return json(200, {
      reserved_bytes: upload.reservedBytes,
      expires_ms: this.nowMs() + 86_400_000,
    })
  }

  #state({ parts, reservedBytes, delivery }: StoredUpload): Answer {
    const runs = [...parts.keys()]
      .sort((a, b) => a - b)
      .map((first) => ({ first, leaves: leafOf(first, found(parts.get(first))) }))
    const state = delivery ? "final" : "open"
    const expiresMs = this.nowMs() + 86_400_000
    return json(200, encodeUploadState({ state, reservedBytes, expiresMs, runs }))
  }

  #putParts(upload: StoredUpload, first: number, body: Uint8Array): Answer {
    if (body.length > this.requestBytes) refuse("too_large")
    const leaves: Uint8Array[] = []
    for (let at = 0, index = first; at < body.length; index++) {
      const part = body.slice(at, at + gridLength(index))
      if (gridOffset(index) + part.length > upload.reservedBytes) refuse("too_large")
      const known = upload.parts.get(index)
      if (known && !equalBytes(known, part)) refuse("part_differs")
      upload.parts.set(index, part)
      leaves.push(leafOf(index, part))
      at += part.length
    }
    return json(200, encodePartsReply({ leaves: new Uint8Array(Buffer.concat(leaves)) }))
  }

  #finish(upload: StoredUpload, body: Uint8Array): Answer {
    const finish = parseFinish(body)
    const reply = (delivery: StoredDelivery) =>
      json(200, encodeFinishReply({ id: upload.id, receipts: delivery.receipts }))
    if (upload.delivery) {
      if (!equalBytes(upload.delivery.header, finish.header)) refuse("upload_finished")
      return reply(upload.delivery)
    }
    const header = parseHeader(finish.header)
    const missing: number[] = []
    for (let part = 0; part < gridCount(header.bodyLength); part++) {
      const length = gridLength(part, header.bodyLength)
      if (upload.parts.get(part)?.length !== length) missing.push(part)
    }
    if (missing.length > 0) refuse("parts_missing", { extras: { missing } })
    const parts = Array.from({ length: header.partCount }, (_, part) =>
      found(upload.parts.get(part)),
    )
    const delivery: StoredDelivery = {
      header: finish.header.slice(),
      manifest: finish.manifest.slice(),
      envelopes: new Map(
        upload.recipients.map((address, at) => [address, found(finish.envelopes[at]).slice()]),
      ),
      leaves: new Uint8Array(Buffer.concat(parts.map((part, index) => leafOf(index, part)))),
      body: new Uint8Array(Buffer.concat(parts)),
      acceptedMs: this.nowMs(),
      expiresMs: this.nowMs() + 14 * 86_400_000,
      receipts: [],
    }
    upload.delivery = delivery
    for (const [address, envelope] of delivery.envelopes) {
      this.publish(address, upload.id, delivery, envelope)
    }
    return reply(delivery)
  }

  publish(address: string, id: string, delivery: StoredDelivery, envelope: Uint8Array): void {
    const inbox = found(this.inboxes.get(address))
    const seq = inbox.entries.length + 1
    const { inboxId } = inbox.bundle
    const { acceptedMs, expiresMs, header } = delivery
    const record = {
      headerHash: headerHash(header),
      envelopeHash: envelopeHash(envelope),
      acceptedMs,
      expiresMs,
    }
    const head = chainHead({ ...record, previous: inbox.head, seq })
    inbox.head = head
    const source = { lane: 0, lineage: new Uint8Array(16), sourcePseudonym: new Uint8Array(16) }
    const keys = { kFrank: new Uint8Array(32), kSrc: new Uint8Array(32) }
    const stamp = encodeStamp({ ...record, kid: 1, inboxId, seq, head, source, ...keys })
    inbox.entries.push({ kind: "waiting", seq, id, stamp, header, envelope })
    const receipt = encodeReceipt({ ...record, kid: 1, inboxId, signSeed: this.signSeed })
    delivery.receipts.push({ address, receipt })
  }

  #inboxOf(bearer: string): StoredInbox {
    return this.inboxes.get(this.#sessions.get(bearer) ?? "") ?? refuse("unauthorized")
  }

  signedHead(inbox: StoredInbox): Uint8Array {
    return encodeHead({
      kid: 1,
      inboxId: inbox.bundle.inboxId,
      asOfMs: this.nowMs(),
      seq: inbox.entries.length,
      head: inbox.head,
      floorSeq: 0,
      signSeed: this.signSeed,
    })
  }

  #page(inbox: StoredInbox, query: URLSearchParams): Json {
    const after = Number(query.get("after"))
    const limit = Number(query.get("limit"))
    const later = inbox.entries.filter(({ seq }) => seq > after)
    const entries = later.slice(0, limit).map((entry) => {
      if (entry.kind === "gone" || query.get("envelopes") === "1") return entry
      const { envelope: _, ...rest } = entry
      return rest
    })
    return encodeInboxPage({
      head: this.signedHead(inbox),
      floor: { seq: 0, head: emptyChainHead() },
      entries,
      more: later.length > limit,
      used: { bytes: 0, deliveries: inbox.entries.length },
      newAfter: 0,
    })
  }

  #piece(id: string, what: string, inbox: StoredInbox, range: string | undefined): Answer {
    const { address } = inbox.bundle
    const waits = inbox.entries.some((entry) => entry.kind === "waiting" && entry.id === id)
    const delivery = this.uploads.get(id)?.delivery
    if (!waits || !delivery) return refuse("not_found")
    switch (what) {
      case "header":
        return bytes(200, delivery.header)
      case "envelope":
        return bytes(200, found(delivery.envelopes.get(address)))
      case "manifest":
        return bytes(200, delivery.manifest)
      case "leaves":
        return bytes(200, delivery.leaves)
      case "body": {
        const size = parseHeader(delivery.header).bodyLength
        const wanted = parseRange(range ?? "", size)
        const piece = delivery.body.subarray(wanted.first, wanted.last + 1)
        return { ...bytes(206, piece), headers: rangeHeaders(encodeContentRange(wanted, size)) }
      }
      default:
        return refuse("not_found")
    }
  }

  #status(id: string, bearer: string): Answer {
    const upload = this.#sentBy(id, bearer)
    const { acceptedMs, expiresMs } = found(upload.delivery)
    const recipients = upload.recipients.map((address) => {
      const entries = this.inboxes.get(address)?.entries ?? []
      const waits = entries.some((entry) => entry.kind === "waiting" && entry.id === id)
      return { address, state: waits ? ("waiting" as const) : ("taken" as const) }
    })
    return json(200, encodeStatusReply({ id, acceptedMs, expiresMs, recipients }))
  }

  #sentBy(id: string, bearer: string): StoredUpload {
    const upload = this.uploads.get(id)
    const capability = Buffer.from(bearer, "base64url")
    if (!upload?.delivery || !equalBytes(sha256(capability), upload.deleteHash)) {
      return refuse("not_found")
    }
    return upload
  }

  #remove(id: string, bearer: string): Answer {
    const owner = this.#sessions.get(bearer)
    const addresses = owner === undefined ? this.#sentBy(id, bearer).recipients : [owner]
    for (const address of addresses) {
      this.takeAway(address, id, owner === undefined ? "revoked" : "taken")
    }
    return bytes(204, new Uint8Array(0))
  }

  takeAway(address: string, id: string, reason: "taken" | "revoked" | "expired"): void {
    const { entries } = found(this.inboxes.get(address))
    const at = entries.findIndex((entry) => entry.kind === "waiting" && entry.id === id)
    const entry = entries[at]
    if (entry?.kind !== "waiting") return
    const { acceptedMs, expiresMs } = this.delivery(id)
    const tombstone = encodeTombstone({
      seq: entry.seq,
      headerHash: headerHash(entry.header),
      envelopeHash: envelopeHash(found(entry.envelope)),
      acceptedMs,
      expiresMs,
      reason,
    })
    entries[at] = { kind: "gone", seq: entry.seq, tombstone }
  }
}

function leafOf(index: number, part: Uint8Array): Uint8Array {
  return leafHash({ index, part })
}

/** The part that a request for a body begins in. */
export function firstPartOf(asked: Asked): number {
  const [, first] = /bytes=([0-9]+)-/.exec(asked.headers.range ?? "") ?? []
  return gridIndex(Number(first))
}

export function found<T>(value: T | undefined): T {
  if (value === undefined) throw new Error("the test expects it to be there")
  return value
}

function parseJson(body: Uint8Array): unknown {
  return JSON.parse(Buffer.from(body).toString())
}

export function json(status: number, value: Json): Answer {
  const headers = { "content-type": "application/json" }
  return { status, headers, body: new Uint8Array(Buffer.from(JSON.stringify(value))) }
}

export function bytes(status: number, body: Uint8Array): Answer {
  return { status, headers: { "content-type": "application/octet-stream" }, body }
}

function rangeHeaders(contentRange: string): Record<string, string> {
  return { "content-type": "application/octet-stream", "content-range": contentRange }
}

export function refusalAnswer(refusal: RelayRefusal): Answer {
  const body = new Uint8Array(Buffer.from(JSON.stringify(encodeProblem(refusal))))
  const headers: Record<string, string> = { "content-type": "application/problem+json" }
  if (refusal.retryAfterSeconds !== undefined) {
    headers["retry-after"] = String(refusal.retryAfterSeconds)
  }
  return { status: refusal.status, headers, body }
}

function refuse(code: RefusalCode, options?: RefusalOptions): never {
  throw new RelayRefusal(code, options)
}
