import * as fc from "fast-check"
import { expect, test } from "vitest"
import {
  ByteReader,
  concatBytes,
  equalBytes,
  FormatError,
  fromBase64url,
  fromHex,
  isZero,
  parseUtf8,
  toBase64url,
  toHex,
  u16,
  u32,
  u64,
  utf8,
} from "../../protocol/index.js"

const bytes = fc.uint8Array({ maxLength: 100 })

test("base64url and hex come back as they were and agree with Node's own", () => {
  fc.assert(
    fc.property(bytes, (b) => {
      expect(toBase64url(b)).toBe(Buffer.from(b).toString("base64url"))
      expect(toHex(b)).toBe(Buffer.from(b).toString("hex"))
      expect(fromBase64url(toBase64url(b))).toEqual(b)
      expect(fromHex(toHex(b))).toEqual(b)
    }),
  )
})

test("a text is base64url only if it is the one encoding of its bytes", () => {
  const alphabet = "ABab01-_+/= \nÄ"
  const text = fc.string({ unit: fc.constantFrom(...alphabet.split("")), maxLength: 9 })
  fc.assert(
    fc.property(text, (t) => {
      const canonical = Buffer.from(t, "base64url").toString("base64url") === t
      if (canonical) expect(toBase64url(fromBase64url(t))).toBe(t)
      else expect(() => fromBase64url(t)).toThrow(FormatError)
    }),
    { numRuns: 2000 },
  )
})

test.each(["A", "AAAAA", "AB", "AAB", "AA==", "AA+A", "AA/A", "A A=", " AAA", "AAA\n", "ÄAAA"])(
  "base64url refuses %j",
  (text) => {
    expect(() => fromBase64url(text)).toThrow(FormatError)
  },
)

test.each(["0", "0G", "AB", "aB", " 0", "0x", "é0"])("hex refuses %j", (text) => {
  expect(() => fromHex(text)).toThrow(FormatError)
})

test("integers are big-endian and hold what they are given", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 0xffff }),
      fc.integer({ min: 0, max: 0xffffffff }),
      fc.maxSafeNat(),
      (a, b, c) => {
        const written = concatBytes(u16(a), u32(b), u64(c))
        const expected = Buffer.alloc(14)
        expected.writeUInt16BE(a)
        expected.writeUInt32BE(b, 2)
        expected.writeBigUInt64BE(BigInt(c), 6)
        expect(written).toEqual(new Uint8Array(expected))
        const reader = new ByteReader(written, "test")
        expect([reader.u16("a"), reader.u32("b"), reader.u64("c")]).toEqual([a, b, c])
        reader.end()
      },
    ),
  )
})

test("an integer out of its range is misuse", () => {
  expect(() => u16(0x10000)).toThrow(RangeError)
  expect(() => u32(-1)).toThrow(RangeError)
  expect(() => u32(0.5)).toThrow(RangeError)
  expect(() => u64(2 ** 53)).toThrow(RangeError)
})

const read = (hex: string) => new ByteReader(fromHex(hex), "test").u64("n")

test("a u64 above 2^53 - 1 is refused", () => {
  expect(read("001fffffffffffff")).toBe(Number.MAX_SAFE_INTEGER)
  expect(() => read("0020000000000000")).toThrow(FormatError)
  expect(() => read("ffffffffffffffff")).toThrow(FormatError)
})

const reader = () => new ByteReader(utf8("KNHX\x01\x00\x07"), "thing")
const field = (run: () => unknown) => {
  try {
    run()
  } catch (error) {
    if (error instanceof FormatError) return error.field
  }
  return undefined
}

test("the reader names the field where bytes are missing, wrong or left over", () => {
  expect(field(() => reader().expectAscii("KNHY", "magic"))).toBe("thing.magic")
  expect(field(() => reader().take(8, "body"))).toBe("thing.body")
  const started = reader()
  started.expectAscii("KNHX", "magic")
  expect(started.offset).toBe(4)
  expect(field(() => started.expectU8(2, "version"))).toBe("thing.version")
  expect(field(() => started.zeros(2, "reserved"))).toBe("thing.reserved")
  expect(field(() => started.u16("count"))).toBe("thing.count")
  expect(field(() => reader().end())).toBe("thing.end")
})

test("the reader stays inside a view of a larger buffer", () => {
  const whole = Uint8Array.from({ length: 16 }, (_, i) => i)
  const reader = new ByteReader(whole.subarray(4, 8), "view")
  expect(reader.u32("word")).toBe(0x04050607)
  expect(() => reader.u8("beyond")).toThrow(FormatError)
})

test("only whole Unicode becomes UTF-8, and only UTF-8 becomes text", () => {
  expect(() => utf8("\ud800")).toThrow(RangeError)
  expect(() => parseUtf8(fromHex("c0af"), "note")).toThrow(FormatError)
  expect(() => parseUtf8(fromHex("eda080"), "note")).toThrow(FormatError)
  expect(parseUtf8(fromHex("efbbbf61"), "note")).toBe("\ufeffa")
})

test("comparison tells equal bytes from all others", () => {
  fc.assert(
    fc.property(bytes, bytes, (a, b) => {
      expect(equalBytes(a, a.slice())).toBe(true)
      expect(equalBytes(a, b)).toBe(Buffer.compare(a, b) === 0)
      expect(isZero(a)).toBe(a.every((byte) => byte === 0))
    }),
  )
})
