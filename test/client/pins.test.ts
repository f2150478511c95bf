import { readdirSync, statSync } from "node:fs"
import path from "node:path"
import { describe, expect, test } from "vitest"
import { forgetPin, openState, Untrustworthy } from "../../client/index.js"
import { checkPin } from "../../client/pins.js"
import { scratchFolder } from "./folders.js"

const origin = "https://relay.example"
const key = new Uint8Array(32).fill(1)
const otherKey = new Uint8Array(32).fill(2)

describe("a relay's signing key", () => {
  test("is kept from the first meeting and refused when it changes", async () => {
    const state = openState(scratchFolder())
    await checkPin(state, origin, key)
    await checkPin(state, origin, key)
    await expect(checkPin(state, origin, otherKey)).rejects.toThrow(Untrustworthy)
    await expect(checkPin(state, origin, otherKey)).rejects.toThrow(/ask the operator/)
    await checkPin(state, origin, key)
  })

  test("is each origin's own", async () => {
    const state = openState(scratchFolder())
    await checkPin(state, origin, key)
    await checkPin(state, `${origin}:8443`, otherKey)
    await expect(checkPin(state, origin, otherKey)).rejects.toThrow(Untrustworthy)
  })

  test("may change once the owner has said so", async () => {
    const state = openState(scratchFolder())
    await checkPin(state, origin, key)
    await forgetPin({ relay: origin, state })
    await checkPin(state, origin, otherKey)
    await expect(checkPin(state, origin, key)).rejects.toThrow(Untrustworthy)
  })

  test("is the same for all who meet the relay at the same moment", async () => {
    const state = openState(scratchFolder())
    const keys = Array.from({ length: 16 }, (_, i) => (i % 2 === 0 ? key : otherKey))
    const met = await Promise.allSettled(keys.map((one) => checkPin(state, origin, one)))
    const accepted = new Set(keys.filter((_, i) => met[i]?.status === "fulfilled"))
    expect(accepted.size).toBe(1)
  })

  test("lies in a file of the owner's alone", async () => {
    const state = openState(scratchFolder())
    await checkPin(state, origin, key)
    const folder = path.join(state.folder, "pins")
    const names = readdirSync(folder)
    expect(names).toHaveLength(1)
    expect(statSync(path.join(folder, names[0] ?? "")).mode & 0o777).toBe(0o600)
  })
})
