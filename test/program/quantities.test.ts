import { expect, it } from "vitest"
import { UsageError } from "../../client/program/errors.js"
import {
  completeId,
  parseCommand,
  parseDeliveryId,
  parseDuration,
  parseIdentityName,
  parseSize,
} from "../../client/program/quantities.js"

it("a length of time is a whole number and a unit", () => {
  expect(parseDuration("90m")).toBe(90 * 60 * 1000)
  expect(parseDuration("36h")).toBe(36 * 3600 * 1000)
  expect(parseDuration("7d")).toBe(7 * 24 * 3600 * 1000)
  expect(parseDuration("2w")).toBe(14 * 24 * 3600 * 1000)
})

it("a length of time without a unit, or that is none, is refused with an example", () => {
  for (const text of ["", "7", "7 d", "0d", "-1d", "1.5h", "7D", "d", "1y", "999999d", "7dd"]) {
    expect(() => parseDuration(text), text).toThrow(UsageError)
    expect(() => parseDuration(text), text).toThrow("7d")
  }
})

it("a size is a whole number of bytes, or one with a unit of 1024", () => {
  expect(parseSize("4096")).toBe(4096)
  expect(parseSize("0")).toBe(0)
  expect(parseSize("500MiB")).toBe(500 * 1024 * 1024)
  expect(parseSize("2gib")).toBe(2 * 1024 ** 3)
  for (const text of ["", "MiB", "5MB", "5k", "1.5GiB", "-1", "5 MiB", "999999999999TiB"]) {
    expect(() => parseSize(text), text).toThrow("500MiB")
  }
})

it("a command is words apart at spaces, and says so where a shell would make more of it", () => {
  expect(parseCommand(" notify   -t 3 /path/to-it ")).toEqual(["notify", "-t", "3", "/path/to-it"])
  for (const text of ["", "  ", "say 'hi'", 'say "hi"', "echo $HOME", "a | b", "a\\ b", "a; b"]) {
    expect(() => parseCommand(text), text).toThrow(UsageError)
  }
})

it("a delivery id is 32 lower-case hex characters, or the first 6 or more of them", () => {
  const id = "0f3c9a5be1d24c7788a1b2c3d4e5f607"
  expect(parseDeliveryId(id)).toBe(id)
  expect(parseDeliveryId(id.slice(0, 6))).toBe(id.slice(0, 6))
  for (const text of [
    "",
    id.toUpperCase(),
    id.slice(0, 5),
    `${id}0`,
    ` ${id}`,
    `${id.slice(1)}g`,
  ]) {
    expect(() => parseDeliveryId(text), text).toThrow(UsageError)
  }
})

it("the beginning of an id means the only one that begins so", () => {
  const ids = [`abcdef0${"1".repeat(25)}`, `abcdef1${"1".repeat(25)}`]
  expect(completeId("abcdef1", ids)).toBe(ids[1])
  expect(completeId("abcdee", ids)).toBeUndefined()
  expect(() => completeId("abcdef", ids)).toThrow(UsageError)
  for (const id of ids) expect(() => completeId("abcdef", ids)).toThrow(id)
})

it("the name of an identity cannot leave its folder or hide in it", () => {
  expect(parseIdentityName("work-2")).toBe("work-2")
  for (const text of ["", "..", "../x", "a/b", ".hidden", "-x", "A", "a.key", "a b", "é"]) {
    expect(() => parseIdentityName(text), text).toThrow(UsageError)
  }
})
