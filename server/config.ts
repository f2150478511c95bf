// The relay's settings: one table, from which flags, environment, file, help and docs/operating.md are
// all made or held. Everything that is wrong is reported at once.
import { readFileSync } from "node:fs"
import { isAbsolute, join } from "node:path"
import {
  editDistance,
  GIB,
  KIB,
  maxBodyBytes,
  maxInboxDeliveries,
  maxRequestBytes,
  MIB,
  relayDefaults,
} from "../protocol/index.js"
import { parseConfigFile } from "./config-file.js"
import { type TrustedProxies, trustedProxiesKind } from "./http/source.js"
import { type Level, levels } from "./log.js"
import { nearestName } from "./nearest-name.js"
import {
  choice,
  count,
  duration,
  file,
  folder,
  type Kind,
  listenAddress,
  type ListenAddress,
  origin,
  redisPlace,
  size,
} from "./setting-kinds.js"
import type { RedisPlace } from "./stores/redis-url.js"

export type { ListenAddress } from "./setting-kinds.js"

export interface RelayConfig {
  readonly listen: ListenAddress
  readonly dataFolder: string
  /** Where the index is, if not in the data folder. */
  readonly redis?: RedisPlace | undefined
  /** Where metrics are served, if anywhere. */
  readonly operatorListen?: ListenAddress | undefined
  /** Where the operator's commands reach the relay; by default a socket in the data folder. */
  readonly operatorSocket?: string | undefined
  /** Origins that clients may reach this relay by, besides its own loopback ones. */
  readonly publicOrigins: readonly string[]
  readonly registration: "open" | "closed"
  /** How long a delivery is kept whose sender wishes nothing else. */
  readonly keepMs: number
  /** The longest wish that is granted. */
  readonly keepMaxMs: number
  readonly deliveryBytes: number
  readonly inboxBytes: number
  readonly inboxDeliveries: number
  /** Space on the disk that uploads never touch; by default the larger of 5 % and 2 GiB. */
  readonly diskHeadroomBytes: number | undefined
  readonly requestBytes: number
  /** Of the log, what is at least as much. */
  readonly logLevel: Level
  /** Set where the relay speaks TLS itself. */
  readonly tls: TlsFiles | undefined
  /** Proxies whose word is taken for whom they ask for. */
  readonly trustedProxies: TrustedProxies | undefined
}

/** Files in PEM. */
export interface TlsFiles {
  /** The certificate, and after it those between it and a root. */
  readonly certFile: string
  readonly keyFile: string
}

/** Offered where no proxy is in between: a relay that only this machine reaches, by loopback. */
const directRequestBytes = 4 * MIB

/** Everything that is wrong with the settings. */
export class ConfigError extends Error {
  override readonly name = "ConfigError"
  readonly problems: readonly string[]

  constructor(problems: readonly string[], options: ErrorOptions = {}) {
    super(problems.join("\n"), options)
    this.problems = problems
  }
}

/** One setting, as help and documents show it. */
export interface ConfigSetting {
  /** What `flags` holds it by. */
  readonly name: string
  readonly flag: string
  /** The flag's value, for help. */
  readonly value: string
  readonly env: string
  readonly repeatable: boolean
  readonly meaning: string
  readonly defaultText: string
  /** What values are taken. */
  readonly bounds: string
}

export interface ConfigSources {
  /** By `name`, or by what was written where there is no such flag; a repeatable one may have several values. */
  readonly flags: Readonly<Record<string, string | readonly string[] | undefined>>
  readonly env: Readonly<Record<string, string | undefined>>
  /** Reads the file of settings; the system's, unless given. */
  readonly readFile?: (path: string) => string
}

interface Setting<T> extends ConfigSetting {
  readonly kind: Kind<T>
  /** The values in use: none where there is no fixed one. */
  readonly of: (config: RelayConfig) => readonly T[]
}

