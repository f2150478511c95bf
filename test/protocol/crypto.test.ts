import { ed25519 } from "@noble/curves/ed25519.js"
import { sha512 } from "@noble/hashes/sha2.js"
import { readFileSync } from "node:fs"
import * as fc from "fast-check"
import { describe, expect, test } from "vitest"
import { provider } from "#crypto-provider"
import { argon2id } from "../../protocol/crypto/argon2id.js"
import { isGoodEd25519Key, isGoodX25519Key } from "../../protocol/crypto/points.js"
import { rsaGenerate, rsaImportPrivate, rsaUnwrap, rsaWrap } from "../../protocol/crypto/rsa.js"
import { isGoodXwingKey, xwingEncapsulate, xwingExpand } from "../../protocol/crypto/xwing.js"
import {
  concatBytes,
  FormatError,
  fromHex,
  label,
  OpenError,
  toHex,
  utf8,
} from "../../protocol/index.js"

const nothing = new Uint8Array(0)

interface Person {
  rsa_pkcs8: string
  xwing_seed: string
  bundle: string
}

// The cast: a file of this repository, of which this is the form.
const vectors = JSON.parse(
  readFileSync(new URL("../vectors/format-vectors.json", import.meta.url), "utf8"),
) as {
  people: { full: Person; wide: Person }
  deliveries: {
    random: Record<string, string>
    envelopes: { ct_rsa: string; ct_xw: string; ss_xw: string }[]
  }[]
}
const { full, wide } = vectors.people
const [delivery] = vectors.deliveries
const [envelope] = delivery?.envelopes ?? []
if (delivery === undefined || envelope === undefined) throw new Error("a vectors file with nothing")
const drawn = (name: string) => fromHex(delivery.random[name] ?? "")

function flip(bytes: Uint8Array, at: number): Uint8Array {
  const changed = bytes.slice()
  changed[at] = (changed[at] ?? 0) ^ 1
  return changed
}

