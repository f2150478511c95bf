// What tests of the inbox's commands begin with: one relay, people with homes of their own, trees to send.
import { mkdirSync, writeFileSync } from "node:fs"
import path from "node:path"
import { expect } from "vitest"
import type { Ended, Started } from "./processes.js"
import { Workshop } from "./processes.js"

export class OneRelay {
  readonly workshop: Workshop = new Workshop()
  #relay: Started | undefined
  #args: readonly string[] = []
  #trees = 0

  /** A relay of its own for each test file. */
  async start(...args: string[]): Promise<void> {
    this.#args = args
    this.#relay = await this.workshop.startRelay("relay", args)
  }

  get url(): string {
    if (this.#relay === undefined) throw new Error("the relay was not started")
    return this.#relay.url
  }

  /** Where it was before it was stopped. */
  async startAgain(): Promise<void> {
    const listen = ["--listen", new URL(this.url).host]
    this.#relay = await this.workshop.startRelay("relay", [...this.#args, ...listen])
  }

  /** As a service is stopped. */
  async stop(): Promise<void> {
    this.#relay?.child.kill("SIGTERM")
    await this.#relay?.ended
  }

  inFolder(...names: string[]): string {
    return path.join(this.workshop.folder, ...names)
  }

  async newInbox(home: string, through: string = this.url): Promise<string> {
    const init = await this.run(home, "init", "--relay", through, "--no-passphrase")
    return init.stdout.trim()
  }

  /** A folder of its own with these files in it; a null is a folder. */
  aTree(files: Record<string, string | Uint8Array | null>): string {
    const folder = this.inFolder(`tree ${this.#trees++}`)
    mkdirSync(folder)
    for (const [name, content] of Object.entries(files)) {
      const file = path.join(folder, name)
      mkdirSync(content === null ? file : path.dirname(file), { recursive: true })
      if (content !== null) writeFileSync(file, content)
    }
    return folder
  }

  async run(home: string, ...args: string[]): Promise<Ended> {
    const ended = await this.workshop.run(home, args)
    expect(ended, ended.stderr).toMatchObject({ code: 0 })
    return ended
  }

  async events(home: string, ...args: string[]): Promise<Record<string, unknown>[]> {
    return parseEvents((await this.run(home, ...args, "--json")).stdout)
  }

  /** The id of what was sent. */
  async send(home: string, what: string, to: string, ...more: string[]): Promise<string> {
    return (await this.run(home, "send", what, "-r", to, ...more)).stdout.trim()
  }
}

export function parseEvents(stdout: string): Record<string, unknown>[] {
  return stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line))
}
