// The members of a JSON record of ours. Its MAC has been checked before it is read, so what is wrong in
// it is our own doing; it is refused all the same.
import { FormatError, fromHex } from "../../protocol/index.js"
import { type DeliveryId, type InboxId, isDeliveryId, isInboxId } from "../ids.js"

export class Fields {
  readonly #value: object
  readonly #what: string

  constructor(value: unknown, what: string) {
    if (typeof value !== "object" || value === null) throw new FormatError(what, "not an object")
    this.#value = value
    this.#what = what
  }

  text(name: string): string {
    const value = this.#get(name)
    if (typeof value !== "string") throw this.#wrong(name)
    return value
  }

  count(name: string): number {
    const value = this.#get(name)
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
      throw this.#wrong(name)
    }
    return value
  }

  bytes(name: string, length: number): Uint8Array {
    const bytes = fromHex(this.text(name), `${this.#what}.${name}`)
    if (bytes.length !== length) throw this.#wrong(name)
    return bytes
  }

  deliveryId(name: string): DeliveryId {
    const text = this.text(name)
    if (!isDeliveryId(text)) throw this.#wrong(name)
    return text
  }

  inboxId(name: string): InboxId {
    const text = this.text(name)
    if (!isInboxId(text)) throw this.#wrong(name)
    return text
  }

  list<T>(name: string, parse: (item: Fields) => T): T[] {
    const value = this.#get(name)
    if (!Array.isArray(value)) throw this.#wrong(name)
    return value.map((item) => parse(new Fields(item, `${this.#what}.${name}`)))
  }

  object(name: string): Fields {
    return new Fields(this.#get(name), `${this.#what}.${name}`)
  }

  #get(name: string): unknown {
    // Its own members only: a record has none of the ones that every object inherits.
    const own = Object.getOwnPropertyDescriptor(this.#value, name)
    return own?.value
  }

  #wrong(name: string): FormatError {
    return new FormatError(`${this.#what}.${name}`, "not what it should be")
  }
}
