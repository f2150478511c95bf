// The program before a relay, or a stranger's delivery, that says what no honest one would.
import { writeFileSync } from "node:fs"
import path from "node:path"
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest"
import { type RefusalCode, RelayRefusal } from "../../protocol/index.js"
import { patternBytes, readTree, treeOf } from "../client/folders.js"
import { makeDelivery } from "../client/made-delivery.js"
import { found, refusalAnswer, SmallRelay } from "../client/small-relay.js"
import { Workshop } from "./processes.js"

const workshop = new Workshop()
const relay = new SmallRelay()

beforeAll(async () => {
  await relay.start()
  const init = await workshop.run("ann", ["init", "--relay", relay.origin, "--no-passphrase"])
  expect(init, init.stderr).toMatchObject({ code: 0 })
}, 60_000)

afterAll(async () => {
  await relay.stop()
  await workshop.close()
})

it("times beyond every calendar are shown as the last that can be written", async () => {
  const [inbox] = relay.inboxes.values()
  const { id } = await makeDelivery({
    relay,
    recipient: found(inbox).bundle,
    files: { late: patternBytes(100, 1) },
    change: (entries) => entries.map((e) => ({ ...e, mtimeMs: Number.MAX_SAFE_INTEGER })),
    expiresMs: Number.MAX_SAFE_INTEGER,
  })
  const last = "9999-12-31T23:59:59.999Z"
  const listed = await workshop.run("ann", ["inbox", "--json"])
  expect(JSON.parse(listed.stdout)).toMatchObject([{ id, expires: last }])
  const shown = await workshop.run("ann", ["show", id, "--json"])
  expect(JSON.parse(shown.stdout)).toMatchObject({ expires: last, listing: [{ modified: last }] })
  expect(await workshop.run("ann", ["show", id])).toMatchObject({ code: 0 })
  const into = path.join(workshop.folder, "into")
  const received = await workshop.run("ann", ["receive", id, "-o", into, "--times"])
  expect(received, received.stderr).toMatchObject({ code: 0 })
  expect(readTree(into)).toEqual(treeOf({ late: patternBytes(100, 1) }))
})

/** How a relay would speak to its users in the program's own name. */
const forged = "no room\nknothole: note: everything was delivered\n\u001B[31mDelivery id 00"
type Change = SmallRelay["change"]

async function runAt(change: Change, args: (to: string) => string[]): Promise<string> {
  const file = path.join(workshop.folder, "file.txt")
  writeFileSync(file, "hello")
  const to = `${found([...relay.inboxes.keys()][0])}@${relay.host}`
  relay.change = change
  onTestFinished(() => {
    relay.change = (_, answer) => answer
  })
  const { code, stdout, stderr } = await workshop.run("bob", args(to))
  expect([1, 3, 4, 5, 8], stderr).toContain(code)
  return stdout + stderr
}

function send(to: string): string[] {
  return ["send", path.join(workshop.folder, "file.txt"), "-r", to]
}

function refusing(path: RegExp, code: RefusalCode): Change {
  const options = { detail: forged, extras: { origins: [forged], address: forged } }
  const refusal = refusalAnswer(new RelayRefusal(code, options))
  return (asked, answer) => (path.test(asked.path) ? refusal : answer)
}

/** The relay's own account of itself, with forged words in the place of one. */
function lying(find: string): Change {
  return (asked, answer) => {
    if (asked.path !== "/v1/relay") return answer
    const text = Buffer.from(answer.body).toString()
    expect(text).toContain(find)
    return { ...answer, body: Buffer.from(text.replace(find, JSON.stringify(forged).slice(1, -1))) }
  }
}

function expectOwnLines(shown: string): void {
  expect(shown).not.toMatch(/^knothole: note|^Delivery id/m)
  expect(shown).not.toContain("\u001B")
}

describe("what a relay says begins no line of the program's, and steers no terminal", () => {
  it("in a refusal", async () => {
    for (const [place, code] of [
      [/uploads$/, "relay_full"],
      [/uploads$/, "wrong_origin"],
      [/inboxes/, "no_such_inbox"],
    ] as const) {
      const shown = await runAt(refusing(place, code), send)
      expect(shown).toMatch(/^knothole: /m)
      expectOwnLines(shown)
    }
  })

  it("in what it is asked again for", async () => {
    const shown = await runAt(refusing(/v1\/relay$/, "busy"), send)
    expect(shown).toMatch(/^trying again: /m)
    expectOwnLines(shown)
    const plain = new RelayRefusal("busy", { detail: "The relay has delivered it" })
    const other = await runAt(() => refusalAnswer(plain), send)
    expect(other).not.toMatch(/^The relay/m)
  })

  it("in its account of itself, to those who send and to doctor", async () => {
    for (const find of ["0.1.0", relay.origin]) {
      expectOwnLines(await runAt(lying(find), send))
      const examined = await runAt(lying(find), () => ["doctor", relay.origin])
      expect(examined).toMatch(/^not_a_relay: /m)
      expectOwnLines(examined)
    }
  })
})

it("doctor tries nothing that no client would ask for, and ends", async () => {
  for (const [limit, value] of [
    ["request_bytes", Number.MAX_SAFE_INTEGER],
    ["long_poll_seconds", 1_000_000],
  ] as const) {
    const offer: Change = (asked, answer) => {
      if (asked.path !== "/v1/relay") return answer
      const info: { limits: object } = JSON.parse(Buffer.from(answer.body).toString())
      const body = { ...info, limits: { ...info.limits, [limit]: value } }
      return { ...answer, body: Buffer.from(JSON.stringify(body)) }
    }
    const examined = await runAt(offer, () => ["doctor", relay.origin])
    expect(examined).not.toContain("not_a_relay")
    expect(examined).not.toContain("This should not happen")
    const asked = relay.asked.filter((one) => one.path.startsWith("/v1/probe"))
    expect(Math.max(...asked.map(({ body }) => body.length))).toBeLessThanOrEqual(2 ** 26 + 2 ** 20)
    for (const one of asked) {
      const wait = /wait=([0-9]+)/.exec(one.path)?.[1] ?? "0"
      expect(Number(wait)).toBeLessThanOrEqual(45)
    }
  }
})
