import { existsSync } from "node:fs"
import path from "node:path"
import { parseUtf8 } from "../../protocol/index.js"
import { DestinationNotFolder } from "../index.js"
import type { Contact, Inbox, InboxRow, ReceiveOptions, ReceiveResult } from "../index.js"
import type { ReceiveRequest } from "./command-line.js"
import { showCount, showSize, showText } from "./display.js"
import { NothingWaits, PartlyDone, UsageError } from "./errors.js"
import { exitCodes } from "./exit-codes.js"
import type { ExitCode } from "./exit-codes.js"
import { explainFailure } from "./failures.js"
import {
  describeSender,
  findWaiting,
  senderForPrograms,
  tableHead,
  tableRow,
  withInbox,
} from "./inbox.js"
import { whenMoved } from "./context.js"
import type { Output } from "./output.js"
import type { Context, WorkOptions } from "./context.js"

export async function receiveDeliveries(request: ReceiveRequest, context: Context): Promise<void> {
  const { output } = context
  await withInbox(request, context, async (inbox, work, contacts) => {
    context.canResume(`To go on where it stopped, run the same again:\n  ${context.sameAgain}`)
    const ids = await chooseIds(request, { inbox, work, contacts, output })
    if (ids.length === 0) {
      output.say("There is nothing to receive.")
      return
    }
    const problems: string[] = []
    for (const id of ids) {
      const into = folderFor(id, ids.length, request)
      const problem = await receiveOne({
        request,
        context,
        inbox,
        work,
        contacts,
        id,
        into,
        isOnly: ids.length === 1,
      })
      if (problem !== undefined) problems.push(problem)
    }
    if (problems.length > 0) throw new PartlyDone(problems.join("\n"))
  })
}

function folderFor(id: string, among: number, request: ReceiveRequest): string {
  const ownFolder = path.join(request.folder, id)
  if (among > 1) return ownFolder
  // One that began among several is the only one left when the rest is done; it stays where it began.
  return request.entries.length === 0 && existsSync(ownFolder) ? ownFolder : request.folder
}

interface Chooser {
  readonly inbox: Inbox
  readonly work: WorkOptions
  readonly contacts: readonly Contact[]
  readonly output: Output
}

async function chooseIds(
  request: ReceiveRequest,
  { inbox, work, contacts, output }: Chooser,
): Promise<string[]> {
  if (request.ids.length > 0) return findWaiting(request.ids, inbox, work)
  const sound = (await inbox.list(work)).filter(canBeReceived)
  const waiting = sound.filter((row) => !isTooLarge(row, request.maxSizeBytes))
  for (const row of sound) if (!waiting.includes(row)) tellTooLarge(row, output)
  if (request.all) return waiting.map((row) => row.id)
  const [only] = waiting
  if (only !== undefined && waiting.length === 1) return [only.id]
  if (only === undefined) {
    const but = sound.length === 0 ? "" : "; what --max-size leaves alone can be named by its id"
    throw new NothingWaits(`nothing waits in this inbox that could be received${but}`)
  }
  throw new UsageError(
    [
      `${waiting.length} deliveries wait; name the ids of those you want, or say --all`,
      tableHead(),
      ...waiting.map((row) => tableRow(row, contacts)),
    ].join("\n"),
  )
}

/** Whoever is known may send what the relay takes; anybody can say to be somebody. */
export function isTooLarge(row: InboxRow, maxSizeBytes: number | undefined): boolean {
  return (
    maxSizeBytes !== undefined && row.sender.kind === "unverified" && row.sizeBytes > maxSizeBytes
  )
}

export function tellTooLarge(row: InboxRow, output: Output): void {
  output.left(row.id, "too_large", {
    text: `${row.id} is left alone: ${showSize(row.sizeBytes)} of an unknown sender. 'knothole receive ${row.id}' receives it all the same`,
    size: row.sizeBytes,
  })
}

export function canBeReceived(row: InboxRow): boolean {
  return row.problem === undefined && row.duplicateOf === undefined && row.sender.kind !== "refused"
}

/** The others would meet the same: no relay, or no room; and so with a destination that is no folder. */
const concernsAll = new Set<ExitCode>([exitCodes.unreachable, exitCodes.full])

interface OneDelivery {
  readonly request: ReceiveRequest
  readonly context: Context
  readonly inbox: Inbox
  readonly work: WorkOptions
  readonly contacts: readonly Contact[]
  readonly id: string
  readonly into: string
  readonly isOnly: boolean
}

