/**
 * A tree of many small files up to a relay and down again, beside `tar | age | curl` to nginx and back,
 * whole processes on one machine in one run, in an order drawn for each round. Only the ratios travel.
 *
 *   npm run shown -- trees [FILES] [ROUNDS]
 */
import { spawnSync } from "node:child_process"
import { randomFillSync } from "node:crypto"
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { fileURLToPath } from "node:url"
import {
  cpuSecondsOf,
  freePort,
  mustRun,
  peakMiBOf,
  personEnv,
  program,
  startServer,
  stopServer,
} from "./processes.js"

/** One way up or down, a number for each round. */
export type Way = { seconds: number[]; cpuSeconds: number[]; serverCpuSeconds: number[] }

export type TreesRun = {
  knothole: { up: Way; down: Way }
  pipeline: { up: Way; down: Way }
  /** A Node program that only looks at every file of the tree and reads it. */
  reading: Way
  senderPeakMiB: number
  relayPeakMiB: number
  recipientPeakMiB: number
  same: boolean
  files: number
  contentMiB: number
}

const readTree = fileURLToPath(new URL("./read-tree.js", import.meta.url))
const fileBytes = 1024
const filesInFolder = 100

/** `count` files of 1 KiB, and for every hundred of them an empty file and an empty folder. */
function writeTree(folder: string, count: number): void {
  const content = new Uint8Array(fileBytes)
  for (let i = 0; i < count; i++) {
    const at = path.join(folder, `folder ${Math.floor(i / filesInFolder)}`)
    if (i % filesInFolder === 0) {
      mkdirSync(path.join(at, "empty"), { recursive: true })
      writeFileSync(path.join(at, "nothing"), "")
    }
    writeFileSync(path.join(at, `file ${i}.dat`), randomFillSync(content))
  }
}

const emptyWay = (): Way => ({ seconds: [], cpuSeconds: [], serverCpuSeconds: [] })

/** What a shell says of the processor time of everything it waited for: `0m1.234s 0m0.567s`. */
function childrenSeconds(stderr: string): number {
  const line = stderr.trimEnd().split("\n").at(-1) ?? ""
  const times = [...line.matchAll(/(\d+)m([\d.]+)s/g)]
  if (times.length !== 2) throw new Error(`the shell told no times: ${line}`)
  return times.reduce(
    (sum, [, minutes, seconds]) => sum + 60 * Number(minutes) + Number(seconds),
    0,
  )
}

/** `set -o pipefail` is no plain sh's, so it is bash that is asked. */
async function pipeline(
  text: string,
  cwd: string,
): Promise<{ seconds: number; cpuSeconds: number }> {
  const script = `set -o pipefail; ${text}; code=$?; times >&2; exit $code`
  const { seconds, stderr } = await mustRun("bash", ["-c", script], { cwd })
  return { seconds, cpuSeconds: childrenSeconds(stderr) }
}

function nginxConfig(work: string, port: number): string {
  const lines = [
    ...(process.getuid?.() === 0 ? ["user root;"] : []),
    "daemon off; master_process off; error_log stderr notice;",
    `pid ${work}/nginx.pid;`,
    "events { worker_connections 64; }",
    "http {",
    "  access_log off; sendfile on; client_max_body_size 0;",
    ...["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
      (name) => `  ${name}_temp_path ${work}/nginx-${name};`,
    ),
    `  server { listen 127.0.0.1:${port}; root ${work}/nginx; location / { dav_methods PUT DELETE; } }`,
    "}",
  ]
  const file = path.join(work, "nginx.conf")
  writeFileSync(file, `${lines.join("\n")}\n`)
  mkdirSync(path.join(work, "nginx"))
  return file
}

