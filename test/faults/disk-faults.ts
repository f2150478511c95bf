// A disk that fails: the n-th operation of a relay's life, or two of them, with what a system answers
// when it is full or broken, done not at all or in part. Then the disk is well again, and the relay has
// to go on as if nothing had been.
import { Draws } from "../fuzz/random.js"
import type { Operation } from "../server/faulty-disk.js"
import { cutsOf, diskAfter } from "./crash-images.js"
import { goOn, inspect } from "./inspection.js"
import { type Ledger, newLedger } from "./ledger.js"
import { runLoad, tryLoad } from "./load.js"
import { type Fault, tree } from "./memory-disk.js"
import { owners, startMs } from "./recording.js"
import { Subject } from "./subject.js"

export interface PlannedFault extends Fault {
  /** Operations of the relay's life, from its first start. */
  readonly n: number
}

const actions = 6
/** What only a disk that is being written to can answer. */
const fullCodes: readonly string[] = ["ENOSPC", "EDQUOT"]
const codes = ["ENOSPC", "EDQUOT", "EIO"] as const
const writing: ReadonlySet<Operation> = new Set<Operation>([
  "create",
  "rename",
  "unlink",
  "makeFolder",
  "removeFolder",
  "syncFolder",
  "file.write",
  "file.truncate",
  "file.sync",
])
/** What can be done in part, or done and called failed. */
const partial: ReadonlySet<Operation> = new Set<Operation>([
  "rename",
  "unlink",
  "makeFolder",
  "removeFolder",
  "file.write",
  "file.sync",
])

/** The operations of the life that this seed makes when nothing fails. */
export async function operationsOf(scratch: string, seed: string): Promise<readonly Operation[]> {
  const operations: Operation[] = []
  const life = await openLife(scratch, seed, (operation) => {
    operations.push(operation)
    return undefined
  })
  await runLoad({ ...life, actors: 1, actions })
  await life.subject.kill()
  if (life.ledger.surprises.length > 0) throw new Error(life.ledger.surprises.join("; "))
  return operations
}

/** Every fault that one operation of that life can meet. */
export function faultsOf(operations: readonly Operation[]): PlannedFault[] {
  return operations.flatMap((operation, at) =>
    codes
      .filter((code) => writing.has(operation) || !fullCodes.includes(code))
      .flatMap((code): PlannedFault[] => {
        const fault = { n: at + 1, code }
        return partial.has(operation) ? [fault, { ...fault, partly: true }] : [fault]
      }),
  )
}

interface Life {
  readonly subject: Subject
  readonly ledger: Ledger
  readonly draws: Draws
}

type Planned = (operation: Operation, count: number) => Fault | undefined

async function openLife(scratch: string, seed: string, fault: Planned): Promise<Life> {
  const subject = new Subject({
    scratch,
    seed,
    wallMs: startMs,
    changed: () => undefined,
    prepare: (disk) => {
      disk.fault = fault
    },
  })
  const life = { subject, ledger: newLedger(await owners()), draws: new Draws(seed, "load") }
  // A relay that cannot start is started again, and there are no more faults than two.
  for (let starts = 1; !(await comesUp(subject)); starts++) {
    if (starts === 3) throw new Error("the relay does not come up")
  }
  return life
}

async function comesUp(subject: Subject): Promise<boolean> {
  try {
    await subject.restart()
    return true
  } catch {
    return false
  }
}

/** What is wrong with a relay whose disk failed at these operations and is well again. */
export async function problemsWith(
  scratch: string,
  seed: string,
  faults: readonly PlannedFault[],
): Promise<string[]> {
  const planned = new Map(faults.map((fault) => [fault.n, fault]))
  const problems: string[] = []
  const life = await openLife(scratch, seed, (_operation, count) => planned.get(count))
  const { subject, ledger, draws } = life
  try {
    await tryLoad({ ...life, actions })
    const unforeseen = ledger.surprises.filter((text) => !/answered with (500|503|507) /.test(text))
    problems.push(...unforeseen)
    ledger.surprises.length = 0
    subject.disk.fault = () => undefined
    subject.log.length = 0
    await tryLoad({ ...life, actions: 2 })
    problems.push(...ledger.surprises.map((text) => `the disk is well again, and ${text}`))
    const inspection = { subject, ledger, at: subject.changes, keepsSessions: true }
    problems.push(...(await inspect(inspection)).problems)
    problems.push(...(await goOn(inspection)))
    await subject.relay.reconcile()
    await subject.relay.sweep()
    problems.push(...strays(subject))
  } catch (error) {
    problems.push(`it ended with ${String(error)}`)
  } finally {
    await subject.kill()
  }
  if (problems.length > 0) return problems
  return problemsAfterCut(scratch, seed, life, draws)
}

/** What failed to reach the disk is found out when the machine stops. */
async function problemsAfterCut(
  scratch: string,
  seed: string,
  { subject, ledger }: Life,
  draws: Draws,
): Promise<string[]> {
  const state = subject.disk.state()
  const at = subject.changes
  const [cut] = cutsOf(state, 1, draws).cuts
  const after = new Subject({
    scratch,
    seed: `${seed} again`,
    disk: cut === undefined ? state : diskAfter(state, cut),
    boot: "another boot",
    wallMs: subject.clock.wallMs() + 20_000,
  })
  try {
    await after.start()
    const { problems } = await inspect({ subject: after, ledger, at, keepsSessions: false })
    return problems.map((problem) => `after a power cut: ${problem}`)
  } catch (error) {
    return [`after a power cut it does not come up: ${String(error)}`]
  } finally {
    await after.kill()
  }
}

/** What lies on the disk and nothing leads to. */
function strays(subject: Subject): string[] {
  const paths = [...tree(subject.disk.state()).keys()]
  const kinds = [/^relay\/trash\/.+/, /^relay\/store\/[^/]+\/t-/, /\/log\.new$/]
  return paths
    .filter((path) => kinds.some((kind) => kind.test(path)))
    .map((path) => `${path.replaceAll(/[0-9a-f]{16,}/g, "…")} is left over`)
}
