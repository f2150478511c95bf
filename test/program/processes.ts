// The built program as a person runs it: real processes, each person with a home of their own.
import { spawn } from "node:child_process"
import type { ChildProcess } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync } from "node:fs"
import { createServer, request as ask } from "node:http"
import type { IncomingMessage, Server, ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import path from "node:path"
import { text as readAll } from "node:stream/consumers"
import { program } from "../../bench/processes.js"

export interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface Running {
  readonly child: ChildProcess
  readonly stdout: Collected
  readonly stderr: Collected
  readonly ended: Promise<Ended>
}

export interface Started extends Running {
  readonly url: string
}

/** A folder for one test file, and everything that was started in it. */
export class Workshop {
  readonly folder: string = mkdtempSync(path.join(tmpdir(), "knothole-test-"))
  readonly #running = new Set<ChildProcess>()
  readonly #servers = new Set<Server>()

  async close(): Promise<void> {
    for (const child of this.#running) {
      const gone = once(child, "exit")
      child.kill("SIGKILL")
      await gone
    }
    for (const server of this.#servers) {
      server.close()
      server.closeAllConnections()
    }
    rmSync(this.folder, { recursive: true, force: true })
  }

  /** Runs `knothole` as the person whose home this is, away from every terminal. */
  start(home: string, args: string[], options: RunOptions = {}): Running {
    const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("KNOTHOLE_"))
    const child = spawn(process.execPath, [program, ...args], {
      cwd: options.cwd ?? this.folder,
      env: {
        ...Object.fromEntries(inherited),
        KNOTHOLE_HOME: path.join(this.folder, home),
        NO_COLOR: "1",
        ...options.env,
      },
      // A session of its own has no terminal to ask at.
      detached: true,
      stdio: ["pipe", "pipe", "pipe"],
    })
    this.#running.add(child)
    child.once("exit", () => this.#running.delete(child))
    // A program that does not read its stdin may be gone before all is written.
    child.stdin.on("error", () => {})
    child.stdin.end(options.input ?? "")
    const stdout = collect(child.stdout)
    const stderr = collect(child.stderr)
    const ended = once(child, "close").then(([code]) => ({
      code,
      stdout: stdout.text,
      stderr: stderr.text,
    }))
    return { child, stdout, stderr, ended }
  }

  run(home: string, args: string[], options: RunOptions = {}): Promise<Ended> {
    return this.start(home, args, options).ended
  }

  async startRelay(
    home: string,
    args: string[] = [],
    env: Record<string, string> = {},
  ): Promise<Started> {
    const where = ["--data", path.join(this.folder, home, "data"), "--listen", "127.0.0.1:0"]
    const running = this.start(home, ["relay", ...where, ...args], { env })
    const url = await Promise.race([
      running.stderr.waitFor(/^listening on (\S+)/m),
      running.ended.then((ended) => {
        throw new Error(`the relay ended with ${ended.code}: ${ended.stderr}`)
      }),
    ])
    return { ...running, url }
  }

  /** Answers every request with `answer`. */
  async serve(
    answer: (request: IncomingMessage, response: ServerResponse) => void,
  ): Promise<string> {
    const server = createServer(answer)
    this.#servers.add(server)
    server.listen(0, "127.0.0.1")
    await once(server, "listening")
    // A TCP server's address is an object with a port.
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  }

  /** Stands before a relay: may hold a request until a promise is kept, and rewrite a JSON answer. */
  serveFront(options: {
    relay: () => string
    hold?: (request: IncomingMessage) => Promise<void> | undefined
    rewrite?: (request: IncomingMessage, answer: string) => string
  }): Promise<string> {
    return this.serve((request, response) => {
      const forward = () => {
        const { method, url, headers } = request
        const onward = ask(new URL(url ?? "/", options.relay()), { method, headers }, (answer) => {
          const { statusCode = 502, headers: answered } = answer
          if (options.rewrite === undefined || answered["content-type"] !== jsonType(answered)) {
            response.writeHead(statusCode, answered)
            answer.pipe(response)
            return
          }
          const { rewrite } = options
          readAll(answer).then(
            (text) => {
              const changed = rewrite(request, text)
              response.writeHead(statusCode, {
                ...answered,
                "content-length": Buffer.byteLength(changed),
              })
              response.end(changed)
            },
            () => response.destroy(),
          )
        })
        onward.on("error", () => response.destroy())
        request.pipe(onward)
      }
      const held = options.hold?.(request)
      if (held === undefined) forward()
      else held.then(forward, () => response.destroy())
    })
  }
}

/** What a stream has said so far, and a way to wait for it to say something. */
export interface Collected {
  readonly text: string
  /** The first group of the match, or all of it. */
  readonly waitFor: (pattern: RegExp) => Promise<string>
}

function collect(stream: NodeJS.ReadableStream): Collected {
  let text = ""
  const watchers = new Set<() => void>()
  stream.setEncoding("utf8").on("data", (piece: string) => {
    text += piece
    for (const look of watchers) look()
  })
  return {
    get text() {
      return text
    },
    waitFor: (pattern) =>
      new Promise((resolve) => {
        const look = () => {
          const match = pattern.exec(text)
          if (match === null) return
          watchers.delete(look)
          resolve(match[1] ?? match[0])
        }
        watchers.add(look)
        look()
      }),
  }
}

interface RunOptions {
  readonly input?: string | Uint8Array
  readonly env?: Record<string, string>
  readonly cwd?: string
}

function jsonType(headers: IncomingMessage["headers"]): string | undefined {
  const type = headers["content-type"]
  return type?.startsWith("application/json") === true ? type : undefined
}

/** A promise to be kept by whoever holds `open`. */
export function gate(): { readonly passed: Promise<void>; readonly open: () => void } {
  let keep: (() => void) | undefined
  const passed = new Promise<void>((resolve) => {
    keep = resolve
  })
  return { passed, open: () => keep?.() }
}
