/** The last moment that ISO 8601 writes with four digits of year. */
const lastMs = Date.UTC(9999, 11, 31, 23, 59, 59, 999)

/**
 * ISO 8601 in UTC. Times come from senders and relays as any number their formats hold, of which Date
 * refuses some and writes others with six digits of year, which few readers expect: what is later than
 * can be written is written as the last that can.
 */
export function isoTime(timeMs: number): string {
  return new Date(Math.min(timeMs, lastMs)).toISOString()
}
