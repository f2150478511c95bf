// What happens, as fast-check commands: deeds, and all that can befall a relay before, between and during
// them. After each one the relay is asked whether the model is right.
import {
  type Arbitrary,
  type AsyncCommand,
  asyncModelRun,
  asyncProperty,
  boolean,
  commands,
  constant,
  constantFrom,
  type IAsyncProperty,
  nat,
  oneof,
  option,
  record,
  tuple,
} from "fast-check"
import { encodeBearer } from "../../protocol/index.js"
import { Testimony } from "./checks.js"
import {
  type Deed,
  deeds,
  type Picks,
  reserving,
  type Scene,
  sendBody,
  type Tally,
} from "./deeds.js"
import { among, Disagreement } from "./disagreement.js"
import { type Answer, Model } from "./model.js"
import { personAt } from "../server/people.js"
import type { Backend } from "./backends.js"
import { limits, World } from "./world.js"

type Command = AsyncCommand<Scene, object>

const minuteMs = 60_000
const hourMs = 60 * minuteMs
const dayMs = 24 * hourMs
const claimMs = minuteMs

/** How the relay that a deed was asked of ended, and what the next one found. */
interface Death {
  /** After so many operations of the disk. */
  readonly after: number
  readonly indexLost: boolean
  /** The next relay dies after so many of its own, and another one has to see to it. */
  readonly again: number | undefined
}

abstract class Happening implements Command {
  #said: string

  constructor(says: string) {
    this.#said = says
  }

  check(): boolean {
    return true
  }

  async run(scene: Scene): Promise<void> {
    const { model, world, testimony } = scene
    look(scene)
    const says = await this.happen(scene)
    if (says === undefined) {
      this.#said = `(${this.#said})`
      return
    }
    this.#said = says
    scene.tally.commands += 1
    look(scene)
    try {
      await testimony.checkInboxes(model, world)
    } catch (error) {
      throw new Disagreement(`after: ${says}`, { cause: error })
    }
  }

  /** Says what happened; undefined when nothing could. */
  abstract happen(scene: Scene): Promise<string | undefined>

  toString(): string {
    return this.#said
  }
}

class Doing extends Happening {
  readonly #name: string
  readonly #picks: Picks

  constructor(name: string, picks: Picks) {
    super(name)
    this.#name = name
    this.#picks = picks
  }

  async happen(scene: Scene): Promise<string | undefined> {
    const deed = await makeOr(scene, "start", this.#name, this.#picks)
    if (deed === undefined) return undefined
    const answer = await ask(deed, deed.allowed)
    return `${deed.says}: ${answer}`
  }
}

/** A whole sending, as most of them are; the relay may die over its end. */
class Sending extends Happening {
  readonly #picks: Picks
  readonly #death: Death | undefined

  constructor(picks: Picks, death: Death | undefined) {
    super("send")
    this.#picks = picks
    this.#death = death
  }

  async happen(scene: Scene): Promise<string | undefined> {
    const { model } = scene
    const [a, b, c] = this.#picks
    // With a reservation that is enough.
    const start = await deeds["start"]?.make(scene, [a, b, c % 12])
    if (start === undefined) return undefined
    if ((await ask(start, start.allowed)) !== "ok") return start.says
    const at = model.uploads.length - 1
    const upload = model.uploads[at]
    const body = upload && sendBody(scene, upload)
    if (body !== undefined) await ask(body, body.allowed)
    const finish = await make(scene, "finish", [at, 0, 0])
    const ended =
      this.#death === undefined
        ? await ask(finish, finish.allowed)
        : await dieOver(scene, finish, this.#death, () => finish.learn?.())
    return `${start.says}, and send all of it: ${ended}`
  }
}

class Dying extends Happening {
  readonly #name: string
  readonly #picks: Picks
  readonly #death: Death

  constructor(name: string, picks: Picks, death: Death) {
    super(`die during ${name}`)
    this.#name = name
    this.#picks = picks
    this.#death = death
  }

