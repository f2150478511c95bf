/**
 * Bugs planted in a copy of the compiled files: each takes away one check, and the same fuzzer must find
 * it. What it finds is different each time: a second encoding, a rule broken, memory taken on a promise.
 */
import {
  cpSync,
  copyFileSync,
  mkdtempSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"

export interface Planted {
  readonly what: string
  readonly file: string
  /** Stands exactly once in the compiled file. */
  readonly find: string
  readonly replace: string
}

export const planted: readonly Planted[] = [
  {
    what: "bytes behind a tombstone are accepted",
    file: "protocol/records.js",
    find: `"unknown");\n    reader.end();`,
    replace: `"unknown");`,
  },
  {
    what: "the header's last reserved bytes are ignored",
    file: "protocol/header.js",
    find: `reader.zeros(8, "reserved");`,
    replace: `reader.take(8, "reserved");`,
  },
  {
    what: "bits left over in base64url are ignored",
    file: "protocol/bytes.js",
    find: `if ((word & ((1 << bits) - 1)) !== 0)`,
    replace: `if (word < 0)`,
  },
  {
    what: "a manifest's padding may hold anything",
    file: "protocol/manifest.js",
    find: `reader.zeros(reader.remaining, "padding");`,
    replace: ``,
  },
  {
    what: "an entry's meta-MAC is not compared",
    file: "protocol/manifest.js",
    find: `if (!equalBytes(mac, metaMac({ key, chunkMacs })))`,
    replace: `if (mac.length !== 8)`,
  },
  {
    what: "a file may lie inside another file",
    file: "protocol/paths.js",
    find: `previous.endsWith("f") ? -2 : -1`,
    replace: `-1`,
  },
  {
    what: "an extension may hold an unknown member",
    file: "protocol/messages.js",
    find: `maxBodyBytes);\n    request.end();\n    return { reserveBytes };`,
    replace: `maxBodyBytes);\n    return { reserveBytes };`,
  },
  {
    what: "memory for a manifest is taken before it is there",
    file: "protocol/messages.js",
    find: `const manifest = reader.take(manifestLength, "manifest");`,
    replace: `new Uint8Array(manifestLength); const manifest = reader.take(manifestLength, "manifest");`,
  },
]

/** A package of its own, so that its files import each other and not the ones they were copied from. */
export function plant(
  compiled: string,
  bug: Planted,
): { readonly folder: string; readonly compiled: string } {
  const folder = mkdtempSync(path.join(tmpdir(), "knothole-planted-"))
  cpSync(compiled, path.join(folder, "dist"), { recursive: true })
  copyFileSync("package.json", path.join(folder, "package.json"))
  symlinkSync(path.resolve("node_modules"), path.join(folder, "node_modules"))
  const file = path.join(folder, "dist", bug.file)
  const source = readFileSync(file, "utf8")
  const times = source.split(bug.find).length - 1
  if (times !== 1) throw new RangeError(`${bug.file}: ${times} places for "${bug.what}"`)
  writeFileSync(
    file,
    source.replace(bug.find, () => bug.replace),
  )
  return { folder, compiled: path.join(folder, "dist") }
}
