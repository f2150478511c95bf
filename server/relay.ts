// A relay, put together: config, ports, stores, rules, routes. Everything is handed in from here, so
// two relays can live in one process, each with its own folder.
import { setMaxListeners } from "node:events"
import type { RequestListener } from "node:http"
import type { RelayRefusal } from "../protocol/index.js"
import { createApp } from "./app.js"
import { openCertificate } from "./certificate.js"
import { createChains } from "./chains.js"
import { type Clock, systemClock } from "./clock.js"
import { createSignableTime, openClockWatch } from "./clock-watch.js"
import {
  headroomBytes,
  type ListenAddress,
  loopbackOrigins,
  operatorSocketOf,
  type RelayConfig,
} from "./config.js"
import { createDeliveries } from "./deliveries.js"
import { type Disk, isDiskFull } from "./disk.js"
import { createFinishing } from "./finishing.js"
import { PartBuffers } from "./http/buffers.js"
import { connectionsFor } from "./http/connections.js"
import { createSources } from "./http/source.js"
import { createHttpServer, type HttpServer } from "./http-server.js"
import { createIdleInboxes } from "./idle-inboxes.js"
import { keepIndex } from "./index-keeper.js"
import { createLog, failureFields } from "./log.js"
import { createLogins } from "./logins.js"
import { nodeDisk } from "./node-disk.js"
import { openFilesAtMost } from "./open-files.js"
import { createCounts } from "./operator/counts.js"
import { createOperatorApp } from "./operator/app.js"
import { openOperatorSocket, type OperatorSocket } from "./operator/socket.js"
import { createStatus } from "./operator/status.js"
import { createPublishing } from "./publishing.js"
import { type Randomness, systemRandomness } from "./randomness.js"
import { createRebuildProgress } from "./rebuild-progress.js"
import { dropTorn, rebuildIndex, reconcile } from "./recovery.js"
import { indexUnavailable } from "./relay-refusals.js"
import { createReservations } from "./reservations.js"
import { deliveryRoutes } from "./routes/deliveries.js"
import { dropPageRoutes } from "./routes/drop-page.js"
import { probeRoutes } from "./routes/probe.js"
import { rebuilding, relayInfoRoutes } from "./routes/relay-info.js"
import { sessionRoutes } from "./routes/sessions.js"
import { uploadRoutes } from "./routes/uploads.js"
import { startSchedule } from "./schedule.js"
import { openDataFolder } from "./stores/data-folder.js"
import { DiskBlobStore } from "./stores/disk-blob-store.js"
import { openEmbeddedIndex } from "./stores/embedded-index.js"
import { type FolderIndex, openOwnIndex, openSharedIndex } from "./stores/folder-index.js"
import { bootId, DataFolderError } from "./stores/folder-lock.js"
import { IndexRefused } from "./stores/index-errors.js"
import type { openRedisIndex } from "./stores/redis-index.js"
import { openInboxLogs } from "./stores/inbox-log.js"
import { openLoginRecords } from "./stores/login-records.js"
import { redisUrlWithoutLogin } from "./stores/redis-url.js"
import { openRelayKeys } from "./stores/relay-keys.js"
import { readRestoration } from "./stores/restoration.js"
import { openServedDays } from "./stores/served-days.js"
import { sweep } from "./sweep.js"
import { UploadGate } from "./upload-gate.js"
import { createUploads } from "./uploads.js"

/** How often the certificate's files are looked at. */
const certificateLookMs = 30_000

export interface Relay {
  /** The routes, for a server of one's own or a test. */
  readonly app: RequestListener
  /** Resolves when the index is whole; until then most routes answer 503. Rejects if it cannot be. */
  readonly ready: Promise<void>
  /** Listens where the config says, and begins to sweep. */
  start(): Promise<{ readonly url: string }>
  /** Drains and closes, once. May be called without `start`. */
  stop(): Promise<void>
  /** Reads the certificate again, where the relay has one. What is wrong with it goes to the log. */
  readonly reload?: () => Promise<void>
  /** What the schedule does by itself: removes what has expired. */
  sweep(): Promise<void>
  /** What the schedule does by itself: brings index and blob store together. */
  reconcile(): Promise<void>
}

