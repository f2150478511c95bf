/**
 * Counts what is allocated as byte strings, by standing in for the constructor: a parser that believes
 * a length before it has seen the bytes shows here, whatever the garbage collector does.
 */

let allocated = 0
let constructions = 0

const Original = globalThis.Uint8Array

const Counting = new Proxy(Original, {
  construct(target, parameters: unknown[], newTarget) {
    const made: unknown = Reflect.construct(target, parameters, newTarget)
    if (made instanceof Original) {
      constructions += 1
      // A view over a buffer that is there takes nothing.
      if (!(parameters[0] instanceof ArrayBuffer)) allocated += made.length
    }
    // A trap must answer with an object, which a constructed value is.
    return made as object
  },
})

/** Until the answer is called. */
export function countAllocation(): () => void {
  globalThis.Uint8Array = Counting
  return () => {
    globalThis.Uint8Array = Original
  }
}

export interface Allocated {
  readonly bytes: number
  readonly constructions: number
}

/** Since the last call. */
export function takeAllocated(): Allocated {
  const taken = { bytes: allocated, constructions }
  allocated = 0
  constructions = 0
  return taken
}
