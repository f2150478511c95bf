import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import path from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { drawQrCode } from "../../client/program/qr-code.js"
import { fingerprintWords, parseAddress, parseReceipt } from "../../protocol/index.js"
import { writeSelfSigned } from "../fronts/certificates.js"
import { Workshop } from "./processes.js"
import type { Started } from "./processes.js"

const workshop = new Workshop()
let relay: Started
let address: string

beforeAll(async () => {
  relay = await workshop.startRelay("relay")
  address = await newInbox("recipient")
}, 60_000)

afterAll(async () => {
  await workshop.close()
})

async function newInbox(home: string): Promise<string> {
  const init = await workshop.run(home, ["init", "--relay", relay.url, "--no-passphrase"])
  expect(init).toMatchObject({ code: 0 })
  return init.stdout.trim()
}

function inFolder(...names: string[]): string {
  return path.join(workshop.folder, ...names)
}

/** A folder of its own with these files in it. */
let folders = 0
function aTree(files: Record<string, string>): string {
  const folder = inFolder(`tree ${folders++}`)
  for (const [name, content] of Object.entries(files)) {
    const file = path.join(folder, name)
    mkdirSync(path.dirname(file), { recursive: true })
    writeFileSync(file, content)
  }
  return folder
}

function bare(full: string): string {
  return full.replace(/@.*/, "")
}

function threads(pid: number | undefined): number {
  return readdirSync(`/proc/${pid}/task`).length
}

async function run(home: string, ...args: string[]) {
  const ended = await workshop.run(home, args)
  expect(ended, ended.stderr).toMatchObject({ code: 0 })
  return ended
}

async function events(home: string, ...args: string[]): Promise<Record<string, unknown>[]> {
  const { stdout } = await run(home, ...args, "--json")
  return stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line))
}

describe("init", () => {
  it("prints the address alone on stdout, and on stderr where the key is and what its loss means", async () => {
    const init = await workshop.run("fresh", ["init", "--relay", relay.url, "--no-passphrase"])
    expect(init.stdout).toMatch(/^knot1[a-z0-9]{38}@127\.0\.0\.1:\d+\n$/)
    const key = inFolder("fresh", "identities", "default.key")
    expect(init.stderr).toContain(key)
    expect(init.stderr).toContain("Keep a copy")
    expect(statSync(key).mode & 0o777).toBe(0o600)
    expect(statSync(path.dirname(key)).mode & 0o777).toBe(0o700)
  })

  it("says of a passphrase that nobody can recover it", async () => {
    const file = inFolder("passphrase")
    writeFileSync(file, "correct horse\n")
    const { stderr } = await run("sealed", "init", "--relay", relay.url, "--passphrase-file", file)
    expect(stderr).toContain("lost passphrase cannot be recovered")
    const key = readFileSync(inFolder("sealed", "identities", "default.key"))
    expect(key.includes("correct horse")).toBe(false)
  })

  it("notes that an address on loopback is for this machine where the relay has another name", async () => {
    const named = await workshop.startRelay("named", [
      "--public-url",
      "https://drop.example.org",
      "--registration",
      "open",
    ])
    const open = ["init", "--relay", named.url, "--no-passphrase"]
    const init = await workshop.run("near", open)
    expect(init, init.stderr).toMatchObject({ code: 0 })
    expect(init.stderr).toContain("note: this address works on this machine only")
    expect(init.stderr).toContain("https://drop.example.org")
    const plain = ["init", "--relay", relay.url, "--no-passphrase"]
    expect((await workshop.run("plain", plain)).stderr).not.toContain("note:")
  })

  it("goes on with the key of a run that ended before its inbox was open", async () => {
    const first = await newInbox("halted")
    const home = inFolder("halted", "identities", "default.json")
    const remembered = readFileSync(home)
    writeFileSync(home, "")
    expect(await workshop.run("halted", ["address"])).toMatchObject({ code: 2 })
    rmSync(home)
    const again = await run("halted", "init", "--relay", relay.url, "--no-passphrase")
    expect(again.stdout.trim()).toBe(first)
    expect(readFileSync(home)).toEqual(remembered)
  })

  it("keeps identities apart, and remembers the first as the one that is meant", async () => {
    const first = await newInbox("several")
    const { stdout } = await run("several", "init", "--name", "work", "--no-passphrase")
    expect(stdout.trim()).not.toBe(first)
    expect((await run("several", "address")).stdout.trim()).toBe(first)
    expect((await run("several", "address", "-i", "work")).stdout).toBe(stdout)
  })

  it("says of one made after another which of them commands go on meaning, whatever its name", async () => {
    const init = ["init", "--relay", relay.url, "--no-passphrase"]
    const first = await run("renamed", ...init, "--name", "work")
    expect(first.stderr).not.toContain("Commands without -i")
    const second = await run("renamed", ...init)
    expect(second.stderr).toContain("Commands without -i go on meaning 'work'; use -i default")
    expect((await run("renamed", "address")).stdout).toBe(first.stdout)
  })
})

