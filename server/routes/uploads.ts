// The sender's routes. Bodies of parts go from the socket into buffers of one part each, and from
// there to the disk in one write.
import type { IncomingMessage } from "node:http"
import {
  encodeExtendReply,
  encodeFinishReply,
  encodePartsReply,
  encodeStartUploadReply,
  encodeUploadState,
  FormatError,
  KIB,
  maxFinishBytes,
  parseExtend,
  parseIndex,
  parseStartUpload,
  relayDefaults,
  RelayRefusal,
} from "../../protocol/index.js"
import type { Clock } from "../clock.js"
import type { Finishing } from "../finishing.js"
import { type PartBuffer, type PartBuffers, smallBytes } from "../http/buffers.js"
import type { Sources } from "../http/source.js"
import { receiveFinish } from "../http/finish-body.js"
import { pathParameter, type Route } from "../http/method-table.js"
import { replyEmpty, replyJson } from "../http/replies.js"
import {
  checkContentType,
  contentLength,
  readBearer,
  readJson,
  receiveBody,
} from "../http/requests.js"
import { type DeliveryId, parsePathId } from "../ids.js"
import { busy } from "../relay-refusals.js"
import {
  type KnownUpload,
  parseIdempotencyKey,
  type PlannedPart,
  type Uploads,
} from "../uploads.js"

export interface UploadNeeds {
  readonly uploads: Uploads
  readonly finishing: Finishing
  readonly buffers: PartBuffers
  readonly sources: Sources
  readonly clock: Clock
}

/** Parts of one request being hashed and written while the next is received. */
const writesAtOnce = 2
/** A sender may be as slow as this while others wait for the buffer it fills, after a moment's grace. */
const leastBytesASecond = 16 * KIB
const graceMs = 2_000

export function uploadRoutes(needs: UploadNeeds): Route[] {
  const { uploads, finishing, buffers, sources, clock } = needs

  async function known(
    req: IncomingMessage,
    idText: string,
  ): Promise<{ readonly id: DeliveryId; readonly upload: KnownUpload }> {
    const id = parsePathId(idText)
    return { id, upload: await uploads.know(id, readBearer(req)) }
  }

  return [
    {
      path: "/v1/uploads",
      methods: {
        async POST(req, res) {
          const header = req.headers["idempotency-key"]
          const idempotencyKey = parseIdempotencyKey(
            typeof header === "string" ? header : undefined,
          )
          const start = parseStartUpload(await readJson(req, res, clock))
          const reply = await uploads.start({ idempotencyKey, start })
          replyJson(res, encodeStartUploadReply(reply), 201)
        },
      },
    },
    {
      path: "/v1/uploads/:id",
      methods: {
        async GET(req, res) {
          const { upload } = await known(req, pathParameter(req, "id"))
          replyJson(res, encodeUploadState(await uploads.state(upload)))
        },
        async DELETE(req, res) {
          const { upload } = await known(req, pathParameter(req, "id"))
          await uploads.giveUp(upload)
          replyEmpty(res)
        },
      },
    },
    {
      path: "/v1/uploads/:id/extend",
      methods: {
        async POST(req, res) {
          const { upload } = await known(req, pathParameter(req, "id"))
          const extend = parseExtend(await readJson(req, res, clock))
          replyJson(res, encodeExtendReply(await uploads.extend(upload, extend)))
        },
      },
    },
    {
      path: "/v1/uploads/:id/parts/:first",
      methods: {
        async PUT(req, res) {
          const { id, upload } = await known(req, pathParameter(req, "id"))
          const first = parseIndex(pathParameter(req, "first"), "index")
          checkContentType(req, "application/octet-stream")
          const lengthBytes = contentLength(req)
          const planned = uploads.planParts(upload, { first, lengthBytes })
          const receiver = new PartsReceiver({
            id,
            network: sources.networkOf(req),
            planned,
            uploads,
            buffers,
          })
          try {
            await receiveBody(req, res, {
              clock,
              lengthBytes,
              take: (chunk) => receiver.take(chunk),
              isCopied: true,
              signal: receiver.cut,
            })
          } catch (error) {
            await receiver.abandon()
            throw error
          }
          replyJson(res, encodePartsReply({ leaves: await receiver.leaves() }))
        },
      },
    },
    {
      path: "/v1/uploads/:id/finish",
      methods: {
        async POST(req, res) {
          const { upload } = await known(req, pathParameter(req, "id"))
          checkContentType(req, "application/octet-stream")
          const most = maxFinishBytes(relayDefaults.manifestBytes, relayDefaults.recipients)
          const lengthBytes = contentLength(req)
          if (lengthBytes > most) throw new RelayRefusal("too_large", { extras: { limit: most } })
          const attempt = await finishing.finish(upload)
          try {
            const envelopes = await receiveFinish({ req, res, clock, lengthBytes, attempt })
            replyJson(res, encodeFinishReply(await attempt.complete(envelopes)))
          } catch (error) {
            await attempt.abandon()
            throw error
          }
        },
      },
    },
  ]
}

