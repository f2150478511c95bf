/** T11: reading around every border of the grid from a relay that fails now and then. */
import { describe, expect, test } from "vitest"
import { Untrustworthy } from "../../client/index.js"
import { gridCount, gridOffset, KIB, MIB } from "../../protocol/index.js"
import { digest, patternBytes } from "../client/folders.js"
import { makeDelivery } from "../client/made-delivery.js"
import { makeSetting } from "../client/setting.js"
import type { Answer } from "../client/small-relay.js"

const lead = patternBytes(333_333, 1)
const file = patternBytes(4608 * KIB + MIB + 4321, 2)

/** What a faulty relay, or what is between it and us, makes of an answer. */
const faults: Record<string, (answer: Answer) => Answer> = {
  "a flipped bit": (answer) => ({
    ...answer,
    body: answer.body.map((byte, at) => (at === answer.body.length >> 1 ? byte ^ 4 : byte)),
  }),
  "other bytes of the same length": (answer) => ({
    ...answer,
    body: answer.body.map((byte) => byte ^ 255),
  }),
  "a piece left out": (answer) => ({
    ...answer,
    body: Buffer.concat([
      answer.body.subarray(0, 100),
      answer.body.subarray(116),
      new Uint8Array(16),
    ]),
  }),
  "an earlier range": (answer) => ({
    ...answer,
    headers: { ...answer.headers, "content-range": "bytes 0-9/10" },
  }),
}

async function delivered() {
  const setting = await makeSetting()
  const { relay, identity } = setting
  const made = await makeDelivery({ relay, recipient: identity.bundle, files: { lead, file } })
  const { read } = await (await setting.open()).open(made.id)
  return { relay, read }
}

/** Offsets and lengths that end, begin and lie across each border, by one byte either way. */
function wantedPieces(): { offset: number; length: number }[] {
  const pieces: { offset: number; length: number }[] = []
  for (let chunk = 0; chunk <= gridCount(file.length); chunk++) {
    const border = Math.min(gridOffset(chunk), file.length)
    for (const offset of [border - 1, border, border + 1]) {
      for (const length of [1, 2, 3]) {
        if (offset >= 0 && offset + length <= file.length) pieces.push({ offset, length })
      }
    }
  }
  return pieces
}

describe("T11 reading a piece", () => {
  test("gives exactly those bytes, around every border", async () => {
    const { read } = await delivered()
    for (const { offset, length } of wantedPieces()) {
      const piece = await read({ entry: 1, offset, length })
      expect([...piece]).toEqual([...file.subarray(offset, offset + length)])
    }
  })

  test("gives a whole file as well, and nothing of none", async () => {
    const { read } = await delivered()
    expect(digest(await read({ entry: 1, offset: 0, length: file.length }))).toBe(digest(file))
    expect(await read({ entry: 1, offset: 17, length: 0 })).toHaveLength(0)
  })

  test("beyond the end is a mistake of the caller's", async () => {
    const { read } = await delivered()
    await expect(read({ entry: 1, offset: file.length, length: 1 })).rejects.toThrow(RangeError)
    await expect(read({ entry: 1, offset: -1, length: 1 })).rejects.toThrow(RangeError)
    await expect(read({ entry: 2, offset: 0, length: 1 })).rejects.toThrow(RangeError)
  })

  for (const [what, fault] of Object.entries(faults)) {
    test(`gives the right bytes or an error, never wrong bytes, with ${what} in every third answer`, async () => {
      const { relay, read } = await delivered()
      let answers = 0
      relay.change = (asked, answer) =>
        asked.path.endsWith("/body") && ++answers % 3 === 0 ? fault(answer) : answer
      let [right, refused] = [0, 0]
      for (const { offset, length } of wantedPieces()) {
        try {
          const piece = await read({ entry: 1, offset, length })
          expect([...piece]).toEqual([...file.subarray(offset, offset + length)])
          right++
        } catch (error) {
          expect(error).toBeInstanceOf(Untrustworthy)
          refused++
        }
      }
      expect(refused).toBe(Math.floor(answers / 3))
      expect(right).toBeGreaterThan(refused)
    })
  }
})