function setting<T>(
  flag: string,
  kind: Kind<T>,
  text: {
    readonly meaning: string
    readonly defaultText: string
    readonly repeatable?: boolean
    readonly env?: string
    readonly of: (config: RelayConfig) => readonly T[]
  },
): Setting<T> {
  const words = flag.split("-")
  const [first = "", ...others] = words
  return {
    env: `KNOTHOLE_${words.join("_").toUpperCase()}`,
    repeatable: false,
    ...text,
    name: first + others.map((word) => `${word.charAt(0).toUpperCase()}${word.slice(1)}`).join(""),
    flag: `--${flag}`,
    kind,
    value: kind.form,
    bounds: kind.bounds,
  }
}

const most = Number.MAX_SAFE_INTEGER

const keepDuration = duration({ least: 60_000, most: relayDefaults.keepMaxMs })

const settings = {
  configFile: setting("config", file, {
    env: "KNOTHOLE_RELAY_CONFIG",
    meaning: "a file with settings",
    defaultText: "none",
    of: () => [],
  }),
  listen: setting("listen", listenAddress, {
    meaning: "where to listen",
    defaultText: "127.0.0.1:8787",
    of: ({ listen }) => [listen],
  }),
  dataFolder: setting("data", folder, {
    meaning: "where everything is kept",
    defaultText: "the XDG data folder, knothole/relay",
    of: ({ dataFolder }) => [dataFolder],
  }),
  redis: setting("redis", redisPlace, {
    meaning: "keep the index in a Redis",
    defaultText: "the data folder",
    of: ({ redis }) => (redis === undefined ? [] : [redis]),
  }),
  operatorListen: setting("operator-listen", listenAddress, {
    meaning: "where /metrics is served",
    defaultText: "nowhere",
    of: ({ operatorListen }) => (operatorListen === undefined ? [] : [operatorListen]),
  }),
  operatorSocket: setting("operator-socket", file, {
    meaning: "the socket that 'knothole relay status' asks",
    defaultText: "operator.sock in the data folder",
    of: ({ operatorSocket }) => (operatorSocket === undefined ? [] : [operatorSocket]),
  }),
  publicOrigins: setting("public-url", origin, {
    meaning: "a URL clients reach the relay by; several may be given, the first is shown",
    defaultText: "none",
    repeatable: true,
    of: ({ publicOrigins }) => publicOrigins,
  }),
  registration: setting("registration", choice(["open", "closed"]), {
    meaning: "whether anyone may open an inbox",
    defaultText: "open only without a public URL that others reach",
    of: ({ registration }) => [registration],
  }),
  keepMs: setting("keep", keepDuration, {
    meaning: "how long a delivery is kept",
    defaultText: "14d",
    of: ({ keepMs }) => [keepMs],
  }),
  keepMaxMs: setting("keep-max", keepDuration, {
    meaning: "the most a sender may ask for",
    defaultText: "--keep, or 30d",
    of: ({ keepMaxMs }) => [keepMaxMs],
  }),
  deliveryBytes: setting("delivery-limit", size({ least: 16 * KIB, most: maxBodyBytes }), {
    meaning: "the largest delivery",
    defaultText: "10GiB",
    of: ({ deliveryBytes }) => [deliveryBytes],
  }),
  inboxBytes: setting("inbox-limit", size({ least: 16 * KIB, most }), {
    meaning: "what may wait in one inbox",
    defaultText: "20GiB",
    of: ({ inboxBytes }) => [inboxBytes],
  }),
  inboxDeliveries: setting("inbox-deliveries", count({ least: 1, most: maxInboxDeliveries }), {
    meaning: "deliveries that may wait in one inbox",
    defaultText: "1000",
    of: ({ inboxDeliveries }) => [inboxDeliveries],
  }),
  diskHeadroomBytes: setting("disk-headroom", size({ least: 0, most }), {
    meaning: "space on the disk that is never filled",
    defaultText: "the larger of 5 % and 2GiB",
    of: ({ diskHeadroomBytes }) => (diskHeadroomBytes === undefined ? [] : [diskHeadroomBytes]),
  }),
  requestBytes: setting("request-size", size({ least: MIB, most: maxRequestBytes }), {
    meaning: "the largest request body offered to clients",
    defaultText: "1MiB; 4MiB without a public URL",
    of: ({ requestBytes }) => [requestBytes],
  }),
  tlsCertFile: setting("tls-cert", file, {
    meaning: "speak TLS: the certificate and its chain",
    defaultText: "none",
    of: ({ tls }) => (tls === undefined ? [] : [tls.certFile]),
  }),
  tlsKeyFile: setting("tls-key", file, {
    meaning: "the certificate's key",
    defaultText: "none",
    of: ({ tls }) => (tls === undefined ? [] : [tls.keyFile]),
  }),
  trustedProxies: setting("trusted-proxies", trustedProxiesKind, {
    meaning: "the proxies before the relay, believed as to whom they ask for",
    defaultText: "none",
    of: ({ trustedProxies }) => (trustedProxies === undefined ? [] : [trustedProxies]),
  }),
  logLevel: setting("log-level", choice(levels, "LEVEL"), {
    meaning: "the least that is logged: debug, info, warning or alarm",
    defaultText: "info",
    of: ({ logLevel }) => [logLevel],
  }),
} as const

