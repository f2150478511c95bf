// What can go wrong in the program itself; the library's and the protocol's errors come on top (failures.ts).

import type { FormatError } from "../../protocol/index.js"

/** What was asked for cannot be done as it was asked. The message says what to write instead. */
export class UsageError extends Error {
  override readonly name = "UsageError"
}

/** The person, or the system, asked us to stop; by which signal, where it was one. */
export class Interrupted extends Error {
  override readonly name = "Interrupted"
  readonly by: NodeJS.Signals | undefined

  constructor(by?: NodeJS.Signals) {
    super("interrupted")
    this.by = by
  }
}

/** A key file that is damaged, that others may read, or that its passphrase does not open. */
export class KeyProblem extends Error {
  override readonly name = "KeyProblem"
}

/** The words of a contact are not those that were read out. */
export class WordsDiffer extends Error {
  override readonly name = "WordsDiffer"
}

/** There is no delivery that could be received. */
export class NothingWaits extends Error {
  override readonly name = "NothingWaits"
}

/** A file of ours would take a name that is in use. Nothing was replaced. */
export class NameTaken extends Error {
  override readonly name = "NameTaken"
}

/** Some of what was asked for was done; the message lists what was not. */
export class PartlyDone extends Error {
  override readonly name = "PartlyDone"
}

/** A relay was examined, and something is wrong with it. */
export class FindingsRemain extends Error {
  override readonly name = "FindingsRemain"
}

/** The relay's folder or its address on the network cannot be used. */
export class CannotStart extends Error {
  override readonly name = "CannotStart"
}

/** The reason alone, for a sentence that names in its own words what is wrong. */
export function withoutField({ field, message }: FormatError): string {
  return message.startsWith(`${field}: `) ? message.slice(field.length + 2) : message
}
