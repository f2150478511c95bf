// What went wrong, as an exit code and in words. This table is the only place that decides either.
import {
  CannotMakeFolder,
  DeliveryGone,
  DestinationExists,
  DestinationNotFolder,
  DiskFull,
  Locked,
  NotARelay,
  ProxyNotUsable,
  RelayUnreachable,
  SourceChanged,
  SourceUnusable,
  UnknownEntry,
  UnknownInbox,
  Untrustworthy,
  UnusableContacts,
} from "../index.js"
import { badName } from "../scan.js"
import { FormatError, OpenError, RelayRefusal } from "../../protocol/index.js"
import type { RefusalCode } from "../../protocol/index.js"
import { showDuration, showText } from "./display.js"
import {
  CannotStart,
  FindingsRemain,
  Interrupted,
  KeyProblem,
  NameTaken,
  NothingWaits,
  PartlyDone,
  UsageError,
  WordsDiffer,
} from "./errors.js"
import { exitCodes } from "./exit-codes.js"
import type { ExitCode } from "./exit-codes.js"

export interface Failure {
  readonly exit: ExitCode
  /** Stable, for programs. */
  readonly code: string
  readonly message: string
  /** What to do about it, where the message does not say so itself. */
  readonly remedy?: string
}

/** Never throws: whatever was thrown, the person gets a sentence and the shell a code. */
export function explainFailure(error: unknown): Failure {
  for (const { explain } of errorKinds) {
    const failure = explain(error)
    if (failure !== undefined) return failure
  }
  return explainSystemError(error) ?? explainUnexpected(error)
}

interface ErrorKind {
  readonly type: abstract new (...args: never[]) => Error
  readonly explain: (error: unknown) => Failure | undefined
}

function kind<E extends Error>(
  type: abstract new (...args: never[]) => E,
  explain: (error: E) => Failure,
): ErrorKind {
  return { type, explain: (error) => (error instanceof type ? explain(error) : undefined) }
}

export const errorKinds: readonly ErrorKind[] = [
  kind(UsageError, ({ message }) => ({
    exit: exitCodes.usage,
    code: "usage",
    message,
  })),
  kind(Interrupted, ({ message }) => ({
    exit: exitCodes.interrupted,
    code: "interrupted",
    message,
  })),
  kind(KeyProblem, ({ message }) => ({
    exit: exitCodes.refused,
    code: "key_problem",
    message,
  })),
  kind(WordsDiffer, ({ message }) => ({
    exit: exitCodes.refused,
    code: "words_differ",
    message,
  })),
  kind(NothingWaits, ({ message }) => ({
    exit: exitCodes.notThere,
    code: "nothing_waits",
    message,
  })),
  kind(NameTaken, ({ message }) => ({
    exit: exitCodes.failed,
    code: "name_taken",
    message,
  })),
  kind(PartlyDone, ({ message }) => ({
    exit: exitCodes.failed,
    code: "partly_done",
    message,
  })),
  kind(ProxyNotUsable, ({ message }) => ({
    exit: exitCodes.usage,
    code: "usage",
    message,
  })),
  kind(FindingsRemain, ({ message }) => ({
    exit: exitCodes.failed,
    code: "findings",
    message,
  })),
  kind(CannotStart, ({ message }) => ({
    exit: exitCodes.failed,
    code: "cannot_start",
    message,
  })),
  kind(RelayUnreachable, ({ message }) => ({
    exit: exitCodes.unreachable,
    code: "relay_unreachable",
    message,
  })),
  kind(NotARelay, ({ message }) => ({
    exit: exitCodes.unreachable,
    code: "not_a_relay",
    message,
  })),
  kind(UnknownInbox, ({ message }) => ({
    exit: exitCodes.notThere,
    code: "unknown_inbox",
    message,
  })),
  kind(DeliveryGone, ({ message }) => ({
    exit: exitCodes.notThere,
    code: "delivery_gone",
    message,
  })),
  kind(UnknownEntry, ({ id, path, near }) => ({
    exit: exitCodes.notThere,
    code: "unknown_entry",
    message:
      near.length === 0
        ? `delivery ${id} holds no entry '${showText(path)}'`
        : listing(
            `delivery ${id} holds no entry '${showText(path)}'; near it:`,
            near.map(showText),
          ),
    remedy: `'knothole show ${id}' lists all of them.`,
  })),
  kind(Untrustworthy, ({ message, proofFile }) => ({
    exit: exitCodes.refused,
    code: "untrustworthy",
    message,
    ...(proofFile !== undefined && { remedy: `What the relay signed is kept in ${proofFile}.` }),
  })),
  kind(UnusableContacts, ({ message }) => ({
    exit: exitCodes.failed,
    code: "unusable_contacts",
    message,
  })),
  kind(SourceChanged, ({ message }) => ({
    exit: exitCodes.failed,
    code: "source_changed",
    message: showText(message),
  })),
  kind(SourceUnusable, ({ problems }) => ({
    exit: exitCodes.failed,
    code: "source_unusable",
    message: listing(
      "nothing was sent, because of",
      problems.map(({ path, reason }) => `${showText(path)}: ${reason}`),
      mostSourcesListed,
    ),
    ...(problems.some(({ reason }) => reason === badName) && {
      remedy: "Rename what is not UTF-8, or say --skip-bad-names to leave it out.",
    }),
  })),
  kind(DestinationExists, (error) => ({
    exit: exitCodes.failed,
    code: "destination_exists",
    message: explainInTheWay(error),
    remedy: remedyInTheWay(error),
  })),
  kind(DestinationNotFolder, ({ path }) => ({
    exit: exitCodes.failed,
    code: "destination_not_folder",
    message: `${showText(path)} is no folder, and -o names the folder that a delivery is put into`,
    remedy: "Name another one with -o DIR; it is made if it is not there.",
  })),
  kind(CannotMakeFolder, ({ message }) => ({
    exit: exitCodes.failed,
    code: "cannot_make_folder",
    message,
  })),
  kind(DiskFull, ({ message, machine }) => ({
    exit: exitCodes.full,
    code: machine === "here" ? "disk_full" : "relay_disk_full",
    message,
  })),
  kind(Locked, ({ message }) => ({
    exit: exitCodes.failed,
    code: "locked",
    message,
  })),
  kind(RelayRefusal, (refusal) => {
    const { exit, remedy } = refusals[refusal.code]
    return {
      exit,
      code: refusal.code,
      message: `the relay refused: ${refusal.message}${refusalFacts(refusal)}`,
      remedy,
    }
  }),
  kind(OpenError, () => ({
    exit: exitCodes.refused,
    code: "cannot_open",
    message: "something sealed did not open with this key: it was made for another, or was changed",
  })),
  kind(FormatError, ({ message }) => ({
    exit: exitCodes.refused,
    code: "bad_format",
    message: `something does not have the form it should have: ${message}`,
    remedy: "It is damaged, or was made by another version.",
  })),
]

