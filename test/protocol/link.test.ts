import { beforeAll, describe, expect, test } from "vitest"
import {
  concatBytes,
  encodeLinkFragment,
  encodeLinkUrl,
  FormatError,
  fromHex,
  gcmSeal,
  type Identity,
  label,
  linkAccess,
  OpenError,
  openLink,
  parseLink,
  parseLinkFragment,
  parseLinkUrl,
  type PayloadFields,
  random,
  sealLink,
  toHex,
  utf8,
} from "../../protocol/index.js"
import { deriveLinkKeys } from "../../protocol/link.js"
import { encodePayload, tagPayload } from "../../protocol/payload.js"
import { noThread } from "./sealed-delivery.js"
import { formatVectors, identityOf } from "./vector-file.js"

const headerHash = random(32)
const payload: PayloadFields = { ...noThread, ds: random(32) }

let sender: Identity
beforeAll(async () => {
  sender = await identityOf(formatVectors, "sender")
})

async function expectOpenError(opening: Promise<unknown>): Promise<void> {
  await expect(opening).rejects.toThrow(new OpenError())
  await expect(opening).rejects.toBeInstanceOf(OpenError)
}

describe("opening undoes sealing", () => {
  test.each([undefined, "", "pass word", "Ame\u0301lie"])("with password %j", async (password) => {
    const { secret, envelope } = await sealLink({ headerHash, payload, password })
    expect(envelope).toHaveLength(616)
    expect(parseLink(envelope).hasPassword).toBe(password !== undefined && password !== "")
    const opened = await openLink({ secret, password, envelope, headerHash })
    expect(opened).toEqual({ payload, authentication: { mode: "none" } })
  })

  test("signed", async () => {
    const { secret, envelope } = await sealLink({ headerHash, payload, signer: sender })
    const { authentication } = await openLink({ secret, envelope, headerHash })
    if (authentication.mode === "none") throw new Error("it names no sender")
    expect(authentication.verify(sender.bundle)).toBe(true)
    expect(authentication.verify((await identityOf(formatVectors, "full")).bundle)).toBe(false)
  })
})

test("a wrong secret, password, or header does not open, nor does a password left out", async () => {
  const { secret, envelope } = await sealLink({ headerHash, payload, password: "right" })
  const good = { secret, password: "right", envelope, headerHash }
  await expectOpenError(openLink({ ...good, secret: random(32) }))
  await expectOpenError(openLink({ ...good, headerHash: random(32) }))
  for (const password of ["wrong", "right ", "", undefined]) {
    await expectOpenError(openLink({ ...good, password }))
  }
  const bare = await sealLink({ headerHash, payload })
  await openLink({ ...bare, password: "not needed", headerHash })
})

test("T04 a link with any byte flipped, or cut at any length, does not open", async () => {
  const { secret, envelope: whole } = await sealLink({ headerHash, payload })
  for (let at = 0; at < whole.length; at++) {
    // With the password flag set, the missing password refuses it.
    const envelope = whole.slice()
    envelope[at] = (envelope[at] ?? 0) ^ (1 << (at % 8))
    await expectOpenError(openLink({ secret, envelope, headerHash }))
    const cut = whole.subarray(0, at)
    await expectOpenError(openLink({ secret, envelope: cut, headerHash }))
  }
  const longer = concatBytes(whole, Uint8Array.of(0))
  await expectOpenError(openLink({ secret, envelope: longer, headerHash }))
})

test("the password flag is part of the key: taking it off does not open the rest", async () => {
  const { secret, envelope } = await sealLink({ headerHash, payload, password: "x" })
  envelope[5] = 0
  await expectOpenError(openLink({ secret, envelope, headerHash }))
})

test("a deniable sender in a link is refused, for there is nobody it could convince", async () => {
  const secret = random(32)
  const salt = random(16)
  const { kek, com } = await deriveLinkKeys({ secret, password: undefined, salt, headerHash })
  const plaintext = encodePayload(payload)
  const recipientFingerprint = new Uint8Array(32)
  tagPayload(plaintext, sender, sender.bundle.authKey, { recipientFingerprint, headerHash, com })
  const aad = concatBytes(utf8("KNHL"), Uint8Array.of(1, 0, 0, 0), salt, headerHash, com)
  const envelope = concatBytes(aad, gcmSeal({ key: kek, aad, plaintext }))
  await expectOpenError(openLink({ secret, envelope, headerHash }))
})

test("the access key says nothing of the secret it comes from, and differs for each link", () => {
  const secret = random(32)
  const one = linkAccess({ secret, linkId: random(16) })
  expect(one).toHaveLength(32)
  expect(toHex(one)).not.toBe(toHex(linkAccess({ secret, linkId: random(16) })))
  expect(label("link")).toHaveLength(16)
})

describe("the URL", () => {
  const linkId = fromHex("00112233445566778899aabbccddeeff")
  const secret = new Uint8Array(32).fill(0xfb)
  const url = `https://relay.example:8443/l/${toHex(linkId)}#v1.${"-_v7".repeat(10)}-_s`

  test("comes back, also with a rewritten #", () => {
    expect(encodeLinkUrl({ host: "relay.example:8443", linkId, secret })).toBe(url)
    const parts = { host: "relay.example:8443", linkId, secret }
    expect(parseLinkUrl(url)).toEqual(parts)
    expect(parseLinkUrl(url.replace("#", "%23"))).toEqual(parts)
    expect(url.length).toBeLessThan(350)
    expect(encodeLinkUrl({ host: "localhost:8787", linkId, secret })).toMatch(/^http:/)
  })

  test.each([
    ["upper case in the id", url.replace("aabb", "AABB")],
    ["a short id", url.replace("0011", "")],
    ["no fragment", url.replace(/#.*/, "")],
    ["another version", url.replace("#v1.", "#v2.")],
    ["a secret cut short", url.slice(0, -1)],
    ["a secret with a character too many", `${url}A`],
    ["a secret in another spelling", `${url.slice(0, -1)}t`],
    ["plain http", url.replace("https", "http")],
    ["a query", url.replace("#", "?x#")],
  ])("with %s is refused", (_, text) => {
    expect(() => parseLinkUrl(text)).toThrow(FormatError)
  })

  test("a fragment alone parses to the secret", () => {
    expect(parseLinkFragment(encodeLinkFragment(secret))).toEqual(secret)
    expect(() => parseLinkFragment("")).toThrow(FormatError)
  })
})
