// What can go wrong with bytes. A programmer's misuse is TypeError or RangeError; a relay's expected
// no is RelayRefusal (refusals.ts).

/** Bytes or text that are not an encoding of anything. `field` names the place, never the content. */
export class FormatError extends Error {
  override readonly name = "FormatError"
  readonly field: string

  constructor(field: string, reason: string, options?: ErrorOptions) {
    super(`${field}: ${reason}`, options)
    this.field = field
  }
}

/**
 * Something sealed does not open. One class, one message and no cause: which check failed would tell
 * an attacker who can submit ciphertexts more than the failure itself.
 */
export class OpenError extends Error {
  override readonly name = "OpenError"

  constructor() {
    super("cannot open")
  }
}
