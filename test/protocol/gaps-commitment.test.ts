import { readFileSync } from "node:fs"
import { expect, test } from "vitest"
import {
  concatBytes,
  fromHex,
  gcmSeal,
  identityFromKeys,
  OpenError,
  openEnvelope,
} from "../../protocol/index.js"
import { openLink, parseLinkFragment } from "../../protocol/link.js"

interface Sealed {
  readonly envelope: string
  readonly payload: string
  readonly kek: string
  readonly to?: string
  readonly fragment?: string
  readonly password?: string | null
}

// The vectors tell the key under the AEAD, so that it can be made to open although `com` does not fit.
const { people, deliveries } = JSON.parse(
  readFileSync("test/vectors/format-vectors.json", "utf8"),
) as {
  people: { rsaOnly: { rsa_pkcs8: string; x25519_seed: string } }
  deliveries: { envelopes: Sealed[]; links: Sealed[] }[]
}

/** The same payload under the same key, behind a commitment with its last bit changed. */
function exchangeCom({ envelope, payload, kek }: Sealed): Uint8Array {
  const aad = fromHex(envelope).slice(0, -528)
  aad[aad.length - 1] = (aad.at(-1) ?? 0) ^ 1
  const plaintext = concatBytes(fromHex(payload), new Uint8Array(512 - payload.length / 2))
  return concatBytes(aad, gcmSeal({ key: fromHex(kek), aad, plaintext }))
}

test("T37 an envelope whose commitment is another does not open, although its AEAD would", async () => {
  const sealed = deliveries.flatMap(({ envelopes }) => envelopes).find(({ to }) => to === "rsaOnly")
  if (sealed === undefined) throw new TypeError("there is no envelope to rsaOnly")
  const { rsa_pkcs8, x25519_seed } = people.rsaOnly
  const identity = await identityFromKeys({
    rsaPkcs8: fromHex(rsa_pkcs8),
    authSeed: fromHex(x25519_seed),
    xwingSeed: undefined,
    signSeed: undefined,
  })
  const honest = fromHex(sealed.envelope)
  const headerHash = honest.subarray(8, 40)
  await expect(openEnvelope({ identity, envelope: honest, headerHash })).resolves.toBeDefined()
  const envelope = exchangeCom(sealed)
  await expect(openEnvelope({ identity, envelope, headerHash })).rejects.toThrow(OpenError)
})

test("T37 a link whose commitment is another does not open, although its AEAD would", async () => {
  const sealed = deliveries.flatMap(({ links }) => links).find(({ password }) => password === null)
  if (sealed === undefined) throw new TypeError("there is no link without a password")
  const secret = parseLinkFragment(sealed.fragment ?? "")
  const honest = fromHex(sealed.envelope)
  const headerHash = honest.subarray(24, 56)
  await expect(openLink({ secret, envelope: honest, headerHash })).resolves.toBeDefined()
  const envelope = exchangeCom(sealed)
  await expect(openLink({ secret, envelope, headerHash })).rejects.toThrow(OpenError)
})
