// The deliveries whose command is still to be run, so that a crash between the last byte and the command
// does not lose it. What is noted before a delivery is received goes when its command has ended.
import { readdir, rm } from "node:fs/promises"
import path from "node:path"
import { nameFor, takeLock } from "../state.js"
import type { ClientState, Lock } from "../state.js"
import { makePrivateFolder, placePrivateFile } from "../private-files.js"

export class PendingCommands {
  readonly #folder: string
  readonly #lock: Lock

  constructor(folder: string, lock: Lock) {
    this.#folder = folder
    this.#lock = lock
  }

  /** Throws Locked when another process watches into the same folder. */
  static async open(state: ClientState, into: string): Promise<PendingCommands> {
    const folder = path.join(state.folder, "watch", nameFor(path.resolve(into)))
    await makePrivateFolder(folder)
    const lock = await takeLock(path.join(folder, "lock"), `watching into ${path.resolve(into)}`)
    return new PendingCommands(folder, lock)
  }

  /** Durable when this ends. */
  async note(id: string): Promise<void> {
    await placePrivateFile(path.join(this.#folder, id), new Uint8Array(0))
  }

  /** A power cut may bring it back: a command runs once more rather than not at all. */
  async drop(id: string): Promise<void> {
    await rm(path.join(this.#folder, id), { force: true })
  }

  async all(): Promise<string[]> {
    return (await readdir(this.#folder)).filter((name) => /^[0-9a-f]{32}$/.test(name))
  }

  async close(): Promise<void> {
    await this.#lock.release()
  }
}
