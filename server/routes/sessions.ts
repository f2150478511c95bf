// Challenges, registration, sessions.
import {
  encodeChallenge,
  encodeRegisterReply,
  encodeSessionList,
  encodeSessionReply,
  parseRegisterRequest,
  parseSessionRequest,
  RelayRefusal,
} from "../../protocol/index.js"
import type { Clock } from "../clock.js"
import type { Deliveries } from "../deliveries.js"
import { pathParameter, type Route } from "../http/method-table.js"
import { replyBytes, replyEmpty, replyJson } from "../http/replies.js"
import { checkNoBody, readBearer, readJson } from "../http/requests.js"
import type { IdleInboxes } from "../idle-inboxes.js"
import { parsePathId, parsePathInbox } from "../ids.js"
import type { Logins } from "../logins.js"
import type { RelayIndex } from "../stores/relay-index.js"

export interface SessionNeeds {
  readonly logins: Logins
  readonly index: RelayIndex
  readonly idle: Pick<IdleInboxes, "isClosed">
  readonly deliveries: Pick<Deliveries, "discardAll">
  readonly clock: Clock
}

export function sessionRoutes({ logins, index, idle, deliveries, clock }: SessionNeeds): Route[] {
  return [
    {
      path: "/v1/sessions/challenge",
      methods: {
        async POST(req, res) {
          checkNoBody(req)
          replyJson(res, encodeChallenge(await logins.challenge()))
        },
      },
    },
    {
      path: "/v1/inboxes/:address",
      methods: {
        async GET(req, res) {
          const inbox = parsePathInbox(pathParameter(req, "address"))
          const bundle = await index.bundle(inbox)
          if (bundle === undefined || (await idle.isClosed(inbox))) {
            throw new RelayRefusal("no_such_inbox")
          }
          replyBytes(res, bundle)
        },
        async PUT(req, res) {
          const inbox = parsePathInbox(pathParameter(req, "address"))
          const request = parseRegisterRequest(await readJson(req, res, clock))
          const reply = await logins.register(inbox, request)
          replyJson(res, encodeRegisterReply(reply), reply.created ? 201 : 200)
        },
        async DELETE(req, res) {
          const inbox = parsePathInbox(pathParameter(req, "address"))
          const session = await logins.session(readBearer(req))
          if (session.inbox !== inbox) throw new RelayRefusal("not_found")
          // Closed first, so that nothing comes in behind what is deleted.
          await logins.closeInbox(session)
          await deliveries.discardAll(inbox)
          replyEmpty(res)
        },
      },
    },
    {
      path: "/v1/sessions",
      methods: {
        async GET(req, res) {
          const session = await logins.session(readBearer(req))
          replyJson(res, encodeSessionList(await logins.list(session)))
        },
        async POST(req, res) {
          const request = parseSessionRequest(await readJson(req, res, clock))
          replyJson(res, encodeSessionReply(await logins.login(request)), 201)
        },
      },
    },
    {
      path: "/v1/sessions/:id",
      methods: {
        async DELETE(req, res) {
          const id = parsePathId(pathParameter(req, "id"))
          const session = await logins.session(readBearer(req))
          await logins.end(session, id)
          replyEmpty(res)
        },
      },
    },
  ]
}
