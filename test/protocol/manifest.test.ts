import * as fc from "fast-check"
import { describe, expect, test } from "vitest"
import {
  checkPath,
  checkPaths,
  composeMegaKey,
  countFolders,
  decryptMegaFile,
  deriveDeliveryKeys,
  encodeEntry,
  encodeHeader,
  encryptMegaFile,
  type Entry,
  FormatError,
  gridCount,
  KIB,
  maxEntries,
  maxManifestPlainBytes,
  maxNoteBytes,
  metaMac,
  MIB,
  OpenError,
  openManifest,
  parseEntry,
  parseHeader,
  random,
  sealManifest,
  sha256,
  toHex,
  u32,
  utf8,
} from "../../protocol/index.js"
import {
  craftDelivery,
  type CraftedManifest,
  encodedInOrder,
  fileOf,
  folderOf,
  makeDelivery,
  type MadeDelivery,
} from "./sealed-delivery.js"

const open = ({ ds, header, manifest }: MadeDelivery) =>
  openManifest({ ds, header, ciphertext: manifest })

function fieldRefused(crafted: CraftedManifest): string {
  const delivery = craftDelivery(crafted)
  try {
    open(delivery)
  } catch (error) {
    if (error instanceof FormatError) return error.field
    throw error
  }
  return "nothing"
}

describe("laws", () => {
  const entry: fc.Arbitrary<Entry> = fc.oneof(
    fc
      .record({ size: fc.nat(5 * MIB), mtimeMs: fc.maxSafeNat(), executable: fc.boolean() })
      .map((fields) => ({ ...fileOf("", fields.size), ...fields })),
    fc.record({ mtimeMs: fc.maxSafeNat() }).map((fields) => ({ ...folderOf(""), ...fields })),
  )
  const name = fc.string({ unit: "grapheme", minLength: 1, maxLength: 20 })
  const tree = fc.array(fc.tuple(entry, name), { maxLength: 20 }).map((list) =>
    list.map(([e, text], i): Entry => ({
      ...e,
      path: utf8(`${i}/${text.replace(/[/\0]|^\.+$/g, "_")}`),
    })),
  )

  test("opening undoes sealing", () => {
    fc.assert(
      fc.property(tree, fc.string({ unit: "grapheme", maxLength: 200 }), (entries, note) => {
        const opened = open(makeDelivery(entries, note))
        expect(opened.note).toBe(note)
        expect(opened.entries).toHaveLength(entries.length)
        opened.entries.forEach((e, i) => expect(e).toMatchObject(entries[i] ?? {}))
        let bodyOffset = 0
        for (const e of opened.entries) {
          expect(e.bodyOffset).toBe(bodyOffset)
          if (e.type === "file") expect(e.metaMac).toEqual(metaMac(e))
          bodyOffset += e.type === "file" ? e.size : 0
        }
        expect(opened.contentLength).toBe(bodyOffset)
      }),
      { numRuns: 40 },
    )
  })

  test("an entry has one encoding: what parses encodes to the same bytes", () => {
    fc.assert(
      fc.property(entry, fc.nat(), (e, bodyOffset) => {
        const bytes = encodeEntry({ ...e, path: utf8("x") }, bodyOffset)
        expect(toHex(encodeEntry(parseEntry(bytes), bodyOffset))).toBe(toHex(bytes))
      }),
      { numRuns: 40 },
    )
  })

  test("the same delivery seals to the same bytes, and another id to others", () => {
    const entries = [fileOf("a", 1)]
    const secret = { ds: random(32), deliveryId: random(16) }
    const input = { ...secret, bodyRoot: random(32), note: "n", entries }
    expect(sealManifest(input)).toEqual(sealManifest(input))
    const other = sealManifest({ ...input, deliveryId: random(16) })
    expect(toHex(other.openRoot)).not.toBe(toHex(sealManifest(input).openRoot))
  })
})

