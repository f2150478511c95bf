import { existsSync } from "node:fs"
import { concatBytes, hostOf, parseReceipt } from "../../protocol/index.js"
import { checkFolderOf, placePrivateFile } from "../private-files.js"
import { openState, send } from "../index.js"
import type { SendOptions, SentDelivery, Source } from "../index.js"
import { isoTime } from "../iso-time.js"
import type { SendRequest } from "./command-line.js"
import { showCount, showDuration, showSize, showTime } from "./display.js"
import { NameTaken, UsageError } from "./errors.js"
import { checkIdentity, loadKeyFile, unlock } from "./identities.js"
import { parseRelay, readRecipients } from "./recipients.js"
import { whenMoved } from "./context.js"
import type { Context } from "./context.js"
import { readConfig } from "./settings.js"

export async function sendFiles(request: SendRequest, context: Context): Promise<void> {
  const { paths, output } = context
  const fromStdin = request.paths.filter((word) => word === "-").length
  if (fromStdin + request.recipientFiles.filter((word) => word === "-").length > 1) {
    throw new UsageError("stdin can be read only once: write - in one place")
  }
  const config = readConfig(paths)
  const written = request.relay ?? config.relay
  const relay = written === undefined ? undefined : parseRelay(written)
  const { contactsFile } = paths
  const recipients = await readRecipients({
    ...request,
    relay,
    contactsFile,
    stdin: context.stdin,
  })
  const { receiptFile } = request
  if (receiptFile !== undefined) checkPlaceFor(receiptFile)
  const sender = await chooseSender(request, context)

  const again = `To go on where it stopped, run the same again:\n  ${context.sameAgain}`
  context.canResume(
    fromStdin > 0
      ? "What came from stdin cannot be resumed: send it again from its beginning."
      : again,
  )
  const hasArrived = () => {
    if (fromStdin === 0) context.canResume(`What has arrived is kept for a day. ${again}`)
  }
  const notAfterMs = request.expiresMs === undefined ? undefined : Date.now() + request.expiresMs
  const { deliveries } = await context.work((work) =>
    send({
      recipients,
      ...(relay !== undefined && { relay }),
      sources: request.paths.map((word): Source =>
        word === "-"
          ? { kind: "stream", name: request.name, stream: context.stdin }
          : { kind: "path", path: word },
      ),
      ...(request.note !== undefined && { note: request.note }),
      ...(notAfterMs !== undefined && { notAfterMs }),
      ...(sender !== undefined && { sender }),
      state: openState(paths.stateFolder),
      fresh: request.fresh,
      times: request.times,
      skipBadNames: request.skipBadNames,
      ...whenMoved(work, hasArrived),
    }),
  )
  for (const delivery of deliveries) {
    report(delivery, context)
    if (notAfterMs !== undefined) noteOtherEnd(delivery, notAfterMs, context)
  }
  if (receiptFile !== undefined) {
    const receipts = deliveries.flatMap((delivery) => delivery.receipts.map((one) => one.receipt))
    if (!(await placePrivateFile(receiptFile, concatBytes(...receipts)))) {
      throw receiptTaken(receiptFile)
    }
    output.say(`${showCount(receipts.length, "receipt")} kept in ${receiptFile}`)
  }
}

async function chooseSender(
  request: SendRequest,
  context: Context,
): Promise<SendOptions["sender"]> {
  const { paths } = context
  if (request.mode === "anonymous") {
    if (request.identity !== undefined) checkIdentity(paths, request.identity)
    return undefined
  }
  const key = loadKeyFile({ paths, config: readConfig(paths), name: request.identity })
  const identity = await unlock(key, request.passphraseFile)
  return {
    identity,
    mode: request.mode,
    ...(key.relay !== undefined && { replyHost: hostOf(key.relay) }),
  }
}

function report(delivery: SentDelivery, context: Context): void {
  const { output } = context
  const {
    id,
    origin,
    addresses,
    expiresMs,
    entries,
    contentBytes,
    sentBytes,
    resumed,
    skipped,
    addedLater,
  } = delivery
  output.result(id)
  output.say(
    [
      `Sent ${showCount(entries, "entry", "entries")}, ${showSize(contentBytes)}, to ${origin}${resumed ? ` (resumed; ${showSize(sentBytes)} went now)` : ""}.`,
      `It waits there until ${showTime(expiresMs)}. 'knothole status ${id}' says whether it was picked up.`,
    ].join("\n"),
  )
  output.event("sent", {
    id,
    origin,
    recipients: addresses,
    expires: isoTime(expiresMs),
    entries,
    bytes: contentBytes,
    sent_bytes: sentBytes,
    resumed,
    skipped,
    added_later: addedLater,
  })
}

// A relay that keeps to what was asked does so to the millisecond; a sending that is resumed may have
// been asked for a moment earlier.
const noteworthyMs = 60_000

function noteOtherEnd(
  { expiresMs, receipts, resumed }: SentDelivery,
  askedMs: number,
  { output }: Context,
): void {
  const [first] = receipts
  if (first === undefined || Math.abs(expiresMs - askedMs) < noteworthyMs) return
  const kept = showDuration(expiresMs - parseReceipt(first.receipt).acceptedMs)
  const limit = expiresMs < askedMs ? "at most" : "at least"
  output.note(
    resumed
      ? `it expires ${showTime(expiresMs)}, not ${showTime(askedMs)} as asked`
      : `the relay keeps it ${kept} ${limit}; it expires ${showTime(expiresMs)}`,
  )
}

/** Before anything is sent: afterwards a receipt that cannot be kept would be lost. */
function checkPlaceFor(receiptFile: string): void {
  if (existsSync(receiptFile)) throw receiptTaken(receiptFile)
  checkFolderOf(receiptFile)
}

function receiptTaken(file: string): NameTaken {
  return new NameTaken(`${file} exists already: name another file with --receipt, or move that one`)
}
