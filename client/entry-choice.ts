/** Some entries of a delivery, as their paths name them. */
import { concatBytes, editDistance, sha256, toHex, u32 } from "../protocol/index.js"
import { UnknownEntry } from "./errors.js"

/**
 * The numbers of the entries that `wanted` names: those paths themselves, and for a folder all that lies
 * in it, whether or not it has an entry of its own. Throws UnknownEntry.
 */
export function chooseEntries(
  id: string,
  paths: readonly string[],
  wanted: readonly string[],
): Set<number> {
  const chosen = new Set<number>()
  for (const name of wanted) {
    const below = `${name}/`
    let found = false
    for (const [index, path] of paths.entries()) {
      if (path !== name && !path.startsWith(below)) continue
      chosen.add(index)
      found = true
    }
    if (!found) throw new UnknownEntry(id, name, nearPaths(paths, name))
  }
  return chosen
}

/** A name for exactly this choice out of one delivery. */
export function choiceHash(chosen: ReadonlySet<number>): Uint8Array {
  return sha256(concatBytes(...[...chosen].sort((a, b) => a - b).map(u32)))
}

/** Short enough for a file name; two choices that share it are told apart by the journal. */
export function choiceName(chosen: ReadonlySet<number>): string {
  return toHex(choiceHash(chosen)).slice(0, 8)
}

const mostNear = 5
/** More slips than this in one name, and another name was meant. */
const mostSlips = 2

/** What may have been meant, the likeliest first: the same name elsewhere, then names a slip away. */
export function nearPaths(paths: readonly string[], wanted: string): string[] {
  const name = lastName(wanted)
  const ranked = paths.flatMap((path) => {
    const other = lastName(path)
    if (other === name) return [{ path, rank: 0 }]
    const slips = editDistance(other, name, mostSlips)
    return slips === Infinity ? [] : [{ path, rank: slips + 1 }]
  })
  return ranked
    .sort((a, b) => a.rank - b.rank)
    .slice(0, mostNear)
    .map(({ path }) => path)
}

/** As somebody types it who does not mind capitals. */
function lastName(path: string): string {
  return (path.replace(/\/+$/, "").split("/").at(-1) ?? "").normalize("NFC").toLowerCase()
}
