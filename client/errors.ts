/**
 * What can go wrong at the client beyond misuse, bad bytes and refusals (protocol/errors.ts). Each
 * message names the cause and what to do about it; the fields carry the same for programs.
 */

/** The relay did not answer, or stopped answering for longer than the client was told to wait. */
export class RelayUnreachable extends Error {
  override readonly name: string = "RelayUnreachable"
  readonly origin: string
  /** Whether the same call may succeed later without anything being changed here. */
  readonly retryable: boolean

  constructor(origin: string, message: string, options: { retryable: boolean; cause?: unknown }) {
    super(message, { cause: options.cause })
    this.origin = origin
    this.retryable = options.retryable
  }
}

/** Something answered at this origin that is not a Knothole relay. */
export class NotARelay extends Error {
  override readonly name: string = "NotARelay"
  readonly origin: string

  constructor(origin: string, message: string) {
    super(message)
    this.origin = origin
  }
}

/** The relay answers, and has no inbox of that address. */
export class UnknownInbox extends Error {
  override readonly name: string = "UnknownInbox"
  readonly address: string
  readonly origin: string

  constructor(address: string, origin: string, message?: string) {
    super(
      message ??
        `there is no inbox ${address} at ${origin}; ask its owner for the current address, host included`,
    )
    this.address = address
    this.origin = origin
  }
}

/** A delivery that was in this inbox and no longer is, or never was. */
export class DeliveryGone extends Error {
  override readonly name: string = "DeliveryGone"
  readonly id: string
  readonly reason: "taken" | "revoked" | "expired" | "lost" | "removed" | "unknown"

  constructor(id: string, reason: DeliveryGone["reason"], message: string) {
    super(message)
    this.id = id
    this.reason = reason
  }
}

/** A path that no entry of a delivery has. `near` are those that may have been meant. */
export class UnknownEntry extends Error {
  override readonly name: string = "UnknownEntry"
  readonly id: string
  readonly path: string
  readonly near: readonly string[]

  constructor(id: string, path: string, near: readonly string[]) {
    const meant = near.length === 0 ? "list its entries" : `perhaps ${near.join(" or ")}`
    super(`delivery ${id} holds no entry ${path}; ${meant}`)
    this.id = id
    this.path = path
    this.near = near
  }
}

/** The relay, or the delivery it handed out, did not verify. `proofFile` keeps what it signed. */
export class Untrustworthy extends Error {
  override readonly name: string = "Untrustworthy"
  readonly proofFile: string | undefined

  constructor(message: string, options: { cause?: unknown; proofFile?: string } = {}) {
    super(message, { cause: options.cause })
    this.proofFile = options.proofFile
  }
}

/** A source did not stay what it was while it was being sent. */
export class SourceChanged extends Error {
  override readonly name: string = "SourceChanged"
  readonly path: string

  constructor(path: string, message?: string) {
    super(message ?? `${path} changed while it was being read; send again once it is left alone`)
    this.path = path
  }
}

/** Sources that cannot be sent as they are; as far as possible found before anything is sent. */
export class SourceUnusable extends Error {
  override readonly name: string = "SourceUnusable"
  readonly problems: readonly { path: string; reason: string }[]

  constructor(
    problems: readonly { path: string; reason: string }[],
    lead: string = "nothing was sent, because of",
  ) {
    const lines = problems.slice(0, 20).map(({ path, reason }) => `${path}: ${reason}`)
    if (problems.length > lines.length) lines.push(`and ${problems.length - lines.length} more`)
    super(`${lead}\n  ${lines.join("\n  ")}`)
    this.problems = problems
  }
}

/** Names that exist where a delivery should be put. Nothing was moved. */
export class DestinationExists extends Error {
  override readonly name: string = "DestinationExists"
  readonly paths: readonly string[]
  /** Other names of the delivery may be in place already, and stay there. */
  readonly isPartlyThere: boolean
  /** Those of `paths` that are of another kind than what should be there: none is ever replaced. */
  readonly unlike: ReadonlyMap<string, Unlike>
  /** The private folder of what was fetched, for another run with this destination. */
  readonly kept: string | undefined

  constructor(paths: readonly string[], facts: InTheWay = {}) {
    const { isPartlyThere = false, unlike = new Map(), kept } = facts
    const shown = paths.slice(0, 10).join(", ")
    const rest = paths.length > 10 ? ` and ${paths.length - 10} more` : ""
    const begun = isPartlyThere ? "the rest may be in place already; " : ""
    const away = isPartlyThere || unlike.size > 0 ? "move it away" : "choose another folder"
    const ask =
      unlike.size > 0
        ? "ask to rename, as only files are overwritten"
        : "ask to overwrite or to rename"
    super(`${shown}${rest} already exists; ${begun}${away}, or ${ask}`)
    this.paths = paths
    this.isPartlyThere = isPartlyThere
    this.unlike = unlike
    this.kept = kept
  }

  /** The same, and what who put it in place did not know. */
  with(facts: Pick<InTheWay, "isPartlyThere" | "kept">): DestinationExists {
    const { isPartlyThere, unlike, kept } = this
    return new DestinationExists(this.paths, { isPartlyThere, unlike, kept, ...facts })
  }
}

/** Of what kind something in the destination is, and what the delivery has of its name. */
export interface Unlike {
  readonly here: "a file" | "a folder" | "a link" | "something else"
  readonly sent: "a file" | "a folder"
}

interface InTheWay {
  readonly isPartlyThere?: boolean
  readonly unlike?: ReadonlyMap<string, Unlike>
  readonly kept?: string | undefined
}

/** The destination, or a folder it should be in, is something else. Nothing was fetched. */
export class DestinationNotFolder extends Error {
  override readonly name: string = "DestinationNotFolder"
  /** What is in the way. */
  readonly path: string

  constructor(path: string) {
    super(`${path} is no folder, and a delivery is put into one; choose another destination`)
    this.path = path
  }
}

/** The system takes no folder there, whoever asks. */
export class CannotMakeFolder extends Error {
  override readonly name: string = "CannotMakeFolder"
  readonly path: string

  constructor(path: string, above: string) {
    super(`cannot make a folder in ${above}: the system takes none there; choose another place`)
    this.path = path
  }
}

/** No room, either on this machine or at the relay. */
export class DiskFull extends Error {
  override readonly name: string = "DiskFull"
  readonly machine: "here" | "relay"
  readonly neededBytes: number | undefined
  readonly freeBytes: number | undefined

  constructor(
    machine: "here" | "relay",
    message: string,
    sizes: { neededBytes?: number; freeBytes?: number; cause?: unknown } = {},
  ) {
    super(message, { cause: sizes.cause })
    this.machine = machine
    this.neededBytes = sizes.neededBytes
    this.freeBytes = sizes.freeBytes
  }
}

/** Another process holds the journal, the destination or the record that this call needs. */
export class Locked extends Error {
  override readonly name: string = "Locked"
  readonly path: string
  readonly pid: number

  constructor(path: string, pid: number, what: string) {
    super(`process ${pid} is already ${what}; wait for it, or stop it and run this again`)
    this.path = path
    this.pid = pid
  }
}

/** The address book cannot be used as it is. It was left alone. */
export class UnusableContacts extends Error {
  override readonly name: string = "UnusableContacts"
  readonly path: string

  constructor(file: string, message: string, options: { cause?: unknown } = {}) {
    super(message, options)
    this.path = file
  }
}
