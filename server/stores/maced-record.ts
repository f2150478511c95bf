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

/**
 * A record of the blob store that this relay did not write as it stands. Not a FormatError: nobody who
 * sent a request is to blame for it.
 */
export class DamagedRecord extends Error {
  override readonly name = "DamagedRecord"
}

/** Reads a record whose MAC is this relay's. Throws DamagedRecord for any other. */
export function openRecord<T>(
  place: RecordPlace,
  bytes: Uint8Array,
  parse: (value: unknown) => T,
): T {
  try {
    return parse(openLine(place, bytes))
  } catch (error) {
    if (!(error instanceof FormatError || error instanceof SyntaxError)) throw error
    throw new DamagedRecord(place.kind, { cause: error })
  }
}

function openLine(place: RecordPlace, bytes: Uint8Array): unknown {
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
