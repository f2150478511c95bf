// GET and PUT /v1/probe: silence, pieces and bodies as an examiner asks for them. No more than anybody
// can have of a relay anyway: a connection that is idle for less than the server's own bound, and
// bytes that are thrown away.
import {
  encodeContentRange,
  encodeProbeReply,
  maxFinishBytes,
  parseProbeQuery,
  probeBody,
  relayDefaults,
  RelayRefusal,
} from "../../protocol/index.js"
import type { ServerResponse } from "node:http"
import type { Clock } from "../clock.js"
import { headroomBytes, type RelayConfig } from "../config.js"
import { untilEnough } from "../http/enough.js"
import type { Route } from "../http/method-table.js"
import { replyJson, setDataHeaders } from "../http/replies.js"
import { checkContentType, ClientGone, contentLength, receiveBody } from "../http/requests.js"
import type { BlobStore } from "../stores/blob-store.js"
import { queryOf, readRange } from "./deliveries.js"

export interface ProbeNeeds {
  readonly config: RelayConfig
  readonly clock: Clock
  readonly blobs: BlobStore
  /** Ends silences. */
  readonly stopping: AbortSignal
}

export function probeRoutes({ config, clock, blobs, stopping }: ProbeNeeds): Route[] {
  /** Throws ClientGone when there is nobody to answer any more. */
  async function silence(res: ServerResponse, lengthMs: number): Promise<void> {
    if (lengthMs === 0) return
    await untilEnough({ res, stopping }, (enough) => pause(lengthMs, enough))
    if (res.destroyed) throw new ClientGone()
  }

  function pause(lengthMs: number, enough: AbortSignal): Promise<void> {
    if (enough.aborted) return Promise.resolve()
    return new Promise((resolve) => {
      const end = (): void => {
        cancel()
        resolve()
      }
      const cancel = clock.after(lengthMs, end)
      enough.addEventListener("abort", end, { once: true })
    })
  }

  return [
    {
      path: "/v1/probe",
      methods: {
        async GET(req, res) {
          const { waitSeconds, pauseMs } = parseProbeQuery(queryOf(req.url))
          const whole = probeBody()
          const range = readRange(req, whole.length)
          const body = range === undefined ? whole : whole.subarray(range.first, range.last + 1)
          await silence(res, 1000 * waitSeconds)
          res.setHeader("Accept-Ranges", "bytes")
          setDataHeaders(res, body.length)
          if (range !== undefined) {
            res.setHeader("Content-Range", encodeContentRange(range, whole.length))
          }
          const half = body.length / 2
          res.writeHead(range === undefined ? 200 : 206).write(body.subarray(0, half))
          await silence(res, pauseMs)
          res.end(body.subarray(half))
        },
        async PUT(req, res) {
          checkContentType(req, "application/octet-stream")
          const lengthBytes = contentLength(req)
          const most = maxFinishBytes(relayDefaults.manifestBytes, relayDefaults.recipients)
          if (lengthBytes > most) throw new RelayRefusal("too_large", { extras: { limit: most } })
          const beganMs = clock.monotonicMs()
          await receiveBody(req, res, { clock, lengthBytes, take: () => undefined, isCopied: true })
          const tookMs = Math.round(clock.monotonicMs() - beganMs)
          const { freeBytes, totalBytes } = await blobs.space()
          const hasRoom = freeBytes > headroomBytes(config, totalBytes)
          replyJson(res, encodeProbeReply({ tookMs, hasRoom }))
        },
      },
    },
  ]
}
