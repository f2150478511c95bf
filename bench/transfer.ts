/**
 * One file up to a relay and down again, beside `rclone` crypt through `rclone serve webdav`, whole
 * processes on one machine in one run, in an order drawn for each round. Only the ratios travel.
 *
 *   npm run shown -- speed [MIB] [ROUNDS] [OFFERED_REQUEST_SIZE]
 */
import { spawnSync } from "node:child_process"
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs"
import { randomFillSync } from "node:crypto"
import { tmpdir } from "node:os"
import path from "node:path"
import { freePort, mustRun, personEnv, program, startServer, stopServer } from "./processes.js"

export type Transfer = { upSeconds: number[]; downSeconds: number[] }
export type TransferRun = {
  knothole: Transfer
  rclone: Transfer
  rcloneVersion: string
  mib: number
  requestSize: string | undefined
}

export const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const upper = sorted[sorted.length >> 1] ?? Number.NaN
  const lower = sorted[(sorted.length - 1) >> 1] ?? Number.NaN
  return (upper + lower) / 2
}

function writeRandomFile(file: string, mib: number): void {
  const piece = new Uint8Array(1 << 20)
  const handle = openSync(file, "w")
  for (let i = 0; i < mib; i++) writeSync(handle, randomFillSync(piece))
  closeSync(handle)
}

function sameBytes(left: string, right: string): void {
  if (spawnSync("cmp", [left, right]).status !== 0) throw new Error(`${left} and ${right} differ`)
}

/**
 * Writes twice the transfer and removes it, so that whoever is measured next finds memory for its page
 * cache at hand. On a virtual machine whose host takes free memory back, whoever comes later pays 2.7 s
 * of processor time a gigabyte for getting it again, which would decide the comparison. The sync behind
 * it takes the removal out of the measured time, too.
 */
function warmMemory(file: string, mib: number): void {
  writeRandomFile(file, 2 * mib)
  spawnSync("sync")
  rmSync(file)
  spawnSync("sync")
}

export async function measureTransfers(options: {
  mib: number
  rounds: number
  requestSize: string | undefined
}): Promise<TransferRun> {
  const { mib, rounds, requestSize } = options
  const work = mkdtempSync(path.join(tmpdir(), "knothole-bench-"))
  const servers: Awaited<ReturnType<typeof startServer>>[] = []
  try {
    const source = path.join(work, "source.bin")
    writeRandomFile(source, mib)
    spawnSync("sync")

    const port = await freePort()
    const relay = `http://127.0.0.1:${port}`
    const listen = ["--listen", `127.0.0.1:${port}`, "--data", path.join(work, "relay")]
    servers.push(
      await startServer(
        process.execPath,
        [
          program,
          "relay",
          ...listen,
          ...(requestSize === undefined ? [] : ["--request-size", requestSize]),
        ],
        /listening on/,
      ),
    )
    const recipient = personEnv(path.join(work, "recipient"))
    const sender = personEnv(path.join(work, "sender"))
    const init = await mustRun(
      process.execPath,
      [program, "init", "--relay", relay, "--no-passphrase", "--quiet"],
      { env: recipient },
    )
    const address = init.stdout.trim()

    const davPort = await freePort()
    const davFolder = path.join(work, "dav")
    mkdirSync(davFolder)
    const dav = ["serve", "webdav", davFolder, "--addr", `127.0.0.1:${davPort}`]
    servers.push(await startServer("rclone", ["-v", ...dav], /Serving|started|Starting/i))
    const obscured = spawnSync("rclone", ["obscure", "a password for the measurement"], {
      encoding: "utf8",
    }).stdout.trim()
    const rcloneEnv = {
      ...process.env,
      RCLONE_CONFIG: path.join(work, "rclone.conf"),
      RCLONE_CONFIG_DAV_TYPE: "webdav",
      RCLONE_CONFIG_DAV_URL: `http://127.0.0.1:${davPort}`,
      RCLONE_CONFIG_DAV_VENDOR: "other",
      RCLONE_CONFIG_SEALED_TYPE: "crypt",
      RCLONE_CONFIG_SEALED_REMOTE: "dav:",
      RCLONE_CONFIG_SEALED_PASSWORD: obscured,
    }

    const ours: Transfer = { upSeconds: [], downSeconds: [] }
    const theirs: Transfer = { upSeconds: [], downSeconds: [] }
    const warm = () => warmMemory(path.join(work, "warm"), mib)
    const knothole = async () => {
      warm()
      const sent = await mustRun(
        process.execPath,
        [program, "send", source, "-r", address, "--quiet"],
        { env: sender },
      )
      ours.upSeconds.push(sent.seconds)
      const into = path.join(work, "received")
      warm()
      const id = sent.stdout.trim()
      const received = await mustRun(
        process.execPath,
        [program, "receive", id, "-o", into, "--quiet"],
        { env: recipient },
      )
      ours.downSeconds.push(received.seconds)
      sameBytes(source, path.join(into, "source.bin"))
      rmSync(into, { recursive: true })
    }
    const rclone = async () => {
      warm()
      const up = await mustRun("rclone", ["copyto", source, "sealed:source.bin"], {
        env: rcloneEnv,
      })
      theirs.upSeconds.push(up.seconds)
      const into = path.join(work, "fetched.bin")
      warm()
      const down = await mustRun("rclone", ["copyto", "sealed:source.bin", into], {
        env: rcloneEnv,
      })
      theirs.downSeconds.push(down.seconds)
      sameBytes(source, into)
      rmSync(into)
      await mustRun("rclone", ["deletefile", "sealed:source.bin"], { env: rcloneEnv })
    }
    for (let round = 0; round < rounds; round++) {
      const order = Math.random() < 0.5 ? [knothole, rclone] : [rclone, knothole]
      for (const measure of order) {
        await measure()
      }
    }
    const rcloneVersion =
      spawnSync("rclone", ["version"], { encoding: "utf8" }).stdout.split("\n")[0] ?? ""
    return { knothole: ours, rclone: theirs, rcloneVersion, mib, requestSize }
  } finally {
    for (const server of servers) await stopServer(server)
    rmSync(work, { recursive: true, force: true })
  }
}
