// Where a Redis is, as operators write it:
//
//   redis://[USER:PASSWORD@]HOST[:PORT][/DB]             one server; rediss:// by TLS
//   redis+unix://[USER:PASSWORD@]/PATH/OF/SOCKET[?db=DB]  one server, by its socket
//   redis+cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT…  a cluster, by some of its nodes; rediss+cluster://
//   redis+sentinel://[USER:PASSWORD@]HOST:PORT,…/NAME[/DB]  the master of that name; rediss+sentinel://
//
// A password without a user is `:PASSWORD@`. Both are %-escaped.
import { FormatError } from "../../protocol/index.js"

export interface RedisNode {
  /** A host name or address, IPv6 without brackets. */
  readonly host: string
  readonly port: number
}

interface RedisLogin {
  readonly user?: string
  readonly password?: string
}

export type RedisPlace = RedisLogin &
  (
    | {
        readonly kind: "server"
        readonly node: RedisNode
        readonly tls: boolean
        readonly db: number
      }
    | { readonly kind: "socket"; readonly path: string; readonly db: number }
    | { readonly kind: "cluster"; readonly nodes: readonly RedisNode[]; readonly tls: boolean }
    | {
        readonly kind: "sentinel"
        readonly nodes: readonly RedisNode[]
        readonly name: string
        readonly tls: boolean
        readonly db: number
      }
  )

const redisPort = 6379
const sentinelPort = 26_379
const mostCharacters = 2000
const mostNodes = 100

/** Throws FormatError, without what might be a password. */
export function parseRedisUrl(text: string): RedisPlace {
  if (text.length > mostCharacters) throw wrong("too long")
  const match =
    /^(rediss?)(\+unix|\+cluster|\+sentinel)?:\/\/(?:([^@/?#]*)@)?([^@?#]*)(?:\?db=([^?#]*))?$/.exec(
      text,
    )
  const [, scheme, kind = "", login, rest = "", query] = match ?? []
  if (scheme === undefined) throw wrong("not redis://HOST:PORT, nor another form of it")
  const tls = scheme === "rediss"
  const who = parseLogin(login)
  if (kind === "+unix") {
    if (tls) throw wrong("a socket has no TLS")
    const path = unescaped(rest)
    if (!/^\/[^\0]+$/.test(path)) throw wrong("not the absolute path of a socket")
    return { kind: "socket", ...who, path, db: parseDb(query) }
  }
  if (query !== undefined) throw wrong("?db= is for sockets")
  const [hosts = "", ...path] = rest.split("/")
  if (path.at(-1) === "") path.pop()
  if (kind === "+cluster") {
    if (path.length > 0) throw wrong("a cluster has no databases")
    return { kind: "cluster", ...who, nodes: parseNodes(hosts, redisPort), tls }
  }
  if (kind === "+sentinel") {
    const [name = "", db, ...more] = path
    if (!/^[A-Za-z0-9._-]{1,100}$/.test(name) || more.length > 0) {
      throw wrong("not HOST:PORT,HOST:PORT/NAME, the name by which the sentinels know the master")
    }
    return {
      kind: "sentinel",
      ...who,
      nodes: parseNodes(hosts, sentinelPort),
      name,
      tls,
      db: parseDb(db),
    }
  }
  const [db, ...more] = path
  if (more.length > 0) throw wrong("more than a database after the host")
  const [node, ...others] = parseNodes(hosts, redisPort)
  if (node === undefined || others.length > 0) {
    throw wrong("several hosts need redis+cluster:// or redis+sentinel://")
  }
  return { kind: "server", ...who, node, tls, db: parseDb(db) }
}

/** For people and logs: where it is, and not who asks. */
export function redisUrlWithoutLogin(place: RedisPlace): string {
  if (place.kind === "socket") {
    const path = place.path.split("/").map(encodeURIComponent).join("/")
    return `redis+unix://${path}${place.db === 0 ? "" : `?db=${place.db}`}`
  }
  const scheme = place.tls ? "rediss" : "redis"
  if (place.kind === "cluster")
    return `${scheme}+cluster://${place.nodes.map(encodeNode).join(",")}`
  const db = place.db === 0 ? "" : `/${place.db}`
  if (place.kind === "server") return `${scheme}://${encodeNode(place.node)}${db}`
  return `${scheme}+sentinel://${place.nodes.map(encodeNode).join(",")}/${place.name}${db}`
}

function encodeNode({ host, port }: RedisNode): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`
}

function parseLogin(login: string | undefined): RedisLogin {
  if (login === undefined) return {}
  const [, user = "", password = ""] = /^([^:]*):([^:]+)$/.exec(login) ?? []
  if (password === "") throw wrong("not USER:PASSWORD@ nor :PASSWORD@")
  return { ...(user !== "" && { user: unescaped(user) }), password: unescaped(password) }
}

function parseNodes(text: string, defaultPort: number): RedisNode[] {
  const nodes = text.split(",")
  if (nodes.length > mostNodes) throw wrong("too many hosts")
  return nodes.map((node) => {
    const match = /^(?:\[([0-9a-fA-F:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::([0-9]{1,5}))?$/.exec(
      node,
    )
    const host = match?.[1] ?? match?.[2]
    const port = Number(match?.[3] ?? defaultPort)
    if (host === undefined || port < 1 || port > 65_535) throw wrong("not HOST:PORT")
    return { host, port }
  })
}

function parseDb(text: string | undefined): number {
  if (text === undefined) return 0
  if (!/^(0|[1-9][0-9]{0,4})$/.test(text)) throw wrong("not the number of a database")
  return Number(text)
}

function unescaped(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch (error) {
    throw new FormatError("redis url", "%-escapes that do not decode", { cause: error })
  }
}

function wrong(problem: string): FormatError {
  return new FormatError("redis url", problem)
}
