// Inboxes, their chains and their quotas, in Redis. All of one inbox lies on one node and changes in one
// script. What spans inboxes is kept apart, and can be told again at any time: which inboxes there are,
// which may name one too many, and how much is in them all.
import { EventEmitter } from "node:events"
import { concatBytes, equalBytes, FormatError, fromHex } from "../../protocol/index.js"
import { type DeliveryId, deliveryIdOf, type InboxId, isInboxId } from "../ids.js"
import { unlessExpired } from "./chain-entries.js"
import { IndexUnavailable } from "./index-errors.js"
import type { Argument, News } from "./redis-connection.js"
import { inboxMs, renewAfterMs } from "./redis-keys.js"
import { encodeEntry, item, parsed, parseEntry, reasonNumber, Reply } from "./redis-records.js"
import { readHash, script } from "./redis-scripts.js"
import { inboxOf } from "./redis-sessions.js"
import { createRedisTally, type InboxCount, type RedisTally } from "./redis-tally.js"
import type { RedisParts } from "./redis-uploads.js"
import type { Chain, ChainEntry, InboxIndex, RestoredEntry } from "./relay-index.js"

/** So many entries take Redis a few milliseconds. */
const waitingPage = 2000

const chainFields = `"seq", "head", "visible", "visible_head", "floor", "floor_head"`

const inboxLua = `
-- KEYS: state, entries, envelopes, ids, contents, shares, accepting, version.
local function state()
  local known = redis.call("HMGET", KEYS[1], "seq", "visible", "floor", "used_bytes", "used",
    "held_bytes", "held", "listed")
  if not known[1] then return nil end
  return { seq = int(known[1]), visible = int(known[2]), floor = int(known[3]),
    used_bytes = int(known[4]), used = int(known[5]), held_bytes = int(known[6]),
    held = int(known[7]), listed = int(known[8]) }
end

-- Renews what is kept when that was long ago, and keeps what is new.
local function touch()
  for at = 1, 8 do
    local left = redis.call("PTTL", KEYS[at])
    if left ~= -2 and left < ${inboxMs - renewAfterMs} then
      redis.call("PEXPIRE", KEYS[at], "${inboxMs}")
    end
  end
end

-- A number that grows with each change of what is used, through the inbox's end and beyond: of two
-- reports of the same inbox the later one counts.
local function nextVersion(now)
  local known = redis.call("GET", KEYS[8])
  local version = int(now) * 1000
  if known then version = int(known) + 1 end
  redis.call("SET", KEYS[8], digits(version), "PX", "${inboxMs}")
  return digits(version)
end

local function report(outcome, s)
  return { outcome, redis.call("GET", KEYS[8]) or "0", digits(s.used_bytes), digits(s.used) }
end

-- Entries by their places (redis-records.ts).
local function checked(entry)
  local kind = string.byte(entry, 2)
  if string.byte(entry, 1) ~= 1 then damaged() end
  if not (kind == 1 and #entry >= 144 or kind == 2 and #entry == 131) then damaged() end
  return entry
end
local function isWaiting(entry) return string.byte(entry, 2) == 1 end
local function idOf(entry) return string.sub(entry, 3, 18) end
local function contentOf(entry) return string.sub(entry, 19, 82) end
local function headOf(entry) return string.sub(entry, 83, 114) end
local function sizeOf(entry)
  local high, low = struct.unpack(">I4I4", string.sub(entry, 131, 138))
  return high * 4294967296 + low
end

-- The entries from one seq to another, all of which are there.
local function entriesOf(first, last)
  local found = {}
  for from = first, last, 500 do
    local seqs = {}
    for seq = from, math.min(last, from + 499) do seqs[#seqs + 1] = digits(seq) end
    for _, entry in ipairs(redis.call("HMGET", KEYS[2], unpack(seqs))) do
      if not entry then damaged() end
      found[#found + 1] = checked(entry)
    end
  end
  return found
end

-- A share is "bytes until".
local function shareOf(id)
  local share = redis.call("HGET", KEYS[6], id)
  if not share then return nil end
  local bytes, untilMs = string.match(share, "^(%d+) (%d+)$")
  if not bytes then damaged() end
  return { bytes = int(bytes), untilMs = int(untilMs) }
end

-- What all shares hold, but for those that have ended; and which those are.
local function heldBy(now)
  local bytes, count, ended = 0, 0, {}
  for _, id in ipairs(redis.call("HKEYS", KEYS[6])) do
    local share = shareOf(id)
    if now and share.untilMs <= now then
      ended[#ended + 1] = id
    else
      bytes, count = bytes + share.bytes, count + 1
    end
  end
  return bytes, count, ended
end

local function setHeld(bytes, count)
  redis.call("HSET", KEYS[1], "held_bytes", digits(bytes), "held", digits(count))
end

local function setUsed(s)
  redis.call("HSET", KEYS[1], "used_bytes", digits(s.used_bytes), "used", digits(s.used))
end
`

