import path from "node:path"
import { describe, expect, test } from "vitest"
import { createTargets, fuzzFixed } from "./fuzzing.js"
import { Draws } from "./random.js"
import { loadSubject, readVectors, type Subject } from "./subject.js"
import { recordTargets } from "./targets/records.js"
import { messageTargets } from "./targets/messages.js"

const subject = await loadSubject((name) => import(path.resolve(`${name}.ts`)) as Promise<unknown>)
const targets = await createTargets(subject)

describe("a short slice of the fuzzing, the same inputs each time", () => {
  test.each(targets)("$name: hostile input is refused or means one thing", async (target) => {
    const { findings, tallies } = await fuzzFixed([target], "short", 200)
    expect(findings).toEqual([])
    expect(tallies[0]?.accepted).toBeGreaterThan(0)
  })
})

/** What a target finds when part of what it tests is another. */
async function found(changed: Partial<Subject>, name: string): Promise<readonly string[]> {
  const other = { ...subject, ...changed }
  const vectors = readVectors()
  const all = [...recordTargets(other, vectors), ...messageTargets(other, vectors)]
  const one = all.filter((target) => target.name === name)
  const { findings } = await fuzzFixed(one, "short", 200)
  return findings.map(({ problem }) => problem)
}

describe("the fuzzer's own oracles", () => {
  test("a second encoding is a finding", async () => {
    const { parseTombstone } = subject.records
    const lax = (bytes: Uint8Array) => parseTombstone(bytes.subarray(0, 89))
    const problems = await found(
      { records: { ...subject.records, parseTombstone: lax } },
      "tombstone",
    )
    expect(problems).not.toEqual([])
    expect(problems.join()).toMatch("from the 90 accepted")
  })

  test("an error that is not documented is a finding", async () => {
    const parseFinish = (bytes: Uint8Array) => {
      if (bytes.length < 8) throw new RangeError("offset out of range")
      return subject.messages.parseFinish(bytes)
    }
    const problems = await found({ messages: { ...subject.messages, parseFinish } }, "finish")
    expect(problems.join()).toMatch("RangeError: offset out of range")
  })

  test("memory taken for a length that is only claimed is a finding", async () => {
    const parseFinish = (bytes: Uint8Array) => {
      if (bytes.length > 196) {
        const claimed = new DataView(bytes.buffer, bytes.byteOffset).getUint32(192)
        expect(new Uint8Array(Math.min(claimed, 2 ** 26))).toBeDefined()
      }
      return subject.messages.parseFinish(bytes)
    }
    const problems = await found({ messages: { ...subject.messages, parseFinish } }, "finish")
    expect(problems.join()).toMatch("67108864 bytes allocated for an input of")
  })

  test("an unknown member in a request is a finding when it is let through", async () => {
    const parseExtend = (value: unknown) =>
      subject.messages.parseExtend({
        reserve_bytes:
          typeof value === "object" && value !== null && "reserve_bytes" in value
            ? value.reserve_bytes
            : undefined,
      })
    const problems = await found({ messages: { ...subject.messages, parseExtend } }, "extend")
    expect(problems.join()).toMatch("one encoding")
  })

  test("one seed makes the same inputs again", () => {
    for (const target of targets) {
      const [one, two] = [0, 1].map(() => target.make(new Draws("again", target.name, 7)))
      expect(one).toEqual(two)
    }
  })
})
