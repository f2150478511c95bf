// Identities for tests, from the vectors: making an RSA key takes longer than a test should.
import { readFileSync } from "node:fs"
import { fromHex, type Identity, identityFromKeys } from "../../protocol/index.js"
import type { PersonVector } from "../protocol/vector-file.js"

const vectors: { readonly people: Record<string, PersonVector> } = JSON.parse(
  readFileSync("test/vectors/format-vectors.json", "utf8"),
)

/** The names in the vectors, in order. */
export const people: readonly string[] = Object.keys(vectors.people)

export async function personAt(at: number): Promise<Identity> {
  const person = vectors.people[people[at] ?? ""]
  if (person === undefined) throw new RangeError("nobody there")
  return identityFromKeys({
    rsaPkcs8: fromHex(person.rsa_pkcs8),
    authSeed: fromHex(person.x25519_seed),
    xwingSeed: optional(person.xwing_seed),
    signSeed: optional(person.ed25519_seed),
  })
}

function optional(hex: string | null): Uint8Array | undefined {
  return hex === null ? undefined : fromHex(hex)
}
