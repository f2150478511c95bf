/**
 * Real kills of a real relay: the built program under a mixed load is sent SIGKILL at a moment drawn
 * from a seed, started again on the same folder, and held against everything it had acknowledged
 * (T20). Or of what is around it: the Redis that holds its index, one of two relays that share a
 * folder (T24). Draws are the same for the same seed; what the machine makes of them is not, so a seed
 * that broke something may need a few runs to do it again.
 */
import { setMaxListeners } from "node:events"
import { random, toHex } from "../../protocol/index.js"
import { freePort } from "../../bench/processes.js"
import { Draws } from "../fuzz/random.js"
import { type Running, Workshop } from "../program/processes.js"
import { type RedisServer, RedisServers } from "../redis/servers.js"
import { Caller, isRefusal } from "./caller.js"
import { broken } from "./inbox-memory.js"
import { isCutOff, Load, type Phase, sharedRsaKey } from "./kill-load.js"

export interface KillsOptions {
  readonly seed: number
  /** After so many everything has to come back once more, and is stopped in peace. */
  readonly kills: number
  /** Asked after each: whether that were enough. */
  readonly isOver?: () => boolean
  /** Where the index is, if not in the relay. */
  readonly redis?: {
    /** What it keeps over its own death: its log, synced every second, or nothing. */
    readonly keeps: "everysec" | "nothing"
    /** So many relays share it, and the folder. */
    readonly relays: 1 | 2
  }
}

export interface KillsResult {
  readonly kills: number
  /** Kills by where they struck, and what the load did. */
  readonly counts: Readonly<Record<string, number>>
  /** What was broken, if anything was, and after which kill. */
  readonly violation: { readonly step: string; readonly problem: string } | undefined
}

type Victim = "a relay" | "redis" | "a relay and redis"

/** Whom the next kill strikes, and when. */
type Strike = { readonly victim: Victim; readonly at: number } & (
  | { readonly when: "any time" | "under load"; readonly afterMs: number }
  | { readonly when: "a request"; readonly phase: Phase; skip: number; readonly afterMs: number }
)

type Stage = "starting" | "recovering" | "being checked" | "under load"

interface RelayProcess {
  readonly port: number
  running: Running | undefined
  /** Its answers count: it was not killed. */
  isUp: boolean
}

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
/** What is left of two relays goes on alone for so long. */
const aloneMs = 300
/** No start and no answer takes as long on any machine we know. */
const hangMs = 90_000

export async function runKills(options: KillsOptions): Promise<KillsResult> {
  const world = await World.make(options)
  let problem: string | undefined
  try {
    await world.run()
  } catch (error) {
    problem = error instanceof Error ? (error.stack ?? error.message) : String(error)
  } finally {
    await world.close()
  }
  const { kills } = world
  return {
    kills,
    counts: world.counts(),
    violation:
      problem === undefined ? undefined : { step: `after kill ${kills}, ${world.stage}`, problem },
  }
}

class World {
  readonly #options: KillsOptions
  readonly #draws: Draws
  readonly #workshop = new Workshop()
  readonly #redisServers: RedisServers
  readonly #redis: RedisServer | undefined
  readonly #relays: readonly RelayProcess[]
  readonly #load: Load
  readonly #struck: Record<string, number> = {}
  #strike: Strike | undefined
  stage: Stage = "starting"
  #isRedisUp = true
  /** Once in each round. */
  #hasStruck = false
  #redisGone: Promise<void> = Promise.resolve()
  #callers: readonly { readonly relay: RelayProcess; readonly caller: Caller }[] = []
  #timer: NodeJS.Timeout | undefined
  /** The load of this round is to end. */
  #over = new AbortController()
  kills = 0

