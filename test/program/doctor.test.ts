// One healthy relay, and before it fronts that are broken in one way each. All are examined at once, because
// an examination takes as long as a long poll.
import path from "node:path"
import { pathToFileURL } from "node:url"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type Authority, type KeyPair, makeAuthority } from "../fronts/certificates.js"
import { type Fault, type Front, startFront } from "../fronts/front.js"
import { createRelay } from "../../server/index.js"
import { FaultyDisk, systemError } from "../server/faulty-disk.js"
import { configFor } from "../server/relay-under-test.js"
import { type Ended, gate, Workshop } from "./processes.js"

const workshop = new Workshop()
const fronts: Front[] = []
const ended = new Map<string, Ended>()
const rebuilding = gate()
const stops: (() => Promise<void>)[] = []

/** A relay in this process, so that its disk can be made to fail. */
async function startRelayOn(disk: FaultyDisk, name: string): Promise<string> {
  const config = configFor(path.join(workshop.folder, name), { publicOrigins: [] })
  const relay = await createRelay(config, { disk, writeLog: () => undefined })
  stops.push(() => {
    disk.before = () => undefined
    return relay.stop()
  })
  return (await relay.start()).url
}

async function startWithDiskThatRefuses(): Promise<string> {
  const disk = new FaultyDisk()
  const url = await startRelayOn(disk, "refusing")
  disk.before = (operation) => {
    if (operation === "create") throw systemError("EROFS")
  }
  return url
}

function startThatRebuilds(): Promise<string> {
  const disk = new FaultyDisk()
  const list = disk.list.bind(disk)
  disk.list = async (folder) => {
    if (folder.endsWith("inboxes")) await rebuilding.passed
    return list(folder)
  }
  return startRelayOn(disk, "rebuilding")
}

const broken: Readonly<Record<string, { readonly fault: Fault; readonly code: string }>> = {
  "a body limit of 1 MiB less one byte": {
    fault: { bodyLimit: 1024 ** 2 - 1 },
    code: "body_limit",
  },
  "a body limit that parts pass and long lists do not": {
    fault: { bodyLimit: 1024 ** 2 },
    code: "body_limit",
  },
  buffering: { fault: { buffers: true }, code: "buffering" },
  "a clock 10 minutes off": { fault: { clockAheadMs: 600_000 }, code: "clock" },
  "CORS stripped": { fault: { stripsCors: true }, code: "cors" },
  "Range stripped": { fault: { stripsRange: true }, code: "range" },
  "a read timeout of 30 s": { fault: { readTimeoutMs: 30_000 }, code: "read_timeout" },
  "a redirect to another host": {
    fault: {
      answers: (response) => response.writeHead(301, { location: "https://b.test/" }).end(),
    },
    code: "redirect",
  },
}

/** By what their certificate is. */
const certificates: Readonly<Record<string, (authority: Authority) => KeyPair>> = {
  "a whole chain": ({ whole }) => whole,
  "no intermediate certificate": ({ withoutIntermediate }) => withoutIntermediate,
  "an expired certificate": ({ expired }) => expired,
  "another host's certificate": ({ forAnotherHost }) => forAnotherHost,
  "a certificate of its own making": ({ selfSigned }) => selfSigned,
}

beforeAll(async () => {
  const authority = makeAuthority(workshop.folder)
  const places = new Map<string, string>()
  const add = async (name: string, fault: Fault, tls?: KeyPair) => {
    const front = await startFront(fault, tls)
    fronts.push(front)
    places.set(
      name,
      tls === undefined ? `http://127.0.0.1:${front.port}` : `https://relay.test:${front.port}`,
    )
  }
  await add("nothing wrong", {})
  for (const [name, { fault }] of Object.entries(broken)) await add(name, fault)
  for (const [name, choose] of Object.entries(certificates)) await add(name, {}, choose(authority))
  const known = [...places.values()].flatMap((url) => ["--public-url", url])
  const relay = await workshop.startRelay("relay", [...known, "--trusted-proxies", "1"])
  const relayPort = Number(new URL(relay.url).port)
  for (const front of fronts) front.relayPort = relayPort
  await add("a URL that the relay was not told of", {})
  const full = await workshop.startRelay("full", ["--disk-headroom", "8000TiB"])
  places.set("a full disk", full.url)
  places.set("a disk that refuses", await startWithDiskThatRefuses())
  places.set("an index that is being rebuilt", await startThatRebuilds())
  const untold = await startFront()
  fronts.push(untold)
  const plain = await workshop.startRelay("plain", [
    "--public-url",
    `http://127.0.0.1:${untold.port}`,
  ])
  untold.relayPort = Number(new URL(plain.url).port)
  places.set("a proxy that the relay was not told of", `http://127.0.0.1:${untold.port}`)
  for (const front of fronts) if (front.relayPort === 0) front.relayPort = relayPort
  const preload = pathToFileURL(path.resolve("test/fronts/relay-test-name.mjs")).href
  const env = { NODE_EXTRA_CA_CERTS: authority.rootFile, NODE_OPTIONS: `--import=${preload}` }
  await Promise.all(
    Array.from(places, async ([name, url]) => {
      ended.set(name, await workshop.run("ann", ["doctor", url, "--json"], { env }))
    }),
  )
}, 180_000)

