/** All targets, and the running of one input: what is drawn, what it may allocate, what is written down of a failure. */
import { countAllocation, takeAllocated, type Allocated } from "./allocation.js"
import { Draws } from "./random.js"
import { readVectors, type Subject } from "./subject.js"
import {
  Broken,
  defaultAllocation,
  encodeInput,
  type Input,
  type Target,
  type Verdict,
} from "./target.js"
import { clientTargets } from "./targets/client.js"
import { envelopeTargets } from "./targets/envelope.js"
import { journalTargets } from "./targets/journals.js"
import { identityTargets } from "./targets/identity.js"
import { manifestTargets } from "./targets/manifest.js"
import { messageTargets } from "./targets/messages.js"
import { ownerTargets } from "./targets/owner.js"
import { recordTargets } from "./targets/records.js"
import { redisTargets } from "./targets/redis.js"
import { serverTargets } from "./targets/server.js"

export async function createTargets(subject: Subject): Promise<Target[]> {
  const vectors = readVectors()
  return [
    ...(await identityTargets(subject, vectors)),
    ...(await envelopeTargets(subject, vectors)),
    ...manifestTargets(subject, vectors),
    ...recordTargets(subject, vectors),
    ...messageTargets(subject, vectors),
    ...serverTargets(subject, vectors),
    ...redisTargets(subject),
    ...(await clientTargets(subject, vectors)),
    ...journalTargets(subject, vectors),
    ...(await ownerTargets(subject, vectors)),
  ]
}

export interface Finding {
  readonly seed: string
  readonly target: string
  readonly iteration: number
  readonly problem: string
  readonly input: string
}

/** Iterations below zero are the target's own valid values, which must be accepted. */
export function inputOf(target: Target, seed: string, iteration: number): Input {
  if (iteration >= 0) return target.make(new Draws(seed, target.name, iteration))
  const valid = target.seeds[-1 - iteration]
  if (valid === undefined) throw new RangeError(`${target.name} has no such valid value`)
  return valid
}

export interface Ran {
  readonly verdict: Verdict | undefined
  readonly allocated: Allocated
  readonly inputLength: number
  readonly finding: Finding | undefined
}

export async function runIteration(target: Target, seed: string, iteration: number): Promise<Ran> {
  const input = inputOf(target, seed, iteration)
  const stopCounting = countAllocation()
  takeAllocated()
  let verdict: Verdict | undefined
  let problem: string | undefined
  try {
    verdict = await target.run(input)
    if (iteration < 0 && verdict !== "accepted") problem = "a valid value was refused"
  } catch (error) {
    problem = error instanceof Error ? (error.stack ?? String(error)) : `thrown: ${String(error)}`
  } finally {
    stopCounting()
  }
  const allocated = takeAllocated()
  const { perByte, fixed } = target.allocation ?? defaultAllocation
  const most = perByte * input.length + fixed
  if (problem === undefined && allocated.bytes > most) {
    problem = String(
      new Broken(
        `${allocated.bytes} bytes allocated for an input of ${input.length}, above ${most}`,
      ),
    )
  }
  const finding =
    problem === undefined
      ? undefined
      : { seed, target: target.name, iteration, problem, input: encodeInput(input) }
  return { verdict, allocated, inputLength: input.length, finding }
}

export interface Tally {
  readonly name: string
  executions: number
  accepted: number
  refused: number
  findings: number
  /** The most that one input allocated. */
  mostAllocatedBytes: number
}

export function newTally(name: string): Tally {
  return { name, executions: 0, accepted: 0, refused: 0, findings: 0, mostAllocatedBytes: 0 }
}

export function count(tally: Tally, ran: Ran): void {
  tally.executions += 1
  if (ran.finding) tally.findings += 1
  else if (ran.verdict === "accepted") tally.accepted += 1
  else tally.refused += 1
  tally.mostAllocatedBytes = Math.max(tally.mostAllocatedBytes, ran.allocated.bytes)
}

/** A fixed number of inputs for each target, after its own valid values: what the tests run. */
export async function fuzzFixed(
  targets: readonly Target[],
  seed: string,
  iterations: number,
): Promise<{ readonly findings: readonly Finding[]; readonly tallies: readonly Tally[] }> {
  const findings: Finding[] = []
  const tallies: Tally[] = []
  for (const target of targets) {
    const tally = newTally(target.name)
    const most = target.slow ? Math.ceil(iterations / 200) : iterations
    for (let iteration = -target.seeds.length; iteration < most; iteration++) {
      const ran = await runIteration(target, seed, iteration)
      count(tally, ran)
      if (ran.finding) findings.push(ran.finding)
    }
    tallies.push(tally)
  }
  return { findings, tallies }
}
