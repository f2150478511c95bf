/** Entries, paths, and whole manifests under the right key. */
import {
  edgeNumber,
  fromSketches,
  mutateBytes,
  sketch,
  type FieldKind,
  writeNumber,
} from "../mutate-bytes.js"
import { mutateText } from "../mutate-text.js"
import { Draws } from "../random.js"
import { hex, type Subject, type Vectors } from "../subject.js"
import { judge, mustBeBytes, mustBeText, mustEqual, mustHold, type Target } from "../target.js"

type Layout = readonly (readonly [FieldKind, number])[]

function entryLayout(bytes: Uint8Array): Layout {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const pathLength = view.getUint16(2)
  return [
    ["number", 1],
    ["flags", 1],
    ["number", 2],
    ["opaque", pathLength],
    ["number", 8],
    ["number", 8],
    ["number", 8],
    ["opaque", 16],
    ["opaque", 8],
    ["opaque", 8],
    ["number", 4],
    ["opaque", bytes.length - pathLength - 66],
    ["reserved", 2],
  ]
}

function entries({ manifest, errors }: Subject, vectors: Vectors): Target {
  const known = vectors.deliveries.flatMap((one) => one.entries.map(({ entry }) => hex(entry)))
  return {
    name: "entry",
    ...fromSketches(known.map((bytes) => sketch(bytes, entryLayout(bytes)))),
    run: (input) =>
      judge(
        [errors.FormatError],
        () => manifest.parseEntry(mustBeBytes(input)),
        (found) =>
          mustEqual("entry", manifest.encodeEntry(found, found.bodyOffset), mustBeBytes(input)),
      ),
  }
}

// Paths

type PathList = readonly (readonly ["file" | "dir", string])[]

const allowedComponents =
  "a,b,c,folder,a b,a.,.a,...,\u00e9,e\u0301,A,nul.txt,C:,a\\b,\u{1f600},\ufeff,~"
    .split(",")
    .concat("x".repeat(255))
const components = allowedComponents.concat(".", "..", "", "a\0b", "x".repeat(256))

function drawPath(draws: Draws): Buffer {
  const most = draws.chance(0.03) ? 70 : 4
  const length = draws.between(1, most)
  const text = Array.from({ length }, () =>
    draws.pick(draws.chance(0.9) ? allowedComponents : components),
  ).join("/")
  const bytes = Buffer.from(text)
  if (draws.chance(0.05) && bytes.length > 0) bytes[draws.below(bytes.length)] = draws.below(256)
  return bytes
}

/** The rules once more, written over sets of folders instead of a sorted list. */
function allowsPaths(list: PathList): boolean {
  const files = new Set<string>()
  const named = new Set<string>()
  const folders = new Set<string>()
  for (const [type, pathHex] of list) {
    const bytes = Buffer.from(pathHex, "hex")
    // latin1 keeps each byte a character, so that nothing depends on decoding.
    const parts = bytes.toString("latin1").split("/")
    if (!Buffer.from(bytes.toString("utf8")).equals(bytes)) return false
    if (bytes.length > 1024 || bytes.includes(0) || parts.length > 64) return false
    if (parts.some((part) => ["", ".", ".."].includes(part) || part.length > 255)) return false
    const whole = parts.join("/")
    if (named.has(whole)) return false
    named.add(whole)
    if (type === "file") files.add(whole)
    else folders.add(whole)
    for (let i = 1; i < parts.length; i++) folders.add(parts.slice(0, i).join("/"))
  }
  return [...files].every((file) => !folders.has(file))
}

function writePathList(list: PathList): string {
  return list.map(([type, path]) => type.slice(0, 1) + path).join(",")
}

function readPathList(text: string): PathList {
  return text
    .split(",")
    .filter((item) => item !== "")
    .map((item) => [item.startsWith("d") ? "dir" : "file", item.slice(1)] as const)
}

