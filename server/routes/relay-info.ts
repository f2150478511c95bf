// GET /v1/relay and GET /healthz.
import {
  encodeRelayInfo,
  type IndexState,
  relayDefaults,
  RelayRefusal,
} from "../../protocol/index.js"
import type { Clock } from "../clock.js"
import type { RelayConfig } from "../config.js"
import type { Route } from "../http/method-table.js"
import { replyJson, replyText } from "../http/replies.js"
import type { Sources } from "../http/source.js"
import type { BlobStore } from "../stores/blob-store.js"
import type { RelayKeys } from "../stores/relay-keys.js"
import { version } from "../version.js"

export interface RelayInfoNeeds {
  readonly config: RelayConfig
  readonly keys: RelayKeys
  readonly clock: Clock
  readonly blobs: BlobStore
  readonly origins: () => readonly string[]
  readonly sources: Sources
  readonly indexState: () => IndexState
}

/** A relay that is started again only because it has to rebuild its index would never be done. */
const healthy: Readonly<Record<IndexState, string>> = {
  ready: "ok\n",
  rebuilding: "ok, and rebuilding the index\n",
  away: "ok, but the index cannot be reached\n",
  failed: "ok, but without an index\n",
}

/** A health check writes to the disk, so it does so no more often than this. */
const probeEveryMs = 1_000

export function relayInfoRoutes(needs: RelayInfoNeeds): Route[] {
  const { config, keys, clock, blobs } = needs
  let probe: { readonly atMs: number; readonly outcome: Promise<boolean> } | undefined

  function isHealthy(): Promise<boolean> {
    const atMs = clock.monotonicMs()
    if (probe === undefined || atMs - probe.atMs >= probeEveryMs) {
      const outcome = blobs.probe().then(
        () => true,
        () => false,
      )
      probe = { atMs, outcome }
    }
    return probe.outcome
  }

  return [
    {
      path: "/healthz",
      methods: {
        async GET(_req, res) {
          if (!(await isHealthy())) replyText(res, "the data folder cannot be written\n", 503)
          else replyText(res, healthy[needs.indexState()])
        },
      },
    },
    {
      path: "/v1/relay",
      methods: {
        GET(req, res) {
          const info = {
            name: "knothole",
            version,
            protocol: [1],
            // The machine's own word, so that a client can tell when the two clocks differ.
            timeMs: clock.wallMs(),
            origins: needs.origins(),
            signingKey: keys.signingKey,
            kid: keys.kid,
            registration: config.registration,
            proxy: needs.sources.of(req).proxy,
            limits: {
              deliveryBytes: config.deliveryBytes,
              requestBytes: config.requestBytes,
              parallelRequests: relayDefaults.parallelRequests,
              recipients: relayDefaults.recipients,
              manifestBytes: relayDefaults.manifestBytes,
              inboxBytes: config.inboxBytes,
              inboxDeliveries: config.inboxDeliveries,
              keepMs: config.keepMs,
              keepMaxMs: config.keepMaxMs,
              uploadMs: relayDefaults.uploadMs,
              uploadMaxMs: relayDefaults.uploadMaxMs,
              longPollSeconds: relayDefaults.longPollSeconds,
              page: relayDefaults.page,
            },
          }
          replyJson(res, encodeRelayInfo(info))
        },
      },
    },
  ]
}

/** For every route that needs the index, until it is whole again. */
export function rebuilding(retryAfterSeconds: number): RelayRefusal {
  return new RelayRefusal("rebuilding", { retryAfterSeconds })
}
