import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { openEmbeddedIndex } from "../../server/stores/embedded-index.js"
import { describeIndex } from "./index-contract.js"

describeIndex("embedded", (now) => {
  const folder = mkdtempSync(join(tmpdir(), "knothole-index-"))
  const index = openEmbeddedIndex({ path: join(folder, "index"), now })
  return Promise.resolve({
    index,
    async close() {
      await index.close()
      rmSync(folder, { recursive: true })
    },
  })
})
