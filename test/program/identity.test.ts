import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import path from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { concatBytes, createIdentity, sealIdentity, sha256 } from "../../protocol/index.js"
import { encodeBackup } from "../../client/index.js"
import { Workshop } from "./processes.js"
import type { Started } from "./processes.js"

const workshop = new Workshop()
let relay: Started
let passphrase: string
let other: string

beforeAll(async () => {
  relay = await workshop.startRelay("relay")
  passphrase = aFile("correct horse\n")
  other = aFile("battery staple\n")
}, 60_000)

afterAll(async () => {
  await workshop.close()
})

function inFolder(...names: string[]): string {
  return path.join(workshop.folder, ...names)
}

let files = 0
function aFile(content: string | Uint8Array): string {
  const file = inFolder(`file-${files++}`)
  writeFileSync(file, content)
  return file
}

async function run(home: string, ...args: string[]) {
  const ended = await workshop.run(home, args)
  expect(ended, ended.stderr).toMatchObject({ code: 0 })
  return ended
}

async function fails(exit: number, words: string | RegExp, home: string, ...args: string[]) {
  const ended = await workshop.run(home, args)
  expect(ended, ended.stderr).toMatchObject({ code: exit, stdout: "" })
  expect(ended.stderr).toMatch(words)
  expect(ended.stderr).not.toContain("This should not happen")
  return ended
}

async function newInbox(home: string, ...args: string[]): Promise<string> {
  const how = args.length === 0 ? ["--no-passphrase"] : args
  return (await run(home, "init", "--relay", relay.url, ...how)).stdout.trim()
}

async function sendTo(address: string): Promise<string> {
  return (await run("sender", "send", aFile("hello"), "-r", address)).stdout.trim()
}

async function waiting(home: string, ...args: string[]): Promise<string[]> {
  const rows: { id: string }[] = JSON.parse((await run(home, "inbox", "--json", ...args)).stdout)
  return rows.map(({ id }) => id)
}

function keyOf(home: string, name = "default"): string {
  return inFolder(home, "identities", `${name}.key`)
}

