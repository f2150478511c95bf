// The operator's way in: a Unix socket that only the user who runs the relay may open. Whoever can open
// it could read the relay's keys as well, so nothing is asked of them.
import { chmodSync } from "node:fs"
import { createServer, type RequestListener } from "node:http"
import { connect } from "node:net"
import { isMainThread } from "node:worker_threads"
import { socketPathProblem } from "../config.js"
import { type Disk, hasCode, unlessMissing } from "../disk.js"
import { DataFolderError } from "../stores/folder-lock.js"

export interface OperatorSocket {
  /** Ends what is under way and takes the socket away. */
  close(): Promise<void>
}

/**
 * Replaces the socket of a relay that crashed, and no living one. Throws DataFolderError where there
 * can be none.
 */
export async function openOperatorSocket(input: {
  readonly disk: Disk
  readonly path: string
  readonly listener: RequestListener
}): Promise<OperatorSocket> {
  const { disk, path, listener } = input
  const problem = socketPathProblem(path)
  if (problem !== undefined) throw new DataFolderError(`--operator-socket: ${problem}`)
  await removeStale(disk, path)
  const server = createServer(listener)
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject)
    // The name is there when `listen` returns, and from that moment nobody else may connect, whatever
    // the relay's umask: to connect is to write. It is the whole process's for these few calls, so it
    // takes nothing from the owner, whose folders another thread may be making; and it is the main
    // thread's to set.
    const umask = isMainThread ? process.umask(0o077) : undefined
    try {
      server.listen(path, resolve)
      chmodSync(path, 0o600)
    } catch (error) {
      // Where it could not listen, the event says why.
      if (!hasCode(error, "ENOENT")) reject(asError(error))
    } finally {
      if (umask !== undefined) process.umask(umask)
    }
  })
  // Of accepting, as when there are no descriptors left; unheard, it would end the process.
  server.on("error", () => undefined)
  return {
    async close() {
      // Node unlinks the path.
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      server.closeAllConnections()
      await closed
    },
  }
}

async function removeStale(disk: Disk, path: string): Promise<void> {
  const facts = await unlessMissing(disk.stat(path), undefined)
  if (facts === undefined) return
  if (facts.kind !== "other") {
    throw new DataFolderError(
      `${path} is in the way of the operator's socket and is none: move it, or say --operator-socket PATH`,
    )
  }
  if (await answers(path)) {
    throw new DataFolderError(
      `another relay answers on ${path}: stop it, or say --operator-socket PATH`,
    )
  }
  await unlessMissing(disk.unlink(path), undefined)
}

/** Whether a process listens there. A socket whose process is gone refuses. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect(path)
    socket.once("connect", () => {
      socket.destroy()
      resolve(true)
    })
    socket.once("error", (error) => {
      if (hasCode(error, "ECONNREFUSED", "ENOENT")) resolve(false)
      else reject(error)
    })
  })
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error))
}
