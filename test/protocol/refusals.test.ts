import { expect, test } from "vitest"
import {
  encodeProblem,
  FormatError,
  parseProblem,
  type RefusalCode,
  refusalStatus,
  RelayRefusal,
} from "../../protocol/index.js"

const address = "knot157v6qjssz8wra2rgjjluu3gdd5qflp9x949a0j"
// Object.keys forgets what the keys are; the object has these and no others.
const codes = Object.keys(refusalStatus) as RefusalCode[]

test.each(codes)("%s comes back from its problem document as it was", (code) => {
  const refusal = new RelayRefusal(code, {
    detail: "in so many words",
    retryAfterSeconds: 7,
    extras: { limit: 5, origins: ["https://a"], address, missing: [0, 3] },
  })
  const problem: unknown = JSON.parse(JSON.stringify(encodeProblem(refusal)))
  const rebuilt = parseProblem(refusal.status, problem, "7")
  expect(rebuilt).toBeInstanceOf(RelayRefusal)
  expect(rebuilt).toEqual(refusal)
  expect(rebuilt.code).toBe(code)
  expect(rebuilt.status).toBe(refusalStatus[code])
  expect(rebuilt.retryAfterSeconds).toBe(7)
  expect(rebuilt.extras).toEqual(refusal.extras)
})

test("a refusal without a detail says its code's title", () => {
  const problem = encodeProblem(new RelayRefusal("not_found"))
  expect(problem.detail).toBe(problem.title)
  expect(problem).not.toHaveProperty("limit")
})

test.each([
  ["no object", "not found"],
  ["null", null],
  ["no code", { status: 404 }],
  ["an unknown code", { code: "teapot" }],
  ["a code that is every object's", { code: "constructor" }],
  ["a code of another status", { code: "busy" }],
])("%s is not a refusal of ours", (_, value) => {
  expect(() => parseProblem(404, value)).toThrow(FormatError)
})

test("members of a wrong kind are left out, and a long detail is cut", () => {
  const refusal = parseProblem(413, {
    code: "too_large",
    detail: "x".repeat(5000),
    limit: "much",
    origins: "https://a",
    address: 5,
    missing: [1, -1],
  })
  expect(refusal.extras).toEqual({})
  expect(refusal.message).toHaveLength(1000)
})

test("what is not a line of text is left out, so that nothing passes for a reader's own lines", () => {
  for (const evil of ["no room\nDelivered.", "\u001B[31mno", "no\u202E", "no\u2028Delivered."]) {
    const refusal = parseProblem(400, {
      code: "wrong_origin",
      detail: evil,
      origins: ["https://a", evil],
      address: evil,
    })
    expect(refusal.message).toBe("The proof was made for another origin")
    expect(refusal.extras).toEqual({})
  }
})

test("an address is left out where it is none", () => {
  for (const wrong of ["knot1", `${address} and more`, address.toUpperCase()]) {
    expect(parseProblem(404, { code: "no_such_inbox", address: wrong }).extras).toEqual({})
  }
})

test.each([
  ["120", 120],
  ["0", 0],
  ["999999999", 86_400],
  ["Wed, 21 Oct 2026 07:28:00 GMT", undefined],
  ["-1", undefined],
  ["1.5", undefined],
  [undefined, undefined],
  [null, undefined],
])("Retry-After %j is a wait of %j seconds", (header, seconds) => {
  expect(parseProblem(429, { code: "too_many_requests" }, header).retryAfterSeconds).toBe(seconds)
})
