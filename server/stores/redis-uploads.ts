// Uploads, their parts and what they reserve of the disk, in Redis. Hints of what is due lie apart from
// the uploads: they are written before an end comes nearer and removed after it was put off, so that
// there may be one too many, and the sweep asks the disk.
import { FormatError, fromHex, gridLength, maxParts } from "../../protocol/index.js"
import { type DeliveryId, deliveryIdOf } from "../ids.js"
import type { Command } from "./redis-connection.js"
import { keepMs, type RedisKeys } from "./redis-keys.js"
import {
  encodePart,
  encodeUpload,
  item,
  parsed,
  parsePart,
  parseUpload,
  Reply,
} from "./redis-records.js"
import { readHash, type RunScript, script } from "./redis-scripts.js"
import type {
  PartEntry,
  SetPartOutcome,
  UploadClose,
  UploadEntry,
  UploadIndex,
} from "./relay-index.js"

export interface RedisParts {
  readonly keys: RedisKeys
  readonly now: () => number
  readonly run: RunScript
  readonly command: Command
}

/** What can only be freed and needs nobody to wait for it. */
export interface Reclaims {
  reclaimNow(): Promise<void>
}

const closesAtOnce = 500

const fields = `"state", "record", "reserved", "expires", "due"`

const start = script(
  "grows",
  `
  local known = redis.call("HMGET", KEYS[1], ${fields})
  if not known[1] then
    redis.call("DEL", KEYS[1], KEYS[2])
    redis.call("HSET", KEYS[1], "state", "open", "record", ARGV[1], "reserved", ARGV[2],
      "expires", ARGV[3], "highest", "-1", "short", "-1")
    keep(KEYS[1], int(ARGV[4]))
    known = redis.call("HMGET", KEYS[1], ${fields})
  end
  return known`,
)

const read = script("reads", `return redis.call("HMGET", KEYS[1], ${fields})`)

const extend = script(
  "grows",
  `
  local known = redis.call("HMGET", KEYS[1], ${fields})
  if known[1] == "open" then
    local reserved = math.max(int(known[3]), int(ARGV[1]))
    local expires = math.max(int(known[4]), int(ARGV[2]))
    redis.call("HSET", KEYS[1], "reserved", digits(reserved), "expires", digits(expires))
    keep(KEYS[1], int(ARGV[3]))
    keep(KEYS[2], int(ARGV[3]))
    known = redis.call("HMGET", KEYS[1], ${fields})
  end
  return known`,
)

const setPart = script(
  "grows",
  `
  local upload = redis.call("HMGET", KEYS[1], "state", "highest", "short")
  if not upload[1] then return "unknown" end
  if upload[1] ~= "open" then return "closed" end
  local highest, short = int(upload[2]), int(upload[3])
  local index, isShort, fits = int(ARGV[1]), ARGV[3] == "1", ARGV[4] == "1"
  local known = redis.call("HGET", KEYS[2], ARGV[1])
  if known then
    if known == ARGV[2] then return "same" end
    return "differs"
  end
  if not fits then return "misplaced" end
  if short ~= -1 and (isShort or index > short) then return "misplaced" end
  if isShort and highest > index then return "misplaced" end
  redis.call("HSET", KEYS[2], ARGV[1], ARGV[2])
  keep(KEYS[2], redis.call("PTTL", KEYS[1]))
  if index > highest then redis.call("HSET", KEYS[1], "highest", ARGV[1]) end
  if isShort then redis.call("HSET", KEYS[1], "short", ARGV[1]) end
  return "stored"`,
)

const removePart = script(
  "frees",
  `
  local upload = redis.call("HMGET", KEYS[1], "state", "highest", "short")
  if upload[1] ~= "open" then return end
  local highest, short = int(upload[2]), int(upload[3])
  local known = redis.call("HGET", KEYS[2], ARGV[1])
  if not known or string.sub(known, 1, 32) ~= ARGV[2] then return end
  if highest == int(ARGV[1]) then
    highest = -1
    for _, index in ipairs(redis.call("HKEYS", KEYS[2])) do
      if index ~= ARGV[1] then highest = math.max(highest, int(index)) end
    end
  end
  if short == int(ARGV[1]) then short = -1 end
  redis.call("HDEL", KEYS[2], ARGV[1])
  redis.call("HSET", KEYS[1], "highest", digits(highest), "short", digits(short))`,
)

const close = script(
  "frees",
  `
  redis.call("DEL", KEYS[1], KEYS[2])
  redis.call("HSET", KEYS[1], "state", "closed", "due", ARGV[1])
  keep(KEYS[1], int(ARGV[2]))`,
)

const forget = script("frees", `redis.call("DEL", KEYS[1], KEYS[2], KEYS[3])`)

// Which uploads are open, and which were closed: each by when it is due.

const hintOpen = script(
  "grows",
  `
  redis.call("ZADD", KEYS[1], "GT", ARGV[2], ARGV[1])
  keep(KEYS[1], int(ARGV[3]))`,
)

