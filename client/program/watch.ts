// Waits for deliveries and receives each as it comes, until it is told to stop. What concerns one delivery
// never ends it, nor does a relay or network that is away; what concerns the inbox itself does.
import { existsSync } from "node:fs"
import path from "node:path"
import { DeliveryGone, DestinationNotFolder, openState } from "../index.js"
import type { Contact, Inbox, InboxRow, OnProgress, ReceiveResult } from "../index.js"
import { errorCode } from "../error-code.js"
import { isoTime } from "../iso-time.js"
import { makeFolder } from "../make-folder.js"
import { checkProgram, runProgram } from "./child-program.js"
import type { ProgramEnd } from "./child-program.js"
import type { WatchRequest } from "./command-line.js"
import type { Context, WorkOptions } from "./context.js"
import { showDuration, showText } from "./display.js"
import { Interrupted } from "./errors.js"
import { exitCodes } from "./exit-codes.js"
import { explainFailure } from "./failures.js"
import { withFullDisk, withInbox } from "./inbox.js"
import { PendingCommands } from "./pending-commands.js"
import { isTooLarge, tellReceived, tellTooLarge } from "./receive.js"

/** Between two attempts at a delivery that failed: doubled each time, from the first to the last. */
const firstRetryMs = 5_000
const lastRetryMs = 3_600_000
/** The same for a relay that does not answer. */
const firstPauseMs = 1_000
const lastPauseMs = 30_000
/** As long as nothing else is to be done; the relay may answer sooner. */
const longestWaitSeconds = 300

export async function watchInbox(request: WatchRequest, context: Context): Promise<void> {
  const { paths, env } = context
  const [program] = request.exec ?? []
  if (program !== undefined) checkProgram(program, env)
  makeDestination(request.folder)
  context.canResume(`What was begun goes on when the same is run again:\n  ${context.sameAgain}`)
  try {
    await withInbox(request, context, async (inbox, work, contacts) => {
      const pending = await PendingCommands.open(openState(paths.stateFolder), request.folder)
      try {
        await new Watch(request, context, { inbox, work, contacts, pending }).run()
      } finally {
        await pending.close()
      }
    })
  } catch (error) {
    // Whoever runs it as a service ends it so: that is no failure.
    if (error instanceof Interrupted && error.by === "SIGTERM") return
    throw error
  }
}

function makeDestination(folder: string): void {
  try {
    makeFolder(folder)
  } catch (error) {
    if (errorCode(error) === "EEXIST") throw new DestinationNotFolder(path.resolve(folder))
    throw error
  }
}

interface Means {
  readonly inbox: Inbox
  readonly work: WorkOptions
  readonly contacts: readonly Contact[]
  readonly pending: PendingCommands
}

class Watch {
  readonly #request: WatchRequest
  readonly #context: Context
  readonly #means: Means
  /** Left alone for good, and told of. */
  readonly #left = new Set<string>()
  /** Failed, and to be tried again. */
  readonly #later = new Map<string, { attempts: number; atMs: number }>()
  /** Of an earlier run, with a command that may not have run. */
  #earlier: Set<string> | undefined
  #hasListed = false
  /** Rounds that failed in a row, and the last reason told. */
  #failures = 0
  #trouble: string | undefined

  constructor(request: WatchRequest, context: Context, means: Means) {
    this.#request = request
    this.#context = context
    this.#means = means
  }

  async run(): Promise<never> {
    for (;;) {
      try {
        await this.#round()
        await this.#wait()
      } catch (error) {
        await this.#getOver(error)
      }
    }
  }