const open = script(
  "grows",
  `${inboxLua}
  local s = state()
  if s then return report("known", s) end
  redis.call("UNLINK", unpack(KEYS, 1, 7))
  redis.call("HSET", KEYS[1], "bundle", ARGV[2], "seq", "0", "head", ARGV[3], "visible", "0",
    "visible_head", ARGV[3], "floor", "0", "floor_head", ARGV[3], "used_bytes", "0", "used", "0",
    "held_bytes", "0", "held", "0", "listed", "0")
  nextVersion(ARGV[1])
  touch()
  return report("opened", state())`,
)

const chain = script(
  "reads",
  `${inboxLua}
  return { redis.call("HMGET", KEYS[1], ${chainFields}), redis.call("PTTL", KEYS[1]) }`,
)

const renew = script(
  "frees",
  `${inboxLua}
  local s = state()
  if not s then return nil end
  touch()
  return report("known", s)`,
)

const remove = script(
  "frees",
  `${inboxLua}
  redis.call("UNLINK", unpack(KEYS, 1, 7))
  return nextVersion(ARGV[1])`,
)

/** Entries put behind those that are there; they are nobody's share any more. */
const putEntries = `
local function givenFrom(at, after)
  local given = {}
  for each = at, #ARGV, 2 do
    local entry = checked(ARGV[each])
    given[#given + 1] = { seq = digits(after + #given + 1), entry = entry,
      envelope = ARGV[each + 1], share = shareOf(idOf(entry)) }
  end
  return given
end

local function putAll(s, given)
  for _, each in ipairs(given) do
    local id = idOf(each.entry)
    redis.call("HSET", KEYS[2], each.seq, each.entry)
    redis.call("HSET", KEYS[4], id, each.seq)
    redis.call("HSET", KEYS[5], contentOf(each.entry), each.seq)
    if isWaiting(each.entry) then
      redis.call("HSET", KEYS[3], each.seq, each.envelope)
      s.used_bytes, s.used = s.used_bytes + sizeOf(each.entry), s.used + 1
    end
    if each.share and redis.call("HDEL", KEYS[6], id) == 1 then
      s.held_bytes, s.held = s.held_bytes - each.share.bytes, s.held - 1
    end
  end
  local last = given[#given]
  if last then redis.call("HSET", KEYS[1], "seq", last.seq, "head", headOf(last.entry)) end
  setUsed(s)
  setHeld(s.held_bytes, s.held)
end

local function showAll(given)
  local last = given[#given]
  for _, each in ipairs(given) do redis.call("HDEL", KEYS[7], idOf(each.entry)) end
  if last then
    -- What was listed before is not on disk: better to call nothing new than everything.
    redis.call("HSET", KEYS[1], "visible", last.seq, "visible_head", headOf(last.entry),
      "listed", last.seq)
  end
end
`

const restore = script(
  "grows",
  `${inboxLua} ${putEntries}
  local now, bundle, floor, floorHead = unpack(ARGV, 1, 4)
  local given = givenFrom(5, int(floor))
  local s = { used_bytes = 0, used = 0 }
  s.held_bytes, s.held = heldBy(nil)
  redis.call("UNLINK", unpack(KEYS, 1, 5))
  redis.call("HSET", KEYS[1], "bundle", bundle, "seq", floor, "head", floorHead,
    "visible", floor, "visible_head", floorHead, "floor", floor, "floor_head", floorHead,
    "listed", floor)
  putAll(s, given)
  showAll(given)
  nextVersion(now)
  touch()
  return report("restored", s)`,
)

