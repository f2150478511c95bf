import { readFileSync } from "node:fs"
import * as fc from "fast-check"
import { expect, test } from "vitest"
import {
  applyCtr,
  KIB,
  paddedBodyLength,
  paddedManifestLength,
  paddingBytes,
  padme,
} from "../../protocol/index.js"

test("padding adds under 12 % and never takes away, up to 2^36", () => {
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 2 ** 36 }), (length) => {
      const padded = padme(length)
      expect(padded).toBeGreaterThanOrEqual(length)
      expect(padded).toBeLessThan(length * 1.12)
      expect(padme(padded)).toBe(padded)
      expect(padme(length - 1)).toBeLessThanOrEqual(padded)
    }),
    { numRuns: 1000 },
  )
})

test.each([
  [0, 0],
  [1, 1],
  [9, 10],
  [1000, 1024],
  [1025, 1088],
  [2 ** 32 - 1, 2 ** 32],
  [2 ** 32 + 1, 2 ** 32 + 2 ** 26],
  [2 ** 36 - 1, 2 ** 36],
  [2 ** 36, 2 ** 36],
])("%i bytes become %i", (length, padded) => {
  expect(padme(length)).toBe(padded)
})

test("a length is a whole number and not negative", () => {
  expect(() => padme(-1)).toThrow(RangeError)
  expect(() => padme(1.5)).toThrow(RangeError)
})

test("bodies and manifests have a floor", () => {
  expect(paddedBodyLength(0)).toBe(16 * KIB)
  expect(paddedBodyLength(16 * KIB + 1)).toBe(17 * KIB)
  expect(paddedManifestLength(24)).toBe(4 * KIB)
})

test("lengths of the format's vectors", () => {
  // The cast: a file of this repository, of which this is the form.
  const { deliveries } = JSON.parse(
    readFileSync(new URL("../vectors/format-vectors.json", import.meta.url), "utf8"),
  ) as {
    deliveries: {
      content_len: number
      body_len: number
      manifest_plain_used: string
      manifest_plain_len: number
    }[]
  }
  for (const delivery of deliveries) {
    expect(paddedBodyLength(delivery.content_len)).toBe(delivery.body_len)
    const used = delivery.manifest_plain_used.length / 2
    expect(paddedManifestLength(used)).toBe(delivery.manifest_plain_len)
  }
})

test("padding bytes are the padding key's keystream, wherever one starts", () => {
  const key = Uint8Array.from({ length: 24 }, (_, i) => i)
  const whole = paddingBytes({ key, offset: 0, length: 1000 })
  expect(whole).toEqual(
    applyCtr({
      key: key.subarray(0, 16),
      nonce: key.subarray(16),
      offset: 0,
      data: new Uint8Array(1000),
    }),
  )
  expect(paddingBytes({ key, offset: 333, length: 500 })).toEqual(whole.subarray(333, 833))
})
