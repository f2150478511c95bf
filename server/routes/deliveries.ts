// The recipient's routes, and what a sender may ask of a delivery later.
import type { IncomingMessage, ServerResponse } from "node:http"
import {
  type ByteRange,
  encodeContentRange,
  encodeInboxPage,
  encodeStatusReply,
  FormatError,
  gridIndex,
  gridLength,
  gridOffset,
  KIB,
  maxPartBytes,
  parseIndex,
  parseInboxQuery,
  parseRange,
  relayDefaults,
  RelayRefusal,
} from "../../protocol/index.js"
import type { Clock } from "../clock.js"
import type { Deliveries, OwnDelivery } from "../deliveries.js"
import type { PartBuffer, PartBuffers } from "../http/buffers.js"
import { untilEnough } from "../http/enough.js"
import { pathParameter, type Handler, type Route } from "../http/method-table.js"
import { replyBytes, replyEmpty, replyJson, setDataHeaders } from "../http/replies.js"
import { ClientGone, readBearer } from "../http/requests.js"
import type { Sources } from "../http/source.js"
import { parsePathId } from "../ids.js"
import type { Logins } from "../logins.js"
import type { BlobReader } from "../stores/blob-store.js"

/** A recipient may take this long over one buffer while others wait for it. */
const slowestPieceMs = 30_000
/** And at any time it has to read as fast as a sender has to send (http/requests.ts). */
const leastBytesASecond = KIB
const graceMs = 60_000

export interface DeliveryNeeds {
  readonly deliveries: Deliveries
  readonly logins: Logins
  readonly buffers: PartBuffers
  readonly sources: Sources
  readonly clock: Clock
  /** Ends long polls. */
  readonly stopping: AbortSignal
}

/** A range that cannot be served goes with the size it was asked of. */
export class RangeRefusal extends RelayRefusal {
  readonly size: number

  constructor(size: number) {
    super("range_not_satisfiable")
    this.size = size
  }
}