/** How long to keep; then when and what, in turn. "NX" before them leaves what is known. */
const hintClosed = script(
  "frees",
  `
  redis.call("ZADD", KEYS[1], unpack(ARGV, 2))
  keep(KEYS[1], int(ARGV[1]))`,
)

const due = script(
  "reads",
  `
  local found = {}
  for at = 1, 2 do
    found[at] =
      redis.call("ZRANGE", KEYS[at], "-inf", ARGV[1], "BYSCORE", "LIMIT", 0, ARGV[2], "WITHSCORES")
  end
  return found`,
)

const claim = script(
  "frees",
  `
  local known = redis.call("GET", KEYS[1])
  if known then
    local untilMs, owner = string.match(known, "^(%d+) (.*)$")
    if not untilMs then damaged() end
    if owner ~= ARGV[1] and int(untilMs) > int(ARGV[3]) then return 0 end
  end
  redis.call("SET", KEYS[1], ARGV[2] .. " " .. ARGV[1], "PX", ARGV[4])
  return 1`,
)

const unclaim = script(
  "frees",
  `
  local known = redis.call("GET", KEYS[1])
  if known and string.match(known, "^%d+ (.*)$") == ARGV[1] then redis.call("DEL", KEYS[1]) end`,
)

const lease = script(
  "frees",
  `
  local known = redis.call("GET", KEYS[1])
  if known and int(known) >= int(ARGV[1]) then return end
  redis.call("SET", KEYS[1], ARGV[1], "PX", ARGV[2])`,
)

// The budget: bytes by upload, ends by upload, and the sum of the bytes, which counts what has ended
// until somebody needs its room.

const dropRoom = `
local function drop(id)
  local bytes = redis.call("HGET", KEYS[1], id)
  if bytes then
    local sum = int(redis.call("GET", KEYS[3])) - int(bytes)
    redis.call("HDEL", KEYS[1], id)
    redis.call("ZREM", KEYS[2], id)
    redis.call("SET", KEYS[3], digits(sum), "KEEPTTL")
  end
end
local function dropEnded(now)
  for _, id in ipairs(redis.call("ZRANGE", KEYS[2], "-inf", now, "BYSCORE")) do drop(id) end
end
`

const reserveRoom = script(
  "grows",
  `${dropRoom}
  local id, bytes, room, untilMs, now, ms = unpack(ARGV)
  local function others()
    return int(redis.call("GET", KEYS[3]) or "0") - int(redis.call("HGET", KEYS[1], id) or "0")
  end
  if others() + int(bytes) > int(room) then
    dropEnded(now)
    if others() + int(bytes) > int(room) then return 0 end
  end
  local sum = others() + int(bytes)
  redis.call("HSET", KEYS[1], id, bytes)
  redis.call("ZADD", KEYS[2], untilMs, id)
  redis.call("SET", KEYS[3], digits(sum), "KEEPTTL")
  for at = 1, 3 do keep(KEYS[at], int(ms)) end
  return 1`,
)

const releaseRoom = script("frees", `${dropRoom} drop(ARGV[1])`)
const reclaimRoom = script("frees", `${dropRoom} dropEnded(ARGV[1])`)