const restoreMore = script(
  "grows",
  `${inboxLua} ${putEntries}
  local s, after = state(), int(ARGV[2])
  if not s then return { "unknown" } end
  if s.seq ~= after or s.visible ~= after then return report("moved", s) end
  local given = givenFrom(3, after)
  putAll(s, given)
  showAll(given)
  nextVersion(ARGV[1])
  touch()
  return report("restored", s)`,
)

const reserveShare = script(
  "grows",
  `${inboxLua}
  local id, bytes, untilMs = ARGV[1], int(ARGV[2]), ARGV[3]
  local quotaBytes, quotaCount, now = int(ARGV[4]), int(ARGV[5]), int(ARGV[6])
  local s = state()
  if not s then return "unknown" end
  local earlier = shareOf(id)
  local heldBytes, held = s.held_bytes, s.held
  local function fits()
    local ownBytes, own = 0, 0
    if earlier then ownBytes, own = earlier.bytes, 1 end
    return s.used_bytes + heldBytes - ownBytes + bytes <= quotaBytes
      and s.used + held - own < quotaCount
  end
  if not fits() then
    local ended
    heldBytes, held, ended = heldBy(now)
    for _, each in ipairs(ended) do
      redis.call("HDEL", KEYS[6], each)
      if each == id then earlier = nil end
    end
    if not fits() then
      setHeld(heldBytes, held)
      return "full"
    end
  end
  if earlier then heldBytes, held = heldBytes - earlier.bytes, held - 1 end
  redis.call("HSET", KEYS[6], id, digits(bytes) .. " " .. untilMs)
  setHeld(heldBytes + bytes, held + 1)
  touch()
  return "reserved"`,
)

const releaseShare = script(
  "frees",
  `${inboxLua}
  local s = state()
  local share = shareOf(ARGV[1])
  if not s or not share then return end
  redis.call("HDEL", KEYS[6], ARGV[1])
  setHeld(s.held_bytes - share.bytes, s.held - 1)`,
)

const beginAccepting = script(
  "grows",
  `${inboxLua}
  redis.call("HSET", KEYS[7], ARGV[1], ARGV[2])
  touch()`,
)

const assign = script(
  "grows",
  `${inboxLua} ${putEntries}
  local s, after = state(), int(ARGV[2])
  if not s then return { "unknown" } end
  local given = givenFrom(3, after)
  local areThere = true
  for _, each in ipairs(given) do
    local known = redis.call("HGET", KEYS[2], each.seq)
    areThere = areThere and known and idOf(checked(known)) == idOf(each.entry)
      and headOf(known) == headOf(each.entry)
  end
  if areThere then return report("assigned", s) end
  if s.seq ~= after then return { "moved" } end
  putAll(s, given)
  nextVersion(ARGV[1])
  touch()
  return report("assigned", s)`,
)

const reveal = script(
  "frees",
  `${inboxLua}
  local s, seq = state(), int(ARGV[1])
  if s and seq > s.visible then
    if seq > s.seq then return "unassigned" end
    local entries = entriesOf(s.visible + 1, seq)
    for _, entry in ipairs(entries) do
      redis.call("HDEL", KEYS[7], idOf(entry))
    end
    redis.call("HSET", KEYS[1], "visible", ARGV[1], "visible_head", headOf(entries[#entries]))
    touch()
  end
  redis.call("PUBLISH", ARGV[2], ARGV[3])
  return "revealed"`,
)

const unrevealed = script(
  "reads",
  `${inboxLua}
  local s, found = state(), {}
  if not s then return found end
  for at, entry in ipairs(entriesOf(s.visible + 1, s.seq)) do
    local seq = digits(s.visible + at)
    if isWaiting(entry) then
      local envelope = redis.call("HGET", KEYS[3], seq)
      found[#found + 1] = seq
      found[#found + 1] = entry
      found[#found + 1] = envelope
    end
  end
  return found`,
)

