// HTTP to a relay in this process, over a pair of streams: what is sent passes Node's own parser, and
// nothing waits for the kernel, so that a run comes out the same for the same seed.
import { Agent, createServer, type IncomingMessage, request, type Server } from "node:http"
import type { RequestListener } from "node:http"
import { Duplex } from "node:stream"

/** As much of a socket as Node's HTTP asks for. */
class Line extends Duplex {
  readonly remoteAddress = "127.0.0.1"
  other: Line | undefined
  #wanted: (() => void) | undefined

  override _read(): void {
    const wanted = this.#wanted
    this.#wanted = undefined
    wanted?.()
  }

  override _write(chunk: Uint8Array, _encoding: string, done: () => void): void {
    const { other } = this
    if (other === undefined || other.destroyed) return done()
    // A copy, as a kernel makes one: the writer may use its buffer again.
    if (other.push(Buffer.from(chunk))) done()
    else other.#wanted = done
  }

  override _final(done: () => void): void {
    this.other?.push(null)
    done()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    const { other } = this
    this.other = undefined
    if (other !== undefined && !other.destroyed) other.push(null)
    done(error)
  }

  setKeepAlive(): this {
    return this
  }
  setNoDelay(): this {
    return this
  }
  setTimeout(): this {
    return this
  }
  ref(): this {
    return this
  }
  unref(): this {
    return this
  }
}

function joined(): readonly [Line, Line] {
  const [one, two] = [new Line(), new Line()]
  one.other = two
  two.other = one
  return [one, two]
}

class LineAgent extends Agent {
  readonly #server: Server

  constructor(server: Server) {
    super({ keepAlive: true })
    this.#server = server
  }

  // Node's own agent is made to be extended here; its types do not say so.
  override createConnection(): Duplex {
    const [client, server] = joined()
    this.#server.emit("connection", server)
    return client
  }
}

export interface Reply {
  readonly status: number
  readonly bytes: Uint8Array
  /** What the relay had done when it answered: see `Wire`. */
  readonly at: number
}

export interface Ask {
  readonly authorization?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly json?: unknown
  readonly bytes?: Uint8Array
}

export class Wire {
  readonly #server: Server
  readonly #agent: Agent
  readonly #answered = new Map<string, number>()
  #requests = 0

  /** `moment` is asked at the very moment at which the relay gives an answer. */
  constructor(app: RequestListener, moment: () => number = () => 0) {
    this.#server = createServer((req, res) => {
      const number = String(req.headers["x-number"])
      const end = res.end.bind(res)
      res.end = ((...args: Parameters<typeof end>) => {
        if (!this.#answered.has(number)) this.#answered.set(number, moment())
        return end(...args)
      }) as typeof res.end
      app(req, res)
    })
    this.#agent = new LineAgent(this.#server)
  }

  close(): void {
    this.#agent.destroy()
    this.#server.closeAllConnections()
    this.#server.close()
  }

  /** Rejects when the relay hangs up. */
  ask(method: string, path: string, ask: Ask = {}): Promise<Reply> {
    this.#requests += 1
    const number = String(this.#requests)
    const bytes = ask.json === undefined ? ask.bytes : Buffer.from(JSON.stringify(ask.json))
    const headers: Record<string, string> = {
      "x-number": number,
      host: "relay.test",
      ...(ask.authorization !== undefined && { authorization: ask.authorization }),
      ...(bytes !== undefined && {
        "content-type": ask.json === undefined ? "application/octet-stream" : "application/json",
        "content-length": String(bytes.length),
      }),
      ...ask.headers,
    }
    return new Promise((resolve, reject) => {
      const req = request({ agent: this.#agent, method, path, headers }, (res) => {
        collect(res).then((body) => {
          const at = this.#answered.get(number) ?? 0
          this.#answered.delete(number)
          resolve({ status: res.statusCode ?? 0, bytes: body, at })
        }, reject)
      })
      req.on("error", reject)
      req.end(bytes)
    })
  }
}

async function collect(res: IncomingMessage): Promise<Uint8Array> {
  const chunks: Buffer[] = []
  for await (const chunk of res) chunks.push(Buffer.from(chunk))
  return new Uint8Array(Buffer.concat(chunks))
}

export function jsonOf(reply: Reply): unknown {
  return JSON.parse(new TextDecoder().decode(reply.bytes))
}
