// Which connections may stay when there are as many as there can be. None is refused before that, and
// then whoever has most of them gives one up: one network that opens all it can keeps nobody out, and
// a proxy may have them all as long as nobody else comes.
import type { Socket } from "node:net"
import { networkOf } from "./source.js"

const connectionsAtMost = 16_384
/** Of the files that a process may have open, the share that is left for files. */
const filesShare = 1 / 4

/** As many as leave descriptors for the relay's files. */
export function connectionsFor(openFilesAtMost: number | undefined): number {
  if (openFilesAtMost === undefined) return connectionsAtMost
  return Math.min(connectionsAtMost, Math.floor(openFilesAtMost * (1 - filesShare)))
}

/** Takes in each new connection; calls `onClosed` for every one that it closes. */
export function createDoor(most: number, onClosed: () => void): (socket: Socket) => void {
  /** By the network they come from; in each, the oldest first. */
  const open = new Map<string, Set<Socket>>()
  let count = 0

  function forget(network: string, socket: Socket): void {
    const sockets = open.get(network)
    if (sockets?.delete(socket) !== true) return
    count -= 1
    if (sockets.size === 0) open.delete(network)
  }

  return (socket) => {
    const network = networkOf(socket.remoteAddress ?? "")
    const ours = open.get(network) ?? new Set()
    open.set(network, ours.add(socket))
    count += 1
    socket.once("close", () => forget(network, socket))
    if (count <= most) return
    let [largest, theirs] = [network, ours]
    for (const [name, sockets] of open) {
      if (sockets.size > theirs.size) [largest, theirs] = [name, sockets]
    }
    const [oldest = socket] = theirs
    const leaving = theirs === ours ? socket : oldest
    // Its `close` comes later, and until then it would count.
    forget(largest, leaving)
    leaving.destroy()
    onClosed()
  }
}
