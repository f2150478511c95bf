import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { nodeDisk } from "../../server/node-disk.js"
import { MemoryDisk } from "../faults/memory-disk.js"
import { describeDisk } from "./disk-contract.js"

describeDisk("of the system", () => {
  const folder = mkdtempSync(join(tmpdir(), "knothole-disk-"))
  return { disk: nodeDisk, folder, close: () => rmSync(folder, { recursive: true }) }
})

describeDisk("in memory, under the fault runs", () => {
  const folder = "/disk"
  const realFolder = join(folder, "relay", "index")
  const disk = new MemoryDisk({ root: folder, realFolder, nowMs: () => 0 })
  return { disk, folder, close: () => undefined }
})
