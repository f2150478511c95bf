import { parseUtf8 } from "../../protocol/index.js"
import type { Contact, OpenDelivery } from "../index.js"
import { isoTime } from "../iso-time.js"
import type { ShowRequest } from "./command-line.js"
import type { Context } from "./context.js"
import { showCount, showLines, showSize, showText, showTime } from "./display.js"
import { describeSender, findWaiting, senderForPrograms, withInbox } from "./inbox.js"
import { showNote } from "./receive.js"

export async function showDelivery(request: ShowRequest, context: Context): Promise<void> {
  const { output } = context
  const { delivery, contacts } = await withInbox(
    request,
    context,
    async (inbox, work, contacts) => {
      const [id = request.id] = await findWaiting([request.id], inbox, work)
      return { delivery: await inbox.open(id, work), contacts }
    },
  )
  output.list(deliveryForPrograms(delivery, contacts))
  output.say(describe(delivery, contacts))
  const { entries } = delivery.manifest
  if (entries.length > 0) output.result(line("KIND", "SIZE", "", "PATH"))
  for (const entry of entries) {
    const path = showText(parseUtf8(entry.path, "path"))
    if (entry.type === "directory") output.result(line("folder", "", "", `${path}/`))
    else output.result(line("file", showSize(entry.size), entry.executable ? "x" : "", path))
  }
}

/** The executable mark stands apart from the path, where no path can pass for it. */
function line(kind: string, size: string, mark: string, path: string): string {
  return `${kind.padEnd(6)}  ${size.padStart(8)}  ${mark.padEnd(1)}  ${path}`
}

function describe(delivery: OpenDelivery, contacts: readonly Contact[]): string {
  const { id, receivedMs, expiresMs, sender, manifest } = delivery
  const files = manifest.entries.filter(({ type }) => type === "file").length
  const folders = manifest.entries.length - files
  const claim = describeSender(sender, contacts)
  const lines = [
    `${id}: ${showCount(files, "file")}, ${showCount(folders, "folder")}, ${showSize(manifest.contentLength)}`,
    `Received: ${showTime(receivedMs)}`,
    `Expires:  ${showTime(expiresMs)}`,
    `Sender:   ${claim ?? sender.kind}`,
  ]
  if (manifest.note !== "") lines.push(`Note: ${showNote(manifest.note)}`)
  return showLines(lines.join("\n"))
}

/**
 * What `inbox --json` says of it, and under `listing` its entries in the sender's order. Times are ISO
 * 8601 in UTC, sizes bytes.
 */
function deliveryForPrograms(delivery: OpenDelivery, contacts: readonly Contact[]): object {
  const { id, receivedMs, expiresMs, sender, manifest } = delivery
  return {
    id,
    received: isoTime(receivedMs),
    expires: isoTime(expiresMs),
    size: manifest.contentLength,
    entries: manifest.entries.length,
    sender: senderForPrograms(sender, contacts),
    note: manifest.note,
    listing: manifest.entries.map((entry) => ({
      path: parseUtf8(entry.path, "path"),
      kind: entry.type === "directory" ? "folder" : "file",
      size: entry.type === "file" ? entry.size : 0,
      executable: entry.type === "file" && entry.executable,
      ...(entry.mtimeMs > 0 && { modified: isoTime(entry.mtimeMs) }),
    })),
  }
}
