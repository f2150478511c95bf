import * as fc from "fast-check"
import nacl from "tweetnacl"
import { describe, expect, test } from "vitest"
import { boxKey } from "../../protocol/crypto/box.js"
import {
  type Challenge,
  concatBytes,
  ed25519PublicKey,
  equalBytes,
  FormatError,
  fromHex,
  hkdfSha256,
  label,
  loginTranscript,
  makeChallengeNonce,
  minuteStatement,
  nonceMinute,
  OpenError,
  proveLogin,
  sessionMac,
  sha256,
  signMinute,
  u16,
  u32,
  utf8,
  verifyChallengeNonce,
  verifyLogin,
  verifyMinute,
  x25519,
  x25519PublicKey,
} from "../../protocol/index.js"

const bytes = (length: number, fill: number) => new Uint8Array(length).fill(fill)
const authSeed = bytes(32, 1)
const minuteSecret = bytes(32, 2)
const signSeed = bytes(32, 3)
const nonceKey = bytes(32, 4)
const origin = "https://relay.example:8443"
const inboxId = bytes(20, 5)
const authKey = x25519PublicKey(authSeed)
const e = x25519PublicKey(minuteSecret)
const minute = 29_454_321
const identity = { authSeed, bundle: { inboxId } }

const nonce = makeChallengeNonce({ minute, e, key: nonceKey, random: (n) => bytes(n, 6) })
const challenge: Challenge = {
  e,
  nonce,
  signature: signMinute({ minute, e, signSeed }),
  kid: 1,
  expiresMs: 0,
}
const random = (length: number, name?: string) => bytes(length, name === "c" ? 7 : 8)
const attempt = proveLogin({ identity, origin, challenge, random })
const good = { proof: attempt.fields, origin, inboxId, authKey, minuteSecret }
const token = bytes(32, 9)

const lowOrder = [
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0100000000000000000000000000000000000000000000000000000000000000",
  "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
  "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
].map((hex) => fromHex(hex))

function flip(original: Uint8Array, at: number): Uint8Array {
  const changed = original.slice()
  changed[at] = (changed[at] ?? 0) ^ 1
  return changed
}

function verified() {
  const login = verifyLogin(good)
  if (login === undefined) throw new Error("a good proof was refused")
  return login
}

test("both sides come to one session", () => {
  const mac = sessionMac({ ...verified(), token })
  expect(attempt.finish({ token, expiresMs: 0, absoluteMs: 0, mac })).toEqual(token)
})

test("the bytes are those of the specification", () => {
  const c = x25519PublicKey(bytes(32, 7))
  const name = utf8(origin)
  const transcript = sha256(label("chal"), u16(name.length), name, inboxId, e, c, nonce)
  const shared = x25519(authSeed, e)
  expect(attempt.fields).toEqual({
    origin,
    e,
    nonce,
    c,
    boxNonce: bytes(24, 8),
    proof: nacl.box(transcript, bytes(24, 8), e, authSeed),
  })
  expect(verified()).toEqual({
    transcript,
    sessionKey: hkdfSha256({
      ikm: concatBytes(x25519(bytes(32, 7), e), shared),
      salt: nonce,
      info: transcript,
      length: 32,
    }),
  })
  expect(minuteStatement({ minute, e })).toEqual(concatBytes(label("minute"), u32(minute), e))
})

test("the box's key is the one that NaCl makes of the two keys", () => {
  const seed = fc.uint8Array({ minLength: 32, maxLength: 32 })
  fc.assert(
    fc.property(seed, seed, (a, b) => {
      const publicB = x25519PublicKey(b)
      expect(boxKey(x25519(a, publicB))).toEqual(nacl.box.before(publicB, a))
    }),
    { numRuns: 10 },
  )
})

