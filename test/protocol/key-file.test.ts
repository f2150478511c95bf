import { beforeAll, describe, expect, test } from "vitest"
import {
  concatBytes,
  FormatError,
  gcmSeal,
  type Identity,
  identityFileInfo,
  OpenError,
  openIdentity,
  random,
  sealIdentity,
  sha256,
  toHex,
} from "../../protocol/index.js"
import { formatVectors, identityOf } from "./vector-file.js"

/** The least work, so that these tests do little of it. */
const quick = { logN: 10 }
const passphrase = "Ame\u0301lie's long passphrase"

let full: Identity
let rsaOnly: Identity
let sealed: Uint8Array
let plain: Uint8Array
beforeAll(async () => {
  full = await identityOf(formatVectors, "full")
  rsaOnly = await identityOf(formatVectors, "rsaOnly")
  sealed = await sealIdentity(full, passphrase, quick)
  plain = await sealIdentity(full, undefined)
})

/** Changes the file and makes its digest fit again, which accident does not. */
function forged(file: Uint8Array, at: number, ...values: number[]): Uint8Array {
  const changed = file.slice(0, -32)
  changed.set(values, at < 0 ? changed.length + at : at)
  return concatBytes(changed, sha256(changed))
}

async function errorOf(opening: Promise<unknown>): Promise<unknown> {
  try {
    await opening
  } catch (error) {
    return error
  }
  throw new Error("it opened")
}

function expectSame(opened: Identity, identity: Identity): void {
  expect(toHex(opened.bundle.bytes)).toBe(toHex(identity.bundle.bytes))
  for (const name of ["rsaPkcs8", "authSeed", "xwingSeed", "signSeed"] as const) {
    expect(opened[name]).toEqual(identity[name])
  }
}

test("opening undoes sealing, with a passphrase and without, with every key and with few", async () => {
  expectSame(await openIdentity(sealed, passphrase), full)
  expectSame(await openIdentity(plain, undefined), full)
  expectSame(await openIdentity(await sealIdentity(rsaOnly, undefined), undefined), rsaOnly)
  const sealedFew = await sealIdentity(rsaOnly, "x", quick)
  expectSame(await openIdentity(sealedFew, "x"), rsaOnly)
})

test("a passphrase is the same however its accents were typed", async () => {
  expectSame(await openIdentity(sealed, passphrase.normalize("NFC")), full)
})

test("a wrong passphrase, or none, is told from a damaged file", async () => {
  for (const wrong of ["", "wrong", `${passphrase} `, undefined]) {
    expect(await errorOf(openIdentity(sealed, wrong))).toBeInstanceOf(OpenError)
  }
  for (const file of [sealed, plain]) {
    for (let at = 0; at < file.length; at += 37) {
      const damaged = file.slice()
      damaged[at] = (damaged[at] ?? 0) ^ 1
      expect(await errorOf(openIdentity(damaged, passphrase))).toBeInstanceOf(FormatError)
      const cut = file.subarray(0, at)
      expect(await errorOf(openIdentity(cut, passphrase))).toBeInstanceOf(FormatError)
    }
  }
})

test("the address can be read without the passphrase", () => {
  expect(identityFileInfo(sealed)).toMatchObject({ sealed: true })
  expect(identityFileInfo(plain)).toMatchObject({ sealed: false })
  expect(identityFileInfo(sealed).bundle.address).toBe(full.bundle.address)
})

test("the sealed file does not hold the secrets in the clear, and no two are alike", async () => {
  // PKCS#8 ends with the inverse of one prime modulo the other.
  const secrets = [full.authSeed, full.rsaPkcs8.subarray(-64, -32)].map(toHex)
  for (const secret of secrets) {
    expect(toHex(sealed).includes(secret)).toBe(false)
    expect(toHex(plain).includes(secret)).toBe(true)
  }
  const again = await sealIdentity(full, passphrase, quick)
  expect(toHex(again.subarray(8, 24))).not.toBe(toHex(sealed.subarray(8, 24)))
})

describe("a file that was changed on purpose does not open", () => {
  const secretsAt = 24 + 2 + 1672 + 2
  test("what stands in the clear is bound to what is sealed", async () => {
    // Another person's address in front of these secrets.
    const other = await identityOf(formatVectors, "sender")
    const swapped = forged(sealed, 26, ...other.bundle.bytes)
    expect(identityFileInfo(swapped).bundle.address).toBe(other.bundle.address)
    expect(await errorOf(openIdentity(swapped, passphrase))).toBeInstanceOf(OpenError)
    const swappedPlain = forged(plain, 26, ...other.bundle.bytes)
    expect(await errorOf(openIdentity(swappedPlain, undefined))).toMatchObject({
      field: "key file.bundle",
    })
    for (const at of [8, 23, secretsAt, -1]) {
      const file = forged(sealed, at, (sealed.at(at < 0 ? at - 32 : at) ?? 0) ^ 1)
      expect(await errorOf(openIdentity(file, passphrase))).toBeInstanceOf(OpenError)
    }
  })

  test.each<[string, () => Uint8Array, string]>([
    ["another magic", () => forged(sealed, 0, 0x4c), "magic"],
    ["another version", () => forged(sealed, 4, 2), "version"],
    ["an unknown flag", () => forged(sealed, 5, 3), "flags"],
    ["a work factor that would take all memory", () => forged(sealed, 6, 21), "work factor"],
    ["a work factor that is none", () => forged(sealed, 6, 9), "work factor"],
    ["a work factor without a passphrase", () => forged(plain, 6, 16), "work factor"],
    ["a reserved byte", () => forged(sealed, 7, 1), "reserved"],
    ["a salt without a passphrase", () => forged(plain, 8, 1), "salt"],
    ["a length of secrets that is too short", () => forged(plain, secretsAt - 2, 0, 1), "end"],
    ["one that is too long", () => forged(plain, secretsAt - 2, 255, 255), "secrets"],
    ["a length of PKCS#8 that is too long", () => forged(plain, secretsAt, 255, 255), "PKCS#8"],
  ])("%s", async (_, file, field) => {
    const error = await errorOf(openIdentity(file(), passphrase))
    expect(error).toMatchObject({ name: "FormatError", field: `key file.${field}` })
  })

  test("secrets that are sealed well but are no secrets", async () => {
    // Sealed by someone who knows the passphrase: the salt and work factor of the file are reused.
    const { scrypt } = await import("#crypto-provider")
    const key = await scrypt({
      password: new TextEncoder().encode(passphrase.normalize("NFC")),
      salt: sealed.subarray(8, 24),
      logN: 10,
      length: 32,
    })
    const length = sealed.length - 32 - secretsAt - 16
    const aad = sealed.subarray(0, secretsAt)
    const garbage = gcmSeal({ key, aad, plaintext: random(length) })
    const file = forged(sealed, secretsAt, ...garbage)
    expect(await errorOf(openIdentity(file, passphrase))).toBeInstanceOf(FormatError)
  })
})

test("what makes no sense to seal with is misuse", async () => {
  await expect(sealIdentity(full, "")).rejects.toThrow(RangeError)
  for (const logN of [9, 21, 10.5]) {
    await expect(sealIdentity(full, "x", { logN })).rejects.toThrow(RangeError)
  }
})