export function redisUploads({ keys, now, run, command }: RedisParts): UploadIndex & Reclaims {
  async function setHintOpen(id: DeliveryId, expiresMs: number): Promise<void> {
    await run(hintOpen, [keys.due[0]], [id, expiresMs, keepMs(expiresMs, now())])
  }

  async function closeAll(closes: readonly UploadClose[]): Promise<void> {
    for (let at = 0; at < closes.length; at += closesAtOnce) {
      const page = closes.slice(at, at + closesAtOnce)
      const nowMs = now()
      const keptMs = Math.max(...page.map(({ dueMs }) => keepMs(dueMs, nowMs)))
      const hints = page.flatMap(({ id, dueMs }) => [dueMs, id])
      await run(hintClosed, [keys.due[1]], [keptMs, ...hints])
      await Promise.all(
        page.map(({ id, dueMs }) =>
          run(close, keys.upload(id).slice(0, 2), [dueMs, keepMs(dueMs, nowMs)]),
        ),
      )
      await command("zrem", keys.due[0], ...page.map(({ id }) => id))
    }
  }

  async function dropHint(at: 0 | 1, id: DeliveryId): Promise<void> {
    await command("zrem", keys.due[at], id)
  }

  return {
    async startUpload(upload) {
      const { id, reservedBytes, expiresMs, ...fixed } = upload
      await setHintOpen(id, expiresMs)
      const args = [encodeUpload(fixed), reservedBytes, expiresMs, keepMs(expiresMs, now())]
      const entry = uploadOf(id, await run(start, keys.upload(id), args))
      if (entry === undefined) throw new Error("an upload that was stored")
      if (entry.state === "closed") await dropHint(0, id)
      return entry
    },

    async upload(id) {
      const entry = uploadOf(id, await run(read, [keys.upload(id)[0]], []))
      // A hint may be lost where a node of a cluster failed over; whoever looks puts it back.
      if (entry?.state === "closed") {
        const { dueMs } = entry
        await run(hintClosed, [keys.due[1]], [keepMs(dueMs, now()), "NX", dueMs, id])
      }
      return entry
    },

    async extendUpload({ id, reservedBytes, expiresMs }) {
      const args = [reservedBytes, expiresMs, keepMs(expiresMs, now())]
      const entry = uploadOf(id, await run(extend, keys.upload(id), args))
      if (entry?.state === "open") await setHintOpen(id, entry.expiresMs)
      return entry
    },

    async setPart({ id, index, leaf, lengthBytes }) {
      const full = gridLength(index)
      const fits = lengthBytes > 0 && lengthBytes <= full && index < maxParts
      const flags = [lengthBytes < full ? "1" : "0", fits ? "1" : "0"]
      const part = encodePart({ leaf, lengthBytes })
      const reply = await run(setPart, keys.upload(id).slice(0, 2), [index, part, ...flags])
      return parsed("part", () => setPartOutcome(reply.text()))
    },

    async removePart({ id, index, leaf }) {
      await run(removePart, keys.upload(id).slice(0, 2), [index, leaf])
    },

    async part({ id, index }) {
      const reply = new Reply(await command("hget", keys.upload(id)[1], index))
      return parsed("part", () => (reply.isNothing() ? undefined : parsePart(reply.bytes(), index)))
    },

    async parts(id) {
      const reply = await run(readHash, [keys.upload(id)[1]], [])
      return parsed("parts", () =>
        reply
          .groups(2)
          .map((pair): PartEntry => parsePart(item(pair, 1).bytes(), item(pair, 0).count()))
          .sort((a, b) => a.index - b.index),
      )
    },

    closeUpload: (close) => closeAll([close]),

    closeUploads: closeAll,

    async forgetUpload(id) {
      await run(forget, keys.upload(id), [])
      await Promise.all([dropHint(0, id), dropHint(1, id)])
    },

    async due(limit) {
      const reply = await run(due, keys.due, [now(), limit])
      return parsed("due", () => {
        const found = reply
          .fields(2)
          .flatMap((each) => each.groups(2))
          .map((pair) => ({
            id: deliveryIdOf(fromHex(item(pair, 0).text(), "redis.due")),
            dueMs: Number(item(pair, 1).text()),
          }))
          .sort((a, b) => a.dueMs - b.dueMs)
        return [...new Set(found.map(({ id }) => id))].slice(0, limit)
      })
    },

    async claim({ what, name, owner, untilMs }) {
      const nowMs = now()
      const args = [owner, untilMs, nowMs, keepMs(untilMs, nowMs)]
      const reply = await run(claim, [keys.claim(what, name)], args)
      return parsed("claim", () => reply.count() === 1)
    },

    async unclaim({ what, name, owner }) {
      await run(unclaim, [keys.claim(what, name)], [owner])
    },

    async lease({ id, untilMs }) {
      await run(lease, [keys.upload(id)[2]], [untilMs, keepMs(untilMs, now())])
    },

    async leasedUntil(id) {
      const reply = new Reply(await command("get", keys.upload(id)[2]))
      const untilMs = parsed("lease", () => (reply.isNothing() ? 0 : reply.count()))
      return untilMs > now() ? untilMs : undefined
    },

    async reserveRoom({ id, bytes, roomBytes, untilMs }) {
      const nowMs = now()
      const room = Math.floor(roomBytes)
      const args = [id, bytes, room, untilMs, nowMs, keepMs(untilMs, nowMs)]
      const reply = await run(reserveRoom, keys.room, args)
      return parsed("room", () => reply.count() === 1)
    },

    async releaseRoom(id) {
      await run(releaseRoom, keys.room, [id])
    },

    async reclaimNow() {
      await run(reclaimRoom, keys.room, [now()])
    },
  }
}

function uploadOf(id: DeliveryId, reply: Reply): UploadEntry | undefined {
  return parsed("upload", () => {
    const values = reply.fields(5)
    const state = item(values, 0)
    if (state.isNothing()) return undefined
    if (state.text() === "closed") return { state: "closed", dueMs: item(values, 4).count() }
    if (state.text() !== "open") throw new FormatError("redis.upload", "no such state")
    return {
      state: "open",
      id,
      ...parseUpload(item(values, 1).bytes()),
      reservedBytes: item(values, 2).count(),
      expiresMs: item(values, 3).count(),
    }
  })
}

const outcomes: readonly SetPartOutcome[] = [
  "stored",
  "same",
  "differs",
  "misplaced",
  "closed",
  "unknown",
]

function setPartOutcome(text: string): SetPartOutcome {
  const outcome = outcomes.find((each) => each === text)
  if (outcome === undefined) throw new Error("an answer of our own script")
  return outcome
}
