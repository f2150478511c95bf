// The kinds of fault runs that `npm run test:faults` makes in turn. Each works through pieces that are
// numbered from 1 and come out the same whenever they are made again.
import { createHash } from "node:crypto"
import { Draws } from "../fuzz/random.js"
import { hasRedis } from "../redis/servers.js"
import { cutsAt, deathAt, type Image, problemsAfter } from "./crashes.js"
import { faultsOf, operationsOf, type PlannedFault, problemsWith } from "./disk-faults.js"
import { type KillsOptions, runKills } from "./kills.js"
import { type DiskState, tree } from "./memory-disk.js"
import { type Moment, record, recordDelivery, type Recording } from "./recording.js"

export interface Work {
  readonly scratch: string
  readonly isOver: () => boolean
  /** Counts under a name of the report. */
  readonly count: (name: string, times?: number) => void
  readonly broken: (step: string, problem: string) => void
}

export interface Kind {
  readonly name: string
  /** One piece, or what there is time for. */
  run(piece: number, work: Work): Promise<void>
  /** One step of a piece again, as a violation names it. */
  replay(piece: number, step: string, work: Work): Promise<void>
}

const load = { actors: 3, actions: 4 }
const cutsOfMoment = 24
const piecesOfLife = 32
const pairsOfPiece = 5
const killsOfPiece = 25
/** Images of the commit path in one piece. */
const pieceImages = 200

async function check(
  recording: Recording,
  moment: Moment,
  image: Image,
  step: string,
  { scratch, broken }: Work,
): Promise<void> {
  const draws = new Draws(recording.seed, step)
  const problems = await problemsAfter({ scratch, recording, moment, image, draws })
  for (const problem of problems) broken(step, problem)
}

async function recordLoad(piece: number, work: Work): Promise<Recording> {
  const recording = await record(work.scratch, String(piece), load)
  for (const surprise of recording.ledger.surprises) work.broken("load", surprise)
  return recording
}

function momentAt({ moments }: Recording, at: number): Moment {
  const moment = moments.find((one) => one.at === at)
  if (moment === undefined) throw new RangeError(`there are ${moments.length} moments`)
  return moment
}

const deaths: Kind = {
  name: "deaths",
  async run(piece, work) {
    const recording = await recordLoad(piece, work)
    for (const moment of recording.moments) {
      if (work.isOver()) return
      await check(recording, moment, deathAt(recording, moment), String(moment.at), work)
      work.count("simulated deaths")
    }
  },
  async replay(piece, step, work) {
    const recording = await recordLoad(piece, work)
    const moment = momentAt(recording, Number(step))
    await check(recording, moment, deathAt(recording, moment), step, work)
  },
}

const powerCuts: Kind = {
  name: "power-cuts",
  async run(piece, work) {
    const recording = await recordLoad(piece, work)
    // Every eighth moment, and the next piece others.
    for (const moment of recording.moments.filter(({ at }) => at % 8 === piece % 8)) {
      work.count("moments of power cuts")
      for (const [at, image] of cutsAt(recording, moment, cutsOfMoment).images.entries()) {
        if (work.isOver()) return
        await check(recording, moment, image, `${moment.at}/${at}`, work)
        work.count("crash images")
      }
    }
  },
  async replay(piece, step, work) {
    const recording = await recordLoad(piece, work)
    const [at = 0, image = 0] = step.split("/").map(Number)
    const moment = momentAt(recording, at)
    await checkImage(recording, moment, cutsAt(recording, moment, cutsOfMoment).images, image, work)
  },
}

async function checkImage(
  recording: Recording,
  moment: Moment,
  images: readonly Image[],
  at: number,
  work: Work,
): Promise<void> {
  const image = images[at]
  if (image === undefined) throw new RangeError(`there are ${images.length} images`)
  await check(recording, moment, image, `${moment.at}/${at}`, work)
}

interface CommitPath {
  readonly recording: Recording
  /** Each of its images, by moment and number. */
  readonly steps: readonly (readonly [Moment, number])[]
}

let knownPath: Promise<CommitPath> | undefined

/** Every image there can be while one delivery is finished, each once. */
function commitPath(scratch: string): Promise<CommitPath> {
  knownPath ??= (async () => {
    const recording = await recordDelivery(scratch, "commit path")
    const [sending] = recording.ledger.sendings
    const { askedAt = 0, doneAt = 0 } = sending?.finished ?? {}
    const steps: (readonly [Moment, number])[] = []
    /** What was left before is not looked at again, unless more was promised meanwhile. */
    const seen = new Set<string>()
    for (const moment of recording.moments.filter(({ at }) => at >= askedAt)) {
      for (const [at, { disk }] of allCuts(recording, moment).entries()) {
        const key = `${moment.at >= doneAt} ${digest(disk)}`
        if (!seen.has(key)) steps.push([moment, at])
        seen.add(key)
      }
    }
    return { recording, steps }
  })()
  return knownPath
}

