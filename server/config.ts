// The relay's settings: one table, from which flags, environment and help are all made. `loadConfig` is
// pure and reports every problem at once.
import { join } from "node:path"
import { GIB, hostOf, KIB, maxBodyBytes, MIB, relayDefaults } from "../protocol/index.js"

export interface RelayConfig {
  readonly listen: ListenAddress
  readonly dataFolder: string
  /** Origins that clients may reach this relay by, besides its own loopback ones. */
  readonly publicOrigins: readonly string[]
  readonly registration: "open" | "closed"
  readonly keepMs: number
  readonly deliveryBytes: number
  readonly inboxBytes: number
  readonly inboxDeliveries: number
  /** Space on the disk that uploads never touch; by default the larger of 5 % and 2 GiB. */
  readonly diskHeadroomBytes: number | undefined
  readonly requestBytes: number
}

export interface ListenAddress {
  /** A host name or address, IPv6 without brackets. */
  readonly host: string
  /** 0 lets the system choose. */
  readonly port: number
}

/** Offered where no proxy is in between: a relay that only this machine reaches, by loopback. */
const directRequestBytes = 4 * MIB

/** Everything that is wrong with the settings. */
export class ConfigError extends Error {
  override readonly name = "ConfigError"
  readonly problems: readonly string[]

  constructor(problems: readonly string[]) {
    super(problems.join("\n"))
    this.problems = problems
  }
}

/** One setting, as help shows it. */
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
}

export interface ConfigSources {
  /** By `name`; a repeatable one may have several values. */
  readonly flags: Readonly<Record<string, string | readonly string[] | undefined>>
  readonly env: Readonly<Record<string, string | undefined>>
}

interface Setting<T> extends ConfigSetting {
  /** Throws an Error whose message says what is wanted. */
  parse(text: string): T
}

function setting<T>(
  text: {
    readonly name: string
    readonly flag: string
    readonly env: string
    readonly meaning: string
    readonly defaultText: string
    readonly repeatable?: boolean
  },
  parse: (text: string) => T,
): Setting<T> {
  const [flag = "", value = ""] = text.flag.split(" ")
  return { ...text, flag, value, repeatable: text.repeatable ?? false, parse }
}

const dayMs = 86_400_000

const settings = {
  listen: setting(
    {
      name: "listen",
      flag: "--listen HOST:PORT",
      env: "KNOTHOLE_LISTEN",
      meaning: "where to listen",
      defaultText: "127.0.0.1:8787",
    },
    parseListen,
  ),
  dataFolder: setting(
    {
      name: "data",
      flag: "--data DIR",
      env: "KNOTHOLE_DATA",
      meaning: "where everything is kept",
      defaultText: "the XDG data folder, knothole/relay",
    },
    parsePath,
  ),
  publicOrigins: setting(
    {
      name: "publicUrl",
      flag: "--public-url URL",
      env: "KNOTHOLE_PUBLIC_URL",
      meaning: "a URL clients reach the relay by; may be given several times",
      defaultText: "none",
      repeatable: true,
    },
    parseOrigin,
  ),
  registration: setting(
    {
      name: "registration",
      flag: "--registration open|closed",
      env: "KNOTHOLE_REGISTRATION",
      meaning: "whether anyone may open an inbox",
      defaultText: "open only without a public URL that others reach",
    },
    parseRegistration,
  ),
  keepMs: setting(
    {
      name: "keep",
      flag: "--keep DURATION",
      env: "KNOTHOLE_KEEP",
      meaning: "how long a delivery is kept, such as 14d or 12h; 30 days at most",
      defaultText: "14d",
    },
    (text) => parseDuration(text, relayDefaults.keepMaxMs),
  ),
  deliveryBytes: setting(
    {
      name: "deliveryLimit",
      flag: "--delivery-limit SIZE",
      env: "KNOTHOLE_DELIVERY_LIMIT",
      meaning: "the largest delivery; 64GiB at most",
      defaultText: "10GiB",
    },
    (text) => parseSize(text, { least: 16 * KIB, most: maxBodyBytes }),
  ),
  inboxBytes: setting(
    {
      name: "inboxLimit",
      flag: "--inbox-limit SIZE",
      env: "KNOTHOLE_INBOX_LIMIT",
      meaning: "what may wait in one inbox",
      defaultText: "20GiB",
    },
    (text) => parseSize(text, { least: 16 * KIB, most: Number.MAX_SAFE_INTEGER }),
  ),
  inboxDeliveries: setting(
    {
      name: "inboxDeliveries",
      flag: "--inbox-deliveries COUNT",
      env: "KNOTHOLE_INBOX_DELIVERIES",
      meaning: "how many deliveries may wait in one inbox",
      defaultText: "1000",
    },
    (text) => parseCount(text, { least: 1, most: 1_000_000 }),
  ),
  diskHeadroomBytes: setting(
    {
      name: "diskHeadroom",
      flag: "--disk-headroom SIZE",
      env: "KNOTHOLE_DISK_HEADROOM",
      meaning: "space on the disk that is never filled",
      defaultText: "the larger of 5 % and 2GiB",
    },
    (text) => parseSize(text, { least: 0, most: Number.MAX_SAFE_INTEGER }),
  ),
  requestBytes: setting(
    {
      name: "requestSize",
      flag: "--request-size SIZE",
      env: "KNOTHOLE_REQUEST_SIZE",
      meaning: "the largest request body offered to clients, 1MiB to 16MiB",
      defaultText: "1MiB, which stock proxies let through; 4MiB without a public URL",
    },
    (text) => parseSize(text, { least: MIB, most: 16 * MIB }),
  ),
} as const

export const configSettings: readonly ConfigSetting[] = Object.values(settings)