describe("T04 a manifest that was touched does not open", () => {
  const delivery = makeDelivery([fileOf("a/b", 11), folderOf("c")], "note")
  const { ds, header, manifest } = delivery

  test("any byte flipped", () => {
    for (let at = 0; at < manifest.length; at++) {
      const ciphertext = manifest.slice()
      ciphertext[at] = (ciphertext[at] ?? 0) ^ (1 << (at % 8))
      expect(() => openManifest({ ds, header, ciphertext })).toThrow(OpenError)
      // Also under a header that names the touched bytes, as a relay that forges both would have it.
      const forged = { ...header, manifestHash: sha256(ciphertext) }
      expect(() => openManifest({ ds, header: forged, ciphertext })).toThrow(OpenError)
    }
  })

  test("any truncation, and bytes added", () => {
    for (let length = 0; length < manifest.length; length++) {
      const ciphertext = manifest.subarray(0, length)
      expect(() => openManifest({ ds, header, ciphertext })).toThrow(OpenError)
      const forged = { ...header, manifestLength: length, manifestHash: sha256(ciphertext) }
      expect(() => openManifest({ ds, header: forged, ciphertext })).toThrow(OpenError)
    }
    const longer = new Uint8Array(manifest.length + 1)
    longer.set(manifest)
    expect(() => openManifest({ ds, header, ciphertext: longer })).toThrow(OpenError)
  })

  test("another secret, delivery id, body root or open root", () => {
    expect(() => open({ ...delivery, ds: random(32) })).toThrow(OpenError)
    for (const field of ["bodyRoot", "openRoot", "keyCommit", "manifestHash"] as const) {
      expect(() => open({ ...delivery, header: { ...header, [field]: random(32) } })).toThrow(
        OpenError,
      )
    }
    const deliveryId = random(16)
    expect(() => open({ ...delivery, header: { ...header, deliveryId } })).toThrow(OpenError)
    const keyCommit = deriveDeliveryKeys({ ds, deliveryId }).commit
    expect(() => open({ ...delivery, header: { ...header, deliveryId, keyCommit } })).toThrow(
      OpenError,
    )
  })
})

describe("T06 entries that do not tile the content are refused", () => {
  const files = [fileOf("a", 10), fileOf("b", 20), fileOf("c", 30)] as const
  const [a, b, c] = files
  const at = (...offsets: [number, number, number]) =>
    files.map((file, i) => encodeEntry(file, offsets[i] ?? 0))
  const contentLength = 60

  test("in order they open", () => {
    expect(fieldRefused({ entries: at(0, 10, 30), contentLength })).toBe("nothing")
  })

  test.each<[string, CraftedManifest, string]>([
    ["overlapping", { entries: at(0, 5, 30), contentLength }, "entry 1.body offset"],
    ["all on one place", { entries: at(0, 0, 0), contentLength }, "entry 1.body offset"],
    ["with a gap", { entries: at(0, 10, 31), contentLength: 61 }, "entry 2.body offset"],
    ["not from 0", { entries: at(1, 11, 31), contentLength: 61 }, "entry 0.body offset"],
    ["out of order", { entries: at(0, 30, 10), contentLength }, "entry 1.body offset"],
    ["beyond the content", { entries: at(0, 10, 30), contentLength: 59 }, "entry 2.size"],
    ["short of the content", { entries: at(0, 10, 30), contentLength: 61 }, "content length"],
    [
      "with a folder elsewhere than its neighbours",
      { entries: [encodeEntry(folderOf("d"), 1)], contentLength: 0 },
      "entry 0.body offset",
    ],
    [
      "over a body of another length",
      { entries: at(0, 10, 30), contentLength, bodyLength: 32 * KIB },
      "content length",
    ],
  ])("%s", (_, crafted, field) => {
    expect(fieldRefused(crafted).replace("manifest.", "")).toBe(field)
  })

  const macsAt = 4 + 1 + 24 + 24
  test("with a chunk count that is not the grid's", () => {
    for (const count of [0, 2, 2 ** 32 - 1]) {
      const entry = encodeEntry(a, 0)
      entry.set(u32(count), macsAt + 8)
      expect(fieldRefused({ entries: [entry], contentLength: 10 })).toBe("entry 0.chunk count")
    }
  })

  test("with a meta-MAC that the chunk MACs do not give", () => {
    const wrong = encodeEntry(b, 0)
    wrong.set(random(8), macsAt)
    expect(fieldRefused({ entries: [wrong], contentLength: 20 })).toBe("entry 0.meta-MAC")
    const macs = encodeEntry({ ...c, chunkMacs: random(16) }, 0)
    macs.set(metaMac(c), macsAt)
    expect(fieldRefused({ entries: [macs], contentLength: 30 })).toBe("entry 0.meta-MAC")
    const empty = encodeEntry(fileOf("e", 0), 0)
    empty.set(random(8), macsAt)
    expect(fieldRefused({ entries: [empty], contentLength: 0 })).toBe("entry 0.meta-MAC")
  })
})

