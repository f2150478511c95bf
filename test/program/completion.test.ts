import { execFile, spawnSync } from "node:child_process"
import { chmodSync, existsSync, mkdirSync, writeFileSync } from "node:fs"
import path from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { commandTree } from "../../client/program/command-line.js"
import { Workshop } from "./processes.js"

const workshop = new Workshop()
const bin = path.join(workshop.folder, "bin")
const work = path.join(workshop.folder, "work")
const home = path.join(workshop.folder, "owner")
const main = fileURLToPath(new URL("../../dist/client/main.cjs", import.meta.url))
let id: string

beforeAll(async () => {
  mkdirSync(bin)
  mkdirSync(path.join(work, "a folder"), { recursive: true })
  writeFileSync(path.join(work, "a file.txt"), "x")
  // The command as it is installed, found by its name.
  const command = path.join(bin, "knothole")
  writeFileSync(command, `#!/bin/sh\nexec '${process.execPath}' '${main}' "$@"\n`)
  chmodSync(command, 0o755)
  const relay = await workshop.startRelay("relay")
  const init = ["init", "--relay", relay.url, "--no-passphrase"]
  const address = (await workshop.run("owner", init)).stdout.trim()
  const other = (await workshop.run("owner", [...init, "--name", "work"])).stdout.trim()
  await workshop.run("owner", ["contact", "add", "anna", address])
  await workshop.run("owner", ["contact", "add", "Łukasz", other])
  const sent = await workshop.run("owner", ["send", path.join(work, "a file.txt"), "-r", "anna"])
  id = sent.stdout.trim()
  for (const shell of ["bash", "zsh", "fish"]) {
    const { stdout } = await workshop.run("owner", ["completion", shell])
    writeFileSync(path.join(workshop.folder, `completions.${shell}`), stdout)
  }
}, 60_000)

afterAll(async () => {
  await workshop.close()
})

async function ask(shell: string, program: string, words: readonly string[]): Promise<string[]> {
  const script = path.join(workshop.folder, `completions.${shell}`)
  const { stdout, stderr } = await promisify(execFile)(shell, ["-c", program, script, ...words], {
    cwd: work,
    env: { ...process.env, PATH: `${bin}:${process.env["PATH"]}`, KNOTHOLE_HOME: home },
  })
  expect(stderr).toBe("")
  return stdout.split("\n").filter((line) => line !== "")
}

/** What bash has after Tab; the last word is the one begun. */
function inBash(...words: string[]): Promise<string[]> {
  const program = `
    source "$0"
    COMP_WORDS=(knothole "$@"); COMP_CWORD=$#
    _knothole 2>/dev/null
    printf '%s\\n' "\${COMPREPLY[@]}"`
  return ask("bash", program, words)
}

/** The same of zsh, whose completion system is asked through the functions it would draw with. */
function inZsh(...words: string[]): Promise<string[]> {
  const program = `
    cur_= ; compdef() { }
    compadd() { [[ $1 == -- ]] && shift; print -l -- "$@" }
    _describe() { local name=$argv[-1]; print -l -- "\${(P@)name%%:*}" }
    _files() { if [[ $1 == -/ ]]; then print -l -- *(N/); else print -l -- *(N); fi }
    script=$0; begun=("$@")
    source $script
    words=(knothole $begun); [[ $begun[-1] == '' ]] && words=(knothole $begun '')
    CURRENT=$#words
    _knothole`
  return ask("zsh", program, words)
}

/** Fish says what it would complete when it is asked. */
async function inFish(...words: string[]): Promise<string[]> {
  const program = `source $argv[1]; complete -C "$argv[2]"`
  const script = path.join(workshop.folder, "completions.fish")
  const line = ["knothole", ...words].join(" ")
  const { stdout } = await promisify(execFile)("fish", ["-N", "-c", program, script, line], {
    cwd: work,
    env: { ...process.env, HOME: work, PATH: `${bin}:${process.env["PATH"]}`, KNOTHOLE_HOME: home },
  })
  return stdout.split("\n").flatMap((row) => (row === "" ? [] : [row.split("\t")[0] ?? ""]))
}

