// Picking up: how the owner of an inbox shows that it holds the inbox's X25519 auth key, and how both
// sides come to a session (docs/protocol.md, "Login"). It leaves no signature behind, and the key is
// not the one that opens envelopes, so a challenge is never a ciphertext in disguise.
import { concatBytes, equalBytes, u16, u32, utf8 } from "./bytes.js"
import { boxKey, boxNonceBytes, boxOpen, boxSeal } from "./crypto/box.js"
import { isGoodX25519Key } from "./crypto/points.js"
import type { Random } from "./crypto/provider.js"
import { FormatError, OpenError } from "./errors.js"
import { label } from "./labels.js"
import type { Challenge, LoginProof, SessionReply } from "./messages.js"
import { challengeNonceBytes } from "./messages.js"
import {
  ed25519Sign,
  ed25519Verify,
  hkdfSha256,
  hmacSha256,
  random as providerRandom,
  sha256,
  x25519,
  x25519KeyPair,
  x25519PublicKey,
} from "#crypto-provider"

// The minute's key.

export interface Minute {
  /** Whole minutes since 1970. */
  readonly minute: number
  /** The relay's X25519 public key in that minute. */
  readonly e: Uint8Array
}

/** What the relay signs once a minute. */
export function minuteStatement({ minute, e }: Minute): Uint8Array {
  return concatBytes(label("minute"), u32(minute), e)
}

export function signMinute(input: Minute & { readonly signSeed: Uint8Array }): Uint8Array {
  return ed25519Sign(input.signSeed, minuteStatement(input))
}

/** Whether the relay with this signing key made the challenge's `e` for the minute it names. */
export function verifyMinute(challenge: Challenge, signingKey: Uint8Array): boolean {
  const statement = minuteStatement({ minute: nonceMinute(challenge.nonce), e: challenge.e })
  return ed25519Verify(signingKey, statement, challenge.signature)
}

// The challenge's nonce: random 16 ‖ u32 minute ‖ HMAC(random ‖ minute ‖ e)[0..16]. The relay stores
// nothing for a challenge, so the nonce is how it knows its own again.

export interface ChallengeNonceInput extends Minute {
  /** The relay's key for this purpose alone. */
  readonly key: Uint8Array
  readonly random?: Random
}

export function makeChallengeNonce(input: ChallengeNonceInput): Uint8Array {
  const draw = input.random ?? providerRandom
  const start = concatBytes(draw(16, "challenge_nonce"), u32(input.minute))
  return concatBytes(start, nonceMac(input.key, start, input.e))
}

/** Whether this relay made the nonce, for this `e`. Its age is the caller's to judge. */
export function verifyChallengeNonce(input: {
  readonly key: Uint8Array
  readonly nonce: Uint8Array
  readonly e: Uint8Array
}): boolean {
  if (input.nonce.length !== challengeNonceBytes) return false
  const start = input.nonce.subarray(0, 20)
  return equalBytes(nonceMac(input.key, start, input.e), input.nonce.subarray(20))
}

/** The minute a nonce names; true only of one that `verifyChallengeNonce` accepts. */
export function nonceMinute(nonce: Uint8Array): number {
  if (nonce.length !== challengeNonceBytes) throw new FormatError("nonce", "not 36 bytes")
  return new DataView(nonce.buffer, nonce.byteOffset).getUint32(16)
}

function nonceMac(key: Uint8Array, start: Uint8Array, e: Uint8Array): Uint8Array {
  return hmacSha256(key, start, e).subarray(0, 16)
}

// The proof.

export interface LoginTranscript {
  /** The ASCII origin of the URL in use, default port left out. */
  readonly origin: string
  readonly inboxId: Uint8Array
  readonly e: Uint8Array
  readonly c: Uint8Array
  readonly nonce: Uint8Array
}

/** T, 32 bytes. The origin in it keeps one relay from passing on another's challenge. */
export function loginTranscript({ origin, inboxId, e, c, nonce }: LoginTranscript): Uint8Array {
  const name = utf8(origin)
  return sha256(label("chal"), u16(name.length), name, inboxId, e, c, nonce)
}

