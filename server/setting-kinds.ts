// The kinds of values a setting may have: how each is written, what is taken, and back again.
import { type RedisPlace, parseRedisUrl, redisUrlWithoutLogin } from "./stores/redis-url.js"
import { GIB, hostOf, KIB, MIB } from "../protocol/index.js"

export interface Kind<T> {
  /** How a value is written, for help: `SIZE`. */
  readonly form: string
  /** What is taken. */
  readonly bounds: string
  /** Throws an Error whose message says what is wanted. */
  parse(text: string): T
  encode(value: T): string
  /** It may hold a password: a message does not repeat it. */
  readonly isSecret?: true
}

export interface ListenAddress {
  /** A host name or address, IPv6 without brackets. */
  readonly host: string
  /** 0 lets the system choose. */
  readonly port: number
}

export const listenAddress: Kind<ListenAddress> = {
  form: "HOST:PORT",
  bounds: "port 0 to 65535, 0 lets the system choose; IPv6 in brackets",
  parse(text) {
    const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})$/.exec(text)
    const port = Number(match?.[3])
    const host = match?.[1] ?? match?.[2]
    if (host === undefined || port > 65_535) {
      throw new Error("not HOST:PORT, such as 127.0.0.1:8787 or [::1]:8787")
    }
    return { host, port }
  },
  encode: ({ host, port }) => (host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`),
}

function pathKind(form: string): Kind<string> {
  return {
    form,
    bounds: "absolute in a file of settings",
    parse(text) {
      if (text === "" || text.includes("\0")) throw new Error("not a path")
      return text
    },
    encode: (path) => path,
  }
}

export const folder: Kind<string> = pathKind("DIR")
export const file: Kind<string> = pathKind("FILE")

/** An origin that clients may use. */
export const origin: Kind<string> = {
  form: "URL",
  bounds: "https; http on loopback and .onion only; no path",
  parse(text) {
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
  },
  encode: (value) => value,
}

/** A Redis, one or several servers. What is shown of it is without the password. */
export const redisPlace: Kind<RedisPlace> = {
  form: "URL",
  bounds: "redis://HOST:PORT, and the forms that the section Redis has",
  parse(text) {
    try {
      return parseRedisUrl(text)
    } catch (error) {
      throw new Error("not redis://HOST:PORT, nor another form that docs/operating.md has", {
        cause: error,
      })
    }
  },
  encode: redisUrlWithoutLogin,
  isSecret: true,
}

/** `form` where the values themselves would be too long for one column of help. */
export function choice<const T extends string>(
  values: readonly T[],
  form: string = values.join("|"),
): Kind<T> {
  return {
    form,
    bounds: values.join(", "),
    parse(text) {
      const value = values.find((one) => one === text)
      if (value === undefined) throw new Error(`not one of ${values.join(", ")}`)
      return value
    },
    encode: (value) => value,
  }
}

interface Bounds {
  readonly least: number
  readonly most: number
}

const minuteMs = 60_000
const durationUnits: readonly (readonly [name: string, ms: number])[] = [
  ["d", 86_400_000],
  ["h", 3_600_000],
  ["m", minuteMs],
]

export function duration({ least, most }: Bounds): Kind<number> {
  return {
    form: "DURATION",
    bounds: `${encodeDuration(least)} to ${encodeDuration(most)}`,
    parse(text) {
      const [, count = "", unit = ""] = /^([0-9]{1,6})([mhd])$/.exec(text) ?? []
      const named = durationUnits.find(([name]) => name === unit)
      if (named === undefined) throw new Error("not a duration such as 14d, 12h or 90m")
      const ms = Number(count) * named[1]
      if (ms < least || ms > most)
        throw new Error(`not from ${encodeDuration(least)} to ${encodeDuration(most)}`)
      return ms
    },
    encode: encodeDuration,
  }
}

function encodeDuration(ms: number): string {
  const [name, unitMs] =
    durationUnits.find(([, unit]) => ms % unit === 0) ?? (["m", minuteMs] as const)
  return `${Math.ceil(ms / unitMs)}${name}`
}

const sizeUnits: readonly (readonly [name: string, bytes: number])[] = [
  ["TiB", 1024 * GIB],
  ["GiB", GIB],
  ["MiB", MIB],
  ["KiB", KIB],
  ["", 1],
]

export function size({ least, most }: Bounds): Kind<number> {
  const range =
    most === Number.MAX_SAFE_INTEGER
      ? `${encodeSize(least)} or more`
      : `${encodeSize(least)} to ${encodeSize(most)}`
  return {
    form: "SIZE",
    bounds: range,
    parse(text) {
      const [whole, count = "", unit = ""] = /^([0-9]{1,15}) ?([KMGT]iB)?$/i.exec(text) ?? []
      const named = sizeUnits.find(([name]) => name.toUpperCase() === unit.toUpperCase())
      if (whole === undefined || named === undefined) {
        throw new Error("not a size such as 512MiB or 10GiB")
      }
      const bytes = Number(count) * named[1]
      if (bytes < least || bytes > most) throw new Error(`not ${range}`)
      return bytes
    },
    encode: encodeSize,
  }
}

function encodeSize(bytes: number): string {
  const [name, unitBytes] =
    sizeUnits.find(([, unit]) => bytes > 0 && bytes % unit === 0) ?? (["", 1] as const)
  return `${bytes / unitBytes}${name}`
}

export function count({ least, most }: Bounds): Kind<number> {
  return {
    form: "COUNT",
    bounds: `${least} to ${most}`,
    parse(text) {
      const number = Number(text)
      if (!/^[0-9]{1,9}$/.test(text) || number < least || number > most) {
        throw new Error(`not a number from ${least} to ${most}`)
      }
      return number
    },
    encode: String,
  }
}
