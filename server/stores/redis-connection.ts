// The connections to Redis: one for commands, one that listens. Everything that ioredis would do about
// a lost connection by itself is set here, because a command it sent again could run a second time long
// after its caller was told that it failed.
import { Cluster, Redis, type RedisOptions } from "ioredis"
import { IndexRefused, IndexUnavailable } from "./index-errors.js"
import { DamagedRecord } from "./maced-record.js"
import type { RedisNode, RedisPlace } from "./redis-url.js"

const commandTimeoutMs = 2_000
const connectTimeoutMs = 2_000
/** A connection on which nothing comes back for so long is given up. */
const socketTimeoutMs = 5_000
/** How often a server that is reading its files is asked whether it is done. */
const maxLoadingRetryMs = 500
const mostRetryMs = 1_000
/** For a start: a server that is still reading its files gets this long. */
const startTimeoutMs = 15_000

export type Argument = string | number | Uint8Array

export type Command = (name: string, ...args: Argument[]) => Promise<unknown>

export interface RedisConnection {
  /** One command about one key. Rejects with IndexUnavailable where Redis cannot. */
  readonly command: Command
  /** Works on every server that has keys, one after the other. */
  eachMaster(work: (command: Command) => Promise<void>): Promise<void>
  /** Hears `channel` until closed. */
  listen(channel: string, news: News): Promise<void>
  close(): Promise<void>
}

export interface News {
  readonly heard: (message: string) => void
  /** Some may have been lost, or this is the beginning. */
  readonly missed: () => void
}

const commonOptions = {
  enableOfflineQueue: false,
  autoResendUnfulfilledCommands: false,
  autoResubscribe: false,
  // Nothing is sent again, so those who wait on a connection that is lost hear of it at once.
  maxRetriesPerRequest: 0,
  commandTimeout: commandTimeoutMs,
  connectTimeout: connectTimeoutMs,
  socketTimeout: socketTimeoutMs,
  maxLoadingRetryTime: maxLoadingRetryMs,
  disableClientInfo: true,
  lazyConnect: true,
} satisfies RedisOptions

/** Throws IndexRefused with what to do about it. */
export async function connectRedis(place: RedisPlace): Promise<RedisConnection> {
  const client = place.kind === "cluster" ? clusterClient(place) : singleClient(place)
  let lastError: Error | undefined
  const remember = (error: Error): void => {
    lastError = error
  }
  client.on("error", remember)
  client.on("node error", remember)
  const timer = setTimeout(() => {
    lastError ??= new Error("LOADING for too long")
    client.disconnect()
  }, startTimeoutMs)
  try {
    await client.connect()
  } catch (error) {
    client.disconnect()
    throw refusedFor(lastError ?? error)
  } finally {
    clearTimeout(timer)
  }
  // The client goes on in the first database when there is none of that number.
  if (lastError?.message.includes("DB index") === true) {
    client.disconnect()
    throw refusedFor(lastError)
  }
  const subscribers = new Set<Subscriber>()
  // What a node of a cluster was told when it was lost may be lost as well, news among it.
  client.on("-node", () => {
    for (const subscriber of subscribers) subscriber.missed()
  })

  return {
    command: commandOn(client),

    async eachMaster(work) {
      const nodes = client instanceof Cluster ? client.nodes("master") : [client]
      if (nodes.length === 0) throw new IndexUnavailable("no_masters")
      for (const node of nodes) await work(commandOn(node))
    },

    async listen(channel, news) {
      const subscriber = new Subscriber(() => listeningClient(place, client), channel, news)
      subscribers.add(subscriber)
      await subscriber.start()
    },

    close() {
      for (const subscriber of subscribers) subscriber.close()
      client.disconnect()
      return Promise.resolve()
    },
  }
}

function commandOn(target: Redis | Cluster): Command {
  return async (name, ...args) => {
    try {
      return await target.callBuffer(name, args.map(asSent))
    } catch (error) {
      throw failureOf(error)
    }
  }
}

const pingEveryMs = 10_000
const listenAgainAfterMs = 500

/** A connection of its own that hears one channel, made again whenever it is lost. */
class Subscriber {
  readonly #open: () => Redis
  readonly #channel: string
  readonly #news: News
  #connection: Redis | undefined
  #timer: NodeJS.Timeout | undefined
  #isClosed = false

