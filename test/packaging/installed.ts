// The package as its users have it: packed, and installed into an empty project of somebody who is not
// root and whose home is empty.
import { spawn, spawnSync } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { once } from "node:events"
import {
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
} from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { fileURLToPath } from "node:url"

export const checkout: string = fileURLToPath(new URL("../..", import.meta.url))

/** The account Debian, Fedora and Alpine all keep for programs that own nothing. */
const nobody = 65_534

export interface Outcome {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** A person without rights of their own: somebody else when the tests run as root. */
export class Person {
  readonly folder: string = mkdtempSync(path.join(tmpdir(), "knothole-person-"))
  readonly home: string
  readonly #account = process.getuid?.() === 0 ? { uid: nobody, gid: nobody } : {}
  readonly #running = new Set<ChildProcess>()

  /** Whether files that the tests make have to be given to this person. */
  get isSomebodyElse(): boolean {
    return this.#account.uid !== undefined
  }

  constructor() {
    this.home = this.makeFolder("home")
    this.own(this.folder)
  }

  makeFolder(name: string): string {
    const folder = path.join(this.folder, name)
    mkdirSync(folder, { recursive: true })
    this.own(folder)
    return folder
  }

  /** Gives one file or folder to this person. */
  own(file: string): void {
    if (this.#account.uid !== undefined) chownSync(file, this.#account.uid, this.#account.gid)
  }

  start(
    command: string,
    args: readonly string[],
    options: { readonly cwd: string; readonly env?: Readonly<Record<string, string>> },
  ): { readonly child: ChildProcess; readonly ended: Promise<Outcome> } {
    const child = spawn(command, args, {
      ...this.#account,
      cwd: options.cwd,
      env: { ...strangersEnvironment(), HOME: this.home, ...options.env },
      stdio: ["ignore", "pipe", "pipe"],
      // A session of its own has no terminal to ask at.
      detached: true,
    })
    this.#running.add(child)
    child.once("exit", () => this.#running.delete(child))
    let stdout = ""
    let stderr = ""
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text))
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text))
    const ended = once(child, "close").then(([code]) => ({ code, stdout, stderr }))
    return { child, ended }
  }

  run(...started: Parameters<Person["start"]>): Promise<Outcome> {
    return this.start(...started).ended
  }

  async leave(): Promise<void> {
    for (const child of this.#running) {
      const gone = once(child, "exit")
      signalAll(child, "SIGKILL")
      await gone
    }
    rmSync(this.folder, { recursive: true, force: true })
  }
}

/** To a child and all it started, as a terminal does. */
export function signalAll(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid !== undefined) process.kill(-child.pid, signal)
}

/** This machine's own, without what npm and Knothole were told for the run of the tests. */
function strangersEnvironment(): Record<string, string | undefined> {
  const kept = Object.entries(process.env).filter(
    ([name]) => !/^(npm_|KNOTHOLE_|XDG_|VITEST|NODE_ENV|INIT_CWD)/.test(name),
  )
  return Object.fromEntries(kept)
}

export interface PackedFile {
  readonly path: string
  readonly size: number
}

export interface Packed {
  readonly tarball: string
  readonly files: readonly PackedFile[]
}

/** Packs what the last build made. */
export function packInto(folder: string): Packed {
  const run = spawnSync("npm", ["pack", "--json", "--pack-destination", folder], {
    cwd: checkout,
    encoding: "utf8",
  })
  if (run.status !== 0) throw new Error(`npm pack ended with ${run.status}: ${run.stderr}`)
  // npm's own output; what is missing from it fails below.
  const [packed] = JSON.parse(run.stdout) as { filename: string; files: PackedFile[] }[]
  if (packed === undefined) throw new Error("npm pack made nothing")
  return { tarball: path.join(folder, packed.filename), files: packed.files }
}

/**
 * Installs the tarball into `project`, from the registry as a user would. Where none answers, what npm
 * would have fetched is copied from this checkout, version by version as the lockfile has it; returns
 * which of the two it was.
 */
export async function install(options: {
  readonly person: Person
  readonly project: string
  readonly tarball: string
}): Promise<"from the registry" | "from this checkout, no registry answered"> {
  const { person, project, tarball } = options
  const npm = await person.run("npm", ["install", "--no-audit", "--no-fund", tarball], {
    cwd: project,
    env: { npm_config_registry: registryOf(), npm_config_fetch_retries: "1" },
  })
  if (npm.code === 0) return "from the registry"
  if (!/\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH)\b/.test(npm.stderr)) {
    throw new Error(`npm install ended with ${npm.code}: ${npm.stderr}`)
  }
  await copyDependencies(options)
  return "from this checkout, no registry answered"
}

/** Where this machine's npm looks: somebody with an empty home would not know. */
export function registryOf(): string {
  const asked = spawnSync("npm", ["config", "get", "registry"], { cwd: checkout, encoding: "utf8" })
  return asked.stdout.trim()
}

async function copyDependencies(options: {
  readonly person: Person
  readonly project: string
  readonly tarball: string
}): Promise<void> {
  const { person, project, tarball } = options
  const packages = path.join(project, "node_modules")
  const own = path.join(packages, "knothole")
  mkdirSync(own, { recursive: true })
  const untar = await person.run("tar", ["-xzf", tarball, "-C", person.folder], { cwd: project })
  if (untar.code !== 0) throw new Error(`tar ended with ${untar.code}: ${untar.stderr}`)
  cpSync(path.join(person.folder, "package"), own, { recursive: true })
  const lock = readFileSync(path.join(checkout, "package-lock.json"), "utf8")
  // The lockfile's own form.
  const entries = (JSON.parse(lock) as { packages: Record<string, { dev?: boolean }> }).packages
  for (const [where, { dev }] of Object.entries(entries)) {
    const from = path.join(checkout, where)
    if (where === "" || dev === true || !existsSync(from)) continue
    cpSync(from, path.join(project, where), { recursive: true })
  }
}
