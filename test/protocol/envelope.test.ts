import * as fc from "fast-check"
import { beforeAll, describe, expect, test } from "vitest"
import { rsaUnwrap, rsaWrap } from "../../protocol/crypto/rsa.js"
import { xwingEncapsulate } from "../../protocol/crypto/xwing.js"
import { deriveEnvelopeKeys } from "../../protocol/envelope.js"
import {
  type Bundle,
  type ClaimedSender,
  concatBytes,
  envelopeLength,
  envelopeSuite,
  FormatError,
  gcmOpen,
  gcmSeal,
  headerHash as headerHashOf,
  type Identity,
  identityFromKeys,
  label,
  OpenError,
  openDelivery,
  openEnvelope,
  parseEnvelope,
  type PayloadFields,
  random,
  sealEnvelope,
  toHex,
  utf8,
} from "../../protocol/index.js"
import { encodePayload } from "../../protocol/payload.js"
import { makeDelivery, noThread } from "./sealed-delivery.js"
import { formatVectors, identityOf } from "./vector-file.js"

let full: Identity
let rsaOnly: Identity
let sender: Identity
beforeAll(async () => {
  full = await identityOf(formatVectors, "full")
  rsaOnly = await identityOf(formatVectors, "rsaOnly")
  sender = await identityOf(formatVectors, "sender")
})

const headerHash = random(32)
const payload: PayloadFields = { ...noThread, ds: random(32) }

async function failure(promise: Promise<unknown>): Promise<Error> {
  try {
    await promise
  } catch (error) {
    if (error instanceof Error) return error
  }
  throw new Error("it opened")
}

/** Every failure to open looks the same: one class, one message, no cause. */
async function expectOpenError(promise: Promise<unknown>): Promise<void> {
  const error = await failure(promise)
  expect(error).toBeInstanceOf(OpenError)
  expect([error.message, error.cause]).toEqual(["cannot open", undefined])
}

/** An envelope with any of its inner values replaced, and everything outside made to fit. */
async function craftEnvelope(
  recipient: Bundle,
  craft: {
    readonly r?: Uint8Array
    readonly wrapLabel?: Uint8Array
    readonly suite?: 1 | 2
    readonly plaintext?: Uint8Array
  },
): Promise<Uint8Array> {
  const suite = craft.suite ?? envelopeSuite(recipient)
  const r = craft.r ?? random(32)
  const rsaCiphertext = await rsaWrap({
    modulus: recipient.modulus,
    label: craft.wrapLabel ?? label("wrap"),
    secret: r,
  })
  const xwing = suite === 2 && recipient.xwingKey ? xwingEncapsulate(recipient.xwingKey) : undefined
  const xwingCiphertext = xwing?.ciphertext ?? new Uint8Array(0)
  const { kek, com } = deriveEnvelopeKeys({
    suite,
    r,
    xwingSecret: xwing?.sharedSecret,
    fingerprint: recipient.fingerprint,
    headerHash,
    rsaCiphertext,
    xwingCiphertext,
  })
  const start = concatBytes(utf8("KNHE"), Uint8Array.of(1, suite, 0, 0), headerHash)
  const aad = concatBytes(start, rsaCiphertext, xwingCiphertext, com)
  const plaintext = craft.plaintext ?? encodePayload(payload)
  return concatBytes(aad, gcmSeal({ key: kek, aad, plaintext }))
}

/** What is inside an envelope to `full`. */
async function plaintextOf(envelope: Uint8Array): Promise<Uint8Array> {
  const { bundle, expanded } = full
  const parts = parseEnvelope(envelope, bundle)
  const wrapped = parts.rsaCiphertext
  const r = await rsaUnwrap({ key: expanded.rsa, label: label("wrap"), wrapped })
  const { kek } = deriveEnvelopeKeys({
    ...parts,
    r: r ?? new Uint8Array(0),
    xwingSecret: expanded.xwing?.decapsulate(parts.xwingCiphertext),
    fingerprint: bundle.fingerprint,
  })
  return gcmOpen({ key: kek, aad: parts.aad, ciphertext: parts.sealedPayload })
}