export function deliveryRoutes(needs: DeliveryNeeds): Route[] {
  const { deliveries, logins, buffers, clock, sources, stopping } = needs

  /** A route for a piece of a delivery in the caller's inbox. */
  function piece(
    answer: (
      delivery: OwnDelivery,
      req: Parameters<Handler>[0],
      res: ServerResponse,
    ) => Promise<void>,
  ): Route["methods"] {
    return {
      async GET(req, res) {
        const id = parsePathId(pathParameter(req, "id"))
        const { inbox } = await logins.session(readBearer(req))
        const delivery = await deliveries.own(inbox, id)
        const release = await deliveries.holdLease(delivery)
        try {
          await answer(delivery, req, res)
        } finally {
          release()
        }
      },
    }
  }

  async function sendBody(delivery: OwnDelivery, req: IncomingMessage, res: ServerResponse) {
    const { bodyLength } = delivery.header
    const range = readRange(req, bodyLength)
    res.setHeader("Accept-Ranges", "bytes")
    setDataHeaders(res, range === undefined ? bodyLength : range.last - range.first + 1)
    if (range !== undefined) {
      res.setHeader("Content-Range", encodeContentRange(range, bodyLength))
    }
    if (bodyLength === 0) {
      res.writeHead(200).end()
      return
    }
    const wanted = range ?? { first: 0, last: bodyLength - 1 }
    const pieces = cutRange(wanted, bodyLength)
    const first = pieces[0]?.index ?? 0
    const last = pieces.at(-1)?.index ?? 0
    const leaves = await deliveries.leaves(delivery, { first, last })
    res.statusCode = range === undefined ? 200 : 206
    const into = { buffers, res, network: sources.networkOf(req) }
    await sendPieces({ res, clock, pieces }, async ({ index, offset, lengthBytes }) => {
      const at = 32 * (index - first)
      const part = await deliveries.part(delivery, { index, leaf: leaves.subarray(at, at + 32) })
      return readPiece(part, { offset, lengthBytes }, into)
    })
  }

  async function sendBlob(
    blob: BlobReader,
    { req, res }: { readonly req: IncomingMessage; readonly res: ServerResponse },
  ): Promise<void> {
    const into = { buffers, res, network: sources.networkOf(req) }
    try {
      const sizeBytes = await blob.sizeBytes()
      setDataHeaders(res, sizeBytes)
      const pieces: { readonly offset: number; readonly lengthBytes: number }[] = []
      for (let offset = 0; offset < sizeBytes; offset += maxPartBytes) {
        pieces.push({ offset, lengthBytes: Math.min(maxPartBytes, sizeBytes - offset) })
      }
      await sendPieces({ res, clock, pieces }, (place) => readInto(blob, place, into))
    } finally {
      await blob.close()
    }
  }

  return [
    {
      path: "/v1/inbox",
      methods: {
        async GET(req, res) {
          const { inbox } = await logins.session(readBearer(req))
          const query = readInboxQuery(req.url)
          const page = await untilEnough({ res, stopping }, (enough) =>
            deliveries.list(inbox, query, enough),
          )
          if (!res.closed) replyJson(res, encodeInboxPage(page))
        },
      },
    },
    {
      path: "/v1/deliveries/:id/header",
      methods: piece((delivery, _req, res) => {
        replyBytes(res, delivery.entry.header)
        return Promise.resolve()
      }),
    },
    {
      path: "/v1/deliveries/:id/envelope",
      methods: piece(async (delivery, _req, res) => {
        replyBytes(res, await deliveries.envelope(delivery))
      }),
    },
    {
      path: "/v1/deliveries/:id/manifest",
      methods: piece(async (delivery, req, res) => {
        await sendBlob(await deliveries.manifest(delivery), { req, res })
      }),
    },
    {
      path: "/v1/deliveries/:id/leaves",
      methods: piece(async (delivery, _req, res) => {
        const last = delivery.header.partCount - 1
        replyBytes(res, await deliveries.leaves(delivery, { first: 0, last }))
      }),
    },
    {
      path: "/v1/deliveries/:id/body",
      methods: piece(sendBody),
    },
    {
      path: "/v1/deliveries/:id/parts/:index",
      methods: piece(async (delivery, req, res) => {
        const index = parseIndex(pathParameter(req, "index"))
        if (index >= delivery.header.partCount) throw new RelayRefusal("not_found")
        const leaf = await deliveries.leaves(delivery, { first: index, last: index })
        await sendBlob(await deliveries.part(delivery, { index, leaf }), { req, res })
      }),
    },
    {
      path: "/v1/deliveries/:id/status",
      methods: {
        async GET(req, res) {
          const id = parsePathId(pathParameter(req, "id"))
          const status = await deliveries.status(id, readBearer(req))
          replyJson(res, encodeStatusReply(status))
        },
      },
    },
    {
      path: "/v1/deliveries/:id",
      methods: {
        async DELETE(req, res) {
          const id = parsePathId(pathParameter(req, "id"))
          const credential = readBearer(req)
          const session = await logins.findSession(credential)
          if (session !== undefined) {
            await deliveries.discard(session.inbox, id)
          } else if (!(await deliveries.revoke(id, credential))) {
            // A session that ended, somebody else's capability, no such delivery: one answer.
            throw new RelayRefusal("unauthorized")
          }
          replyEmpty(res)
        },
      },
    },
  ]
}

/** Everything after the question mark. */
export function queryOf(url: string): URLSearchParams {
  const mark = url.indexOf("?")
  return new URLSearchParams(mark === -1 ? "" : url.slice(mark + 1))
}

function readInboxQuery(url: string): ReturnType<typeof parseInboxQuery> {
  const query = queryOf(url)
  const { page, longPollSeconds } = relayDefaults
  const defaults = { after: 0, limit: page, waitSeconds: 0, envelopes: false }
  const parsed = parseInboxQuery(query, defaults)
  return {
    ...parsed,
    limit: Math.min(parsed.limit, page),
    waitSeconds: Math.min(parsed.waitSeconds, longPollSeconds),
  }
}