describe("a proof is refused", () => {
  test("for another origin, even where the relay would answer to it", () => {
    const other = "https://other.example"
    expect(verifyLogin({ ...good, origin: other })).toBeUndefined()
    const relabelled = { ...attempt.fields, origin: other }
    expect(verifyLogin({ ...good, origin: other, proof: relabelled })).toBeUndefined()
  })

  test("for another inbox, another auth key or another minute's key", () => {
    expect(verifyLogin({ ...good, inboxId: bytes(20, 6) })).toBeUndefined()
    const otherKey = x25519PublicKey(bytes(32, 10))
    expect(verifyLogin({ ...good, authKey: otherKey })).toBeUndefined()
    expect(verifyLogin({ ...good, minuteSecret: bytes(32, 11) })).toBeUndefined()
  })

  test.each(["e", "nonce", "c", "boxNonce", "proof"] as const)(
    "when any byte of its %s is changed",
    (field) => {
      const original = attempt.fields[field]
      original.forEach((_, at) => {
        const proof = { ...attempt.fields, [field]: flip(original, at) }
        expect(verifyLogin({ ...good, proof })).toBeUndefined()
      })
    },
  )

  test("when its c is of low order, although the transcript in the box fits", () => {
    for (const c of lowOrder) {
      const transcript = loginTranscript({ origin, inboxId, e, c, nonce })
      const boxNonce = bytes(24, 8)
      const proof = nacl.box(transcript, boxNonce, e, authSeed)
      const fields = { ...attempt.fields, c, boxNonce, proof }
      expect(verifyLogin({ ...good, proof: fields })).toBeUndefined()
    }
  })

  test("when the inbox's auth key is of low order", () => {
    for (const bad of lowOrder) expect(verifyLogin({ ...good, authKey: bad })).toBeUndefined()
  })
})

test("the same proof gives the same transcript, so a relay knows it again", () => {
  expect(verified().transcript).toEqual(verified().transcript)
  const second = verifyLogin({
    ...good,
    proof: proveLogin({ identity, origin, challenge }).fields,
  })
  expect(second).toBeDefined()
  expect(second?.transcript).not.toEqual(verified().transcript)
})

test("nothing is proved to an e of low order", () => {
  for (const bad of lowOrder) {
    const run = () => proveLogin({ identity, origin, challenge: { ...challenge, e: bad } })
    expect(run).toThrow(FormatError)
  }
})

test("a session from whoever does not know the secret of e is refused", () => {
  const mac = sessionMac({ ...verified(), token })
  const reply = { token, expiresMs: 0, absoluteMs: 0, mac }
  mac.forEach((_, at) => {
    expect(() => attempt.finish({ ...reply, mac: flip(mac, at) })).toThrow(OpenError)
  })
  expect(() => attempt.finish({ ...reply, token: bytes(32, 10) })).toThrow(OpenError)
})

test("a minute's key is believed only under the relay's signing key", () => {
  const signingKey = ed25519PublicKey(signSeed)
  expect(verifyMinute(challenge, signingKey)).toBe(true)
  expect(verifyMinute(challenge, ed25519PublicKey(bytes(32, 12)))).toBe(false)
  expect(verifyMinute({ ...challenge, e: flip(e, 0) }, signingKey)).toBe(false)
  expect(verifyMinute({ ...challenge, nonce: flip(nonce, 19) }, signingKey)).toBe(false)
})

test("a relay knows its own nonces, and their minute, without storing them", () => {
  expect(nonceMinute(nonce)).toBe(minute)
  expect(verifyChallengeNonce({ key: nonceKey, nonce, e })).toBe(true)
  nonce.forEach((_, at) => {
    expect(verifyChallengeNonce({ key: nonceKey, nonce: flip(nonce, at), e })).toBe(false)
  })
  expect(verifyChallengeNonce({ key: nonceKey, nonce, e: flip(e, 0) })).toBe(false)
  expect(verifyChallengeNonce({ key: bytes(32, 5), nonce, e })).toBe(false)
  expect(verifyChallengeNonce({ key: nonceKey, nonce: nonce.subarray(1), e })).toBe(false)
  expect(() => nonceMinute(nonce.subarray(1))).toThrow(FormatError)
  const other = makeChallengeNonce({ minute, e, key: nonceKey })
  expect(equalBytes(other, nonce)).toBe(false)
})
