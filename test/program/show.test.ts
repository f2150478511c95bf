import { chmodSync, readFileSync } from "node:fs"
import path from "node:path"
import { afterAll, beforeAll, expect, it } from "vitest"
import { OneRelay } from "./one-relay.js"

const one = new OneRelay()
let address: string
/** Each GET for a piece of a delivery, as the relay got it: its last word and the bytes asked for. */
const asked: { piece: string; bytes: number }[] = []

beforeAll(async () => {
  const front = await one.workshop.serveFront({
    relay: () => one.url,
    hold: ({ url = "", headers }) => {
      const [, piece] = /^\/v1\/deliveries\/\w+\/(\w+)$/.exec(url) ?? []
      const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? "") ?? []
      if (piece !== undefined) asked.push({ piece, bytes: Number(to ?? 0) - Number(from ?? 0) + 1 })
      return undefined
    },
  })
  await one.start("--public-url", front, "--registration", "open")
  address = await one.newInbox("recipient", front)
}, 60_000)

afterAll(() => one.workshop.close())

const escaped = String.raw`a\nb\u{202e}.txt`
const hostile = "a\nb\u202E.txt"

it("a delivery is shown with its entries, whatever they are called, and none of its body is fetched", async () => {
  const tree = one.aTree({
    "run.sh": "#!",
    [hostile]: "x",
    "deep/er/big": "y".repeat(5000),
    none: null,
  })
  chmodSync(path.join(tree, "run.sh"), 0o755)
  const name = path.basename(tree)
  const id = await one.send("sender", tree, address, "--note", "first\nSender: me", "--times")
  asked.length = 0

  const shown = await one.run("recipient", "show", id.slice(0, 9))
  const lines = shown.stdout.trimEnd().split("\n")
  expect(lines[0]).toBe("KIND        SIZE     PATH")
  expect(lines.slice(1).sort()).toEqual(
    [
      `file         1 B     ${name}/${escaped}`,
      `file    4.88 KiB     ${name}/deep/er/big`,
      `file         2 B  x  ${name}/run.sh`,
      ...["", "deep/", "deep/er/", "none/"].map((below) => `folder               ${name}/${below}`),
    ].sort(),
  )
  expect(shown.stderr).toContain(`${id}: 3 files, 4 folders, 4.89 KiB\n`)
  expect(shown.stderr).toMatch(/^Received: \d{4}-.* [+-]\d\d:\d\d\nExpires: {2}\d{4}-/m)
  expect(shown.stderr).toContain("Sender:   unverified\nNote: first\n      Sender: me\n")
  expect(new Set(asked.map(({ piece }) => piece))).toEqual(new Set(["manifest"]))

  const [listed] = JSON.parse((await one.run("recipient", "inbox", "--json")).stdout)
  const { listing, ...rest } = JSON.parse((await one.run("recipient", "show", id, "--json")).stdout)
  const { new: _, ...row } = listed
  expect(rest).toEqual(row)
  expect(listing).toContainEqual({
    path: `${name}/${hostile}`,
    kind: "file",
    size: 1,
    executable: false,
    modified: expect.stringMatching(/^\d{4}-.*Z$/),
  })
  expect(listing).toContainEqual(
    expect.objectContaining({ path: `${name}/run.sh`, executable: true }),
  )
  expect(listing).toContainEqual(
    expect.objectContaining({ path: `${name}/none`, kind: "folder", size: 0, executable: false }),
  )
})

it("what is not there cannot be shown, and one that does not wait neither", async () => {
  const gone = await one.workshop.run("recipient", ["show", "0".repeat(32)])
  expect(gone).toMatchObject({ code: 3, stdout: "" })
  expect((await one.workshop.run("recipient", ["show", "012345"])).code).toBe(3)
  const other = await one.workshop.run("recipient", ["show", "0".repeat(32), "-i", "nobody"])
  expect(other).toMatchObject({ code: 2, stdout: "" })
})