describe("a backup", () => {
  it("brings the same address back on another machine, and what waits there", async () => {
    const address = await newInbox("old", "--passphrase-file", passphrase)
    const id = await sendTo(address)
    const backup = inFolder("backup")
    const made = await run("old", "identity", "export", backup, "--passphrase-file", passphrase)
    expect(made.stdout).toBe(`${backup}\n`)
    expect(statSync(backup).mode & 0o777).toBe(0o600)
    const brought = await run("new", "identity", "import", backup, "--passphrase-file", passphrase)
    expect(brought.stdout).toBe(`${address}\n`)
    expect(await waiting("new", "--passphrase-file", passphrase)).toEqual([id])
    expect(statSync(keyOf("new")).mode & 0o777).toBe(0o600)
    await fails(1, "here already", "new", "identity", "import", backup)
  })

  it("that comes beside another identity says which of them is meant from then on", async () => {
    await newInbox("second", "--passphrase-file", passphrase)
    const backup = inFolder("second-backup")
    await run("second", "identity", "export", backup, "--passphrase-file", passphrase)
    await newInbox("has-one")
    const args = ["identity", "import", backup, "--name", "work", "--passphrase-file", passphrase]
    const { stderr } = await run("has-one", ...args)
    expect(stderr).toContain(
      "Commands without -i go on meaning 'default'; use -i work for this one.",
    )
    const alone = await run("has-none", ...args)
    expect(alone.stderr).not.toContain("go on meaning")
  })

  it("of a key without a passphrase is sealed all the same", async () => {
    const address = await newInbox("plain")
    const backup = inFolder("sealed-backup")
    await fails(2, "a passphrase for the backup", "plain", "identity", "export", backup)
    expect(existsSync(backup)).toBe(false)
    await run("plain", "identity", "export", backup, "--passphrase-file", other)
    const wrong = ["identity", "import", backup, "--passphrase-file", passphrase]
    await fails(4, "does not open", "plain-2", ...wrong)
    expect(existsSync(keyOf("plain-2"))).toBe(false)
    const right = ["identity", "import", backup, "--name", "work", "--passphrase-file", other]
    expect((await run("plain-2", ...right)).stdout).toBe(`${address}\n`)
    expect((await run("plain-2", "address")).stdout).toBe(`${address}\n`)
  })

  it("is never written over a file, nor made with a passphrase that is wrong", async () => {
    await newInbox("careful", "--passphrase-file", passphrase)
    const there = aFile("precious")
    await fails(1, "exists already", "careful", "identity", "export", there)
    // Both are found out before a passphrase is asked for, and no name is told that nobody wrote.
    for (const [folder, why] of [
      [inFolder("not", "made"), "there is no such file or folder"],
      [there, "is no folder"],
    ] as const) {
      const nowhere = path.join(folder, "backup")
      const { stderr } = await fails(1, why, "careful", "identity", "export", nowhere)
      expect(stderr).toContain(`knothole: ${folder}`)
      expect(stderr).not.toContain(".tmp")
    }
    expect(readFileSync(there, "utf8")).toBe("precious")
    const wrong = ["identity", "export", inFolder("never"), "--passphrase-file", other]
    await fails(4, "does not open", "careful", ...wrong)
    expect(existsSync(inFolder("never"))).toBe(false)
  })

  it("that is damaged anywhere is refused as damaged, and leaves nothing behind", async () => {
    const identity = await createIdentity()
    const keyFile = await sealIdentity(identity, "correct horse", { logN: 10 })
    const home = { name: "default", relay: relay.url, formerRelays: [] }
    const whole = encodeBackup({ identity, keyFile, home })
    const flipped = (at: number) => whole.map((byte, index) => (index === at ? byte ^ 1 : byte))
    const damaged = [
      new Uint8Array(0),
      whole.subarray(0, -1),
      ...[0, 4, 6, 200, whole.length - 40, whole.length - 1].map(flipped),
      keyFile,
    ]
    for (const bytes of damaged) {
      const args = ["identity", "import", aFile(bytes), "--passphrase-file", passphrase]
      await fails(4, "is damaged, or is no backup", "damaged", ...args)
    }
    // Where the inbox is cannot be changed by somebody who makes the digest fit again.
    const body = flipped(whole.length - 40).subarray(0, -32)
    const forged = aFile(concatBytes(body, sha256(body)))
    const args = ["identity", "import", forged, "--passphrase-file", passphrase]
    await fails(4, "does not open", "damaged", ...args)
    expect(existsSync(keyOf("damaged"))).toBe(false)
    await run("damaged", "identity", "import", aFile(whole), "--passphrase-file", passphrase)
  })

  it("comes back while its relay is away, and says so", async () => {
    const away = await workshop.startRelay("away")
    await run("traveller", "init", "--relay", away.url, "--no-passphrase")
    const backup = inFolder("away-backup")
    await run("traveller", "identity", "export", backup, "--passphrase-file", passphrase)
    away.child.kill("SIGTERM")
    await away.ended
    const args = ["identity", "import", backup, "--passphrase-file", passphrase]
    const brought = await run("traveller-2", ...args)
    expect(brought.stderr).toContain("could not be asked for its inbox")
    expect((await run("traveller-2", "address")).stdout).toBe(brought.stdout)
  })
})

describe("a passphrase", () => {
  it("is changed, taken away and given again, and the address stays", async () => {
    const address = await newInbox("changes", "--passphrase-file", passphrase)
    const change = ["identity", "passphrase", "--passphrase-file", passphrase]
    await run("changes", ...change, "--new-passphrase-file", other)
    await fails(4, "does not open", "changes", "inbox", "--passphrase-file", passphrase)
    expect(await waiting("changes", "--passphrase-file", other)).toEqual([])
    await run("changes", "identity", "passphrase", "--passphrase-file", other, "--no-passphrase")
    expect(await waiting("changes")).toEqual([])
    await run("changes", "identity", "passphrase", "--new-passphrase-file", passphrase)
    expect(await waiting("changes", "--passphrase-file", passphrase)).toEqual([])
    expect((await run("changes", "address")).stdout).toBe(`${address}\n`)
    expect(statSync(keyOf("changes")).mode & 0o777).toBe(0o600)
  })

  it("that is wrong leaves the key as it was", async () => {
    await newInbox("keeps", "--passphrase-file", passphrase)
    const before = readFileSync(keyOf("keeps"))
    const wrong = ["--passphrase-file", other, "--new-passphrase-file", passphrase]
    await fails(4, "does not open", "keeps", "identity", "passphrase", ...wrong)
    const unnamed = ["identity", "passphrase", "--passphrase-file", passphrase]
    await fails(2, "no terminal", "keeps", ...unnamed)
    expect(readFileSync(keyOf("keeps"))).toEqual(before)
  })
})

