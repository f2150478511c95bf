import { existsSync } from "node:fs"
import path from "node:path"
import { DestinationNotFolder } from "../index.js"
import type { Contact, Inbox, InboxRow, ReceiveResult } from "../index.js"
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
import type { Context, WorkOptions } from "./context.js"

export async function receiveDeliveries(request: ReceiveRequest, context: Context): Promise<void> {
  const { output } = context
  await withInbox(request, context, async (inbox, work, contacts) => {
    context.canResume(`To go on where it stopped, run the same again:\n  ${context.sameAgain}`)
    const ids = await chooseIds(request, inbox, work, contacts)
    if (ids.length === 0) {
      output.say("Nothing waits in this inbox: there was nothing to receive.")
      return
    }
    const problems: string[] = []
    for (const id of ids) {
      const ownFolder = path.join(request.folder, id)
      // One that began among several is the only one left when the rest is done; it stays where it began.
      const into = ids.length > 1 || existsSync(ownFolder) ? ownFolder : request.folder
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

async function chooseIds(
  request: ReceiveRequest,
  inbox: Inbox,
  work: WorkOptions,
  contacts: readonly Contact[],
): Promise<string[]> {
  if (request.ids.length > 0) return findWaiting(request.ids, inbox, work)
  const waiting = (await inbox.list(work)).filter(canBeReceived)
  if (request.all) return waiting.map((row) => row.id)
  const [only] = waiting
  if (only !== undefined && waiting.length === 1) return [only.id]
  if (only === undefined) {
    throw new NothingWaits("nothing waits in this inbox that could be received")
  }
  throw new UsageError(
    [
      `${waiting.length} deliveries wait; name the ids of those you want, or say --all`,
      tableHead(),
      ...waiting.map((row) => tableRow(row, contacts)),
    ].join("\n"),
  )
}

function canBeReceived(row: InboxRow): boolean {
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
  const { request, context, inbox, work, contacts, id, into } = one
  const { output } = context
  let result: ReceiveResult
  try {
    result = await inbox.receive(id, {
      into,
      keep: request.keep,
      onExisting: request.onExisting,
      executable: request.executable,
      times: request.times,
      ...whenMoved(work, () => {
        context.canResume(
          `What was fetched is kept in ${showText(path.resolve(into, `.knothole-${id}`))}, for this -o only. To go on where it stopped, run the same again:\n  ${context.sameAgain}`,
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
  const { paths, files, bytes, note, sender, resumed, failed } = result
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
    failed,
  })
  if (failed.length === 0) return undefined
  const list = failed.map(({ path: file, reason }) => `  ${showText(file)}: ${reason}`)
  return [
    `${id}: ${showCount(failed.length, "entry was", "entries were")} left out; the relay's copy stays`,
    ...list,
  ].join("\n")
}

/** Its own lines, indented: none of them can pass for one of ours. */
function showNote(note: string): string {
  return note.split(/\r?\n/).map(showText).join("\n      ")
}