/** The parts of an identity that log in. */
export interface LoginIdentity {
  readonly authSeed: Uint8Array
  readonly bundle: { readonly inboxId: Uint8Array }
}

export interface LoginAttempt {
  readonly fields: LoginProof
  /** The session's token. Throws OpenError when the relay does not know the secret of its own `e`. */
  finish(reply: SessionReply): Uint8Array
}

/**
 * Proves the auth key to whoever holds the secret of `challenge.e`. Check `verifyMinute` first when
 * the relay's signing key is known. Draws "c" (32 bytes) and "box_nonce" (24). Throws FormatError for
 * an `e` of low order.
 */
export function proveLogin(input: {
  readonly identity: LoginIdentity
  readonly origin: string
  readonly challenge: Challenge
  readonly random?: Random
}): LoginAttempt {
  const { origin, challenge } = input
  const { authSeed, bundle } = input.identity
  const { e, nonce } = challenge
  const draw = input.random ?? providerRandom
  if (!isGoodX25519Key(e)) throw new FormatError("challenge.e", "not an X25519 key")
  const ephemeral = x25519KeyPair((length) => draw(length, "c"))
  const boxNonce = draw(boxNonceBytes, "box_nonce")
  const c = ephemeral.publicKey
  const transcript = loginTranscript({ origin, inboxId: bundle.inboxId, e, c, nonce })
  const authShared = x25519(authSeed, e)
  const sessionKey = deriveSessionKey({
    ephemeralShared: x25519(ephemeral.secret, e),
    authShared,
    nonce,
    transcript,
  })
  const proof = boxSeal({ key: boxKey(authShared), nonce: boxNonce, message: transcript })
  return {
    fields: { origin, e, nonce, c, boxNonce, proof },
    finish({ token, mac }) {
      if (!equalBytes(sessionMac({ sessionKey, transcript, token }), mac)) throw new OpenError()
      return token
    },
  }
}

export interface VerifiedLogin {
  readonly sessionKey: Uint8Array
  /** T. The relay takes each one once. */
  readonly transcript: Uint8Array
}

/**
 * The relay's side. `authKey` is the inbox's, or a fixed one of nobody's for an inbox that is not
 * there, so that both cost the same. Undefined for every way in which a proof is not good.
 */
export function verifyLogin(input: {
  readonly proof: LoginProof
  readonly origin: string
  readonly inboxId: Uint8Array
  readonly authKey: Uint8Array
  readonly minuteSecret: Uint8Array
}): VerifiedLogin | undefined {
  const { proof, origin, inboxId, authKey, minuteSecret } = input
  const { e, c, nonce } = proof
  if (proof.origin !== origin || !isGoodX25519Key(c) || !isGoodX25519Key(authKey)) return undefined
  if (!equalBytes(x25519PublicKey(minuteSecret), e)) return undefined
  const authShared = x25519(minuteSecret, authKey)
  const opened = boxOpen({ key: boxKey(authShared), nonce: proof.boxNonce, box: proof.proof })
  const transcript = loginTranscript({ origin, inboxId, e, c, nonce })
  if (opened === undefined || !equalBytes(opened, transcript)) return undefined
  const ephemeralShared = x25519(minuteSecret, c)
  return {
    sessionKey: deriveSessionKey({ ephemeralShared, authShared, nonce, transcript }),
    transcript,
  }
}

/** Shows that whoever issued `token` also computed the session key. */
export function sessionMac(input: {
  readonly sessionKey: Uint8Array
  readonly transcript: Uint8Array
  readonly token: Uint8Array
}): Uint8Array {
  return hmacSha256(input.sessionKey, input.transcript, sha256(input.token))
}

function deriveSessionKey(input: {
  readonly ephemeralShared: Uint8Array
  readonly authShared: Uint8Array
  readonly nonce: Uint8Array
  readonly transcript: Uint8Array
}): Uint8Array {
  return hkdfSha256({
    ikm: concatBytes(input.ephemeralShared, input.authShared),
    salt: input.nonce,
    info: input.transcript,
    length: 32,
  })
}