afterAll(async () => {
  for (const front of fronts) front.close()
  rebuilding.open()
  for (const stop of stops) await stop()
  await workshop.close()
})

interface Event {
  readonly event: string
  readonly code?: string
  readonly what?: string
  readonly exit?: number
}

function eventsOf(name: string): Event[] {
  const lines = ended.get(name)?.stdout.trim().split("\n") ?? []
  return lines.map((line) => JSON.parse(line) as Event)
}

function findingsAt(name: string): (string | undefined)[] {
  return eventsOf(name)
    .filter(({ event }) => event === "finding")
    .map(({ code }) => code)
}

function whatAt(name: string): string {
  return eventsOf(name).find(({ event }) => event === "finding")?.what ?? ""
}

describe("doctor", () => {
  it("finds nothing at a healthy relay, alone or behind a healthy front", () => {
    for (const name of ["nothing wrong", "a whole chain"]) {
      expect([name, findingsAt(name)]).toEqual([name, []])
      expect(ended.get(name)?.code).toBe(0)
      expect(eventsOf(name).at(-1)).toMatchObject({ event: "done", ok: true, exit: 0 })
    }
  })

  for (const [name, { code }] of Object.entries(broken)) {
    it(`names ${name}, and that alone`, () => {
      expect(findingsAt(name)).toEqual([code])
      expect(ended.get(name)?.code).toBe(1)
      expect(eventsOf(name).at(-1)).toMatchObject({ event: "done", ok: false, exit: 1 })
    })
  }

  it("names what is wrong with a certificate, and that alone", () => {
    expect(findingsAt("no intermediate certificate")).toEqual(["certificate_chain"])
    expect(findingsAt("an expired certificate")).toEqual(["certificate_expired"])
    expect(findingsAt("another host's certificate")).toEqual(["certificate_wrong_host"])
    expect(findingsAt("a certificate of its own making")).toEqual(["certificate_self_signed"])
  })

  it("names what is wrong with the relay itself", () => {
    expect(findingsAt("a URL that the relay was not told of")).toEqual(["unknown_origin"])
    expect(findingsAt("a full disk")).toEqual(["disk_full"])
    expect(findingsAt("a disk that refuses")).toEqual(["disk_refuses"])
    expect(findingsAt("an index that is being rebuilt")).toEqual(["index"])
    expect(findingsAt("a proxy that the relay was not told of")).toEqual(["trusted_proxies"])
  })

  it("says whose clock is off, how long silence was borne, and what was refused", () => {
    expect(whatAt("a clock 10 minutes off")).toMatch(/before the relay is 10 minutes ahead/)
    expect(whatAt("a read timeout of 30 s")).toMatch(/status 504 after 3\d s/)
    // A front that closes at once may take its status along: the kernel drops what was not read yet.
    expect(whatAt("a body limit of 1 MiB less one byte")).toMatch(
      /1,024 KiB.*(status 413|the connection was)/,
    )
    expect(whatAt("a redirect to another host")).toMatch(/another host: https:\/\/b.test/)
  })

  it("ends with 5 where no relay can be met, and says why", async () => {
    const page = await workshop.serve((_, response) => response.end("<html>hello</html>"))
    const other = await workshop.serve((_, response) => {
      response.writeHead(101, { connection: "upgrade", upgrade: "other" }).end()
    })
    for (const [url, code] of [
      ["http://127.0.0.1:1", "unreachable"],
      ["https://no-such-host.invalid", "name_resolution"],
      [page, "not_a_relay"],
      [other, "not_a_relay"],
    ] as const) {
      const { code: exit, stdout } = await workshop.run("ann", ["doctor", url])
      expect([url, exit, stdout.split(":")[0]]).toEqual([url, 5, code])
    }
  })

  it("goes through a proxy like everything else", async () => {
    const ended = await workshop.run("ann", [
      "doctor",
      "--proxy",
      "socks5h://127.0.0.1:1",
      "abc.onion",
    ])
    expect(ended.code).toBe(5)
    expect(ended.stdout).toMatch(/^unreachable: the proxy socks5h:\/\/127.0.0.1:1 is not there/)
  })
})
