/**
 * A relay's routes, one attempt each, over the client's own HTTP. What goes wrong comes as it is: a
 * RelayRefusal is the relay's no, RelayUnreachable says that nobody knows what became of the request.
 */
import {
  encodeExtend,
  encodeInboxQuery,
  encodeRegisterRequest,
  encodeStartUpload,
  type ExtendReply,
  type FinishReply,
  type Identity,
  type InboxPage,
  type InboxQuery,
  maxBundleBytes,
  maxEnvelopeBytes,
  MIB,
  parseChallenge,
  parseExtendReply,
  parseFinishReply,
  parseInboxPage,
  parsePartsReply,
  parseRegisterReply,
  parseRelayInfo,
  parseSessionList,
  parseStartUploadReply,
  parseStatusReply,
  parseUploadState,
  proveLogin,
  RelayRefusal,
  type SessionEntry,
  sha256,
  type StartUploadReply,
  type StatusReply,
  type UploadState,
} from "../../protocol/index.js"
import { RelayUnreachable } from "../../client/errors.js"
import type { Relay } from "../../client/relay.js"
import { RelayClient, type RelayRequest } from "../../client/relay-client.js"
import { InboxSession, json } from "../../client/session.js"

/** Of an upload, or of the delivery that it became. */
export interface UploadAccess {
  readonly id: string
  readonly token: Uint8Array
}

/** As many as may wait for an answer at once; a long poll keeps one for long. */
const parallel = 64

export class Caller {
  readonly relay: Relay
  readonly #client: RelayClient
  readonly #sessions = new Map<string, InboxSession>()

  private constructor(relay: Relay) {
    this.relay = relay
    this.#client = relay.client
  }

  static async meet(origin: string): Promise<Caller> {
    const client = new RelayClient({
      origin,
      proxies: undefined,
      parallel,
      // Logging in has a patience of its own, and here nobody waits.
      pause: () =>
        Promise.reject(new RelayUnreachable(origin, "not asked again", { retryable: true })),
    })
    const request = { method: "GET", path: "/v1/relay", persistence: "once" } as const
    const info = await client.json(request, parseRelayInfo)
    return new Caller({ client, info, clockAheadMs: 0 })
  }

  close(): void {
    this.#client.close()
  }

  /** True when the inbox was not there before. */
  async register(identity: Identity): Promise<boolean> {
    const challenge = await this.#json(
      { method: "POST", path: "/v1/sessions/challenge" },
      parseChallenge,
    )
    const { origin } = this.#client
    const { fields } = proveLogin({ identity, origin, challenge })
    const { address, bytes } = identity.bundle
    const body = [json(encodeRegisterRequest({ bundle: bytes, proof: fields }))]
    const path = `/v1/inboxes/${address}`
    return (await this.#json({ method: "PUT", path, body }, parseRegisterReply)).created
  }

  bundle(address: string): Promise<Uint8Array> {
    const request = { method: "GET", path: `/v1/inboxes/${address}`, persistence: "once" } as const
    return this.#client.bytes(request, maxBundleBytes)
  }

  async closeInbox(identity: Identity): Promise<void> {
    const path = `/v1/inboxes/${identity.bundle.address}`
    await this.#as(identity, (credential) => this.#nothing({ method: "DELETE", path, credential }))
    this.#sessions.delete(identity.bundle.address)
  }

  /** A session beside the one that the other calls share. */
  async login(identity: Identity): Promise<Uint8Array> {
    return new InboxSession(this.relay, identity).with({}, (credential) =>
      Promise.resolve(credential),
    )
  }

  sessions(credential: Uint8Array): Promise<SessionEntry[]> {
    return this.#json({ method: "GET", path: "/v1/sessions", credential }, parseSessionList)
  }

  endSession(credential: Uint8Array, id: string): Promise<void> {
    return this.#nothing({ method: "DELETE", path: `/v1/sessions/${id}`, credential })
  }

  start(input: {
    readonly idempotencyKey: string
    readonly recipients: readonly Identity[]
    readonly reserveBytes: number
    readonly deleteCap: Uint8Array
  }): Promise<StartUploadReply> {
    const { idempotencyKey, reserveBytes } = input
    const start = encodeStartUpload({
      recipients: input.recipients.map(({ bundle }) => bundle.address),
      reserveBytes,
      deleteHash: sha256(input.deleteCap),
    })
    const headers = { "idempotency-key": idempotencyKey }
    const request = { method: "POST", path: "/v1/uploads", headers, body: [json(start)] } as const
    return this.#json(request, parseStartUploadReply)
  }

