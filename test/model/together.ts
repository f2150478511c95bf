// Two clients, and the sweep, at one thing at the same time; which of the relay's operations on its disk
// comes next is drawn. What the two are told must be what one after the other would have been told.
import { array, asyncProperty, constantFrom, type IAsyncProperty, nat, tuple } from "fast-check"
import { encodeBearer, parseStatusReply } from "../../protocol/index.js"
import type { Backend } from "./backends.js"
import { checkUpload } from "./checks.js"
import { answerOf, ask, make, openScene } from "./commands.js"
import { type Deed, type Scene, sendBody } from "./deeds.js"
import { among, Disagreement, same } from "./disagreement.js"
import type { Answer, Upload } from "./model.js"
import { seededRandom, World } from "./world.js"

const meetings = ["start", "same part", "other part", "finish", "give up", "discard"] as const

type Meeting = [kind: (typeof meetings)[number], pick: number, order: number]

/** What holds of every relay that two ask at once. */
export function twoAtOnce(backend: Backend): IAsyncProperty<[number, Meeting[]]> {
  const meeting = tuple(constantFrom(...meetings), nat(59), nat(1_000_000))
  const several = array(meeting, { minLength: 4, maxLength: 10 })
  return asyncProperty(nat(), several, async (seed, drawn) => {
    const world = new World(backend, String(seed))
    try {
      const scene = await openScene(world, { runs: 0, commands: 0, deaths: 0 })
      for (const each of drawn) {
        await meet(scene, each)
        await scene.testimony.checkInboxes(scene.model, world)
      }
      await scene.testimony.checkAll(scene.model, world)
    } finally {
      await world.close()
    }
  })
}

async function meet(scene: Scene, [kind, pick, order]: Meeting): Promise<void> {
  const { model } = scene
  const start = await make(scene, "start", [1 + (pick % 5), pick, 1])
  if (kind === "start") {
    const both = await together(scene, order, start, start)
    for (const { answer } of both) among(answer, start.allowed, start.says)
    same(both[0].answer, both[1].answer, "two equal starts")
    for (const one of both) one.done()
    return
  }
  if ((await ask(start, start.allowed)) !== "ok") return
  const upload = model.uploads.at(-1)
  if (upload === undefined) throw new Disagreement("an upload that was not started")
  if (kind === "same part" || kind === "other part") {
    await meetOverPart(scene, upload, kind, order)
    return
  }
  const body = sendBody(scene, upload)
  if (body !== undefined) await ask(body, body.allowed)
  await meetOverEnd(scene, upload, kind, order)
}

/** The first one stays. */
async function meetOverPart(
  scene: Scene,
  upload: Upload,
  kind: "same part" | "other part",
  order: number,
): Promise<void> {
  const at = scene.model.uploads.indexOf(upload)
  const one = await make(scene, "part", [at, 0, 0])
  const two = await make(scene, "part", [at, 0, kind === "same part" ? 0 : 5])
  const both = await together(scene, order, one, two)
  const stored = both.filter(({ answer }) => answer === "ok")
  const answers = both.map(({ answer }) => answer).toSorted()
  const isRefused = !one.allowed.includes("ok")
  if (isRefused) {
    for (const { deed, answer } of both) among(answer, deed.allowed, deed.says)
  } else {
    const wanted = kind === "same part" ? ["ok", "ok"] : ["ok", "part_differs"]
    same(answers, wanted, `two at once: ${one.says}, ${two.says}`)
  }
  for (const one of stored) one.done()
  await checkUpload(scene.model, scene.world, upload)
}

async function meetOverEnd(
  scene: Scene,
  upload: Upload,
  kind: "finish" | "give up" | "discard",
  order: number,
): Promise<void> {
  const { model, world } = scene
  const at = model.uploads.indexOf(upload)
  const finish = await make(scene, "finish", [at, 0, 0])
  if (!finish.allowed.includes("ok")) return
  if (kind === "discard") {
    if ((await ask(finish, finish.allowed)) !== "ok") return
    const [place] = model.placesOf(upload)
    const inbox = [...model.inboxes.values()].find(
      ({ entries }) => place && entries.includes(place),
    )
    if (place === undefined || inbox === undefined) return
    const people = [...model.inboxes.keys()]
    const listedAt = inbox.entries.slice(inbox.floor).indexOf(place)
    const discard = await make(scene, "discard", [people.indexOf(inbox.person), listedAt, 0])
    const revoke = await make(scene, "revoke", [at, 1, 0])
    const both = await together(scene, order, discard, revoke)
    same(
      both.map(({ answer }) => answer),
      ["ok", "ok"],
      "discarded and revoked at once",
    )
    // Which of them was first its tombstone says.
    const path = `/v1/deliveries/${upload.id}/status`
    const told = await world.client.get(path, encodeBearer(upload.cap)).expect(200)
    const state = parseStatusReply(told.body).recipients[upload.recipients.indexOf(inbox.person)]
    among(state?.state, ["taken", "revoked"], "discarded and revoked at once")
    model.buried(place, state?.state === "taken" ? "taken" : "revoked")
    for (const entry of model.placesOf(upload)) model.buried(entry, "revoked")
    return
  }
  const other = kind === "finish" ? finish : await make(scene, "giveUp", [at, 0, 0])
  const [one, two] = await together(scene, order, finish, other)
  if (kind === "finish") {
    // Who comes in between is to come again, and hears the same.
    for (const { deed, answer } of [one, two]) among(answer, ["ok", "busy"], deed.says)
    const first = [one, two].find(({ answer }) => answer === "ok")
    if (first === undefined) throw new Disagreement("two finishes, and neither was let through")
    one.done()
    two.done()
    await ask(finish, ["ok"])
    return
  }
  // One of the two is too late. A finish may find out so by the parts that went from under it, which it
  // then asks for in vain.
  const tooLate = ["unauthorized", "upload_expired", "parts_missing", "busy"]
  const ends = ["ok, upload_finished", "ok, busy", ...tooLate.map((answer) => `${answer}, ok`)]
  const heard = [one.answer, two.answer].join(", ")
  among(heard, ends, "finished and given up at once")
  one.done()
  two.done()
  await checkUpload(model, world, upload)
}

async function said(deed: Deed): Promise<Said> {
  const reply = await deed.ask()
  const answer = answerOf(reply)
  return { deed, answer, done: () => (answer === "ok" ? deed.done(reply) : undefined) }
}

interface Said {
  readonly deed: Deed
  readonly answer: Answer
  /** What an "ok" means; nothing otherwise. */
  done(): void
}

/** Both at once, and the sweep beside them. */
async function together(
  { world }: Scene,
  order: number,
  one: Deed,
  two: Deed,
): Promise<readonly [Said, Said]> {
  const draw = seededRandom(`order ${order}`)
  world.disk.choose = (count) => (draw(1)[0] ?? 0) % count
  try {
    const [first, second] = await Promise.all([said(one), said(two), world.relay.sweep()])
    return [first, second]
  } finally {
    world.disk.choose = undefined
  }
}
