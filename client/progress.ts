/** What a call reports while it works, and what every call that may wait can be handed. */
import type { Proxies } from "./proxies.js"

export type Phase =
  | "asking the relay"
  | "fetching keys"
  | "scanning"
  | "sealing and sending"
  | "finishing"
  | "waiting for the relay"
  | "listing"
  | "opening"
  | "fetching"
  | "syncing"
  | "putting in place"
  | "examining what stands before the relay"
  | "being silent for as long as a long poll"

export type ProgressEvent =
  | { kind: "phase"; phase: Phase }
  /** `alreadyThere` bytes were at the other side before this run: leave them out of rates. */
  | { kind: "bytes"; done: number; total: number | undefined; alreadyThere: number }
  /** How many of something countable (files scanned, rows opened). */
  | { kind: "count"; done: number; total: number | undefined }
  | { kind: "notice"; text: string }
  | { kind: "retry"; reason: string; delayMs: number; attempt: number }

export type OnProgress = (event: ProgressEvent) => void

export interface CallOptions {
  signal?: AbortSignal | undefined
  onProgress?: OnProgress | undefined
  /** Without any, connections are made directly, whatever the environment says. */
  proxies?: Proxies | undefined
}

export function say(call: CallOptions, event: ProgressEvent): void {
  call.onProgress?.(event)
}

export function notice(call: CallOptions, text: string): void {
  call.onProgress?.({ kind: "notice", text })
}

/** A signal's reason can be anything, and so can what is thrown; what is passed on is an Error. */
export function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error("stopped", { cause: reason })
}
