import { describe, expect, it } from "vitest"
import { parseCommandLine } from "../../client/program/command-line.js"
import { UsageError } from "../../client/program/errors.js"

const id = "0f3c9a5be1d24c7788a1b2c3d4e5f607"
const plain = { json: false, quiet: false }

function parse(line: string, env: Record<string, string> = {}) {
  return parseCommandLine({ args: line === "" ? [] : line.split(" "), env })
}

describe("the command line", () => {
  it("reads a sending with all it can say", () => {
    const line =
      "send a b/ - --skip-bad-names -r knot1x@h -r knot1y@h -R list --relay http://127.0.0.1:1 --note hi --name in --sign --expires 7d --times --receipt r --fresh -i work --passphrase-file p --json -q"
    expect(parse(line)).toEqual({
      command: "send",
      paths: ["a", "b/", "-"],
      recipients: ["knot1x@h", "knot1y@h"],
      recipientFiles: ["list"],
      relay: "http://127.0.0.1:1",
      note: "hi",
      name: "in",
      mode: "signature",
      expiresMs: 604_800_000,
      receiptFile: "r",
      skipBadNames: true,
      times: true,
      fresh: true,
      identity: "work",
      passphraseFile: "p",
      output: { json: true, quiet: true },
    })
  })

  it("sends anonymously, without a note, from 'stdin' where nothing else is said", () => {
    expect(parse("send a -r x")).toMatchObject({
      mode: "anonymous",
      note: undefined,
      name: "stdin",
    })
    expect(parse("send a -r x --deniable")).toMatchObject({ mode: "deniable" })
  })

  it("receives into the current folder, replacing nothing, where nothing else is said", () => {
    expect(parse("receive")).toEqual({
      command: "receive",
      ids: [],
      all: false,
      entries: [],
      maxSizeBytes: undefined,
      relay: undefined,
      folder: ".",
      keep: false,
      onExisting: "fail",
      executable: false,
      times: false,
      identity: undefined,
      passphraseFile: undefined,
      output: plain,
    })
    expect(parse(`receive ${id} ${id} -o d --keep --rename --executable`)).toMatchObject({
      ids: [id, id],
      folder: "d",
      keep: true,
      onExisting: "rename",
      executable: true,
    })
  })

  it("knows the other commands", () => {
    expect(parse("init --relay http://127.0.0.1:1 --name work --no-passphrase")).toEqual({
      command: "init",
      relay: "http://127.0.0.1:1",
      name: "work",
      passphrase: false,
      passphraseFile: undefined,
      output: plain,
    })
    expect(parse("address -i work")).toEqual({
      command: "address",
      identity: "work",
      qrCode: false,
      output: plain,
    })
    expect(parse("inbox --json")).toMatchObject({ command: "inbox", output: { json: true } })
    expect(parse(`status ${id}`)).toEqual({ command: "status", id, output: plain })
    expect(parse(`revoke ${id}`)).toEqual({ command: "revoke", id, output: plain })
    expect(parse(`show ${id} -i work`)).toEqual({
      command: "show",
      id,
      relay: undefined,
      identity: "work",
      passphraseFile: undefined,
      output: plain,
    })
    expect(parse(`receive ${id} --entry a/b/ --entry c --max-size 1MiB`)).toMatchObject({
      ids: [id],
      entries: ["a/b", "c"],
      maxSizeBytes: 1024 * 1024,
    })
    expect(parse("receive", { KNOTHOLE_MAX_SIZE: "5" })).toMatchObject({ maxSizeBytes: 5 })
    expect(parse("watch")).toEqual({
      command: "watch",
      relay: undefined,
      folder: ".",
      exec: undefined,
      maxSizeBytes: undefined,
      identity: undefined,
      passphraseFile: undefined,
      output: plain,
    })
    expect(parse("watch -o d --exec notify -i work")).toMatchObject({
      folder: "d",
      exec: ["notify"],
      identity: "work",
    })
    expect(parse("watch -o d -- notify --json $x")).toMatchObject({
      exec: ["notify", "--json", "$x"],
      output: plain,
    })
    expect(parse(`forget ${id}`)).toEqual({ command: "forget", id, output: plain })
    expect(parse(`discard ${id}`)).toMatchObject({ command: "discard", id })
    expect(parse("contact add anna knot1x@h --replace")).toEqual({
      command: "contact",
      action: "add",
      name: "anna",
      address: "knot1x@h",
      relay: undefined,
      replace: true,
      output: plain,
    })
    expect(parse("contact list --json")).toMatchObject({ action: "list", output: { json: true } })
    expect(parse("contact verify anna apple,Pear plum")).toMatchObject({
      action: "verify",
      name: "anna",
      words: ["apple", "Pear", "plum"],
    })
    expect(parse("contact remove Łukasz")).toMatchObject({ action: "remove", name: "Łukasz" })
    expect(parse("identity export f -i work")).toEqual({
      command: "identity",
      action: "export",
      file: "f",
      identity: "work",
      passphraseFile: undefined,
      output: plain,
    })
    expect(parse("identity passphrase --no-passphrase")).toMatchObject({ passphrase: false })
    expect(parse("identity passphrase")).toMatchObject({ passphrase: true })
    expect(parse("relay --listen 127.0.0.1:0 x")).toEqual({
      command: "relay",
      args: ["--listen", "127.0.0.1:0", "x"],
    })
    expect(parse("--version")).toEqual({ command: "version" })
    expect(parse("-V")).toEqual({ command: "version" })
  })

  it("takes the environment's word where a flag is missing, and the flag's where both are there", () => {
    const env = {
      KNOTHOLE_RELAY: "http://127.0.0.1:2",
      KNOTHOLE_IDENTITY: "work",
      KNOTHOLE_PASSPHRASE_FILE: "p",
      KNOTHOLE_EXPIRES: "2d",
      KNOTHOLE_JSON: "1",
      KNOTHOLE_QUIET: "0",
    }
    expect(parse("send a -r x", env)).toMatchObject({
      relay: "http://127.0.0.1:2",
      identity: "work",
      passphraseFile: "p",
      expiresMs: 172_800_000,
      output: { json: true, quiet: false },
    })
    expect(
      parse("send a -r x --relay http://127.0.0.1:1 -i me --expires 1d --passphrase-file q", env),
    ).toMatchObject({
      relay: "http://127.0.0.1:1",
      identity: "me",
      passphraseFile: "q",
      expiresMs: 86_400_000,
    })
    expect(parse("inbox", { KNOTHOLE_RELAY: "", KNOTHOLE_JSON: "" })).toMatchObject({
      relay: undefined,
      output: plain,
    })
  })

  it("refuses what cannot be meant, and says how it is written", () => {
    for (const line of [
      "sned",
      "send",
      "send a --sign --deniable -r x",
      "send a -r",
      "send a -r x --expires soon",
      "send a -r x --secret hunter2",
      "receive not-an-id",
      `receive ${id} --all`,
      "receive --all --entry a",
      `receive ${id} ${id} --entry a`,
      `receive ${id} --entry /`,
      "receive --max-size 5MB",
      "show",
      "watch notify",
      "watch --exec a -- b",
      "watch --exec $x",
      "receive --overwrite --rename",
      "status",
      "status ../../etc",
      `status ${id} ${id}`,
      "inbox -i ../x",
      "init extra",
      "contact",
      "contact list extra",
      "contact add knot1anna knot1x@h",
      "contact add a@b knot1x@h",
      "contact remove -x",
      "identity",
      "identity export",
      "identity import",
      "identity move",
      "identity passphrase --no-passphrase --new-passphrase-file f",
    ]) {
      expect(() => parse(line), line).toThrow(UsageError)
    }
    expect(() => parse("sned")).toThrow("send")
    expect(() => parse("receive not-an-id")).toThrow(/^'not-an-id' is not a delivery id/)
    expect(() => parse("send a --expires soon")).toThrow(/^'soon' is not a length of time/)
    expect(() => parse("send - --name a/b -r x")).toThrow(/^--name must not contain \//)
    expect(() => parse("send -r x")).toThrow("--note")
    expect(parse("send -r x --note hi")).toMatchObject({ paths: [], note: "hi" })
    expect(() => parse("send a --expires soon")).toThrow("'knothole send --help'")
    expect(() => parse("contact")).toThrow("There is add, list, verify, remove")
    expect(() => parse("contact ad x y")).toThrow("add")
    expect(() => parse("contact add anna")).toThrow("'knothole contact add --help'")
    expect(() => parse("inbox", { KNOTHOLE_JSON: "maybe" })).toThrow("KNOTHOLE_JSON")
    expect(() => parse("inbox", { KNOTHOLE_IDENTITY: "../x" })).toThrow(UsageError)
  })

  it("helps on one screen, with examples", () => {
    for (const command of [
      "",
      ..."init address send inbox show receive watch status revoke forget discard contact doctor".split(
        " ",
      ),
      ..."add list verify remove".split(" ").map((name) => `contact ${name}`),
      "completion",
      "identity",
      ..."list export import passphrase move remove".split(" ").map((name) => `identity ${name}`),
    ]) {
      const request = parse(`${command} --help`.trim())
      if (request.command !== "help") throw new Error(`${command}: no help`)
      const lines = request.text.trimEnd().split("\n")
      expect(request.text, command).toContain("Examples:")
      expect(lines.length, command).toBeLessThanOrEqual(40)
      for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(80)
    }
    expect(parse("")).toMatchObject({ command: "help" })
    expect(parse("help relay")).toEqual({ command: "relay", args: ["--help"] })
  })
})