/** Cuts a body into its parts and stores each as soon as it is whole. */
class PartsReceiver {
  readonly #id: DeliveryId
  readonly #network: string
  readonly #planned: readonly PlannedPart[]
  readonly #uploads: Uploads
  readonly #buffers: PartBuffers
  readonly #leaves: Uint8Array
  readonly #storing = new Set<Promise<void>>()
  #at = 0
  #buffer: PartBuffer | undefined
  #filled = 0
  /** How much there was when the buffer at hand came. */
  #filledBefore = 0
  #isAbandoned = false
  #failure: { readonly error: unknown } | undefined
  readonly #cut = new AbortController()

  constructor(input: {
    readonly id: DeliveryId
    readonly network: string
    readonly planned: readonly PlannedPart[]
    readonly uploads: Uploads
    readonly buffers: PartBuffers
  }) {
    this.#id = input.id
    this.#network = input.network
    this.#planned = input.planned
    this.#uploads = input.uploads
    this.#buffers = input.buffers
    this.#leaves = new Uint8Array(32 * input.planned.length)
  }

  /** Aborted when others need the memory and this sender is slow. */
  get cut(): AbortSignal {
    return this.#cut.signal
  }

  /** Resolves, or returns at once, when the next bytes are welcome. */
  take(chunk: Uint8Array): Promise<void> | void {
    const part = this.#planned[this.#at]
    if (part === undefined) throw new FormatError("body", "longer than its parts")
    // The common case by far: room in the buffer at hand, and nothing to wait for.
    if (
      this.#buffer !== undefined &&
      this.#filled + chunk.length < Math.min(part.lengthBytes, this.#buffer.bytes.length)
    ) {
      this.#buffer.bytes.set(chunk, this.#filled)
      this.#filled += chunk.length
      return undefined
    }
    return this.#takeSlowly(chunk)
  }

  /** The leaves of all parts, once the body is through and they are stored. */
  async leaves(): Promise<Uint8Array> {
    await Promise.all(this.#storing)
    if (this.#failure !== undefined) throw this.#failure.error
    return this.#leaves
  }

  /** A step that still waits for something gives back what it gets. */
  async abandon(): Promise<void> {
    this.#isAbandoned = true
    this.#buffer?.release()
    this.#buffer = undefined
    await Promise.all(this.#storing)
  }

  async #takeSlowly(chunk: Uint8Array): Promise<void> {
    let rest = chunk
    while (rest.length > 0) {
      const part = this.#planned[this.#at]
      if (part === undefined) throw new FormatError("body", "longer than its parts")
      const buffer = await this.#room(part.lengthBytes)
      if (this.#isAbandoned) return
      const end = Math.min(part.lengthBytes, buffer.bytes.length)
      const piece = rest.subarray(0, end - this.#filled)
      buffer.bytes.set(piece, this.#filled)
      this.#filled += piece.length
      rest = rest.subarray(piece.length)
      if (this.#filled === part.lengthBytes) {
        this.#store(part, this.#at, buffer)
        this.#at += 1
        this.#filled = 0
        this.#buffer = undefined
        if (this.#at < this.#planned.length && this.#storing.size >= writesAtOnce) {
          await Promise.race(this.#storing)
        }
        if (this.#isAbandoned) return
        if (this.#failure !== undefined) throw this.#failure.error
      }
    }
  }

  /**
   * A buffer with room for the next byte. The shared ones are few: a part gets one when its beginning is
   * there, so a connection that sends nothing holds none.
   */
  async #room(lengthBytes: number): Promise<PartBuffer> {
    const known = this.#buffer
    if (known !== undefined && this.#filled < known.bytes.length) return known
    const wantedBytes = known === undefined ? Math.min(lengthBytes, smallBytes) : lengthBytes
    let own: PartBuffer | undefined
    const buffer = await this.#buffers.take(wantedBytes, {
      network: this.#network,
      // What is being stored is not the sender's delay.
      isTooSlow: (heldMs) =>
        own !== undefined &&
        this.#buffer === own &&
        heldMs >= graceMs &&
        1000 * (this.#filled - this.#filledBefore) < leastBytesASecond * heldMs,
      cut: () => this.#cut.abort(busy()),
    })
    if (this.#isAbandoned) {
      buffer.release()
      return buffer
    }
    if (known !== undefined) {
      buffer.bytes.set(known.bytes.subarray(0, this.#filled))
      known.release()
    }
    own = buffer
    this.#filledBefore = this.#filled
    this.#buffer = buffer
    return buffer
  }

  #store({ index, lengthBytes }: PlannedPart, at: number, buffer: PartBuffer): void {
    const bytes = buffer.bytes.subarray(0, lengthBytes)
    const storing = this.#uploads
      .storePart(this.#id, { index, bytes })
      .then((leaf) => this.#leaves.set(leaf, 32 * at))
      .catch((error: unknown) => {
        this.#failure ??= { error }
      })
      .finally(() => {
        buffer.release()
        this.#storing.delete(storing)
      })
    this.#storing.add(storing)
  }
}
