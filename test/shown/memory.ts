/** The kernel's peak of sender, relay and recipient over one delivery of 10 GiB (or the MiB named). */
import { spawnSync } from "node:child_process"
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs"
import { randomBytes } from "node:crypto"
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
import { atMost, exactly, showFigures } from "./figures.js"

const mib = Number(process.argv[2] ?? 10 * 1024)
const limitMiB = 200
const work = mkdtempSync(path.join(tmpdir(), "knothole-memory-"))
const port = await freePort()
const listen = [
  "--listen",
  `127.0.0.1:${port}`,
  "--data",
  path.join(work, "relay"),
  "--delivery-limit",
  "12GiB",
]
const relay = await startServer(process.execPath, [program, "relay", ...listen], /listening on/)
try {
  // Mostly a hole, with random megabytes in it: what is sealed takes the same memory whatever it says.
  const source = path.join(work, "large.bin")
  const handle = openSync(source, "w")
  ftruncateSync(handle, mib * 2 ** 20 - 7)
  for (let at = 0; at < mib; at += 512)
    writeSync(handle, randomBytes(2 ** 20), 0, 2 ** 20 - 7, at * 2 ** 20)
  closeSync(handle)
  const recipient = personEnv(path.join(work, "recipient"))
  const sender = personEnv(path.join(work, "sender"))
  const init = await mustRun(
    process.execPath,
    [program, "init", "--relay", `http://127.0.0.1:${port}`, "--no-passphrase", "--quiet"],
    { env: recipient },
  )
  const sent = await mustRun(
    process.execPath,
    [program, "send", source, "-r", init.stdout.trim(), "--quiet"],
    { env: sender },
  )
  const into = path.join(work, "received")
  const received = await mustRun(
    process.execPath,
    [program, "receive", sent.stdout.trim(), "-o", into, "--quiet"],
    { env: recipient },
  )
  const relayPeak = peakMiBOf(relay.pid)
  const compared = spawnSync("cmp", [source, path.join(into, "large.bin")])
  const rate = (seconds: number) => `${Math.round(mib / seconds)} MiB/s`
  showFigures(
    "memory",
    [
      exactly("exit code of cmp after the round trip", compared.status ?? -1, 0),
      atMost(`sender's peak over ${mib} MiB`, Math.round(sent.peakMiB), limitMiB, "MiB"),
      atMost(`relay's peak over ${mib} MiB`, Math.round(relayPeak), limitMiB, "MiB"),
      atMost(`recipient's peak over ${mib} MiB`, Math.round(received.peakMiB), limitMiB, "MiB"),
    ],
    { up: rate(sent.seconds), down: rate(received.seconds) },
  )
} finally {
  await stopServer(relay)
  rmSync(work, { recursive: true, force: true })
}
