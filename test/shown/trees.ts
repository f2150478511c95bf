/** 100,000 files of 1 KiB: everybody's memory, and the time beside `tar | age | curl` to nginx, in one run. */
import { measureTrees, type Way } from "../../bench/trees.js"
import { median } from "../../bench/transfer.js"
import { atMost, exactly, showFigures } from "./figures.js"

const [files = "100000", rounds = "3"] = process.argv.slice(2)
const limitMiB = 400
const limitRatio = 1.5
const run = await measureTrees({ files: Number(files), rounds: Number(rounds) })
// Both carry the same bytes, so the ratio of times is that of times per byte.
const ratio = (ours: Way, theirs: Way) =>
  Number((median(ours.seconds) / median(theirs.seconds)).toFixed(2))
console.log(JSON.stringify(run, null, 1))
console.log(
  `a Node program that only reads the files: ${ratio(run.reading, run.pipeline.up)} times their way up`,
)
showFigures(
  "trees",
  [
    exactly("arrived as it was sent", String(run.same), "true"),
    atMost(`sender's peak over ${files} files`, Math.round(run.senderPeakMiB), limitMiB, "MiB"),
    atMost(`relay's peak over ${files} files`, Math.round(run.relayPeakMiB), limitMiB, "MiB"),
    atMost(
      `recipient's peak over ${files} files`,
      Math.round(run.recipientPeakMiB),
      limitMiB,
      "MiB",
    ),
    atMost(
      "up, Knothole / tar | age | curl (medians)",
      ratio(run.knothole.up, run.pipeline.up),
      limitRatio,
    ),
    atMost(
      "down, Knothole / curl | age | tar (medians)",
      ratio(run.knothole.down, run.pipeline.down),
      limitRatio,
    ),
  ],
  run,
)
