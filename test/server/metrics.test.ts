import { rmSync } from "node:fs"
import { join } from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { type InboxPage, toHex } from "../../protocol/index.js"
import { personAt } from "./people.js"
import { makeDelivery, openRelay, type RelayUnderTest } from "./relay-under-test.js"

const config = { operatorListen: { host: "127.0.0.1", port: 0 } }
let under: RelayUnderTest

beforeEach(async () => {
  under = await openRelay({ config })
  await under.relay.start()
})

afterEach(() => under.remove())

function loggedUrl(event: string): string {
  return String(under.log.findLast((line) => line["event"] === event)?.["url"])
}

async function scrapeText(): Promise<string> {
  const reply = await fetch(new URL("/metrics", loggedUrl("metrics_listening")))
  expect(reply.status).toBe(200)
  expect(reply.headers.get("content-type")).toMatch(/^text\/plain; version=0\.0\.4/)
  return reply.text()
}

/** The relay's own metrics, by name and labels. */
async function scrape(): Promise<Map<string, number>> {
  const lines = (await scrapeText()).split("\n").filter((line) => line.startsWith("knothole_"))
  return new Map(
    lines.map((line) => {
      const at = line.lastIndexOf(" ")
      return [line.slice(0, at), Number(line.slice(at + 1))]
    }),
  )
}

describe("metrics", () => {
  it("agree with what is stored after a mixed run, after a restart, and after the index was lost", async () => {
    const [alice, bob] = [await personAt(0), await personAt(1)]
    for (const person of [alice, bob]) await under.client.register(person)
    const toBoth = makeDelivery([alice, bob], { bodyLength: 300_000 })
    const taken = makeDelivery([alice])
    const revoked = makeDelivery([bob])
    const sent = []
    for (const delivery of [toBoth, taken, revoked]) sent.push(await under.client.send(delivery))
    await under.client.send(taken)
    await under.client.start([alice])
    const session = await under.client.login(alice)
    await under.client.delete(`/v1/deliveries/${sent[1]?.id}`, session).expect(204)
    const capability = `Bearer ${Buffer.from(sent[2]?.deleteCap ?? []).toString("base64url")}`
    await under.client.delete(`/v1/deliveries/${sent[2]?.id}`, capability).expect(204)

    const told = await scrape()
    expect(Object.fromEntries(told)).toMatchObject({
      knothole_deliveries_total: 4,
      'knothole_deliveries_ended_total{reason="taken"}': 1,
      'knothole_deliveries_ended_total{reason="revoked"}': 1,
      knothole_index_ready: 1,
      knothole_clock_alarm: 0,
    })
    for (const index of ["kept", "lost"]) {
      for (const round of ["before", "after"]) {
        const pages: InboxPage[] = []
        for (const person of [alice, bob]) {
          pages.push(await under.client.list(await under.client.login(person)))
        }
        const now = await scrape()
        const sum = (of: "bytes" | "deliveries") =>
          pages.reduce((total, { used }) => total + used[of], 0)
        expect(now.get("knothole_waiting_deliveries"), `${index} ${round}`).toBe(sum("deliveries"))
        expect(now.get("knothole_waiting_bytes")).toBe(sum("bytes"))
        expect(sum("deliveries")).toBe(2)
        expect(now.get("knothole_inboxes")).toBe(2)
        expect(now.get("knothole_open_uploads")).toBe(1)
        if (round === "after") continue
        await under.relay.stop()
        if (index === "lost") rmSync(join(under.folder, "index"), { recursive: true })
        under = await openRelay({ folder: under.folder, config })
        await under.relay.start()
      }
    }
  })

  it("name nobody and nothing of anybody, whatever is asked for", async () => {
    const alice = await personAt(0)
    await under.client.register(alice)
    const { id } = await under.client.send(makeDelivery([alice]))
    const session = await under.client.login(alice)
    await under.client.list(session)
    for (const path of ["/secret-path", `/v1/deliveries/${id}/nothing`, "/%ff"]) {
      await under.client.get(path, session)
    }
    await under.client.http.patch("/healthz")
    await under.client.http.propfind("/made-up")
    const text = await scrapeText()
    const { address, inboxId } = alice.bundle
    const secrets = [id, address, toHex(inboxId), session, "secret-path", "127.0.0.1", "PATCH"]
    for (const secret of [...secrets, "PROPFIND", under.folder]) expect(text).not.toContain(secret)
    expect(text).toMatch(
      /knothole_requests_total\{route="\/v1\/inbox",method="GET",status="200"\} 1\n/,
    )
    expect(text).toMatch(/knothole_requests_total\{route="unknown",method="other",status="404"\} 1/)
    expect(text).toMatch(/process_resident_memory_bytes/)
  })

  it("count right when scraped at the same time", async () => {
    const alice = await personAt(0)
    await under.client.register(alice)
    for (const _ of [1, 2, 3]) await under.client.send(makeDelivery([alice]))
    const all = await Promise.all(Array.from({ length: 10 }, () => scrape()))
    expect(all.map((each) => each.get("knothole_deliveries_total"))).toEqual(all.map(() => 3))
  })

  it("are on the operator's listener alone, which serves nothing else", async () => {
    const [open, operator] = [loggedUrl("listening"), loggedUrl("metrics_listening")]
    expect((await fetch(new URL("/metrics", open))).status).toBe(404)
    for (const path of ["/v1/relay", "/healthz", "/status", "/"]) {
      expect((await fetch(new URL(path, operator))).status).toBe(404)
    }
    expect(under.log.map(({ event }) => event)).not.toContain("metrics_open_to_others")
  })

  it("are served to other machines only under an alarm, and not where another listens", async () => {
    const second = await openRelay({ config: { operatorListen: { host: "0.0.0.0", port: 0 } } })
    await second.relay.start()
    expect(second.log).toContainEqual(
      expect.objectContaining({ event: "metrics_open_to_others", level: "alarm" }),
    )
    await second.remove()
    const port = Number(new URL(loggedUrl("metrics_listening")).port)
    const third = await openRelay({ config: { operatorListen: { host: "127.0.0.1", port } } })
    await expect(third.relay.start()).rejects.toThrow(/--operator-listen: .* cannot be listened on/)
    await third.remove()
  })
})
