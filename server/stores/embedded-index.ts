// The index inside the relay's own process, on LMDB. One relay has it to itself (data-folder.ts holds
// the lock), so claims, shared secrets and watchers are kept in memory.
//
// Each step is one synchronous write transaction, which LMDB commits whole or not at all. It is not
// synced: a commit is in the kernel when the step resolves, so it outlives the process, and after a
// power cut the whole index is thrown away and rebuilt (recovery.ts).
import { embeddedInboxes } from "./embedded-inboxes.js"
import { embeddedSessions } from "./embedded-sessions.js"
import { clearTables, openTables, readTally } from "./embedded-tables.js"
import { embeddedUploads } from "./embedded-uploads.js"
import type { RelayIndex } from "./relay-index.js"

export interface EmbeddedIndexOptions {
  /** A folder of its own. */
  readonly path: string
  readonly now: () => number
}

export function openEmbeddedIndex({ path, now }: EmbeddedIndexOptions): RelayIndex {
  const db = openTables(path)

  function step<T>(change: () => T): Promise<T> {
    try {
      return Promise.resolve(db.root.transactionSync(change))
    } catch (error) {
      return Promise.reject(error instanceof Error ? error : new Error(String(error)))
    }
  }

  const uploads = embeddedUploads({ db, now, step })
  const inboxes = embeddedInboxes({ db, now, step })
  const sessions = embeddedSessions({ db, now, step })
  return {
    ...uploads,
    ...inboxes,
    ...sessions,

    marker: () => step(() => db.root.get("marker")),

    setMarker: (marker) => step(() => void db.root.put("marker", marker)),

    clear: () => step(() => clearTables(db)),

    tally: () => step(() => readTally(db)),

    reclaim: () =>
      step(() => {
        for (const part of [uploads, inboxes, sessions]) part.reclaimNow()
      }),

    close: () => db.root.close(),
  }
}