export const configSettings: readonly ConfigSetting[] = Object.values(settings)

/** Flags win over the environment, that over the file, that over the defaults. Throws ConfigError. */
export function loadConfig(sources: ConfigSources): RelayConfig {
  return resolve(sources).config
}

/**
 * Where a relay with these settings has its operator's socket, whatever is wrong with the others: it may
 * have been started with more than those who ask it are told. Throws ConfigError.
 */
export function findOperatorSocket(sources: ConfigSources): string {
  const given = new Given(sources)
  const path = operatorSocketOf(resolvePlaces(given, sources))
  given.throwProblems()
  return path
}

/** The settings in use as a file of settings, each under a comment that says where it is from. Throws ConfigError. */
export function showConfig(sources: ConfigSources): string {
  const { config, given } = resolve(sources)
  // A file cannot name another.
  const { configFile: _, ...others } = settings
  const sections = Object.values(others).map((one) => {
    const source = given.source(one)
    const values = encodeValues<unknown>(one, config)
    if (values.length === 0) return `# ${one.env}: ${one.defaultText} (${source})\n`
    return `# ${source}\n${one.env}=${values.join(" ")}\n`
  })
  return sections.join("\n")
}

function encodeValues<T>({ kind, of }: Setting<T>, config: RelayConfig): string[] {
  return of(config).map((value) => kind.encode(value))
}

