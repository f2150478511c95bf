// Two containers with one volume: in each the relay is process number 1.
import { spawn, spawnSync } from "node:child_process"
import type { ChildProcessWithoutNullStreams } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { text } from "node:stream/consumers"
import { afterEach, beforeEach, describe, expect, it } from "vitest"

const program = path.resolve("dist/client/main.cjs")
/** A PID namespace of its own, made from a user namespace where that takes no privileges. */
const own = ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]
const canUnshare = spawnSync("unshare", [...own, "true"]).status === 0

describe.skipIf(!canUnshare)("a data folder and two relays that are both process 1", () => {
  let data: string
  const running = new Set<ChildProcessWithoutNullStreams>()

  beforeEach(() => {
    data = mkdtempSync(path.join(tmpdir(), "knothole-containers-"))
  })
  afterEach(async () => {
    for (const child of running) {
      child.kill("SIGKILL")
      await once(child, "close")
    }
    running.clear()
    rmSync(data, { recursive: true, force: true })
  })

  function contain(): ChildProcessWithoutNullStreams {
    const relay = [program, "relay", "--data", data, "--listen", "127.0.0.1:0"]
    const child = spawn("unshare", [...own, process.execPath, ...relay])
    running.add(child)
    child.once("exit", () => running.delete(child))
    return child
  }

  it("is used by the first, and by the second as soon as the first was killed", async () => {
    const first = contain()
    await listening(first)
    expect(JSON.parse(readFileSync(path.join(data, "lock"), "utf8"))).toMatchObject({ pid: 1 })

    const second = contain()
    const [said, [code]] = await Promise.all([text(second.stderr), once(second, "exit")])
    expect(code).toBe(1)
    expect(said).toContain("in use by another relay")

    await killRelay(first)
    await listening(contain())
  })
})

function listening(child: ChildProcessWithoutNullStreams): Promise<void> {
  let said = ""
  return new Promise((resolve, reject) => {
    child.stderr.on("data", (piece) => {
      said += String(piece)
      if (said.includes("listening on ")) resolve()
    })
    child.once("close", () => reject(new Error(said)))
  })
}

/** The relay and not unshare, which goes when its child has gone. */
async function killRelay(child: ChildProcessWithoutNullStreams): Promise<void> {
  const gone = once(child, "exit")
  const children = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, "utf8")
  process.kill(Number(children), "SIGKILL")
  await gone
}