describe("a manifest has one encoding", () => {
  const entries = encodedInOrder([fileOf("a", 10), folderOf("b")])
  const changedAt = (at: number, value: number) => ({
    entries,
    contentLength: 10,
    change: (plaintext: Uint8Array) => plaintext.set([value], at),
  })
  const changedEntry = (index: number, at: number, value: number) => {
    const changed = entries.map((entry) => entry.slice())
    changed[index]?.set([value], at)
    return { entries: changed, contentLength: 10 }
  }
  const used = 24 + entries.reduce((sum, entry) => sum + 4 + entry.length, 0)

  test.each<[string, CraftedManifest, string]>([
    ["another magic", changedAt(0, 0x4c), "manifest.magic"],
    ["another version", changedAt(4, 2), "manifest.version"],
    ["a reserved byte set", changedAt(7, 1), "manifest.reserved"],
    ["a byte behind the entries", changedAt(used, 1), "manifest.padding"],
    ["a last byte that is not zero", changedAt(4095, 1), "manifest.padding"],
    ["a third type", changedEntry(0, 0, 3), "entry 0.type"],
    ["an unknown flag", changedEntry(0, 1, 2), "entry 0.flags"],
    ["a flag on a folder", changedEntry(1, 1, 1), "entry 1.flags"],
    ["a folder with a size", changedEntry(1, 4 + 1 + 7, 1), "entry 1.size"],
    ["a folder with a key", changedEntry(1, 4 + 1 + 24, 1), "entry 1.keys"],
    ["an extension", changedEntry(1, 4 + 1 + 24 + 36 + 1, 1), "entry 1.extension"],
    ["a size above 2^53", changedEntry(0, 4 + 1, 1), "entry 0.size"],
    ["a file above 64 GiB", changedEntry(0, 4 + 1 + 3, 17), "entry 0.size"],
    [
      "a note that is not UTF-8",
      { entries, contentLength: 10, note: Uint8Array.of(255) },
      "manifest.note",
    ],
    [
      "more padding than there should be",
      { entries, contentLength: 10, plaintextLength: 4097 },
      "manifest.length",
    ],
    [
      "less padding than there should be",
      { entries, contentLength: 10, plaintextLength: 4095 },
      "manifest.length",
    ],
    [
      "an entry with a byte behind it",
      { entries: [new Uint8Array([...(entries[0] ?? []), 0])], contentLength: 10 },
      "entry 0.end",
    ],
    [
      "an entry cut short",
      { entries: [entries[0]?.subarray(0, -1) ?? new Uint8Array(0)], contentLength: 10 },
      "entry 0.extension",
    ],
    [
      "a commitment to something else",
      { entries, contentLength: 10, openRoot: random(32) },
      "manifest.open root",
    ],
  ])("%s is refused", (_, crafted, field) => {
    expect(fieldRefused(crafted)).toBe(field)
  })

  test("the commitment covers the note and the order of the entries", () => {
    const honest = makeDelivery([fileOf("a", 0), fileOf("b", 0)], "note")
    const { openRoot } = honest.header
    expect(fieldRefused({ entries: [], contentLength: 0, note: utf8("note"), openRoot })).toBe(
      "manifest.open root",
    )
  })
})