describe("the list of identities", () => {
  it("shows each with its address and which is meant, also beside a damaged one", async () => {
    const first = await newInbox("many")
    const second = await newInbox("many", "--name", "work", "--no-passphrase")
    const list = await run("many", "identity", "list")
    expect(list.stdout).toContain(`* default  ${first}  no passphrase\n`)
    expect(list.stdout).toContain(`  work     ${second}`)
    writeFileSync(keyOf("many"), "damaged")
    expect(JSON.parse((await run("many", "identity", "list", "--json")).stdout)).toMatchObject([
      { name: "default", default: true, problem: expect.stringContaining("damaged") },
      { name: "work", default: false, address: second, relay: relay.url, sealed: false },
    ])
    expect((await run("nobody", "identity", "list")).stdout).toBe("")
  })
})

describe("moving", () => {
  it("opens the same inbox at another relay; both receive, and each says of the other", async () => {
    const next = await workshop.startRelay("next")
    const before = await newInbox("mover")
    const early = await sendTo(before)
    const moved = await run("mover", "identity", "move", "--relay", next.url)
    const after = `${before.replace(/@.*/, "")}@${new URL(next.url).host}`
    expect(moved.stdout).toBe(`${after}\n`)
    expect(moved.stderr).toContain(`--all --relay ${relay.url}`)
    const late = await sendTo(before)
    const fresh = await sendTo(after)
    expect(await waiting("mover")).toEqual([fresh])
    expect((await run("mover", "inbox")).stderr).toContain(`--relay ${relay.url}`)
    expect(await waiting("mover", "--relay", relay.url)).toEqual([early, late])
    await run("mover", "receive", "--all", "--relay", relay.url, "-o", inFolder("moved"))
    expect(existsSync(inFolder("moved", late))).toBe(true)
    // Again changes nothing, and a backup knows both.
    expect((await run("mover", "identity", "move", "--relay", next.url)).stdout).toBe(`${after}\n`)
    const backup = inFolder("mover-backup")
    await run("mover", "identity", "export", backup, "--passphrase-file", passphrase)
    await run("mover-2", "identity", "import", backup, "--passphrase-file", passphrase)
    const list = JSON.parse((await run("mover-2", "identity", "list", "--json")).stdout)
    expect(list).toMatchObject([{ address: after, former_relays: [relay.url] }])
  })

  it("is refused by a relay that takes no new inboxes, and then nothing has moved", async () => {
    const closed = await workshop.startRelay("closed", ["--registration", "closed"])
    const address = await newInbox("stays")
    const move = ["identity", "move", "--relay", closed.url]
    await fails(4, "takes no new inboxes", "stays", ...move)
    expect((await run("stays", "address")).stdout).toBe(`${address}\n`)
    rmSync(inFolder("stays", "identities", "default.json"))
    await fails(2, "no inbox to move from", "stays", ...move)
  })
})

