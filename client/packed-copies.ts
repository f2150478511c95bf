/**
 * Copies of short byte strings in one buffer, for a message to a thread: what is posted takes the whole
 * buffer behind a view along, and a buffer of its own for each key costs both threads twenty times its
 * bytes, in memory that the garbage collector does not see.
 */
export class PackedCopies {
  readonly #bytes: Uint8Array
  #used = 0

  /** Room for so many bytes in all. */
  constructor(length: number) {
    this.#bytes = new Uint8Array(new ArrayBuffer(length))
  }

  copy(bytes: Uint8Array): Uint8Array {
    const end = this.#used + bytes.length
    const copied = this.#bytes.subarray(this.#used, end)
    copied.set(bytes)
    this.#used = end
    return copied
  }
}
