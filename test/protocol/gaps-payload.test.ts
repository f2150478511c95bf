import { expect, test } from "vitest"
import { FormatError } from "../../protocol/index.js"
import { encodePayload, parsePayload } from "../../protocol/payload.js"

test("a payload has one length: zeros that are missing or too many are another encoding", () => {
  const payload = encodePayload({
    ds: new Uint8Array(32).fill(1),
    createdMs: 0,
    threadSeq: 0,
    threadPrev: new Uint8Array(32),
  })
  expect(parsePayload(payload).fields.ds).toEqual(new Uint8Array(32).fill(1))
  for (const length of [233, 511, 513, 1024]) {
    const other = new Uint8Array(length)
    other.set(payload.subarray(0, length))
    expect(() => parsePayload(other)).toThrow(FormatError)
  }
})
