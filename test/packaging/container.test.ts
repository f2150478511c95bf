/**
 * The Dockerfile, without an engine: its own steps, one after the other, by somebody who is not root, each
 * stage in an empty root folder (bubblewrap; programs are this machine's, as if they were the base
 * image's), then its command with that root read-only and one writable volume. The image itself is
 * not built here, and docs/install.md says so.
 */
import { spawnSync } from "node:child_process"
import {
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import path from "node:path"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { freePort } from "../../bench/processes.js"
import { commandOf, parseDockerfile, type Stage } from "./dockerfile.js"
import { checkout, type Outcome, Person, registryOf } from "./installed.js"

const versionFlag: Readonly<Record<string, string>> = { caddy: "version" }
const installed = (command: string) =>
  spawnSync(command, [versionFlag[command] ?? "--version"]).status === 0
if (!installed("bwrap") && process.env["CI"] !== undefined) {
  throw new Error("bubblewrap is not installed, and CI needs it")
}
if (!installed("bwrap")) console.warn("left out: the Dockerfile's steps, for want of bubblewrap")

/** One stage as far as it has come: its root, and what the next step finds set. */
interface Container {
  readonly root: string
  workdir: string
  user: string
  env: Record<string, string>
}

/** What the base image brings. */
const baseImage =
  "--ro-bind /usr /usr --ro-bind /etc /etc --proc /proc --dev /dev --die-with-parent --unshare-pid --as-pid-1".split(
    " ",
  )

describe.runIf(installed("bwrap"))("the Dockerfile", () => {
  const person = new Person()
  const stages = parseDockerfile(path.join(checkout, "Dockerfile"))
  const containers = new Map<string, Container>()
  const image = stages.at(-1)
  let container: Container

  beforeAll(async () => {
    for (const stage of stages) containers.set(stage.name, await build(stage))
    container = must(containers.get(image?.name ?? ""), "no last stage")
  }, 600_000)
  afterAll(() => person.leave())

  async function build(stage: Stage): Promise<Container> {
    const root = person.makeFolder(`stage-${containers.size}`)
    for (const name of ["tmp", "home/node"]) {
      mkdirSync(path.join(root, name), { recursive: true })
      person.own(path.join(root, name))
    }
    for (const name of ["bin", "lib", "lib64", "sbin"]) {
      symlinkSync(`usr/${name}`, path.join(root, name))
    }
    const made: Container = { root, workdir: "/", user: "root", env: {} }
    for (const { instruction, rest } of stage.steps) {
      if (instruction === "USER") made.user = rest
      if (instruction === "ENV") Object.assign(made.env, Object.fromEntries([rest.split("=")]))
      if (instruction === "WORKDIR") {
        made.workdir = rest
        await inside(made, "/", ["mkdir", "-p", rest])
      }
      if (instruction === "COPY") copy(made, rest)
      if (instruction === "RUN") await inside(made, made.workdir, ["sh", "-e", "-c", rest])
    }
    return made
  }

  /** From the checkout, or from an earlier stage; what .dockerignore leaves out is not there to copy. */
  function copy(made: Container, rest: string): void {
    const words = rest.split(" ").filter((word) => !word.startsWith("--chown="))
    const stage = words[0]?.startsWith("--from=") === true ? words.shift()?.slice(7) : undefined
    const from = stage === undefined ? checkout : must(containers.get(stage), stage).root
    const to = must(words.pop(), rest)
    for (const source of words) {
      if (stage === undefined && !sentToTheEngine(source)) throw new Error(`${source} is ignored`)
      const target = path.join(made.root, made.workdir, to)
      const isFolder = statSync(path.join(from, source)).isDirectory()
      const place = isFolder ? target : path.join(target, path.basename(source))
      cpSync(path.join(from, source), place, { recursive: true })
      if (person.isSomebodyElse) spawnSync("chown", ["-R", "65534:65534", place])
    }
  }

  async function inside(made: Container, cwd: string, command: string[]): Promise<Outcome> {
    const run = await start(made, cwd, command, ["--bind", made.root, "/"]).ended
    if (run.code !== 0) throw new Error(`${command.join(" ")}: ${run.code}\n${run.stderr}`)
    return run
  }

  function start(
    made: Container,
    cwd: string,
    command: readonly string[],
    root: readonly string[],
    env: Record<string, string> = {},
  ) {
    return person.start("bwrap", [...root, ...baseImage, "--chdir", cwd, ...command], {
      cwd: person.folder,
      env: { HOME: "/home/node", npm_config_registry: registryOf(), ...made.env, ...env },
    })
  }

  test("was built by its own steps, without root, and keeps what runs alone", async () => {
    const kept = readdirSync(path.join(container.root, container.workdir)).sort()
    expect(kept).toEqual(["LICENSE", "dist", "node_modules", "package.json"])
    const packages = readdirSync(path.join(container.root, container.workdir, "node_modules"))
    expect(packages).toContain("express")
    expect(packages).not.toContain("typescript")
    const whose = await inside(container, "/", ["id", "-u"])
    expect(whose.stdout.trim()).not.toBe("0")
  })

  test("ends as a user without rights, with one volume", () => {
    expect(container.user).toBe("node")
    const volumes = image?.steps.filter((step) => step.instruction === "VOLUME")
    expect(volumes?.map((step) => step.rest)).toEqual(["/data"])
  })

  test("runs its command on a read-only root, is healthy, takes a delivery and drains", async () => {
    const step = (instruction: string) =>
      must(
        image?.steps.find((one) => one.instruction === instruction),
        instruction,
      ).rest
    const port = await freePort()
    const volume = person.makeFolder("volume")
    const readOnly = ["--ro-bind", container.root, "/", "--bind", volume, "/data"]
    const env = {
      // No network of its own here, so the port must be one that nobody has.
      KNOTHOLE_LISTEN: `127.0.0.1:${port}`,
      KNOTHOLE_PUBLIC_URL: `http://127.0.0.1:${port}`,
    }
    const relay = start(container, container.workdir, commandOf(step("CMD")), readOnly, env)
    let said = ""
    relay.child.stderr?.on("data", (text: string) => (said += text))
    await expect.poll(() => said, { timeout: 30_000 }).toContain("listening on")

    const check = commandOf(step("HEALTHCHECK"))
    const health = () => start(container, container.workdir, check, readOnly).ended
    expect(await health()).toMatchObject({ code: 0 })

    const write = start(container, "/", ["touch", "/knothole/new"], readOnly)
    expect((await write.ended).stderr).toContain("Read-only file system")

    const letter = path.join(person.home, "letter")
    writeFileSync(letter, "Seen from the tower at nine.\n")
    const program = path.join(checkout, "dist/client/main.cjs")
    const knothole = async (...args: string[]) => {
      const run = await person.run(process.execPath, [program, ...args], { cwd: person.home })
      expect(run).toMatchObject({ code: 0 })
      return run.stdout.trim()
    }
    const address = await knothole("init", "--relay", `http://127.0.0.1:${port}`, "--no-passphrase")
    await knothole("send", letter, "-r", address)
    await knothole("receive", "-o", "received")
    expect(readFileSync(path.join(person.home, "received/letter"))).toEqual(readFileSync(letter))

    // To the command alone, which is process 1 of its container, as an engine does it.
    process.kill(childOf(must(relay.child.pid, "a process")), "SIGTERM")
    expect(await relay.ended).toMatchObject({ code: 0 })
    expect(said).toContain('"event":"stopped"')
    expect(readdirSync(volume)).toEqual(["relay"])
    expect(await health()).toMatchObject({ code: 5 })
  }, 120_000)
})

describe.runIf(installed("docker-compose"))("docker-compose.yml", () => {
  test("is understood; the relay has the Redis beside it, which nobody else reaches, and nothing starts without the relay's name", () => {
    const named = { KNOTHOLE_HOST: "drop.example.org" }
    const whole = compose(named, "config")
    expect(whole).toMatchObject({ status: 0 })
    expect(whole.stdout).not.toContain("profiles:")
    expect(whole.stdout).toContain("KNOTHOLE_REDIS: redis://redis:6379")
    expect(whole.stdout).toContain("--maxmemory-policy noeviction")
    expect(whole.stdout).toMatch(/^ {2}index:(\n {4}.*)*\n {4}internal: true$/m)
    const redis = /^ {2}redis:\n((?: {4}.*\n)*)/m.exec(whole.stdout)?.[1]
    expect(redis).toMatch(/networks:\n {6}index:/)
    expect(redis).not.toMatch(/ports:| front:/)
    expect(whole.stdout).toContain("KNOTHOLE_PUBLIC_URL: https://drop.example.org")
    expect(compose({ KNOTHOLE_HOST: "" }, "config").status).not.toBe(0)
  })
})

describe.runIf(installed("caddy"))("the Caddyfile", () => {
  test("takes the names that docker-compose.yml hands in", () => {
    const env = { KNOTHOLE_HOST: "owl.example.org", KNOTHOLE_RELAY: "relay:8787" }
    const config = readFileSync(path.join(checkout, "docker-compose.yml"), "utf8")
    expect(config).toContain(`KNOTHOLE_RELAY: ${env.KNOTHOLE_RELAY}\n`)
    const file = path.join(checkout, "deploy/Caddyfile")
    const run = spawnSync("caddy", ["adapt", "--config", file, "--adapter", "caddyfile"], {
      encoding: "utf8",
      env: { ...process.env, ...env },
    })
    expect(run.stdout).toContain('"host":["owl.example.org"]')
    expect(run.stdout).toContain('"dial":"relay:8787"')
  })
})

function compose(env: Record<string, string>, ...args: string[]) {
  return spawnSync("docker-compose", args, {
    cwd: checkout,
    encoding: "utf8",
    env: { ...process.env, ...env },
  })
}

/** Whether .dockerignore, which here ignores all but what it names, lets this through. */
function sentToTheEngine(source: string): boolean {
  const lines = readFileSync(path.join(checkout, ".dockerignore"), "utf8").split("\n")
  return lines.includes(`!${source.split("/")[0] ?? ""}`)
}

/** The one process that this one started. */
function childOf(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim())
}

function must<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new Error(what)
  return value
}
