// Caddy and nginx as people run them, with the configuration that is shipped: what is put in its place is
// what every operator has to put there, and where this machine's test may listen and write.
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { connect } from "node:net"
import path from "node:path"
import { pathToFileURL } from "node:url"
import { makeAuthority } from "./certificates.js"

export const frontNames = ["caddy", "nginx"] as const
export type FrontName = (typeof frontNames)[number]

export interface RealFront {
  readonly origin: string
  /** What a person has to set to know its name and to trust its certificate. */
  readonly env: Readonly<Record<string, string>>
  /** All that it has written about what it does. */
  readonly logged: () => string
  readonly stop: () => Promise<void>
}

interface Place {
  readonly folder: string
  /** Where it listens, on loopback. */
  readonly port: number
  /** The relay, or several with spaces between them. */
  readonly upstreams: string
}

export function hasProgram(name: FrontName): boolean {
  return spawnSync(name, [name === "caddy" ? "version" : "-v"]).status === 0
}

export function originAt(port: number): string {
  return `https://relay.test:${port}`
}

export async function startRealFront(name: FrontName, place: Place): Promise<RealFront> {
  mkdirSync(place.folder, { recursive: true })
  // nginx started by root works as another user.
  chmodSync(place.folder, 0o755)
  const { command, args, rootFile, logFiles } = name === "caddy" ? caddy(place) : nginx(place)
  const child = spawn(command, args, {
    stdio: ["ignore", "ignore", "pipe"],
    env: {
      ...process.env,
      HOME: place.folder,
      XDG_DATA_HOME: place.folder,
      XDG_CONFIG_HOME: place.folder,
    },
  })
  let said = ""
  child.stderr.setEncoding("utf8").on("data", (text: string) => (said += text))
  await listening(place.port, child, () => said)
  const preload = pathToFileURL(path.resolve("test/fronts/relay-test-name.mjs")).href
  return {
    origin: originAt(place.port),
    env: { NODE_EXTRA_CA_CERTS: rootFile, NODE_OPTIONS: `--import=${preload}` },
    logged: () => [said, ...logFiles.map((file) => readFileSync(file, "utf8"))].join("\n"),
    stop: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return
      const gone = once(child, "exit")
      child.kill("SIGTERM")
      await gone
    },
  }
}

interface Start {
  readonly command: string
  readonly args: readonly string[]
  /** The certificate to trust. */
  readonly rootFile: string
  /** Beside stderr. */
  readonly logFiles: readonly string[]
}

function caddy({ folder, port, upstreams }: Place): Start {
  const site = fill(shipped("Caddyfile"), [
    [
      "\n{\n",
      "\n{\n\tadmin off\n\tskip_install_trust\n\tauto_https disable_redirects\n\tdefault_bind 127.0.0.1\n",
    ],
    ["\n{$KNOTHOLE_HOST:drop.example.org} {", `\nhttps://relay.test:${port} {`],
    ["\t# tls internal", "\ttls internal"],
    ["127.0.0.1:8787", upstreams],
  ])
  const file = path.join(folder, "Caddyfile")
  writeFileSync(file, site)
  return {
    command: "caddy",
    args: ["run", "--config", file, "--adapter", "caddyfile"],
    rootFile: path.join(folder, "caddy/pki/authorities/local/root.crt"),
    logFiles: [],
  }
}

function nginx({ folder, port, upstreams }: Place): Start {
  const { whole, rootFile } = makeAuthority(folder)
  const file = (name: string) => path.join(folder, name)
  writeFileSync(file("fullchain.pem"), whole.certificate)
  writeFileSync(file("privkey.pem"), whole.key)
  const site = fill(shipped("nginx.conf"), [
    ["listen 80;", `listen unix:${file("80.sock")};`],
    ["    listen [::]:80;\n", ""],
    ["listen 443 ssl;", `listen 127.0.0.1:${port} ssl;`],
    ["    listen [::]:443 ssl;\n", ""],
    ["/etc/letsencrypt/live/drop.example.org/fullchain.pem", file("fullchain.pem")],
    ["/etc/letsencrypt/live/drop.example.org/privkey.pem", file("privkey.pem")],
    ["127.0.0.1:8787", upstreams],
  ])
    .replaceAll("server_name drop.example.org", "server_name relay.test")
    .replaceAll("/var/log/nginx/error.log", file("site-error.log"))
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((kind) => `${kind}_temp_path ${file(`${kind}-temporary`)};`)
    .join("\n")
  const logFiles = ["error.log", "access.log", "site-error.log"].map(file)
  // Around the site is what a distribution has: a log of errors and one of all requests.
  const main = `daemon off; pid ${file("nginx.pid")}; error_log ${file("error.log")}; events {}
http { access_log ${file("access.log")}; ${temporary}
${site} }`
  writeFileSync(file("nginx.conf"), main)
  const args = ["-p", folder, "-e", "stderr", "-c", file("nginx.conf")]
  return { command: "nginx", args, rootFile, logFiles }
}

function shipped(name: string): string {
  return readFileSync(path.resolve("deploy", name), "utf8")
}

function fill(text: string, changes: readonly (readonly [string, string])[]): string {
  return changes.reduce((before, [from, to]) => {
    if (!before.includes(from)) throw new Error(`the shipped configuration has no ${from}`)
    return before.replace(from, to)
  }, text)
}

async function listening(port: number, child: ChildProcess, said: () => string): Promise<void> {
  while (child.exitCode === null) {
    const socket = connect(port, "127.0.0.1")
    const isThere = await new Promise<boolean>((resolve) => {
      socket.once("connect", () => resolve(true))
      socket.once("error", () => resolve(false))
    })
    socket.destroy()
    if (isThere) return
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  throw new Error(`${child.spawnfile} ended with ${child.exitCode}:\n${said()}`)
}
