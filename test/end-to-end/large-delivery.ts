/** Carries one large file through a real relay by the real program, and measures each process. */
import { spawnSync } from "node:child_process"
import { randomBytes } from "node:crypto"
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import {
  freePort,
  mustRun,
  peakMiBOf,
  personEnv,
  program,
  startServer,
  stopServer,
} from "../../bench/processes.js"

export type LargeDelivery = {
  /** Whether what arrived is what was sent. */
  readonly same: boolean
  readonly senderPeakMiB: number
  readonly relayPeakMiB: number
  readonly recipientPeakMiB: number
  readonly upSeconds: number
  readonly downSeconds: number
}

export async function carryLargeFile(mib: number): Promise<LargeDelivery> {
  const work = mkdtempSync(path.join(tmpdir(), "knothole-large-"))
  const port = await freePort()
  const limits = ["--delivery-limit", "12GiB"]
  const listen = ["--listen", `127.0.0.1:${port}`, "--data", path.join(work, "relay"), ...limits]
  const relay = await startServer(process.execPath, [program, "relay", ...listen], /listening on/)
  try {
    // Mostly a hole, with random megabytes in it: sealing takes the same memory whatever it says.
    const source = path.join(work, "large.bin")
    const handle = openSync(source, "w")
    ftruncateSync(handle, mib * 2 ** 20 - 7)
    for (let at = 0; at < mib; at += 256) {
      writeSync(handle, randomBytes(2 ** 20), 0, 2 ** 20 - 7, at * 2 ** 20)
    }
    closeSync(handle)
    const recipient = personEnv(path.join(work, "recipient"))
    const sender = personEnv(path.join(work, "sender"))
    const init = ["init", "--relay", `http://127.0.0.1:${port}`, "--no-passphrase"]
    const address = (await knothole(init, recipient)).stdout.trim()
    const sent = await knothole(["send", source, "-r", address], sender)
    const into = path.join(work, "received")
    const received = await knothole(["receive", sent.stdout.trim(), "-o", into], recipient)
    return {
      same: spawnSync("cmp", [source, path.join(into, "large.bin")]).status === 0,
      senderPeakMiB: sent.peakMiB,
      relayPeakMiB: peakMiBOf(relay.pid),
      recipientPeakMiB: received.peakMiB,
      upSeconds: sent.seconds,
      downSeconds: received.seconds,
    }
  } finally {
    await stopServer(relay)
    rmSync(work, { recursive: true, force: true })
  }
}

function knothole(args: string[], env: NodeJS.ProcessEnv) {
  return mustRun(process.execPath, [program, ...args, "--quiet"], { env })
}
