// What the relay holds after real deliveries, looked at by someone who seized its disk.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { createIdentity, type Identity, openState, registerInbox, send } from "knothole/client"
import {
  envelopeLength,
  GIB,
  KIB,
  paddedBodyLength,
  sealEnvelope,
  u64,
  utf8,
} from "knothole/protocol"
import { createRelay, loadConfig, type Relay } from "knothole/server"
import { afterAll, beforeAll, expect, test } from "vitest"

const work = mkdtempSync(path.join(tmpdir(), "knothole-seized-"))
const data = path.join(work, "relay")
let relay: Relay | undefined
let identity: Identity
let sender: Identity
const contentSize = 313_373

const secrets = {
  content: "the minutes of the meeting that did not happen",
  fileName: "minutes-of-the-meeting.txt",
  folderName: "folder nobody may know of",
  note: "please read this before the hearing on Thursday",
}

beforeAll(async () => {
  relay = await createRelay(loadConfig({ flags: { listen: "127.0.0.1:0", data }, env: {} }))
  const origin = (await relay.start()).url
  const state = openState(path.join(work, "state"))
  identity = await createIdentity()
  sender = await createIdentity()
  const { address } = await registerInbox({ identity, relay: origin, state })
  const folder = path.join(work, secrets.folderName)
  mkdirSync(folder)
  const text = `${secrets.content}\n`.repeat(Math.ceil(contentSize / secrets.content.length))
  writeFileSync(path.join(folder, secrets.fileName), text.slice(0, contentSize))
  for (const mode of ["anonymous", "deniable", "signature"] as const) {
    await send({
      recipients: [address],
      relay: origin,
      sources: [{ kind: "path", path: folder }],
      note: secrets.note,
      state,
      ...(mode !== "anonymous" && { sender: { identity: sender, mode } }),
    })
  }
})
afterAll(async () => {
  await relay?.stop()
  rmSync(work, { recursive: true, force: true })
})

/** Everything on the relay's disk, the index included. */
function seized(): Buffer {
  const names = readdirSync(data, { recursive: true, withFileTypes: true })
  const files = names.filter((item) => item.isFile())
  return Buffer.concat([
    ...files.map((item) => readFileSync(path.join(item.parentPath, item.name))),
    Buffer.from(names.map((item) => item.name).join("\n")),
  ])
}

/** How bytes may lie about: plain, in hex, in UTF-16, and in base64 at each of its three alignments. */
function disguises(bytes: Uint8Array): [string, Buffer][] {
  const plain = Buffer.from(bytes)
  const base64 = [0, 1, 2].map((shift) => {
    const text = Buffer.concat([Buffer.alloc(shift), plain]).toString("base64")
    // The characters at both ends depend on the neighbours.
    return text.slice(shift === 0 ? 0 : shift + 1, -4)
  })
  const forUrls = base64.map((text) => text.replaceAll("+", "-").replaceAll("/", "_"))
  return [
    ["plain", plain],
    ["hex", Buffer.from(plain.toString("hex"))],
    ["upper-case hex", Buffer.from(plain.toString("hex").toUpperCase())],
    ["UTF-16LE", Buffer.from(plain.toString("latin1"), "utf16le")],
    ["UTF-16BE", Buffer.from(plain.toString("latin1"), "utf16le").swap16()],
    ...[...base64, ...forUrls].map((text): [string, Buffer] => ["base64", Buffer.from(text)]),
  ]
}

function found(bytes: Uint8Array, disk: Buffer): string[] {
  return disguises(bytes).flatMap(([how, needle]) => (disk.includes(needle) ? [how] : []))
}

test("T01: a search of the relay's disk finds what is public", () => {
  const disk = seized()
  // Otherwise the searches below would prove nothing.
  expect(found(identity.bundle.authKey, disk)).toContain("plain")
  expect(found(u64(paddedBodyLength(contentSize)), disk)).toContain("plain")
})

test.each(Object.entries(secrets))("T01: the relay's disk holds no %s", (_, secret) => {
  expect(found(utf8(secret), seized())).toEqual([])
})

test("T01: the relay's disk holds neither exact sizes nor anything of the sender", () => {
  const disk = seized()
  const littleEndian = u64(contentSize).toReversed()
  const { fingerprint, authKey, signKey } = sender.bundle
  for (const secret of [u64(contentSize), littleEndian, fingerprint, authKey, signKey]) {
    expect(found(secret ?? new Uint8Array(0), disk)).toEqual([])
  }
  expect(disk.includes(` ${contentSize}`) || disk.includes(`:${contentSize}`)).toBe(false)
})

/** Every length that Padmé leaves as it is, from `least` up: multiples of 2^(E−S) in each octave. */
function* padmeLengths(least: number, most: number): Generator<number> {
  for (let exponent = Math.log2(least); 2 ** exponent < most; exponent++) {
    const step = 2 ** (exponent - (Math.floor(Math.log2(exponent)) + 1))
    for (let at = 2 ** exponent; at < 2 ** (exponent + 1); at += step) yield at
  }
  yield most
}

test("T40: from 1 byte to 64 GiB the relay sees only the lengths of Padmé", () => {
  const lengths = [...padmeLengths(16 * KIB, 64 * GIB)]
  expect(lengths.length).toBe(new Set(lengths).size)
  const seen = new Set<number>()
  let previous = 0
  for (const length of lengths) {
    // Both ends of the interval of sizes that pad to it, and a size amid.
    for (const size of [previous + 1, Math.ceil((previous + length) / 2), length]) {
      expect(paddedBodyLength(size)).toBe(length)
      seen.add(paddedBodyLength(size))
    }
    previous = length
  }
  // From the definition: in the octave of exponent E there are 2^S of them.
  expect(seen.size).toBe(801)
})

test("T40: every envelope for one recipient is as long as any other", async () => {
  const { bundle } = identity
  const payload = {
    ds: new Uint8Array(32),
    createdMs: 0,
    threadSeq: 0,
    threadPrev: new Uint8Array(32),
  }
  const headerHash = new Uint8Array(32)
  const replyTo = { inboxId: sender.bundle.inboxId, host: "a-long-host-name.example.org:8443" }
  const lengths = await Promise.all([
    sealEnvelope({ recipient: bundle, headerHash, payload }),
    sealEnvelope({ recipient: bundle, headerHash, payload: { ...payload, replyTo } }),
    ...(["deniable", "signature"] as const).map((mode) =>
      sealEnvelope({ recipient: bundle, headerHash, payload, sender: { identity: sender, mode } }),
    ),
  ])
  expect(new Set(lengths.map(({ length }) => length))).toEqual(new Set([envelopeLength(bundle)]))
})
