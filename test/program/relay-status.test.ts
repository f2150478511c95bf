import { writeFileSync } from "node:fs"
import { get } from "node:http"
import path from "node:path"
import { text as readAll } from "node:stream/consumers"
import { afterAll, describe, expect, it } from "vitest"
import { Workshop } from "./processes.js"

const workshop = new Workshop()

afterAll(async () => {
  await workshop.close()
})

function inFolder(...names: string[]): string {
  return path.join(workshop.folder, ...names)
}

describe("knothole relay status", () => {
  it("says how the relay on this machine is doing", async () => {
    const relay = await workshop.startRelay("busy", ["--public-url", "https://drop.example.org"])
    const data = ["--data", inFolder("busy", "data")]
    for (const name of ["one", "two"]) {
      const init = ["init", "--relay", relay.url, "--no-passphrase", "--name", name]
      expect(await workshop.run(name, init)).toMatchObject({ code: 4 })
    }
    const ended = await workshop.run("operator", ["relay", "status", ...data])
    expect(ended).toMatchObject({ code: 0, stderr: "" })
    expect(ended.stdout).toContain(`listens on   ${relay.url}\n`)
    expect(ended.stdout).toContain("public URLs  https://drop.example.org\n")
    expect(ended.stdout).toContain("waiting      0 deliveries, 0 B\n")
    expect(ended.stdout).toContain("index        embedded, ready\n")
    expect(ended.stdout).toContain("clock        steady\n")
  })

  it("asks where that relay keeps its data, whatever the other settings would make of a new one", async () => {
    const relay = await workshop.startRelay("found")
    // As in a container whose relay was told its URL by a flag.
    const env = { KNOTHOLE_DATA: inFolder("found", "data"), KNOTHOLE_LISTEN: "0.0.0.0:8787" }
    const found = await workshop.run("operator", ["relay", "status"], { env })
    expect(found).toMatchObject({ code: 0, stderr: "" })
    expect(found.stdout).toContain(relay.url)
    const unknown = await workshop.run("operator", ["relay", "status"], {
      env: { ...env, KNOTHOLE_RELAY_CONFIG: "/nowhere" },
    })
    expect(unknown.code).toBe(2)
  })

  it("counts what people left and took away", async () => {
    const relay = await workshop.startRelay("counted")
    const init = ["init", "--relay", relay.url, "--no-passphrase"]
    const address = (await workshop.run("recipient", init)).stdout.trim()
    writeFileSync(inFolder("letter"), "dear")
    const send = ["send", inFolder("letter"), "-r", address]
    for (const _ of [1, 2]) expect(await workshop.run("sender", send)).toMatchObject({ code: 0 })

    const ask = ["relay", "status", "--json"]
    const env = { KNOTHOLE_DATA: inFolder("counted", "data") }
    const status = async () => {
      const { code, stdout } = await workshop.run("operator", ask, { env })
      const [event, done] = stdout
        .trim()
        .split("\n")
        .map((line): unknown => JSON.parse(line))
      expect(code).toBe(0)
      expect(done).toEqual({ v: 1, event: "done", ok: true, exit: 0 })
      return event
    }
    const before = await status()
    expect(before).toMatchObject({ v: 1, event: "relay status", url: relay.url, inboxes: 1 })
    expect(before).toMatchObject({ waiting: { deliveries: 2 }, open_uploads: 0 })
    expect(before).not.toMatchObject({ waiting: { bytes: 0 } })
    expect(
      await workshop.run("recipient", ["receive", "--all", "-o", inFolder("got")]),
    ).toMatchObject({ code: 0 })
    expect(await status()).toMatchObject({ waiting: { deliveries: 0, bytes: 0 }, inboxes: 1 })
    relay.child.kill("SIGTERM")
    expect(await relay.ended).toMatchObject({ code: 0 })
  })

  it("ends with 5 where no relay runs, and says what to do", async () => {
    const nowhere = ["relay", "status", "--data", inFolder("nowhere")]
    const ended = await workshop.run("operator", nowhere)
    expect(ended).toMatchObject({ code: 5, stdout: "" })
    expect(ended.stderr).toMatch(/no relay is running here; start one with 'knothole relay'/)
    const killed = await workshop.startRelay("killed")
    killed.child.kill("SIGKILL")
    await killed.ended
    const after = ["relay", "status", "--data", inFolder("killed", "data"), "--json"]
    const told = await workshop.run("operator", after)
    expect(told.code).toBe(5)
    expect(JSON.parse(told.stdout)).toMatchObject({ event: "done", ok: false, exit: 5 })
    // What the killed one left behind is in nobody's way.
    const again = await workshop.startRelay("killed")
    expect((await workshop.run("operator", after)).code).toBe(0)
    again.child.kill("SIGTERM")
    await again.ended
    expect((await workshop.run("operator", after)).code).toBe(5)
  }, 20_000)

  it("is usage when it cannot be meant", async () => {
    const ended = await workshop.run("operator", ["relay", "status", "--dat", "x"])
    expect(ended).toMatchObject({ code: 2, stdout: "" })
    expect(ended.stderr).toContain("'knothole relay status --help' shows how it is written")
    const help = await workshop.run("operator", ["relay", "status", "--help"])
    expect(help.code).toBe(0)
    expect(help.stdout.trimEnd().split("\n").length).toBeLessThanOrEqual(24)
  })
})

