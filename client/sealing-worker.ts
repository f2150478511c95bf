/** The thread around `UnitWorker`: one task in, one result out, in order. */
import { parentPort, workerData } from "node:worker_threads"
import { type PostedTask, taskOf } from "./posted-task.js"
import { type ThreadData, UnitWorker } from "./unit-work.js"

// Only `SealingPool` starts this file, and this is what it hands over.
const { buffers, writeTurn } = workerData as ThreadData
const worker = new UnitWorker(
  buffers.map((buffer) => new Uint8Array(buffer)),
  writeTurn,
)

parentPort?.on("message", (task: PostedTask | "close") => {
  if (task === "close") {
    worker.close()
    parentPort?.close()
    return
  }
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- threads have no origin
  parentPort?.postMessage(worker.run(taskOf(task)))
})