/** KEYS[2] entries, and the one that leads to them. */
const lookup = script(
  "reads",
  `
  local seq = redis.call("HGET", KEYS[2], ARGV[1])
  if not seq then return {} end
  return { seq, redis.call("HGET", KEYS[1], seq) }`,
)

const entriesAfter = script(
  "reads",
  `${inboxLua}
  local s = state()
  if not s then return {} end
  local first = math.max(int(ARGV[1]), s.floor) + 1
  local entries = entriesOf(first, math.min(s.visible, first + int(ARGV[2]) - 1))
  return { digits(first), entries }`,
)

/** Ids of those that wait among the visible ones of a page, and where the next page begins. */
const waiting = script(
  "reads",
  `${inboxLua}
  local s, ids = state(), {}
  if not s then return { "", "0" } end
  local first = math.max(int(ARGV[1]), s.floor + 1)
  local last = math.min(s.visible, first + ${waitingPage - 1})
  for _, entry in ipairs(entriesOf(first, last)) do
    if isWaiting(entry) then ids[#ids + 1] = idOf(entry) end
  end
  return { table.concat(ids), last < s.visible and digits(last + 1) or "0" }`,
)

const listing = script(
  "frees",
  `${inboxLua}
  local s = state()
  if not s then return {} end
  local limit = int(ARGV[2])
  local first = math.max(int(ARGV[1]), s.floor) + 1
  local last = math.min(s.visible, first + limit - 1)
  local entries = entriesOf(first, last)
  local envelopes = {}
  for at, entry in ipairs(entries) do
    envelopes[at] = ARGV[3] == "1" and isWaiting(entry)
      and redis.call("HGET", KEYS[3], digits(first + at - 1)) or ""
  end
  local accepting = false
  for _, acceptedMs in ipairs(redis.call("HVALS", KEYS[7])) do
    if not accepting or int(acceptedMs) < int(accepting) then accepting = acceptedMs end
  end
  local known = redis.call("HMGET", KEYS[1], ${chainFields})
  if #entries > 0 and last > s.listed then redis.call("HSET", KEYS[1], "listed", digits(last)) end
  local more = s.visible > last and 1 or 0
  return { known, digits(first), entries, envelopes, more, digits(s.used_bytes), digits(s.used),
    digits(s.listed), accepting }`,
)

const bury = script(
  "frees",
  `${inboxLua}
  local s = state()
  if not s then return { "unknown" } end
  local graves = {}
  for at = 2, #ARGV, 2 do
    local entry = redis.call("HGET", KEYS[2], ARGV[at])
    if entry and isWaiting(checked(entry)) then
      graves[ARGV[at]] = { entry = entry, reason = ARGV[at + 1] }
    end
  end
  if not next(graves) then return report("buried", s) end
  for seq, grave in pairs(graves) do
    redis.call("HDEL", KEYS[3], seq)
    redis.call("HSET", KEYS[2], seq,
      "\\1\\2" .. string.sub(grave.entry, 3, 130) .. string.char(int(grave.reason)))
    s.used_bytes, s.used = s.used_bytes - sizeOf(grave.entry), s.used - 1
  end
  setUsed(s)
  nextVersion(ARGV[1])
  touch()
  return report("buried", s)`,
)

const raiseFloor = script(
  "frees",
  `${inboxLua}
  local s, floor = state(), int(ARGV[1])
  if not s or floor <= s.floor then return end
  for seq = s.floor + 1, math.min(floor, s.seq) do
    local number = digits(seq)
    local entry = redis.call("HGET", KEYS[2], number)
    if entry then
      redis.call("HDEL", KEYS[2], number)
      redis.call("HDEL", KEYS[3], number)
      -- A later entry of the same delivery or content keeps its own reference.
      local id, content = idOf(entry), contentOf(entry)
      if redis.call("HGET", KEYS[4], id) == number then redis.call("HDEL", KEYS[4], id) end
      if redis.call("HGET", KEYS[5], content) == number then
        redis.call("HDEL", KEYS[5], content)
      end
    end
  end
  redis.call("HSET", KEYS[1], "floor", ARGV[1], "floor_head", ARGV[2])
  touch()`,
)