  extend({ id, token }: UploadAccess, reserveBytes: number): Promise<ExtendReply> {
    const body = [json(encodeExtend({ reserveBytes }))]
    const path = `/v1/uploads/${id}/extend`
    return this.#json({ method: "POST", path, credential: token, body }, parseExtendReply)
  }

  state({ id, token }: UploadAccess): Promise<UploadState> {
    const path = `/v1/uploads/${id}`
    return this.#json({ method: "GET", path, credential: token }, parseUploadState)
  }

  /** Gives the relay's leaves, one behind the other. */
  async putParts(
    { id, token }: UploadAccess,
    first: number,
    bytes: Uint8Array,
  ): Promise<Uint8Array> {
    const request = {
      method: "PUT",
      path: `/v1/uploads/${id}/parts/${first}`,
      credential: token,
      contentType: "application/octet-stream",
      body: [bytes],
    } as const
    return (await this.#json(request, parsePartsReply)).leaves
  }

  finish({ id, token }: UploadAccess, finish: Uint8Array): Promise<FinishReply> {
    const request = {
      method: "POST",
      path: `/v1/uploads/${id}/finish`,
      credential: token,
      contentType: "application/octet-stream",
      body: [finish],
    } as const
    return this.#json(request, parseFinishReply)
  }

  giveUp({ id, token }: UploadAccess): Promise<void> {
    return this.#nothing({ method: "DELETE", path: `/v1/uploads/${id}`, credential: token })
  }

  /** One page; what the query leaves out is the relay's to say. */
  list(
    identity: Identity,
    query: Partial<InboxQuery> = {},
    signal?: AbortSignal,
  ): Promise<InboxPage> {
    const whole = { after: 0, limit: 1000, waitSeconds: 0, envelopes: false, ...query }
    const path = `/v1/inbox?${encodeInboxQuery(whole)}`
    return this.#as(identity, (credential) =>
      this.#json({ method: "GET", path, credential, signal }, parseInboxPage),
    )
  }

  envelope(identity: Identity, id: string): Promise<Uint8Array> {
    return this.#piece(identity, `${id}/envelope`, maxEnvelopeBytes)
  }

  manifest(identity: Identity, id: string): Promise<Uint8Array> {
    return this.#piece(identity, `${id}/manifest`, MIB)
  }

  leaves(identity: Identity, id: string): Promise<Uint8Array> {
    return this.#piece(identity, `${id}/leaves`, MIB)
  }

  body(identity: Identity, id: string, bodyLength: number): Promise<Uint8Array> {
    return this.#piece(identity, `${id}/body`, bodyLength)
  }

  part(identity: Identity, id: string, index: number): Promise<Uint8Array> {
    return this.#piece(identity, `${id}/parts/${index}`, MIB)
  }

  /** By its recipient. */
  discard(identity: Identity, id: string): Promise<void> {
    const path = `/v1/deliveries/${id}`
    return this.#as(identity, (credential) => this.#nothing({ method: "DELETE", path, credential }))
  }

  /** By its sender. */
  revoke(id: string, deleteCap: Uint8Array): Promise<void> {
    const path = `/v1/deliveries/${id}`
    return this.#nothing({ method: "DELETE", path, credential: deleteCap })
  }

  status(id: string, deleteCap: Uint8Array): Promise<StatusReply> {
    const path = `/v1/deliveries/${id}/status`
    return this.#json({ method: "GET", path, credential: deleteCap }, parseStatusReply)
  }

  /** Of an inbox's session that ended, or never was, `use` is tried again with a new one. */
  #as<T>(identity: Identity, use: (credential: Uint8Array) => Promise<T>): Promise<T> {
    const { address } = identity.bundle
    const session = this.#sessions.get(address) ?? new InboxSession(this.relay, identity)
    this.#sessions.set(address, session)
    return session.with({}, use)
  }

  #piece(identity: Identity, path: string, most: number): Promise<Uint8Array> {
    return this.#as(identity, (credential) =>
      this.#client.bytes(
        { method: "GET", path: `/v1/deliveries/${path}`, credential, persistence: "once" },
        most,
      ),
    )
  }

  #json<T>(request: RelayRequest, parse: (value: unknown) => T): Promise<T> {
    return this.#client.json({ ...request, persistence: "once" }, parse)
  }

  #nothing(request: RelayRequest): Promise<void> {
    return this.#client.nothing({ ...request, persistence: "once" })
  }
}

/** Whether this is the relay's no, with one of these codes. */
export function isRefusal(error: unknown, ...codes: readonly RelayRefusal["code"][]): boolean {
  return error instanceof RelayRefusal && codes.includes(error.code)
}
