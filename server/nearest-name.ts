// What somebody may have meant by a name that does not exist.
import { editDistance } from "../protocol/index.js"

/** The nearest of `known`, or undefined when none is near: more than a third of it would be wrong. */
export function nearestName(name: string, known: readonly string[]): string | undefined {
  const [best] = known
    .map((one) => ({ one, distance: editDistance(name, one, mostWrong(one)) }))
    .filter(({ distance }) => distance !== Infinity)
    .sort((a, b) => a.distance - b.distance)
  return best?.one
}

function mostWrong(name: string): number {
  return Math.max(2, Math.floor(name.length / 3))
}
