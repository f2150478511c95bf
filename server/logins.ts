// Opening inboxes and logging in to them: challenges, proofs, sessions (docs/protocol.md, "Login").
import {
  type Challenge,
  challengeGraceMs,
  challengeMs,
  equalBytes,
  FormatError,
  type LoginProof,
  makeChallengeNonce,
  nonceMinute,
  parseBundle,
  type Random,
  type RegisterReply,
  type RegisterRequest,
  relayDefaults,
  RelayRefusal,
  type SessionEntry,
  type SessionReply,
  type SessionRequest,
  sessionMac,
  sha256,
  signMinute,
  toHex,
  verifyChallengeNonce,
  type VerifiedLogin,
  verifyLogin,
  x25519PublicKey,
} from "../protocol/index.js"
import type { RelayConfig } from "./config.js"
import {
  addressOf,
  type DeliveryId,
  type InboxId,
  inboxIdBytesOf,
  inboxIdOf,
  parseInboxAddress,
} from "./ids.js"
import type { IdleInboxes } from "./idle-inboxes.js"
import type { FolderLocks } from "./stores/folder-locks.js"
import type { InboxLogs } from "./stores/inbox-log.js"
import type { RelayIndex, Session } from "./stores/relay-index.js"
import type { RelayKeys } from "./stores/relay-keys.js"

const minuteMs = 60_000
const minutesADay = 1440
/** A challenge key serves the day it is named after and whoever is late. */
const challengeKeyMs = 2 * minutesADay * minuteMs

export interface Logins {
  challenge(): Promise<Challenge>
  register(inbox: InboxId, request: RegisterRequest): Promise<RegisterReply>
  /** From now on it takes nothing new; durable when it resolves. Registering it opens it again. */
  closeInbox(session: Session): Promise<void>
  login(request: SessionRequest): Promise<SessionReply>
  /** Refuses a token that is no session's. */
  session(token: Uint8Array): Promise<Session>
  /** The session, or undefined when the token is no session's. */
  findSession(token: Uint8Array): Promise<Session | undefined>
  list(session: Session): Promise<SessionEntry[]>
  end(session: Session, id: DeliveryId): Promise<void>
}

export interface LoginsNeeds {
  readonly index: RelayIndex
  readonly logs: InboxLogs
  readonly idle: Pick<IdleInboxes, "noteLogin">
  readonly locks: FolderLocks
  readonly keys: RelayKeys
  readonly config: RelayConfig
  readonly random: Random
  readonly nowMs: () => number
  readonly origins: () => readonly string[]
}

