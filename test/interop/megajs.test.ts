// A stock MEGA library beside ours, on the same files. It differs from MEGA's document for sizes that
// reach a chunk boundary when rounded up to 16 bytes; the vectors record where, and this holds both to
// it: a change in either would show.
import { decrypt, encrypt } from "megajs"
import { readFileSync } from "node:fs"
import type { Transform } from "node:stream"
import { buffer } from "node:stream/consumers"
import { expect, test } from "vitest"
import {
  concatBytes,
  encryptMegaFile,
  equalBytes,
  fromBase64url,
  fromHex,
  toBase64url,
} from "../../protocol/index.js"

interface MegaVectors {
  key: string
  nonce: string
  files: {
    size: number
    compositeKey: string
    agree: { ciphertext: { megajs: boolean }; metaMac: { megajs: boolean } }
    megajsCompositeKey?: string
    stockMegajsDecryptsDocumentedKey: true | string
  }[]
}

// The cast: a file of this repository, whose form this interface describes.
const vectors = JSON.parse(
  readFileSync(new URL("../vectors/mega-vectors.json", import.meta.url), "utf8"),
) as MegaVectors

const key = fromHex(vectors.key)
const nonce = fromHex(vectors.nonce)

/** megajs leaves the composed key on its stream once all has passed. */
async function encryptWithMegajs(plaintext: Uint8Array) {
  const stream: Transform & { key?: Buffer } = encrypt(Buffer.from(concatBytes(key, nonce)))
  stream.end(Buffer.from(plaintext))
  const ciphertext = await buffer(stream)
  if (stream.key === undefined) throw new Error("megajs left no key behind")
  return { ciphertext, composedKey: stream.key }
}

async function decryptWithMegajs(ciphertext: Uint8Array, composedKey: string): Promise<Buffer> {
  const stream: Transform = decrypt(Buffer.from(fromBase64url(composedKey)))
  stream.end(Buffer.from(ciphertext))
  return buffer(stream)
}

test.each(vectors.files)(
  "megajs and this agree about $size bytes exactly as the vectors say",
  async (file) => {
    const plaintext = Uint8Array.from({ length: file.size }, (_, i) => i * 7 + (i >> 8))
    const ours = encryptMegaFile(plaintext, { key, nonce })
    const theirs = await encryptWithMegajs(plaintext)
    expect(equalBytes(theirs.ciphertext, ours.ciphertext)).toBe(file.agree.ciphertext.megajs)
    expect(equalBytes(theirs.composedKey, ours.composedKey)).toBe(file.agree.metaMac.megajs)
    expect(toBase64url(theirs.composedKey)).toBe(file.megajsCompositeKey ?? file.compositeKey)

    const opened = decryptWithMegajs(ours.ciphertext, toBase64url(ours.composedKey))
    if (file.stockMegajsDecryptsDocumentedKey === true) {
      expect(equalBytes(await opened, plaintext)).toBe(true)
    } else {
      await expect(opened).rejects.toThrow(file.stockMegajsDecryptsDocumentedKey)
    }
  },
)
