/**
 * Real kills of a real relay: the built program under a mixed load is sent SIGKILL at a moment drawn
 * from a seed, started again on the same folder, and held against everything it had acknowledged
 * (T20). Draws are the same for the same seed; what the machine makes of them is not, so a seed that
 * broke something may need a few runs to do it again.
 */
import { random, toHex } from "../../protocol/index.js"
import { RelayUnreachable } from "../../client/errors.js"
import { freePort } from "../../bench/processes.js"
import { Draws } from "../fuzz/random.js"
import { type Running, Workshop } from "../program/processes.js"
import { Caller, isRefusal } from "./caller.js"
import { broken } from "./inbox-memory.js"
import { Load, type Phase } from "./kill-load.js"

export interface KillsOptions {
  readonly seed: number
  /** After so many the relay has to come back once more, and is stopped in peace. */
  readonly kills: number
  /** Asked after each: whether that were enough. */
  readonly isOver?: () => boolean
}

export interface KillsResult {
  readonly kills: number
  /** Kills by where they struck, and what the load did. */
  readonly counts: Readonly<Record<string, number>>
  /** What was broken, if anything was, and after which kill. */
  readonly violation: { readonly step: string; readonly problem: string } | undefined
}

/** Where the next kill strikes. */
type Strike =
  | { readonly at: "any time"; readonly afterMs: number }
  | { readonly at: "under load"; readonly afterMs: number }
  | { readonly at: "a request"; readonly phase: Phase; skip: number; readonly afterMs: number }

type Stage = "starting" | "recovering" | "being checked" | "under load"

/** The steps that have an order to keep come more often. */
const struckPhases: readonly Phase[] = [
  ...Array.from({ length: 6 }, () => "finish" as const),
  ...Array.from({ length: 3 }, () => "part" as const),
  ...Array.from({ length: 3 }, () => "discard" as const),
  ...Array.from({ length: 2 }, () => "revoke" as const),
  "start",
  "extend",
  "give up",
  "register",
  "fetch",
  "close session",
]
/** A request that the load happens not to make again. */
const longestLoadMs = 1_200
/** No start and no answer takes as long on any machine we know. */
const hangMs = 60_000

function drawStrike(draws: Draws): Strike {
  const kind = draws.below(10)
  if (kind < 2) return { at: "any time", afterMs: draws.below(900) }
  if (kind < 4) return { at: "under load", afterMs: draws.below(400) }
  const phase = draws.pick(struckPhases)
  return { at: "a request", phase, skip: draws.below(4), afterMs: draws.below(50) }
}

export async function runKills(options: KillsOptions): Promise<KillsResult> {
  const { seed, isOver = () => false } = options
  const draws = new Draws("kills", seed)
  const workshop = new Workshop()
  const port = await freePort()
  const origin = `http://127.0.0.1:${port}`
  const struck: Record<string, number> = {}
  let kills = 0
  let relay: Running | undefined
  let strike: Strike | undefined
  let stage: Stage = "starting"
  let isDown = true
  let timer: NodeJS.Timeout | undefined

  function kill(where: string): void {
    if (isDown) return
    isDown = true
    clearTimeout(timer)
    relay?.child.kill("SIGKILL")
    kills += 1
    struck[`kills ${where}`] = (struck[`kills ${where}`] ?? 0) + 1
  }

  function killAfter(ms: number, where: () => string): void {
    clearTimeout(timer)
    timer = setTimeout(() => kill(where()), ms)
  }

  const load = await Load.make(
    (name) => new Draws("kills", seed, name),
    (phase) => {
      if (stage !== "under load" || strike?.at !== "a request" || strike.phase !== phase) return
      strike.skip -= 1
      if (strike.skip < 0) killAfter(strike.afterMs, () => `after "${phase}" was asked for`)
    },
  )

  function start(): Running {
    const where = ["--data", `${workshop.folder}/data`, "--listen", `127.0.0.1:${port}`]
    return workshop.start("relay", ["relay", ...where, "--disk-headroom", "0"])
  }

  /** From one start of the relay to its end, which is the strike's or a peaceful one. */
  async function round(next: Strike | undefined): Promise<void> {
    strike = next
    stage = "starting"
    isDown = false
    let isHung = false
    const running = start()
    relay = running
    const watchdog = setTimeout(() => {
      isHung = true
      running.child.kill("SIGKILL")
    }, hangMs)
    if (next?.at === "any time") killAfter(next.afterMs, () => `while ${stage}`)
    try {
      const isUp = await Promise.race([
        running.stderr.waitFor(/^listening on (\S+)/m).then(() => true),
        running.ended.then(() => false),
      ])
      if (isUp) await meet(running, next)
    } catch (error) {
      if (!isDown || !(error instanceof RelayUnreachable)) throw error
    } finally {
      clearTimeout(watchdog)
      clearTimeout(timer)
    }
    const ended = await running.ended
    if (isHung) broken(`the relay hung while ${stage}`)
    if (!isDown)
      broken(`the relay ended by itself with ${ended.code}: ${ended.stderr.slice(-2000)}`)
    const alarm = ended.stderr.split("\n").find((line) => line.includes('"level":"alarm"'))
    if (alarm !== undefined) broken(`the relay raised an alarm: ${alarm}`)
  }

  async function meet(running: Running, next: Strike | undefined): Promise<void> {
    stage = "recovering"
    const caller = await Caller.meet(origin)
    try {
      await untilReady(caller)
      stage = "being checked"
      await load.check(caller, next === undefined)
      stage = "under load"
      if (next === undefined) {
        isDown = true
        running.child.kill("SIGTERM")
        const { code } = await running.ended
        if (code !== 0) broken(`the relay was asked to stop and ended with ${code}`)
        return
      }
      const afterMs = next.at === "a request" ? longestLoadMs : next.afterMs
      killAfter(afterMs, () => "under load")
      await load.run(caller, () => isDown)
    } finally {
      caller.close()
    }
  }

  let problem: string | undefined
  try {
    while (kills < options.kills && !isOver()) await round(drawStrike(draws))
    // Once after the last kill, and once after a peaceful end.
    await round(undefined)
    await round(undefined)
  } catch (error) {
    problem = error instanceof Error ? (error.stack ?? error.message) : String(error)
  } finally {
    clearTimeout(timer)
    await workshop.close()
  }
  const step = `after kill ${kills}`
  return {
    kills,
    counts: { ...load.counts, ...struck },
    violation: problem === undefined ? undefined : { step, problem },
  }
}

/** A relay that has just started may still be looking at what it has. */
async function untilReady(caller: Caller): Promise<void> {
  for (;;) {
    try {
      await caller.status(toHex(random(16)), random(32))
    } catch (error) {
      if (isRefusal(error, "not_found")) return
      if (!isRefusal(error, "rebuilding")) throw error
    }
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
