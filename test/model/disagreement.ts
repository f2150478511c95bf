// Where the relay and the model part: the assertions of this suite, which also runs outside of vitest.

/** The relay says one thing and the model another. */
export class Disagreement extends Error {
  override readonly name = "Disagreement"
}

export function same(said: unknown, wanted: unknown, what: string): void {
  const [a, b] = [show(said), show(wanted)]
  if (a !== b) throw new Disagreement(`${what}: ${a}, and not ${b}`)
}

export function among<T>(said: T, allowed: readonly T[], what: string): void {
  if (!allowed.includes(said)) {
    throw new Disagreement(`${what}: ${show(said)}, and not one of ${show(allowed)}`)
  }
}

export function between(said: number, least: number, most: number, what: string): void {
  if (said < least || said > most) {
    throw new Disagreement(`${what}: ${said}, and not from ${least} to ${most}`)
  }
}

export function sameBytes(said: Uint8Array, wanted: Uint8Array, what: string): void {
  if (Buffer.compare(said, wanted) === 0) return
  throw new Disagreement(
    `${what}: ${said.length} bytes, and not the ${wanted.length} that were sent`,
  )
}

function show(value: unknown): string {
  return JSON.stringify(value) ?? "nothing"
}