function resolve(sources: ConfigSources): { readonly config: RelayConfig; readonly given: Given } {
  const given = new Given(sources)
  const last = <T>(one: Setting<T>): T | undefined => given.values(one).at(-1)

  const listen = last(settings.listen) ?? { host: "127.0.0.1", port: 8787 }
  const places = resolvePlaces(given, sources)
  const publicOrigins = given.values(settings.publicOrigins)
  if (publicOrigins.length === 0 && !isLoopbackHost(listen.host)) {
    const where = given.saying(settings.listen)
    given.problem(
      `--public-url: with ${where} other machines can reach the relay, so it has to know by what URL, or nobody could log in; with --listen 127.0.0.1:8787 this one alone does`,
    )
  }
  const isLocal =
    publicOrigins.length > 0 ? publicOrigins.every(isLoopbackOrigin) : isLoopbackHost(listen.host)
  const deliveryBytes = last(settings.deliveryBytes)
  const inboxBytes = last(settings.inboxBytes)
  if (deliveryBytes !== undefined && inboxBytes !== undefined && deliveryBytes > inboxBytes) {
    given.problemWith(
      settings.deliveryBytes,
      "more than --inbox-limit, so the largest would fit no inbox",
    )
  }
  const redis = last(settings.redis)
  if (redis?.password !== undefined && given.isFlag(settings.redis)) {
    given.problem(
      "--redis: everybody on this machine can read a password there; put the URL into KNOTHOLE_REDIS, or into the file of settings",
    )
  }
  const config = {
    listen,
    ...places,
    redis,
    operatorListen: last(settings.operatorListen),
    publicOrigins: [...new Set(publicOrigins)],
    registration: last(settings.registration) ?? (isLocal ? "open" : "closed"),
    ...resolveKeep(given),
    deliveryBytes: deliveryBytes ?? relayDefaults.deliveryBytes,
    inboxBytes: inboxBytes ?? relayDefaults.inboxBytes,
    inboxDeliveries: last(settings.inboxDeliveries) ?? relayDefaults.inboxDeliveries,
    diskHeadroomBytes: last(settings.diskHeadroomBytes),
    requestBytes:
      last(settings.requestBytes) ??
      (publicOrigins.length === 0 ? directRequestBytes : relayDefaults.requestBytes),
    tls: resolveTls(given, publicOrigins),
    trustedProxies: last(settings.trustedProxies),
    logLevel: last(settings.logLevel) ?? "info",
  }
  given.throwProblems()
  return { config, given }
}

function resolvePlaces(
  given: Given,
  sources: ConfigSources,
): Pick<RelayConfig, "dataFolder" | "operatorSocket"> {
  const dataFolder = given.values(settings.dataFolder).at(-1) ?? defaultDataFolder(sources.env)
  if (dataFolder === undefined) {
    given.problem("--data: there is no home folder to put the relay's data in, so say where")
  }
  const places = {
    dataFolder: dataFolder ?? "",
    operatorSocket: given.values(settings.operatorSocket).at(-1),
  }
  const socketProblem = socketPathProblem(operatorSocketOf(places))
  if (socketProblem !== undefined) given.problem(`--operator-socket: ${socketProblem}`)
  return places
}

function resolveKeep(given: Given): Pick<RelayConfig, "keepMs" | "keepMaxMs"> {
  const keepMs = given.values(settings.keepMs).at(-1)
  // Who says how long expects nothing to be kept beyond that.
  const keepMaxMs = given.values(settings.keepMaxMs).at(-1) ?? keepMs ?? relayDefaults.keepMaxMs
  if (keepMs !== undefined && keepMs > keepMaxMs) {
    given.problemWith(settings.keepMs, "more than --keep-max")
  }
  return { keepMs: keepMs ?? Math.min(relayDefaults.keepMs, keepMaxMs), keepMaxMs }
}

function resolveTls(given: Given, publicOrigins: readonly string[]): TlsFiles | undefined {
  const certFile = given.values(settings.tlsCertFile).at(-1)
  const keyFile = given.values(settings.tlsKeyFile).at(-1)
  if (certFile === undefined && keyFile === undefined) return undefined
  if (certFile === undefined) {
    given.problemWith(settings.tlsKeyFile, "of no use without --tls-cert")
    return undefined
  }
  if (keyFile === undefined) {
    given.problemWith(settings.tlsCertFile, "of no use without --tls-key")
    return undefined
  }
  // Loopback names mean http to a client, so without another one nobody could use the relay.
  if (!publicOrigins.some((one) => one.startsWith("https:"))) {
    given.problem(
      "--tls-cert: clients reach a relay with TLS by an https URL, so --public-url has to say which",
    )
  }
  return { certFile, keyFile }
}

interface Problem {
  /** In the file; 0 for what was not written there. */
  readonly line: number
  readonly problem: string
}

interface Written {
  /** Where it was written, for messages. */
  readonly where: string
  /** In the file; 0 for what was not written there. */
  readonly line: number
  readonly texts: readonly string[]
}

