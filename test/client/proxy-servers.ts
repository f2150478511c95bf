// Two small proxies as a person may have them: SOCKS5 (RFC 1928, 1929) and HTTP CONNECT. Both take every
// name to one port on loopback, as the network behind a real one would.
import { once } from "node:events"
import http from "node:http"
import net, { type AddressInfo, type Socket } from "node:net"
import { onTestFinished } from "vitest"

export interface ProxyServer {
  readonly host: string
  /** What it was asked to connect to, as asked. */
  readonly asked: string[]
}

interface Options {
  /** Where every connection leads. */
  readonly port: number
  readonly credentials?: { readonly user: string; readonly password: string }
  /** Answers instead of connecting: a SOCKS5 reply code, or a raw HTTP answer. */
  readonly refuse?: number | string
}

export async function startSocks5(options: Options): Promise<ProxyServer> {
  const asked: string[] = []
  const server = net.createServer((socket) => {
    void serveSocks5(socket, options, asked).catch(() => socket.destroy())
  })
  return { host: await listen(server), asked }
}

async function serveSocks5(socket: Socket, options: Options, asked: string[]): Promise<void> {
  socket.on("error", () => socket.destroy())
  const reader = new Reader(socket)
  const [, count = 0] = await reader.take(2)
  const methods = await reader.take(count)
  const method = options.credentials === undefined ? 0 : 2
  if (!methods.includes(method)) {
    socket.end(Buffer.from([5, 0xff]))
    return
  }
  socket.write(Buffer.from([5, method]))
  if (options.credentials !== undefined) {
    const [, userLength = 0] = await reader.take(2)
    const user = (await reader.take(userLength)).toString()
    const [passwordLength = 0] = await reader.take(1)
    const password = (await reader.take(passwordLength)).toString()
    const fits = user === options.credentials.user && password === options.credentials.password
    socket.write(Buffer.from([1, fits ? 0 : 1]))
    if (!fits) {
      socket.end()
      return
    }
  }
  const [, , , kind] = await reader.take(4)
  const name =
    kind === 3 ? (await reader.take((await reader.take(1))[0] ?? 0)).toString() : undefined
  const address = kind === 1 ? [...(await reader.take(4))].join(".") : undefined
  const port = (await reader.take(2)).readUInt16BE()
  asked.push(name === undefined ? `address ${address}:${port}` : `name ${name}:${port}`)
  const refusal = typeof options.refuse === "number" ? options.refuse : 0
  const reply = Buffer.from([5, refusal, 0, 1, 127, 0, 0, 1, 0, 0])
  if (refusal !== 0) {
    socket.end(reply)
    return
  }
  const onward = net.connect(options.port, "127.0.0.1")
  await once(onward, "connect")
  socket.write(reply)
  reader.release()
  join(socket, onward)
}

export async function startConnectProxy(options: Options): Promise<ProxyServer> {
  const asked: string[] = []
  const server = http.createServer((_, response) => response.writeHead(400).end("CONNECT only"))
  server.on("connect", (request, socket: Socket) => {
    socket.on("error", () => socket.destroy())
    const { credentials } = options
    const wanted =
      credentials &&
      `Basic ${Buffer.from(`${credentials.user}:${credentials.password}`).toString("base64")}`
    if (wanted !== undefined && request.headers["proxy-authorization"] !== wanted) {
      socket.end("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
      return
    }
    asked.push(request.url ?? "")
    if (typeof options.refuse === "string") {
      socket.end(options.refuse)
      return
    }
    const onward = net.connect(options.port, "127.0.0.1", () => {
      socket.write("HTTP/1.1 200 Connection established\r\n\r\n")
      join(socket, onward)
    })
  })
  return { host: await listen(server), asked }
}

function join(one: Socket, other: Socket): void {
  one.pipe(other)
  other.pipe(one)
  for (const [here, there] of [
    [one, other],
    [other, one],
  ] as const) {
    here.on("error", () => there.destroy())
    here.on("close", () => there.destroy())
  }
}

async function listen(server: net.Server): Promise<string> {
  const open = new Set<Socket>()
  server.on("connection", (socket: Socket) => {
    open.add(socket)
    socket.once("close", () => open.delete(socket))
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  onTestFinished(() => {
    server.close()
    for (const socket of open) socket.destroy()
  })
  // A TCP server's address is an object with a port.
  return `127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** Takes exactly so many bytes at a time from a socket. */
class Reader {
  readonly #socket: Socket
  #bytes = Buffer.alloc(0)
  #wake: () => void = () => undefined
  readonly #onData = (chunk: Buffer) => {
    this.#bytes = Buffer.concat([this.#bytes, chunk])
    this.#wake()
  }

  constructor(socket: Socket) {
    this.#socket = socket
    socket.on("data", this.#onData)
  }

  async take(count: number): Promise<Buffer> {
    while (this.#bytes.length < count) {
      await new Promise<void>((resolve) => (this.#wake = resolve))
    }
    const taken = this.#bytes.subarray(0, count)
    this.#bytes = this.#bytes.subarray(count)
    return taken
  }

  release(): void {
    this.#socket.off("data", this.#onData)
    if (this.#bytes.length > 0) this.#socket.unshift(this.#bytes)
  }
}