  private constructor(input: {
    readonly options: KillsOptions
    readonly redisServers: RedisServers
    readonly redis: RedisServer | undefined
    readonly ports: readonly number[]
    readonly rsaPkcs8: Uint8Array
  }) {
    const { options, redisServers, redis, ports, rsaPkcs8 } = input
    this.#options = options
    this.#redisServers = redisServers
    this.#redis = redis
    this.#relays = ports.map((port) => ({ port, running: undefined, isUp: false }))
    this.#draws = new Draws("kills", options.seed)
    this.#load = new Load({
      draws: (name) => new Draws("kills", options.seed, name),
      rsaPkcs8,
      onPhase: (phase) => this.#onPhase(phase),
      hasOwnIndex: redis === undefined,
    })
  }

  static async make(options: KillsOptions): Promise<World> {
    const redisServers = new RedisServers()
    const keeps = options.redis?.keeps
    const redis =
      keeps &&
      (await redisServers.server(
        keeps === "everysec" ? { appendonly: "yes", appendfsync: "everysec" } : {},
      ))
    const ports: number[] = []
    for (let at = 0; at < (options.redis?.relays ?? 1); at++) ports.push(await freePort())
    return new World({ options, redisServers, redis, ports, rsaPkcs8: await sharedRsaKey() })
  }

  counts(): Record<string, number> {
    return { ...this.#load.counts, ...this.#struck }
  }

  async run(): Promise<void> {
    const { kills, isOver = () => false } = this.#options
    while (this.kills < kills && !isOver()) {
      this.#strike = this.#drawStrike()
      await this.#round(() => this.#carryLoad())
    }
    this.#strike = undefined
    // Once after the last kill, and once after a peaceful end.
    for (let times = 0; times < 2; times++) await this.#round(() => this.#endInPeace())
  }

  async close(): Promise<void> {
    clearTimeout(this.#timer)
    for (const { caller } of this.#callers) caller.close()
    await this.#workshop.close()
    await this.#redisServers.close()
  }

  #drawStrike(): Strike {
    const draws = this.#draws
    const kind = draws.below(10)
    const at = draws.below(this.#relays.length)
    if (kind < 2) return { victim: "a relay", at, when: "any time", afterMs: draws.below(900) }
    const victims: readonly Victim[] =
      this.#redis === undefined ? ["a relay"] : ["a relay", "redis", "redis", "a relay and redis"]
    const victim = draws.pick(victims)
    if (kind < 4) return { victim, at, when: "under load", afterMs: draws.below(400) }
    const phase = draws.pick(struckPhases)
    const afterMs = draws.below(50)
    return { victim, at, when: "a request", phase, skip: draws.below(4), afterMs }
  }

  /** From the moment all is started that the last strike left dead, until the load was ended. */
  async #round(work: () => Promise<void>): Promise<void> {
    this.stage = "starting"
    this.#hasStruck = false
    this.#over = new AbortController()
    setMaxListeners(0, this.#over.signal)
    const strike = this.#strike
    let isHung = false
    const watchdog = setTimeout(() => {
      isHung = true
      for (const { running } of this.#relays) running?.child.kill("SIGKILL")
    }, hangMs)
    try {
      if (strike?.when === "any time") this.#killAfter(strike.afterMs, () => `while ${this.stage}`)
      await this.#startAll()
      await this.#meetAll()
      await work()
    } catch (error) {
      if (isHung) broken(`nothing moved for ${hangMs / 1000} s while ${this.stage}`)
      if (!this.#over.signal.aborted || !isCutOff(error)) throw error
    } finally {
      clearTimeout(watchdog)
      clearTimeout(this.#timer)
      for (const { caller } of this.#callers) caller.close()
      this.#callers = []
    }
    for (const relay of this.#relays) if (!relay.isUp) await relay.running?.ended
    if (this.#redis !== undefined && !this.#isRedisUp) {
      await this.#redisGone
      await this.#redis.start()
      this.#isRedisUp = true
    }
    this.#checkLogs()
  }

  async #startAll(): Promise<void> {
    await Promise.all(
      this.#relays.map(async (relay) => {
        if (relay.isUp) return
        const { port } = relay
        const where = ["--data", `${this.#workshop.folder}/data`, "--listen", `127.0.0.1:${port}`]
        // Several relays on one folder have a socket each.
        const socket = ["--operator-socket", `${this.#workshop.folder}/${port}.sock`]
        const redis = this.#redis === undefined ? [] : ["--redis", this.#redis.url]
        const args = ["relay", ...where, ...socket, ...redis, "--disk-headroom", "0"]
        relay.isUp = true
        const running = this.#workshop.start("relay", args)
        relay.running = running
        const ended = running.ended.then(({ code, stderr }) => {
          if (!relay.isUp) return
          relay.isUp = false
          broken(`a relay ended by itself with ${code}: ${stderr.slice(-2000)}`)
        })
        await Promise.race([running.stderr.waitFor(/^listening on (\S+)/m), ended])
        // Of a later end the next round hears.
        ended.catch(() => undefined)
      }),
    )
  }

  async #meetAll(): Promise<void> {
    this.stage = "recovering"
    this.#callers = await Promise.all(
      this.#relays.map(async (relay) => ({
        relay,
        caller: await Caller.meet(`http://127.0.0.1:${relay.port}`),
      })),
    )
    const { caller } = this.#draws.pick(this.#callers)
    for (;;) {
      for (const one of this.#callers) await untilReady(one.caller)
      this.stage = "being checked"
      try {
        await this.#load.check(caller, this.#strike === undefined)
        return
      } catch (error) {
        // A Redis that has just come back may be found to be away once more.
        const isAway = isRefusal(error, "index_unavailable", "rebuilding")
        if (this.#redis === undefined || !isAway) throw error
      }
    }
  }

  async #carryLoad(): Promise<void> {
    const strike = this.#strike
    this.stage = "under load"
    const afterMs = strike?.when === "under load" ? strike.afterMs : longestLoadMs
    this.#killAfter(afterMs, () => "under load")
    const callers = (): Caller[] =>
      this.#callers.filter(({ relay }) => relay.isUp).map(({ caller }) => caller)
    await this.#load.run(callers, this.#over.signal)
  }

  async #endInPeace(): Promise<void> {
    for (const relay of this.#relays) {
      relay.isUp = false
      relay.running?.child.kill("SIGTERM")
      const ended = await relay.running?.ended
      if (ended?.code !== 0) broken(`a relay was asked to stop and ended with ${ended?.code}`)
    }
  }

  #onPhase(phase: Phase): void {
    const strike = this.#strike
    if (this.#hasStruck || this.stage !== "under load") return
    if (strike?.when !== "a request" || strike.phase !== phase) return
    strike.skip -= 1
    if (strike.skip < 0) this.#killAfter(strike.afterMs, () => `after "${phase}" was asked for`)
  }

  #killAfter(ms: number, where: () => string): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#kill(where()), ms)
  }

  #kill(where: string): void {
    const strike = this.#strike
    if (strike === undefined || this.#hasStruck) return
    this.#hasStruck = true
    const { victim } = strike
    const relay = this.#relays[strike.at]
    const goesOnAlone =
      victim === "a relay" && this.#relays.length > 1 && this.stage === "under load"
    if (!goesOnAlone) this.#over.abort()
    if (victim !== "redis" && relay?.running !== undefined) {
      relay.isUp = false
      relay.running.child.kill("SIGKILL")
      this.#countKill(`a relay, ${where}`)
    }
    if (victim !== "a relay" && this.#redis !== undefined) {
      this.#isRedisUp = false
      this.#redisGone = this.#redis.kill()
      this.#countKill(`redis, ${where}`)
    }
    // Then this ends the load of the one that is left.
    if (goesOnAlone) this.#timer = setTimeout(() => this.#over.abort(), aloneMs)
  }

  #countKill(what: string): void {
    this.kills += 1
    this.#struck[`killed: ${what}`] = (this.#struck[`killed: ${what}`] ?? 0) + 1
  }

  #checkLogs(): void {
    for (const { running } of this.#relays) {
      const alarm = running?.stderr.text
        .split("\n")
        .find((line) => line.includes('"level":"alarm"') && !this.#isExpected(line))
      if (alarm !== undefined) broken(`a relay raised an alarm: ${alarm}`)
    }
  }

  /** Its operator has to hear that Redis is gone. */
  #isExpected(line: string): boolean {
    return this.#redis !== undefined && line.includes('"event":"index_away"')
  }
}

/** A relay that has just started may still be looking at what it has. */
async function untilReady(caller: Caller): Promise<void> {
  for (;;) {
    try {
      // What only the index can say.
      await caller.state({ id: toHex(random(16)), token: random(32) })
    } catch (error) {
      if (isRefusal(error, "unauthorized")) return
      if (!isRefusal(error, "rebuilding", "index_unavailable")) throw error
    }
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
