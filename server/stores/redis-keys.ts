// Names of keys, and how long they outlive what they hold. What stands in braces decides on which node
// of a cluster a key lies: the keys of one upload, of one inbox, of the one budget lie together.
import type { DeliveryId, InboxId } from "../ids.js"

const hourMs = 60 * 60_000

/** Redis never forgets first. */
export const afterEndMs: number = 2 * hourMs

/** Inboxes have no end. What is not touched for so long belongs to no relay any more. */
export const inboxMs: number = 90 * 24 * hourMs

/** Touching renews what was not renewed for this long. */
export const renewAfterMs: number = 24 * hourMs

/** How long to keep what ends at `untilMs`, by the relay's clock alone. */
export function keepMs(untilMs: number, nowMs: number): number {
  return Math.max(0, untilMs - nowMs) + afterEndMs
}

export interface RedisKeys {
  /** Of everything the relay has in Redis. */
  readonly prefix: string
  readonly channel: string
  readonly marker: string
  readonly inboxes: string
  upload(id: DeliveryId): readonly [upload: string, parts: string, lease: string]
  readonly due: readonly [open: string, closed: string]
  readonly room: readonly [bytes: string, ends: string, sum: string]
  readonly tally: readonly [inboxes: string, sums: string, gone: string]
  claim(what: string, name: string): string
  inbox(inbox: InboxId): readonly string[]
  session(id: string): string
  sessionsOf(inbox: InboxId): string
  spent(value: string): string
  secret(name: string): string
}

/** `relay` tells the relays apart that share one Redis: letters, digits and hyphens. */
export function redisKeys(relay: string): RedisKeys {
  if (!/^[A-Za-z0-9-]{1,64}$/.test(relay)) throw new RangeError("a relay's name in Redis")
  const prefix = `knothole:{${relay}:`
  const key = (family: string, part: string = ""): string =>
    `${prefix}${family}}${part === "" ? "" : `:${part}`}`
  return {
    prefix,
    channel: `knothole:${relay}:revealed`,
    marker: key("marker"),
    inboxes: key("inboxes"),
    upload: (id) => [key(`u:${id}`), key(`u:${id}`, "parts"), key(`u:${id}`, "lease")],
    due: [key("due", "open"), key("due", "closed")],
    room: [key("room"), key("room", "ends"), key("room", "sum")],
    tally: [key("tally"), key("tally", "sums"), key("tally", "gone")],
    claim: (what, name) => key(`c:${what}:${name}`),
    inbox: (inbox) => [key(`i:${inbox}`), ...inboxParts.map((part) => key(`i:${inbox}`, part))],
    session: (id) => key(`s:${id}`),
    sessionsOf: (inbox) => key(`so:${inbox}`),
    spent: (value) => key(`x:${value}`),
    secret: (name) => key(`k:${name}`),
  }
}

const inboxParts = ["entries", "envelopes", "ids", "contents", "shares", "accepting", "version"]