function explainInTheWay({ paths, isPartlyThere, unlike, kept }: DestinationExists): string {
  const named = paths.map((file) => {
    const kinds = unlike.get(file)
    const text = showText(file)
    return kinds === undefined ? text : `${text}: ${kinds.here} here, ${kinds.sent} in the delivery`
  })
  const left = isPartlyThere ? "not everything could be" : "nothing was"
  const list = listing(`${left} put in place, because these exist already:`, named)
  if (kept === undefined) return list
  return `${list}\nWhat was fetched is kept in ${showText(kept)}, for this -o only. Remove it if you receive the delivery elsewhere.`
}

function remedyInTheWay({ isPartlyThere, unlike }: DestinationExists): string {
  const all = "say --rename (keep both)"
  const ways =
    unlike.size > 0
      ? `${all}; --overwrite replaces files only, and only by files.`
      : `${all} or --overwrite (replace them).`
  if (isPartlyThere) {
    return `What is in place stays, and what is not is kept. To put the rest in place, move these away and run the same again, or ${ways}`
  }
  return unlike.size > 0
    ? `Move these away, or choose another folder with -o DIR, or ${ways}`
    : `Choose another folder with -o DIR, or ${ways}`
}

interface RefusalMeaning {
  readonly exit: ExitCode
  readonly remedy: string
}

const versionsDiffer =
  "This program and the relay, or something between them, do not understand each other: compare their versions."
const tryLater = "Try again in a while."
const runAgain = "Run the same command again: what has arrived is kept."
const startAfresh = "Send again with --fresh to start over."

export const refusals: Readonly<Record<RefusalCode, RefusalMeaning>> = {
  bad_request: { exit: exitCodes.failed, remedy: versionsDiffer },
  bad_length: { exit: exitCodes.failed, remedy: versionsDiffer },
  length_required: { exit: exitCodes.failed, remedy: versionsDiffer },
  method_not_allowed: { exit: exitCodes.failed, remedy: versionsDiffer },
  unsupported_media_type: { exit: exitCodes.failed, remedy: versionsDiffer },
  range_not_satisfiable: { exit: exitCodes.failed, remedy: versionsDiffer },
  idempotency_mismatch: { exit: exitCodes.failed, remedy: startAfresh },
  upload_finished: { exit: exitCodes.failed, remedy: startAfresh },
  wrong_origin: {
    exit: exitCodes.refused,
    remedy:
      "Use one of the names the relay goes by, or have its operator add this one with --public-url.",
  },
  unauthorized: {
    exit: exitCodes.refused,
    remedy:
      "Check that this identity has its inbox at this relay, and that this machine's clock is right.",
  },
  registration_closed: {
    exit: exitCodes.refused,
    remedy:
      "Ask its operator to open registration, or run a relay of your own with 'knothole relay'.",
  },
  part_differs: { exit: exitCodes.refused, remedy: startAfresh },
  root_mismatch: { exit: exitCodes.refused, remedy: startAfresh },
  not_found: {
    exit: exitCodes.notThere,
    remedy: "It was taken, revoked or has expired, or the id is another one's.",
  },
  no_such_inbox: {
    exit: exitCodes.notThere,
    remedy: "Ask its owner for the current address, host included.",
  },
  upload_expired: { exit: exitCodes.notThere, remedy: startAfresh },
  expired: { exit: exitCodes.notThere, remedy: "Ask the sender to send it again." },
  challenge_expired: { exit: exitCodes.unreachable, remedy: tryLater },
  too_slow: { exit: exitCodes.unreachable, remedy: runAgain },
  parts_missing: { exit: exitCodes.unreachable, remedy: runAgain },
  busy: { exit: exitCodes.unreachable, remedy: runAgain },
  too_many_requests: { exit: exitCodes.unreachable, remedy: tryLater },
  internal: {
    exit: exitCodes.unreachable,
    remedy: "The relay's log says more. Try again in a while.",
  },
  rebuilding: { exit: exitCodes.unreachable, remedy: tryLater },
  index_unavailable: { exit: exitCodes.unreachable, remedy: tryLater },
  disk_unavailable: { exit: exitCodes.unreachable, remedy: tryLater },
  too_large: {
    exit: exitCodes.full,
    remedy: "Send less at once, or ask the relay's operator for a higher limit.",
  },
  relay_full: {
    exit: exitCodes.full,
    remedy: "Tell the relay's operator, and run the same command again once there is room.",
  },
  inbox_full: {
    exit: exitCodes.full,
    remedy: "Its owner has to pick up or discard deliveries first.",
  },
}

