// What an index on a server of its own can say beyond its answers.

/**
 * The index cannot do this now: out of reach, out of memory, failing over. Nothing was changed, or what
 * was to be changed; the same step may be asked for again.
 */
export class IndexUnavailable extends Error {
  override readonly name = "IndexUnavailable"
  /** One word for a log: `OOM`, `no_answer`. */
  readonly reason: string

  constructor(reason: string, options?: ErrorOptions) {
    super(`the index is unavailable: ${reason}`, options)
    this.reason = reason
  }
}

/** No relay can work on this index until somebody has changed what the message says. */
export class IndexRefused extends Error {
  override readonly name = "IndexRefused"
}
