/**
 * A session at a real terminal (tmux), typed by this program: init, send, Ctrl-C, the same again, inbox,
 * show, receive. Its screens are kept under docs/images/, where the README shows them.
 */
import { spawnSync } from "node:child_process"
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { freePort, program, startServer, stopServer } from "../../bench/processes.js"
import { exactly, showFigures } from "./figures.js"
import { drawTerminal } from "./terminal-picture.js"

// As wide as the longest line, which says how an interrupted sending goes on.
const columns = 112
const rows = 28
const images = path.resolve("docs/images")
const work = mkdtempSync(path.join(tmpdir(), "knothole-screens-"))
const server = `knothole-screens-${process.pid}`
const passphrase = "a hollow in the old oak"
let screensKept = 0

function tmux(...args: string[]): string {
  const run = spawnSync("tmux", ["-L", server, "-f", "/dev/null", ...args], { encoding: "utf8" })
  if (run.status !== 0) throw new Error(`tmux ${args.join(" ")}: ${run.stderr}`)
  return run.stdout
}

const onScreen = () => tmux("capture-pane", "-p", "-t", "session")

async function waitFor(pattern: RegExp, seconds = 60): Promise<void> {
  for (const end = Date.now() + seconds * 1000; !pattern.test(onScreen());) {
    if (Date.now() > end) throw new Error(`${String(pattern)} did not come:\n${onScreen()}`)
    await sleep(50)
  }
}

function press(...keys: string[]): void {
  tmux("send-keys", "-t", "session", ...keys)
}

function enter(line: string): void {
  press("-l", line)
  press("Enter")
}

/** The prompt alone on the last line that has anything. */
const done = /\n?\$ *\n*$/

async function clear(): Promise<void> {
  press("C-l")
  await waitFor(/^\$ *\n*$/)
  tmux("clear-history", "-t", "session")
}

function keep(name: string, title: string): void {
  const screen = tmux("capture-pane", "-e", "-p", "-t", "session")
  const file = path.join(images, `${name}.svg`)
  writeFileSync(file, drawTerminal({ title, screen, columns }))
  screensKept += 1
  console.log(`${path.relative(process.cwd(), file)}\n${onScreen().trimEnd()}\n`)
}

/** As large as it says, and no place on this disk. */
function writeSparse(file: string, bytes: number): void {
  mkdirSync(path.dirname(file), { recursive: true })
  writeFileSync(file, "")
  truncateSync(file, bytes)
}

const MIB = 1024 * 1024
const home = mkdtempSync(path.join(tmpdir(), "alice-"))
const bin = path.join(work, "bin")
mkdirSync(images, { recursive: true })
mkdirSync(bin)
symlinkSync(program, path.join(bin, "knothole"))
writeSparse(path.join(home, "valley/survey.mov"), 900 * MIB)
writeSparse(path.join(home, "valley/photos/owl.jpg"), 5 * MIB)
writeSparse(path.join(home, "valley/photos/old oak.jpg"), 7 * MIB)
writeFileSync(path.join(home, "valley/notes.txt"), "Seen from the tower at nine.\n")

const port = await freePort()
const listen = ["--listen", `127.0.0.1:${port}`, "--data", path.join(work, "relay")]
const relay = await startServer(process.execPath, [program, "relay", ...listen], /listening on/)
try {
  const env = [`HOME=${home}`, `PATH=${bin}:${process.env["PATH"] ?? ""}`, "PS1=$ ", "LANG=C.UTF-8"]
  const shell = ["env", "-i", ...env, "TERM=screen-256color", "bash", "--norc", "--noprofile"]
  tmux(
    "new-session",
    "-d",
    "-s",
    "session",
    "-x",
    `${columns}`,
    "-y",
    `${rows}`,
    "-c",
    home,
    ...shell,
  )
  await waitFor(done)

  enter(`knothole init --relay http://127.0.0.1:${port}`)
  await waitFor(/assphrase[^\n]*: *\n*$/)
  enter(passphrase)
  await waitFor(/(again|repeat|once more)[^\n]*: *\n*$/i)
  enter(passphrase)
  await waitFor(done)
  keep("init", "opening an inbox")
  const address = /knot1[a-z0-9]+@[0-9.:\n]*\d/.exec(onScreen())?.[0]?.replaceAll("\n", "")
  if (address === undefined) throw new Error("init printed no address")
  await clear()

  enter(`ADDRESS=${address}`)
  await clear()
  const send = 'knothole send valley -r $ADDRESS --note "from the tower"'
  enter(send)
  await waitFor(/ (1|2|3|4|5)\d %|[ (](1|2|3|4|5)\d%/)
  press("C-c")
  await waitFor(done)
  enter(send)
  await waitFor(/\d ?%[^\n]*\n*$/)
  keep("send", "sending, interrupted, and the same command again")
  await waitFor(done, 180)
  await clear()

  enter("knothole inbox")
  await waitFor(/assphrase[^\n]*: *\n*$/)
  enter(passphrase)
  await waitFor(done)
  const id = /\b[0-9a-f]{6,32}\b/.exec(onScreen())?.[0]
  if (id === undefined) throw new Error("inbox listed nothing")
  enter(`knothole show ${id.slice(0, 6)}`)
  await waitFor(/assphrase[^\n]*: *\n*$/)
  enter(passphrase)
  await waitFor(done)
  keep("inbox", "what waits, and what is in it")
  await clear()

  enter("knothole receive -o Downloads")
  await waitFor(/assphrase[^\n]*: *\n*$/)
  enter(passphrase)
  await waitFor(done, 180)
  enter("ls Downloads/valley Downloads/valley/photos")
  await waitFor(/old oak[^$]*\$ *\n*$/)
  keep("receive", "picking it up")

  const received = readdirSync(path.join(home, "Downloads/valley")).sort().join(" ")
  showFigures("screens", [
    exactly("received", received, "notes.txt photos survey.mov"),
    exactly("screens kept", screensKept, 4),
  ])
} finally {
  spawnSync("tmux", ["-L", server, "kill-server"])
  await stopServer(relay)
  for (const folder of [work, home]) rmSync(folder, { recursive: true, force: true })
}