const nameInbox = script(
  "grows",
  `
  redis.call("SADD", KEYS[1], ARGV[1])
  local left = redis.call("PTTL", KEYS[1])
  if left < ${inboxMs - renewAfterMs} then redis.call("PEXPIRE", KEYS[1], "${inboxMs}") end`,
)

export interface RedisInboxes extends InboxIndex {
  readonly tally: RedisTally
  /** For the channel that says which inbox has something new. */
  readonly news: News
}

export function redisInboxes(parts: RedisParts): RedisInboxes {
  const { keys, now, run, command } = parts
  const tally = createRedisTally(parts)
  const watchers = new EventEmitter()
  // One listener for each waiting long poll.
  watchers.setMaxListeners(0)

  async function name(inbox: InboxId): Promise<void> {
    await run(nameInbox, [keys.inboxes], [inbox])
  }

  /** Counts what a script says that an inbox holds; gives the script's word for what it did. */
  async function counted(inbox: InboxId, reply: Reply): Promise<string> {
    const { outcome, count } = parsed("inbox", () => outcomeOf(reply))
    if (count !== undefined) await tally.count(inbox, count)
    return outcome
  }

  // Once in a while, and after every interruption, an inbox that is looked at is named, counted and
  // kept again: on a cluster one node may have lost what another one kept.
  let renewed = new Set<InboxId>()
  let renewedMs = 0

  async function renewSometimes(inbox: InboxId): Promise<void> {
    if (now() - renewedMs > renewAgainMs) {
      renewed = new Set()
      renewedMs = now()
    }
    if (renewed.has(inbox)) return
    renewed.add(inbox)
    try {
      const reply = await run(renew, keys.inbox(inbox), [])
      if (reply.isNothing()) return
      await counted(inbox, reply)
      await name(inbox)
    } catch (error) {
      // A reader goes on where nothing can be written.
      renewed.delete(inbox)
      if (!(error instanceof IndexUnavailable)) throw error
    }
  }

  async function look(
    inbox: InboxId,
    by: 3 | 4,
    field: Uint8Array,
  ): Promise<ChainEntry | undefined> {
    const all = keys.inbox(inbox)
    const reply = await run(lookup, [all[1] ?? "", all[by] ?? ""], [field])
    return parsed("entry", () => {
      const list = reply.list()
      if (list.length === 0) return undefined
      return parseEntry(item(list, 1).bytes(), item(list, 0).count())
    })
  }

  return {
    tally,

    news: {
      heard: (message) => {
        if (isInboxId(message)) watchers.emit(message)
      },
      missed: () => {
        renewed.clear()
        for (const inbox of watchers.eventNames()) watchers.emit(inbox)
      },
    },

    async openInbox(inbox, bundle) {
      await name(inbox)
      const args = [now(), bundle, zeroHead]
      const outcome = await counted(inbox, await run(open, keys.inbox(inbox), args))
      // Once more: a removal under way may have taken the name away in between.
      await name(inbox)
      return outcome === "opened"
    },

    async bundle(inbox) {
      const reply = new Reply(await command("hget", keys.inbox(inbox)[0] ?? "", "bundle"))
      return parsed("bundle", () => (reply.isNothing() ? undefined : reply.bytes()))
    },

    async chain(inbox) {
      const reply = await run(chain, keys.inbox(inbox), [])
      const found = parsed("chain", () => chainOf(item(reply.fields(2), 0)))
      if (found !== undefined) await renewSometimes(inbox)
      return found
    },

    async inboxes() {
      const reply = new Reply(await command("smembers", keys.inboxes))
      return parsed("inboxes", () => reply.list().map(inboxOf))
    },

    async removeInbox(inbox) {
      const reply = await run(remove, keys.inbox(inbox), [now()])
      await tally.drop(
        inbox,
        parsed("inbox", () => reply.count()),
      )
      await command("srem", keys.inboxes, inbox)
      // Opened again in between, by somebody who named it before its name was taken away.
      const isThere = new Reply(await command("exists", keys.inbox(inbox)[0] ?? ""))
      if (parsed("inbox", () => isThere.count()) === 1) await name(inbox)
    },

    async restoreInbox({ inbox, bundle, floorSeq, floorHead, entries }) {
      await name(inbox)
      const args = [now(), bundle, floorSeq, floorHead, ...sentEntries(floorSeq, entries)]
      await counted(inbox, await run(restore, keys.inbox(inbox), args))
      await name(inbox)
    },

    async restoreEntries({ inbox, afterSeq, entries }) {
      const args = [now(), afterSeq, ...sentEntries(afterSeq, entries)]
      await counted(inbox, await run(restoreMore, keys.inbox(inbox), args))
    },

    async reserveShare({ inbox, id, bytes, quota, untilMs }) {
      const args = [fromHex(id), bytes, untilMs, quota.bytes, quota.deliveries, now()]
      const reply = await run(reserveShare, keys.inbox(inbox), args)
      return parsed("share", () => oneOf(reply.text(), ["reserved", "full", "unknown"]))
    },

    async releaseShare({ inbox, id }) {
      await run(releaseShare, keys.inbox(inbox), [fromHex(id)])
    },

    async beginAccepting({ inbox, id, acceptedMs }) {
      await run(beginAccepting, keys.inbox(inbox), [fromHex(id), acceptedMs])
    },

    async endAccepting({ inbox, id }) {
      await command("hdel", keys.inbox(inbox)[6] ?? "", fromHex(id))
    },

    async accepting(inbox) {
      const reply = await run(readHash, [keys.inbox(inbox)[6] ?? ""], [])
      return parsed("accepting", () =>
        reply.groups(2).map((pair) => ({
          id: deliveryIdOf(item(pair, 0).bytesOf(16)),
          acceptedMs: item(pair, 1).count(),
        })),
      )
    },

    async assign({ inbox, afterSeq, entries }) {
      const args = [now(), afterSeq, ...sentEntries(afterSeq, entries)]
      const reply = await run(assign, keys.inbox(inbox), args)
      return oneOf(await counted(inbox, reply), ["assigned", "moved", "unknown"])
    },

    async reveal({ inbox, seq }) {
      const reply = await run(reveal, keys.inbox(inbox), [seq, keys.channel, inbox])
      if (parsed("reveal", () => reply.text()) === "unassigned") {
        throw new RangeError("only what was assigned can be revealed")
      }
    },

    async unrevealed(inbox) {
      const reply = await run(unrevealed, keys.inbox(inbox), [])
      return parsed("entries", () =>
        reply.groups(3).flatMap((each) => {
          const entry = parseEntry(item(each, 1).bytes(), item(each, 0).count())
          return entry.kind === "waiting" ? [{ ...entry, envelope: item(each, 2).bytes() }] : []
        }),
      )
    },

    async entryByContent({ inbox, ...content }) {
      const entry = await look(inbox, 4, contentKey(content))
      if (entry === undefined || equalBytes(contentKey(entry), contentKey(content))) return entry
      return parsed("entry", () => {
        throw new FormatError("redis.entry", "not the one that was asked for")
      })
    },

    entryById: ({ inbox, id }) => look(inbox, 3, fromHex(id)),

    async entriesAfter({ inbox, seq, limit }) {
      const reply = await run(entriesAfter, keys.inbox(inbox), [seq, limit])
      return parsed("entries", () => {
        const list = reply.list()
        if (list.length === 0) return []
        return entriesFrom(item(list, 0).count(), item(list, 1).list())
      })
    },

    async envelope({ inbox, seq }) {
      const reply = new Reply(await command("hget", keys.inbox(inbox)[2] ?? "", seq))
      return parsed("envelope", () => (reply.isNothing() ? undefined : reply.bytes()))
    },

    async waiting(inbox) {
      const ids: DeliveryId[] = []
      let from = 1
      // Page by page, for others to have their turn in between: what waits can only be gone meanwhile.
      while (from > 0) {
        const reply = await run(waiting, keys.inbox(inbox), [from])
        from = parsed("entries", () => {
          const values = reply.fields(2)
          const bytes = item(values, 0).bytes()
          for (let at = 0; at < bytes.length; at += 16) {
            ids.push(deliveryIdOf(bytes.subarray(at, at + 16)))
          }
          return item(values, 1).count()
        })
      }
      return ids
    },

    async listing({ inbox, afterSeq, limit, envelopes }) {
      // Anybody may ask for what comes after the greatest number; the one after it would not be exact.
      const after = Math.min(afterSeq, Number.MAX_SAFE_INTEGER - 1)
      const args = [after, limit, envelopes ? "1" : "0"]
      const reply = await run(listing, keys.inbox(inbox), args)
      return parsed("listing", () => {
        if (reply.list().length === 0) return undefined
        const values = reply.fields(9)
        const chain = chainOf(item(values, 0))
        if (chain === undefined) return undefined
        const found = entriesFrom(item(values, 1).count(), item(values, 2).list())
        const sealed = item(values, 3).list()
        const entries = found.map((entry, at) => {
          const shown = unlessExpired(entry, now())
          if (!envelopes || shown.kind === "gone") return shown
          return { ...shown, envelope: item(sealed, at).bytes() }
        })
        const accepting = item(values, 8)
        return {
          chain,
          entries,
          more: item(values, 4).count() === 1,
          used: { bytes: item(values, 5).count(), deliveries: item(values, 6).count() },
          listedSeq: item(values, 7).count(),
          acceptingMs: accepting.isNothing() ? undefined : accepting.count(),
        }
      })
    },

    async bury({ inbox, seqs }) {
      const args = seqs.flatMap(({ seq, reason }) => [seq, reasonNumber(reason)])
      await counted(inbox, await run(bury, keys.inbox(inbox), [now(), ...args]))
    },

    async raiseFloor({ inbox, seq, head }) {
      await run(raiseFloor, keys.inbox(inbox), [seq, head])
    },

    watch(inbox, changed) {
      watchers.on(inbox, changed)
      return () => watchers.off(inbox, changed)
    },
  }
}

