/** T12: files whose size is at a border of the grid, through the client and back, and as MEGA files. */
import { writeFileSync } from "node:fs"
import path from "node:path"
import { expect, test } from "vitest"
import {
  composeMegaKey,
  decryptMegaFile,
  encryptMegaFile,
  KIB,
  toHex,
} from "../../protocol/index.js"
import { digest, patternBytes, readTree } from "../client/folders.js"
import { makeSetting } from "../client/setting.js"
import { found } from "../client/small-relay.js"

const borders = [0, 16, 2 ** 17, 3 * 2 ** 17, 4608 * KIB, 4608 * KIB + 1024 * KIB]
const sizes = [
  ...new Set([...borders, ...borders.flatMap((border) => [border - 1, border + 1])]),
].filter((size) => size >= 0)

for (const size of sizes) {
  test(`T12 a file of ${size} bytes comes back, and its place in the body is a MEGA file`, async () => {
    const setting = await makeSetting()
    const content = patternBytes(size, 7)
    const file = path.join(setting.folder, "file")
    writeFileSync(file, content)
    const { id } = await setting.send({ sources: [{ kind: "path", path: file }] })
    const inbox = await setting.open()
    const { manifest } = await inbox.open(id)
    const entry = found(manifest.entries[0])
    if (entry.type !== "file") throw new Error("it is a file")
    const ciphertext = setting.relay.delivery(id).body.subarray(0, size)
    const { key, nonce, metaMac } = entry
    const own = encryptMegaFile(content, { key, nonce })
    expect(toHex(metaMac)).toBe(toHex(own.metaMac))
    expect(digest(ciphertext)).toBe(digest(own.ciphertext))
    const opened = decryptMegaFile(ciphertext, composeMegaKey({ key, nonce, metaMac }))
    expect(digest(opened)).toBe(digest(content))
    const into = path.join(setting.folder, "into")
    await inbox.receive(id, { into })
    expect(readTree(into)["file"]).toBe(digest(content))
  })
}
