import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs"
import path from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { encodeAddress, random } from "../../protocol/index.js"
import { createRelay, loadConfig } from "../../server/index.js"
import { gate, Workshop } from "./processes.js"
import type { Ended, Started } from "./processes.js"

const MIB = 1024 * 1024
const workshop = new Workshop()
let relay: Started
/** The address of `recipient`, at the relay itself. */
let address: string

beforeAll(async () => {
  relay = await workshop.startRelay("relay")
  const init = await workshop.run("recipient", ["init", "--relay", relay.url, "--no-passphrase"])
  expect(init).toMatchObject({ code: 0 })
  address = init.stdout.trim()
}, 60_000)

afterAll(async () => {
  await workshop.close()
})

function inFolder(...names: string[]): string {
  return path.join(workshop.folder, ...names)
}

let files = 0
function aFile(content: string | Uint8Array = "hello"): string {
  const file = inFolder(`file ${files++}.txt`)
  writeFileSync(file, content)
  return file
}

function at(url: string): string {
  return address.replace(/@.*/, `@${new URL(url).host}`)
}

async function sendOne(to: string = address): Promise<string> {
  const sent = await workshop.run("sender", ["send", aFile(), "-r", to])
  expect(sent).toMatchObject({ code: 0 })
  return sent.stdout.trim()
}

/** A failure says which it was, in words for a person, and prints no result. */
function expectFailure(ended: Ended, exit: number, words: string | RegExp): void {
  expect(ended.stderr).toMatch(words)
  expect(ended.stderr).toMatch(/^knothole: /m)
  expect(ended.stderr).not.toContain("This should not happen")
  expect(ended.stdout).toBe("")
  expect(ended.code).toBe(exit)
}

describe("bad recipients and relays", () => {
  it("a mistyped address ends with 2 and says at which character", async () => {
    const place = 20
    const wrong = address[place] === "q" ? "p" : "q"
    const mistyped = address.slice(0, place) + wrong + address.slice(place + 1)
    const ended = await workshop.run("sender", ["send", aFile(), "-r", mistyped])
    expectFailure(ended, 2, `character ${place + 1} is "${wrong}" where "${address[place]}"`)
  })

  it("a mistyped address in a file ends with 2 and says in which line", async () => {
    const list = aFile(`# friends\n\n${address}\nknot1oops@127.0.0.1\n`)
    const ended = await workshop.run("sender", ["send", aFile(), "-R", list])
    expectFailure(ended, 2, `${list}, line 4: `)
    expect(ended.stderr).not.toContain(": address: ")
  })

  it("an address that names no relay ends with 2 and says how to name one", async () => {
    const bare = address.replace(/@.*/, "")
    expectFailure(await workshop.run("sender", ["send", aFile(), "-r", bare]), 2, "--relay URL")
  })

  it("a relay or an identity that cannot be meant ends with 2 even where it is not needed", async () => {
    const send = ["send", aFile(), "-r", address]
    expectFailure(
      await workshop.run("sender", [...send, "--relay", "notaurl"]),
      2,
      "'notaurl' is not the URL of a relay",
    )
    expectFailure(await workshop.run("recipient", [...send, "-i", "nobody"]), 2, "there is default")
    expectFailure(await workshop.run("sender", [...send, "-i", "nobody"]), 2, "knothole init")
    expect(await workshop.run("recipient", ["inbox", "--json"])).toMatchObject({ stdout: "[]\n" })
  })

  it("plain http to a host of the internet ends with 2", async () => {
    const args = ["init", "--relay", "http://drop.example.org", "--no-passphrase"]
    expectFailure(await workshop.run("nobody", args), 2, "use https")
  })

  it("a relay that cannot be reached ends with 5", async () => {
    const gone = await workshop.startRelay("gone")
    gone.child.kill("SIGTERM")
    expect(await gone.ended).toMatchObject({ code: 0 })
    const ended = await workshop.run("sender", ["send", aFile(), "-r", at(gone.url)])
    expectFailure(ended, 5, new URL(gone.url).host)
  })

  it("something that is not a relay ends with 5 and is named", async () => {
    const web = await workshop.serve((_, response) => {
      response.writeHead(200, { "content-type": "text/html" }).end("<h1>It works!</h1>")
    })
    expectFailure(await workshop.run("sender", ["send", aFile(), "-r", at(web)]), 5, web)
    const init = await workshop.run("nobody", ["init", "--relay", web, "--no-passphrase"])
    expectFailure(init, 5, web)
    expect(existsSync(inFolder("nobody", "identities"))).toBe(false)
  })

  it("an inbox the relay does not know ends with 3", async () => {
    const stranger = encodeAddress(random(20), new URL(relay.url).host)
    expectFailure(
      await workshop.run("sender", ["send", aFile(), "-r", stranger]),
      3,
      stranger.slice(0, 43),
    )
  })

  it("a relay that takes no new inboxes ends init with 4 before a key is made", async () => {
    const closed = await workshop.startRelay("closed", ["--registration", "closed"])
    const args = ["init", "--relay", closed.url, "--no-passphrase"]
    expectFailure(await workshop.run("nobody", args), 4, "takes no new inboxes")
    expect(existsSync(inFolder("nobody", "identities"))).toBe(false)
  })

  it("a clock that is an hour off is named, and nothing fails because of it", async () => {
    const front = await workshop.serveFront({
      relay: () => relay.url,
      rewrite: (request, answer) => {
        if (request.url !== "/v1/relay") return answer
        return answer.replace(
          /"time_ms":(\d+)/,
          (_, ms: string) => `"time_ms":${Number(ms) + 3_600_000}`,
        )
      },
    })
    const ended = await workshop.run("sender", ["send", aFile(), "-r", at(front)])
    expect(ended).toMatchObject({ code: 0 })
    expect(ended.stderr).toContain("60 minutes behind the relay")
  })
})