async function claimIn(envelope: Uint8Array, identity: Identity = full): Promise<ClaimedSender> {
  const { authentication } = await openEnvelope({ identity, envelope, headerHash })
  if (authentication.mode === "none") throw new Error("it names no sender")
  return authentication
}

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length })

describe("laws", () => {
  test("opening undoes sealing, whatever the payload and the mode", async () => {
    const host = fc.stringMatching(/^[a-z0-9.\-_:[\]]{0,255}$/)
    const inboxId = bytes(20).filter((id) => id.some((byte) => byte !== 0))
    const fields = fc.record({
      ds: bytes(32),
      createdMs: fc.maxSafeNat(),
      threadSeq: fc.integer({ min: 2, max: Number.MAX_SAFE_INTEGER }),
      threadPrev: bytes(32),
      replyTo: fc.option(fc.record({ inboxId, host }), { nil: undefined }),
    })
    const mode = fc.constantFrom("none", "deniable", "signature")
    await fc.assert(
      fc.asyncProperty(fields, mode, fc.boolean(), async (sealed, how, hybrid) => {
        const identity = hybrid ? full : rsaOnly
        const envelope = await sealEnvelope({
          recipient: identity.bundle,
          headerHash,
          payload: sealed,
          sender: how === "none" ? undefined : { identity: sender, mode: how },
        })
        expect(envelope).toHaveLength(envelopeLength(identity.bundle))
        const opened = await openEnvelope({ identity, envelope, headerHash })
        expect(opened.payload).toEqual(sealed)
        expect(opened.authentication.mode).toBe(how)
        if (opened.authentication.mode !== "none") {
          expect(opened.authentication.verify(sender.bundle)).toBe(true)
        }
      }),
      { numRuns: 30 },
    )
  })

  test("lengths depend on the recipient's keys alone, and no two envelopes are alike", async () => {
    expect([envelopeLength(rsaOnly.bundle), envelopeLength(full.bundle)]).toEqual([984, 2104])
    const { bundle } = await identityOf(formatVectors, "wide")
    expect(envelopeLength(bundle)).toBe(2232)
    const seal = () => sealEnvelope({ recipient: rsaOnly.bundle, headerHash, payload })
    const [one, two] = [await seal(), await seal()]
    expect(toHex(one.subarray(40))).not.toBe(toHex(two.subarray(40)))
  })
})

test("T03 an envelope of suite 1 to a recipient with an X-Wing key is refused", async () => {
  const downgraded = await craftEnvelope(full.bundle, { suite: 1 })
  expect(downgraded).toHaveLength(984)
  await expectOpenError(openEnvelope({ identity: full, envelope: downgraded, headerHash }))
  expect(() => parseEnvelope(downgraded, full.bundle)).toThrow(FormatError)
  // The same bytes open for the same RSA key without X-Wing, so it is the suite that refuses them.
  const { rsaPkcs8, authSeed } = full
  const bare = await identityFromKeys({
    rsaPkcs8,
    authSeed,
    xwingSeed: undefined,
    signSeed: undefined,
  })
  const toBare = await craftEnvelope(bare.bundle, {})
  const opened = await openEnvelope({ identity: bare, envelope: toBare, headerHash })
  expect(opened.payload.ds).toEqual(payload.ds)
  // And a suite that the recipient has no key for, or that does not exist.
  for (const suite of [0, 1, 3]) {
    const envelope = await craftEnvelope(full.bundle, {})
    envelope[5] = suite
    await expectOpenError(openEnvelope({ identity: full, envelope, headerHash }))
  }
})

