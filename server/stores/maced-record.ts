// Small records of the blob store that decisions rest on: one line of JSON, then its MAC under a key
// of the relay. The MAC covers what the record is and where it belongs, so a record that was copied to
// another place, or written by someone with access to the disk alone, is refused.
import {
  concatBytes,
  equalBytes,
  FormatError,
  fromHex,
  hmacSha256,
  parseUtf8,
  toHex,
  utf8,
} from "../../protocol/index.js"
import type { JsonObject } from "../../protocol/index.js"
import { failureFields, type Log } from "../log.js"

export interface RecordPlace {
  readonly key: Uint8Array
  /** For instance "commit.v1". */
  readonly kind: string
  /** The id of what it is about. */
  readonly name: string
}

const macCharacters = 64
const lineFeed = 10

export function encodeRecord(place: RecordPlace, value: JsonObject): Uint8Array {
  const line = utf8(JSON.stringify(value))
  return concatBytes(line, utf8(`\n${toHex(recordMac(place, line))}\n`))
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
  const end = bytes.length - macCharacters - 2
  if (end < 0 || bytes[end] !== lineFeed || bytes.at(-1) !== lineFeed) {
    throw new FormatError(place.kind, "cut short")
  }
  const line = bytes.subarray(0, end)
  const mac = fromHex(parseUtf8(bytes.subarray(end + 1, -1), place.kind), place.kind)
  if (!equalBytes(mac, recordMac(place, line))) throw new FormatError(place.kind, "not ours")
  return JSON.parse(parseUtf8(line, place.kind))
}

function recordMac({ key, kind, name }: RecordPlace, line: Uint8Array): Uint8Array {
  return hmacSha256(key, utf8(`${kind} ${name}\n`), line)
}

/** A record that was not written by this relay decides nothing, and its operator should know. */
export async function readOrAlarm<T>(
  log: Log,
  read: () => Promise<T | undefined>,
): Promise<T | undefined> {
  try {
    return await read()
  } catch (error) {
    if (!(error instanceof DamagedRecord)) throw error
    log("record_refused", failureFields(error), "alarm")
    return undefined
  }
}
