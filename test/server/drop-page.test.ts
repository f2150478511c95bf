import { readFileSync } from "node:fs"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { encodeAddress, type Identity, random } from "../../protocol/index.js"
import { ManualClock } from "./manual-clock.js"
import { personAt } from "./people.js"
import { openRelay, type RelayUnderTest } from "./relay-under-test.js"

describe("the page that an inbox's link leads to", () => {
  let under: RelayUnderTest
  let alice: Identity

  beforeEach(async () => {
    under = await openRelay({ ports: { clock: new ManualClock() } })
    alice = await personAt(0)
    await under.client.register(alice)
  })

  afterEach(() => under.remove())

  it("says what this is, and the command that sends there", async () => {
    const { address } = alice.bundle
    const page = await under.client.get(`/to/${address}`).expect(200)
    expect(page.headers["content-type"]).toBe("text/html; charset=utf-8")
    expect(page.text).toContain(`knothole send FILE -r ${address}@relay.test`)
    const readme = readFileSync(new URL("../../README.md", import.meta.url), "utf8")
    const install = page.text.replaceAll("&#38;", "&").match(/^(<pre>)?npm .*$/gm) ?? []
    expect(install).toHaveLength(2)
    for (const line of install) expect(readme).toContain(line.replace(/<\/?pre>/g, ""))
  })

  it("runs nothing, fetches nothing, and leads to nobody else", async () => {
    const { headers, text } = await under.client.get(`/to/${alice.bundle.address}`).expect(200)
    expect(headers["content-security-policy"]).toBe("sandbox; default-src 'none'")
    expect(text).not.toMatch(/<(script|style|link|img|form|iframe|base)\b|\b(src|href|on\w+)\s*=/i)
    expect(text).not.toMatch(/:\/\//)
  })

  it("is the same for an inbox that nobody has, and leaves no line in the log", async () => {
    const before = under.log.length
    const stranger = encodeAddress(random(20))
    const [known, unknown] = [alice.bundle.address, stranger]
    const pages = [await under.client.get(`/to/${known}`), await under.client.get(`/to/${unknown}`)]
    const [one, other] = pages.map(({ status, headers, text }) => ({ status, headers, text }))
    expect(one?.status).toBe(200)
    expect(other?.text.replaceAll(unknown, known)).toBe(one?.text)
    expect({ ...other, text: "" }).toEqual({ ...one, text: "" })
    expect(under.log).toHaveLength(before)
  })

  it("shows nothing that is no address", async () => {
    const { address } = alice.bundle
    const script = "<script>alert(1)</script>"
    const mistyped = address.replace(/.$/, (last) => (last === "q" ? "p" : "q"))
    for (const text of [mistyped, `${address}@relay.test`, "knot1", script]) {
      const reply = await under.client.get(`/to/${encodeURIComponent(text)}`)
      expect([text, reply.status, reply.body.code]).toEqual([text, 404, "not_found"])
      expect(reply.headers["content-type"]).toBe("application/problem+json")
    }
    await under.client.get("/to/").expect(404)
  })
})