it("one entry out of many is received by its own parts alone, named as shown or as it is", async () => {
  const content = Buffer.alloc(3_000_000, "z")
  const tree = one.aTree({
    big: Buffer.alloc(6_000_000, 1),
    mid: content,
    [hostile]: "here",
    last: Buffer.alloc(2_000_000, 2),
  })
  const name = path.basename(tree)
  const id = await one.send("sender", tree, address)
  const body = () =>
    asked.filter(({ piece }) => piece === "body").reduce((sum, { bytes }) => sum + bytes, 0)

  asked.length = 0
  const into = one.inFolder("entries")
  const got = await one.run("recipient", "receive", id, "--entry", `${name}/mid`, "-o", into)
  expect(got.stdout).toBe(`${path.join(into, name, "mid")}\n`)
  expect(readFileSync(path.join(into, name, "mid")).equals(content)).toBe(true)
  // A file's chunks touch at most the parts of 1 MiB that it begins and ends in.
  expect(body()).toBeGreaterThanOrEqual(content.length)
  expect(body()).toBeLessThanOrEqual(content.length + 2 * 1024 * 1024)

  asked.length = 0
  const shown = ["--entry", `${name}/${escaped}`]
  const events = await one.events("recipient", "receive", id, ...shown, "-o", into)
  expect(events.find(({ event }) => event === "received")).toMatchObject({
    id,
    files: 1,
    bytes: 4,
    paths: [path.join(into, name, hostile)],
  })
  expect(readFileSync(path.join(into, name, hostile), "utf8")).toBe("here")
  expect(body()).toBeLessThanOrEqual(2 * 1024 * 1024)
  const raw = ["--entry", `${name}/${hostile}`, "--entry", `${name}/mid/`]
  await one.run("recipient", "receive", id, ...raw, "-o", one.inFolder("raw"))
  expect((await one.run("recipient", "inbox")).stdout).toContain(id)

  const wrong = ["receive", id, "--entry", `${name}/Mid`, "-o", into]
  const unknown = await one.workshop.run("recipient", wrong)
  expect(unknown).toMatchObject({ code: 3, stdout: "" })
  expect(unknown.stderr).toContain(`near it:\n  ${name}/mid\n`)
  expect(unknown.stderr).toContain(`'knothole show ${id}'`)
  const twice = await one.workshop.run("recipient", ["receive", id, "--entry", name, "-o", into])
  expect(twice).toMatchObject({ code: 1, stdout: "" })
  expect(twice.stderr).toContain(path.join(into, name, "mid"))
})

it("larger deliveries of strangers are left alone unless they are named", async () => {
  const home = "careful"
  const to = await one.newInbox(home, address.replace(/.*@/, "http://"))
  const small = await one.send("sender", one.aTree({ a: "small" }), to)
  const large = await one.send("sender", one.aTree({ a: Buffer.alloc(20_000) }), to)
  const into = one.inFolder("careful files")

  const all = await one.run(home, "receive", "--all", "--max-size", "10KiB", "-o", into)
  expect(all.stdout).toContain(into)
  expect(all.stderr).toContain(`${large} is left alone: 19.5 KiB of an unknown sender`)
  expect((await one.run(home, "inbox")).stdout).not.toContain(small)

  const env = { KNOTHOLE_MAX_SIZE: "10000" }
  const none = await one.workshop.run(home, ["receive", "-o", into, "--json"], { env })
  expect(none).toMatchObject({ code: 3 })
  const events = none.stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line))
  expect(events).toContainEqual({
    v: 1,
    event: "left",
    id: large,
    reason: "too_large",
    size: 20_000,
  })
  expect(events.at(-1)).toMatchObject({ error: { code: "nothing_waits" } })

  const named = await one.workshop.run(home, ["receive", large, "-o", into], { env })
  expect(named, named.stderr).toMatchObject({ code: 0 })
})
