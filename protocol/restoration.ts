// What a relay says of a backup of it that was put back (docs/protocol.md §9).
import type { JsonObject, JsonReader } from "./json.js"

/** A backup of the relay was put back, the last time. */
export interface Restoration {
  /** About when the backup was made. */
  readonly backupMs: number
  /** What was signed after this goes on from what was restored. */
  readonly restoredMs: number
}

/** The last moment that has a date. */
const latestMs = 8_640_000_000_000_000

export function readRestoration(restored: JsonReader): Restoration {
  return {
    backupMs: restored.count("backup_ms", latestMs),
    restoredMs: restored.count("restored_ms", latestMs),
  }
}

export function encodeRestoration({ backupMs, restoredMs }: Restoration): JsonObject {
  return { backup_ms: backupMs, restored_ms: restoredMs }
}
