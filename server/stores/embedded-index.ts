// The index inside the relay's own process, on LMDB. One relay has it to itself (data-folder.ts holds
// the lock), so claims, shared secrets and watchers are kept in memory.
//
// Each step is one synchronous write transaction, which LMDB commits whole or not at all. It is not
// synced: a commit is in the kernel when the step resolves, so it outlives the process, and after a
// power cut the whole index is thrown away and rebuilt (recovery.ts).
import { constants } from "node:os"
import { isDiskFull } from "../disk.js"
import { embeddedInboxes } from "./embedded-inboxes.js"
import { embeddedSessions } from "./embedded-sessions.js"
import { clearTables, openTables, readTally } from "./embedded-tables.js"
import { embeddedUploads } from "./embedded-uploads.js"
import type { RelayIndex } from "./relay-index.js"

/** Room for some hundred steps: each leaves the pages that it replaced to the ones after it. */
const sparePages = 64
/** One page of the file, less what it says of itself. */
const spareBytes = 4000

/** The index as it is inside the relay's own process. */
export interface EmbeddedIndex extends RelayIndex {
  /** Makes room inside the index's file for a time when there is none on the disk. */
  keepSpare(): Promise<void>
}

export interface EmbeddedIndexOptions {
  /** A folder of its own. */
  readonly path: string
  readonly now: () => number
}

export function openEmbeddedIndex({ path, now }: EmbeddedIndexOptions): EmbeddedIndex {
  const db = openTables(path)

  function step<T>(change: () => T): Promise<T> {
    try {
      return Promise.resolve(db.root.transactionSync(change))
    } catch (error) {
      return Promise.reject(systemErrorOf(error))
    }
  }

  /**
   * Pages once written are in the file for good, and free again in the next step: with them a step
   * works on a full disk, as a login or a discard has to.
   */
  async function keepSpare(): Promise<void> {
    try {
      await step(() => {
        for (let at = 0; at < sparePages; at++) void db.spare.put(at, new Uint8Array(spareBytes))
      })
      await step(() => {
        db.spare.clearSync()
      })
      // Pages are used again only by the steps after the next one.
      for (let at = 0; at < 3; at++) await step(() => void db.spare.put(0, new Uint8Array(at)))
    } catch (error) {
      // A write that the end of the disk cut short is an input/output error to LMDB.
      const isCutShort =
        error instanceof Error && "code" in error && error.code === constants.errno.EIO
      if (!isDiskFull(error) && !isCutShort) throw error
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

    keepSpare,

    reclaim: () =>
      step(() => {
        for (const part of [uploads, inboxes, sessions]) part.reclaimNow()
      }),

    close: () => db.root.close(),
  }
}

/** LMDB has the system's numbers where others have its names. */
function systemErrorOf(error: unknown): Error {
  if (!(error instanceof Error)) return new Error(String(error))
  if (!("code" in error) || error.code !== constants.errno.ENOSPC) return error
  return Object.assign(new Error(error.message, { cause: error }), { code: "ENOSPC" })
}
