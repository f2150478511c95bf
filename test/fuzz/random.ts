/**
 * Draws that are the same for the same seed. Every input of the fuzzer is drawn from
 * (seed, target, iteration) alone, so one of them can be made again without those before it.
 */
export class Draws {
  #a: number
  #b: number
  #c: number
  #counter = 1

  constructor(...name: readonly (string | number)[]) {
    // FNV-1a over the name three times from three starts; sfc32 mixes what is left alike.
    const [a, b, c] = [0x811c9dc5, 0x9e3779b9, 0x243f6a88].map((start) => {
      let hash = start
      for (const character of name.join("/")) {
        hash = Math.imul(hash ^ (character.codePointAt(0) ?? 0), 0x01000193)
      }
      return hash | 0
    })
    this.#a = a ?? 0
    this.#b = b ?? 0
    this.#c = c ?? 0
    for (let i = 0; i < 12; i++) this.u32()
  }

  /** sfc32, by Chris Doty-Humphrey. */
  u32(): number {
    const t = (((this.#a + this.#b) | 0) + this.#counter) | 0
    this.#counter = (this.#counter + 1) | 0
    this.#a = this.#b ^ (this.#b >>> 9)
    this.#b = (this.#c + (this.#c << 3)) | 0
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + t
    return t >>> 0
  }

  /** An integer from 0 to `limit` − 1. */
  below(limit: number): number {
    return Math.floor((this.u32() / 2 ** 32) * limit)
  }

  between(least: number, most: number): number {
    return least + this.below(most - least + 1)
  }

  chance(probability: number): boolean {
    return this.u32() / 2 ** 32 < probability
  }

  pick<T>(list: readonly T[]): T {
    // An index below the length is there; the list is never empty.
    return list[this.below(list.length)] as T
  }

  bytes(length: number): Uint8Array {
    const bytes = new Uint8Array(length)
    for (let i = 0; i < length; i++) bytes[i] = this.u32() >>> 24
    return bytes
  }
}
