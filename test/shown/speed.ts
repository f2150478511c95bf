/** 1 GiB up faster than `rclone` crypt to `rclone serve webdav`, and down within 1.3 of it, in one run. */
import { measureTransfers, median } from "../../bench/transfer.js"
import { showFigures } from "./figures.js"

const [mib = "1024", rounds = "3", requestSize] = process.argv.slice(2)
const run = await measureTransfers({ mib: Number(mib), rounds: Number(rounds), requestSize })
const ratio = (ours: number[], theirs: number[]) =>
  Number((median(ours) / median(theirs)).toFixed(3))
const up = ratio(run.knothole.upSeconds, run.rclone.upSeconds)
const down = ratio(run.knothole.downSeconds, run.rclone.downSeconds)
console.log(run)
showFigures(
  "speed",
  [
    {
      what: `${mib} MiB up, Knothole / rclone crypt (medians)`,
      value: up,
      bound: "< 1",
      holds: up < 1,
    },
    {
      what: `${mib} MiB down, Knothole / rclone crypt (medians)`,
      value: down,
      bound: "≤ 1.3",
      holds: down <= 1.3,
    },
  ],
  run,
)
