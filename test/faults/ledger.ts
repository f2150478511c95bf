// What a relay was asked and what it promised, and when: the moments are the relay's own, counted in
// changes of its disk and index. A promise binds from the moment at which its answer was given; what
// was asked and not answered may have happened or not.
import type { Identity } from "../../protocol/index.js"
import type { TestDelivery } from "../server/relay-under-test.js"

/** When something was asked, and when it was promised. */
export interface Deed {
  readonly askedAt: number
  doneAt: number | undefined
}

export interface Sending {
  readonly delivery: TestDelivery
  readonly idempotencyKey: string
  readonly deleteCap: Uint8Array
  readonly started: Deed
  id: string
  token: Uint8Array
  /** When the upload ends by itself. */
  expiresMs: number
  finished: Deed | undefined
  /** By recipient, as bytes that the relay must give again. */
  receipts: readonly Uint8Array[]
  givenUp: Deed | undefined
  revoked: Deed | undefined
  /** By recipient's number in the ledger. */
  readonly discarded: Map<number, Deed>
}

/** A head that the relay signed. */
export interface SeenHead {
  readonly at: number
  readonly asOfMs: number
  readonly seq: number
  readonly head: string
  readonly floorSeq: number
}

export interface Owner {
  readonly identity: Identity
  registered: Deed | undefined
  /** Closed and opened again, in turn. */
  readonly closings: { readonly closed: Deed; reopened: Deed | undefined }[]
  readonly sessions: {
    readonly at: number
    readonly authorization: string
    readonly untilMs: number
  }[]
  readonly heads: SeenHead[]
}

export interface Ledger {
  readonly owners: readonly Owner[]
  readonly sendings: Sending[]
  /** Answers that no rule of the relay gives. */
  readonly surprises: string[]
  /** Answers that some rule does. */
  readonly refusals: string[]
}

export function newLedger(identities: readonly Identity[]): Ledger {
  return {
    owners: identities.map((identity) => ({
      identity,
      registered: undefined,
      closings: [],
      sessions: [],
      heads: [],
    })),
    sendings: [],
    surprises: [],
    refusals: [],
  }
}

/** Whether it may have happened by the moment `at`. */
export function wasAsked(deed: Deed | undefined, at: number): boolean {
  return deed !== undefined && deed.askedAt <= at
}

/** Whether it must have happened by the moment `at`. */
export function wasDone(deed: Deed | undefined, at: number): boolean {
  return deed?.doneAt !== undefined && deed.doneAt <= at
}
