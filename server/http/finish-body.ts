// The body of a finish, read as it comes: a manifest may be 64 MiB, and it goes to the disk without
// ever being in memory as a whole. The form is `encodeFinish`'s in protocol/messages.ts.
import type { IncomingMessage, ServerResponse } from "node:http"
import {
  ByteReader,
  FormatError,
  maxEnvelopeBytes,
  maxManifestBytes,
  recordBytes,
} from "../../protocol/index.js"
import type { Clock } from "../clock.js"
import type { FinishAttempt } from "../finishing.js"
import { receiveBody } from "./requests.js"

const prefixBytes = 8 + recordBytes.header + 4

/** Feeds header and manifest to the attempt and gives the envelopes. */
export async function receiveFinish(input: {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  readonly clock: Clock
  readonly lengthBytes: number
  readonly attempt: FinishAttempt
}): Promise<Uint8Array[]> {
  const { req, res, clock, lengthBytes, attempt } = input
  const prefix = new Uint8Array(prefixBytes)
  let prefixFilled = 0
  let envelopeCount = 0
  let manifestLeft = 0
  let tail = new Uint8Array(0)
  let tailFilled = 0

  async function take(chunk: Uint8Array): Promise<void> {
    let rest = chunk
    if (prefixFilled < prefixBytes) {
      const piece = rest.subarray(0, prefixBytes - prefixFilled)
      prefix.set(piece, prefixFilled)
      prefixFilled += piece.length
      rest = rest.subarray(piece.length)
      if (prefixFilled < prefixBytes) return
      const parsed = parsePrefix(prefix, lengthBytes)
      ;({ envelopeCount } = parsed)
      manifestLeft = parsed.manifestLength
      tail = new Uint8Array(lengthBytes - prefixBytes - manifestLeft)
      await attempt.header(parsed.header, parsed.manifestLength)
    }
    if (manifestLeft > 0 && rest.length > 0) {
      const piece = rest.subarray(0, manifestLeft)
      manifestLeft -= piece.length
      rest = rest.subarray(piece.length)
      await attempt.manifest(piece)
    }
    tail.set(rest, tailFilled)
    tailFilled += rest.length
  }

  if (lengthBytes < prefixBytes) throw new FormatError("finish", "cut short")
  await receiveBody(req, res, { clock, lengthBytes, take })
  return parseEnvelopes(tail, envelopeCount)
}

function parsePrefix(
  bytes: Uint8Array,
  lengthBytes: number,
): {
  readonly envelopeCount: number
  readonly header: Uint8Array
  readonly manifestLength: number
} {
  const reader = new ByteReader(bytes, "finish")
  reader.expectAscii("KNHF", "magic")
  reader.expectU8(1, "version")
  reader.zeros(2, "reserved")
  const envelopeCount = reader.u8("envelope_count")
  const header = reader.take(recordBytes.header, "header")
  const manifestLength = reader.u32("manifest_len")
  // What is left for the envelopes is held in memory, so it is bounded before anything is.
  const tailBytes = lengthBytes - prefixBytes - manifestLength
  if (manifestLength > maxManifestBytes) reader.refuse("manifest_len", "too large")
  if (tailBytes < 0) reader.refuse("manifest_len", "longer than the body")
  if (tailBytes > envelopeCount * (2 + maxEnvelopeBytes)) {
    reader.refuse("envelope_count", "the body is longer than its envelopes")
  }
  return { envelopeCount, header, manifestLength }
}

function parseEnvelopes(bytes: Uint8Array, count: number): Uint8Array[] {
  const reader = new ByteReader(bytes, "finish")
  const envelopes: Uint8Array[] = []
  for (let at = 0; at < count; at++) {
    const length = reader.u16(`envelopes.${at}.len`)
    envelopes.push(reader.take(length, `envelopes.${at}`))
  }
  reader.end()
  return envelopes
}