describe("T13 paths that could lead out of the folder are refused by sender and recipient", () => {
  test.each([
    "../x",
    "/x",
    "x\0y",
    ".",
    "a//b",
    "a/",
    "a/../b",
    "x".repeat(300),
    "d/".repeat(64) + "f",
    "",
  ])("%j", (path) => {
    const bytes = utf8(path)
    expect(() => checkPath(bytes)).toThrow(FormatError)
    expect(() => makeDelivery([{ ...folderOf("x"), path: bytes }])).toThrow(FormatError)
    const entry = encodeEntry({ ...folderOf("x"), path: bytes }, 0)
    expect(fieldRefused({ entries: [entry], contentLength: 0 })).toBe("entry 0.path")
  })

  test.each(["C:\\x", "a\\..\\b", "x:stream", "...", "a /b."])("%j is a plain name", (path) => {
    expect(checkPath(utf8(path))).toBe(path)
  })

  test("a manifest with one path twice, or a file that is also a folder, does not open", () => {
    const clashes: [string, string][] = [
      ["file a", "file a"],
      ["file a", "directory a"],
      ["file a", "file a/b"],
      ["directory a/b/c", "file a/b"],
    ]
    for (const clash of clashes) {
      for (const order of [clash, clash.toReversed()]) {
        const entries = order.map((text) => {
          const [type, path = ""] = text.split(" ")
          return type === "file" ? fileOf(path, 0) : folderOf(path)
        })
        expect(() => checkPaths(entries)).toThrow(FormatError)
        const field = fieldRefused({ entries: encodedInOrder(entries), contentLength: 0 })
        expect(field).toMatch(/^entry [01]\.path$/)
      }
    }
  })

  test("agrees with a check that collects every folder, on any tree of few names", () => {
    const component = fc.constantFrom("a", "b", "a!", "a0", "é")
    const path = fc.array(component, { minLength: 1, maxLength: 4 })
    const type = fc.constantFrom("file" as const, "directory" as const)
    fc.assert(
      fc.property(fc.array(fc.tuple(type, path), { maxLength: 8 }), (list) => {
        const files = new Set<string>()
        const all = new Set<string>()
        const folders = new Set<string>()
        let good = true
        for (const [kind, components] of list) {
          const text = components.join("/")
          if (all.has(text)) good = false
          all.add(text)
          if (kind === "file") files.add(text)
          for (let n = 1; n < components.length; n++) folders.add(components.slice(0, n).join("/"))
        }
        if ([...files].some((file) => folders.has(file))) good = false
        const entries = list.map(([kind, components]) => ({
          type: kind,
          path: utf8(components.join("/")),
        }))
        if (good) checkPaths(entries)
        else expect(() => checkPaths(entries)).toThrow(FormatError)
        for (const [kind, components] of list) {
          if (kind === "directory") folders.add(components.join("/"))
        }
        const paths = list.map(
          ([kind, components]) => components.join("/") + (kind === "directory" ? "/" : ""),
        )
        expect(countFolders(paths)).toBe(folders.size)
      }),
      { numRuns: 2000 },
    )
  })
})

const longEntry = (plaintext: Uint8Array) => plaintext.set(u32(2 ** 32 - 1), 24)
const garbage = (plaintext: Uint8Array) => plaintext.fill(0xa5, 24)
/** Only the first length is right. */
const garbageOfGoodLength = (plaintext: Uint8Array) => garbage(plaintext).set(u32(200), 24)

