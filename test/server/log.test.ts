import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { connect } from "node:net"
import { join } from "node:path"
import { text } from "node:stream/consumers"
import { afterEach, describe, expect, it } from "vitest"
import { encodeBearer, fromHex, random, toHex, utf8 } from "../../protocol/index.js"
import {
  alarms,
  createLog,
  failureFields,
  type Level,
  levels,
  type LogFields,
} from "../../server/log.js"
import { FaultyDisk, systemError } from "./faulty-disk.js"
import { ManualClock } from "./manual-clock.js"
import { personAt } from "./people.js"
import { makeDelivery, openRelay, type RelayUnderTest } from "./relay-under-test.js"

/** Pieces of these bytes in every form a log could have them in. */
function tracesOf(bytes: Uint8Array): string[] {
  const whole = Buffer.from(bytes)
  const starts = [0, Math.floor(whole.length / 2), Math.max(0, whole.length - 12)]
  return starts.flatMap((start) => {
    const piece = whole.subarray(start, start + 12)
    if (piece.length < 6) return []
    // Where a piece begins in a group of three decides how base64 has it; the edges depend on what is
    // beside it.
    const base64 = [0, 1, 2].map((shift) =>
      Buffer.concat([Buffer.alloc(shift), piece])
        .toString("base64")
        .replace(/=+$/, "")
        .slice(shift === 0 ? 0 : shift + 1, -1),
    )
    const urls = base64.map((form) => form.replaceAll("+", "-").replaceAll("/", "_"))
    const hex = piece.toString("hex")
    return [piece.toString("latin1"), hex, hex.toUpperCase(), ...base64, ...urls]
  })
}

function found(log: string, secrets: ReadonlyMap<string, Uint8Array>): string[] {
  return [...secrets].flatMap(([name, bytes]) =>
    tracesOf(bytes).some((trace) => log.includes(trace)) ? [name] : [],
  )
}

/** The levels that are written when this is the least. */
function seen(least: Level): string[] {
  const lines: string[] = []
  const log = createLog((line) => lines.push(line), new ManualClock(), least)
  for (const level of levels) {
    if (level === "alarm") log("clock_jumped", {}, level)
    else log("anything", {}, level)
  }
  return lines.map((line) => JSON.parse(line).level)
}

/** The events in the first column of the operator's table, row by row. */
function alarmsOfTheDocument(): string[] {
  const page = readFileSync(new URL("../../docs/operating.md", import.meta.url), "utf8")
  const [, table = ""] = /^\| alarm \| means \|\n.*\n((?:\|.*\n?)+)/m.exec(page) ?? []
  return table.split("\n").flatMap((row) => {
    const [, events = ""] = row.split("|")
    return [...events.matchAll(/`([a-z_]+)`/g)].map(([, event = ""]) => event)
  })
}

