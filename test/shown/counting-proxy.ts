/**
 * A TCP proxy between client and relay that counts the bytes of part bodies going up and of delivery
 * bodies coming down, by reading the HTTP/1.1 heads that pass. It changes nothing.
 */
import { createServer, connect, type Server } from "node:net"
import { once } from "node:events"

export type Counts = { partBytesUp: number; bodyBytesDown: number; connections: number }

type Message = { head: string; bodyLength: number }

/** Cuts one direction of a connection into messages; tells each head and every piece of body. */
class MessageReader {
  #head = ""
  #bodyLeft = 0
  readonly #onHead: (head: string) => Message
  readonly #onBody: (message: Message, length: number) => void
  #message: Message = { head: "", bodyLength: 0 }

  constructor(
    onHead: (head: string) => Message,
    onBody: (message: Message, length: number) => void,
  ) {
    this.#onHead = onHead
    this.#onBody = onBody
  }

  push(bytes: Buffer): void {
    let at = 0
    while (at < bytes.length) {
      if (this.#bodyLeft > 0) {
        const length = Math.min(this.#bodyLeft, bytes.length - at)
        this.#bodyLeft -= length
        at += length
        this.#onBody(this.#message, length)
        continue
      }
      const before = this.#head.length
      this.#head += bytes.toString("latin1", at, Math.min(bytes.length, at + 16_384))
      const end = this.#head.indexOf("\r\n\r\n")
      if (end < 0) {
        at = Math.min(bytes.length, at + 16_384)
        continue
      }
      at += end + 4 - before
      this.#message = this.#onHead(this.#head.slice(0, end))
      this.#bodyLeft = this.#message.bodyLength
      this.#head = ""
    }
  }
}

const contentLength = (head: string) => Number(/^content-length: *(\d+)/im.exec(head)?.[1] ?? 0)

export async function startCountingProxy(options: {
  port: number
  target: number
  onProgress: (counts: Counts) => void
}): Promise<{ counts: Counts; server: Server }> {
  const counts: Counts = { partBytesUp: 0, bodyBytesDown: 0, connections: 0 }
  const server = createServer((client) => {
    counts.connections += 1
    const relay = connect(options.target, "127.0.0.1")
    // Answers come in the order of the requests on one connection.
    const asked: string[] = []
    const up = new MessageReader(
      (head) => {
        asked.push(head)
        return { head, bodyLength: contentLength(head) }
      },
      (message, length) => {
        if (/^PUT \S+\/parts\/\d+ /.test(message.head)) counts.partBytesUp += length
        options.onProgress(counts)
      },
    )
    const down = new MessageReader(
      (head) => {
        const interim = / 1\d\d /.test(head.slice(0, 14))
        const request = interim ? "" : (asked.shift() ?? "")
        const empty = interim || / (204|304) /.test(head.slice(0, 14))
        return { head: request, bodyLength: empty ? 0 : contentLength(head) }
      },
      (message, length) => {
        if (/^GET \S+\/(body|parts\/\d+) /.test(message.head)) counts.bodyBytesDown += length
        options.onProgress(counts)
      },
    )
    client.on("data", (bytes: Buffer) => up.push(bytes))
    relay.on("data", (bytes: Buffer) => down.push(bytes))
    client.pipe(relay)
    relay.pipe(client)
    client.on("error", () => relay.destroy())
    relay.on("error", () => client.destroy())
    client.on("close", () => relay.destroy())
    relay.on("close", () => client.destroy())
  })
  server.listen(options.port, "127.0.0.1")
  await once(server, "listening")
  return { counts, server }
}