describe("address", () => {
  it("needs no passphrase and shows eight words to compare", async () => {
    const shown = await run("recipient", "address")
    expect(shown.stdout).toBe(`${address}\n`)
    expect(shown.stderr).toMatch(/voice:( [a-z]+){8}\n/)
    const [identity] = await events("recipient", "address")
    expect(identity).toMatchObject({ v: 1, event: "identity", address, relay: relay.url })
    const fingerprint = String(identity?.["fingerprint"])
    expect(identity?.["words"]).toEqual(fingerprintWords(Buffer.from(fingerprint, "hex")))
    expect((await run("recipient", "address", "-q")).stderr).toBe("")
    const link = `${relay.url}/to/${bare(address)}`
    expect(shown.stderr).toContain(link)
    expect(identity).toMatchObject({ link })
    expect(parseAddress(link)).toEqual(parseAddress(address))
  })

  it("draws a QR code of the link where one is asked for, without colours away from a terminal", async () => {
    const { stdout, stderr } = await run("recipient", "address", "--qr", "-q")
    expect(stdout).toBe(`${address}\n`)
    const link = `${relay.url}/to/${bare(address)}`
    expect(stderr).toBe(`${drawQrCode(link, { coloured: false })}\n`)
  })
})

describe("a delivery", () => {
  it("is sent without an account, listed, received byte for byte, and is then taken", async () => {
    const tree = aTree({ "a.txt": "alpha", "deep/er/b.bin": "\0\u0001", empty: "" })
    const sent = await run("stranger", "send", tree, "-r", address, "--note", "for you")
    const id = sent.stdout.trim()
    expect(id).toMatch(/^[0-9a-f]{32}$/)
    expect(existsSync(inFolder("stranger", "identities"))).toBe(false)
    expect((await run("stranger", "status", id)).stdout).toBe("waiting\n")

    const list = await run("recipient", "inbox")
    const [row, facts, note] = list.stdout.slice(list.stdout.indexOf(id)).split("\n")
    expect(row).toMatch(/ 7 B {8}6$/)
    expect(facts).toMatch(/^ {2}new, unverified, expires \d{4}-/)
    expect(note).toBe("  Note: for you")
    const rows: unknown = JSON.parse((await run("recipient", "inbox", "--json")).stdout)
    expect(rows).toEqual([
      {
        id,
        received: expect.stringMatching(/^\d{4}-.*Z$/),
        expires: expect.stringMatching(/^\d{4}-.*Z$/),
        size: 7,
        entries: 6,
        sender: { kind: "unverified" },
        note: "for you",
        new: false,
      },
    ])

    const into = inFolder("received")
    const received = await run("recipient", "receive", "-o", into)
    const name = path.basename(tree)
    expect(received.stdout).toBe(`${path.join(into, name)}\n`)
    expect(readFileSync(path.join(into, name, "a.txt"), "utf8")).toBe("alpha")
    expect(readFileSync(path.join(into, name, "deep/er/b.bin"), "utf8")).toBe("\0\u0001")
    expect(readFileSync(path.join(into, name, "empty"), "utf8")).toBe("")
    expect(readdirSync(into)).toEqual([name])
    const status = await run("stranger", "status", id)
    expect(status.stdout).toBe("taken\n")
    expect(status.stderr).toContain("picked it up, or discarded it")
    expect((await run("recipient", "inbox")).stdout).toBe("")
  })

  it("from stdin takes the name it is given", async () => {
    const piped = await workshop.run(
      "stranger",
      ["send", "-", "--name", "notes.txt", "-r", address],
      {
        input: "from a pipe",
      },
    )
    expect(piped).toMatchObject({ code: 0 })
    const into = inFolder("piped")
    expect((await run("recipient", "receive", piped.stdout.trim(), "-o", into)).stdout).toBe(
      `${path.join(into, "notes.txt")}\n`,
    )
    expect(readFileSync(path.join(into, "notes.txt"), "utf8")).toBe("from a pipe")
  })

  it("goes to everybody in a recipients file, and its receipts into a file", async () => {
    const other = await newInbox("second")
    const list = inFolder("friends")
    writeFileSync(list, `# friends\n${address}\n\n  ${other}\n`)
    const receipts = inFolder("receipts")
    const sent = await run("stranger", "send", aTree({ a: "1" }), "-R", list, "--receipt", receipts)
    const id = sent.stdout.trim()
    const both = await run("stranger", "status", id)
    expect(both.stdout.trim().split("\n").sort()).toEqual(
      [`waiting ${bare(address)}`, `waiting ${bare(other)}`].sort(),
    )
    const bytes = readFileSync(receipts)
    expect(bytes.length).toBe(2 * 172)
    parseReceipt(bytes.subarray(0, 172))
    parseReceipt(bytes.subarray(172))
    const again = await workshop.run("stranger", ["send", list, "-r", other, "--receipt", receipts])
    expect(again).toMatchObject({ code: 1, stdout: "" })
    await run("recipient", "discard", id)
    const one = await run("stranger", "status", id)
    expect(one.stdout).toContain(`taken ${bare(address)}\n`)
    expect(one.stderr).toContain("picked it up, or discarded it")
    await run("second", "receive", id, "-o", inFolder("second files"))
    const late = await workshop.run("stranger", ["revoke", id])
    expect(late).toMatchObject({ code: 3, stdout: "" })
    expect(late.stderr).toContain("nothing was left to delete: taken by all")
  })

  it("that the relay keeps for another time than asked is sent with a note of it", async () => {
    const send = ["send", aTree({ a: "1" }), "-r", address]
    const long = await run("stranger", ...send, "--expires", "9w")
    expect(long.stderr).toContain("note: the relay keeps it 30 d at most; it expires ")
    const short = await run("stranger", ...send, "--expires", "5m")
    expect(short.stderr).toContain("note: the relay keeps it 1 h at least; it expires ")
    expect((await run("stranger", ...send, "--expires", "9w", "-q")).stderr).toBe("")
    const told = await events("stranger", ...send, "--expires", "9w")
    expect(told.find((event) => event["event"] === "notice")).toMatchObject({
      text: expect.stringContaining("30 d at most"),
    })
    expect((await run("stranger", ...send, "--expires", "2d")).stderr).not.toContain("note:")
    await run("recipient", "receive", "--all", "-o", inFolder("kept"))
  })

  it("may be a note alone, whose lines are shown as lines, and named by the beginning of its id", async () => {
    const note = "first\nSender: \u001B[1mverified"
    const id = (await run("stranger", "send", "-r", address, "--note", note)).stdout.trim()
    const begun = id.slice(0, 12)
    expect((await run("stranger", "status", begun)).stdout).toBe("waiting\n")
    const keep = ["receive", begun, "--keep", "-o", inFolder("note alone")]
    const received = await run("recipient", ...keep)
    expect(received.stdout).toBe("")
    expect(received.stderr).toContain(`Note: first\n      ${String.raw`Sender: \x1b[1mverified`}\n`)
    expect((await run("recipient", "discard", begun)).stderr).toContain(`${id} is deleted`)
    expect(await workshop.run("stranger", ["revoke", begun])).toMatchObject({ code: 3 })
  })

  it("is received alone into the folder itself, with others into folders of their ids", async () => {
    const home = "sorted"
    const to = await newInbox(home)
    const send = async (content: string) =>
      (await run("stranger", "send", aTree({ "x.txt": content }), "-r", to)).stdout.trim()
    const ids = [await send("one"), await send("two")]

    const none = await workshop.run(home, ["receive", "-o", inFolder("sorted files")])
    expect(none).toMatchObject({ code: 2, stdout: "" })
    for (const id of ids) expect(none.stderr).toContain(id)

    const all = await run(home, "receive", "--all", "-o", inFolder("sorted files"))
    expect(readdirSync(inFolder("sorted files")).sort()).toEqual([...ids].sort())
    expect(all.stdout.trim().split("\n")).toHaveLength(2)
    const nothing = await run(home, "receive", "--all")
    expect(nothing.stdout).toBe("")
    expect(nothing.stderr).toContain("nothing to receive")
    expect(await workshop.run(home, ["receive"])).toMatchObject({ code: 3, stdout: "" })
  })

  it("whose sender says so is signed by them", async () => {
    for (const mode of ["--deniable", "--sign"]) {
      await run("second", "send", aTree({ a: mode }), "-r", address, mode)
    }
    const rows: unknown = JSON.parse((await run("recipient", "inbox", "--json")).stdout)
    const [identity] = await events("second", "address")
    const fingerprint = String(identity?.["fingerprint"])
    const claim = `claims a sender, not verified: ${fingerprintWords(Buffer.from(fingerprint, "hex")).join(" ")}`
    // Nobody's bundle is known here, so neither is believed.
    const sender = { kind: "unverified", claimed_fingerprint: fingerprint }
    expect(rows).toMatchObject([{ sender }, { sender }])
    const list = await run("recipient", "inbox")
    expect(list.stdout.replaceAll("\n    ", " ").split(claim)).toHaveLength(3)
    expect(list.stdout).not.toContain("signed")
    const anonymous = await workshop.run("stranger", [
      "send",
      aTree({ a: "" }),
      "-r",
      address,
      "--sign",
    ])
    expect(anonymous).toMatchObject({ code: 2 })
    expect(anonymous.stderr).toContain("knothole init")
    const [first = ""] = list.stdout.split("\n").flatMap((line) => /^[0-9a-f]{32}/.exec(line) ?? [])
    const told = await events("recipient", "receive", first, "-o", inFolder("signed first"))
    expect(told.find((event) => event["event"] === "received")).toMatchObject({ sender })
    const received = await run("recipient", "receive", "--all", "-o", inFolder("signed"))
    expect(received.stderr).toContain(`Sender: ${claim}`)
  })

  it("shows whatever its sender wrote without obeying it", async () => {
    const nasty = "\u001B]0;owned\u0007\u202Egpj.exe"
    const id = (
      await run(
        "stranger",
        "send",
        aTree({ [nasty]: "x" }),
        "-r",
        address,
        "--note",
        `${nasty}\nnew line`,
      )
    ).stdout.trim()
    const everything = [
      await run("recipient", "inbox"),
      await run("recipient", "inbox", "--json"),
      await run("recipient", "receive", id, "--keep", "-o", inFolder("nasty")),
      await run("recipient", "receive", id, "--json", "-o", inFolder("nasty too")),
    ]
    for (const { stdout, stderr } of everything) {
      for (const hidden of ["\u001B", "\u0007", "\u202E"]) {
        expect(stdout + stderr).not.toContain(hidden)
      }
      expect(stdout).not.toMatch(/^new line/m)
    }
    const [tree = ""] = readdirSync(inFolder("nasty"))
    expect(readdirSync(inFolder("nasty", tree))).toEqual([nasty])
  })
})

describe("events for programs", () => {
  it("all carry their version, and the last and only the last one says that it is done", async () => {
    const sent = await events("stranger", "send", aTree({ a: "1", b: "2" }), "-r", address)
    expect(sent.every((event) => event["v"] === 1)).toBe(true)
    expect(sent.filter((event) => event["event"] === "done")).toHaveLength(1)
    expect(sent.at(-1)).toEqual({ v: 1, event: "done", ok: true, exit: 0 })
    const result = sent.find((event) => event["event"] === "sent")
    expect(result).toMatchObject({ origin: relay.url, resumed: false, skipped: [] })
    const id = String(result?.["id"])

    const received = await events("recipient", "receive", id, "-o", inFolder("for programs"))
    expect(received.find((event) => event["event"] === "received")).toMatchObject({
      id,
      files: 2,
      bytes: 2,
      failed: [],
    })
    const status = await events("stranger", "status", id)
    expect(status.find((event) => event["event"] === "status")).toMatchObject({
      id,
      recipients: [{ address: bare(address), state: "taken" }],
    })
  })

  it("tell a failure with its code, its exit code and its words", async () => {
    const failed = await workshop.run("recipient", ["receive", "1".repeat(32), "--json"])
    const last: unknown = JSON.parse(failed.stdout.trimEnd().split("\n").at(-1) ?? "")
    expect(last).toMatchObject({
      v: 1,
      event: "done",
      ok: false,
      exit: failed.code,
      error: { code: expect.any(String), message: expect.any(String) },
    })
    const usage = await workshop.run("recipient", ["send", "--json"])
    expect(JSON.parse(usage.stdout)).toMatchObject({ event: "done", ok: false, exit: 2 })
  })
})

describe("the relay", () => {
  it("says where it listens, then logs one JSON object a line, and drains at SIGTERM", async () => {
    const own = await workshop.startRelay("brief")
    own.child.kill("SIGTERM")
    const ended = await own.ended
    expect(ended).toMatchObject({ code: 0, stdout: "" })
    const [first, ...log] = ended.stderr.trimEnd().split("\n")
    expect(first).toBe(`listening on ${own.url}`)
    for (const line of log) expect(JSON.parse(line)).toHaveProperty("event")
  })

  it("gives syncs more threads than Node would, unless it is told how many", async () => {
    const usual = await workshop.startRelay("usual")
    const single = await workshop.startRelay("single", [], { UV_THREADPOOL_SIZE: "1" })
    expect(threads(usual.child.pid) - threads(single.child.pid)).toBe(15)
  })

  it("takes its settings from flags and their twins, and names everything that is wrong with them", async () => {
    const bad = await workshop.run("brief", ["relay", "--listen", "nowhere", "--keep", "7"], {
      env: { KNOTHOLE_DELIVERY_LIMIT: "huge" },
    })
    expect(bad).toMatchObject({ code: 2, stdout: "" })
    for (const words of ["--listen", "--keep", "KNOTHOLE_DELIVERY_LIMIT"]) {
      expect(bad.stderr).toContain(words)
    }
    const mistyped = await workshop.run("brief", ["relay", "--lisen", "x", "--keep", "7"])
    expect(mistyped).toMatchObject({ code: 2 })
    expect(mistyped.stderr).toContain("did you mean --listen?")
    expect(mistyped.stderr).toContain("--keep")
    const help = await workshop.run("brief", ["relay", "--help"])
    expect(help).toMatchObject({ code: 0, stderr: "" })
    expect(help.stdout).toContain("--public-url <URL>")
    for (const command of ["relay status", "relay clock-ok", "relay restored"]) {
      expect(help.stdout).toContain(command)
    }
    expect(help.stdout.trimEnd().split("\n").length).toBeLessThanOrEqual(40)
  })

  it("takes its settings from a file, and shows those in use without starting", async () => {
    const file = inFolder("relay settings")
    writeFileSync(file, `KNOTHOLE_KEEP=3d\nKNOTHOLE_LISTEN=127.0.0.1:1\n`)
    const where = ["--listen", "127.0.0.1:2", "--data", inFolder("never made")]
    const shown = await workshop.run("brief", ["relay", "--print-config", ...where], {
      env: { KNOTHOLE_RELAY_CONFIG: file },
    })
    expect(shown).toMatchObject({ code: 0, stderr: "" })
    expect(shown.stdout).toContain(`# ${file}, line 1: KNOTHOLE_KEEP\nKNOTHOLE_KEEP=3d\n`)
    expect(shown.stdout).toContain("# --listen\nKNOTHOLE_LISTEN=127.0.0.1:2\n")
    expect(existsSync(inFolder("never made"))).toBe(false)
  })

  it("goes on at SIGHUP, where it has no terminal that could be gone", async () => {
    const own = await workshop.startRelay("hung up")
    own.child.kill("SIGHUP")
    // Meant for a relay that is there: one that ended would answer nothing.
    for (let at = 0; at < 10; at++) {
      expect(await (await fetch(`${own.url}/healthz`)).text()).toBe("ok\n")
    }
    own.child.kill("SIGTERM")
    expect(await own.ended).toMatchObject({ code: 0 })
  })

  it("with a certificate of its own reads it again at SIGHUP, and goes on", async () => {
    const [cert, key] = [inFolder("relay cert.pem"), inFolder("relay key.pem")]
    const renew = () => writeSelfSigned({ cert, key }, { name: "relay.test", days: 90 })
    renew()
    const flags = ["--tls-cert", cert, "--tls-key", key, "--public-url", "https://relay.test"]
    const own = await workshop.startRelay("brief", flags)
    expect(own.url).toMatch(/^https:/)
    renew()
    own.child.kill("SIGHUP")
    await own.stderr.waitFor(/tls_certificate_changed/)
    own.child.kill("SIGTERM")
    expect(await own.ended).toMatchObject({ code: 0 })
    const bad = await workshop.run("brief", ["relay", ...flags, "--tls-key", cert])
    expect(bad).toMatchObject({ code: 2, stdout: "" })
    expect(bad.stderr).toContain("not the certificate's key")
  })

  it("ends with 1 where it cannot listen, or another relay has its folder", async () => {
    const taken = await workshop.run("other", [
      "relay",
      "--data",
      inFolder("other data"),
      "--listen",
      new URL(relay.url).host,
    ])
    expect(taken).toMatchObject({ code: 1 })
    const { host } = new URL(relay.url)
    expect(taken.stderr).toContain(`cannot listen on ${host}: another program listens there`)
    expect(readdirSync(inFolder("other data"))).not.toContainEqual(expect.stringMatching(/^lock/))
    const folder = inFolder("relay", "data")
    const twice = await workshop.run("other", [
      "relay",
      "--data",
      folder,
      "--listen",
      "127.0.0.1:0",
    ])
    expect(twice).toMatchObject({ code: 1 })
    expect(twice.stderr).toContain(folder)
    expect(twice.stderr).toContain("stop it, or name another folder with --data")
    expect(twice.stderr).not.toContain("This should not happen")
  })

  it("names the address that is none of this machine's, or no name at all", async () => {
    for (const listen of ["203.0.113.5:8787", "no-such-host.invalid:8787"]) {
      const flags = ["--listen", listen, "--public-url", "https://drop.example.org"]
      const data = inFolder("nowhere data")
      const ended = await workshop.run("other", ["relay", "--data", data, ...flags])
      expect(ended).toMatchObject({ code: 1 })
      expect(ended.stderr).toContain(`cannot listen on ${listen}: `)
      expect(ended.stderr).toContain("choose another --listen")
      expect(readdirSync(data)).not.toContainEqual(expect.stringMatching(/^lock/))
    }
  })
})
