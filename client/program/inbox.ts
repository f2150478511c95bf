import { fingerprintWords, toHex } from "../../protocol/index.js"
import { errorCode } from "../error-code.js"
import { DeliveryGone, DiskFull, openInbox, openState } from "../index.js"
import type { Inbox, InboxRow, Sender } from "../index.js"
import type { IdentityChoice, InboxRequest } from "./command-line.js"
import { isoTime, shorten, showCount, showSize, showText, showTime } from "./display.js"
import { UsageError } from "./errors.js"
import { loadKeyFile, unlock } from "./identities.js"
import { completeId, isWholeId } from "./quantities.js"
import { parseRelay } from "./recipients.js"
import type { Context, WorkOptions } from "./context.js"
import { readConfig } from "./settings.js"

/** Hands `use` this person's inbox and closes it afterwards. The passphrase is asked for before anything is shown. */
export async function withInbox<T>(
  request: IdentityChoice & { readonly relay: string | undefined },
  context: Context,
  use: (inbox: Inbox, work: WorkOptions) => Promise<T>,
): Promise<T> {
  const { paths } = context
  const key = loadKeyFile({ paths, config: readConfig(paths), name: request.identity })
  const written = request.relay ?? key.relay
  if (written === undefined) {
    throw new UsageError(
      `identity '${key.name}' has no inbox yet\nOpen it with 'knothole init --name ${key.name} --relay URL'.`,
    )
  }
  const relay = parseRelay(written)
  const identity = await unlock(key, request.passphraseFile)
  return context.work(async (work) => {
    const inbox = await openInbox({
      identity,
      relay,
      state: openState(paths.stateFolder),
      ...work,
    })
    try {
      return await use(inbox, work)
    } catch (error) {
      throw withFullDisk(error, paths.stateFolder)
    } finally {
      inbox.close()
    }
  })
}

/** The system does not say which disk; what goes elsewhere is told by the library as a DiskFull already. */
export function withFullDisk(error: unknown, folder: string): unknown {
  const code = errorCode(error)
  if (code !== "ENOSPC" && code !== "EDQUOT") return error
  const message = `the disk that holds ${folder} is full; make room and run this again`
  return new DiskFull("here", message, { cause: error })
}

/** Whole ids; the inbox is listed only where the beginning of one was given. */
export async function findWaiting(
  written: readonly string[],
  inbox: Inbox,
  work: WorkOptions,
): Promise<string[]> {
  if (written.every(isWholeId)) return [...new Set(written)]
  const waiting = (await inbox.list(work)).map((row) => row.id)
  const ids = written.map((begun) => {
    const id = isWholeId(begun) ? begun : completeId(begun, waiting)
    if (id !== undefined) return id
    throw new DeliveryGone(begun, "unknown", `no delivery whose id begins with ${begun} waits here`)
  })
  return [...new Set(ids)]
}

export async function listInbox(request: InboxRequest, context: Context): Promise<void> {
  const { output } = context
  let shown = 0
  const rows = await withInbox(request, context, (inbox, work) =>
    inbox.list({
      ...work,
      onRow: (row) => {
        if (shown === 0) output.result(tableHead())
        shown += 1
        output.result(tableRow(row))
      },
    }),
  )
  output.list(rows.map(rowForPrograms))
  const fresh = rows.filter((row) => row.isNew).length
  output.say(
    rows.length === 0
      ? "Nothing waits in this inbox."
      : `${showCount(rows.length, "delivery waits", "deliveries wait")}, ${fresh} new. 'knothole receive ID' picks one up.`,
  )
}

interface Column {
  readonly title: string
  readonly width: number
  readonly right?: boolean
  readonly show: (row: InboxRow) => string
}

const widestNote = 60

const columns: readonly Column[] = [
  { title: "ID", width: 32, show: (row) => row.id },
  { title: "RECEIVED", width: 23, show: (row) => showTime(row.receivedMs) },
  { title: "EXPIRES", width: 23, show: (row) => showTime(row.expiresMs) },
  { title: "SIZE", width: 8, right: true, show: (row) => showSize(row.sizeBytes) },
  { title: "ENTRIES", width: 7, right: true, show: (row) => row.entries.toLocaleString("en-US") },
  { title: "SENDER", width: 10, show: (row) => row.sender.kind },
  { title: "NEW", width: 3, show: (row) => (row.isNew ? "new" : "") },
  { title: "NOTE", width: 0, show: noteOrProblem },
]

function noteOrProblem(row: InboxRow): string {
  if (row.problem !== undefined) return `(${showText(row.problem)})`
  const note = shorten(showText(row.note), widestNote)
  return row.duplicateOf === undefined ? note : `(again ${row.duplicateOf}) ${note}`
}

export function tableHead(): string {
  return line((column) => column.title)
}

/** A claimed sender takes a line of its own below. */
export function tableRow(row: InboxRow): string {
  const claim = describeClaim(row.sender)
  return `${line((column) => column.show(row))}${claim === undefined ? "" : `\n  ${claim}`}`
}

/** Whom the sender says it is: nothing here knows that key, so it is never more than a claim. */
export function describeClaim(sender: Sender): string | undefined {
  if (sender.kind !== "unverified" || sender.claimedFingerprint === undefined) return undefined
  return `claims a sender, not verified: ${fingerprintWords(sender.claimedFingerprint).join(" ")}`
}

export function senderForPrograms(sender: Sender): object {
  const { kind } = sender
  if (kind === "refused") return { kind }
  if (kind !== "unverified") return { kind, fingerprint: toHex(sender.fingerprint) }
  const { claimedFingerprint: claimed } = sender
  return { kind, ...(claimed !== undefined && { claimed_fingerprint: toHex(claimed) }) }
}

function line(cell: (column: Column) => string): string {
  return columns
    .map((column) =>
      column.right === true
        ? cell(column).padStart(column.width)
        : cell(column).padEnd(column.width),
    )
    .join("  ")
    .trimEnd()
}

/** One element of the array that `inbox --json` prints. Times are ISO 8601 in UTC, sizes bytes. */
export function rowForPrograms(row: InboxRow): object {
  return {
    id: row.id,
    received: isoTime(row.receivedMs),
    expires: isoTime(row.expiresMs),
    size: row.sizeBytes,
    entries: row.entries,
    sender: senderForPrograms(row.sender),
    note: row.note,
    new: row.isNew,
    ...(row.duplicateOf !== undefined && { duplicate_of: row.duplicateOf }),
    ...(row.problem !== undefined && { problem: row.problem }),
  }
}