  get #signal(): AbortSignal {
    return this.#means.work.signal
  }

  /** Looking and waiting is all it does most of the time: only what is out of order is told. */
  get #quietly(): { signal: AbortSignal; onProgress: OnProgress } {
    const { signal, onProgress } = this.#means.work
    return {
      signal,
      onProgress: (event) => {
        if (event.kind === "notice") onProgress(event)
      },
    }
  }

  async #round(): Promise<void> {
    const rows = await this.#means.inbox.list(this.#quietly)
    await this.#isBack()
    const there = new Set(rows.map(({ id }) => id))
    for (const id of this.#left) if (!there.has(id)) this.#left.delete(id)
    for (const id of this.#later.keys()) if (!there.has(id)) this.#later.delete(id)
    this.#hasListed = true
    await this.#finishEarlier(there)
    for (const row of rows) {
      if (this.#left.has(row.id) || this.#leave(row)) continue
      if ((this.#later.get(row.id)?.atMs ?? 0) > Date.now()) continue
      await this.#take(row.id)
    }
  }

  async #isBack(): Promise<void> {
    const { output } = this.#context
    output.restProgress()
    if (!this.#hasListed) {
      const { folder } = this.#request
      output.say(
        `Waiting for deliveries, each into ${showText(path.resolve(folder))}/ID; Ctrl-C ends it.`,
      )
      output.event("watching", { folder: path.resolve(folder) })
    } else if (this.#trouble !== undefined) {
      output.say("The relay answers again.")
      output.event("watching", { folder: path.resolve(this.#request.folder) })
    }
    this.#trouble = undefined
    this.#failures = 0
  }

  /** True for what is not received here; said once. */
  #leave(row: InboxRow): boolean {
    const { output } = this.#context
    const { id } = row
    const tell = (reason: string, why: string) =>
      output.left(id, reason, { text: `${id} is left alone: ${why}` })
    if (row.sender.kind === "refused") {
      tell("refused_sender", "it claims a sender that it does not come from")
    } else if (row.problem !== undefined) {
      tell("cannot_open", showText(row.problem))
    } else if (row.duplicateOf !== undefined) {
      tell("duplicate", `the same came before, as ${row.duplicateOf}`)
    } else if (isTooLarge(row, this.#request.maxSizeBytes)) {
      tellTooLarge(row, output)
    } else return false
    this.#left.add(id)
    return true
  }

  #folderOf(id: string): string {
    return path.join(this.#request.folder, id)
  }

  async #take(id: string): Promise<void> {
    const { pending } = this.#means
    // Before the relay's copy can go: from then on only this note knows of the command.
    if (this.#request.exec !== undefined) await pending.note(id)
    let result: ReceiveResult
    try {
      result = await this.#receive(id)
    } catch (error) {
      await this.#putOff(id, error)
      return
    }
    await this.#received(result)
  }

  async #receive(id: string): Promise<ReceiveResult> {
    const { inbox, work } = this.#means
    try {
      return await inbox.receive(id, { into: this.#folderOf(id), ...work })
    } finally {
      this.#context.output.restProgress()
    }
  }

  async #received(result: ReceiveResult): Promise<void> {
    const { contacts, pending } = this.#means
    const { output } = this.#context
    const { id } = result
    this.#later.delete(id)
    const leftOut = tellReceived(result, { into: this.#folderOf(id), contacts, output })
    if (leftOut === undefined) {
      await this.#runCommand(id)
      return
    }
    output.warn(leftOut)
    this.#left.add(id)
    await pending.drop(id)
  }

  /** Throws what does not concern this delivery alone. */
  async #putOff(id: string, error: unknown): Promise<void> {
    const failure = explainFailure(withFullDisk(error, this.#context.paths.stateFolder))
    if (this.#signal.aborted || failure.exit === exitCodes.unreachable) throw error
    const { code, message, exit } = failure
    if (error instanceof DeliveryGone) {
      await this.#means.pending.drop(id)
      this.#tell("not_received", { id, error: { code, message, exit } }, message)
      this.#left.add(id)
      return
    }
    const attempts = (this.#later.get(id)?.attempts ?? 0) + 1
    const delayMs = Math.min(firstRetryMs * 2 ** (attempts - 1), lastRetryMs)
    const atMs = Date.now() + delayMs
    this.#later.set(id, { attempts, atMs })
    this.#tell(
      "not_received",
      { id, error: { code, message, exit }, next_attempt: isoTime(atMs) },
      `${id}: ${message}\nIt is tried again in ${showDuration(delayMs)}.`,
    )
  }

  async #runCommand(id: string): Promise<void> {
    const { exec } = this.#request
    const { env } = this.#context
    if (exec === undefined) return
    const given = { KNOTHOLE_ID: id, KNOTHOLE_DIR: path.resolve(this.#folderOf(id)) }
    let end: ProgramEnd | Error
    try {
      end = await runProgram({ words: exec, env: { ...env, ...given }, signal: this.#signal })
    } catch (error) {
      if (!(error instanceof Error) || this.#signal.aborted) throw error
      end = error
    }
    // One that was told to stop with us runs again next time.
    this.#signal.throwIfAborted()
    await this.#means.pending.drop(id)
    this.#tellEnd(id, end)
  }

  #tellEnd(id: string, end: ProgramEnd | Error): void {
    if (end instanceof Error) {
      const { message } = explainFailure(end)
      const text = `${id}: its command could not be run: ${message}`
      this.#tell("executed", { id, ok: false, error: message }, text)
      return
    }
    const { code, signal } = end
    const how = signal === null ? `with ${code}` : `by ${signal}`
    const text = code === 0 ? undefined : `${id}: its command ended ${how}; it is not run again`
    this.#tell("executed", { id, ok: code === 0, exit: code, signal }, text)
  }

  /** To programs as an event, to a person in words, if there are any. */
  #tell(event: string, fields: object, text: string | undefined): void {
    const { output } = this.#context
    if (output.mode.json) output.event(event, fields)
    else if (text !== undefined) output.warn(text)
  }

  /** What an earlier run noted and did not get to: the rest of a receiving, or the command. */
  async #finishEarlier(there: ReadonlySet<string>): Promise<void> {
    if (this.#request.exec === undefined) return
    this.#earlier ??= new Set(await this.#means.pending.all())
    for (const id of this.#earlier) {
      if (!there.has(id)) await this.#finishOne(id)
      this.#earlier.delete(id)
    }
  }

  async #finishOne(id: string): Promise<void> {
    let result: ReceiveResult
    try {
      result = await this.#receive(id)
    } catch (error) {
      const wasTaken = error instanceof DeliveryGone && error.reason === "taken"
      if (wasTaken && this.#isAllThere(id)) await this.#runCommand(id)
      else await this.#putOff(id, error)
      return
    }
    await this.#received(result)
  }

  #isAllThere(id: string): boolean {
    const folder = this.#folderOf(id)
    return existsSync(folder) && !existsSync(path.join(folder, `.knothole-${id}`))
  }

  async #wait(): Promise<void> {
    for (;;) {
      const dueMs = Math.min(...[...this.#later.values()].map(({ atMs }) => atMs))
      const seconds = Math.min((dueMs - Date.now()) / 1000, longestWaitSeconds)
      if (seconds <= 0) return
      if (await this.#means.inbox.waitForNews({ seconds, ...this.#quietly })) return
    }
  }

  /** Waits for what may pass by itself; throws all else. */
  async #getOver(error: unknown): Promise<void> {
    this.#signal.throwIfAborted()
    const { exit, message } = explainFailure(error)
    if (!this.#hasListed || exit !== exitCodes.unreachable) throw error
    if (message !== this.#trouble) {
      this.#context.output.warn(`${message}\nThis goes on as soon as the relay answers.`)
    }
    this.#trouble = message
    const step = Math.min(firstPauseMs * 2 ** this.#failures, lastPauseMs)
    this.#failures++
    // So that all who wait for one relay do not come back at once.
    await pause(step / 2 + (step / 2) * Math.random(), this.#signal)
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  const { setTimeout } = await import("node:timers/promises")
  await setTimeout(ms, undefined, { signal })
}