/** The one Range there may be; undefined without any. Throws RangeRefusal. */
export function readRange(req: IncomingMessage, size: number): ByteRange | undefined {
  const header = req.headers.range
  if (header === undefined) return undefined
  try {
    return parseRange(header, size)
  } catch (error) {
    if (!(error instanceof FormatError)) throw error
    throw new RangeRefusal(size)
  }
}

/** A stretch of one part. */
interface BodyPiece {
  readonly index: number
  readonly offset: number
  readonly lengthBytes: number
}

function cutRange({ first, last }: ByteRange, bodyLength: number): BodyPiece[] {
  const pieces: BodyPiece[] = []
  for (let index = gridIndex(first); index <= gridIndex(last); index++) {
    const start = gridOffset(index)
    const from = Math.max(first, start)
    const to = Math.min(last + 1, start + gridLength(index, bodyLength))
    pieces.push({ index, offset: from - start, lengthBytes: to - from })
  }
  return pieces
}

interface ReadPiece {
  readonly bytes: Uint8Array
  readonly buffer: PartBuffer
}

interface ReadFor {
  readonly buffers: PartBuffers
  readonly res: ServerResponse
  readonly network: string
}

async function readPiece(
  blob: BlobReader,
  place: { readonly offset: number; readonly lengthBytes: number },
  into: ReadFor,
): Promise<ReadPiece> {
  try {
    return await readInto(blob, place, into)
  } finally {
    await blob.close()
  }
}

async function readInto(
  blob: BlobReader,
  { offset, lengthBytes }: { readonly offset: number; readonly lengthBytes: number },
  { buffers, res, network }: ReadFor,
): Promise<ReadPiece> {
  const buffer = await buffers.take(lengthBytes, {
    network,
    isTooSlow: (heldMs) => heldMs >= slowestPieceMs,
    cut: () => res.destroy(),
  })
  try {
    const bytes = buffer.bytes.subarray(0, lengthBytes)
    const count = await blob.read(bytes, offset)
    if (count !== lengthBytes) throw new Error("a blob is shorter than its record says")
    return { bytes, buffer }
  } catch (error) {
    buffer.release()
    throw error
  }
}

/**
 * Sends the pieces in order; the next one is read while the last one goes out. The status goes with the
 * first: when that cannot be read, there is still an answer to give. Later a failure can only cut the
 * connection.
 */
async function sendPieces<P>(
  {
    res,
    clock,
    pieces,
  }: { readonly res: ServerResponse; readonly clock: Clock; readonly pieces: readonly P[] },
  read: (piece: P) => Promise<ReadPiece>,
): Promise<void> {
  let next = pieces[0] === undefined ? undefined : read(pieces[0])
  for (let at = 1; next !== undefined; at++) {
    const current = await next
    const following = pieces[at]
    const sent = write(res, current, clock)
    next = following === undefined ? undefined : read(following)
    // Both are awaited whatever happens, so that no buffer is lost.
    const [outcome] = await Promise.allSettled([sent, next])
    if (outcome.status === "rejected") {
      if (next !== undefined) (await next).buffer.release()
      throw outcome.reason
    }
  }
  res.end()
}

/**
 * Resolves when the bytes have left for the kernel and the buffer can be used again. Who does not read
 * them is cut off.
 */
function write(res: ServerResponse, { bytes, buffer }: ReadPiece, clock: Clock): Promise<void> {
  return new Promise((resolve, reject) => {
    const mostMs = graceMs + (1000 * bytes.length) / leastBytesASecond
    const cancel = clock.after(mostMs, () => res.destroy())
    const onClose = (): void => {
      cancel()
      buffer.release()
      reject(new ClientGone())
    }
    if (res.destroyed || res.closed) {
      onClose()
      return
    }
    res.once("close", onClose)
    res.write(bytes, (error) => {
      cancel()
      res.off("close", onClose)
      buffer.release()
      if (error) reject(new ClientGone())
      else resolve()
    })
  })
}
