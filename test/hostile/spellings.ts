// How bytes and words could stand in a store without standing there as they are.
import { readdirSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"

export function spellings(bytes: Uint8Array): Buffer[] {
  const buffer = Buffer.from(bytes)
  const text = buffer.toString("latin1")
  // The middle of a base64 text is the same wherever the bytes begin, for one of three beginnings.
  const base64 = [0, 1, 2].map((skip) =>
    buffer.subarray(skip, skip + 3 * Math.floor((buffer.length - skip) / 3)),
  )
  return [
    buffer,
    Buffer.from(buffer.toString("hex")),
    Buffer.from(buffer.toString("hex").toUpperCase()),
    Buffer.from(text, "utf16le"),
    Buffer.from(text, "utf16le").swap16(),
    ...base64.flatMap((piece) => [
      Buffer.from(piece.toString("base64")),
      Buffer.from(piece.toString("base64url")),
    ]),
  ]
}

export function filesUnder(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => join(folder, name))
    .filter((path) => statSync(path).isFile())
}

export function contentsUnder(folder: string): Buffer[] {
  return filesUnder(folder).map((path) => readFileSync(path))
}