describe("hashes and keys from keys", () => {
  test("SHA-256 and BLAKE3 hash the concatenation", () => {
    expect(toHex(provider.sha256(utf8("a"), nothing, utf8("bc")))).toBe(
      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    )
    expect(toHex(provider.blake3())).toBe(
      "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    )
    expect(toHex(provider.blake3(Uint8Array.of(0), Uint8Array.of(1, 2)))).toBe(
      "e1be4d7a8ab5560aa4199eea339849ba8e293d55ca0a81006726d184519e647f",
    )
  })

  test("HMAC-SHA256 of RFC 4231, test case 2", () => {
    const mac = provider.hmacSha256(utf8("Jefe"), utf8("what do ya want "), utf8("for nothing?"))
    expect(toHex(mac)).toBe("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
  })

  test("HKDF-SHA256 of RFC 5869, test cases 1 and 3", () => {
    const ikm = new Uint8Array(22).fill(11)
    const first = provider.hkdfSha256({
      ikm,
      salt: fromHex("000102030405060708090a0b0c"),
      info: fromHex("f0f1f2f3f4f5f6f7f8f9"),
      length: 42,
    })
    expect(toHex(first)).toBe(
      "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    )
    const third = provider.hkdfSha256({ ikm, salt: nothing, info: nothing, length: 42 })
    expect(toHex(third)).toBe(
      "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    )
  })

  test("scrypt of RFC 7914", async () => {
    const key = await provider.scrypt({
      password: utf8("pleaseletmein"),
      salt: utf8("SodiumChloride"),
      logN: 14,
      length: 64,
    })
    expect(toHex(key)).toBe(
      "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2" +
        "d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887",
    )
  })

  test("Argon2id of the reference implementation's own test", async () => {
    const key = await argon2id({
      password: utf8("password"),
      salt: utf8("somesalt"),
      memoryKib: 64 * 1024,
      passes: 2,
      lanes: 1,
      length: 32,
    })
    expect(toHex(key)).toBe("09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7")
  })

  test("random bytes come in any number and differ", () => {
    expect(provider.random(0)).toHaveLength(0)
    const many = provider.random(200_000)
    expect(many).toHaveLength(200_000)
    expect(many.subarray(199_900).some((byte) => byte !== 0)).toBe(true)
    expect(provider.random(32)).not.toEqual(provider.random(32))
  })
})

describe("AES", () => {
  test("GCM of the AES-GCM paper, test cases 13, 14 and 16", () => {
    const zeroKey = new Uint8Array(32)
    expect(toHex(provider.gcmSeal({ key: zeroKey, plaintext: nothing }))).toBe(
      "530f8afbc74536b9a963b4f1c4cb738b",
    )
    expect(toHex(provider.gcmSeal({ key: zeroKey, plaintext: new Uint8Array(16) }))).toBe(
      "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919",
    )
    const sealed = provider.gcmSeal({
      key: fromHex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"),
      nonce: fromHex("cafebabefacedbaddecaf888"),
      aad: fromHex("feedfacedeadbeeffeedfacedeadbeefabaddad2"),
      plaintext: fromHex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72" +
          "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
      ),
    })
    expect(toHex(sealed)).toBe(
      "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa" +
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662" +
        "76fc6ece0f4e1768cddf8853bb2d551b",
    )
  })

  test("GCM opens what it sealed and nothing else", () => {
    const key = provider.random(32)
    const aad = utf8("about")
    const plaintext = utf8("a message")
    const ciphertext = provider.gcmSeal({ key, aad, plaintext })
    expect(provider.gcmOpen({ key, aad, ciphertext })).toEqual(plaintext)
    for (let at = 0; at < ciphertext.length; at++) {
      const changed = { key, aad, ciphertext: flip(ciphertext, at) }
      expect(() => provider.gcmOpen(changed)).toThrow(OpenError)
    }
    for (let length = 0; length < ciphertext.length; length++) {
      const cut = { key, aad, ciphertext: ciphertext.subarray(0, length) }
      expect(() => provider.gcmOpen(cut)).toThrow(OpenError)
    }
    expect(() => provider.gcmOpen({ key: flip(key, 0), aad, ciphertext })).toThrow(OpenError)
    expect(() => provider.gcmOpen({ key, ciphertext })).toThrow(OpenError)
  })

  test("CTR of NIST SP 800-38A, F.5.1, from any byte of its first block", () => {
    const key = fromHex("2b7e151628aed2a6abf7158809cf4f3c")
    const iv = fromHex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    const data = fromHex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51")
    const expected = fromHex("874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff")
    expect(provider.aes128Ctr({ key, iv, data })).toEqual(expected)
    for (let skip = 1; skip < 16; skip++) {
      const rest = provider.aes128Ctr({ key, iv, skip, data: data.subarray(skip) })
      expect(rest).toEqual(expected.subarray(skip))
    }
  })

  test("CBC-MAC is the last block of CBC, NIST SP 800-38A, F.2.1", () => {
    const key = fromHex("2b7e151628aed2a6abf7158809cf4f3c")
    const iv = fromHex("000102030405060708090a0b0c0d0e0f")
    const data = fromHex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51")
    expect(toHex(provider.aes128CbcMac({ key, iv, data }))).toBe("5086cb9b507219ee95db113a917678b2")
    expect(provider.aes128CbcMac({ key, iv, data: nothing })).toEqual(iv)
  })
})

describe("X25519", () => {
  test("RFC 7748, §6.1", () => {
    const a = fromHex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    const b = fromHex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    const shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    expect(toHex(provider.x25519PublicKey(a))).toBe(
      "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
    )
    expect(toHex(provider.x25519(a, provider.x25519PublicKey(b)))).toBe(shared)
    expect(toHex(provider.x25519(b, provider.x25519PublicKey(a)))).toBe(shared)
  })

  // Every u of small order on the curve or its twist, then two of them in a second encoding.
  const lowOrder = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  ]

  test.each(lowOrder)("the low-order point %s is no key and gives no secret", (hex) => {
    expect(isGoodX25519Key(fromHex(hex))).toBe(false)
    expect(() => provider.x25519(provider.random(32), fromHex(hex))).toThrow(FormatError)
  })

  test("a secret's array that was overwritten is a new secret", () => {
    const secret = provider.random(32)
    const before = provider.x25519PublicKey(secret)
    secret.set(provider.random(32))
    expect(provider.x25519PublicKey(secret)).not.toEqual(before)
    expect(provider.x25519PublicKey(secret)).toEqual(provider.x25519PublicKey(secret.slice()))
  })

  test("a key has one encoding and one length", () => {
    const { publicKey, secret } = provider.x25519KeyPair()
    expect(isGoodX25519Key(publicKey)).toBe(true)
    const topBit = publicKey.slice()
    topBit[31] = (topBit[31] ?? 0) | 0x80
    expect(isGoodX25519Key(topBit)).toBe(false)
    expect(isGoodX25519Key(publicKey.subarray(1))).toBe(false)
    expect(() => provider.x25519(secret, publicKey.subarray(1))).toThrow(FormatError)
    expect(() => provider.x25519(secret.subarray(1), publicKey)).toThrow(RangeError)
  })
})

const little = (value: bigint) => fromHex(value.toString(16).padStart(64, "0")).reverse()
const big = (bytes: Uint8Array) => BigInt(`0x${toHex(bytes.slice().reverse())}`)

describe("Ed25519", () => {
  const seed = fromHex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
  const publicKey = provider.ed25519PublicKey(seed)
  const { Point } = ed25519
  const order = Point.Fn.ORDER
  const message = utf8("a statement")

  const challenge = (r: Uint8Array, key: Uint8Array) =>
    big(sha512(concatBytes(r, key, message))) % order

  test("RFC 8032, §7.1, test 2", () => {
    expect(toHex(publicKey)).toBe(
      "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
    )
    const signature = provider.ed25519Sign(seed, Uint8Array.of(0x72))
    expect(toHex(signature)).toBe(
      "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da" +
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    )
    expect(provider.ed25519Verify(publicKey, Uint8Array.of(0x72), signature)).toBe(true)
  })

  test("any changed byte of key, message or signature is noticed", () => {
    const signature = provider.ed25519Sign(seed, message)
    for (let at = 0; at < 64; at++) {
      expect(provider.ed25519Verify(publicKey, message, flip(signature, at))).toBe(false)
    }
    for (let at = 0; at < 32; at++) {
      expect(provider.ed25519Verify(flip(publicKey, at), message, signature)).toBe(false)
    }
    expect(provider.ed25519Verify(publicKey, flip(message, 0), signature)).toBe(false)
    expect(provider.ed25519Verify(publicKey, message, signature.subarray(1))).toBe(false)
    expect(provider.ed25519Verify(publicKey.subarray(1), message, signature)).toBe(false)
  })

  test("S has one encoding: S + L is refused", () => {
    const signature = provider.ed25519Sign(seed, message)
    const s = big(signature.subarray(32)) + order
    const second = concatBytes(signature.subarray(0, 32), little(s))
    expect(provider.ed25519Verify(publicKey, message, second)).toBe(false)
  })

  const torsion = Point.fromHex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")

  test("keys of small order are refused, with which one signature fits every message", () => {
    // R = S·B holds for whatever k when k·A vanishes, as it does for the neutral element.
    const r = Point.BASE.multiply(5n).toBytes()
    const neutral = Point.ZERO.toBytes()
    expect(provider.ed25519Verify(neutral, message, concatBytes(r, little(5n)))).toBe(false)
    let point = torsion
    for (let i = 0; i < 8; i++) {
      expect(isGoodEd25519Key(point.toBytes())).toBe(false)
      point = point.add(torsion)
    }
  })

  test("a nonce of small order is refused", () => {
    const { scalar } = ed25519.utils.getExtendedPublicKey(seed)
    const r = Point.ZERO.toBytes()
    const s = (challenge(r, publicKey) * scalar) % order
    expect(provider.ed25519Verify(publicKey, message, concatBytes(r, little(s)))).toBe(false)
  })

  test("a signature that is good only when multiplied by the cofactor is refused", () => {
    const { scalar } = ed25519.utils.getExtendedPublicKey(seed)
    const r = Point.BASE.multiply(7n).add(torsion).toBytes()
    const s = (7n + challenge(r, publicKey) * scalar) % order
    const signature = concatBytes(r, little(s))
    expect(provider.ed25519Verify(publicKey, message, signature)).toBe(false)
    // The same without the torsion is a good signature, so nothing else made it fail.
    const plain = Point.BASE.multiply(7n).toBytes()
    const good = concatBytes(plain, little((7n + challenge(plain, publicKey) * scalar) % order))
    expect(provider.ed25519Verify(publicKey, message, good)).toBe(true)
  })

  test("a key is a canonical encoding of a point on the curve", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (bytes) => {
        let onCurve = true
        try {
          onCurve = !Point.fromBytes(bytes).isSmallOrder()
        } catch {
          onCurve = false
        }
        expect(isGoodEd25519Key(bytes)).toBe(onCurve)
      }),
    )
    // y = p + 1, a second encoding of 1.
    const second = fromHex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")
    expect(isGoodEd25519Key(second)).toBe(false)
  })
})

