// Small records of the blob store that decisions rest on: one line of JSON, then its MAC under a key
// of the relay. The MAC covers what the record is and where it belongs, so a record that was copied to
// another place, or written by someone with access to the disk alone, is refused.
import {
  equalBytes,
  FormatError,
  fromHex,
  hmacSha256,
  parseUtf8,
  toHex,
  utf8,
} from "../../protocol/index.js"
import type { JsonObject } from "../../protocol/index.js"

export interface RecordPlace {
  readonly key: Uint8Array
  /** For instance "commit.v1". */
  readonly kind: string
  /** The id of what it is about. */
  readonly name: string
}

const macCharacters = 64

export function encodeRecord(place: RecordPlace, value: JsonObject): Uint8Array {
  const line = JSON.stringify(value)
  return utf8(`${line}\n${toHex(recordMac(place, line))}\n`)
}

/** The record's value, not yet parsed. Throws FormatError when the MAC is not this relay's. */
export function openRecord(place: RecordPlace, bytes: Uint8Array): unknown {
  const text = parseUtf8(bytes, place.kind)
  const end = text.length - macCharacters - 2
  if (end < 0 || text[end] !== "\n" || !text.endsWith("\n")) {
    throw new FormatError(place.kind, "cut short")
  }
  const line = text.slice(0, end)
  const mac = fromHex(text.slice(end + 1, -1), place.kind)
  if (!equalBytes(mac, recordMac(place, line))) throw new FormatError(place.kind, "not ours")
  return JSON.parse(line)
}

function recordMac({ key, kind, name }: RecordPlace, line: string): Uint8Array {
  return hmacSha256(key, utf8(`${kind} ${name}\n${line}`))
}
