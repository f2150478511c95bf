// A relay in a folder of its own, and a client just large enough to speak to it.
import { mkdtempSync, rmSync } from "node:fs"
import { createServer, type Server } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import supertest from "supertest"
import {
  encodeBearer,
  encodeLoginProof,
  encodeRegisterRequest,
  encodeSessionRequest,
  encodeStartUpload,
  fromHex,
  gridCount,
  type Identity,
  type LoginProof,
  parseChallenge,
  parseFinishReply,
  parseInboxPage,
  parseSessionReply,
  parseStartUploadReply,
  proveLogin,
  random,
  sha256,
  toHex,
} from "../../protocol/index.js"
import type { FinishReply, InboxPage, StartUploadReply } from "../../protocol/index.js"
import { createRelay, type Relay, type RelayConfig, type RelayPorts } from "../../server/index.js"
import { parseRedisUrl } from "../../server/stores/redis-url.js"
import { ManualClock } from "./manual-clock.js"
import { personAt } from "./people.js"
import { partOf, type TestDelivery } from "./test-delivery.js"

export const origin = "https://relay.test"

/** Where this run of tests has one. */
export const redisUrl: string | undefined = process.env["KNOTHOLE_TEST_REDIS"]

export function configFor(dataFolder: string, change: Partial<RelayConfig> = {}): RelayConfig {
  return {
    listen: { host: "127.0.0.1", port: 0 },
    dataFolder,
    redis: redisUrl === undefined ? undefined : parseRedisUrl(redisUrl),
    publicOrigins: [origin],
    registration: "open",
    keepMs: 14 * 86_400_000,
    keepMaxMs: 30 * 86_400_000,
    deliveryBytes: 10 * 1024 ** 3,
    inboxBytes: 20 * 1024 ** 3,
    inboxDeliveries: 1000,
    diskHeadroomBytes: 0,
    requestBytes: 1024 ** 2,
    tls: undefined,
    trustedProxies: undefined,
    logLevel: "info",
    ...change,
  }
}

export interface RelayUnderTest {
  readonly folder: string
  readonly relay: Relay
  /** Each line of the log, parsed. */
  readonly log: Record<string, unknown>[]
  readonly client: SmallClient
  /** Stops the relay and opens another one on the same folder. */
  restart(change?: {
    readonly config?: Partial<RelayConfig>
    readonly ports?: RelayPorts
  }): Promise<RelayUnderTest>
  /** Stops it and removes the folder. */
  remove(): Promise<void>
}