function refusalFacts({ extras, retryAfterSeconds }: RelayRefusal): string {
  const facts = [
    ...(extras.limit === undefined ? [] : [`the limit is ${extras.limit.toLocaleString("en-US")}`]),
    ...(extras.origins === undefined ? [] : [`it goes by ${extras.origins.join(", ")}`]),
    ...(extras.address === undefined ? [] : [extras.address]),
    ...(retryAfterSeconds === undefined
      ? []
      : [`it asks to wait ${showDuration(retryAfterSeconds * 1000)}`]),
  ]
  return facts.length === 0 ? "" : ` (${facts.join("; ")})`
}

interface SystemMeaning {
  readonly exit: ExitCode
  readonly text: string
}

// What the system says in a word, where the word is not enough for a person.
const systemErrors: Readonly<Record<string, SystemMeaning>> = {
  ENOSPC: {
    exit: exitCodes.full,
    text: "no space is left on the disk; make room and run this again",
  },
  EDQUOT: {
    exit: exitCodes.full,
    text: "your disk quota is used up; make room and run this again",
  },
  ENOENT: { exit: exitCodes.failed, text: "there is no such file or folder" },
  EACCES: { exit: exitCodes.failed, text: "you may not read or write it; check its permissions" },
  EPERM: {
    exit: exitCodes.failed,
    text: "the system does not allow it; check owner and permissions",
  },
  EROFS: { exit: exitCodes.failed, text: "it is on a read-only file system" },
  EISDIR: { exit: exitCodes.failed, text: "it is a folder where a file is needed" },
  ENOTDIR: { exit: exitCodes.failed, text: "a part of its path is no folder" },
  ELOOP: { exit: exitCodes.failed, text: "it is a symbolic link, or one that leads in a circle" },
  ENAMETOOLONG: { exit: exitCodes.failed, text: "its name is too long" },
  EMFILE: { exit: exitCodes.failed, text: "too many files are open; raise the limit (ulimit -n)" },
  EIO: { exit: exitCodes.failed, text: "the disk failed to read or write it; check the disk" },
}

const noWorkingFolder: SystemMeaning = {
  exit: exitCodes.failed,
  text: "the folder you are in no longer exists; go to another one and run this again",
}

function explainSystemError(error: unknown): Failure | undefined {
  if (!(error instanceof Error) || !("code" in error) || typeof error.code !== "string") {
    return undefined
  }
  // Of the folder that a relative path begins at, where no path says so.
  const isWorkingFolder = "syscall" in error && error.syscall === "uv_cwd"
  const meaning =
    isWorkingFolder && error.code === "ENOENT" ? noWorkingFolder : systemErrors[error.code]
  if (meaning === undefined) return undefined
  const place = "path" in error && typeof error.path === "string" ? error.path : undefined
  return {
    exit: meaning.exit,
    code: error.code.toLowerCase(),
    message: place === undefined ? meaning.text : `${showText(place)}: ${meaning.text}`,
  }
}

function explainUnexpected(error: unknown): Failure {
  const message = error instanceof Error ? (error.stack ?? error.message) : String(error)
  return {
    exit: exitCodes.failed,
    code: "failure",
    message,
    remedy: "This should not happen. Nothing was lost; please report the lines above.",
  }
}

const mostListed = 20

/** What has to be put right before a tree can be sent is all named at once, as long as that can be read. */
const mostSourcesListed = 1000

function listing(head: string, lines: readonly string[], most: number = mostListed): string {
  const shown = lines.slice(0, most).map((line) => `  ${line}`)
  const rest = lines.length - shown.length
  return [head, ...shown, ...(rest > 0 ? [`  and ${rest} more`] : [])].join("\n")
}
