// A relay's data folder is copied while people use it; the machine is lost; the copy is put back.
import { execFile } from "node:child_process"
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import path from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type Started, Workshop } from "../program/processes.js"

const workshop = new Workshop()
let relay: Started
let address: string
let port: string

function inFolder(...names: string[]): string {
  return path.join(workshop.folder, ...names)
}

async function run(home: string, ...args: string[]) {
  return workshop.run(home, args)
}

async function send(name: string): Promise<string> {
  const file = inFolder("letters", name)
  writeFileSync(file, `${name}\n`.repeat(20_000))
  const sent = await run("sender", "send", file, "-r", address, "--note", `about ${name}`)
  expect(sent).toMatchObject({ code: 0 })
  return sent.stdout.trim()
}

/** The inbox as a program reads it, and what its owner is told. */
async function listed() {
  const { code, stdout, stderr } = await run("recipient", "inbox", "--json")
  if (code !== 0) return { code, stderr, rows: [] }
  const rows: unknown = JSON.parse(stdout)
  if (!Array.isArray(rows)) throw new Error(stdout)
  return { code, stderr, rows: rows as { readonly id: string; readonly note: string }[] }
}

async function startOn(folder: string): Promise<void> {
  relay = await workshop.startRelay("relay", ["--data", folder, "--listen", `127.0.0.1:${port}`])
}

async function stop(): Promise<void> {
  relay.child.kill("SIGTERM")
  expect(await relay.ended).toMatchObject({ code: 0 })
}

beforeAll(async () => {
  mkdirSync(inFolder("letters"))
  relay = await workshop.startRelay("relay")
  port = new URL(relay.url).port
  address = (await run("recipient", "init", "--relay", relay.url, "--no-passphrase")).stdout.trim()
}, 60_000)

afterAll(async () => {
  await workshop.close()
})

describe("a backup of a relay at work", () => {
  const original = inFolder("relay", "data")
  const copy = inFolder("restored")
  let before: string[]
  let takenLater: string

  it("is a copy of one folder", async () => {
    before = [await send("first"), await send("second")]
    takenLater = await send("third")
    const load = [send("meanwhile-1"), send("meanwhile-2")]
    // What vanishes while it copies makes cp end with 1.
    await new Promise<void>((resolve) => {
      execFile("cp", ["-a", original, copy], () => resolve())
    })
    await Promise.all(load)
    const after = [await send("after-1"), await send("after-2")]
    const { rows } = await listed()
    expect(rows.map(({ id }) => id)).toEqual(expect.arrayContaining([...before, ...after]))
    expect(await run("recipient", "discard", takenLater)).toMatchObject({ code: 0 })
    await run("recipient", "inbox")
  }, 60_000)

  it("is taken for a history that was rewritten, unless its operator says what it is", async () => {
    await stop()
    await startOn(copy)
    const { code, stderr } = await listed()
    expect(code).toBe(4)
    expect(stderr).toMatch(/rewrote the history of this inbox/)
    await stop()
  }, 60_000)

  it("is refused its declaration where it is not, or where a relay runs", async () => {
    await startOn(copy)
    const running = await run("relay", "relay", "restored", "--data", copy)
    expect(running.code).toBe(1)
    expect(running.stderr).toMatch(/in use by another relay/)
    await stop()
    const nothing = await run("relay", "relay", "restored", "--data", inFolder("nothing"))
    expect(nothing.code).toBe(1)
    expect(nothing.stderr).toMatch(/holds no relay's data: version is missing/)
    expect(existsSync(inFolder("nothing"))).toBe(false)
    for (const made of ["yesterday", "2999-01-01"]) {
      const wrong = await run("relay", "relay", "restored", "--data", copy, "--made", made)
      expect(wrong.code).toBe(2)
    }
    const { code, stdout } = await run("relay", "relay", "restored", "--help")
    expect(code).toBe(0)
    expect(stdout.trimEnd().split("\n").length).toBeLessThanOrEqual(24)
  }, 60_000)

  it("is reported calmly once declared, and everything from before is there and verifies", async () => {
    const made = "2026-01-02T03:04Z"
    const declared = await run("relay", "relay", "restored", "--data", copy, "--made", made)
    expect(declared).toMatchObject({ code: 0 })
    expect(declared.stdout).toMatch(/^restored from a backup made about \S/)
    await startOn(copy)
    const first = await listed()
    expect(first.code).toBe(0)
    expect(first.stderr).toMatch(
      /note: .* was restored from a backup at .*, made about 2026-01-02T03:04Z\. [2-4] deliveries listed here before are missing: ask for them again\. What came in between may be missing/,
    )
    const ids = first.rows.map(({ id }) => id)
    // What was discarded after the backup is back, with its note.
    expect(ids).toEqual(expect.arrayContaining([...before, takenLater]))
    expect(first.rows.find(({ id }) => id === takenLater)?.note).toBe("about third")
    expect((await listed()).stderr).toBe("")
    const status = await run("relay", "relay", "status", "--data", copy)
    expect(status.stdout).toMatch(/^restored .* from a backup of about 2026-01-02 /m)

    const received = await run("recipient", "receive", "--all", "-o", inFolder("got"))
    expect(received).toMatchObject({ code: 0 })
    for (const [at, name] of ["first", "second"].entries()) {
      const got = readFileSync(inFolder("got", before[at] ?? "", name), "utf8")
      expect(got).toBe(readFileSync(inFolder("letters", name), "utf8"))
    }
    const next = await send("next")
    const after = await listed()
    expect(after).toMatchObject({ code: 0, stderr: "" })
    expect(after.rows.map(({ id }) => id)).toEqual([next])
  }, 60_000)

  it("excuses no second roll-back", async () => {
    await stop()
    const again = inFolder("again")
    await new Promise<void>((resolve) => {
      execFile("cp", ["-a", copy, again], () => resolve())
    })
    await startOn(copy)
    await send("unseen")
    expect((await listed()).rows).toHaveLength(2)
    await stop()
    await startOn(again)
    const { code, stderr } = await listed()
    expect(code).toBe(4)
    expect(stderr).toMatch(/rewrote the history of this inbox/)
    expect(readdirSync(inFolder("recipient", "state", "proofs"))).not.toEqual([])
    rmSync(again, { recursive: true, force: true })
  }, 60_000)
})
