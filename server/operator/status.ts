// What the relay tells its operator about itself.
import type { IndexKind, IndexState, RelayStatus, Restoration } from "../../protocol/index.js"
import { headroomBytes, type RelayConfig } from "../config.js"
import type { Clock } from "../clock.js"
import type { ClockWatch } from "../clock-watch.js"
import type { BlobStore } from "../stores/blob-store.js"
import { IndexUnavailable } from "../stores/index-errors.js"
import type { RelayIndex, Tally } from "../stores/relay-index.js"
import { version } from "../version.js"

export interface StatusNeeds {
  readonly config: RelayConfig
  readonly clock: Clock
  readonly watch: ClockWatch
  readonly blobs: BlobStore
  readonly index: RelayIndex
  readonly indexKind: IndexKind
  readonly indexState: () => IndexState
  readonly rebuilt: () => RelayStatus["index"]["rebuilt"]
  readonly url: () => string
  readonly connections: () => Promise<number>
  readonly lastSweepMs: () => number | undefined
  readonly restoration: Restoration | undefined
  readonly proxyProblem: () => RelayStatus["proxyProblem"]
}

/** The relay's status at any time from now on; its uptime counts from now. */
export function createStatus(needs: StatusNeeds): () => Promise<RelayStatus> {
  const { config, clock, watch, blobs, index } = needs
  const startedMs = clock.monotonicMs()
  let tally: Tally = { inboxes: 0, waiting: { bytes: 0, deliveries: 0 }, openUploads: 0 }
  return async () => {
    const { freeBytes, totalBytes } = await blobs.space()
    try {
      tally = await index.tally()
    } catch (error) {
      // As it was when the index could be asked last.
      if (!(error instanceof IndexUnavailable)) throw error
    }
    const { inboxes, waiting, openUploads } = tally
    return {
      version,
      uptimeMs: Math.floor(clock.monotonicMs() - startedMs),
      url: needs.url(),
      publicUrls: config.publicOrigins,
      disk: {
        totalBytes,
        freeBytes,
        headroomBytes: Math.ceil(headroomBytes(config, totalBytes)),
      },
      inboxes,
      waiting,
      openUploads,
      connections: await needs.connections(),
      lastSweepMs: needs.lastSweepMs(),
      index: { kind: needs.indexKind, state: needs.indexState(), rebuilt: needs.rebuilt() },
      clockAlarm: watch.isSuspicious(),
      restoration: needs.restoration,
      proxyProblem: needs.proxyProblem(),
    }
  }
}
