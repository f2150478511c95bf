/** Three clocks: this machine's, the relay's, and that of whatever wrote the Date header. */

/** A challenge is good for three minutes; closer than this nothing goes wrong. */
const bearableMs = 120_000

/** What to say of clocks that are apart; undefined when they are not. Both are minus this machine's clock. */
export function judgeClocks(aheadMs: {
  readonly relay: number
  readonly date: number | undefined
}): string | undefined {
  const { relay, date } = aheadMs
  if (!isOff(relay)) {
    return date === undefined || !isOff(date)
      ? undefined
      : `the clock of what stands before the relay is ${describe(date)}; the relay's agrees with this machine's`
  }
  if (date !== undefined && !isOff(date)) {
    return `the relay's clock is ${describe(relay)}; that of what stands before it agrees with this machine's`
  }
  const both = date !== undefined && isOff(date - relay) ? ", as is what stands before it" : ""
  return `the relay's clock is ${describe(relay)} by this machine's${both}; which of them is off cannot be told from here`
}

function isOff(aheadMs: number): boolean {
  return Math.abs(aheadMs) > bearableMs
}

function describe(aheadMs: number): string {
  const minutes = Math.round(Math.abs(aheadMs) / 60_000)
  return `${minutes} minutes ${aheadMs > 0 ? "ahead" : "behind"}`
}
