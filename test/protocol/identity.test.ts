import { bech32 } from "@scure/base"
import * as fc from "fast-check"
import { describe, expect, test } from "vitest"
import {
  createIdentity,
  encodeAddress,
  fingerprintWords,
  FormatError,
  fromHex,
  hostOf,
  identityFromKeys,
  isBundleOf,
  originOf,
  parseAddress,
  parseBundle,
  random,
  toHex,
} from "../../protocol/index.js"
import { formatVectors, identityOf, named } from "./vector-file.js"

const people = formatVectors.people
const address = named(people, "full").address
const alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"

function refusal(parse: () => unknown): FormatError {
  try {
    parse()
  } catch (error) {
    if (error instanceof FormatError) return error
    throw error
  }
  throw new Error("nothing was refused")
}

/** A copy with other bytes at one place, counted from the end when negative. */
function changed(bytes: Uint8Array, at: number, ...values: number[]): Uint8Array {
  const copy = bytes.slice()
  copy.set(values, at < 0 ? copy.length + at : at)
  return copy
}

describe("bundles", () => {
  const full = fromHex(named(people, "full").bundle)
  const rsaOnly = fromHex(named(people, "rsaOnly").bundle)
  const modulusAt = 8
  const authAt = modulusAt + 384
  const xwingAt = authAt + 32

  test.each([
    ["another magic", changed(full, 0, 0x4c), "magic"],
    ["another version", changed(full, 4, 2), "version"],
    ["an unknown flag", changed(full, 5, 7), "flags"],
    ["a modulus of 2048 bits", changed(full, 6, 1, 0), "modulus length"],
    ["a modulus of 3080 bits", changed(full, 6, 1, 129), "modulus length"],
    ["a modulus of 8192 bits", changed(full, 6, 4, 0), "modulus length"],
    ["a modulus without its top bit", changed(full, modulusAt, 0x7f), "modulus"],
    ["an even modulus", changed(full, authAt - 1, 0), "modulus"],
    ["a trailing byte", new Uint8Array([...full, 0]), "end"],
    ["a missing byte", full.subarray(0, -1), "Ed25519 key"],
    ["a flag for a key that is not there", changed(rsaOnly, 5, 2), "Ed25519 key"],
    ["a key whose flag is not set", changed(full, 5, 1), "end"],
    ["an ML-KEM coefficient that is not reduced", changed(full, xwingAt, 255, 255), "X-Wing key"],
  ])("%s is refused", (_, bytes, field) => {
    expect(refusal(() => parseBundle(bytes)).field).toBe(`bundle.${field}`)
  })

  const ff = "ff".repeat(30)
  test.each([
    ["zero", "00".repeat(32)],
    ["one", `01${"00".repeat(31)}`],
    ["order 8", "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"],
    ["the other of order 8", "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"],
    ["p - 1", `ec${ff}7f`],
    ["p, which is zero again", `ed${ff}7f`],
    ["p + 1, which is one again", `ee${ff}7f`],
    ["a set top bit", `09${"00".repeat(30)}80`],
  ])("an X25519 key that is %s is refused, as auth key and inside X-Wing", (_, key) => {
    const bytes = fromHex(key)
    const error = refusal(() => parseBundle(changed(full, authAt, ...bytes)))
    expect(error.field).toBe("bundle.auth key")
    const inXwing = changed(full, xwingAt + 1184, ...bytes)
    expect(refusal(() => parseBundle(inXwing)).field).toBe("bundle.X-Wing key")
  })

  test.each([
    ["the neutral point", `01${"00".repeat(31)}`],
    ["the neutral point with a sign", `01${"00".repeat(30)}80`],
    ["order 2", `ec${ff}7f`],
    ["order 4", "00".repeat(32)],
    ["order 4 with a sign", `${"00".repeat(31)}80`],
    ["order 8", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"],
    ["order 8 with a sign", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"],
    ["another of order 8", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"],
    ["not canonical", `ee${ff}7f`],
    ["not on the curve", `02${"00".repeat(31)}`],
  ])("an Ed25519 key that is %s is refused", (_, key) => {
    const error = refusal(() => parseBundle(changed(full, -32, ...fromHex(key))))
    expect(error.field).toBe("bundle.Ed25519 key")
  })

  test("T02 another person's bundle is not the one an address names", async () => {
    const { bundle } = await identityOf(formatVectors, "full")
    const other = (await identityOf(formatVectors, "sender")).bundle
    const { inboxId } = parseAddress(address)
    expect(isBundleOf(bundle, inboxId)).toBe(true)
    expect(isBundleOf(other, inboxId)).toBe(false)
  })

  test("a parsed bundle does not change with the bytes it came from", () => {
    const bytes = full.slice()
    const bundle = parseBundle(bytes)
    bytes.fill(0)
    expect(toHex(bundle.bytes)).toBe(toHex(full))
  })
})

describe("identities", () => {
  test("a new one has every key, and the same secrets make it again", async () => {
    const identity = await createIdentity()
    expect(identity.bundle.modulus).toHaveLength(384)
    expect(identity.bundle.xwingKey).toHaveLength(1216)
    expect(identity.bundle.signKey).toHaveLength(32)
    const again = await identityFromKeys(identity)
    expect(toHex(again.bundle.bytes)).toBe(toHex(identity.bundle.bytes))
  })

  test("a seed of a wrong length is misuse, and a key that is none is refused", async () => {
    const { expanded: _, bundle: __, ...keys } = await identityOf(formatVectors, "full")
    const authSeed = keys.authSeed.subarray(1)
    await expect(identityFromKeys({ ...keys, authSeed })).rejects.toThrow(RangeError)
    const rsaPkcs8 = keys.rsaPkcs8.subarray(0, -1)
    await expect(identityFromKeys({ ...keys, rsaPkcs8 })).rejects.toThrow(FormatError)
  })

  test("the words are the fingerprint's first 88 bits", () => {
    expect(fingerprintWords(new Uint8Array(32))).toEqual(Array(8).fill("abandon"))
    expect(fingerprintWords(new Uint8Array(32).fill(255))).toEqual(Array(8).fill("zoo"))
    // The numbers 1 to 8, 11 bits each.
    const bits = [1, 2, 3, 4, 5, 6, 7, 8].map((n) => n.toString(2).padStart(11, "0")).join("")
    const counted = fromHex(BigInt(`0b${bits}`).toString(16).padStart(22, "0"))
    const first8 = ["ability", "able", "about", "above", "absent", "absorb", "abstract", "absurd"]
    expect(fingerprintWords(counted)).toEqual(first8)
  })
})

describe("addresses", () => {
  test("any inbox id comes back from its address, and from the link to its drop page", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 20, maxLength: 20 }), (inboxId) => {
        const text = encodeAddress(inboxId)
        expect(text).toHaveLength(43)
        const parsed = { inboxId, address: text }
        expect(parseAddress(text)).toEqual({ ...parsed, host: undefined })
        const withHost = { ...parsed, host: "relay.example:8443" }
        expect(encodeAddress(inboxId, withHost.host)).toBe(`${text}@relay.example:8443`)
        expect(parseAddress(`${text}@relay.example:8443`)).toEqual(withHost)
        expect(parseAddress(`https://relay.example:8443/to/${text}`)).toEqual(withHost)
        expect(parseAddress(`https://relay.example:8443/to/${text}/`)).toEqual(withHost)
      }),
      { numRuns: 50 },
    )
  })

  test("every single wrong character is found, and mostly the right one offered", () => {
    let offered = 0
    let tried = 0
    for (let at = 5; at < address.length; at++) {
      const right = address.charAt(at)
      for (const wrong of alphabet.replace(right, "").slice(0, 8)) {
        const text = address.slice(0, at) + wrong + address.slice(at + 1)
        const { message } = refusal(() => parseAddress(text))
        tried++
        if (message.includes(`character ${at + 1} is "${wrong}" where "${right}" would fit`)) {
          offered++
        } else {
          expect(message).toContain("swapped")
        }
      }
    }
    expect(offered).toBeGreaterThan(tried - 20)
  })

  test("two neighbours that changed places are named", () => {
    for (let at = 5; at + 1 < address.length; at++) {
      const [a, b] = [address.charAt(at), address.charAt(at + 1)]
      if (a === b) continue
      const text = address.slice(0, at) + b + a + address.slice(at + 2)
      expect(refusal(() => parseAddress(text)).message).toContain(
        `characters ${at + 1} and ${at + 2}, "${b}${a}", look swapped`,
      )
    }
  })

  const at9 = address.slice(0, 9)
  test.each([
    ["upper case", address.toUpperCase(), "upper case"],
    [
      "mixed case",
      at9 + address.slice(9).replace(/[a-z]/, (c) => c.toUpperCase()),
      "is upper case",
    ],
    ["another prefix", `age1${address.slice(5)}`, "begins with knot1"],
    ["a mistyped prefix", `kn0t1${address.slice(5)}`, 'character 3 is "0" where "o" belongs'],
    ["nothing", "", "begins with knot1"],
    [
      "a character left out",
      at9 + address.slice(10),
      `"${address[9]}" is missing after character 9`,
    ],
    ["a character too many", `${at9}z${address.slice(9)}`, 'character 10, "z", is extra'],
    ["the end cut off", address.slice(0, 30), "30 characters where an address has 43; the end"],
    ["far too much", address + address.slice(5), "something too much"],
    ["an o for another character", `${at9}o${address.slice(10)}`, 'character 10, "o", does not'],
    ["one outside ASCII", `${at9}\u202e${address.slice(10)}`, "character 10, U+202E, does not"],
    ["a space in front", ` ${address}`, "begins with knot1"],
    ["much that is wrong", `${at9}qqqqqqqq${address.slice(17)}`, "more than one character"],
    ["a link to something else", `https://relay.example/l/${address}`, "https://host/to/knot1"],
    ["a link with a query", `https://relay.example/to/${address}?x`, "https://host/to/knot1"],
    ["another scheme", `ftp://relay.example/to/${address}`, "https://host/to/knot1"],
    ["a link by http", `http://relay.example/to/${address}`, "use https"],
    ["a link with a login", `https://a@relay.example/to/${address}`, "host"],
  ])("%s is refused with a reason", (_, text, reason) => {
    expect(refusal(() => parseAddress(text)).message).toContain(reason)
  })

  test("the one character that fits is offered for one that never occurs", () => {
    const text = `${at9}o${address.slice(10)}`
    expect(refusal(() => parseAddress(text)).message).toContain(`"${address[9]}" would fit`)
  })

  test("the older bech32 checksum is not accepted", () => {
    const { inboxId } = parseAddress(address)
    const older = bech32.encode("knot", bech32.toWords(inboxId))
    expect(older.slice(0, -6)).toBe(address.slice(0, -6))
    expect(() => parseAddress(older)).toThrow(FormatError)
  })

  test("random text never parses", () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 60 }), (text) => {
        expect(() => parseAddress(text)).toThrow(FormatError)
      }),
    )
  })
})

