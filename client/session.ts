/**
 * Logging in to an inbox, and staying logged in. The challenge's key is checked against the pinned
 * signing key before anything is computed with it, and the session is only believed when the relay
 * shows that it computed the same secret.
 */
import {
  encodeRegisterRequest,
  encodeSessionRequest,
  type Identity,
  type LoginAttempt,
  parseChallenge,
  parseRegisterReply,
  parseSessionReply,
  proveLogin,
  RelayRefusal,
  OpenError,
  utf8,
  verifyMinute,
} from "../protocol/index.js"
import { UnknownInbox, Untrustworthy } from "./errors.js"
import type { CallOptions } from "./progress.js"
import { callOf, meetRelay, type Relay, type RelayOptions } from "./relay.js"

async function prove(relay: Relay, identity: Identity, call: CallOptions): Promise<LoginAttempt> {
  const challenge = await relay.client.json(
    { method: "POST", path: "/v1/sessions/challenge", ...callOf(call) },
    parseChallenge,
  )
  if (!verifyMinute(challenge, relay.info.signingKey)) {
    throw new Untrustworthy(
      `the login challenge of ${relay.client.origin} is not signed by the relay's key; not logging in`,
    )
  }
  return proveLogin({ identity, origin: relay.client.origin, challenge })
}

/** A proof is good for once and for three minutes: what failed on the way is proved anew. */
async function withFreshProof<T>(
  relay: Relay,
  identity: Identity,
  call: CallOptions,
  use: (attempt: LoginAttempt) => Promise<T>,
): Promise<T> {
  try {
    return await use(await prove(relay, identity, call))
  } catch (error) {
    // A relay that restarted in between has another key of the minute, and one whose answer was lost
    // has seen this proof already. Neither says anything about the identity.
    if (!(error instanceof RelayRefusal) || error.status !== 401) throw error
  }
  try {
    return await use(await prove(relay, identity, call))
  } catch (error) {
    if (!(error instanceof RelayRefusal) || error.code !== "unauthorized") throw error
    // A relay does not say which inboxes it has, but the proof was good.
    const { origin } = relay.client
    const { address } = identity.bundle
    throw new UnknownInbox(
      address,
      origin,
      `${origin} has no inbox for this identity (${address}); open one there first`,
    )
  }
}

/** One inbox at one relay. Logs in when first needed, and again when the session has ended. */
export class InboxSession {
  readonly relay: Relay
  readonly identity: Identity
  #token: Promise<Uint8Array> | undefined

  constructor(relay: Relay, identity: Identity) {
    this.relay = relay
    this.identity = identity
  }

  /** Calls `use` with a credential; with a new one when the relay no longer knows the first. */
  async with<T>(call: CallOptions, use: (credential: Uint8Array) => Promise<T>): Promise<T> {
    const token = (this.#token ??= this.#login(call))
    try {
      return await use(await token)
    } catch (error) {
      if (!(error instanceof RelayRefusal) || error.code !== "unauthorized") {
        // A login that failed is not kept: the next call tries its own.
        token.catch(() => {
          if (this.#token === token) this.#token = undefined
        })
        throw error
      }
      // Several requests may find the session ended at once; one of them logs in again.
      if (this.#token === token) this.#token = this.#login(call)
      return use(await this.#token)
    }
  }

  #login(call: CallOptions): Promise<Uint8Array> {
    const { relay, identity } = this
    return withFreshProof(relay, identity, call, async (attempt) => {
      const reply = await relay.client.json(
        {
          method: "POST",
          path: "/v1/sessions",
          body: [
            json(encodeSessionRequest({ address: identity.bundle.address, proof: attempt.fields })),
          ],
          ...callOf(call),
        },
        parseSessionReply,
      )
      try {
        return attempt.finish(reply)
      } catch (error) {
        if (!(error instanceof OpenError)) throw error
        throw new Untrustworthy(
          `${relay.client.origin} opened a session without proving that it is the relay; not using it`,
        )
      }
    })
  }
}

export function json(value: object): Uint8Array {
  return utf8(JSON.stringify(value))
}

/** Opens an inbox for this identity at the relay; `created` is false when it was there already. */
export async function registerInbox(
  options: RelayOptions & { identity: Identity },
): Promise<{ address: string; created: boolean }> {
  const { identity } = options
  const relay = await meetRelay(options)
  const { address } = identity.bundle
  try {
    return await withFreshProof(relay, identity, options, async (attempt) =>
      relay.client.json(
        {
          method: "PUT",
          path: `/v1/inboxes/${address}`,
          body: [
            json(encodeRegisterRequest({ bundle: identity.bundle.bytes, proof: attempt.fields })),
          ],
          ...callOf(options),
        },
        parseRegisterReply,
      ),
    )
  } finally {
    relay.client.close()
  }
}

/**
 * Closes this identity's inbox at the relay and deletes what waits in it; false when it was not there
 * (any more). Opening it again is `registerInbox`.
 */
export async function closeInbox(options: RelayOptions & { identity: Identity }): Promise<boolean> {
  const { identity } = options
  const relay = await meetRelay(options)
  const session = new InboxSession(relay, identity)
  try {
    await session.with(options, (credential) =>
      relay.client.nothing({
        method: "DELETE",
        path: `/v1/inboxes/${identity.bundle.address}`,
        credential,
        ...callOf(options),
      }),
    )
    return true
  } catch (error) {
    if (error instanceof UnknownInbox) return false
    throw error
  } finally {
    relay.client.close()
  }
}
