/**
 * Connections that read into one buffer each, over and over. Node otherwise makes a new buffer of 64 KiB
 * for every read; a gigabyte of those keeps the garbage collector busier than decryption keeps anyone
 * (measured: 58 full collections, a third of the recipient's processor time).
 */
import http from "node:http"
import https from "node:https"
import type net from "node:net"
import type { Duplex } from "node:stream"
import { KIB } from "../protocol/index.js"

/** Twice what Node reads at once, and still small beside the processor's second-level cache. */
const readBytes = 128 * KIB

type Made = ReturnType<http.Agent["createConnection"]>

/** The replies whose reader is done with each chunk as soon as it has been handed out. */
const takenAtOnce = new WeakMap<Duplex, http.IncomingMessage>()

/**
 * From here on the chunks of `incoming` are views of a buffer that the next read overwrites. Only for a
 * reader that listens to `data`, never pauses and copies what it wants to keep.
 */
export function takeAtOnce(incoming: http.IncomingMessage): void {
  const { socket } = incoming
  takenAtOnce.set(socket, incoming)
  incoming.once("close", () => takenAtOnce.delete(socket))
}

/** Hands `bytes` to whoever reads from `socket`; false asks for a pause, as net.Socket has it. */
function hand(socket: Duplex, bytes: Uint8Array): boolean {
  const incoming = takenAtOnce.get(socket)
  if (incoming === undefined) return socket.push(bytes.slice())
  const goesOn = socket.push(bytes)
  if (socket.readableLength > 0 || incoming.readableLength > 0) {
    // Nobody may see what is overwritten: no such reader exists, and none shall come about unnoticed.
    socket.destroy(new Error("a reply was not taken at once"))
    return false
  }
  return goesOn
}

/** What `net.connect` and `tls.connect` understand; filled in once there is a socket to hand bytes to. */
function readingInto(made: { socket?: Duplex }): net.OnReadOpts {
  return {
    buffer: new Uint8Array(readBytes),
    callback: (length, buffer) =>
      made.socket === undefined ? false : hand(made.socket, buffer.subarray(0, length)),
  }
}

function remember(made: { socket?: Duplex }, socket: Made): Made {
  if (socket) made.socket = socket
  return socket
}

class PlainAgent extends http.Agent {
  override createConnection(...[options, callback]: Parameters<http.Agent["createConnection"]>) {
    const made = {}
    const reading = { ...options, onread: readingInto(made) }
    return remember(made, super.createConnection(reading, callback))
  }
}

class SecureAgent extends https.Agent {
  override createConnection(...[options, callback]: Parameters<https.Agent["createConnection"]>) {
    const made = {}
    const reading = { ...options, onread: readingInto(made) }
    return remember(made, super.createConnection(reading, callback))
  }
}

export function readingAgent(options: http.AgentOptions & { secure: boolean }): http.Agent {
  const { secure, ...rest } = options
  return secure ? new SecureAgent(rest) : new PlainAgent(rest)
}