describe("work that nothing can bring to its end", () => {
  const forgetful = [
    'import http from "node:http"',
    // No request ever gets a connection, and nothing is left that could wake the process up.
    "http.Agent.prototype.addRequest = () => {}",
  ].join("\n")
  const env = { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(forgetful)}` }

  it("is a failure, and the last event says so", async () => {
    const ended = await workshop.run("sender", ["send", aFile(), "-r", address, "--json"], { env })
    expect(ended.stderr).toMatch(/^knothole: .*stopped before it was done/)
    expect(JSON.parse(ended.stdout.trim().split("\n").at(-1) ?? "")).toMatchObject({
      event: "done",
      ok: false,
      exit: 1,
    })
    expect(ended.code).toBe(1)
  })

  it("is a failure also before the program knows what it was asked for", async () => {
    const never = `data:text/javascript,${encodeURIComponent("await new Promise(() => {})")}`
    const loader = `import { register } from "node:module"
      register("data:text/javascript," + encodeURIComponent(\`
        export const resolve = (name, context, next) =>
          name.endsWith("program/run.js") ? { url: ${JSON.stringify(never)}, shortCircuit: true } : next(name, context)
      \`))`
    const env = { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(loader)}` }
    expect(await workshop.run("sender", ["--version"], { env })).toMatchObject({ code: 1 })
  })
})

describe("bad keys", () => {
  it("a wrong passphrase ends with 4", async () => {
    const right = aFile("correct horse\n")
    const args = ["init", "--relay", relay.url, "--name", "guarded", "--passphrase-file", right]
    expect(await workshop.run("guarded", args)).toMatchObject({ code: 0 })
    const open = (file: string) => workshop.run("guarded", ["inbox", "--passphrase-file", file])
    expectFailure(await open(aFile("wrong horse\n")), 4, "passphrase does not open")
    expectFailure(await open(inFolder("nope")), 2, "there is no such file")
    expectFailure(await open(workshop.folder), 2, "it is a folder")
    expect(await open(right)).toMatchObject({ code: 0 })
  })

  it("no passphrase and no terminal ends with 2 and says what to give", async () => {
    expectFailure(await workshop.run("guarded", ["inbox"]), 2, "--passphrase-file")
    const init = await workshop.run("nobody", ["init", "--relay", relay.url])
    expectFailure(init, 2, /--passphrase-file.*--no-passphrase/s)
    expect(existsSync(inFolder("nobody", "identities"))).toBe(false)
  })

  it("a damaged key file ends with 4 and names the file", async () => {
    const init = ["init", "--relay", relay.url, "--no-passphrase"]
    expect(await workshop.run("damaged", init)).toMatchObject({ code: 0 })
    const file = inFolder("damaged", "identities", "default.key")
    const whole = readFileSync(file)
    for (const damage of [
      whole.subarray(0, -1),
      whole.subarray(0, 0),
      Buffer.concat([whole, whole]),
      Buffer.from(whole.map((byte, index) => (index === 700 ? byte ^ 1 : byte))),
      Buffer.from(whole.map((byte, index) => (index === whole.length - 40 ? byte ^ 1 : byte))),
    ]) {
      writeFileSync(file, damage)
      expectFailure(await workshop.run("damaged", ["inbox"]), 4, `${file} is damaged\n`)
    }
    writeFileSync(file, whole)
    expect(await workshop.run("damaged", ["inbox"])).toMatchObject({ code: 0 })
  })

  it("a key file that others may read ends with 4 and says which chmod to run", async () => {
    const file = inFolder("damaged", "identities", "default.key")
    chmodSync(file, 0o644)
    expectFailure(await workshop.run("damaged", ["inbox"]), 4, `chmod 600 ${file}`)
    chmodSync(file, 0o600)
    expect(await workshop.run("damaged", ["inbox"])).toMatchObject({ code: 0 })
  })

  it("no identity at all ends with 2 and says how to make one", async () => {
    expectFailure(await workshop.run("nobody", ["inbox"]), 2, "knothole init --relay")
    expectFailure(await workshop.run("recipient", ["inbox", "-i", "work"]), 2, "there is default")
  })

  it("a home where no folder can be made ends with 1 and names what it should be in", async () => {
    for (const args of [
      ["send", aFile(), "-r", address],
      ["init", "--relay", relay.url, "--no-passphrase"],
    ]) {
      const ended = await workshop.run("nobody", args, { env: { KNOTHOLE_HOME: "/proc/x/y" } })
      expectFailure(ended, 1, "cannot make a folder in /proc: ")
    }
  })

  it("init never replaces an identity", async () => {
    const file = inFolder("recipient", "identities", "default.key")
    const before = readFileSync(file)
    const again = await workshop.run("recipient", ["init", "--relay", relay.url, "--no-passphrase"])
    expectFailure(again, 1, "exists already")
    expect(readFileSync(file).equals(before)).toBe(true)
  })
})

describe("bad sources", () => {
  it("a file that is not there ends with 1 and is named", async () => {
    const missing = inFolder("no\u202Esuch")
    const ended = await workshop.run("sender", ["send", aFile(), missing, "-r", address])
    expectFailure(ended, 1, /no\\u\{202e\}such/)
  })

  it("a name of two lines is told within one", async () => {
    const folder = inFolder("two lines")
    mkdirSync(folder)
    writeFileSync(path.join(folder, "kept"), "")
    symlinkSync("nowhere", path.join(folder, "link\nknothole: note: forged"))
    const ended = await workshop.run("sender", ["send", folder, "-r", address])
    expect(ended.stderr).toContain(String.raw`link\nknothole: note: forged (a symbolic link)`)
    expect(ended.stderr).not.toMatch(/^knothole: note/m)
  })

  it("a file that cannot be read ends with 1 and is named before anything is sent", async () => {
    // Readable by nobody, root included; only Linux has it.
    const unreadable = "/proc/sys/vm/drop_caches"
    const ended = await workshop.run("sender", ["send", aFile(), unreadable, "-r", address])
    expectFailure(ended, 1, unreadable)
  })

  it("a file that changes while it is read ends with 1 and is named", async () => {
    const { passed, open } = gate()
    const asked = gate()
    const front = await workshop.serveFront({
      relay: () => relay.url,
      hold: (request) => {
        if (request.method !== "PUT") return undefined
        asked.open()
        return passed
      },
    })
    // More than the sender reads ahead of what it has sent.
    const file = aFile()
    truncateSync(file, 256 * MIB)
    const running = workshop.start("sender", ["send", file, "-r", at(front)])
    await asked.passed
    appendFileSync(file, "one more line\n")
    open()
    expectFailure(await running.ended, 1, path.basename(file))
  })

  it("stdin twice, or nothing to send, ends with 2", async () => {
    expectFailure(await workshop.run("sender", ["send", "-", "-", "-r", address]), 2, "stdin")
    expectFailure(await workshop.run("sender", ["send", "-r", address]), 2, "nothing to send")
  })
})

describe("two at once, and one that is stopped", () => {
  it("the second process on one upload ends with 1; an interrupted one tells how to go on, and goes on", async () => {
    const { passed, open } = gate()
    const asked = gate()
    let holding = true
    let held = 0
    let first: string | undefined
    const front = await workshop.serveFront({
      relay: () => relay.url,
      hold: (request) => {
        if (!holding || request.method !== "PUT") return undefined
        // Which part that is depends on which thread was faster.
        first ??= request.url
        if (request.url === first) return undefined
        // Three go out beside the first request; the fourth only when that one has been answered.
        held += 1
        if (held === 4) asked.open()
        return passed
      },
    })
    const file = aFile()
    truncateSync(file, 48 * MIB)
    const args = ["send", file, "-r", at(front)]
    const resumer = workshop.start("resumer", args)
    await asked.passed

    const second = await workshop.run("resumer", args)
    expectFailure(second, 1, `process ${resumer.child.pid}`)

    resumer.child.kill("SIGINT")
    const stopped = await resumer.ended
    expectFailure(stopped, 130, "run the same again")
    expect(stopped.stderr).toContain("What has arrived is kept for a day.")
    expect(stopped.stderr).toContain(`knothole send '${file}' -r ${at(front)}`)

    holding = false
    open()
    const resumed = await workshop.run("resumer", args)
    expect(resumed).toMatchObject({ code: 0 })
    expect(resumed.stderr).toContain("resumed")
    expect(resumed.stdout).toMatch(/^[0-9a-f]{32}\n$/)
  })
})

describe("bad pickups", () => {
  it("a destination that exists ends with 1, and nothing is touched", async () => {
    const id = await sendOne()
    const name = path.basename(aFile())
    const into = inFolder("taken names")
    mkdirSync(into)
    const sentName = `file ${files - 2}.txt`
    writeFileSync(path.join(into, sentName), "mine")
    writeFileSync(path.join(into, name), "mine too")
    const receive = (...more: string[]) =>
      workshop.run("recipient", ["receive", id, "-o", into, ...more])

    expectFailure(await receive(), 1, sentName)
    expect(readFileSync(path.join(into, sentName), "utf8")).toBe("mine")

    const renamed = await receive("--rename", "--keep")
    expect(renamed).toMatchObject({ code: 0 })
    expect(readFileSync(renamed.stdout.trim(), "utf8")).toBe("hello")
    expect(readFileSync(path.join(into, sentName), "utf8")).toBe("mine")

    const replaced = await receive("--overwrite")
    expect(replaced).toMatchObject({ code: 0 })
    expect(readFileSync(path.join(into, sentName), "utf8")).toBe("hello")
    expect(readdirSync(into)).toHaveLength(3)
  })

  it("a destination that is a file ends with 1 and words about -o, and nothing is fetched", async () => {
    const id = await sendOne()
    await sendOne()
    const file = inFolder("no folder")
    writeFileSync(file, "mine")
    for (const which of [id, "--all"]) {
      for (const into of [file, path.join(file, "below")]) {
        const ended = await workshop.run("recipient", ["receive", which, "-o", into])
        expectFailure(ended, 1, `${file} is no folder`)
        expect(ended.stderr.match(/-o names the folder/g)).toHaveLength(1)
        expect(ended.stderr).toContain("Name another one with -o DIR")
      }
    }
    expect(readFileSync(file, "utf8")).toBe("mine")
  })

  it("a destination where no folder can be made ends with 1 and names what it should be in", async () => {
    const id = await sendOne()
    // Only Linux has it: a folder in which making another is answered as if it were not there.
    const ended = await workshop.run("recipient", ["receive", id, "-o", "/proc/x/y"])
    expectFailure(ended, 1, "cannot make a folder in /proc: ")
    const watch = await workshop.run("recipient", ["watch", "-o", "/proc/x"])
    expectFailure(watch, 1, "cannot make a folder in /proc: ")
  })

  it("a destination behind a link that leads nowhere ends with 1 and names the link", async () => {
    const id = await sendOne()
    const link = inFolder("to nowhere")
    symlinkSync(inFolder("never made"), link)
    const ended = await workshop.run("recipient", ["receive", id, "-o", path.join(link, "in")])
    expectFailure(ended, 1, `${link} is no folder`)
  })

  it("a delivery that was taken, discarded or never was ends with 3", async () => {
    const taken = await sendOne()
    const receive = (id: string, into: string) =>
      workshop.run("recipient", ["receive", id, "-o", inFolder(into)])
    expect(await receive(taken, "first")).toMatchObject({ code: 0 })
    expectFailure(await receive(taken, "second"), 3, taken)
    const discarded = await sendOne()
    expect(await workshop.run("recipient", ["discard", discarded])).toMatchObject({ code: 0 })
    expectFailure(await receive(discarded, "third"), 3, discarded)
    const never = "0".repeat(32)
    expectFailure(await receive(never, "fourth"), 3, never)
    expect(["second", "third", "fourth"].filter((name) => existsSync(inFolder(name)))).toEqual([])
  })

  it("a delivery the sender revoked ends with 3, and its status says so", async () => {
    const id = await sendOne()
    const revoked = await workshop.run("sender", ["revoke", id])
    expect(revoked).toMatchObject({ code: 0, stdout: "revoked\n" })
    const args = ["receive", id, "-o", inFolder("revoked")]
    expectFailure(await workshop.run("recipient", args), 3, id)
    for (const command of ["status", "revoke"]) {
      expect(await workshop.run("sender", [command, id])).toMatchObject({
        code: 0,
        stdout: "revoked\n",
      })
    }
  })

  it("a delivery that has expired ends with 3, and its status says so", async () => {
    let passedMs = 0
    const config = loadConfig({
      flags: { listen: "127.0.0.1:0", data: inFolder("forgetful") },
      env: {},
    })
    const forgetful = await createRelay(config, {
      clock: {
        wallMs: () => Date.now() + passedMs,
        monotonicMs: () => performance.now() + passedMs,
        after: (delayMs, then) => {
          const timer = setTimeout(then, delayMs)
          return () => clearTimeout(timer)
        },
      },
      writeLog: () => {},
    })
    try {
      const { url } = await forgetful.start()
      const init = await workshop.run("late", ["init", "--relay", url, "--no-passphrase"])
      const id = await sendOne(init.stdout.trim())
      // What was once listed is known by its id afterwards; the relay keeps none of what is gone.
      expect((await workshop.run("late", ["inbox"])).stdout).toContain(id)
      passedMs = 15 * 86_400_000
      await forgetful.sweep()
      const receive = ["receive", id, "-o", inFolder("late files")]
      expectFailure(await workshop.run("late", receive), 3, "expired")
      expect(await workshop.run("late", ["inbox"])).toMatchObject({ code: 0, stdout: "" })
      const status = await workshop.run("sender", ["status", id])
      expect(status).toMatchObject({ code: 0, stdout: "expired\n" })
      const revoke = await workshop.run("sender", ["revoke", id])
      expectFailure(revoke, 3, "nothing was left to delete: expired")
    } finally {
      await forgetful.stop()
    }
  })

  it("the status of a delivery that was not sent from here ends with 3", async () => {
    const id = "1".repeat(32)
    for (const command of ["status", "revoke"]) {
      const ended = await workshop.run("sender", [command, id])
      expectFailure(ended, 3, id)
      expect(ended.stderr).toContain("another machine, account or KNOTHOLE_HOME")
      expectFailure(await workshop.run("sender", [command, "111111"]), 3, "KNOTHOLE_HOME")
    }
    const receive = ["receive", "111111", "-o", inFolder("none begins so")]
    expectFailure(await workshop.run("recipient", receive), 3, "begins with 111111")
  })
})

describe("limits", () => {
  it("a delivery too large, an inbox too full and a relay without room end with 8", async () => {
    const small = await workshop.startRelay("small", [
      "--delivery-limit",
      "1MiB",
      "--inbox-deliveries",
      "1",
    ])
    const init = await workshop.run("narrow", ["init", "--relay", small.url, "--no-passphrase"])
    const narrow = init.stdout.trim()
    const large = aFile(new Uint8Array(2 * MIB))
    expectFailure(await workshop.run("sender", ["send", large, "-r", narrow]), 8, "limit")
    await sendOne(narrow)
    expectFailure(await workshop.run("sender", ["send", aFile(), "-r", narrow]), 8, "full")

    const full = await workshop.startRelay("full", ["--disk-headroom", "8191TiB"])
    const other = await workshop.run("crowded", ["init", "--relay", full.url, "--no-passphrase"])
    expect(other).toMatchObject({ code: 0 })
    const args = ["send", aFile(), "-r", other.stdout.trim()]
    expectFailure(await workshop.run("sender", args), 8, "no room")
  })
})
