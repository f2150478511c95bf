// What the operator's socket answers. An application of its own: nothing of it is ever on the public
// listener, and the relay's routes are not here.
import express, { type ErrorRequestHandler, type Express } from "express"
import {
  encodeClockReply,
  encodeRelayStatus,
  RelayRefusal,
  type RelayStatus,
} from "../../protocol/index.js"
import { mount } from "../http/method-table.js"
import { replyJson, replyProblem } from "../http/replies.js"
import { failureFields, type Log } from "../log.js"

export interface OperatorNeeds {
  readonly status: () => Promise<RelayStatus>
  /** The operator says that the machine's clock is right. False when nobody doubted it. */
  readonly confirmClock: () => boolean
  readonly log: Log
}

export function createOperatorApp({ status, confirmClock, log }: OperatorNeeds): Express {
  const app = express()
  app.disable("x-powered-by")
  app.disable("etag")
  mount(app, [
    {
      path: "/status",
      methods: {
        async GET(_req, res) {
          replyJson(res, encodeRelayStatus(await status()))
        },
      },
    },
    {
      path: "/clock",
      methods: {
        POST(_req, res) {
          replyJson(res, encodeClockReply({ wasDoubted: confirmClock() }))
        },
      },
    },
  ])
  app.use(() => {
    throw new RelayRefusal("not_found")
  })
  // Express knows an error handler by its four parameters.
  const onError: ErrorRequestHandler = (error: unknown, _req, res, _next) => {
    if (!(error instanceof RelayRefusal))
      log("operator_request_failed", failureFields(error), "warning")
    replyProblem(res, error instanceof RelayRefusal ? error : new RelayRefusal("internal"))
  }
  app.use(onError)
  return app
}
