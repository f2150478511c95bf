/** The kernel's peak of sender, relay and recipient over one delivery of 10 GiB (or the MiB named). */
import { carryLargeFile } from "../end-to-end/large-delivery.js"
import { atMost, exactly, showFigures } from "./figures.js"

const mib = Number(process.argv[2] ?? 10 * 1024)
const limitMiB = 200
const run = await carryLargeFile(mib)
showFigures(
  "memory",
  [
    exactly("arrived as it was sent", String(run.same), "true"),
    atMost(`sender's peak over ${mib} MiB`, Math.round(run.senderPeakMiB), limitMiB, "MiB"),
    atMost(`relay's peak over ${mib} MiB`, Math.round(run.relayPeakMiB), limitMiB, "MiB"),
    atMost(`recipient's peak over ${mib} MiB`, Math.round(run.recipientPeakMiB), limitMiB, "MiB"),
  ],
  {
    upMiBPerSecond: Math.round(mib / run.upSeconds),
    downMiBPerSecond: Math.round(mib / run.downSeconds),
  },
)
