import { once } from "node:events"
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import path from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { openState, send as sendAs } from "../../client/index.js"
import { createIdentity } from "../../protocol/index.js"
import { OneRelay, parseEvents } from "./one-relay.js"
import type { Running } from "./processes.js"

const one = new OneRelay()

beforeAll(async () => {
  await one.start()
}, 60_000)

afterAll(() => one.workshop.close())

let people = 0
/** Somebody with an inbox of their own, and a folder to watch into. */
async function somebody() {
  const home = `watcher ${people++}`
  const address = await one.newInbox(home)
  const into = one.inFolder(`drops of ${home}`)
  const watch = (...args: string[]): Running =>
    one.workshop.start(home, ["watch", "-o", into, ...args])
  const send = (files: Record<string, string | Uint8Array>, ...more: string[]) =>
    one.send("stranger", one.aTree(files), address, ...more)
  return { home, address, into, watch, send }
}

async function end(watching: Running, signal: NodeJS.Signals) {
  watching.child.kill(signal)
  return watching.ended
}

const started = (watching: Running) => watching.stderr.waitFor(/Waiting for deliveries/)

describe("watch", () => {
  it("receives what waits and what comes, each into a folder of its id, until SIGTERM", async () => {
    const { home, into, watch, send } = await somebody()
    const before = await send({ a: "before" })
    const watching = watch()
    await watching.stdout.waitFor(new RegExp(before))
    const after = await send({ a: "after" })
    await watching.stdout.waitFor(new RegExp(after))
    await one.workshop.run("stranger", ["status", after])
    expect(readdirSync(into).sort()).toEqual([before, after].sort())
    for (const [id, text] of [
      [before, "before"],
      [after, "after"],
    ] as const) {
      const [tree = ""] = readdirSync(path.join(into, id))
      expect(readFileSync(path.join(into, id, tree, "a"), "utf8")).toBe(text)
    }
    const ended = await end(watching, "SIGTERM")
    expect(ended).toMatchObject({ code: 0 })
    expect(ended.stdout.trimEnd().split("\n")).toHaveLength(2)
    expect((await one.run(home, "inbox")).stdout).toBe("")
  })

  it("ends with 130 at Ctrl-C, and tells programs what it did, last how it ended", async () => {
    const { into, watch, send } = await somebody()
    const watching = watch("--json")
    await watching.stdout.waitFor(/"watching"/)
    const id = await send({ a: "1" }, "--note", "hello")
    await watching.stdout.waitFor(/"received"/)
    const { code, stdout } = await end(watching, "SIGINT")
    expect(code).toBe(130)
    const events = parseEvents(stdout)
    expect(events.every((event) => event["v"] === 1)).toBe(true)
    expect(events.find(({ event }) => event === "watching")).toMatchObject({ folder: into })
    expect(events.find(({ event }) => event === "received")).toMatchObject({
      id,
      into: path.join(into, id),
      note: "hello",
    })
    expect(events.filter(({ event }) => event === "done")).toHaveLength(1)
    expect(events.at(-1)).toMatchObject({ event: "done", ok: false, exit: 130 })
  })

  it("goes on when its relay comes back", async () => {
    const { watch, send } = await somebody()
    const watching = watch()
    await started(watching)
    await one.stop()
    await watching.stderr.waitFor(/This goes on as soon as the relay answers/)
    await one.startAgain()
    const id = await send({ a: "1" })
    await watching.stdout.waitFor(new RegExp(id))
    expect(watching.stderr.text).toContain("The relay answers again.")
    // However long it was away, it is said once.
    expect(watching.stderr.text.split("This goes on")).toHaveLength(2)
    expect(await end(watching, "SIGTERM")).toMatchObject({ code: 0 })
  })

  it("goes on after a delivery that failed, and tries that one again", async () => {
    const { into, watch, send } = await somebody()
    const stuck = await send({ a: "stuck" })
    const fine = await send({ a: "fine" })
    mkdirSync(into)
    writeFileSync(path.join(into, stuck), "in the way")
    const watching = watch()
    await watching.stdout.waitFor(new RegExp(fine))
    await watching.stderr.waitFor(new RegExp(`note: ${stuck}: [^]*It is tried again in 5 s`))
    const attempts = watching.stderr.text.split("It is tried again").length
    rmSync(path.join(into, stuck))
    await watching.stdout.waitFor(new RegExp(stuck))
    expect(attempts).toBe(2)
    expect(await end(watching, "SIGTERM")).toMatchObject({ code: 0 })
  })

  it("leaves alone what is larger than strangers may send, and says so once", async () => {
    const { home, into, watch, send } = await somebody()
    const large = await send({ a: Buffer.alloc(30_000) })
    const watching = watch("--max-size", "20KiB")
    await watching.stderr.waitFor(new RegExp(`note: ${large} is left alone`))
    const small = await send({ a: "small" })
    await watching.stdout.waitFor(new RegExp(small))
    const { stderr } = await end(watching, "SIGTERM")
    expect(stderr.split("is left alone")).toHaveLength(2)
    expect(readdirSync(into)).toEqual([small])
    expect((await one.run(home, "inbox")).stdout).toContain(large)
  })

  it("leaves alone what claims a contact that it does not come from, and says so once", async () => {
    const { home, address, into, watch, send } = await somebody()
    const friend = await one.newInbox("friend")
    await one.run(home, "contact", "add", "friend", friend)
    const [known] = await one.events("friend", "address")
    const fingerprint = Buffer.from(String(known?.["fingerprint"]), "hex")
    const identity = await createIdentity()
    const { deliveries } = await sendAs({
      recipients: [address],
      sources: [{ kind: "path", path: one.aTree({ a: "forged" }) }],
      sender: {
        identity: { ...identity, bundle: { ...identity.bundle, fingerprint } },
        mode: "signature",
      },
      state: openState(one.inFolder("impostor")),
    })
    const [forged] = deliveries
    const watching = watch("--json")
    await watching.stdout.waitFor(/"refused_sender"/)
    const id = await send({ a: "true" })
    await watching.stdout.waitFor(/"received"/)
    const { stdout } = await end(watching, "SIGTERM")
    const left = parseEvents(stdout).filter(({ event }) => event === "left")
    expect(left).toEqual([{ v: 1, event: "left", id: forged?.id, reason: "refused_sender" }])
    expect(readdirSync(into)).toEqual([id])
  })

  it("keeps a folder to one of them", async () => {
    const { home, into, watch } = await somebody()
    const watching = watch()
    await started(watching)
    const second = await one.workshop.run(home, ["watch", "-o", into])
    expect(second).toMatchObject({ code: 1 })
    expect(second.stderr).toContain("already watching into")
    await end(watching, "SIGTERM")
  })

  it("ends at once where it cannot begin", async () => {
    const { home, into } = await somebody()
    const noProgram = await one.workshop.run(home, ["watch", "--exec", "no-such-program-here"])
    expect(noProgram).toMatchObject({ code: 2 })
    writeFileSync(into, "")
    expect(await one.workshop.run(home, ["watch", "-o", into])).toMatchObject({ code: 1 })
    const nobody = ["watch", "--relay", "http://127.0.0.1:1"]
    expect(await one.workshop.run(home, nobody)).toMatchObject({ code: 5 })
  })
})