const zeroHead = new Uint8Array(32)
const renewAgainMs = 30 * 60_000

function contentKey(content: {
  readonly headerHash: Uint8Array
  readonly envelopeHash: Uint8Array
}): Uint8Array {
  return concatBytes(content.headerHash, content.envelopeHash)
}

/** Entries and envelopes in turn. Their numbers go without saying. */
function sentEntries(afterSeq: number, entries: readonly RestoredEntry[]): Argument[] {
  return entries.flatMap((entry, at) => {
    if (entry.seq !== afterSeq + 1 + at) throw new RangeError("entries are numbered without gaps")
    return [encodeEntry(entry), entry.kind === "waiting" ? entry.envelope : new Uint8Array()]
  })
}

function oneOf<const T extends string>(text: string, words: readonly T[]): T {
  const word = words.find((each) => each === text)
  if (word === undefined) throw new Error("an answer of our own script")
  return word
}

function outcomeOf(reply: Reply): { readonly outcome: string; readonly count?: InboxCount } {
  const list = reply.list()
  const outcome = item(list, 0).text()
  if (list.length === 1) return { outcome }
  const [version, bytes, deliveries] = list.slice(1).map((each) => each.count())
  if (version === undefined || bytes === undefined || deliveries === undefined) {
    throw new FormatError("redis.inbox", "not a count of it")
  }
  return { outcome, count: { version, bytes, deliveries } }
}

function chainOf(reply: Reply): Chain | undefined {
  const values = reply.fields(6)
  if (item(values, 0).isNothing()) return undefined
  return {
    seq: item(values, 0).count(),
    head: item(values, 1).bytesOf(32),
    visibleSeq: item(values, 2).count(),
    visibleHead: item(values, 3).bytesOf(32),
    floorSeq: item(values, 4).count(),
    floorHead: item(values, 5).bytesOf(32),
  }
}

function entriesFrom(first: number, list: readonly Reply[]): ChainEntry[] {
  return list.map((each, at) => parseEntry(each.bytes(), first + at))
}
