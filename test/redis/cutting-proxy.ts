/** Stands between a relay and its Redis, and can cut the line after a step was done and before it is answered. */
import { once } from "node:events"
import { connect, createServer, type Socket } from "node:net"

export interface CuttingProxy {
  readonly url: string
  /** Drops the connection in place of the `nth` answer from now on. */
  cutAt(nth: number): void
  /** Whether that has happened; asking ends it. */
  hasCut(): boolean
  close(): Promise<void>
}

export async function startCuttingProxy(port: number): Promise<CuttingProxy> {
  const sockets = new Set<Socket>()
  let answersLeft = Infinity
  let wasCut = false
  const server = createServer((near) => {
    const far = connect(port, "127.0.0.1")
    for (const socket of [near, far]) {
      sockets.add(socket)
      socket.setNoDelay(true)
      socket.on("error", () => undefined)
      socket.once("close", () => {
        sockets.delete(socket)
        near.destroy()
        far.destroy()
      })
    }
    near.on("data", (piece) => far.write(piece))
    far.on("data", (piece) => {
      answersLeft -= 1
      if (answersLeft > 0) {
        near.write(piece)
        return
      }
      answersLeft = Infinity
      wasCut = true
      near.destroy()
    })
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const address = server.address()
  if (address === null || typeof address === "string") throw new Error("no port was given")
  return {
    url: `redis://127.0.0.1:${address.port}`,
    cutAt(nth) {
      answersLeft = nth
      wasCut = false
    },
    hasCut() {
      answersLeft = Infinity
      return wasCut
    },
    async close() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, "close")
    },
  }
}
