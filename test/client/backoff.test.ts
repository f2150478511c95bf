import { describe, expect, test } from "vitest"
import { backoffMs } from "../../client/backoff.js"

describe("waiting before asking again", () => {
  test("the wait doubles from a quarter of a second and stays at five seconds", () => {
    const longest = [0, 1, 2, 3, 4, 5, 20].map((attempt) => backoffMs({ attempt, random: 1 }))
    expect(longest).toEqual([250, 500, 1000, 2000, 4000, 5000, 5000])
  })

  test("half of each wait is random", () => {
    expect(backoffMs({ attempt: 2, random: 0 })).toBe(500)
    expect(backoffMs({ attempt: 2, random: 0.5 })).toBe(750)
  })

  test("what the relay asks for is a floor, with jitter on top", () => {
    expect(backoffMs({ attempt: 0, retryAfterSeconds: 7, random: 0 })).toBe(7000)
    expect(backoffMs({ attempt: 0, retryAfterSeconds: 7, random: 0.8 })).toBe(7050)
  })

  test("a Retry-After below our own wait changes nothing", () => {
    expect(backoffMs({ attempt: 5, retryAfterSeconds: 1, random: 1 })).toBe(5000)
  })
})
