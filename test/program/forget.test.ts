import { readdirSync, readFileSync, truncateSync } from "node:fs"
import path from "node:path"
import { afterAll, beforeAll, expect, it } from "vitest"
import {
  equalBytes,
  parseAddress,
  parseReceipt,
  parseRelayInfo,
  verifyReceipt,
} from "../../protocol/index.js"
import { OneRelay } from "./one-relay.js"

const one = new OneRelay()
let address: string

beforeAll(async () => {
  await one.start()
  address = await one.newInbox("recipient")
}, 60_000)

afterAll(() => one.workshop.close())

const kept = () => readdirSync(one.inFolder("sender", "state", "sent"))

it("forgetting a delivery erases what is kept of it and leaves the delivery alone", async () => {
  const id = await one.send("sender", one.aTree({ a: "1" }), address)
  const other = await one.send("sender", one.aTree({ b: "2" }), address)
  expect(kept().sort()).toEqual([id, other].sort())

  const forgotten = await one.run("sender", "forget", id.slice(0, 8))
  expect(forgotten.stdout).toBe("")
  expect(forgotten.stderr).toContain(`${id} is forgotten here`)
  expect(forgotten.stderr).toContain("nobody can take it back any more")
  expect(kept()).toEqual([other])

  for (const command of ["status", "revoke", "forget"]) {
    const later = await one.workshop.run("sender", [command, id])
    expect(later, command).toMatchObject({ code: 3, stdout: "" })
    expect(later.stderr).toContain(`nothing here is known of having sent ${id}`)
    expect(later.stderr).toContain("or it was forgotten here")
  }
  const received = await one.run("recipient", "receive", id, "-o", one.inFolder("received"))
  expect(readFileSync(path.join(received.stdout.trim(), "a"), "utf8")).toBe("1")
})

it("what was forgotten is told to programs, and needs no relay", async () => {
  const id = await one.send("sender", one.aTree({ a: "1" }), address)
  const [forgotten, done] = await one.events("sender", "forget", id)
  expect(forgotten).toEqual({ v: 1, event: "forgotten", id })
  expect(done).toEqual({ v: 1, event: "done", ok: true, exit: 0 })

  const later = await one.send("sender", one.aTree({ a: "1" }), address)
  await one.stop()
  await one.run("sender", "forget", later)
  await one.startAgain()
})

it("a record that is damaged can still be forgotten, and hinders no other", async () => {
  const id = await one.send("sender", one.aTree({ a: "1" }), address)
  const other = await one.send("sender", one.aTree({ b: "2" }), address)
  truncateSync(one.inFolder("sender", "state", "sent", id), 20)
  expect((await one.run("sender", "status", other.slice(0, 10))).stdout).toBe("waiting\n")
  const damaged = await one.workshop.run("sender", ["status", id])
  expect(damaged).toMatchObject({ code: 4 })
  expect(damaged.stderr).toContain(one.inFolder("sender", "state", "sent", id))
  await one.run("sender", "forget", id)
  expect(kept()).not.toContain(id)
})

it("a receipt file holds one receipt a recipient, which anybody can check with the relay's key", async () => {
  const second = await one.newInbox("second")
  const receipts = one.inFolder("receipts")
  await one.send("sender", one.aTree({ a: "1" }), address, "-r", second, "--receipt", receipts)

  const bytes = readFileSync(receipts)
  const { signingKey } = parseRelayInfo(await (await fetch(`${one.url}/v1/relay`)).json())
  expect(bytes.length).toBe(2 * 172)
  for (const [index, recipient] of [address, second].entries()) {
    const receipt = bytes.subarray(172 * index, 172 * (index + 1))
    expect(verifyReceipt(receipt, signingKey)).toBe(true)
    const { inboxId } = parseReceipt(receipt)
    expect(equalBytes(inboxId, parseAddress(recipient).inboxId)).toBe(true)
  }
  const record = readFileSync(one.inFolder("sender", "state", "sent", kept().at(-1) ?? ""), "utf8")
  expect(bytes.includes(Buffer.from(JSON.parse(record).deleteCapability, "base64url"))).toBe(false)
})