/** What went wrong with this one, when the others may still go well. */
async function receiveOne(one: OneDelivery): Promise<string | undefined> {
  const { request, context, work, contacts, id, into } = one
  const { output } = context
  const privateName = `.knothole-${id}${request.entries.length > 0 ? "-…" : ""}`
  let result: ReceiveResult
  try {
    result = await receiveChosen(one, {
      into,
      keep: request.keep,
      onExisting: request.onExisting,
      executable: request.executable,
      times: request.times,
      ...whenMoved(work, () => {
        context.canResume(
          `What was fetched is kept in ${showText(path.resolve(into, privateName))}, for this -o only. To go on where it stopped, run the same again:\n  ${context.sameAgain}`,
        )
      }),
    })
  } catch (error) {
    const { message, code, exit } = explainFailure(error)
    const isAboutAll = concernsAll.has(exit) || error instanceof DestinationNotFolder
    if (one.isOnly || work.signal.aborted || isAboutAll) throw error
    output.event("not_received", { id, error: { code, message, exit } })
    return `${id}: ${message}`
  }
  return tellReceived(result, { into, contacts, output })
}

/** Without `--entry` there is no need to know the entries before they are received. */
async function receiveChosen(
  { request, inbox, work, id }: OneDelivery,
  options: ReceiveOptions,
): Promise<ReceiveResult> {
  if (request.entries.length === 0) return inbox.receive(id, options)
  const delivery = await inbox.open(id, work)
  const paths = delivery.manifest.entries.map((entry) => parseUtf8(entry.path, "path"))
  const entries = request.entries.map((written) => pathAsShown(paths, written))
  return delivery.receive({ ...options, entries })
}

/**
 * The path that was meant by what `show` writes for it. What is there as it was written means itself,
 * and so does what is not there at all: the library refuses it by name.
 */
export function pathAsShown(paths: readonly string[], written: string): string {
  // Folders need no entries of their own: what is above an entry is there, too.
  const below = `${written}/`
  if (paths.some((path) => path === written || path.startsWith(below))) return written
  const components = written.split("/").length
  const meant = new Set<string>()
  for (const path of paths) {
    const shown = showText(path)
    // Each character is shown by itself, and a slash as one.
    if (shown === written || shown.startsWith(below)) {
      meant.add(path.split("/", components).join("/"))
    }
  }
  if (meant.size > 1) {
    throw new UsageError(
      `'${written}' is how ${meant.size} entries are shown: write the name itself, not what show makes of it ('knothole show ID --json' has it)`,
    )
  }
  const [only] = meant
  return only ?? written
}

/** Says what was received, and answers with what was left out of it, if anything was. */
export function tellReceived(
  result: ReceiveResult,
  { into, contacts, output }: { into: string; contacts: readonly Contact[]; output: Output },
): string | undefined {
  const { id, paths, files, bytes, note, sender, resumed, renamed, failed } = result
  for (const file of paths) output.result(showText(file))
  const from = sender === undefined ? undefined : describeSender(sender, contacts)
  output.say(
    `${id}: ${showCount(files, "file")}, ${showSize(bytes)}${resumed ? ", resumed" : ""}${note === "" ? "" : `\nNote: ${showNote(note)}`}${from === undefined ? "" : `\nSender: ${from}`}`,
  )
  output.event("received", {
    id,
    into,
    paths,
    files,
    bytes,
    note,
    ...(sender !== undefined && { sender: senderForPrograms(sender, contacts) }),
    resumed,
    renamed,
    failed,
  })
  noteRenamed(renamed, output)
  if (failed.length === 0) return undefined
  const list = failed.map(({ path: file, reason }) => `  ${showText(file)}: ${reason}`)
  return [
    `${id}: ${showCount(failed.length, "entry was", "entries were")} left out; the relay's copy stays`,
    ...list,
  ].join("\n")
}

const mostRenamedShown = 20

function noteRenamed(renamed: ReceiveResult["renamed"], output: Context["output"]): void {
  for (const { path: sent, stored } of renamed.slice(0, mostRenamedShown)) {
    output.note(
      `this disk does not store '${showText(sent)}' under its name; it is '${showText(stored)}'`,
    )
  }
  const rest = renamed.length - mostRenamedShown
  if (rest > 0) output.note(`${rest} more are stored under other names`)
}

/** Its own lines, indented: none of them can pass for one of ours. */
export function showNote(note: string): string {
  return note.split(/\r?\n/).map(showText).join("\n      ")
}
