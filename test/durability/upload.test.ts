/**
 * A receipt means that everything it speaks of is on stable storage (docs/threat-model.md). Watched from
 * outside, by the system calls of a real relay process during one upload.
 */
import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { freePort, mustRun, personEnv, program } from "../../bench/processes.js"
import { descriptorPath, readSystemCalls, type SystemCall } from "./system-calls.js"

const hasStrace = spawnSync("strace", ["-V"]).status === 0
if (!hasStrace && process.env["CI"] !== undefined)
  throw new Error("strace is not installed, and CI needs it")
if (!hasStrace) console.warn("left out: the durability test, because strace is not installed")

describe.runIf(hasStrace)("one upload, seen by its system calls", () => {
  const work = mkdtempSync(path.join(tmpdir(), "knothole-durability-"))
  const data = path.join(work, "relay")
  let calls: SystemCall[] = []
  let stored: string[] = []
  let receiptAt = -1

  beforeAll(async () => {
    const port = await freePort()
    const trace = path.join(work, "trace")
    const watched =
      "openat,rename,renameat,renameat2,fdatasync,fsync,syncfs,write,writev,sendto,sendmsg"
    const strace = ["-f", "-y", "-s", "400", "-e", `trace=${watched}`, "-o", trace]
    const relay = spawn(
      "strace",
      [
        ...strace,
        process.execPath,
        program,
        "relay",
        "--listen",
        `127.0.0.1:${port}`,
        "--data",
        data,
      ],
      { stdio: ["ignore", "ignore", "pipe"] },
    )
    let said = ""
    for await (const piece of relay.stderr.setEncoding("utf8")) {
      said += String(piece)
      if (said.includes("listening on")) break
    }
    const recipient = personEnv(path.join(work, "recipient"))
    const init = ["init", "--relay", `http://127.0.0.1:${port}`, "--no-passphrase", "--quiet"]
    const address = (
      await mustRun(process.execPath, [program, ...init], { env: recipient })
    ).stdout.trim()
    const source = path.join(work, "source.bin")
    writeFileSync(source, new Uint8Array(700_000).fill(7))
    await mustRun(process.execPath, [program, "send", source, "-r", address, "--quiet"], {
      env: personEnv(path.join(work, "sender")),
    })
    stored = readdirSync(path.join(data, "store"), { recursive: true, encoding: "utf8" })
      .map((name) => path.join(data, "store", name))
      .filter((file) => statSync(file).isFile())
    // strace passes the signal on to the relay and ends with it.
    const child = readFileSync(`/proc/${relay.pid}/task/${relay.pid}/children`, "utf8").trim()
    process.kill(Number(child), "SIGTERM")
    await once(relay, "close")
    calls = readSystemCalls(readFileSync(trace, "utf8"))
    receiptAt = calls.findIndex(
      (call) =>
        /^(write|writev|sendto|sendmsg)$/.test(call.name) && /\\"receipts\\"/.test(call.args),
    )
  }, 60_000)

  afterAll(() => rmSync(work, { recursive: true, force: true }))

  const syncs = () =>
    calls
      .map((call, at) => ({ at, file: descriptorPath(call), call }))
      .filter(({ call }) => /^(fdatasync|fsync)$/.test(call.name) && !call.failed)

  test("the receipt goes out on a socket", () => {
    expect(receiptAt).toBeGreaterThan(0)
    expect(calls[receiptAt]?.args).toMatch(/^\d+<socket:/)
  })

  test("every file of the delivery is synced before the receipt is written", () => {
    expect(stored.length).toBeGreaterThanOrEqual(6)
    for (const file of stored) {
      const name = path.basename(file)
      // A part is synced under its own name in the spool; a record may be synced under the name it had before its rename.
      const renamedFrom = calls
        .filter((call) => call.name.startsWith("rename") && call.args.includes(`/${name}"`))
        .map((call) => path.basename(/"([^"]*)"/.exec(call.args)?.[1] ?? ""))
      const names = new Set([name, ...renamedFrom])
      const synced = syncs().find(({ file: path_ }) => names.has(path.basename(path_)))
      expect(synced?.at, `${name} was never synced`).toBeDefined()
      expect(synced?.at, `${name} was synced after the receipt`).toBeLessThan(receiptAt)
    }
  })

  test("the folders that the commit rename touches are synced between the rename and the receipt", () => {
    const commit = calls.findIndex(
      (call) =>
        call.name.startsWith("rename") &&
        call.args.includes("/spool/") &&
        /\/store\/[^"]*"(, \w+)?$/.test(call.args),
    )
    expect(commit).toBeGreaterThan(0)
    const folders = syncs()
      .filter(({ at }) => at > commit && at < receiptAt)
      .map(({ file }) => path.relative(data, file).split(path.sep)[0])
    expect(folders).toContain("spool")
    expect(folders).toContain("store")
    expect(folders).toContain("inboxes")
  })

  test("nothing of the delivery is synced only after its receipt", () => {
    const late = syncs().filter(
      ({ at, file }) => at > receiptAt && /\/(spool|store|inboxes)\//.test(file),
    )
    expect(late.map(({ file }) => path.relative(data, file))).toEqual([])
  })
})
