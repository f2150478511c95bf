// The requests of one connection, one at a time. Node hands on all that a connection has pipelined as
// soon as it is read; worked on at once, a few kilobytes of requests could ask for gigabytes of answers,
// each of which has to be kept until those before it are out.
import type { IncomingMessage, RequestListener, ServerResponse } from "node:http"
import type { Socket } from "node:net"

/**
 * Of all connections together. Who does not pipeline never waits; a connection that does when so many
 * wait is closed, which its client has to expect (RFC 9112, section 9.3.2).
 */
const waitingAtMost = 8192

/** The last one is told that the connection ends with it. */
const requestsPerConnection = 1000

interface Turn {
  readonly req: IncomingMessage
  readonly res: ServerResponse
}

interface Line {
  /** The requests of the connection so far. */
  count: number
  at: Turn | undefined
  waiting: Turn[]
}

export interface Turns {
  readonly listener: RequestListener
  /** Whether a part of an answer is out and the rest is not. */
  isAnswering(socket: Socket): boolean
}

export function createTurns(app: RequestListener): Turns {
  const lines = new WeakMap<Socket, Line>()
  let waiting = 0

  function begin(turn: Turn, line: Line): void {
    line.at = turn
    const { req, res } = turn
    res.once("close", () => {
      line.at = undefined
      const next = line.waiting.shift()
      if (next === undefined) return
      waiting -= 1
      if (!req.socket.destroyed) {
        begin(next, line)
        return
      }
      waiting -= line.waiting.length
      line.waiting = []
    })
    app(req, res)
  }

  return {
    listener(req, res) {
      const { socket } = req
      const line = lines.get(socket) ?? { count: 0, at: undefined, waiting: [] }
      lines.set(socket, line)
      line.count += 1
      if (line.count === requestsPerConnection) res.setHeader("Connection", "close")
      if (line.count > requestsPerConnection) {
        // Nobody will answer them. Reading on, one could fill the memory with them.
        socket.pause()
      } else if (line.at === undefined) {
        begin({ req, res }, line)
      } else if (waiting < waitingAtMost) {
        waiting += 1
        line.waiting.push({ req, res })
      } else {
        socket.destroy()
      }
    },

    isAnswering(socket) {
      return lines.get(socket)?.at?.res.headersSent === true
    },
  }
}