export async function measureTrees(options: { files: number; rounds: number }): Promise<TreesRun> {
  const { files, rounds } = options
  const work = mkdtempSync(path.join(tmpdir(), "knothole-trees-"))
  const servers: Awaited<ReturnType<typeof startServer>>[] = []
  try {
    const tree = path.join(work, "tree")
    writeTree(tree, files)
    const port = await freePort()
    const relayUrl = `http://127.0.0.1:${port}`
    const listen = ["--listen", `127.0.0.1:${port}`, "--data", path.join(work, "relay")]
    const relay = await startServer(process.execPath, [program, "relay", ...listen], /listening on/)
    servers.push(relay)
    const recipient = personEnv(path.join(work, "recipient"))
    const sender = personEnv(path.join(work, "sender"))
    const init = await mustRun(
      process.execPath,
      [program, "init", "--relay", relayUrl, "--no-passphrase", "--quiet"],
      { env: recipient },
    )
    const address = init.stdout.trim()

    const davPort = await freePort()
    const nginx = await startServer("nginx", ["-c", nginxConfig(work, davPort)], /using the|notice/)
    servers.push(nginx)
    const davUrl = `http://127.0.0.1:${davPort}/tree.age`
    const key = path.join(work, "age.key")
    await mustRun("age-keygen", ["-o", key])
    const ageRecipient = /age1[0-9a-z]+/.exec(readFileSync(key, "utf8"))?.[0] ?? ""

    const run: TreesRun = {
      knothole: { up: emptyWay(), down: emptyWay() },
      pipeline: { up: emptyWay(), down: emptyWay() },
      reading: emptyWay(),
      senderPeakMiB: 0,
      relayPeakMiB: 0,
      recipientPeakMiB: 0,
      same: true,
      files,
      contentMiB: (files * fileBytes) / 2 ** 20,
    }
    const timed = async (
      way: Way,
      server: { pid?: number | undefined },
      work: () => Promise<{ seconds: number; cpuSeconds: number }>,
    ) => {
      // What was written or removed before is not in the measured time of whoever comes next.
      spawnSync("sync")
      const before = cpuSecondsOf(server.pid)
      const { seconds, cpuSeconds } = await work()
      way.seconds.push(seconds)
      way.cpuSeconds.push(cpuSeconds)
      way.serverCpuSeconds.push(cpuSecondsOf(server.pid) - before)
    }
    // What was received stays until the end: ext4 passes over the inodes it freed lately one by one, so
    // whoever writes a tree just after another one was removed takes several times as long.
    const check = (into: string) => {
      run.same &&= spawnSync("diff", ["-r", tree, path.join(into, "tree")]).status === 0
      run.same &&= existsSync(path.join(into, "tree", "folder 0", "empty"))
    }
    const knothole = async (round: number) => {
      let id = ""
      await timed(run.knothole.up, relay, async () => {
        const sent = await mustRun(process.execPath, [program, "send", tree, "-r", address, "-q"], {
          env: sender,
        })
        id = sent.stdout.trim()
        run.senderPeakMiB = Math.max(run.senderPeakMiB, sent.peakMiB)
        return sent
      })
      const into = path.join(work, `received ${round}`)
      await timed(run.knothole.down, relay, async () => {
        const received = await mustRun(
          process.execPath,
          [program, "receive", id, "-o", into, "-q"],
          { env: recipient },
        )
        run.recipientPeakMiB = Math.max(run.recipientPeakMiB, received.peakMiB)
        return received
      })
      run.relayPeakMiB = Math.max(run.relayPeakMiB, peakMiBOf(relay.pid))
      check(into)
    }
    const peer = async (round: number) => {
      await timed(run.pipeline.up, nginx, () =>
        pipeline(`tar c tree | age -r ${ageRecipient} | curl -sSf -T - ${davUrl}`, work),
      )
      const into = path.join(work, `fetched-${round}`)
      mkdirSync(into)
      await timed(run.pipeline.down, nginx, () =>
        pipeline(`curl -sSf ${davUrl} | age -d -i ${key} | tar x -C ${into}`, work),
      )
      check(into)
      await mustRun("curl", ["-sSf", "-X", "DELETE", davUrl])
    }
    const reading = async () =>
      timed(run.reading, {}, () => mustRun(process.execPath, [readTree, tree]))
    for (let round = 0; round < rounds; round++) {
      for (const measure of Math.random() < 0.5 ? [knothole, peer] : [peer, knothole]) {
        await measure(round)
      }
      await reading()
    }
    return run
  } finally {
    for (const server of servers) await stopServer(server)
    rmSync(work, { recursive: true, force: true })
  }
}
