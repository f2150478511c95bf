/** What is fuzzed: a parser, where its inputs come from, and what may come out of it. */
import type { Draws } from "./random.js"

/** Text is kept as text: some of what is hostile in it has no UTF-8 form. */
export type Input = Uint8Array | string

export type Verdict = "accepted" | "refused"

export interface Target {
  readonly name: string
  /** Valid inputs, made by the project's own encoders or taken from the vectors: all are accepted. */
  readonly seeds: readonly Input[]
  /** A hostile input, or now and then a valid one. */
  readonly make: (draws: Draws) => Input
  /**
   * Parses, and checks what came out. Throws for whatever is not documented: another class of error,
   * an accepted value that encodes to other bytes.
   */
  readonly run: (input: Input) => Verdict | Promise<Verdict>
  /** Bytes that may be allocated for each byte of input; `defaultAllocation` when left out. */
  readonly allocation?: Allocation
  /** One input takes a tenth of a second or more: where inputs are counted, this gets few. */
  readonly slow?: true
}

export interface Allocation {
  readonly perByte: number
  readonly fixed: number
}

/**
 * Copies of the input, hashes over its pieces and their scratch space. A length that claims gigabytes
 * and is believed stands far above this.
 */
export const defaultAllocation: Allocation = { perByte: 64, fixed: 256 * 1024 }

/** What a fuzzer found: something accepted or thrown that must not be. */
export class Broken extends Error {
  override readonly name = "Broken"
}

// A FormatError travels in a problem document, so it never carries much of the input.
const mostMessageCharacters = 600

type ErrorClass = new (...parameters: never[]) => Error

/**
 * Runs `parse`: one of the `documented` errors is a refusal, another one is thrown on. What was
 * accepted goes to `check`, outside the reach of that distinction.
 */
export function judge<V>(
  documented: readonly ErrorClass[],
  parse: () => V,
  check: (value: V) => void,
): Verdict {
  let value: V
  try {
    value = parse()
  } catch (error) {
    refusalOrThrow(documented, error)
    return "refused"
  }
  check(value)
  return "accepted"
}

export async function judgeLater<V>(
  documented: readonly ErrorClass[],
  parse: () => Promise<V>,
  check: (value: V) => void,
): Promise<Verdict> {
  let value: V
  try {
    value = await parse()
  } catch (error) {
    refusalOrThrow(documented, error)
    return "refused"
  }
  check(value)
  return "accepted"
}

function refusalOrThrow(documented: readonly ErrorClass[], error: unknown): void {
  const known = documented.find((kind) => error instanceof kind)
  if (known === undefined || !(error instanceof Error)) throw error
  if (error.name === "FormatError" && error.message.length > mostMessageCharacters) {
    throw new Broken(
      `a message of ${error.message.length} characters: ${error.message.slice(0, 80)}`,
    )
  }
}

export function mustBeBytes(input: Input): Uint8Array {
  if (typeof input === "string") throw new TypeError("this target takes bytes")
  return input
}

export function mustBeText(input: Input): string {
  if (typeof input !== "string") throw new TypeError("this target takes text")
  return input
}

export function mustEqual(what: string, found: Uint8Array, wanted: Uint8Array): void {
  if (Buffer.compare(found, wanted) === 0) return
  const at = found.findIndex((byte, index) => byte !== wanted[index])
  throw new Broken(
    `${what}: ${found.length} bytes that differ at ${at < 0 ? found.length : at} from the ${wanted.length} accepted`,
  )
}

export function mustHold(what: string, holds: boolean): void {
  if (!holds) throw new Broken(what)
}

/** An input as it is written down; `parseInput` reads it again. */
export function encodeInput(input: Input): string {
  if (typeof input !== "string") return `bytes:${Buffer.from(input).toString("hex")}`
  // JSON escapes what UTF-8 cannot hold.
  return `text:${Buffer.from(JSON.stringify(input)).toString("hex")}`
}

export function parseInput(line: string): Input {
  const [kind, hex = ""] = line.trim().split(":")
  const bytes = Buffer.from(hex, "hex")
  if (kind === "bytes") return new Uint8Array(bytes)
  const text: unknown = JSON.parse(bytes.toString())
  if (kind !== "text" || typeof text !== "string") throw new TypeError("not an input written down")
  return text
}
