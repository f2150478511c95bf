// Reads one JSON object, each member once, by name and kind. A request ends with `end`, which refuses
// members nobody asked for; a reply does not, so that a newer relay can say more.
import { fromBase64url } from "./bytes.js"
import { FormatError } from "./errors.js"

export type Json = string | number | boolean | null | readonly Json[] | JsonObject
export interface JsonObject {
  readonly [name: string]: Json
}

const idPattern = /^[0-9a-f]{32}$/
// "knot", the separator, 32 characters of inbox id and 6 of checksum: the shape only. Whether the
// checksum holds is parseAddress's business.
const addressPattern = /^knot1[02-9ac-hj-np-z]{38}$/

/**
 * Whether a text is one line, of characters that can be shown. What strangers say is quoted among a
 * program's own words, and shall neither begin a line there nor steer a terminal.
 */
export function isLine(text: string): boolean {
  return !/[\p{C}\p{Zl}\p{Zp}]/u.test(text)
}

export function isAddressShape(text: string): boolean {
  return addressPattern.test(text)
}

export function parseId(text: string, field: string = "id"): string {
  if (!idPattern.test(text)) throw new FormatError(field, "not 32 lower-case hex characters")
  return text
}

export class JsonReader {
  readonly #members: ReadonlyMap<string, unknown>
  readonly #unread: Set<string>
  readonly #what: string

  constructor(value: unknown, what: string) {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new FormatError(what, "not an object")
    }
    this.#members = new Map(Object.entries(value))
    this.#unread = new Set(this.#members.keys())
    this.#what = what
  }

  has(name: string): boolean {
    return this.#members.has(name)
  }

  text(name: string, mostCharacters: number = 1000): string {
    const value = this.#take(name)
    if (typeof value !== "string") this.refuse(name, "not a string")
    if (value.length > mostCharacters) this.refuse(name, "too long")
    return value
  }

  /** A text for people. */
  line(name: string, mostCharacters?: number): string {
    const text = this.text(name, mostCharacters)
    if (!isLine(text)) this.refuse(name, "not one line of text")
    return text
  }

  /** An integer from `least` to `most`. */
  count(name: string, most: number = Number.MAX_SAFE_INTEGER, least: number = 0): number {
    const value = this.#take(name)
    if (typeof value !== "number" || !Number.isSafeInteger(value)) {
      this.refuse(name, "not an integer")
    }
    // JSON has a negative zero, which is another spelling of zero.
    if (value < least || value > most || Object.is(value, -0)) this.refuse(name, "out of range")
    return value
  }

  flag(name: string): boolean {
    const value = this.#take(name)
    if (typeof value !== "boolean") this.refuse(name, "not true or false")
    return value
  }

  /** A byte string of exactly this length. */
  bytes(name: string, length: number): Uint8Array {
    const bytes = this.bytesUpTo(name, length)
    if (bytes.length !== length) this.refuse(name, `${bytes.length} bytes, not ${length}`)
    return bytes
  }

  bytesUpTo(name: string, most: number): Uint8Array {
    const text = this.text(name, Math.ceil((most * 4) / 3))
    return fromBase64url(text, this.#path(name))
  }

  id(name: string): string {
    return parseId(this.text(name, 32), this.#path(name))
  }

  address(name: string): string {
    return this.#parseAddressShape(this.text(name, 43), name)
  }

  addresses(name: string, most: number): string[] {
    return this.list(name, most, (item) => {
      if (typeof item !== "string") this.refuse(name, "not a list of addresses")
      return this.#parseAddressShape(item, name)
    })
  }

  oneOf<T extends string>(name: string, values: readonly T[]): T {
    const found = this.text(name)
    const value = values.find((candidate) => candidate === found)
    if (value === undefined) this.refuse(name, `not one of ${values.join(", ")}`)
    return value
  }

  list<T>(name: string, most: number, parse: (item: unknown, index: number) => T): T[] {
    const value = this.#take(name)
    if (!Array.isArray(value)) this.refuse(name, "not a list")
    if (value.length > most) this.refuse(name, `more than ${most} items`)
    return value.map(parse)
  }

  lines(name: string, most: number, mostCharacters: number = 1000): string[] {
    return this.list(name, most, (item) => {
      if (typeof item !== "string" || item.length > mostCharacters || !isLine(item)) {
        this.refuse(name, "not a list of lines of text")
      }
      return item
    })
  }

  counts(name: string, most: number): number[] {
    return this.list(name, most, (item) => {
      if (typeof item !== "number" || !Number.isSafeInteger(item) || item < 0) {
        this.refuse(name, "not a list of integers")
      }
      return item
    })
  }

  object(name: string): JsonReader {
    return new JsonReader(this.#take(name), this.#path(name))
  }

  /** Refuses every member that was not read. */
  end(): void {
    for (const name of this.#unread) {
      throw new FormatError(this.#what, `an unknown member ${JSON.stringify(name.slice(0, 40))}`)
    }
  }

  refuse(name: string, reason: string): never {
    throw new FormatError(this.#path(name), reason)
  }

  #take(name: string): unknown {
    if (!this.#members.has(name)) this.refuse(name, "missing")
    this.#unread.delete(name)
    return this.#members.get(name)
  }

  #path(name: string): string {
    return `${this.#what}.${name}`
  }

  #parseAddressShape(text: string, name: string): string {
    if (!isAddressShape(text)) this.refuse(name, "not an address without a host")
    return text
  }
}
