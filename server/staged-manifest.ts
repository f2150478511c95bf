// A manifest on its way to the disk: large writes, and its hash on the way.
import { createHash, type Hash } from "node:crypto"
import { KIB } from "../protocol/index.js"
import type { ManifestFile } from "./stores/blob-store.js"

const manifestWriteBytes = 256 * KIB

/** Collects a manifest into large writes and hashes it on the way. */
export class StagedManifest {
  readonly #file: ManifestFile
  readonly #hash: Hash = createHash("sha256")
  readonly #buffer = new Uint8Array(manifestWriteBytes)
  #filled = 0

  constructor(file: ManifestFile) {
    this.#file = file
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#hash.update(bytes)
    let at = 0
    while (at < bytes.length) {
      const piece = bytes.subarray(at, at + this.#buffer.length - this.#filled)
      this.#buffer.set(piece, this.#filled)
      this.#filled += piece.length
      at += piece.length
      if (this.#filled === this.#buffer.length) await this.#flush()
    }
  }

  /** Once, after the last write. */
  digest(): Uint8Array {
    return new Uint8Array(this.#hash.digest())
  }

  async finish(): Promise<void> {
    await this.#flush()
    await this.#file.finish()
  }

  place(): Promise<void> {
    return this.#file.place()
  }

  discard(): Promise<void> {
    return this.#file.discard()
  }

  async #flush(): Promise<void> {
    if (this.#filled > 0) await this.#file.write(this.#buffer.subarray(0, this.#filled))
    this.#filled = 0
  }
}
