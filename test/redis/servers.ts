/** Real Redis servers for tests, each with a folder and a port of its own: one, a cluster, a watched pair. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { Redis } from "ioredis"
import { freePort } from "../../bench/processes.js"

/** Whether Redis can be started; what needs it is left out, but where CI is set it has to be there. */
export function hasRedis(what: string): boolean {
  if (spawnSync("redis-server", ["--version"]).status === 0) return true
  if (process.env["CI"] !== undefined) {
    throw new Error("redis-server (package redis-server) is not installed, and CI needs it")
  }
  console.warn(`left out: ${what}, because redis-server is not installed`)
  return false
}

export interface RedisServer {
  readonly port: number
  readonly socket: string
  readonly url: string
  /** For what a test does to the server behind the relay's back. */
  readonly admin: Redis
  /** Ends it as a crash would. */
  kill(): Promise<void>
  /** Stops it from doing anything, and lets it go on. */
  pause(): void
  resume(): void
  /** Again, with the same port and folder. */
  start(): Promise<void>
}

type Settings = Readonly<Record<string, string | number>>

export class RedisServers {
  #made: string | undefined
  readonly #children = new Set<ChildProcess>()
  readonly #admins = new Set<Redis>()
  #count = 0

  constructor() {
    process.once("exit", () => this.#killAll())
  }

  /** `settings` as in redis.conf, in place of those that suit a test. */
  async server(settings: Settings = {}): Promise<RedisServer> {
    const folder = path.join(this.#folder, String((this.#count += 1)))
    mkdirSync(folder)
    const socket = path.join(folder, "redis.sock")
    const file = path.join(folder, "redis.conf")
    let port = 0
    let child: ChildProcess
    const start = async (): Promise<void> => {
      child = this.#spawn([file])
      await ready(child, "eady to accept connections")
    }
    await onFreePorts(async ([first, second]) => {
      port = first
      const all: Settings = {
        port,
        bind: "127.0.0.1",
        unixsocket: socket,
        dir: folder,
        save: '""',
        "maxmemory-policy": "noeviction",
        ...(settings["cluster-enabled"] === "yes" && { "cluster-port": second }),
        ...settings,
      }
      const lines = Object.entries(all).map(([name, value]) => `${name} ${value}\n`)
      writeFileSync(file, lines.join(""))
      await start()
    })
    const admin = new Redis({ port, lazyConnect: true, disableClientInfo: true })
    admin.on("error", () => undefined)
    this.#admins.add(admin)
    return {
      port,
      socket,
      url: `redis://127.0.0.1:${port}`,
      admin,
      start,
      kill: () => end(child),
      pause: () => void child.kill("SIGSTOP"),
      resume: () => void child.kill("SIGCONT"),
    }
  }

  /** Lets a server speak TLS as well, on the port that this gives. */
  openTls({ admin }: RedisServer): Promise<number> {
    return onFreePorts(async ([port]) => {
      await admin.config("SET", "tls-port", String(port))
      return port
    })
  }

  /** A cluster of three masters. */
  async cluster(settings: Settings = {}): Promise<{ nodes: RedisServer[]; url: string }> {
    const nodes = await Promise.all(
      [0, 1, 2].map(() =>
        this.server({
          "cluster-enabled": "yes",
          "cluster-config-file": "nodes.conf",
          "cluster-node-timeout": 2000,
          ...settings,
        }),
      ),
    )
    const [first] = nodes
    if (first === undefined) throw new Error("a cluster has nodes")
    await Promise.all(
      nodes.map(({ admin }, at) => {
        const from = Math.ceil((16_384 * at) / nodes.length)
        const to = Math.ceil((16_384 * (at + 1)) / nodes.length) - 1
        return admin.call("cluster", "addslotsrange", from, to)
      }),
    )
    await Promise.all(
      nodes.map(({ admin }, at) => admin.call("cluster", "set-config-epoch", at + 1)),
    )
    for (const node of nodes.slice(1)) {
      const bus = /cluster-port\n(\d+)/.exec(await config(node.admin, "cluster-port"))?.[1]
      await first.admin.call("cluster", "meet", "127.0.0.1", node.port, bus ?? "")
    }
    await until(async () => {
      const states = await Promise.all(nodes.map(({ admin }) => admin.call("cluster", "info")))
      return states.every((state) =>
        /cluster_state:ok[^]*cluster_known_nodes:3/.test(String(state)),
      )
    })
    const hosts = nodes.map(({ port }) => `127.0.0.1:${port}`)
    return { nodes, url: `redis+cluster://${hosts.join(",")}` }
  }

  /** One more node of a cluster, which follows the master `of` and takes its place when it is gone. */
  async follow(of: RedisServer): Promise<RedisServer> {
    const replica = await this.server({
      "cluster-enabled": "yes",
      "cluster-config-file": "nodes.conf",
      "cluster-node-timeout": 2000,
    })
    const bus = /cluster-port\n(\d+)/.exec(await config(of.admin, "cluster-port"))?.[1]
    await replica.admin.call("cluster", "meet", "127.0.0.1", of.port, bus ?? "")
    const id = String(await of.admin.call("cluster", "myid"))
    await until(async () => String(await replica.admin.call("cluster", "nodes")).includes(id))
    await until(async () => {
      const done = await replica.admin.call("cluster", "replicate", id).catch(() => undefined)
      return done !== undefined
    })
    await until(async () => (await replica.admin.info()).includes("master_link_status:up"))
    return replica
  }

  /** A master, its replica, and three sentinels, which fail over within seconds. */
  async watched(): Promise<{ master: RedisServer; replica: RedisServer; url: string }> {
    const master = await this.server()
    const replica = await this.server({ replicaof: `127.0.0.1 ${master.port}` })
    await until(async () => (await replica.admin.info()).includes("master_link_status:up"))
    const ports = await Promise.all(
      [0, 1, 2].map((at) =>
        onFreePorts(async ([port]) => {
          const file = path.join(this.#folder, `sentinel-${at}.conf`)
          const lines = [
            `port ${port}`,
            "bind 127.0.0.1",
            `dir ${this.#folder}`,
            `sentinel monitor relay 127.0.0.1 ${master.port} 2`,
            "sentinel down-after-milliseconds relay 2000",
            "sentinel failover-timeout relay 5000",
          ]
          writeFileSync(file, lines.map((line) => `${line}\n`).join(""))
          await ready(this.#spawn([file, "--sentinel"]), "+monitor")
          return port
        }),
      ),
    )
    // They find each other through the master, and the replica by asking it.
    const sentinels = ports.map((port) => new Redis({ port, disableClientInfo: true }))
    for (const sentinel of sentinels) {
      await until(async () => {
        const said = String(await sentinel.call("sentinel", "master", "relay"))
        return /num-slaves,1,num-other-sentinels,2/.test(said)
      })
      sentinel.disconnect()
    }
    const hosts = ports.map((port) => `127.0.0.1:${port}`)
    return { master, replica, url: `redis+sentinel://${hosts.join(",")}/relay` }
  }

  async close(): Promise<void> {
    for (const admin of this.#admins) admin.disconnect()
    await Promise.all([...this.#children].map(end))
    if (this.#made !== undefined) rmSync(this.#made, { recursive: true, force: true })
  }

  /** Made when it is needed: tests that are left out have theirs constructed and never closed. */
  get #folder(): string {
    this.#made ??= mkdtempSync(path.join(tmpdir(), "knothole-redis-"))
    return this.#made
  }

  #spawn(args: string[]): ChildProcess {
    const child = spawn("redis-server", args, { stdio: ["ignore", "pipe", "inherit"] })
    this.#children.add(child)
    child.once("exit", () => this.#children.delete(child))
    return child
  }

  #killAll(): void {
    for (const child of this.#children) child.kill("SIGKILL")
  }
}

async function config(admin: Redis, name: string): Promise<string> {
  const reply = await admin.call("config", "get", name)
  return Array.isArray(reply) ? reply.join("\n") : ""
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = once(child, "exit")
  child.kill("SIGKILL")
  await gone
}

/** Another process may take a port between its choice and its use: then it is another one. */
async function onFreePorts<T>(use: (ports: readonly [number, number]) => Promise<T>): Promise<T> {
  for (let attempts = 1; ; attempts++) {
    try {
      return await use([await freePort(), await freePort()])
    } catch (error) {
      const isTaken =
        error instanceof Error && /Address already in use|Unable to listen/.test(error.message)
      if (!isTaken || attempts === 5) throw error
    }
  }
}

function ready(child: ChildProcess, word: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let said = ""
    child.stdout?.setEncoding("utf8").on("data", (piece: string) => {
      said += piece
      if (said.includes(word)) resolve()
    })
    child.once("error", reject)
    child.once("exit", () => reject(new Error(`it ended: ${said}`)))
  })
}

const untilMs = 20_000

/** Asks until it is so. What is waited for happens in another process, which tells nobody. */
export async function until(isSo: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + untilMs
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new Error("waited in vain")
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