/** The relay's surroundings. What is left out is the real thing. */
export interface RelayPorts {
  readonly clock?: Clock
  readonly disk?: Disk
  readonly random?: Randomness
  /** Opens the index inside the relay's own process. */
  readonly openIndex?: typeof openEmbeddedIndex
  /** Opens the one that is in a Redis. */
  readonly openRedis?: typeof openRedisIndex
  /** Names this start of the machine, or "" where that cannot be known. */
  readonly bootId?: () => string
  /** One line of the log, with its end. */
  readonly writeLog?: (line: string) => void
}

export async function createRelay(config: RelayConfig, ports: RelayPorts = {}): Promise<Relay> {
  const clock = ports.clock ?? systemClock
  const disk = ports.disk ?? nodeDisk
  const random = ports.random ?? systemRandomness
  const log = createLog(ports.writeLog ?? writeToStderr, clock, config.logLevel)

  const certificate =
    config.tls === undefined
      ? undefined
      : await openCertificate({
          files: config.tls,
          hosts: config.publicOrigins
            .filter((one) => one.startsWith("https:"))
            .map((one) => new URL(one).hostname.replace(/^\[(.*)\]$/, "$1")),
          clock,
          log,
        })
  const folder = await openDataFolder({
    disk,
    path: config.dataFolder,
    random,
    use:
      config.redis === undefined
        ? { kind: "alone" }
        : { kind: "shared", index: redisUrlWithoutLogin(config.redis) },
  })
  let folderIndex: FolderIndex | undefined
  try {
    const keys = await openRelayKeys({ disk, folder, random })
    const watch = await openClockWatch({ clock, disk, folder: folder.path, log })
    const nowMs = (): number => watch.nowMs()
    const { recordKey } = keys
    const restoration = await readRestoration(disk, folder, recordKey)
    const blobs = new DiskBlobStore({ disk, folder, recordKey, random })
    const logs = openInboxLogs({ disk, path: folder.inboxes, recordKey, random })
    await logs.keepReserve()
    await folder.reserve.keep()
    const records = openLoginRecords({ disk, folder, recordKey, random })
    const days = await openServedDays({
      disk,
      folder: folder.path,
      recordKey,
      log,
      nowMs: nowMs(),
    })
    folderIndex = await openFolderIndex()
    // Keys, and which index it is, are the same for all who share the folder.
    await folder.opened()
    const { index, kind: indexKind } = folderIndex
    const opened = folderIndex

    function openFolderIndex(): Promise<FolderIndex> {
      const { redis } = config
      const shared = { disk, folder, random }
      if (redis === undefined) {
        return openOwnIndex({
          ...shared,
          now: nowMs,
          openIndex: ports.openIndex ?? openEmbeddedIndex,
          bootId: ports.bootId ?? bootId,
        })
      }
      return openSharedIndex({
        ...shared,
        async openIndex(relay) {
          const index = await (ports.openRedis ?? openRedis)({ place: redis, relay, now: nowMs })
          if (!index.isPersistent) log("redis_keeps_no_file", {}, "warning")
          return index
        },
      })
    }

    const { locks } = folder
    const idle = createIdleInboxes({ index, logs, records, days, locks, log })
    const counts = createCounts()
    const chains = createChains({ index, blobs, logs, keys, locks, random, counts, log })
    const publishing = createPublishing({ index, blobs, chains, keys })
    const reservations = createReservations({ index, blobs, config })
    const gate = new UploadGate()
    const stores = { index, blobs, logs, keys, locks }
    const uploads = createUploads({ ...stores, idle, config, reservations, gate, random, nowMs })
    const finishing = createFinishing({
      ...stores,
      config,
      publishing,
      reservations,
      gate,
      clock,
      random,
      nowMs,
      log,
    })
    const deliveries = createDeliveries({
      ...stores,
      chains,
      publishing,
      clock,
      nowMs,
      signableMs: createSignableTime({ watch, save: saveClock, clock, log }),
      async trustIndex() {
        if (isReady() && (await opened.doubt()) === undefined) return
        void keeper.look()
        throw refusal()
      },
      restoration,
    })
    let bound: ListenAddress | undefined
    const origins = (): string[] => [
      ...config.publicOrigins,
      ...(bound === undefined || config.tls !== undefined ? [] : loopbackOrigins(bound)),
    ]
    const logins = createLogins({ ...stores, idle, config, random, nowMs, origins })

    const recoveryNeeds = {
      locks,
      index,
      blobs,
      logs,
      chains,
      publishing,
      deliveries,
      log,
      random,
      nowMs,
    }
    const stopping = new AbortController()
    // As many as there are requests that wait; Node would write a line about a leak to stderr.
    setMaxListeners(0, stopping.signal)
    const progress = createRebuildProgress(clock, log)
    const keeper = keepIndex({
      index: opened,
      locks,
      clock,
      log,
      stopping: stopping.signal,
      async rebuild() {
        if (opened.isCopy) {
          log("folder_was_copied", {}, "warning")
          await dropTorn(recoveryNeeds)
        }
        await rebuildIndex(recoveryNeeds, { signal: stopping.signal, onProgress: progress.note })
        // Whatever others finished while this one read.
        if (folder.isShared) await reconcile(recoveryNeeds)
      },
      reconcile: () => reconcile(recoveryNeeds),
    })
    const isReady = (): boolean => keeper.state() === "ready"
    const refusal = (): RelayRefusal =>
      keeper.state() === "away" ? indexUnavailable() : rebuilding(progress.retryAfterSeconds())
    // A backup says by this when it was made.
    const ready = keeper.ready.then(() => unlessFull(saveClock()))
    // Whoever waits for it hears of it; nobody has to.
    ready.catch(() => undefined)

    const receiving = new PartBuffers(clock)
    const sending = new PartBuffers(clock)
    const sources = createSources({ trusted: config.trustedProxies, log, clock })
    const app = createApp({
      always: [
        ...relayInfoRoutes({
          config,
          keys,
          clock,
          blobs,
          origins,
          sources,
          indexState: () => keeper.state(),
        }),
        ...dropPageRoutes({ origins }),
        ...probeRoutes({ config, clock, blobs, stopping: stopping.signal }),
      ],
      indexed: [
        ...sessionRoutes({ logins, index, idle, deliveries, clock }),
        ...uploadRoutes({ uploads, finishing, buffers: receiving, sources, clock }),
        ...deliveryRoutes({
          deliveries,
          logins,
          buffers: sending,
          sources,
          clock,
          stopping: stopping.signal,
        }),
      ],
      isReady,
      refusal,
      doubt: indexKind === "redis" ? () => keeper.look() : undefined,
      sources,
      counts,
      log,
      clock,
    })
    const connectionsAtMost = connectionsFor(openFilesAtMost())
    const listening = { clock, log, connectionsAtMost }
    const server = createHttpServer({ ...listening, app, certificate: certificate?.context })
    let stopWatching: (() => void) | undefined
    let stopSchedule: (() => Promise<void>) | undefined
    let operatorSocket: OperatorSocket | undefined
    let operatorServer: HttpServer | undefined
    let lastSweepMs: number | undefined
    const status = createStatus({
      config,
      clock,
      watch,
      blobs,
      index,
      restoration,
      proxyProblem: () => counts.proxyProblem(),
      indexKind,
      indexState: () => keeper.state(),
      rebuilt: () => (isReady() ? undefined : progress.rebuilt()),
      url: () => (bound === undefined ? "" : urlOf(bound, config)),
      connections: () => server.connections(),
      lastSweepMs: () => lastSweepMs,
    })

    async function startMetrics(listen: ListenAddress): Promise<void> {
      // Loaded where it is wanted only.
      const { createMetricsApp } = await import("./operator/metrics.js")
      const metrics = createHttpServer({ ...listening, app: createMetricsApp({ status, counts }) })
      let at: ListenAddress
      try {
        at = await metrics.start(listen)
      } catch (error) {
        throw new DataFolderError(
          `--operator-listen: ${listen.host}:${listen.port} cannot be listened on; choose another port or address`,
          { cause: error },
        )
      }
      operatorServer = metrics
      const isOpen = loopbackOrigins(at).length === 0
      log("metrics_listening", { url: urlOf(at, { tls: undefined }) }, isOpen ? "warning" : "info")
      if (isOpen) log("metrics_open_to_others", {}, "alarm")
    }

    function saveClock(): Promise<void> {
      return locks.run("clock", () => watch.save())
    }

    async function reconcileNow(): Promise<void> {
      if (isReady()) await reconcile(recoveryNeeds)
    }

    async function sweepNow(): Promise<void> {
      // What has been lost may hold what a sweep must know.
      if (!isReady()) return
      if (watch.isSuspicious()) {
        log("sweep_paused", {}, "alarm")
        return
      }
      await sweep({ blobs, chains, idle, deliveries, index, keys, locks, log, random }, nowMs())
      await logs.keepReserve()
      await folder.reserve.keep()
      await opened.keepSpare()
      await saveClock()
      lastSweepMs = nowMs()
    }

    const reload =
      certificate === undefined
        ? undefined
        : (): Promise<void> => certificate.reload((context) => server.useCertificate(context))

    function watchCertificate(): void {
      if (reload === undefined) return
      stopWatching = clock.after(certificateLookMs, () => {
        void reload().then(() => {
          if (stopped === undefined) watchCertificate()
        })
      })
    }

    async function stop(): Promise<void> {
      log("stopping")
      stopWatching?.()
      // Whoever waits for a delivery hears that there is none, and asks again.
      stopping.abort()
      try {
        // All at once: from now on nothing new is taken in anywhere.
        await Promise.all([server.stop(), operatorServer?.stop(), operatorSocket?.close()])
        await stopSchedule?.()
        await keeper.ended()
        await chains.idle()
        await blobs.settle()
        await opened.close(isReady())
      } finally {
        await folder.release()
      }
      log("stopped")
    }

    let stopped: Promise<void> | undefined

    return {
      app,
      ready,

      async start() {
        operatorSocket = await openOperatorSocket({
          disk,
          path: operatorSocketOf(config),
          listener: createOperatorApp({ status, confirmClock: () => watch.confirm(), log }),
        })
        try {
          if (config.operatorListen !== undefined) await startMetrics(config.operatorListen)
          bound = await server.start(config.listen)
        } catch (error) {
          await operatorServer?.stop()
          await operatorSocket.close()
          throw error
        }
        watchCertificate()
        const url = urlOf(bound, config)
        stopSchedule = startSchedule(
          [
            { name: "sweep", at: "*/5 * * * *", run: () => ready.then(sweepNow) },
            {
              name: "reconcile",
              at: "17 * * * *",
              run: () => ready.then(reconcileNow),
            },
          ],
          (name, error) => log(`${name}_failed`, failureFields(error), "alarm"),
        )
        const [publicUrl] = config.publicOrigins
        log("listening", { url, ...(publicUrl !== undefined && { publicUrl }) })
        const { freeBytes: bytes, totalBytes } = await blobs.space()
        const wantedBytes = headroomBytes(config, totalBytes)
        if (bytes <= wantedBytes) log("no_room_for_uploads", { bytes, wantedBytes }, "warning")
        return { url }
      },

      stop() {
        stopped ??= stop()
        return stopped
      },

      ...(reload !== undefined && { reload }),
      // What is not in the index yet would look as if nobody waited for it.
      sweep: () => ready.then(sweepNow),
      reconcile: () => ready.then(reconcileNow),
    }
  } catch (error) {
    await folderIndex?.close(false)
    await folder.release()
    throw error
  }
}

async function openRedis(
  options: Parameters<typeof openRedisIndex>[0],
): ReturnType<typeof openRedisIndex> {
  // Loaded where it is wanted only.
  const { openRedisIndex } = await import("./stores/redis-index.js")
  try {
    return await openRedisIndex(options)
  } catch (error) {
    if (!(error instanceof IndexRefused)) throw error
    throw new DataFolderError(`--redis: ${error.message}`, { cause: error })
  }
}

function urlOf({ host, port }: ListenAddress, { tls }: Pick<RelayConfig, "tls">): string {
  const scheme = tls === undefined ? "http" : "https"
  return new URL(`${scheme}://${host.includes(":") ? `[${host}]` : host}:${port}`).origin
}

async function unlessFull(work: Promise<void>): Promise<void> {
  try {
    await work
  } catch (error) {
    if (!isDiskFull(error)) throw error
  }
}

function writeToStderr(line: string): void {
  process.stderr.write(line)
}
