import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import path from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { openState, send } from "../../client/index.js"
import type { SendOptions } from "../../client/index.js"
import { createIdentity, fingerprintWords, openIdentity } from "../../protocol/index.js"
import type { Identity } from "../../protocol/index.js"
import { Workshop } from "./processes.js"
import type { Started } from "./processes.js"

const workshop = new Workshop()
let relay: Started
let anna: { readonly address: string; readonly identity: Identity; readonly words: string[] }
let owner: string

beforeAll(async () => {
  relay = await workshop.startRelay("relay")
  owner = await newInbox("owner")
  anna = await someone("anna")
}, 60_000)

afterAll(async () => {
  await workshop.close()
})

function inFolder(...names: string[]): string {
  return path.join(workshop.folder, ...names)
}

async function newInbox(home: string): Promise<string> {
  const init = await workshop.run(home, ["init", "--relay", relay.url, "--no-passphrase"])
  expect(init, init.stderr).toMatchObject({ code: 0 })
  return init.stdout.trim()
}

async function someone(home: string) {
  const address = await newInbox(home)
  const key = readFileSync(inFolder(home, "identities", "default.key"))
  const identity = await openIdentity(key, undefined)
  return { address, identity, words: fingerprintWords(identity.bundle.fingerprint) }
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

let files = 0
function aFile(content = "hello"): string {
  const file = inFolder(`file-${files++}.txt`)
  writeFileSync(file, content)
  return file
}

/** A home with an identity of its own and anna among its contacts. */
async function withAnna(home: string): Promise<string> {
  const address = await newInbox(home)
  await run(home, "contact", "add", "anna", anna.address)
  return address
}

async function rows(home: string): Promise<{ id: string; sender: object }[]> {
  return JSON.parse((await run(home, "inbox", "--json")).stdout)
}

describe("a contact", () => {
  it("is added with the key its address names, and listed with the words to compare", async () => {
    const added = await run("lists", "contact", "add", "Anna", anna.address)
    expect(added.stdout).toBe(`${anna.words.join(" ")}\n`)
    expect(added.stderr).toContain("knothole contact verify Anna")
    const list = await run("lists", "contact", "list")
    expect(list.stdout).toBe(
      `Anna  ${anna.address}  not compared yet\n      ${anna.words.join(" ")}\n`,
    )
    expect(JSON.parse((await run("lists", "contact", "list", "--json")).stdout)).toEqual([
      {
        name: "Anna",
        address: anna.address,
        verified: false,
        words: anna.words,
        fingerprint: Buffer.from(anna.identity.bundle.fingerprint).toString("hex"),
      },
    ])
    expect(statSync(inFolder("lists", "contacts.json")).mode & 0o777).toBe(0o600)
    await run("lists", "contact", "add", "anna", anna.address)
    await run("lists", "contact", "remove", "ANNA")
    expect((await run("lists", "contact", "list")).stdout).toBe("")
    await fails(2, "there is no contact", "lists", "contact", "remove", "anna")
  })

  it("is not added with a key that the relay made up", async () => {
    const front = await workshop.serve((request, response) => {
      if (request.url?.startsWith("/v1/inboxes/") === true) {
        response.writeHead(200, { "content-type": "application/octet-stream" })
        response.end(otherBundle)
        return
      }
      void fetch(new URL(request.url ?? "/", relay.url)).then(async (answer) => {
        response.writeHead(answer.status, { "content-type": "application/json" })
        response.end(await answer.text())
      })
    })
    const otherBundle = (await createIdentity()).bundle.bytes
    const there = anna.address.replace(/@.*/, `@${new URL(front).host}`)
    await fails(4, "not those of", "tricked", "contact", "add", "anna", there)
    expect(existsSync(inFolder("tricked", "contacts.json"))).toBe(false)
  })

  it("whose address is mistyped, unknown or another name's is refused", async () => {
    await run("refuses", "contact", "add", "anna", anna.address)
    const nobody = (await createIdentity()).bundle.address
    const at = new URL(relay.url).host
    await fails(3, "no inbox", "refuses", "contact", "add", "bob", `${nobody}@${at}`)
    await fails(2, "names no relay", "refuses", "contact", "add", "bob", nobody)
    await fails(
      2,
      /does not occur in addresses/,
      "refuses",
      "contact",
      "add",
      "bob",
      `knot1oops@${at}`,
    )
    await fails(1, "'anna' already", "refuses", "contact", "add", "bob", anna.address)
  })

  it("keeps its address until --replace, which names both and forgets the comparing", async () => {
    const bob = await someone("bob")
    await run("changes", "contact", "add", "friend", anna.address)
    await run("changes", "contact", "verify", "friend", ...anna.words)
    const refused = await fails(1, "--replace", "changes", "contact", "add", "friend", bob.address)
    expect(refused.stderr).toContain(anna.address)
    expect(refused.stderr).toContain(bob.address)
    await run("changes", "contact", "add", "friend", bob.address, "--replace")
    const list = await run("changes", "contact", "list")
    expect(list.stdout).toContain(bob.address)
    expect(list.stdout).toContain("not compared yet")
  })

  it("that is added once more as it is stays as it is, and is not said to have changed", async () => {
    await run("repeats", "contact", "add", "anna", anna.address)
    const again = await run("repeats", "contact", "add", "anna", anna.address)
    expect(again.stderr).toContain("'anna' is here already, and not compared yet")
  })

  it("is verified by its words only, and words that differ are said so", async () => {
    await run("verifies", "contact", "add", "anna", anna.address)
    const [first = "", ...rest] = anna.words
    const wrong = [first === "zoo" ? "zone" : "zoo", ...rest]
    await fails(4, "word 1 is not", "verifies", "contact", "verify", "anna", ...wrong)
    await fails(2, "7 words where 8", "verifies", "contact", "verify", "anna", ...rest)
    await fails(2, "no terminal", "verifies", "contact", "verify", "anna")
    expect((await run("verifies", "contact", "list")).stdout).toContain("not compared yet")
    await run("verifies", "contact", "verify", "anna", anna.words.join(" ").toUpperCase())
    expect((await run("verifies", "contact", "list")).stdout).toMatch(/ {2}verified \d{4}-/)
  })
})

describe("sending to a contact", () => {
  it("takes its name for its address, in -r and in a recipients file", async () => {
    await withAnna("sends")
    const byName = await run("sends", "send", aFile(), "-r", "Anna")
    expect((await rows("anna")).map(({ id }) => id)).toContain(byName.stdout.trim())
    const list = aFile(`# friends\n\n  anna\t\r\n${owner}\n${anna.address}\n`)
    const sent = await run("sends", "send", aFile(), "-R", list, "--json")
    const event = sent.stdout.split("\n").find((line) => line.includes('"sent"')) ?? ""
    expect(JSON.parse(event).recipients).toHaveLength(2)
    const piped = await workshop.run("sends", ["send", aFile(), "-R", "-"], { input: "anna\n" })
    expect(piped).toMatchObject({ code: 0 })
  })

  it("names every bad line with its number, and sends nothing", async () => {
    await withAnna("slips")
    const list = aFile(`ana\nanna\n# x\nknot1oops@127.0.0.1\n${"bob".repeat(3)}\n`)
    const ended = await fails(2, `${list}, line 1: 'ana'`, "slips", "send", aFile(), "-R", list)
    expect(ended.stderr).toContain(`${list}, line 4: `)
    expect(ended.stderr).toContain(`${list}, line 5: 'bobbobbob'`)
    expect(ended.stderr).not.toContain("line 2")
    expect(ended.stderr).toContain("there is anna")
    expect(existsSync(inFolder("slips", "state", "sent"))).toBe(false)
  })

  it("says what is wrong with a damaged address book, and leaves it alone", async () => {
    await withAnna("damaged")
    const book = inFolder("damaged", "contacts.json")
    writeFileSync(book, "{")
    await fails(1, `${book} is damaged`, "damaged", "send", aFile(), "-r", "anna")
    await fails(1, "move it away", "damaged", "contact", "add", "bob", anna.address)
    await fails(1, "is damaged", "damaged", "inbox")
    expect(readFileSync(book, "utf8")).toBe("{")
    await run("damaged", "send", aFile(), "-r", anna.address)
  })
})

describe.each([
  { flag: "--sign", mode: "signature", kind: "signed", mark: ", signed" },
  { flag: "--deniable", mode: "deniable", kind: "deniable", mark: "" },
] as const)("a delivery with $flag", ({ flag, mode, kind, mark }) => {
  it("from a contact is shown as from them, and whether words were compared", async () => {
    const home = `knows-${mode}`
    const address = await withAnna(home)
    const sent = await run("anna", "send", aFile(), "-r", address, flag)
    const id = sent.stdout.trim()
    const listed = await run(home, "inbox")
    expect(listed.stdout).toContain(`  from anna (contact not yet compared${mark})`)
    await run(home, "contact", "verify", "anna", ...anna.words)
    expect((await run(home, "inbox")).stdout).toContain(`  from anna (verified contact${mark})`)
    expect(await rows(home)).toMatchObject([
      { id, sender: { kind, contact: "anna", verified_contact: true } },
    ])
    const into = inFolder(`from-${mode}`)
    const received = await run(home, "receive", "-o", into)
    expect(received.stderr).toContain(`Sender: from anna (verified contact${mark})`)
  })

  it("from someone unknown is a claim, and from anna as soon as she is a contact", async () => {
    const home = `meets-${mode}`
    const address = await newInbox(home)
    await run("anna", "send", aFile(), "-r", address, flag, "--note", "so long ".repeat(30))
    const claim = `claims a sender, not verified: ${anna.words.join(" ")}`
    const list = async () => (await run(home, "inbox")).stdout
    const unfolded = async () => (await list()).replaceAll("\n    ", " ")
    expect(await unfolded()).toContain(claim)
    for (const line of (await list()).split("\n")) expect(line.length).toBeLessThanOrEqual(80)
    await run(home, "contact", "add", "anna", anna.address)
    expect((await run(home, "inbox")).stdout).toContain("from anna (")
    await run(home, "contact", "remove", "anna")
    expect(await unfolded()).toContain(claim)
  })

  it("by an impostor with a key of their own under a contact's fingerprint is refused", async () => {
    const home = `attacked-${mode}`
    const address = await withAnna(home)
    await run(home, "contact", "verify", "anna", ...anna.words)
    const impostor = await createIdentity()
    const { fingerprint } = anna.identity.bundle
    const claimed = { ...impostor, bundle: { ...impostor.bundle, fingerprint } }
    const sender: SendOptions["sender"] = { identity: claimed, mode }
    const folder = inFolder(`impostor-${mode}`)
    mkdirSync(folder)
    const source = { kind: "path", path: aFile("forged") } as const
    const state = openState(folder)
    const { deliveries } = await send({ recipients: [address], sources: [source], sender, state })
    const id = deliveries[0]?.id ?? ""
    const { stdout } = await run(home, "inbox")
    expect(stdout).toContain("it claims a sender that it does not come from")
    expect(stdout).not.toContain("from anna")
    expect(await rows(home)).toMatchObject([{ id, sender: { kind: "refused" } }])
    const into = inFolder(`forged-${mode}`)
    await fails(4, "claims a sender that it does not come from", home, "receive", id, "-o", into)
    expect(existsSync(into)).toBe(false)
  })
})
