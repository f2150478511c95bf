// What a running relay tells its operator through the socket in its data folder. Counts and times only:
// no address, id or name of anybody who uses it.
import { type JsonObject, JsonReader } from "./json.js"
import { encodeRestoration, readRestoration, type Restoration } from "./restoration.js"

export interface RelayStatus {
  readonly version: string
  readonly uptimeMs: number
  /** Where it listens. */
  readonly url: string
  /** The origins clients are told of. */
  readonly publicUrls: readonly string[]
  readonly disk: {
    readonly totalBytes: number
    readonly freeBytes: number
    /** What uploads leave free. */
    readonly headroomBytes: number
  }
  readonly inboxes: number
  /** A delivery to three inboxes waits three times, until the sweep or its recipient removes it. */
  readonly waiting: { readonly deliveries: number; readonly bytes: number }
  readonly openUploads: number
  readonly connections: number
  /** Undefined until the first sweep has ended. */
  readonly lastSweepMs: number | undefined
  readonly index: {
    readonly kind: IndexKind
    readonly state: IndexState
    /** While it is rebuilt: of all deliveries that are stored, how many are in it. */
    readonly rebuilt: { readonly done: number; readonly total: number } | undefined
  }
  /** The machine's clock jumped: nothing is deleted for its age until it has been steady for an hour. */
  readonly clockAlarm: boolean
  readonly restoration: Restoration | undefined
  /**
   * Requests came by a proxy that is not trusted (`unset`), or that names fewer than it should
   * (`wrong`): all whom it asks for count as one.
   */
  readonly proxyProblem: ProxyProblem | undefined
}

export const proxyProblems = ["unset", "wrong"] as const
export type ProxyProblem = (typeof proxyProblems)[number]

export const indexKinds = ["embedded", "redis"] as const
export type IndexKind = (typeof indexKinds)[number]
export const indexStates = ["ready", "rebuilding", "away", "failed"] as const
export type IndexState = (typeof indexStates)[number]

const mostUrls = 100

export function encodeRelayStatus(status: RelayStatus): JsonObject {
  const { disk, waiting, index } = status
  return {
    version: status.version,
    uptime_ms: status.uptimeMs,
    url: status.url,
    public_urls: status.publicUrls,
    disk: {
      total_bytes: disk.totalBytes,
      free_bytes: disk.freeBytes,
      headroom_bytes: disk.headroomBytes,
    },
    inboxes: status.inboxes,
    waiting: { deliveries: waiting.deliveries, bytes: waiting.bytes },
    open_uploads: status.openUploads,
    connections: status.connections,
    ...(status.lastSweepMs !== undefined && { last_sweep_ms: status.lastSweepMs }),
    index: {
      kind: index.kind,
      state: index.state,
      ...(index.rebuilt && {
        rebuilt: { done: index.rebuilt.done, total: index.rebuilt.total },
      }),
    },
    clock_alarm: status.clockAlarm,
    ...(status.proxyProblem && { proxy_problem: status.proxyProblem }),
    ...(status.restoration && { restored: encodeRestoration(status.restoration) }),
  }
}

export function parseRelayStatus(value: unknown): RelayStatus {
  const status = new JsonReader(value, "status")
  const disk = status.object("disk")
  const waiting = status.object("waiting")
  const index = status.object("index")
  return {
    version: status.line("version", 100),
    uptimeMs: status.count("uptime_ms"),
    url: status.line("url"),
    publicUrls: status.lines("public_urls", mostUrls),
    disk: {
      totalBytes: disk.count("total_bytes"),
      freeBytes: disk.count("free_bytes"),
      headroomBytes: disk.count("headroom_bytes"),
    },
    inboxes: status.count("inboxes"),
    waiting: { deliveries: waiting.count("deliveries"), bytes: waiting.count("bytes") },
    openUploads: status.count("open_uploads"),
    connections: status.count("connections"),
    lastSweepMs: status.has("last_sweep_ms") ? status.count("last_sweep_ms") : undefined,
    index: {
      kind: index.oneOf("kind", indexKinds),
      state: index.oneOf("state", indexStates),
      rebuilt: index.has("rebuilt") ? readRebuilt(index.object("rebuilt")) : undefined,
    },
    clockAlarm: status.flag("clock_alarm"),
    proxyProblem: status.has("proxy_problem")
      ? status.oneOf("proxy_problem", proxyProblems)
      : undefined,
    restoration: status.has("restored") ? readRestoration(status.object("restored")) : undefined,
  }
}

function readRebuilt(rebuilt: JsonReader): { readonly done: number; readonly total: number } {
  return { done: rebuilt.count("done"), total: rebuilt.count("total") }
}

/** The answer to the operator's word that the clock is right. */
export interface ClockReply {
  /** False when the relay had believed it all along. */
  readonly wasDoubted: boolean
}

export function encodeClockReply({ wasDoubted }: ClockReply): JsonObject {
  return { was_doubted: wasDoubted }
}

export function parseClockReply(value: unknown): ClockReply {
  return { wasDoubted: new JsonReader(value, "clock").flag("was_doubted") }
}