describe("the old inbox after a move", () => {
  it("is closed when nothing waits there any more, and who sends to it is told", async () => {
    const next = await workshop.startRelay("next-2")
    const before = await newInbox("leaver")
    await sendTo(before)
    const move = ["identity", "move", "--relay", next.url, "--close-former"]
    const early = await workshop.run("leaver", move)
    expect(early.code).toBe(1)
    expect(early.stderr).toContain(`Your inbox is at ${next.url}`)
    expect(early.stderr).toContain("1 delivery still waits")
    // It has moved: all that is left to say is what was not done, and why.
    expect(await workshop.run("leaver", move)).toEqual({
      code: 1,
      stdout: "",
      stderr: [
        `knothole: the inbox at ${relay.url} is not closed: 1 delivery still waits there`,
        "Receive or discard it, then run this again:",
        `  knothole receive --all --relay ${relay.url}`,
        "",
      ].join("\n"),
    })
    await run("leaver", "receive", "--relay", relay.url, "-o", inFolder("left"))
    const late = await run("leaver", ...move)
    expect(late.stdout).toBe(early.stdout)
    expect(late.stderr).toContain(`The inbox at ${relay.url} is closed`)
    await fails(3, "no inbox", "sender", "send", passphrase, "-r", before)
    await sendTo(late.stdout.trim())
    const list = JSON.parse((await run("leaver", "identity", "list", "--json")).stdout)
    expect(list).toMatchObject([{ former_relays: [] }])
  })
})

describe("removing an identity", () => {
  it("closes its inbox, deletes what waits and destroys the key, once that is confirmed", async () => {
    const address = await newInbox("ends")
    const id = await sendTo(address)
    expect(await waiting("ends")).toEqual([id])
    await fails(2, "--yes", "ends", "identity", "remove")
    expect(await waiting("ends")).toEqual([id])
    const removed = await run("ends", "identity", "remove", "--yes", "--json")
    const events = removed.stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line))
    expect(events.at(-2)).toMatchObject({ v: 1, event: "identity_removed", closed: [relay.url] })
    expect(events.at(-1)).toMatchObject({ event: "done", ok: true })
    expect(readdirSync(inFolder("ends", "identities"))).toEqual([])
    expect(readdirSync(inFolder("ends", "state", "inboxes"))).toEqual([])
    await fails(3, "no inbox", "sender", "send", passphrase, "-r", address)
    expect((await run("sender", "status", id)).stdout).toBe("taken\n")
    await fails(2, "no identity here yet", "ends", "inbox")
    // The name is free again.
    expect(await newInbox("ends")).not.toBe(address)
  })

  it("comes back from a backup, with its inbox opened anew", async () => {
    const address = await newInbox("regrets", "--passphrase-file", passphrase)
    const backup = inFolder("regrets-backup")
    await run("regrets", "identity", "export", backup, "--passphrase-file", passphrase)
    await run("regrets", "identity", "remove", "--yes", "--passphrase-file", passphrase)
    const back = await run("regrets", "identity", "import", backup, "--passphrase-file", passphrase)
    expect(back.stderr).toContain("opened anew")
    const id = await sendTo(address)
    expect(await waiting("regrets", "--passphrase-file", passphrase)).toEqual([id])
  })

  it("destroys nothing while the relay cannot be asked, unless the inbox is to stay", async () => {
    const away = await workshop.startRelay("away-2")
    await run("offline", "init", "--relay", away.url, "--passphrase-file", passphrase)
    away.child.kill("SIGTERM")
    await away.ended
    const remove = ["identity", "remove", "--yes"]
    await fails(5, "--keep-inbox", "offline", ...remove, "--passphrase-file", passphrase)
    expect(existsSync(keyOf("offline"))).toBe(true)
    await fails(4, "does not open", "offline", ...remove, "--passphrase-file", other)
    // Its passphrase is not needed for that: it may be lost.
    await run("offline", ...remove, "--keep-inbox")
    expect(existsSync(keyOf("offline"))).toBe(false)
  })

  it("leaves the others alone", async () => {
    const first = await newInbox("two")
    const second = await newInbox("two", "--name", "work", "--no-passphrase")
    await run("two", "identity", "remove", "-i", "work", "--yes")
    expect((await run("two", "address")).stdout).toBe(`${first}\n`)
    await fails(2, "there is default", "two", "address", "-i", "work")
    await fails(3, "no inbox", "sender", "send", passphrase, "-r", second)
    await sendTo(first)
  })
})