/** What was given, by whom; and everything that is wrong with it, as it is asked for. */
class Given {
  readonly #sources: ConfigSources
  readonly #file: ReadonlyMap<string, Written>
  readonly #problems: Problem[] = []

  constructor(sources: ConfigSources) {
    this.#sources = sources
    this.#checkNames()
    const path = this.values(settings.configFile).at(-1)
    this.#file = path === undefined ? new Map() : this.#readFile(path)
  }

  problem(problem: string, line: number = 0): void {
    this.#problems.push({ line, problem })
  }

  /** One with a setting that was given. */
  problemWith(one: ConfigSetting, problem: string): void {
    const { where, line } = this.#find(one) ?? { where: one.flag, line: 0 }
    this.problem(`${where}: ${problem}`, line)
  }

  throwProblems(): void {
    if (this.#problems.length === 0) return
    const inOrder = this.#problems.toSorted((one, other) => one.line - other.line)
    throw new ConfigError(inOrder.map(({ problem }) => problem))
  }

  /** How a setting was written, for messages. */
  saying(one: ConfigSetting): string {
    const { where, texts } = this.#find(one) ?? { where: one.flag, texts: [] }
    return [where, ...texts.map((text) => JSON.stringify(text))].join(" ")
  }

  isFlag(one: ConfigSetting): boolean {
    return this.#find(one)?.where === one.flag
  }

  /** Where the values come from. */
  source(one: ConfigSetting): string {
    return this.#find(one)?.where ?? "default"
  }

  /** What was given, parsed; what cannot be is a problem. */
  values<T>(one: Setting<T>): T[] {
    const { where, line, texts } = this.#find(one) ?? { where: "", line: 0, texts: [] }
    return texts.flatMap((text) => {
      try {
        return [one.kind.parse(text)]
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error)
        const shown = one.kind.isSecret ? "" : ` ${JSON.stringify(text)}`
        this.problem(`${where}${shown}: ${reason}`, line)
        return []
      }
    })
  }

  #find(one: ConfigSetting): Written | undefined {
    const flag = this.#sources.flags[one.name]
    if (flag !== undefined) {
      return { where: one.flag, line: 0, texts: typeof flag === "string" ? [flag] : flag }
    }
    const texts = splitValue(one, this.#sources.env[one.env] ?? "")
    if (texts.length > 0) return { where: one.env, line: 0, texts }
    return one.name === settings.configFile.name ? undefined : this.#file.get(one.env)
  }

  #checkNames(): void {
    const { flags, env } = this.#sources
    const names = new Set(configSettings.map(({ name }) => name))
    for (const name of Object.keys(flags)) {
      if (!names.has(name)) {
        this.problem(
          unknownName(
            name,
            configSettings.map(({ flag }) => flag),
          ),
        )
      }
    }
    // The client's variables are there as well, so only what is nearly the name of one of the relay's
    // can be told to be wrong.
    const variables = configSettings.map(({ env }) => env)
    for (const name of Object.keys(env)) {
      if (!name.startsWith("KNOTHOLE_") || variables.includes(name)) continue
      if (variables.some((one) => editDistance(name, one, mistypedLetters) !== Infinity)) {
        this.problem(unknownName(name, variables))
      }
    }
  }

  #readFile(path: string): Map<string, Written> {
    const found = new Map<string, Written>()
    let text: string
    try {
      text = (this.#sources.readFile ?? readConfigFile)(path)
    } catch (error) {
      this.problem(`${this.saying(settings.configFile)}: ${unreadable(error)}`)
      return found
    }
    const { entries, problems } = parseConfigFile(text)
    for (const { line, problem } of problems) {
      this.problem(`${path}, line ${line}: ${problem}`, line)
    }
    for (const { name, value, line } of entries) {
      const one = configSettings.find(({ env }) => env === name)
      const where = `${path}, line ${line}: ${name}`
      if (one === undefined) {
        this.problem(
          `${path}, line ${line}: ${unknownName(
            name,
            configSettings.map(({ env }) => env),
          )}`,
          line,
        )
      } else if (one.name === settings.configFile.name) {
        this.problem(`${where}: one file cannot name another`, line)
      } else if (found.has(name)) {
        this.problem(`${where}: stands there twice`, line)
      } else if (isPathSetting(one) && value !== "" && !isAbsolute(value)) {
        this.problem(`${where}: not an absolute path, which a file needs`, line)
      } else {
        const texts = splitValue(one, value)
        if (texts.length > 0) found.set(name, { where, line, texts })
      }
    }
    return found
  }
}