describe("T04 an envelope that was touched does not open", () => {
  test.each(["full", "rsaOnly"])(
    "any byte flipped, to %s",
    async (name) => {
      const identity = await identityOf(formatVectors, name)
      const whole = await sealEnvelope({ recipient: identity.bundle, headerHash, payload })
      const flipped = (at: number): Uint8Array => {
        const envelope = whole.slice()
        envelope[at] = (envelope[at] ?? 0) ^ (1 << (at % 8))
        return envelope
      }
      // In batches, so that the RSA operations of one run beside each other.
      for (let from = 0; from < whole.length; from += 64) {
        const batch = Array.from({ length: Math.min(64, whole.length - from) }, (_, i) =>
          expectOpenError(openEnvelope({ identity, envelope: flipped(from + i), headerHash })),
        )
        await Promise.all(batch)
      }
      expect(await openEnvelope({ identity, envelope: whole, headerHash })).toMatchObject({
        payload,
      })
    },
    180_000,
  )

  test("any truncation, and a byte added", async () => {
    const whole = await sealEnvelope({ recipient: full.bundle, headerHash, payload })
    for (let length = 0; length < whole.length; length++) {
      const envelope = whole.subarray(0, length)
      await expectOpenError(openEnvelope({ identity: full, envelope, headerHash }))
    }
    const envelope = concatBytes(whole, Uint8Array.of(0))
    await expectOpenError(openEnvelope({ identity: full, envelope, headerHash }))
  })

  test("any bit of the header beside it flipped, or the header cut", async () => {
    const { ds, headerBytes } = makeDelivery([])
    const envelope = await sealBeside(headerBytes, ds)
    const attempt = (header: Uint8Array) => openDelivery({ identity: rsaOnly, header, envelope })
    for (let bit = 0; bit < 8 * headerBytes.length; bit++) {
      const header = headerBytes.slice()
      header[bit >> 3] = (header[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      await expectOpenError(attempt(header))
    }
    for (let length = 0; length < headerBytes.length; length++) {
      await expectOpenError(attempt(headerBytes.subarray(0, length)))
    }
    const opened = await attempt(headerBytes)
    expect(opened.payload.ds).toEqual(ds)
  })
})

/** To rsaOnly, which is the quickest to open. */
function sealBeside(header: Uint8Array, ds: Uint8Array): Promise<Uint8Array> {
  const hash = headerHashOf(header)
  return sealEnvelope({
    recipient: rsaOnly.bundle,
    headerHash: hash,
    payload: { ...payload, ds },
  })
}

describe("T05 an envelope fits one recipient and one header", () => {
  test("another recipient cannot open it", async () => {
    const envelope = await sealEnvelope({ recipient: full.bundle, headerHash, payload })
    await expectOpenError(openEnvelope({ identity: sender, envelope, headerHash }))
    await expectOpenError(openEnvelope({ identity: rsaOnly, envelope, headerHash }))
  })

  test("a recipient with the same RSA key but other keys beside it cannot", async () => {
    const { rsaPkcs8, authSeed, xwingSeed, signSeed } = full
    const envelope = await sealEnvelope({ recipient: full.bundle, headerHash, payload })
    for (const changed of [
      { xwingSeed: random(32) },
      { authSeed: random(32) },
      { signSeed: random(32) },
    ]) {
      const keys = { rsaPkcs8, authSeed, xwingSeed, signSeed, ...changed }
      const identity = await identityFromKeys(keys)
      await expectOpenError(openEnvelope({ identity, envelope, headerHash }))
    }
  })

  test("it does not open beside another header, named inside or not", async () => {
    const envelope = await sealEnvelope({ recipient: full.bundle, headerHash, payload })
    const other = random(32)
    await expectOpenError(openEnvelope({ identity: full, envelope, headerHash: other }))
    const renamed = envelope.slice()
    renamed.set(other, 8)
    await expectOpenError(openEnvelope({ identity: full, envelope: renamed, headerHash: other }))
  })

  test("T37 it does not open when its secret is not the one the header commits to", async () => {
    const { headerBytes, ds } = makeDelivery([])
    const attempt = (envelope: Uint8Array) =>
      openDelivery({ identity: rsaOnly, header: headerBytes, envelope })
    const opened = await attempt(await sealBeside(headerBytes, ds))
    expect(opened.payload.ds).toEqual(ds)
    await expectOpenError(attempt(await sealBeside(headerBytes, random(32))))
  })
})

const expectSealed = (envelope: Uint8Array) =>
  expectOpenError(openEnvelope({ identity: full, envelope, headerHash }))

describe("what does not unwrap fails like everything else", () => {
  test("an RSA message of another length than 32 bytes", async () => {
    for (const length of [0, 31, 33]) {
      await expectSealed(await craftEnvelope(full.bundle, { r: random(length) }))
    }
  })

  test("an RSA message under another construction's label", async () => {
    await expectSealed(await craftEnvelope(full.bundle, { wrapLabel: label("link") }))
  })

  test("an RSA ciphertext that is zero, one, or above the modulus", async () => {
    const envelope = await craftEnvelope(full.bundle, {})
    for (const fill of [0, 255]) {
      const bad = envelope.slice()
      bad.fill(fill, 40, 40 + 384)
      await expectSealed(bad)
      bad[40 + 383] = 1
      await expectSealed(bad)
    }
  })

  test("an X-Wing ciphertext whose X25519 part is of low order", async () => {
    const bad = await craftEnvelope(full.bundle, {})
    const xwingEnd = 40 + 384 + 1120
    bad.fill(0, xwingEnd - 32, xwingEnd)
    await expectSealed(bad)
  })

  test("a secret of all zeros is not accepted in place of one that did not unwrap", async () => {
    // An attacker who knew what stands in for a failed secret could finish the rest alone.
    const zeros = new Uint8Array(32)
    const rsaCiphertext = new Uint8Array(384)
    const { kek, com } = deriveEnvelopeKeys({
      suite: 1,
      r: zeros,
      xwingSecret: undefined,
      fingerprint: rsaOnly.bundle.fingerprint,
      headerHash,
      rsaCiphertext,
      xwingCiphertext: new Uint8Array(0),
    })
    const start = concatBytes(utf8("KNHE"), Uint8Array.of(1, 1, 0, 0), headerHash)
    const aad = concatBytes(start, rsaCiphertext, com)
    const sealed = gcmSeal({ key: kek, aad, plaintext: encodePayload(payload) })
    const envelope = concatBytes(aad, sealed)
    await expectOpenError(openEnvelope({ identity: rsaOnly, envelope, headerHash }))
  })
})

/** A good payload, changed at some places. */
function at(...changes: [number, ...number[]][]): Uint8Array {
  const plaintext = encodePayload({
    ...payload,
    threadSeq: 2,
    threadPrev: new Uint8Array(32).fill(7),
    replyTo: { inboxId: new Uint8Array(20).fill(9), host: "relay.example" },
  })
  for (const [offset, ...values] of changes) plaintext.set(values, offset)
  return plaintext
}

describe("a payload has one encoding", () => {
  const hostAt = 233
  const high = [0, 32] as const

  test("as a sender makes it, it opens", async () => {
    const envelope = await craftEnvelope(rsaOnly.bundle, { plaintext: at() })
    const { payload: opened } = await openEnvelope({ identity: rsaOnly, envelope, headerHash })
    expect(opened.replyTo?.host).toBe("relay.example")
  })

  test.each([
    ["another version", at([0, 2])],
    ["an unknown mode", at([1, 3])],
    ["a reserved byte", at([3, 1])],
    ["a time above 2^53", at([36, ...high])],
    ["a thread number above 2^53", at([44, ...high])],
    ["a delivery before the first", at([44, 0, 0, 0, 0, 0, 0, 0, 1])],
    ["a delivery before none", at([44, 0, 0, 0, 0, 0, 0, 0, 0])],
    ["a fingerprint in mode 0", at([84, 1])],
    ["a key in mode 0", at([116, 1])],
    ["a tag in mode 0", at([148, 1])],
    ["a byte behind the tag in mode 1", at([1, 1], [180, 1])],
    ["the last byte behind the tag in mode 1", at([1, 1], [211, 1])],
    ["a host without an inbox", at([212, ...Array<number>(20).fill(0)])],
    ["a capital in the host", at([hostAt, 0x52])],
    ["a slash in the host", at([hostAt, 0x2f])],
    ["a host beyond ASCII", at([hostAt, 0xc3, 0xa9])],
    ["a host that is not UTF-8", at([hostAt, 0xff])],
    ["a byte behind the host", at([hostAt + 13, 1])],
    ["a last byte", at([511, 1])],
  ])("%s does not open", async (_, plaintext) => {
    const envelope = await craftEnvelope(rsaOnly.bundle, { plaintext })
    await expectOpenError(openEnvelope({ identity: rsaOnly, envelope, headerHash }))
  })

  test("what a payload cannot say is refused before it is sealed", () => {
    const inboxId = random(20)
    for (const wrong of [
      { ds: random(31) },
      { threadPrev: random(32) },
      { threadSeq: 1, threadPrev: random(32) },
      { createdMs: -1 },
      { replyTo: { inboxId: new Uint8Array(20), host: "" } },
      { replyTo: { inboxId, host: "Relay.example" } },
      { replyTo: { inboxId, host: "r".repeat(256) } },
    ]) {
      expect(() => encodePayload({ ...payload, ...wrong })).toThrow(RangeError)
    }
  })
})

describe("a sender is believed only with a bundle that is theirs", () => {
  const modes = ["deniable", "signature"] as const
  const sealAs = (identity: Identity, mode: (typeof modes)[number]) =>
    sealEnvelope({ recipient: full.bundle, headerHash, payload, sender: { identity, mode } })

  test.each(modes)("%s", async (mode) => {
    const authentication = await claimIn(await sealAs(sender, mode))
    expect(authentication.senderFingerprint).toEqual(sender.bundle.fingerprint)
    expect(authentication.verify(sender.bundle)).toBe(true)
    expect(authentication.verify(full.bundle)).toBe(false)
    expect(authentication.verify(rsaOnly.bundle)).toBe(false)
    // Same keys for the proof, but another RSA key: another person's fingerprint.
    const { rsaPkcs8 } = full
    const { authSeed, signSeed, xwingSeed } = sender
    const lookalike = await identityFromKeys({ rsaPkcs8, authSeed, signSeed, xwingSeed })
    expect(authentication.verify(lookalike.bundle)).toBe(false)
  })

  test("one who claims a contact's fingerprint with a key of their own is not them", async () => {
    // The liar's bundle says it has the contact's fingerprint.
    const { rsaPkcs8, xwingSeed } = sender
    const own = { authSeed: random(32), signSeed: random(32) }
    const liar = await identityFromKeys({ rsaPkcs8, xwingSeed, ...own })
    const { fingerprint } = sender.bundle
    const posing = { ...liar, bundle: { ...liar.bundle, fingerprint } }
    for (const mode of modes) {
      const authentication = await claimIn(await sealAs(posing, mode))
      expect(authentication.senderFingerprint).toEqual(fingerprint)
      expect(authentication.verify(sender.bundle)).toBe(false)
    }
  })

  test("one who names a contact's key as well cannot make the proof", async () => {
    for (const mode of modes) {
      const posing = { ...rsaOnly, signSeed: random(32), bundle: sender.bundle }
      const authentication = await claimIn(await sealAs(posing, mode))
      expect(authentication.senderKey).toEqual(
        mode === "deniable" ? sender.bundle.authKey : sender.bundle.signKey,
      )
      expect(authentication.verify(sender.bundle)).toBe(false)
    }
  })

  test("a recipient who forwards the payload cannot forward the proof", async () => {
    for (const mode of modes) {
      const plaintext = await plaintextOf(await sealAs(sender, mode))
      const forwarded = await craftEnvelope(rsaOnly.bundle, { plaintext })
      const authentication = await claimIn(forwarded, rsaOnly)
      expect(authentication.senderFingerprint).toEqual(sender.bundle.fingerprint)
      expect(authentication.verify(sender.bundle)).toBe(false)
    }
  })

  test("an identity without Ed25519 cannot sign", async () => {
    await expect(sealAs(rsaOnly, "signature")).rejects.toThrow(RangeError)
  })
})