export async function openRelay(
  options: {
    readonly config?: Partial<RelayConfig>
    readonly ports?: RelayPorts
    readonly folder?: string
  } = {},
): Promise<RelayUnderTest> {
  const folder = options.folder ?? mkdtempSync(join(tmpdir(), "knothole-relay-"))
  const log: Record<string, unknown>[] = []
  const opened = await createRelay(configFor(folder, options.config), {
    writeLog: (line) => log.push(JSON.parse(line)),
    ...options.ports,
  })
  await opened.ready
  const client = new SmallClient(opened)
  const relay: Relay = {
    ...opened,
    stop: () => opened.stop().finally(() => client.close()),
  }
  return {
    folder,
    relay,
    log,
    client,
    async restart(change = {}) {
      await relay.stop()
      return openRelay({ ...options, ...change, folder })
    },
    async remove() {
      await relay.stop()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

export interface RelayWithInboxes {
  readonly under: RelayUnderTest
  readonly clock: ManualClock
  readonly alice: Identity
  readonly bob: Identity
}

/** A relay on a clock that stands still, with an inbox each for two people. */
export async function openRelayWithInboxes(): Promise<RelayWithInboxes> {
  const clock = new ManualClock()
  const under = await openRelay({ ports: { clock } })
  const [alice, bob] = [await personAt(0), await personAt(1)]
  await under.client.register(alice)
  await under.client.register(bob)
  return { under, clock, alice, bob }
}

export interface StartedUpload extends StartUploadReply {
  readonly deleteCap: Uint8Array
  readonly idempotencyKey: string
}

/** Speaks to a relay's routes, whether or not the relay itself listens. */
export class SmallClient {
  readonly #server: Server

  constructor({ app }: Pick<Relay, "app">) {
    this.#server = createServer(app).listen(0, "127.0.0.1")
  }

  get http(): ReturnType<typeof supertest> {
    return supertest(this.#server)
  }

  close(): void {
    this.#server.close()
    this.#server.closeAllConnections()
  }

  async proof(
    identity: Identity,
    forOrigin: string = origin,
  ): Promise<ReturnType<typeof proveLogin>> {
    const reply = await this.http.post("/v1/sessions/challenge").expect(200)
    return proveLogin({ identity, origin: forOrigin, challenge: parseChallenge(reply.body) })
  }

  async register(identity: Identity): Promise<void> {
    const { fields } = await this.proof(identity)
    const { address, bytes } = identity.bundle
    const reply = await this.http
      .put(`/v1/inboxes/${address}`)
      .send(encodeRegisterRequest({ bundle: bytes, proof: fields }))
    if (reply.status !== 201 && reply.status !== 200) throw new Error(reply.text)
  }

  postSession(address: string, proof: LoginProof): supertest.Test {
    return this.http.post("/v1/sessions").send(encodeSessionRequest({ address, proof }))
  }

  /** The Authorization header of a new session. */
  async login(identity: Identity): Promise<string> {
    const attempt = await this.proof(identity)
    const reply = await this.postSession(identity.bundle.address, attempt.fields).expect(201)
    return encodeBearer(attempt.finish(parseSessionReply(reply.body)))
  }

  postUpload(
    recipients: readonly Identity[],
    options: {
      readonly reserveBytes?: number
      readonly idempotencyKey?: string
      readonly deleteCap?: Uint8Array
    } = {},
  ): supertest.Test {
    const { reserveBytes = 1024 ** 2, deleteCap = random(32) } = options
    return this.http
      .post("/v1/uploads")
      .set("Idempotency-Key", options.idempotencyKey ?? toHex(random(16)))
      .send(
        encodeStartUpload({
          recipients: recipients.map(({ bundle }) => bundle.address),
          reserveBytes,
          deleteHash: sha256(deleteCap),
        }),
      )
  }

  async start(
    recipients: readonly Identity[],
    reserveBytes: number = 1024 ** 2,
  ): Promise<StartedUpload> {
    const deleteCap = random(32)
    const idempotencyKey = toHex(random(16))
    const reply = await this.postUpload(recipients, { reserveBytes, deleteCap, idempotencyKey })
    if (reply.status !== 201) throw new Error(`${reply.status} ${reply.text}`)
    return { ...parseStartUploadReply(reply.body), deleteCap, idempotencyKey }
  }

  putPart(
    upload: { readonly id: string; readonly token: Uint8Array },
    first: number | string,
    bytes: Uint8Array,
  ): supertest.Test {
    return this.http
      .put(`/v1/uploads/${upload.id}/parts/${first}`)
      .set("Authorization", encodeBearer(upload.token))
      .set("Content-Type", "application/octet-stream")
      .send(Buffer.from(bytes))
  }

  postFinish(
    upload: { readonly id: string; readonly token: Uint8Array },
    finish: Uint8Array,
  ): supertest.Test {
    return this.http
      .post(`/v1/uploads/${upload.id}/finish`)
      .set("Authorization", encodeBearer(upload.token))
      .set("Content-Type", "application/octet-stream")
      .send(Buffer.from(finish))
  }

  async putBody(
    upload: { readonly id: string; readonly token: Uint8Array },
    body: Uint8Array,
  ): Promise<void> {
    for (let index = 0; index < gridCount(body.length); index++) {
      const reply = await this.putPart(upload, index, partOf(body, index))
      if (reply.status !== 200) throw new Error(`${reply.status} ${reply.text}`)
    }
  }

  /** A whole sending, from start to receipts. */
  async send(delivery: TestDelivery): Promise<StartedUpload & { readonly reply: FinishReply }> {
    const upload = await this.start(delivery.recipients, delivery.body.length)
    await this.putBody(upload, delivery.body)
    const reply = await this.postFinish(upload, delivery.finish)
    if (reply.status !== 200) throw new Error(`${reply.status} ${reply.text}`)
    return { ...upload, reply: parseFinishReply(reply.body) }
  }

  get(path: string, authorization?: string): supertest.Test {
    const request = this.http.get(path)
    return authorization === undefined ? request : request.set("Authorization", authorization)
  }

  /** An answer's bytes. */
  async bytes(path: string, authorization: string, range?: string): Promise<supertest.Response> {
    const request = this.get(path, authorization).buffer(true).parse(collect)
    return range === undefined ? request : request.set("Range", range)
  }

  async list(authorization: string, query: string = ""): Promise<InboxPage> {
    const reply = await this.get(`/v1/inbox${query}`, authorization).expect(200)
    return parseInboxPage(reply.body)
  }

  delete(path: string, authorization: string): supertest.Test {
    return this.http.delete(path).set("Authorization", authorization)
  }
}

function collect(res: supertest.Response, done: (error: Error | null, body: Buffer) => void): void {
  const chunks: Buffer[] = []
  res.on("data", (chunk: Buffer) => chunks.push(chunk))
  res.on("end", () => done(null, Buffer.concat(chunks)))
}

/** A proof with one of its fields changed. */
export function changed(proof: LoginProof, change: Partial<LoginProof>): LoginProof {
  return { ...proof, ...change }
}

export { encodeLoginProof, fromHex }
export { leavesOf, makeDelivery, partOf, type TestDelivery } from "./test-delivery.js"
