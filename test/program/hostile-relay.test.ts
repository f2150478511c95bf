// The program before a relay, or a stranger's delivery, that says what no honest one would.
import path from "node:path"
import { afterAll, beforeAll, expect, it } from "vitest"
import { patternBytes, readTree, treeOf } from "../client/folders.js"
import { makeDelivery } from "../client/made-delivery.js"
import { found, SmallRelay } from "../client/small-relay.js"
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