describe("the log", () => {
  let under: RelayUnderTest | undefined

  afterEach(async () => {
    await under?.remove()
    under = undefined
  })

  it("has no address, key, token, id, body or network address in any form, whatever is done", async () => {
    const disk = new FaultyDisk()
    const options = { ports: { disk }, config: { logLevel: "debug" } } as const
    under = await openRelay(options)
    const { url } = await under.relay.start()
    const { client, folder } = under
    const secrets = new Map<string, Uint8Array>()
    const keep = (name: string, bytes: Uint8Array | string): void => {
      secrets.set(name, typeof bytes === "string" ? utf8(bytes) : bytes)
    }
    keep("a network address", "203.0.113.77")
    const [alice, bob] = [await personAt(0), await personAt(1)]
    for (const [name, person] of Object.entries({ alice, bob })) {
      keep(`${name}'s address`, person.bundle.address)
      keep(`${name}'s bundle`, person.bundle.bytes)
      await client.register(person)
      await client.register(person)
    }
    const session = await client.login(alice)
    keep("a session's token", Buffer.from(session.replace("Bearer ", ""), "base64url"))
    const delivery = makeDelivery([alice, bob], { bodyLength: 200_000 })
    const sent = await client.send(delivery)
    keep("a delivery's id", fromHex(sent.id))
    keep("an upload token", sent.token)
    keep("a delete capability", sent.deleteCap)
    keep("an idempotency key", fromHex(sent.idempotencyKey))
    keep("a body", delivery.body)
    keep("a manifest", delivery.manifest)
    keep("a header", delivery.header)
    for (const [at, envelope] of delivery.envelopes.entries()) keep(`envelope ${at}`, envelope)
    for (const name of readdirSync(join(folder, "keys"))) {
      keep(`the key ${name}`, readFileSync(join(folder, "keys", name)))
    }
    const stray = random(16)
    keep("an id that was never given", stray)

    // What succeeds, and what is refused.
    const forwarded = { "X-Forwarded-For": "203.0.113.77", Forwarded: "for=203.0.113.77" }
    await client.list(session, "?envelopes=1&wait=0")
    for (const piece of ["header", "envelope", "manifest", "leaves", "body", "parts/0"]) {
      await client.bytes(`/v1/deliveries/${sent.id}/${piece}`, session)
      await client.get(`/v1/deliveries/${toHex(stray)}/${piece}`, session).set(forwarded)
    }
    const cap = encodeBearer(sent.deleteCap)
    await client.get(`/v1/deliveries/${sent.id}/status`, cap)
    await client.get(`/v1/uploads/${sent.id}`, encodeBearer(sent.token))
    await client.get(`/v1/uploads/${sent.id}?token=${toHex(sent.token)}`, session)
    await client.get(`/${sent.id}/${alice.bundle.address}?${toHex(stray)}=${session}`)
    await client.get(`/to/${alice.bundle.address}?${toHex(stray)}=${session}`)
    await client.http.post(`/v1/inboxes/${bob.bundle.address}`).send({ [toHex(stray)]: session })
    await client.http.put(`/v1/inboxes/${bob.bundle.address}`).send({ bundle: session })
    await client.putPart(sent, toHex(stray), delivery.body.subarray(0, 131_072))
    await client.putPart(await client.start([bob]), 0, delivery.body.subarray(0, 1000))
    const raw = connect(Number(new URL(url).port), "127.0.0.1")
    raw.end(`${alice.bundle.address} ${sent.id} NONSENSE\r\n${session}\r\n\r\n`)
    expect(await text(raw)).toContain("400 Bad Request")

    // What fails under the relay, with paths in the system's words.
    for (const code of ["EIO", "ENOSPC", `E${toHex(stray)}`]) {
      disk.before = () => {
        throw Object.assign(
          new Error(`${code}: ${folder}/store/${sent.id}\n  at ${sent.id}.js:1`),
          {
            code,
          },
        )
      }
      await client.get(`/v1/deliveries/${sent.id}/body`, session)
      await client.get(`/v1/deliveries/${sent.id}/status`, cap)
      await client.postUpload([bob])
      await client.get("/healthz")
    }
    disk.before = () => undefined
    writeFileSync(join(folder, "store", sent.id, "commit.v1"), random(200))
    await client.delete(`/v1/deliveries/${sent.id}`, cap)
    await under.relay.reconcile()
    await under.relay.sweep()
    // A start that has to build the index again, over the damaged record.
    const before = under.log
    writeFileSync(join(folder, "index-state"), "{}")
    await under.relay.stop()
    writeFileSync(join(folder, "index-state"), "{}")
    under = await openRelay({ ...options, folder })

    const lines = [...before, ...under.log]
    const events = new Set(lines.map(({ event }) => event))
    for (const event of ["request", "request_failed", "record_refused", "index_rebuilt"]) {
      expect(events).toContain(event)
    }
    expect(lines.filter(({ event }) => event === "request").length).toBeGreaterThan(40)
    const log = lines.map((line) => JSON.stringify(line)).join("\n")
    expect(found(log, secrets)).toEqual([])
    // The peer's own address stands only where the operator chose to listen.
    for (const line of lines) {
      if (line["event"] !== "listening") expect(JSON.stringify(line)).not.toContain("127.0.0.1")
    }
  })

  it("would be seen to have a secret by the test above, whatever form it had", () => {
    const secret = random(32)
    const secrets = new Map([["it", secret]])
    const around = Buffer.concat([random(7), secret, random(5)])
    for (const form of ["hex", "base64", "base64url", "latin1"] as const) {
      expect(found(around.toString(form), secrets), form).toEqual(["it"])
    }
    expect(found(around.toString("hex").toUpperCase(), secrets)).toEqual(["it"])
    expect(found(Buffer.from(random(44)).toString("hex"), secrets)).toEqual([])
  })

  it("has only fields of the table, and a question mark for a value that does not have its shape", () => {
    const lines: string[] = []
    const log = createLog((line) => lines.push(line), new ManualClock())
    const id = "0123456789abcdef0123456789abcdef"
    const bad: LogFields = {
      route: `/v1/deliveries/${id}`,
      method: "GET /",
      code: id.replace("0", "f"),
      failure: "two words",
      system: "203.0.113.77",
      at: `${id}.js:1`,
      until: "tomorrow",
    }
    // What no type lets in may come by way of a spread.
    const more = { path: `/v1/${id}`, message: id }
    log("odd", { ...bad, ...more })
    const { time: _time, ...line } = JSON.parse(lines[0] ?? "")
    expect(line).toEqual({
      level: "info",
      event: "odd",
      ...Object.fromEntries(Object.keys(bad).map((name) => [name, "?"])),
    })
  })

  it("is one line of printable ASCII for each event", () => {
    const lines: string[] = []
    const log = createLog((line) => lines.push(line), new ManualClock())
    const problem = 'a\nb\u001b[2J\u202egnp\u2028\u0085\u007f"\\é'
    log("odd", { problem })
    expect(lines[0]).toMatch(/^[ -~]+\n$/)
    expect(JSON.parse(lines[0] ?? "")).toMatchObject({ problem })
  })

  it("has the alarms that docs/operating.md explains, and no others", () => {
    expect(alarmsOfTheDocument()).toEqual([...alarms])
  })

  it("leaves out what is below the level it was given", () => {
    expect(seen("debug")).toEqual(["debug", "info", "warning", "alarm"])
    expect(seen("info")).toEqual(["info", "warning", "alarm"])
    expect(seen("warning")).toEqual(["warning", "alarm"])
    expect(seen("alarm")).toEqual(["alarm"])
  })

  it("has of a failure its kind, the system's code and where it arose, never its message", () => {
    const error = systemError("EIO")
    error.message = "EIO: /relay/store/0123\n    at secret.js:1"
    error.stack = `Error: ${error.message}\n    at open (file:///srv/disk-blob-store.js:12:3)`
    expect(failureFields(error)).toEqual({
      failure: "Error",
      system: "EIO",
      at: "disk-blob-store.js:12",
    })
  })
})
