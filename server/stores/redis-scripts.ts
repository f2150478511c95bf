// Steps that Redis runs whole: Lua scripts, each about keys of one hash tag. A script is sent by its
// name, and in full where a server does not know it: after a restart, a failover, a flush.
//
// A script that fails half-way is not undone, so every one of them reads and checks all it needs before
// it writes. What it may do when Redis is out of memory is said in its first line: reading always; what
// frees memory, or lets people fetch what waits for them, too.
import { createHash } from "node:crypto"
import { type Argument, type Command, damagedMark } from "./redis-connection.js"
import { Reply } from "./redis-records.js"

export interface Script {
  readonly text: string
  readonly sha: string
}

/** `reads` writes nothing; `frees` runs without memory as well; `grows` does not. */
export function script(kind: "reads" | "frees" | "grows", body: string): Script {
  const flags = { reads: " flags=no-writes", frees: " flags=allow-oom", grows: "" }[kind]
  const text = `#!lua${flags}\n${prelude}\n${body}`
  return { text, sha: createHash("sha1").update(text).digest("hex") }
}

export type RunScript = (
  script: Script,
  keys: readonly string[],
  args: readonly Argument[],
) => Promise<Reply>

export function scriptsOn(command: Command): RunScript {
  return async ({ text, sha }, keys, args) => {
    try {
      return new Reply(await command("evalsha", sha, keys.length, ...keys, ...args))
    } catch (error) {
      if (!(error instanceof Error) || !error.message.startsWith("NOSCRIPT")) throw error
      return new Reply(await command("eval", text, keys.length, ...keys, ...args))
    }
  }
}

const prelude = `
local function damaged() error("${damagedMark}") end

-- A whole number as it is written down. Redis gives false for what is not there.
local function int(text)
  if not text or #text > 17 or not string.find(text, "^%-?%d+$") then damaged() end
  return tonumber(text)
end

local function digits(number) return string.format("%.0f", number) end

-- Keeps a key for at least so long from now. Time left is compared with time left, never clocks.
local function keep(key, ms)
  local left = redis.call("PTTL", key)
  if left ~= -2 and left < ms then redis.call("PEXPIRE", key, digits(ms)) end
end
`

/** Every field of a hash and its value in turn; the client's own HGETALL makes an object of them. */
export const readHash: Script = script("reads", `return redis.call("HGETALL", KEYS[1])`)