describe("T17 the largest manifests take bounded time and memory", () => {
  // Each path is of 50 components that no other entry shares: 13 million folders, if one collected.
  const depth = 50
  const deepPath = (index: number, length: number) =>
    utf8(`${index.toString(36).padStart(4, "0")}/${"xx/".repeat(depth - 2)}`.padEnd(length, "y"))
  // Without MACs an entry takes 70 bytes and its path, so 256 each and 24 in front fill 64 MiB.
  const filling = () =>
    Array.from({ length: maxEntries }, (_, i) => {
      return { ...folderOf(""), path: deepPath(i, i === 0 ? 162 : 186) }
    })

  test("262,144 entries that fill 64 MiB open, and one byte more is refused", () => {
    const entries = filling()
    const delivery = makeDelivery(entries)
    expect(delivery.manifest).toHaveLength(maxManifestPlainBytes + 16)
    const opened = open(delivery)
    expect(opened.entries).toHaveLength(maxEntries)
    expect(opened.entries.at(-1)?.path).toEqual(entries.at(-1)?.path)

    entries[0] = { ...folderOf(""), path: deepPath(0, 163) }
    expect(() => makeDelivery(entries)).toThrow(/fill more than 64 MiB/)
    const { header } = delivery
    const longer = encodeHeader({ ...header, manifestLength: header.manifestLength })
    longer.set(u32(maxManifestPlainBytes + 17), 36)
    expect(() => parseHeader(longer)).toThrow(/manifest length/)
  }, 180_000)

  test("one entry more is refused, by the sender before its path is looked at", () => {
    const invalid = { ...folderOf(""), path: new Uint8Array(0) }
    const entries = Array.from({ length: maxEntries + 1 }, () => invalid)
    expect(() => makeDelivery(entries)).toThrow(/262145 where a delivery holds 262144/)
    const field = fieldRefused({ entries: [], contentLength: 0, entryCount: maxEntries + 1 })
    expect(field).toBe("manifest.entry count")
  })

  test("a count without entries behind it is refused at the count", () => {
    // 4096 bytes hold 57 of the smallest entries.
    for (const entryCount of [58, maxEntries, 2 ** 32 - 1]) {
      const field = fieldRefused({ entries: [], contentLength: 0, entryCount })
      expect(field).toBe("manifest.entry count")
    }
    expect(fieldRefused({ entries: [], contentLength: 0, entryCount: 57 })).not.toBe(
      "manifest.entry count",
    )
  })

  test("lengths that promise more than there is are refused where they stand", () => {
    const note = { noteLength: 2 ** 32 - 1 }
    expect(fieldRefused({ entries: [], contentLength: 0, ...note })).toBe("manifest.note length")
    const shortNote = { noteLength: maxNoteBytes }
    expect(fieldRefused({ entries: [], contentLength: 0, ...shortNote })).toBe("manifest.note")
    const entries = encodedInOrder([folderOf("a")])
    expect(fieldRefused({ entries, contentLength: 0, change: longEntry })).toBe("manifest.entry")
    const path = encodeEntry(folderOf("a"), 0)
    path.set([255, 255], 2)
    expect(fieldRefused({ entries: [path], contentLength: 0 })).toBe("entry 0.path")
  })

  test("a file of 64 GiB whose MACs are missing is refused before room is made for them", () => {
    const size = 64 * KIB * MIB
    const entry = encodeEntry(fileOf("a", 0), 0)
    const sized = encodeEntry({ ...fileOf("a", size), chunkMacs: random(16 * gridCount(size)) }, 0)
    entry.set(sized.subarray(0, entry.length - 2))
    expect(fieldRefused({ entries: [entry], contentLength: size })).toBe("entry 0.chunk MACs")
  })

  test("64 MiB of garbage where entries should be is refused at the first one", () => {
    const plaintextLength = maxManifestPlainBytes
    const crafted = { entries: [], contentLength: 0, entryCount: maxEntries, plaintextLength }
    expect(fieldRefused({ ...crafted, change: garbage })).toBe("manifest.entry")
    expect(fieldRefused({ ...crafted, change: garbageOfGoodLength })).toBe("entry 0.type")
  })
})

describe("T37 one ciphertext that opens under two keys", () => {
  const content = utf8("what was shown")
  const nonce = random(8)
  const first = encryptMegaFile(content, { key: random(16), nonce })
  // MEGA's own format allows it: for any other key there is a meta-MAC that fits.
  const otherKey = random(16)
  const shown = encryptMegaFile(first.ciphertext, { key: otherKey, nonce }).ciphertext
  const other = encryptMegaFile(shown, { key: otherKey, nonce })

  test("passes in MEGA's format alone", () => {
    expect(toHex(other.ciphertext)).toBe(toHex(first.ciphertext))
    expect(toHex(decryptMegaFile(first.ciphertext, first.composedKey))).toBe(toHex(content))
    expect(toHex(decryptMegaFile(first.ciphertext, other.composedKey))).toBe(toHex(shown))
  })

  test("does not pass here: the header commits to one key of each entry", () => {
    const entryOf = (composed: Uint8Array, key: Uint8Array, chunkMacs: Uint8Array): Entry => {
      const entry = { ...fileOf("a", content.length), key, nonce, chunkMacs }
      const mac = metaMac(entry)
      expect(composeMegaKey({ key, nonce, metaMac: mac })).toEqual(composed)
      return entry
    }
    const key = first.composedKey
      .slice(0, 16)
      .map((byte, i) => byte ^ (first.composedKey[16 + i] ?? 0))
    const one = entryOf(first.composedKey, key, first.chunkMacs[0] ?? new Uint8Array(0))
    const two = entryOf(other.composedKey, otherKey, other.chunkMacs[0] ?? new Uint8Array(0))
    const contentLength = content.length
    const reportable = craftDelivery({ entries: encodedInOrder([one]), contentLength })
    expect(open(reportable).entries).toHaveLength(1)
    const { openRoot } = reportable.header
    expect(fieldRefused({ entries: encodedInOrder([two]), contentLength, openRoot })).toBe(
      "manifest.open root",
    )
  })

  test("does not pass here: the header commits to one delivery secret", () => {
    const delivery = makeDelivery([fileOf("a", 1)])
    expect(() => open({ ...delivery, ds: random(32) })).toThrow(OpenError)
  })
})
