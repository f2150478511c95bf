// Connections on which a test says what it likes, byte by byte.
import { connect, type Socket } from "node:net"
import { hasCode } from "../../server/disk.js"

export interface Answer {
  /** Of each response on the connection, in order. */
  readonly statuses: readonly number[]
  readonly text: string
}

/** Says `text` to the relay on a raw connection and reads until the relay closes it. */
export async function say(
  port: number,
  ...texts: readonly (string | Uint8Array)[]
): Promise<Answer> {
  const socket = connect(port, "127.0.0.1")
  for (const text of texts) socket.write(text)
  return answerOn(socket)
}

export function answerOn(socket: Socket): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    socket.on("data", (chunk) => chunks.push(chunk))
    socket.on("error", (error) => {
      // That is how a connection ends whose other side has not read everything.
      if (!hasCode(error, "ECONNRESET", "EPIPE")) reject(error)
    })
    socket.on("close", () => {
      const text = Buffer.concat(chunks).toString("latin1")
      const statuses = [...text.matchAll(/HTTP\/1\.1 ([0-9]{3}) /g)].map(([, status]) =>
        Number(status),
      )
      resolve({ statuses, text })
    })
  })
}

/** The event loop goes on until this is so; a test that waits in vain shall end before it is ended. */
export async function until(isSo: () => boolean): Promise<void> {
  const enough = performance.now() + 10_000
  while (!isSo()) {
    if (performance.now() > enough) throw new Error("it did not come to that")
    await new Promise((resolve) => setImmediate(resolve))
  }
}