describe("a command that watch runs", () => {
  it("gets its own words and the delivery's folder, and nothing that a sender wrote", async () => {
    const { into, watch, send } = await somebody()
    const log = one.inFolder("told")
    const script =
      'const { KNOTHOLE_ID: id, KNOTHOLE_DIR: dir } = process.env; require("fs").appendFileSync(process.argv[1], JSON.stringify({ argv: process.argv.slice(1), id, dir, env: Object.values(process.env), threads: process.env.UV_THREADPOOL_SIZE }) + "\\n"); console.log("from the command"); process.exit(7)'
    const watching = watch("--", process.execPath, "-e", script, log, "$(touch owned) ;")
    const evil = "$(touch owned); `touch owned` --evil\n\u001B[2J"
    const ids = [
      await send({ [evil]: "x" }, "--note", evil),
      await send({ a: "1" }, "--note", "second"),
    ]
    for (const id of ids)
      await watching.stderr.waitFor(new RegExp(`${id}: its command ended with 7`))
    const { code, stdout, stderr } = await end(watching, "SIGTERM")
    expect(code).toBe(0)
    expect(stdout).not.toContain("from the command")
    expect(stderr).toContain("from the command")
    expect(stderr).not.toContain("\u001B")
    const runs = parseEvents(readFileSync(log, "utf8"))
    expect(runs.map((run) => run["id"])).toEqual(ids)
    for (const [index, run] of runs.entries()) {
      expect(run["argv"]).toEqual([log, "$(touch owned) ;"])
      expect(run["dir"]).toBe(path.join(into, ids[index] ?? ""))
      expect(JSON.stringify(run["env"])).not.toContain("evil")
      // What the program sets for itself is not its children's.
      expect(run["threads"]).toBe(process.env["UV_THREADPOOL_SIZE"])
    }
    expect(existsSync(one.inFolder("owned"))).toBe(false)
  })

  it("is written in words apart at spaces, where no shell's signs are", async () => {
    const { home, watch, send } = await somebody()
    const quoted = await one.workshop.run(home, ["watch", "--exec", "echo 'a b'"])
    expect(quoted).toMatchObject({ code: 2 })
    expect(quoted.stderr).toContain("after --")
    const out = one.inFolder("made by mkdir")
    const watching = watch("--json", "--exec", `mkdir  -p ${one.inFolder("made")}`)
    const id = await send({ a: "1" })
    await watching.stdout.waitFor(/"executed"/)
    expect(existsSync(one.inFolder("made"))).toBe(true)
    expect(existsSync(out)).toBe(false)
    const { stdout } = await end(watching, "SIGTERM")
    const executed = parseEvents(stdout).find(({ event }) => event === "executed")
    expect(executed).toEqual({ v: 1, event: "executed", id, ok: true, exit: 0, signal: null })
  })

  it("runs again when watch was killed before it ended, and the delivery was received", async () => {
    const { home, watch, send } = await somebody()
    const log = one.inFolder("runs")
    const go = one.inFolder("go")
    const script = 'echo "$$ $KNOTHOLE_ID" >> "$0"; test -e "$1" || exec sleep 60'
    const command = ["--", "sh", "-c", script, log, go]
    const first = watch(...command)
    const id = await send({ a: "1" })
    await first.stdout.waitFor(new RegExp(id))
    const lines = () => (existsSync(log) ? readFileSync(log, "utf8").trimEnd().split("\n") : [])
    await expect.poll(lines, { timeout: 10_000 }).toHaveLength(1)
    first.child.kill("SIGKILL")
    await once(first.child, "exit")
    process.kill(Number(lines()[0]?.split(" ")[0]))
    expect((await one.run(home, "inbox")).stdout).toBe("")

    writeFileSync(go, "")
    const second = watch("--json", ...command)
    await second.stdout.waitFor(/"executed"/)
    await end(second, "SIGTERM")
    expect(lines().map((line) => line.split(" ")[1])).toEqual([id, id])

    const third = watch("--json", ...command)
    await third.stdout.waitFor(/"watching"/)
    const next = await send({ a: "2" })
    await third.stdout.waitFor(/"executed"/)
    await end(third, "SIGTERM")
    expect(lines().map((line) => line.split(" ")[1])).toEqual([id, id, next])
  })

  it("is told to stop when watch is, and runs again with the next", async () => {
    const { watch, send } = await somebody()
    const log = one.inFolder("stopped")
    const script = 'echo "$KNOTHOLE_ID" >> "$0"; test $(wc -l < "$0") -gt 1 || exec sleep 60'
    const command = ["--", "sh", "-c", script, log]
    const first = watch(...command)
    const id = await send({ a: "1" })
    await expect.poll(() => existsSync(log), { timeout: 10_000 }).toBe(true)
    expect(await end(first, "SIGTERM")).toMatchObject({ code: 0 })
    const second = watch("--json", ...command)
    await second.stdout.waitFor(/"executed"/)
    await end(second, "SIGTERM")
    expect(readFileSync(log, "utf8")).toBe(`${id}\n${id}\n`)
  })
})