  constructor(open: () => Redis, channel: string, news: News) {
    this.#open = open
    this.#channel = channel
    this.#news = news
  }

  async start(): Promise<void> {
    const connection = this.#open()
    this.#connection = connection
    // Its end says the same.
    connection.on("error", () => undefined)
    connection.on("message", (_channel: string, message: string) => this.#news.heard(message))
    try {
      await connection.connect()
      await connection.subscribe(this.#channel)
    } catch (error) {
      connection.disconnect()
      throw failureOf(error)
    }
    connection.once("end", () => this.#startLater())
    this.#news.missed()
    this.#ping(connection)
  }

  missed(): void {
    if (!this.#isClosed) this.#news.missed()
  }

  close(): void {
    this.#isClosed = true
    clearTimeout(this.#timer)
    this.#connection?.disconnect()
  }

  /** Nothing else would tell that the other end is gone without a word. */
  #ping(connection: Redis): void {
    this.#timer = setTimeout(() => {
      connection.ping().then(
        () => {
          if (!this.#isClosed && connection === this.#connection) this.#ping(connection)
        },
        () => connection.disconnect(),
      )
    }, pingEveryMs)
    this.#timer.unref()
  }

  #startLater(): void {
    clearTimeout(this.#timer)
    if (this.#isClosed) return
    this.#timer = setTimeout(() => {
      this.start().catch(() => this.#startLater())
    }, listenAgainAfterMs)
    this.#timer.unref()
  }
}

function singleClient(
  place: Exclude<RedisPlace, { readonly kind: "cluster" }>,
  isMadeAgain: boolean = true,
): Redis {
  let hasBeenReady = false
  const client = new Redis({
    ...commonOptions,
    ...loginOf(place),
    ...whereOf(place, () => hasBeenReady),
    db: place.db,
    // Until it has worked once, whoever starts the relay shall hear what is wrong.
    retryStrategy: (times) =>
      isMadeAgain && hasBeenReady ? Math.min(50 * 2 ** times, mostRetryMs) : null,
    // After a failover the connection may lead to what is a replica now.
    reconnectOnError: (error) => error.message.startsWith("READONLY"),
  })
  client.once("ready", () => {
    hasBeenReady = true
  })
  return client
}

/** One more connection, which ends when it is lost. */
function listeningClient(place: RedisPlace, client: Redis | Cluster): Redis {
  if (place.kind !== "cluster") return singleClient(place, false)
  // A message reaches every node of a cluster.
  const nodes = client instanceof Cluster ? client.nodes("all") : []
  const node = nodes[Math.floor(Math.random() * nodes.length)]
  const { host = "", port = 0 } = node?.options ?? place.nodes[0] ?? {}
  const options = { ...commonOptions, ...loginOf(place), ...tlsOf(place) }
  return new Redis({ ...options, host, port, retryStrategy: null })
}

function clusterClient(place: Extract<RedisPlace, { readonly kind: "cluster" }>): Cluster {
  let hasBeenReady = false
  const client = new Cluster([...place.nodes], {
    enableOfflineQueue: false,
    lazyConnect: true,
    // What was sent when a connection was lost is not sent again.
    retryDelayOnFailover: 0,
    retryDelayOnClusterDown: 0,
    slotsRefreshTimeout: connectTimeoutMs,
    slotsRefreshInterval: 5_000,
    clusterRetryStrategy: (times) => (hasBeenReady ? Math.min(50 * 2 ** times, mostRetryMs) : null),
    // Certificates name hosts, which a lookup would turn into addresses.
    ...(place.tls && { dnsLookup: (address, callback) => callback(null, address) }),
    redisOptions: { ...withoutQueue, ...loginOf(place), ...tlsOf(place) },
  })
  client.once("ready", () => {
    hasBeenReady = true
  })
  return client
}

// The cluster's own queue is off; a node's holds what is sent while its connection is being made.
const { enableOfflineQueue: _, ...withoutQueue } = commonOptions

function whereOf(
  place: Exclude<RedisPlace, { readonly kind: "cluster" }>,
  hasBeenReady: () => boolean,
) {
  if (place.kind === "socket") return { path: place.path }
  if (place.kind === "server") return { ...place.node, ...tlsOf(place) }
  return {
    sentinels: place.nodes.map(({ host, port }: RedisNode) => ({ host, port })),
    name: place.name,
    // When all have been asked, a number begins again with the first; without one the client would be
    // at its end for good.
    sentinelRetryStrategy: (times: number) =>
      hasBeenReady() ? Math.min(50 * 2 ** times, mostRetryMs) : null,
    sentinelCommandTimeout: commandTimeoutMs,
    ...tlsOf(place),
    ...(place.tls && { sentinelTLS: {}, enableTLSForSentinelMode: true }),
  }
}

function tlsOf(place: RedisPlace): { readonly tls?: Record<string, never> } {
  return place.kind !== "socket" && place.tls ? { tls: {} } : {}
}

function loginOf({ user, password }: RedisPlace): {
  readonly username?: string
  readonly password?: string
} {
  return {
    ...(user !== undefined && { username: user }),
    ...(password !== undefined && { password }),
  }
}

function asSent(argument: Argument): string | number | Buffer {
  if (!(argument instanceof Uint8Array)) return argument
  return Buffer.from(argument.buffer, argument.byteOffset, argument.byteLength)
}

/** What a script says of a record that it cannot read. */
export const damagedMark = "KNOTHOLE-DAMAGED"

/** Replies that say something of the server, and nothing of the step. */
const unavailable: ReadonlySet<string> = new Set([
  "OOM",
  "LOADING",
  "READONLY",
  "BUSY",
  "MISCONF",
  "NOREPLICAS",
  "MASTERDOWN",
  "CLUSTERDOWN",
  "TRYAGAIN",
  "MOVED",
  "ASK",
  "NOAUTH",
  "WRONGPASS",
  "NOPERM",
  "UNBLOCKED",
  "UNKILLABLE",
])

function failureOf(error: unknown): Error {
  if (!(error instanceof Error)) return new Error(String(error))
  // Everything that no server said is about the way to it.
  if (error.name !== "ReplyError") return new IndexUnavailable("no_answer", { cause: error })
  const [code = ""] = error.message.split(" ")
  if (code === "WRONGTYPE" || error.message.includes(damagedMark)) {
    return new DamagedRecord("redis", { cause: error })
  }
  if (unavailable.has(code)) return new IndexUnavailable(code, { cause: error })
  return error
}

const aclHint = 'docs/operating.md, "Redis", has the rights it needs'

/** In the words of whoever starts a relay. */
export function refusedFor(error: unknown): IndexRefused {
  const message = messagesOf(error)
  const says = (problem: string): IndexRefused => new IndexRefused(problem, { cause: error })
  if (/WRONGPASS|invalid password|invalid username/.test(message)) {
    return says("Redis does not take this user and password; check them")
  }
  if (/NOAUTH/.test(message)) return says("Redis wants a password; give it in the URL")
  if (/NOPERM/.test(message)) {
    return says(`the user may not do in Redis what a relay does; ${aclHint}`)
  }
  if (/READONLY/.test(message)) return says("this Redis is a replica; name its master")
  if (/cluster support disabled/i.test(message)) {
    return says("this Redis is no cluster; write redis:// in place of redis+cluster://")
  }
  if (/MOVED|CROSSSLOT/.test(message)) {
    return says("this Redis is a node of a cluster; write redis+cluster://")
  }
  if (/LOADING/.test(message))
    return says("Redis is still reading its files; start again when it is done")
  if (/ERR DB index/.test(message)) return says("Redis has no database of that number")
  if (/sentinel/i.test(message)) {
    return says("no sentinel answers, or none knows a master of this name; check the URL")
  }
  if (/certificate|TLS|SSL/i.test(message)) {
    return says(
      "Redis has no certificate that this machine trusts; check rediss:// and NODE_EXTRA_CA_CERTS",
    )
  }
  return says("Redis cannot be reached; check the URL, and that Redis is running")
}

function messagesOf(error: unknown): string {
  const seen: string[] = []
  for (
    let each = error;
    each instanceof Error && seen.length < 5;
    each = each.cause ?? lastNodeError(each)
  ) {
    seen.push(each.message)
  }
  return seen.join(" ")
}

function lastNodeError(error: Error): unknown {
  return "lastNodeError" in error ? error.lastNodeError : undefined
}