/** A letter left out, doubled, wrong, or two of them swapped. */
const mistypedLetters = 2

function unknownName(name: string, known: readonly string[]): string {
  const nearest = nearestName(name, known)
  return `${name}: not a setting of the relay${nearest === undefined ? "" : `; did you mean ${nearest}?`}`
}

/** An empty value counts as none. */
function splitValue({ repeatable }: ConfigSetting, text: string): string[] {
  if (text.trim() === "") return []
  return repeatable ? text.trim().split(/\s+/) : [text]
}

function isPathSetting({ value }: ConfigSetting): boolean {
  return value === file.form || value === folder.form
}

const unreadableFile: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file",
  ENOTDIR: "there is no such file",
  EISDIR: "that is a folder, not a file",
  EACCES: "this user may not read it",
}

function unreadable(error: unknown): string {
  const code = error instanceof Error && "code" in error ? String(error.code) : ""
  const reason = error instanceof Error ? error.message : String(error)
  return unreadableFile[code] ?? `cannot be read: ${reason}`
}

function readConfigFile(path: string): string {
  return readFileSync(path, "utf8")
}

/** The origins of a relay that listens on loopback: no other machine can be meant by them. */
export function loopbackOrigins({ host, port }: ListenAddress): string[] {
  if (!isLoopbackHost(host)) return []
  return ["127.0.0.1", "localhost", "[::1]"].map((name) => new URL(`http://${name}:${port}`).origin)
}

/** Where the relay is to listen, as `--listen` has it. */
export function listenTextOf({ listen }: Pick<RelayConfig, "listen">): string {
  return listenAddress.encode(listen)
}

/** Where the operator's socket is. */
export function operatorSocketOf(
  config: Pick<RelayConfig, "dataFolder" | "operatorSocket">,
): string {
  return config.operatorSocket ?? join(config.dataFolder, "operator.sock")
}

/** The kernel's field for a socket's path, with its last zero: 108 bytes on Linux, 104 on macOS. */
const socketPathBytes = 103

/** Why no socket can be at this path. */
export function socketPathProblem(path: string): string | undefined {
  const bytes = Buffer.byteLength(path)
  if (bytes <= socketPathBytes) return undefined
  return `${path} has ${bytes} bytes, and the system takes ${socketPathBytes} at most: say a shorter path`
}

/** The relay's share of a disk that uploads may not use. */
export function headroomBytes(config: RelayConfig, totalBytes: number): number {
  return config.diskHeadroomBytes ?? Math.max(0.05 * totalBytes, 2 * GIB)
}

function isLoopbackHost(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.[0-9]{1,3}){3}$/.test(host)
}

function isLoopbackOrigin(origin: string): boolean {
  return isLoopbackHost(new URL(origin).hostname.replace(/^\[(.*)\]$/, "$1"))
}

function defaultDataFolder(env: ConfigSources["env"]): string | undefined {
  const { KNOTHOLE_HOME, XDG_DATA_HOME, HOME } = env
  if (KNOTHOLE_HOME) return join(KNOTHOLE_HOME, "relay")
  // A relative one is to be ignored, as the XDG base directory specification says.
  if (XDG_DATA_HOME && isAbsolute(XDG_DATA_HOME)) {
    return join(XDG_DATA_HOME, "knothole", "relay")
  }
  return HOME ? join(HOME, ".local", "share", "knothole", "relay") : undefined
}