describe("RSA-OAEP", () => {
  test("wraps to the vectors' bytes when the seed is given, and unwraps them", async () => {
    const key = await rsaImportPrivate(fromHex(full.rsa_pkcs8))
    expect(full.bundle.slice(16, 16 + 768)).toBe(toHex(key.modulus))
    const wrapped = await rsaWrap({
      modulus: key.modulus,
      label: label("wrap"),
      secret: drawn("full/r"),
      seed: drawn("full/oaep_seed"),
    })
    expect(toHex(wrapped)).toBe(envelope.ct_rsa)
    expect(await rsaUnwrap({ key, label: label("wrap"), wrapped })).toEqual(drawn("full/r"))
  })

  test("unwraps what it wrapped itself, for 4096 bits too", async () => {
    const key = await rsaImportPrivate(fromHex(wide.rsa_pkcs8))
    const secret = provider.random(32)
    const wrapped = await rsaWrap({ modulus: key.modulus, label: label("wrap"), secret })
    expect(wrapped).toHaveLength(512)
    expect(await rsaUnwrap({ key, label: label("wrap"), wrapped })).toEqual(secret)
  })

  test("another label, a changed or shortened ciphertext, and n itself all give nothing", async () => {
    const key = await rsaImportPrivate(fromHex(full.rsa_pkcs8))
    const wrapped = fromHex(envelope.ct_rsa)
    const bad = [flip(wrapped, 0), flip(wrapped, 383), wrapped.subarray(1), nothing, key.modulus]
    for (const changed of bad) {
      expect(await rsaUnwrap({ key, label: label("wrap"), wrapped: changed })).toBeUndefined()
    }
    expect(await rsaUnwrap({ key, label: label("ds"), wrapped })).toBeUndefined()
  })

  test("a new key has the size and exponent asked for", async () => {
    const { modulus } = await rsaImportPrivate(await rsaGenerate(3072))
    expect(modulus).toHaveLength(384)
    expect(modulus[0]).toBeGreaterThanOrEqual(0x80)
  })

  test("what is not a PKCS#8 RSA key is refused as bad bytes", async () => {
    const good = fromHex(full.rsa_pkcs8)
    const bad = [
      nothing,
      utf8("-----BEGIN PRIVATE KEY-----"),
      good.subarray(0, 100),
      concatBytes(good, nothing, Uint8Array.of(0)),
      // The algorithm's name, the version, the exponent.
      flip(good, 14),
      flip(good, 6),
      flip(good, good.findIndex((_, i) => toHex(good.subarray(i, i + 5)) === "0203010001") + 4),
    ]
    for (const bytes of bad) await expect(rsaImportPrivate(bytes)).rejects.toThrow(FormatError)
  })
})

