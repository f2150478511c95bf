// Sessions, what is spent once, and the secrets that all processes of a relay share, in Redis. People
// log in to fetch what waits for them, so all of it goes on when Redis is out of memory.
import { equalBytes, FormatError, fromHex, toHex } from "../../protocol/index.js"
import { type InboxId, isInboxId } from "../ids.js"
import { keepMs } from "./redis-keys.js"
import { item, parsed, Reply } from "./redis-records.js"
import { script } from "./redis-scripts.js"
import type { RedisParts } from "./redis-uploads.js"
import type { Session, SessionIndex } from "./relay-index.js"

/** A session's last use is noted no more often: a page of pieces would else be a page of writes. */
const noteUseEveryMs = 15_000

/** Beyond its end a secret is of use to thieves only. Two machines' clocks may differ by this. */
const secretAfterEndMs = 60_000

const fields = `"token", "inbox", "created", "used", "absolute", "idle"`

const add = script(
  "frees",
  `
  redis.call("HSET", KEYS[1], "token", ARGV[1], "inbox", ARGV[2], "created", ARGV[3],
    "used", ARGV[4], "absolute", ARGV[5], "idle", ARGV[6])
  redis.call("PEXPIRE", KEYS[1], ARGV[7])`,
)

/** The sessions of an inbox, by when they end at last. */
const list = script(
  "frees",
  `
  redis.call("ZREMRANGEBYSCORE", KEYS[1], "-inf", ARGV[3])
  redis.call("ZADD", KEYS[1], ARGV[2], ARGV[1])
  keep(KEYS[1], int(ARGV[4]))`,
)

const use = script(
  "frees",
  `
  local known = redis.call("HMGET", KEYS[1], ${fields})
  if not known[1] then return known end
  local now = int(ARGV[2])
  local used, absolute, idle = int(known[4]), int(known[5]), int(known[6])
  if known[1] ~= ARGV[1] or now >= math.min(absolute, used + idle) then return known end
  if now - used >= int(ARGV[4]) then
    redis.call("HSET", KEYS[1], "used", ARGV[2], "idle", ARGV[3])
  end
  return known`,
)

const end = script(
  "frees",
  `if redis.call("HGET", KEYS[1], "inbox") == ARGV[1] then redis.call("DEL", KEYS[1]) end`,
)

const spend = script(
  "frees",
  `
  local known = redis.call("GET", KEYS[1])
  if known and int(known) > int(ARGV[2]) then return 0 end
  redis.call("SET", KEYS[1], ARGV[1], "PX", ARGV[3])
  return 1`,
)

const secret = script(
  "frees",
  `
  local known = redis.call("HMGET", KEYS[1], "until", "value")
  if known[1] and int(known[1]) > int(ARGV[3]) then return known[2] end
  redis.call("HSET", KEYS[1], "until", ARGV[1], "value", ARGV[2])
  redis.call("PEXPIRE", KEYS[1], ARGV[4])
  return ARGV[2]`,
)

export function redisSessions({ keys, now, run, command }: RedisParts): SessionIndex {
  async function read(id: string): Promise<StoredSession | undefined> {
    const names = ["token", "inbox", "created", "used", "absolute", "idle"]
    return sessionOf(new Reply(await command("hmget", keys.session(id), ...names)))
  }

  return {
    async addSession(session) {
      const { inbox, tokenHash, createdMs, lastUsedMs, absoluteMs, idleMs } = session
      const id = sessionId(tokenHash)
      const nowMs = now()
      const keptMs = keepMs(absoluteMs, nowMs)
      // Listed first: the list may name what is not there.
      await run(list, [keys.sessionsOf(inbox)], [id, absoluteMs, nowMs, keptMs])
      const args = [tokenHash, inbox, createdMs, lastUsedMs, absoluteMs, idleMs, keptMs]
      await run(add, [keys.session(id)], args)
    },

    async useSession({ tokenHash, idleMs }) {
      const nowMs = now()
      const args = [tokenHash, nowMs, idleMs, noteUseEveryMs]
      const stored = sessionOf(await run(use, [keys.session(sessionId(tokenHash))], args))
      if (stored === undefined || !equalBytes(stored.session.tokenHash, tokenHash)) return undefined
      return hasEnded(stored, nowMs) ? undefined : stored.session
    },

    async sessions(inbox) {
      const reply = new Reply(await command("zrange", keys.sessionsOf(inbox), 0, -1))
      const ids = parsed("sessions", () => reply.list().map((id) => toHex(fromHex(id.text()))))
      const found = await Promise.all(ids.map(read))
      return found.flatMap((stored) =>
        stored === undefined || stored.session.inbox !== inbox || hasEnded(stored, now())
          ? []
          : [stored.session],
      )
    },

    async endSession({ inbox, id }) {
      await run(end, [keys.session(id)], [inbox])
      await command("zrem", keys.sessionsOf(inbox), id)
    },

    async spend({ value, untilMs }) {
      const nowMs = now()
      const args = [untilMs, nowMs, keepMs(untilMs, nowMs)]
      const reply = await run(spend, [keys.spent(toHex(value))], args)
      return parsed("spent", () => reply.count() === 1)
    },

    async sharedSecret({ name, candidate, untilMs }) {
      const nowMs = now()
      const keptMs = Math.max(0, untilMs - nowMs) + secretAfterEndMs
      const reply = await run(secret, [keys.secret(name)], [untilMs, candidate, nowMs, keptMs])
      return parsed("secret", () => reply.bytesOf(candidate.length))
    },
  }
}

interface StoredSession {
  readonly session: Session
  readonly idleMs: number
}

function sessionOf(reply: Reply): StoredSession | undefined {
  return parsed("session", () => {
    const values = reply.fields(6)
    if (item(values, 0).isNothing()) return undefined
    return {
      session: {
        tokenHash: item(values, 0).bytesOf(32),
        inbox: inboxOf(item(values, 1)),
        createdMs: item(values, 2).count(),
        lastUsedMs: item(values, 3).count(),
        absoluteMs: item(values, 4).count(),
      },
      idleMs: item(values, 5).count(),
    }
  })
}

export function inboxOf(reply: Reply): InboxId {
  const text = reply.text()
  if (!isInboxId(text)) throw new FormatError("redis", "not the id of an inbox")
  return text
}

function hasEnded({ session, idleMs }: StoredSession, nowMs: number): boolean {
  return nowMs >= Math.min(session.absoluteMs, session.lastUsedMs + idleMs)
}

function sessionId(tokenHash: Uint8Array): string {
  return toHex(tokenHash.subarray(0, 16))
}