  async happen(scene: Scene): Promise<string | undefined> {
    const deed = await makeOr(scene, "register", this.#name, this.#picks)
    if (deed === undefined) return undefined
    const said = await dieOver(scene, deed, this.#death, () =>
      learn(scene, this.#name, this.#picks, deed),
    )
    return `${deed.says}: ${said}`
  }
}

/** Asks for a deed, in which the relay dies; says what was answered, and how it went on. */
async function dieOver(
  scene: Scene,
  deed: Deed,
  { after, indexLost, again }: Death,
  learnOf: () => Promise<void> | undefined,
): Promise<string> {
  const { model, world, testimony, tally } = scene
  const reply = await world.dieDuring(() => deed.ask(), after)
  const answer = reply && hear(deed, deed.allowed, reply)
  tally.deaths += 1
  await restart(scene, { indexLost, again })
  if (answer === undefined) await learnOf()
  await testimony.checkInboxes(model, world)
  return `${answer ?? "no answer"}, died after ${after} operations${indexLost ? ", index lost" : ""}`
}

/** There is no more room on the disk than this, for the time of one deed. */
class WithoutRoom extends Happening {
  readonly #name: string
  readonly #picks: Picks
  readonly #roomBytes: number

  constructor(name: string, picks: Picks, roomBytes: number) {
    super(`${name} on a full disk`)
    this.#name = name
    this.#picks = picks
    this.#roomBytes = roomBytes
  }

  async happen(scene: Scene): Promise<string | undefined> {
    const { world } = scene
    const deed = await makeOr(scene, "sweep", this.#name, this.#picks)
    if (deed === undefined) return undefined
    world.disk.roomBytes = this.#roomBytes
    let answer: Answer
    try {
      answer = await ask(deed, [...deed.allowed, "relay_full"])
    } finally {
      world.disk.roomBytes = Number.POSITIVE_INFINITY
    }
    if (answer === "relay_full") {
      await world.relay.reconcile()
      await learn(scene, this.#name, this.#picks, deed)
    }
    return `${deed.says}, with room for ${this.#roomBytes} bytes: ${answer}`
  }
}

class Restarting extends Happening {
  readonly #indexLost: boolean

  constructor(indexLost: boolean) {
    super(indexLost ? "restart, index lost" : "restart")
    this.#indexLost = indexLost
  }

  async happen(scene: Scene): Promise<string> {
    await scene.world.stop()
    await restart(scene, { indexLost: this.#indexLost })
    return this.#indexLost ? "restart, index lost" : "restart"
  }
}

class Waiting extends Happening {
  readonly #ms: number

  constructor(ms: number) {
    super(`wait ${ms / minuteMs} min`)
    this.#ms = ms
  }

  async happen({ world }: Scene): Promise<string> {
    await world.advance(this.#ms)
    return `wait ${this.#ms / minuteMs} min`
  }
}

/** Somebody fetches what is about to expire, and it is looked at again when it has. */
class Outlasting extends Happening {
  readonly #picks: Picks
  readonly #afterMs: number

  constructor(picks: Picks, afterMs: number) {
    super("fetch what is about to expire")
    this.#picks = picks
    this.#afterMs = afterMs
  }

  async happen(scene: Scene): Promise<string | undefined> {
    const { model, world, testimony } = scene
    const [a] = this.#picks
    const waiting = [...model.inboxes.values()].flatMap((inbox) =>
      inbox.entries
        .filter(({ gone, expiresMs }) => gone === undefined && expiresMs > model.nowMs)
        .map((entry) => ({ inbox, entry })),
    )
    const found = waiting[a % Math.max(1, waiting.length)]
    if (found === undefined) return undefined
    const { inbox, entry } = found
    await world.advance(Math.max(0, entry.expiresMs - model.nowMs - minuteMs))
    look(scene)
    await testimony.checkBytes(model, world, inbox, entry)
    await world.advance(this.#afterMs)
    look(scene)
    const sweep = await make(scene, "sweep", this.#picks)
    await ask(sweep, sweep.allowed)
    if (entry.seq > inbox.floor) await testimony.checkBytes(model, world, inbox, entry)
    return `fetch seq ${entry.seq} of inbox ${inbox.person} before it expires and ${this.#afterMs / minuteMs} min later`
  }
}

class Jumping extends Happening {
  readonly #ms: number

  constructor(ms: number) {
    super(`the clock jumps ${ms / minuteMs} min`)
    this.#ms = ms
  }

  async happen({ world }: Scene): Promise<string> {
    world.jump(this.#ms)
    return `the clock jumps ${this.#ms / minuteMs} min`
  }
}

/** Every server of the index has lost what it had, while the relay runs. */
class Flushing extends Happening {
  constructor() {
    super("the index is flushed")
  }

  async happen(scene: Scene): Promise<string | undefined> {
    const { model, world } = scene
    if (world.backend.server === undefined) return undefined
    await world.backend.server.flush()
    await whole(scene)
    model.lostIndex()
    return "the index is flushed"
  }
}

/** Others take over from the index's servers, which have what those had some time ago. */
class FailingOver extends Happening {
  constructor() {
    super("the index fails over")
  }

  async happen(scene: Scene): Promise<string | undefined> {
    const { model, world } = scene
    if (world.backend.server === undefined) return undefined
    await world.backend.server.failOver()
    await whole(scene)
    model.fellBehind()
    for (const upload of model.uploads.filter(({ state }) => state === "open")) {
      // Long past its time, it may or may not have been taken up from the disk again.
      const isPast = upload.expiresMs + hourMs <= model.nowMs
      const reply = await world.client.get(`/v1/uploads/${upload.id}`, encodeBearer(upload.token))
      if (isPast && reply.status === 401) upload.state = "over"
    }
    return "the index fails over"
  }
}

/** What the index has now is what others will have when they take over. */
class Remembering extends Happening {
  constructor() {
    super("the index is copied")
  }

  async happen({ world }: Scene): Promise<string | undefined> {
    if (world.backend.server === undefined) return undefined
    await world.backend.server.remember()
    return "the index is copied"
  }
}

/** Nothing more can be written to the index, for the time of one deed. */
class OutOfMemory extends Happening {
  readonly #name: string
  readonly #picks: Picks

  constructor(name: string, picks: Picks) {
    super(`${name} while the index is full`)
    this.#name = name
    this.#picks = picks
  }

  async happen(scene: Scene): Promise<string | undefined> {
    const { server } = scene.world.backend
    const deed = server && (await deeds[this.#name]?.make(scene, this.#picks))
    if (server === undefined || deed === undefined) return undefined
    await server.setFull(true)
    let answer: Answer
    try {
      answer = await ask(deed, [...deed.allowed, "index_unavailable"])
    } finally {
      await server.setFull(false)
    }
    await whole(scene)
    if (answer === "index_unavailable") {
      await settle(scene)
      await learn(scene, this.#name, this.#picks, deed)
    }
    return `${deed.says}, while the index is full: ${answer}`
  }
}

/** Others use the disk as well. */
class Filling extends Happening {
  readonly #freeBytes: number

  constructor(freeBytes: number) {
    super(`${freeBytes} bytes are left on the disk`)
    this.#freeBytes = freeBytes
  }

  happen({ model, world }: Scene): Promise<string> {
    world.disk.freeBytes = model.freeBytes = this.#freeBytes
    return Promise.resolve(`${this.#freeBytes} bytes are left on the disk`)
  }
}

/** Until the relay has seen what befell its index, and has mended it. */
async function whole(scene: Scene): Promise<void> {
  const { model, world } = scene
  const address = "knot1" // Any will do: what is asked for is a refusal of another kind.
  for (;;) {
    await world.advance(1_000)
    look({ model, world })
    const { status } = await world.client.get(`/v1/inboxes/${address}`)
    if (status !== 503) return
  }
}

/** The relay reads the clock whenever it does something; the model has to look when it does. */
function look({ model, world: { clock } }: Pick<Scene, "model" | "world">): void {
  model.time.look(clock.wallMs(), clock.monotonicMs())
}

export async function ask(deed: Deed, allowed: readonly Answer[]): Promise<Answer> {
  return hear(deed, allowed, await deed.ask())
}

function hear(
  deed: Deed,
  allowed: readonly Answer[],
  reply: Awaited<ReturnType<Deed["ask"]>>,
): Answer {
  const answer = answerOf(reply)
  among(answer, allowed, deed.says)
  if (answer === "ok") deed.done(reply)
  return answer
}

export function answerOf({ status, body }: Awaited<ReturnType<Deed["ask"]>>): Answer {
  if (status < 300) return "ok"
  const said: unknown = Buffer.isBuffer(body) ? JSON.parse(body.toString()) : body
  if (typeof said === "object" && said !== null && "code" in said) return String(said.code)
  return String(status)
}

/** What became of a deed that was not answered; most are asked for again, as clients do. */
async function learn(scene: Scene, name: string, picks: Picks, deed: Deed): Promise<void> {
  look(scene)
  if (deed.learn !== undefined) {
    await deed.learn()
    return
  }
  await ask(deed, (await allowedNow(scene, name, picks)) ?? deed.allowed)
}

/** The deed of that name, or else the other one. */
async function makeOr(
  scene: Scene,
  other: string,
  name: string,
  drawn: Picks,
): Promise<Deed | undefined> {
  return (await deeds[name]?.make(scene, drawn)) ?? deeds[other]?.make(scene, drawn)
}

/** The same deed may be answered otherwise by the relay that comes after. */
async function allowedNow(
  scene: Scene,
  name: string,
  picks: Picks,
): Promise<readonly Answer[] | undefined> {
  return (await deeds[name]?.make(scene, picks))?.allowed
}

async function restart(
  scene: Scene,
  how: { readonly indexLost: boolean; readonly again?: number | undefined },
): Promise<void> {
  const { model, world } = scene
  model.time.died(world.notedMs())
  await world.start({
    indexLost: how.indexLost,
    ...(how.again !== undefined && { dies: how.again }),
  })
  model.time.start(world.clock.wallMs(), world.clock.monotonicMs())
  if (how.indexLost) model.lostIndex()
  model.time.note()
  if (world.backend.server === undefined) return
  await settle(scene)
}

/**
 * What was claimed in an index that is a server, by who died or could not give it back, stays theirs for a
 * minute: who asks before is to ask again. The next look at the index mends what they left undone.
 */
async function settle(scene: Scene): Promise<void> {
  await scene.world.advance(claimMs)
  look(scene)
  await scene.world.relay.reconcile()
}

const picks: Arbitrary<Picks> = tuple(nat(59), nat(59), nat(59))
const names = oneof(
  ...Object.entries(deeds).map(([name, { weight }]) => ({ arbitrary: constant(name), weight })),
)
const death: Arbitrary<Death> = record({
  // A finish takes some fifty, a discard fewer.
  after: oneof(nat(16), nat(70)),
  indexLost: boolean(),
  again: option(nat(60), { nil: undefined, freq: 3 }),
})
const waits = [
  1000,
  11 * minuteMs,
  16 * minuteMs,
  hourMs,
  9 * hourMs,
  dayMs,
  15 * dayMs,
  31 * dayMs,
]
const jumps = [-30 * dayMs, -hourMs, -minuteMs, minuteMs, hourMs, 30 * dayMs]

/** Deeds that change something; what others see of it is looked at when there is room again. */
const changing = [
  "start",
  "startAgain",
  "extend",
  "part",
  "putAll",
  "finish",
  "giveUp",
  "discard",
  "revoke",
]

/** What befalls an index that is a server. */
const serverHappenings: Arbitrary<Command>[] = [
  constant(new Flushing()),
  constant(new Remembering()),
  constant(new FailingOver()),
  tuple(constantFrom(...changing), picks).map(([name, drawn]) => new OutOfMemory(name, drawn)),
]

const happenings: Arbitrary<Command>[] = [
  picks.map((drawn) => new Sending(drawn, undefined)),
  tuple(picks, death).map(([drawn, how]) => new Sending(drawn, how)),
  ...Array.from({ length: 12 }, () =>
    tuple(names, picks).map(([name, drawn]) => new Doing(name, drawn)),
  ),
  tuple(names, picks, death).map(([name, drawn, how]) => new Dying(name, drawn, how)),
  tuple(names, picks, death).map(([name, drawn, how]) => new Dying(name, drawn, how)),
  tuple(names, picks, nat(200_000)).map(
    ([name, drawn, roomBytes]) => new WithoutRoom(name, drawn, roomBytes),
  ),
  boolean().map((indexLost) => new Restarting(indexLost)),
  constantFrom(...waits).map((ms) => new Waiting(ms)),
  constantFrom(...waits).map((ms) => new Waiting(ms)),
  tuple(picks, constantFrom(2 * minuteMs, 12 * minuteMs)).map(
    ([drawn, afterMs]) => new Outlasting(drawn, afterMs),
  ),
  constantFrom(0, 300_000, 700_000, 5_000_000, 5_000_000).map((bytes) => new Filling(bytes)),
  constantFrom(...jumps).map((ms) => new Jumping(ms)),
]

/** So many happenings, at most, to one relay. */
const mostCommands = 60

/** What holds of every relay, and how much it was looked at so far. */
export function relayIsItsModel(backend: Backend): {
  readonly property: IAsyncProperty<[number, Iterable<Command>]>
  readonly tally: Readonly<Tally>
} {
  const tally: Tally = { runs: 0, commands: 0, deaths: 0 }
  const all = backend.server === undefined ? happenings : [...happenings, ...serverHappenings]
  const drawing = commands(all, { maxCommands: mostCommands, size: "max" })
  const property = asyncProperty(nat(), drawing, async (seed, drawn) => {
    tally.runs += 1
    await runModel(new World(backend, String(seed)), drawn, tally)
  })
  return { property, tally }
}

/** A relay of its own with two open inboxes, and what is known of it. */
export async function openScene(world: World, tally: Tally): Promise<Scene> {
  const model = new Model()
  const testimony = new Testimony(await Promise.all([0, 1, 2].map((at) => personAt(at))))
  const scene: Scene = { model, world, testimony, tally }
  await world.start()
  model.time.start(world.clock.wallMs(), world.clock.monotonicMs())
  model.time.note()
  for (const person of [0, 1]) await ask(await make(scene, "register", [person, 0, 0]), ["ok"])
  await testimony.checkInboxes(model, world)
  return scene
}

/** Runs commands from there on, and takes a last look at everything. */
async function runModel(world: World, commands: Iterable<Command>, tally: Tally): Promise<void> {
  try {
    const scene = await openScene(world, tally)
    await asyncModelRun(() => ({ model: scene, real: {} }), commands)
    look(scene)
    await scene.testimony.checkAll(scene.model, world)
    await checkRoom(scene)
  } finally {
    await world.close()
  }
}

/**
 * When all uploads are over, nothing is held by anybody any more: an inbox takes as much as it has left,
 * to the byte, and so does the disk.
 */
async function checkRoom(scene: Scene): Promise<void> {
  const { model, world } = scene
  const giveUpAll = async (): Promise<void> => {
    for (const at of model.uploads.keys()) {
      const deed = await make(scene, "giveUp", [at, 0, 0])
      await ask(deed, deed.allowed)
    }
  }
  const reserve = async (person: number, bytes: number): Promise<void> => {
    const deed = reserving(scene, person, bytes)
    await ask(deed, deed.allowed)
  }
  await giveUpAll()
  for (const inbox of model.inboxes.values()) {
    const { bytes, deliveries } = model.used(inbox)
    let leftBytes = limits.inboxBytes - bytes
    for (let left = limits.inboxDeliveries - deliveries; left > 0 && leftBytes > 0; left--) {
      const most = Math.min(leftBytes, limits.deliveryBytes)
      await reserve(inbox.person, most)
      leftBytes -= most
    }
    await reserve(inbox.person, leftBytes + 1)
    await giveUpAll()
  }
  world.disk.freeBytes = model.freeBytes = 10_000
  await reserve(0, 10_001)
  await reserve(0, 10_000)
  await giveUpAll()
}

export async function make(scene: Scene, name: string, drawn: Picks): Promise<Deed> {
  const deed = await deeds[name]?.make(scene, drawn)
  if (deed === undefined) throw new RangeError(`nothing to ${name}`)
  return deed
}