function paths({ paths: subject, errors, bytes }: Subject, vectors: Vectors): Target {
  const seeds = vectors.paths
    .filter(({ accepted }) => accepted)
    .map(({ entries }) => writePathList(entries))
  const all = vectors.paths.map(({ entries }) => writePathList(entries))
  return {
    name: "paths",
    seeds,
    make: (draws) => {
      if (draws.chance(0.1)) return draws.pick(all)
      const length = draws.between(1, draws.chance(0.1) ? 30 : 4)
      return writePathList(
        Array.from(
          { length },
          () => [draws.chance(0.3) ? "dir" : "file", drawPath(draws).toString("hex")] as const,
        ),
      )
    },
    // A sort key of UTF-16 for each path.
    allocation: { perByte: 128, fixed: 256 * 1024 },
    run: (input) => {
      const list = readPathList(mustBeText(input))
      const verdict = judge(
        [errors.FormatError],
        () =>
          subject.checkPaths(
            list.map(([type, path]) => ({
              type: type === "dir" ? "directory" : "file",
              path: bytes.fromHex(path),
            })),
          ),
        () => {
          const named = list.map(
            ([type, path]) => Buffer.from(path, "hex").toString() + (type === "dir" ? "/" : ""),
          )
          const folders = named.flatMap((path) =>
            [...path.matchAll(/\//g)].map(({ index }) => path.slice(0, index)),
          )
          const count = subject.countFolders(named)
          mustHold("as many folders as are named", count === new Set(folders).size)
        },
      )
      mustHold("the rules agree", (verdict === "accepted") === allowsPaths(list))
      return verdict
    },
  }
}

// Whole manifests

interface DrawnEntry {
  type: number
  flags: number
  path: Uint8Array
  size: bigint
  time: bigint
  offset: bigint
  key: Uint8Array
  nonce: Uint8Array
  mac: Uint8Array
  chunkCount: bigint
  macs: Uint8Array
  extension: Uint8Array
}

const smallSizes = [0, 1, 15, 16, 17, 16_384, 131_071]
const sizes = [131_072, 131_073, 393_215, 393_216, 393_217, 4_718_592, 4_718_593, 5_767_169].concat(
  smallSizes,
)

/** Bits of the byte that stands before a drawn manifest: what around the plaintext is wrong as well. */
const wrapping = { staleBodyLength: 1, staleOpenRoot: 2, spoiltCiphertext: 4 }

class ManifestModel {
  readonly #subject: Subject
  note: Uint8Array
  entries: DrawnEntry[]

  constructor(subject: Subject, draws: Draws) {
    this.#subject = subject
    this.note = Buffer.from(draws.pick(["", "hello", "\u00e9\u202e", "n".repeat(300)]))
    const count = draws.chance(0.05) ? draws.between(20, 60) : draws.below(5)
    this.entries = Array.from({ length: count }, (_, index) => this.#draw(draws, index))
    this.settle()
  }

  #draw(draws: Draws, index: number): DrawnEntry {
    const isFile = draws.chance(0.8)
    const size = isFile ? draws.pick(draws.chance(0.7) ? smallSizes : sizes) : 0
    const chunks = isFile ? this.#subject.mega.gridCount(size) : 0
    return {
      type: isFile ? 1 : 2,
      flags: isFile && draws.chance(0.2) ? 1 : 0,
      path: Buffer.from(`${draws.pick(allowedComponents)}/${index}`),
      size: BigInt(size),
      time: draws.chance(0.3) ? 1_767_225_600_000n : 0n,
      offset: 0n,
      key: isFile ? draws.bytes(16) : new Uint8Array(16),
      nonce: isFile ? draws.bytes(8) : new Uint8Array(8),
      mac: new Uint8Array(8),
      chunkCount: BigInt(chunks),
      macs: draws.bytes(16 * chunks),
      extension: new Uint8Array(2),
    }
  }

  /** Makes offsets and meta-MACs follow from the rest, as far as they can. */
  settle(): void {
    let offset = 0n
    for (const entry of this.entries) {
      entry.offset = offset
      offset += entry.size
      if (entry.macs.length % 16 === 0 && entry.key.length === 16) {
        const mac = this.#subject.mega.metaMac({ key: entry.key, chunkMacs: entry.macs })
        entry.mac = entry.type === 1 ? mac : new Uint8Array(8)
      }
    }
  }

  mutate(draws: Draws): void {
    const [first] = this.entries
    if (first === undefined) {
      this.note = Buffer.from(mutateText(draws, Buffer.from(this.note).toString(), ["note"]))
      return
    }
    const entry = draws.pick(this.entries)
    const at = this.entries.indexOf(entry)
    const number = (near: bigint) => edgeNumber(draws, near, 8)
    switch (draws.below(16)) {
      case 0:
        entry.size = number(entry.size)
        break
      case 1:
        entry.offset = number(entry.offset)
        break
      case 2:
        entry.time = number(entry.time)
        break
      case 3:
        entry.chunkCount = edgeNumber(draws, entry.chunkCount, 4)
        break
      case 4:
        entry.macs = draws.chance(0.5)
          ? entry.macs.subarray(0, Math.max(0, entry.macs.length - draws.pick([1, 16])))
          : Buffer.concat([entry.macs, draws.bytes(draws.pick([1, 16]))])
        break
      case 5:
        entry.mac = draws.bytes(8)
        break
      case 6:
        entry.key = draws.chance(0.5) ? new Uint8Array(16) : draws.bytes(16)
        break
      case 7:
        entry.flags = draws.pick([0, 1, 2, 3, 128, 255])
        break
      case 8:
        entry.type = draws.pick([0, 1, 2, 3, 255])
        break
      case 9:
        entry.extension = draws.pick([draws.bytes(2), new Uint8Array(0), new Uint8Array(3)])
        break
      case 10:
      case 11:
        entry.path = drawPath(draws)
        break
      case 12:
        entry.path = draws.pick(this.entries).path
        if (draws.chance(0.5)) entry.path = Buffer.concat([entry.path, Buffer.from("/inside")])
        break
      case 13:
        this.entries.splice(draws.below(this.entries.length), 0, { ...entry })
        break
      case 14:
        this.entries.splice(at, 1)
        break
      default: {
        const other = draws.pick(this.entries)
        const from = this.entries.indexOf(other)
        this.entries[from] = entry
        this.entries[at] = other
      }
    }
  }

  encode(draws: Draws | undefined): Uint8Array {
    const odd = (probability: number) => draws?.chance(probability) === true
    const wrong = (value: number | bigint, width: number) => {
      const near = BigInt(value)
      const isOdd = draws !== undefined && draws.chance(0.03)
      return writeNumber(isOdd ? edgeNumber(draws, near, width) : near, width)
    }
    const content = this.entries.reduce((sum, entry) => sum + entry.size, 0n)
    const parts: Uint8Array[] = [
      Buffer.from(odd(0.01) ? "KNHH" : "KNHM"),
      Uint8Array.of(odd(0.01) ? 2 : 1, odd(0.01) ? 1 : 0, 0, odd(0.01) ? 128 : 0),
      wrong(content % 2n ** 64n, 8),
      wrong(this.entries.length, 4),
      wrong(this.note.length, 4),
      this.note,
    ]
    for (const entry of this.entries) {
      const encoded = Buffer.concat([
        Uint8Array.of(entry.type, entry.flags),
        writeNumber(BigInt(entry.path.length), 2),
        entry.path,
        writeNumber(entry.size, 8),
        writeNumber(entry.time, 8),
        writeNumber(entry.offset, 8),
        entry.key,
        entry.nonce,
        entry.mac,
        writeNumber(entry.chunkCount, 4),
        entry.macs,
        entry.extension,
      ])
      parts.push(wrong(encoded.length, 4), encoded)
    }
    const used = parts.reduce((sum, { length }) => sum + length, 0)
    const padded = this.#subject.padding.paddedManifestLength(used)
    const padding = new Uint8Array(Math.max(0, padded - used + (odd(0.02) ? 1 : 0)))
    if (odd(0.02) && padding.length > 0) padding[padding.length - 1] = 1
    return new Uint8Array(Buffer.concat([...parts, padding]))
  }
}

const secret = { ds: new Uint8Array(32).fill(11), deliveryId: new Uint8Array(16).fill(12) }
const aBodyRoot = new Uint8Array(32).fill(13)

/** The root over whatever can be walked of the plaintext: the header's, if its sender had meant it so. */
function openRootOver({ manifest, header, tree }: Subject, plaintext: Uint8Array): Uint8Array {
  const { blinding } = header.deriveDeliveryKeys(secret)
  const view = Buffer.from(plaintext.buffer, plaintext.byteOffset, plaintext.length)
  if (view.length < 24) return new Uint8Array(32)
  const noteLength = Math.min(view.readUInt32BE(20), view.length - 24)
  const count = Math.min(view.readUInt32BE(16), 1000)
  const leaves: Uint8Array[] = []
  let at = 24 + noteLength
  for (let index = 0; index < count && at + 4 <= view.length; index++) {
    const length = Math.min(view.readUInt32BE(at), view.length - at - 4)
    const r = manifest.entryBlinding(blinding, index)
    const entry = plaintext.subarray(at + 4, at + 4 + length)
    leaves.push(manifest.entryLeaf({ index, r, entry }))
    at += 4 + length
  }
  return manifest.openRootOf({
    entryCount: leaves.length,
    noteLeaf: manifest.noteLeaf({
      r: manifest.noteBlinding(blinding),
      note: plaintext.subarray(24, 24 + noteLength),
    }),
    entriesRoot: tree.treeRoot(leaves),
  })
}

/** The body that the plaintext's content length asks for, when it is a length at all. */
function bodyLengthFor({ padding }: Subject, plaintext: Uint8Array): number {
  const smallest = padding.paddedBodyLength(0)
  if (plaintext.length < 16) return smallest
  const content = Buffer.from(plaintext).readBigUInt64BE(8)
  return content <= 2n ** 36n ? padding.paddedBodyLength(Number(content)) : smallest
}

function manifests(subject: Subject): Target {
  const { manifest, errors, header, provider, bytes, labels, mega, padding } = subject
  const keys = header.deriveDeliveryKeys(secret)
  const seeds = Array.from({ length: 12 }, (_, index) => {
    const model = new ManifestModel(subject, new Draws("manifest seeds", index))
    return new Uint8Array(Buffer.concat([Uint8Array.of(0), model.encode(undefined)]))
  })
  return {
    name: "manifest",
    seeds,
    make: (draws) => {
      const model = new ManifestModel(subject, draws)
      const count = draws.chance(0.2) ? 0 : draws.between(1, 3)
      for (let i = 0; i < count; i++) {
        model.mutate(draws)
        if (draws.chance(0.5)) model.settle()
      }
      let plaintext = model.encode(draws)
      if (draws.chance(0.2)) {
        const own = sketch(plaintext, [
          ["magic", 4],
          ["version", 1],
          ["reserved", 3],
          ["number", 8],
          ["number", 4],
          ["number", 4],
          ["opaque", plaintext.length - 24],
        ])
        plaintext = mutateBytes(draws, own, [own])
      }
      const control = draws.chance(0.9) ? 0 : draws.pick([1, 2, 3, 4])
      return new Uint8Array(Buffer.concat([Uint8Array.of(control), plaintext]))
    },
    run: (input) => {
      const all = mustBeBytes(input)
      const control = all[0] ?? 0
      const plaintext = all.subarray(1)
      const openRoot =
        control & wrapping.staleOpenRoot ? new Uint8Array(32) : openRootOver(subject, plaintext)
      const bodyLength =
        control & wrapping.staleBodyLength ? 20_480 : bodyLengthFor(subject, plaintext)
      const aad = bytes.concatBytes(labels.label("manif"), secret.deliveryId, aBodyRoot, openRoot)
      const ciphertext = provider.gcmSeal({ key: keys.manifest, aad, plaintext })
      const manifestHash = provider.sha256(ciphertext)
      if (control & wrapping.spoiltCiphertext) ciphertext[5] = (ciphertext[5] ?? 0) ^ 1
      const parsed = header.parseHeader(
        header.encodeHeader({
          deliveryId: secret.deliveryId,
          bodyLength,
          partCount: mega.gridCount(bodyLength),
          manifestLength: ciphertext.length,
          bodyRoot: aBodyRoot,
          manifestHash,
          openRoot,
          keyCommit: keys.commit,
          notAfterMs: 0,
        }),
      )
      return judge(
        [errors.FormatError, errors.OpenError],
        () => manifest.openManifest({ ds: secret.ds, header: parsed, ciphertext }),
        (found) => {
          const again = manifest.sealManifest({
            ...secret,
            bodyRoot: aBodyRoot,
            note: found.note,
            entries: found.entries,
          })
          mustEqual("manifest", again.ciphertext, ciphertext)
          mustEqual("open root", again.openRoot, openRoot)
          let end = 0
          for (const entry of found.entries) {
            mustHold("the entries tile the content", entry.bodyOffset === end)
            end += entry.type === "file" ? entry.size : 0
          }
          mustHold("the content's length", end === found.contentLength)
          mustHold("the body's length", padding.paddedBodyLength(end) === bodyLength)
          const list = found.entries.map(
            ({ type, path }) =>
              [type === "file" ? type : "dir", Buffer.from(path).toString("hex")] as const,
          )
          mustHold("the paths' rules", allowsPaths(list))
        },
      )
    },
  }
}

export function manifestTargets(subject: Subject, vectors: Vectors): Target[] {
  return [entries(subject, vectors), paths(subject, vectors), manifests(subject)]
}