function allCuts(recording: Recording, moment: Moment): readonly Image[] {
  const { images, isAll } = cutsAt(recording, moment, Infinity)
  if (!isAll) throw new RangeError("not every image")
  return images
}

function digest(disk: DiskState): string {
  const hash = createHash("sha256")
  for (const [path, what] of [...tree(disk)].toSorted(([one], [other]) => (one < other ? -1 : 1))) {
    hash.update(`${path}\n${typeof what === "string" ? what : what.length}\n`)
    if (typeof what !== "string") hash.update(what)
  }
  return hash.digest("hex")
}

/** How many images there are while one delivery is finished. */
export async function commitPathImages(scratch: string): Promise<number> {
  return (await commitPath(scratch)).steps.length
}

const commits: Kind = {
  name: "commit-path",
  async run(piece, work) {
    const { recording, steps } = await commitPath(work.scratch)
    const pieces = Math.ceil(steps.length / pieceImages)
    const from = ((piece - 1) % pieces) * pieceImages
    let of: Moment | undefined
    let images: readonly Image[] = []
    for (const [moment, at] of steps.slice(from, from + pieceImages)) {
      if (of !== moment) images = allCuts(recording, moment)
      of = moment
      await checkImage(recording, moment, images, at, work)
      work.count("crash images of the commit path")
    }
  },
  async replay(_piece, step, work) {
    const { recording } = await commitPath(work.scratch)
    const [at = 0, image = 0] = step.split("/").map(Number)
    const moment = momentAt(recording, at)
    await checkImage(recording, moment, allCuts(recording, moment), image, work)
  },
}

/** How many faults one operation or another of the first life can meet. */
export async function faultsOfOneLife(scratch: string): Promise<number> {
  return faultsOf(await operationsOf(scratch, "1")).length
}

const diskFaults: Kind = {
  name: "disk-faults",
  async run(piece, work) {
    const seed = lifeOf(piece)
    const faults = faultsOf(await operationsOf(work.scratch, seed))
    for (const fault of faults.filter((_, at) => at % piecesOfLife === piece % piecesOfLife)) {
      await checkFaults(seed, [fault], work)
      work.count(`disk faults`)
    }
    const draws = new Draws(piece, "two faults")
    for (let times = 0; times < pairsOfPiece; times++) {
      await checkFaults(seed, [draws.pick(faults), draws.pick(faults)], work)
      work.count("pairs of disk faults")
    }
  },
  async replay(piece, step, work) {
    const faults = step.split("+").map((text): PlannedFault => {
      const [n = "", code = "", partly] = text.split("/")
      return { n: Number(n), code, ...(partly !== undefined && { partly: true }) }
    })
    await checkFaults(lifeOf(piece), faults, work)
  },
}

/** One life of a relay after the other, each in so many pieces. */
function lifeOf(piece: number): string {
  return String(Math.ceil(piece / piecesOfLife))
}

async function checkFaults(
  seed: string,
  faults: readonly PlannedFault[],
  work: Work,
): Promise<void> {
  const step = faults
    .map(({ n, code, partly }) => `${n}/${code}${partly === true ? "/partly" : ""}`)
    .join("+")
  for (const problem of await problemsWith(work.scratch, seed, faults)) work.broken(step, problem)
}

async function runKillsOf(
  piece: number,
  name: string,
  work: Work,
  redis?: KillsOptions["redis"],
): Promise<void> {
  const { isOver } = work
  const options = { seed: piece, kills: killsOfPiece, isOver, ...(redis && { redis }) }
  const { kills: times, violation } = await runKills(options)
  work.count(name, times)
  if (violation !== undefined) work.broken(violation.step, violation.problem)
}

const kills: Kind = {
  name: "kills",
  run: (piece, work) => runKillsOf(piece, "kills", work),
  // What the machine makes of a seed differs, so it is run as it was.
  replay: (piece, _step, work) => kills.run(piece, work),
}

/** One relay or two whose index is in Redis, and that Redis itself. */
const redisKills: Kind = {
  name: "redis-kills",
  run: (piece, work) =>
    runKillsOf(piece, "kills of relays on Redis, and of Redis", work, {
      relays: piece % 2 === 0 ? 1 : 2,
      keeps: piece % 4 < 2 ? "everysec" : "nothing",
    }),
  replay: (piece, _step, work) => redisKills.run(piece, work),
}

export const kinds: readonly Kind[] = [
  deaths,
  powerCuts,
  commits,
  diskFaults,
  kills,
  ...(hasRedis("kills of relays on Redis") ? [redisKills] : []),
]
