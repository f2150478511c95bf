// How far apart two names are, for whoever mistyped one.

/**
 * How many letters to insert, remove, replace or swap with their neighbour make `a` into `b`; Infinity
 * when that is more than `most`. Takes time for `most` letters around each of `a`, not for all of `b`.
 */
export function editDistance(a: string, b: string, most: number): number {
  if (Math.abs(a.length - b.length) > most) return Infinity
  // Rows of the table of distances between all beginnings of the two, as far as they can matter: what is
  // further than `most` from the diagonal is further apart than that. A swap looks two rows back.
  let beforeLast: readonly number[] = []
  let leastOfLast = 0
  let last: readonly number[] = Array.from({ length: Math.min(b.length, most) + 1 }, (_, at) => at)
  for (let i = 1; i <= a.length; i++) {
    const row: number[] = []
    let least = Infinity
    if (i <= most) row[0] = least = i
    for (let j = Math.max(1, i - most); j <= Math.min(b.length, i + most); j++) {
      const replaced = (last[j - 1] ?? Infinity) + (a[i - 1] === b[j - 1] ? 0 : 1)
      const swapped =
        a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
          ? (beforeLast[j - 2] ?? Infinity) + 1
          : Infinity
      const changed = Math.min((last[j] ?? Infinity) + 1, (row[j - 1] ?? Infinity) + 1)
      const distance = Math.min(replaced, swapped, changed)
      row[j] = distance
      least = Math.min(least, distance)
    }
    // All that follows grows from this row or, by a swap, from the one before it.
    if (least > most && leastOfLast >= most) return Infinity
    beforeLast = last
    leastOfLast = least
    last = row
  }
  const distance = last[b.length] ?? Infinity
  return distance <= most ? distance : Infinity
}