describe("X-Wing", () => {
  const keys = xwingExpand(fromHex(full.xwing_seed))

  test("expands and encapsulates to the vectors' bytes", () => {
    expect(full.bundle).toContain(toHex(keys.publicKey))
    const made = xwingEncapsulate(keys.publicKey, () => drawn("full/xwing_eseed"))
    expect(toHex(made.ciphertext)).toBe(envelope.ct_xw)
    expect(toHex(made.sharedSecret)).toBe(envelope.ss_xw)
    expect(toHex(keys.decapsulate(made.ciphertext))).toBe(envelope.ss_xw)
  })

  test("the draft's own first vector", () => {
    const seed = fromHex("7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26")
    const eseed = fromHex(
      "3cb1eea988004b93103cfb0aeefd2a686e01fa4a58e8a3639ca8a1e3f9ae57e2" +
        "35b8cc873c23dc62b8d260169afa2f75ab916a58d974918835d25e6a435085b2",
    )
    const made = xwingEncapsulate(xwingExpand(seed).publicKey, () => eseed)
    expect(toHex(made.sharedSecret)).toBe(
      "d2df0522128f09dd8e2c92b1e905c793d8f57a54c3da25861f10bf4ca613e384",
    )
  })

  test("a changed ciphertext gives another secret; a wrong length or a low-order point is refused", () => {
    const { ciphertext, sharedSecret } = xwingEncapsulate(keys.publicKey)
    for (const at of [0, 1087, 1088, 1119]) {
      expect(keys.decapsulate(flip(ciphertext, at))).not.toEqual(sharedSecret)
    }
    expect(() => keys.decapsulate(ciphertext.subarray(1))).toThrow(FormatError)
    const lowOrder = concatBytes(ciphertext.subarray(0, 1088), new Uint8Array(32))
    expect(() => keys.decapsulate(lowOrder)).toThrow(FormatError)
  })

  test("a public key with a coefficient above the modulus is refused", () => {
    expect(isGoodXwingKey(keys.publicKey)).toBe(true)
    for (const start of [0, 1149]) {
      const even = keys.publicKey.slice()
      even.set([0xff, (even[start + 1] ?? 0) | 0x0f], start)
      const odd = keys.publicKey.slice()
      odd.set([(odd[start + 1] ?? 0) | 0xf0, 0xff], start + 1)
      for (const bad of [even, odd]) {
        expect(isGoodXwingKey(bad)).toBe(false)
        expect(() => xwingEncapsulate(bad)).toThrow(FormatError)
      }
    }
    expect(isGoodXwingKey(keys.publicKey.subarray(1))).toBe(false)
  })
})