/** Flags win over the environment, which wins over the defaults. Throws ConfigError. */
export function loadConfig(sources: ConfigSources): RelayConfig {
  const problems: string[] = []

  function all<T>(one: Setting<T>): T[] {
    const flag = sources.flags[one.name]
    const env = sources.env[one.env]
    const fromEnv = env === undefined || env === "" ? [] : one.repeatable ? env.split(/\s+/) : [env]
    const texts = flag === undefined ? fromEnv : typeof flag === "string" ? [flag] : flag
    const source = flag === undefined ? one.env : one.flag
    return texts.flatMap((text) => {
      try {
        return [one.parse(text)]
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error)
        problems.push(`${source} ${JSON.stringify(text)}: ${reason}`)
        return []
      }
    })
  }
  const last = <T>(one: Setting<T>): T | undefined => all(one).at(-1)

  const listen = last(settings.listen) ?? { host: "127.0.0.1", port: 8787 }
  const dataFolder = last(settings.dataFolder) ?? defaultDataFolder(sources.env)
  if (dataFolder === undefined) {
    problems.push("--data: there is no home folder to put the relay's data in, so say where")
  }
  const publicOrigins = all(settings.publicOrigins)
  if (publicOrigins.length === 0 && !isLoopbackHost(listen.host)) {
    problems.push(
      "--public-url: other machines can reach the relay, so it has to know by what URL, or nobody could log in",
    )
  }
  const isLocal =
    publicOrigins.length > 0 ? publicOrigins.every(isLoopbackOrigin) : isLoopbackHost(listen.host)
  const config = {
    listen,
    dataFolder: dataFolder ?? "",
    publicOrigins,
    registration: last(settings.registration) ?? (isLocal ? "open" : "closed"),
    keepMs: last(settings.keepMs) ?? relayDefaults.keepMs,
    deliveryBytes: last(settings.deliveryBytes) ?? relayDefaults.deliveryBytes,
    inboxBytes: last(settings.inboxBytes) ?? relayDefaults.inboxBytes,
    inboxDeliveries: last(settings.inboxDeliveries) ?? relayDefaults.inboxDeliveries,
    diskHeadroomBytes: last(settings.diskHeadroomBytes),
    requestBytes:
      last(settings.requestBytes) ??
      (publicOrigins.length === 0 ? directRequestBytes : relayDefaults.requestBytes),
  }
  const known = new Set(configSettings.map(({ name }) => name))
  for (const name of Object.keys(sources.flags)) {
    if (!known.has(name)) problems.push(`${name}: not a setting of the relay`)
  }
  if (problems.length > 0) throw new ConfigError(problems)
  return config
}

/** The origins of a relay that listens on loopback: no other machine can be meant by them. */
export function loopbackOrigins({ host, port }: ListenAddress): string[] {
  if (!isLoopbackHost(host)) return []
  return ["127.0.0.1", "localhost", "[::1]"].map((name) => new URL(`http://${name}:${port}`).origin)
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
  if (XDG_DATA_HOME) return join(XDG_DATA_HOME, "knothole", "relay")
  return HOME ? join(HOME, ".local", "share", "knothole", "relay") : undefined
}

function parseListen(text: string): ListenAddress {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})$/.exec(text)
  const port = Number(match?.[3])
  const host = match?.[1] ?? match?.[2]
  if (host === undefined || port > 65_535) {
    throw new Error("not HOST:PORT, such as 127.0.0.1:8787 or [::1]:8787")
  }
  return { host, port }
}

function parsePath(text: string): string {
  if (text === "" || text.includes("\0")) throw new Error("not a path")
  return text
}

function parseOrigin(text: string): string {
  let origin: string
  try {
    const url = new URL(text)
    if (url.pathname !== "/" || url.search !== "" || url.hash !== "") throw new Error("more")
    origin = url.origin
  } catch (error) {
    throw new Error("not a URL of scheme, host and port alone", { cause: error })
  }
  try {
    hostOf(origin)
  } catch (error) {
    throw new Error("not https, nor http on loopback or .onion", { cause: error })
  }
  return origin
}

function parseRegistration(text: string): "open" | "closed" {
  if (text !== "open" && text !== "closed") throw new Error("neither open nor closed")
  return text
}

const durationUnits: Readonly<Record<string, number>> = {
  m: 60_000,
  h: 3_600_000,
  d: dayMs,
}

function parseDuration(text: string, mostMs: number): number {
  const [, count = "", unit = ""] = /^([0-9]{1,6})([mhd])$/.exec(text) ?? []
  const ms = Number(count) * (durationUnits[unit] ?? 0)
  if (ms < 60_000) throw new Error("not a duration such as 14d, 12h or 90m")
  if (ms > mostMs) throw new Error(`more than ${mostMs / dayMs} days`)
  return ms
}

const sizeUnits: Readonly<Record<string, number>> = { "": 1, KIB, MIB, GIB, TIB: 1024 * GIB }

function parseSize(
  text: string,
  { least, most }: { readonly least: number; readonly most: number },
): number {
  const [whole, count = "", unit = ""] = /^([0-9]{1,15}) ?([KMGT]iB)?$/i.exec(text) ?? []
  const bytes = Number(count) * (sizeUnits[unit.toUpperCase()] ?? Number.NaN)
  if (whole === undefined) throw new Error("not a size such as 512MiB or 10GiB")
  if (!(bytes >= least && bytes <= most)) throw new Error("out of range")
  return bytes
}

function parseCount(
  text: string,
  { least, most }: { readonly least: number; readonly most: number },
): number {
  const count = Number(text)
  if (!/^[0-9]{1,9}$/.test(text) || count < least || count > most) {
    throw new Error(`not a number from ${least} to ${most}`)
  }
  return count
}