export function createLogins(needs: LoginsNeeds): Logins {
  const { index, logs, idle, locks, keys, random, nowMs } = needs
  // Whose proofs are checked for an inbox that is not there, so that both cost the same.
  const nobodysKey = x25519PublicKey(random(32))

  function minuteSecret(minute: number): Promise<Uint8Array> {
    return index.sharedSecret({
      name: `minute ${minute}`,
      candidate: random(32),
      untilMs: endOf(minute) + minuteMs,
    })
  }

  function challengeKey(minute: number): Promise<Uint8Array> {
    const day = Math.floor(minute / minutesADay)
    return index.sharedSecret({
      name: `challenge ${day}`,
      candidate: random(32),
      untilMs: day * minutesADay * minuteMs + challengeKeyMs,
    })
  }

  let signed:
    | {
        readonly secret: Uint8Array
        readonly minute: number
        readonly e: Uint8Array
        readonly signature: Uint8Array
      }
    | undefined

  async function minuteNow(): Promise<NonNullable<typeof signed>> {
    const minute = Math.floor(nowMs() / minuteMs)
    // Asked for each time: where it is shared it can be lost, and then another one takes its place.
    const secret = await minuteSecret(minute)
    if (signed?.minute !== minute || !equalBytes(signed.secret, secret)) {
      const e = x25519PublicKey(secret)
      const signature = signMinute({ minute, e, signSeed: keys.signSeed })
      signed = { secret, minute, e, signature }
    }
    return signed
  }

  /** Every way in which a proof is not good is the same refusal, at the same cost. */
  async function verify(
    proof: LoginProof,
    inbox: InboxId,
    authKey: Uint8Array,
  ): Promise<VerifiedLogin> {
    const origins = needs.origins()
    if (!origins.includes(proof.origin)) {
      throw new RelayRefusal("wrong_origin", { extras: { origins: [...origins] } })
    }
    const minute = nonceMinute(proof.nonce)
    if (nowMs() >= endOf(minute)) throw new RelayRefusal("challenge_expired")
    const isOurs =
      minute * minuteMs <= nowMs() &&
      verifyChallengeNonce({ key: await challengeKey(minute), nonce: proof.nonce, e: proof.e })
    if (!isOurs) throw new RelayRefusal("unauthorized")
    const verified = verifyLogin({
      proof,
      origin: proof.origin,
      inboxId: inboxIdBytesOf(inbox),
      authKey,
      minuteSecret: await minuteSecret(minute),
    })
    if (verified === undefined) throw new RelayRefusal("unauthorized")
    // Written only for a good proof, and only once: a second use is a replay.
    const isFirst = await index.spend({ value: verified.transcript, untilMs: endOf(minute) })
    if (!isFirst) throw new RelayRefusal("unauthorized")
    return verified
  }

  async function findSession(token: Uint8Array): Promise<Session | undefined> {
    return index.useSession({ tokenHash: sha256(token), idleMs: relayDefaults.sessionIdleMs })
  }

  /** An inbox that is on the disk and could not be restored is not begun a second time over it. */
  async function checkEmpty(inbox: InboxId): Promise<void> {
    const logged = await logs.read(inbox)
    if (logged === undefined || logged.damaged > 0 || logged.floorSeq + logged.places.length > 0) {
      throw new Error("an inbox that the index does not have")
    }
  }

  return {
    async challenge() {
      const { minute, e, signature } = await minuteNow()
      const nonce = makeChallengeNonce({ key: await challengeKey(minute), minute, e, random })
      return { e, nonce, signature, kid: keys.kid, expiresMs: endOf(minute) }
    },

    async register(inbox, { bundle: bytes, proof }) {
      const bundle = parseBundle(bytes)
      if (inboxIdOf(bundle.inboxId) !== inbox) {
        throw new FormatError("registration.bundle", "not the bundle of this address")
      }
      await verify(proof, inbox, bundle.authKey)
      return locks.run(`open-${inbox}`, async () => {
        const address = addressOf(inbox)
        const isKnown = (await index.bundle(inbox)) !== undefined
        if (isKnown && !(await logs.isClosed(inbox)) && (await idle.noteLogin(inbox))) {
          return { address, created: false }
        }
        if (needs.config.registration === "closed") throw new RelayRefusal("registration_closed")
        if (isKnown && (await idle.noteLogin(inbox))) {
          await logs.setClosed(inbox, false)
          return { address, created: true }
        }
        if (!(await logs.create(inbox, bundle.bytes))) await checkEmpty(inbox)
        const created = await index.openInbox(inbox, bundle.bytes)
        await idle.noteLogin(inbox)
        return { address, created }
      })
    },

    async closeInbox({ inbox }) {
      await locks.run(`open-${inbox}`, () => logs.setClosed(inbox, true))
    },

    async login({ address, proof }) {
      const inbox = parseInboxAddress(address)
      const bytes = await index.bundle(inbox)
      const authKey = bytes === undefined ? nobodysKey : parseBundle(bytes).authKey
      const { sessionKey, transcript } = await verify(proof, inbox, authKey)
      // Whoever holds nobody's key could get here; nobody does.
      if (bytes === undefined) throw new RelayRefusal("unauthorized")
      if (!(await idle.noteLogin(inbox))) throw new RelayRefusal("unauthorized")
      const token = random(32)
      const createdMs = nowMs()
      const absoluteMs = createdMs + relayDefaults.sessionMs
      const idleMs = relayDefaults.sessionIdleMs
      await index.addSession({
        tokenHash: sha256(token),
        inbox,
        createdMs,
        lastUsedMs: createdMs,
        absoluteMs,
        idleMs,
      })
      return {
        token,
        expiresMs: createdMs + idleMs,
        absoluteMs,
        mac: sessionMac({ sessionKey, transcript, token }),
      }
    },

    findSession,

    async session(token) {
      const session = await findSession(token)
      if (session === undefined) throw new RelayRefusal("unauthorized")
      return session
    },

    async list(session) {
      const sessions = await index.sessions(session.inbox)
      return sessions
        .map(({ tokenHash, createdMs, lastUsedMs }) => ({
          id: toHex(tokenHash.subarray(0, 16)),
          createdMs,
          lastUsedMs,
          current: equalBytes(tokenHash, session.tokenHash),
        }))
        .sort((a, b) => a.createdMs - b.createdMs)
    },

    async end(session, id) {
      await index.endSession({ inbox: session.inbox, id })
    },
  }
}

/** When a challenge of that minute is no longer taken. */
function endOf(minute: number): number {
  return minute * minuteMs + challengeMs + challengeGraceMs
}