describe("knothole relay clock-ok", () => {
  it("ends the alarm about the clock, and says so once", async () => {
    const first = await workshop.startRelay("clock")
    first.child.kill("SIGTERM")
    await first.ended
    const data = ["--data", inFolder("clock", "data")]
    writeFileSync(inFolder("clock", "data", "clock"), String(Date.now() + 86_400_000))
    const relay = await workshop.startRelay("clock")
    const ask = (...words: string[]) => workshop.run("operator", ["relay", ...words, ...data])
    expect((await ask("status")).stdout).toMatch(/clock +jumped: .* or 'relay clock-ok'\n/)
    expect(await ask("clock-ok")).toMatchObject({
      code: 0,
      stderr: "",
      stdout: "the relay believes the clock again, and deletes what has expired by it\n",
    })
    expect((await ask("status")).stdout).toMatch(/clock +steady\n/)
    const again = await ask("clock-ok", "--json")
    expect(again.code).toBe(0)
    expect(
      again.stdout
        .split("\n")
        .filter(Boolean)
        .map((line): unknown => JSON.parse(line)),
    ).toEqual([
      { v: 1, event: "relay clock-ok", was_doubted: false },
      { v: 1, event: "done", ok: true, exit: 0 },
    ])
    relay.child.kill("SIGTERM")
    await relay.ended
    expect((await ask("clock-ok")).code).toBe(5)
    expect((await workshop.run("operator", ["relay", "clock-ok", "--dat", "x"])).code).toBe(2)
  }, 20_000)
})

describe("the operator's socket", () => {
  it("is not where the public is: neither serves what the other does", async () => {
    const relay = await workshop.startRelay("apart")
    // Until its index is whole a relay answers 503 to most of what it is asked.
    const ask = async (place: string) => (await fetch(new URL(place, relay.url))).status
    await expect.poll(() => ask("/status"), { timeout: 10_000 }).not.toBe(503)
    for (const place of ["/status", "/metrics"]) {
      expect(await ask(place)).toBe(404)
    }
    const socketPath = inFolder("apart", "data", "operator.sock")
    const status = await new Promise<number | undefined>((resolve, reject) => {
      get({ socketPath, path: "/v1/relay" }, (answer) => {
        readAll(answer).then(() => resolve(answer.statusCode), reject)
      }).once("error", reject)
    })
    expect(status).toBe(404)
  })

  it("is refused with a remedy where its path is longer than the system takes", async () => {
    const data = inFolder("deep", "x".repeat(80))
    const ended = await workshop.run("deep", ["relay", "--data", data, "--listen", "127.0.0.1:0"])
    expect(ended).toMatchObject({ code: 2 })
    expect(ended.stderr).toMatch(/--operator-socket: .* bytes, and the system takes 103 at most/)
    const elsewhere = ["--operator-socket", inFolder("short.sock"), "--data", data]
    const relay = await workshop.startRelay("deep", elsewhere)
    const asked = ["relay", "status", "--operator-socket", inFolder("short.sock"), "--data", data]
    const told = await workshop.run("operator", asked)
    expect(told).toMatchObject({ code: 0 })
    expect(told.stdout).toContain(relay.url)
  })
})
