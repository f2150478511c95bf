// A sending made up for tests of the relay, which sees only that it has the right shape.
import {
  bodyRoot,
  concatBytes,
  encodeFinish,
  encodeHeader,
  envelopeLength,
  envelopeSuite,
  gridCount,
  gridLength,
  gridOffset,
  headerHash,
  type Identity,
  leafHash,
  type Random,
  random,
  sha256,
  u16,
  utf8,
} from "../../protocol/index.js"

/** A sealed sending as far as a relay can tell: its envelopes have the right shape and open nothing. */
export interface TestDelivery {
  readonly header: Uint8Array
  readonly body: Uint8Array
  readonly manifest: Uint8Array
  readonly envelopes: readonly Uint8Array[]
  readonly recipients: readonly Identity[]
  readonly finish: Uint8Array
}

export function makeDelivery(
  recipients: readonly Identity[],
  options: {
    readonly bodyLength?: number
    readonly manifestLength?: number
    readonly notAfterMs?: number
    readonly draw?: Random
  } = {},
): TestDelivery {
  const { bodyLength = 16 * 1024, manifestLength = 4112, notAfterMs = 0, draw = random } = options
  const body = draw(bodyLength)
  const manifest = draw(manifestLength)
  const header = encodeHeader({
    deliveryId: draw(16),
    bodyLength,
    partCount: gridCount(bodyLength),
    manifestLength,
    bodyRoot: bodyRoot({ bodyLength, leaves: leavesOf(body) }),
    manifestHash: sha256(manifest),
    openRoot: draw(32),
    keyCommit: draw(32),
    notAfterMs,
  })
  const envelopes = recipients.map(({ bundle }) => {
    const start = concatBytes(
      utf8("KNHE"),
      Uint8Array.of(1, envelopeSuite(bundle)),
      u16(0),
      headerHash(header),
    )
    return concatBytes(start, draw(envelopeLength(bundle) - start.length))
  })
  const finish = encodeFinish({ header, manifest, envelopes })
  return { header, body, manifest, envelopes, recipients, finish }
}

export function partOf(body: Uint8Array, index: number): Uint8Array {
  const start = gridOffset(index)
  return body.subarray(start, start + gridLength(index, body.length))
}

export function leavesOf(body: Uint8Array): Uint8Array[] {
  return Array.from({ length: gridCount(body.length) }, (_, index) =>
    leafHash({ index, part: partOf(body, index) }),
  )
}