describe("hosts", () => {
  test.each([
    ["relay.example", "https://relay.example"],
    ["relay.example:8443", "https://relay.example:8443"],
    ["relay.example:80", "https://relay.example:80"],
    ["192.0.2.7", "https://192.0.2.7"],
    ["[2001:db8::7]:8443", "https://[2001:db8::7]:8443"],
    ["my_relay", "https://my_relay"],
    ["localhost", "http://localhost"],
    ["localhost:8787", "http://localhost:8787"],
    ["127.0.0.1:8787", "http://127.0.0.1:8787"],
    ["127.255.0.3", "http://127.255.0.3"],
    ["[::1]:8787", "http://[::1]:8787"],
    ["knotabc.onion", "http://knotabc.onion"],
    ["knotabc.onion:443", "http://knotabc.onion:443"],
    ["localhost.example", "https://localhost.example"],
    ["127.0.0.1.example", "https://127.0.0.1.example"],
  ])("%s is reached at %s, and back", (host, origin) => {
    expect(originOf(host)).toBe(origin)
    expect(hostOf(origin)).toBe(host)
    expect(hostOf(`${origin}/`)).toBe(host)
  })

  test("a default port is left out, and capitals are made small", () => {
    expect(originOf("relay.example:443")).toBe("https://relay.example")
    expect(originOf("localhost:80")).toBe("http://localhost")
    expect(hostOf("https://relay.example:443")).toBe("relay.example")
    expect(encodeAddress(random(20), "Relay.Example")).toMatch(/@relay\.example$/)
  })

  test.each([
    "",
    "relay example",
    "relay/example",
    "user@relay.example",
    "relay.example:",
    "relay.example:65536",
    "relay.example:08443",
    "relay.example?x",
    "relay.example#x",
    "127.1",
    "0x7f.0.0.1",
    "127.0.0.1:080",
    "[::0001]",
    "[::1",
    "2001:db8::7",
    "bücher.example",
    "r".repeat(256),
  ])("%j is no host", (host) => {
    expect(() => originOf(host)).toThrow(FormatError)
  })

  test.each([
    "http://relay.example",
    "https://localhost",
    "https://knotabc.onion",
    "https://relay.example/x",
    "https://relay.example//",
    "ftp://relay.example",
    "relay.example",
    "",
  ])("%j is no origin of a relay", (origin) => {
    expect(() => hostOf(origin)).toThrow(FormatError)
  })
})
