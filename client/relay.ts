/** Meeting a relay: what it is, whether its key is the one that was met before, how its clock goes. */
import {
  type Bundle,
  encodeAddress,
  FormatError,
  isBundleOf,
  maxBundleBytes,
  parseAddress,
  parseBundle,
  parseRelayInfo,
  type RelayInfo,
  RelayRefusal,
  usableLimits,
} from "../protocol/index.js"
import { NotARelay, UnknownInbox, Untrustworthy } from "./errors.js"
import { checkPin } from "./pins.js"
import { type CallOptions, notice, say } from "./progress.js"
import { RelayClient } from "./relay-client.js"
import type { ClientState } from "./state.js"

export interface Relay {
  readonly client: RelayClient
  readonly info: RelayInfo
  /** The relay's clock minus this machine's. */
  readonly clockAheadMs: number
}

export interface RelayOptions extends CallOptions {
  /** Origin, or `host[:port]`. */
  relay: string
  state: ClientState
}

/** Clocks this far apart make a wished end of keeping, and the times people read, wrong. */
const noteworthyClockMs = 5 * 60_000

export async function meetRelay(options: RelayOptions & { parallel?: number }): Promise<Relay> {
  const client = new RelayClient({
    origin: options.relay,
    proxies: options.proxies,
    ...(options.parallel !== undefined && { parallel: options.parallel }),
  })
  try {
    say(options, { kind: "phase", phase: "asking the relay" })
    const askedMs = Date.now()
    const said = await client.json(
      { method: "GET", path: "/v1/relay", persistence: "brisk", ...callOf(options) },
      parseRelayInfo,
    )
    const info = { ...said, limits: usableLimits(said.limits) }
    if (info.name !== "knothole") {
      throw new NotARelay(
        client.origin,
        `what answers at ${client.origin} calls itself something else`,
      )
    }
    if (!info.protocol.includes(1)) {
      throw new NotARelay(
        client.origin,
        `${client.origin} speaks none of the protocol versions known here; update this program`,
      )
    }
    await checkPin(options.state, client.origin, info.signingKey)
    // The answer was written somewhere between the two readings of our clock.
    const clockAheadMs = info.timeMs - Math.round((askedMs + Date.now()) / 2)
    if (Math.abs(clockAheadMs) > noteworthyClockMs) {
      const minutes = Math.round(Math.abs(clockAheadMs) / 60_000)
      const direction = clockAheadMs > 0 ? "behind" : "ahead of"
      notice(
        options,
        `this machine's clock is ${minutes} minutes ${direction} the relay's; times shown may be off by as much`,
      )
    }
    return { client, info, clockAheadMs }
  } catch (error) {
    client.close()
    throw error
  }
}

/** What belongs to every call, without the rest of its options. */
export function callOf(options: CallOptions): CallOptions {
  const { signal, onProgress, proxies } = options
  return { signal, onProgress, proxies }
}

/** A bundle from the relay. The relay is not believed: the bundle has to hash to the address. */
export async function bundleFrom(
  client: RelayClient,
  inboxId: Uint8Array,
  call: CallOptions,
): Promise<Bundle> {
  const address = encodeAddress(inboxId)
  let bytes: Uint8Array
  try {
    bytes = await client.bytes(
      { method: "GET", path: `/v1/inboxes/${address}`, ...callOf(call) },
      maxBundleBytes,
    )
  } catch (error) {
    throw asUnknownInbox(error, client.origin, address)
  }
  let bundle: Bundle | undefined
  try {
    bundle = parseBundle(bytes)
  } catch (error) {
    if (!(error instanceof FormatError)) throw error
  }
  if (bundle === undefined || !isBundleOf(bundle, inboxId)) {
    throw new Untrustworthy(
      `${client.origin} hands out keys that are not those of ${address}; nothing was sent. Do not use this relay`,
    )
  }
  return bundle
}

export function asUnknownInbox(error: unknown, origin: string, address: string): unknown {
  if (!(error instanceof RelayRefusal)) return error
  if (error.code !== "no_such_inbox" && error.code !== "not_found") return error
  return new UnknownInbox(error.extras.address ?? address, origin)
}

/** A bundle by address, for whoever wants to compare words or verify a sender. */
export async function fetchBundle(options: RelayOptions & { address: string }): Promise<Bundle> {
  const { client } = await meetRelay(options)
  try {
    return await bundleFrom(client, parseAddress(options.address).inboxId, options)
  } finally {
    client.close()
  }
}

export interface RelayFacts extends RelayInfo {
  readonly origin: string
  readonly clockAheadMs: number
}

/** Asks what the relay is, and holds its signing key against the pinned one. */
export async function relayInfo(options: RelayOptions): Promise<RelayFacts> {
  const { client, info, clockAheadMs } = await meetRelay(options)
  client.close()
  return { ...info, origin: client.origin, clockAheadMs }
}