function isThere(shell: string): boolean {
  return spawnSync(shell, ["--version"]).error === undefined
}

const begun = (words: readonly string[], start: string) =>
  words.filter((word) => word.startsWith(start))

const shells = [
  { name: "bash", complete: inBash, always: true },
  { name: "zsh", complete: inZsh, always: false },
  { name: "fish", complete: inFish, always: false },
]

for (const { name, complete, always } of shells) {
  const runs = always || isThere(name)
  if (!runs) console.warn(`${name} is not on this machine: its completions are not tried`)

  describe.runIf(runs)(`completion in ${name}`, () => {
    it("has every command that there is, and the commands below them", async () => {
      const tree = commandTree()
      const names = tree.commands.map((command) => command.name())
      expect((await complete("")).sort()).toEqual(names.sort())
      for (const group of tree.commands.filter((command) => command.commands.length > 0)) {
        const below = group.commands.map((command) => command.name())
        expect((await complete(group.name(), "")).sort()).toEqual(below.sort())
      }
      expect(begun(await complete("con"), "con")).toEqual(["contact"])
    })

    it("has every option of a command, those of the relay among them", async () => {
      const tree = commandTree()
      for (const command of tree.commands.filter((one) =>
        ["send", "receive"].includes(one.name()),
      )) {
        const flags = command.options.filter(({ hidden }) => !hidden).map(({ long }) => long ?? "")
        const offered = await complete(command.name(), "--")
        expect(offered.filter((flag) => flag.startsWith("--")).sort()).toEqual(
          [...flags, "--help"].sort(),
        )
      }
      expect(await complete("relay", "--pub")).toContain("--public-url")
      expect(await complete("relay", "status", "--j")).toContain("--json")
      expect(await complete("contact", "add", "--r")).toContain("--replace")
    })

    it("has contacts after -r, identities after -i, and ids of what was sent", async () => {
      expect((await complete("send", "x", "-r", "")).sort()).toEqual(["anna", "Łukasz"].sort())
      expect(begun(await complete("send", "--recipient", "an"), "an")).toEqual(["anna"])
      expect((await complete("inbox", "-i", "")).sort()).toEqual(["default", "work"])
      expect((await complete("contact", "verify", "")).sort()).toEqual(["anna", "Łukasz"].sort())
      expect(await complete("status", "")).toEqual([id])
      expect(await complete("discard", "")).toEqual([])
    })

    it("has files and folders, with spaces in their names, where they are meant", async () => {
      const files = await complete("send", "")
      expect(files.map((file) => file.replace(/\/$|\\/g, "")).sort()).toEqual([
        "a file.txt",
        "a folder",
      ])
      const folders = await complete("receive", "-o", "")
      expect(folders.map((file) => file.replace(/\/$|\\/g, ""))).toEqual(["a folder"])
      expect(await complete("completion", "b")).toContain("bash")
    })
  })
}

describe("completion", () => {
  it("asks for nothing that is not there, and stays silent about what is damaged", async () => {
    const book = path.join(workshop.folder, "broken", "contacts.json")
    mkdirSync(path.dirname(book))
    writeFileSync(book, "{")
    const names = await workshop.run("broken", ["completion", "--names", "contacts"])
    expect(names).toEqual({ code: 0, stdout: "", stderr: "" })
    const none = await workshop.run("nobody", ["completion", "--names", "identities"])
    expect(none).toEqual({ code: 0, stdout: "", stderr: "" })
    expect(existsSync(path.join(workshop.folder, "nobody"))).toBe(false)
    expect(await workshop.run("nobody", ["completion", "tcsh"])).toMatchObject({ code: 2 })
    expect((await workshop.run("nobody", ["completion"])).stderr).toContain("bash, zsh, fish")
  })
})
