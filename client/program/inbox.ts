import { fingerprintWords, toHex } from "../../protocol/index.js"
import { errorCode } from "../error-code.js"
import {
  contactOf,
  DeliveryGone,
  DiskFull,
  knownSenders,
  openInbox,
  openState,
  readContacts,
} from "../index.js"
import type { Contact, Inbox, InboxRow, Sender } from "../index.js"
import { isoTime } from "../iso-time.js"
import type { IdentityChoice, InboxRequest } from "./command-line.js"
import { fold, shorten, showCount, showSize, showText, showTime } from "./display.js"
import { UsageError } from "./errors.js"
import { loadKeyFile, unlock } from "./identities.js"
import { completeId, isWholeId } from "./quantities.js"
import { parseRelay } from "./recipients.js"
import type { Context, WorkOptions } from "./context.js"
import { readConfig } from "./settings.js"

/**
 * Hands `use` this person's inbox, and the contacts its senders are looked up among, and closes it
 * afterwards. The passphrase is asked for before anything is shown.
 */
export async function withInbox<T>(
  request: IdentityChoice & { readonly relay: string | undefined },
  context: Context,
  use: (inbox: Inbox, work: WorkOptions, contacts: readonly Contact[]) => Promise<T>,
): Promise<T> {
  const { paths } = context
  const contacts = readContacts(paths.contactsFile)
  const key = loadKeyFile({ paths, config: readConfig(paths), name: request.identity })
  const written = request.relay ?? key.relay
  if (written === undefined) {
    throw new UsageError(
      `identity '${key.name}' has no inbox yet\nOpen it with 'knothole init --name ${key.name} --relay URL'.`,
    )
  }
  const relay = parseRelay(written)
  for (const former of request.relay === undefined ? key.formerRelays : []) {
    context.output.say(
      `This identity has moved: what went to its old address waits at ${former} (--relay ${former}).`,
    )
  }
  const identity = await unlock(key, request.passphraseFile)
  return context.work(async (work) => {
    const inbox = await openInbox({
      identity,
      relay,
      state: openState(paths.stateFolder),
      senders: knownSenders(contacts),
      ...work,
    })
    try {
      return await use(inbox, work, contacts)
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
  const { rows, contacts } = await withInbox(request, context, async (inbox, work, contacts) => ({
    rows: await inbox.list({
      ...work,
      onRow: (row) => {
        if (shown === 0) output.result(tableHead())
        shown += 1
        output.result(tableRow(row, contacts))
      },
    }),
    contacts,
  }))
  output.list(rows.map((row) => rowForPrograms(row, contacts)))
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

/** As wide as a terminal is at least. */
const widest = 80
const noteMark = "  Note: "

const columns: readonly Column[] = [
  { title: "ID", width: 32, show: (row) => row.id },
  { title: "RECEIVED", width: 23, show: (row) => showTime(row.receivedMs) },
  { title: "SIZE", width: 8, right: true, show: (row) => showSize(row.sizeBytes) },
  { title: "ENTRIES", width: 7, right: true, show: (row) => row.entries.toLocaleString("en-US") },
]

export function tableHead(): string {
  return line((column) => column.title)
}

/** What has no column takes lines below, each with its own beginning: a note cannot pass for another. */
export function tableRow(row: InboxRow, contacts: readonly Contact[]): string {
  const { sender, note, problem, duplicateOf, expiresMs, isNew } = row
  const from = describeSender(sender, contacts)
  const lines = [
    line((column) => column.show(row)),
    fold(`${isNew ? "new, " : ""}${sender.kind}, expires ${showTime(expiresMs)}`, widest),
  ]
  if (from !== undefined) lines.push(fold(from, widest))
  // A note is for nothing where something is wrong with who wrote it.
  if (problem !== undefined) return [...lines, fold(`(${showText(problem)})`, widest)].join("\n")
  if (duplicateOf !== undefined) lines.push(fold(`again ${duplicateOf}`, widest))
  if (note !== "") lines.push(noteMark + shorten(showText(note), widest - noteMark.length))
  return lines.join("\n")
}

/**
 * Whose key it was, in the owner's own name for them, or whom the sender says it is: without a contact
 * of that key it is never more than a claim. Undefined for an anonymous sender.
 */
export function describeSender(sender: Sender, contacts: readonly Contact[]): string | undefined {
  if (sender.kind === "refused") return undefined
  if (sender.kind === "unverified") {
    return sender.claimedFingerprint && claimed(sender.claimedFingerprint)
  }
  const contact = contactOf(contacts, sender.fingerprint)
  if (contact === undefined) return claimed(sender.fingerprint)
  const { name, comparedMs } = contact
  const known = comparedMs === undefined ? "contact not yet compared" : "verified contact"
  return `from ${name} (${known}${sender.kind === "signed" ? ", signed" : ""})`
}

function claimed(fingerprint: Uint8Array): string {
  return `claims a sender, not verified: ${fingerprintWords(fingerprint).join(" ")}`
}

export function senderForPrograms(sender: Sender, contacts: readonly Contact[]): object {
  const { kind } = sender
  if (kind === "refused") return { kind }
  if (kind !== "unverified") {
    const contact = contactOf(contacts, sender.fingerprint)
    return {
      kind,
      fingerprint: toHex(sender.fingerprint),
      ...(contact !== undefined && {
        contact: contact.name,
        verified_contact: contact.comparedMs !== undefined,
      }),
    }
  }
  const { claimedFingerprint } = sender
  return {
    kind,
    ...(claimedFingerprint !== undefined && { claimed_fingerprint: toHex(claimedFingerprint) }),
  }
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
export function rowForPrograms(row: InboxRow, contacts: readonly Contact[]): object {
  return {
    id: row.id,
    received: isoTime(row.receivedMs),
    expires: isoTime(row.expiresMs),
    size: row.sizeBytes,
    entries: row.entries,
    sender: senderForPrograms(row.sender, contacts),
    note: row.note,
    new: row.isNew,
    ...(row.duplicateOf !== undefined && { duplicate_of: row.duplicateOf }),
    ...(row.problem !== undefined && { problem: row.problem }),
  }
}
