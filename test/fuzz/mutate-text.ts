/** Hostile text for the parsers of lines, paths and headers. */
import type { Draws } from "./random.js"

// Other cases and digits, what ends or escapes something elsewhere, what turns or hides text, and halves of a pair.
const strange = " \t\n\r\0/\\.:;,@#?%&=+-_[]{}()'\"<>|*~^`!AZaz09bio1l"
  .split("")
  .concat("%2f %00 .. // :// \u00e9 e\u0301 \u0130 \u017f \u212a \uff10 \u0663".split(" "))
  .concat("\u200b \u202e \ufeff \u{1f600} \ud800 \udfff \u0080".split(" "))

const numbers = "0 00 -0 -1 +1 1e3 0x10 1.0 .5 1_000 NaN Infinity 2147483647 2147483648 4294967296"
  .split(" ")
  .concat("9007199254740991 9007199254740992 9007199254740993 18446744073709551616".split(" "))
  .concat("9".repeat(400))

export function mutateText(draws: Draws, own: string, others: readonly string[]): string {
  let text = own
  const count = draws.chance(0.03) ? 0 : draws.chance(0.6) ? 1 : draws.between(2, 4)
  for (let i = 0; i < count; i++) text = mutateOnce(draws, text, others)
  return text
}

function mutateOnce(draws: Draws, text: string, others: readonly string[]): string {
  const at = draws.below(text.length + 1)
  const before = text.slice(0, at)
  const after = text.slice(at)
  switch (draws.below(13)) {
    case 0:
      return before + draws.pick(strange) + after
    case 1:
      return before + draws.pick(strange) + after.slice(1)
    case 2:
      return before + after.slice(1)
    case 3:
      return before + after.slice(1, 2) + after.slice(0, 1) + after.slice(2)
    case 4:
      return before
    case 5:
      return after
    case 6: {
      const other = draws.pick(others)
      return before + other.slice(draws.below(other.length + 1))
    }
    case 7: {
      const runs = [...text.matchAll(/[0-9]+/g)]
      if (runs.length === 0) return before + draws.pick(numbers) + after
      const run = draws.pick(runs)
      return text.slice(0, run.index) + draws.pick(numbers) + text.slice(run.index + run[0].length)
    }
    case 8:
      return before + after.slice(0, 1).toUpperCase() + after.slice(1)
    case 9:
      return before + (draws.pick(others).at(draws.below(40)) ?? "q") + after.slice(1)
    case 10:
      return draws.chance(0.1) ? text.repeat(draws.between(2, 200)).slice(0, 20_000) : text + text
    case 11:
      return draws.pick([` ${text}`, `${text} `, `${text}\n`, text.toUpperCase(), `\ufeff${text}`])
    default: {
      const end = draws.between(at, text.length)
      return text.slice(0, end) + text.slice(at, end) + text.slice(end)
    }
  }
}

export function fromTexts(seeds: readonly string[]): {
  readonly seeds: readonly string[]
  readonly make: (draws: Draws) => string
} {
  return { seeds, make: (draws) => mutateText(draws, draws.pick(seeds), seeds) }
}
