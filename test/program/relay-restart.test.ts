// A relay that restarts has new keys for its challenges: those of minutes are never on its disk.
import { once } from "node:events"
import path from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { Workshop } from "./processes.js"
import type { Started } from "./processes.js"

const workshop = new Workshop()
let relay: Started
let front: string
/** Run once, when the next login proof is on its way. */
let beforeProof: (() => Promise<void>) | undefined
let proofs = 0

beforeAll(async () => {
  front = await workshop.serveFront({
    relay: () => relay.url,
    hold: ({ method = "", url = "" }) => {
      const isRegistration = method === "PUT" && url.startsWith("/v1/inboxes/")
      if (!isRegistration && `${method} ${url}` !== "POST /v1/sessions") return undefined
      proofs += 1
      const work = beforeProof?.()
      beforeProof = undefined
      return work
    },
  })
  relay = await start()
}, 60_000)

afterAll(async () => {
  await workshop.close()
})

function start(): Promise<Started> {
  return workshop.startRelay("relay", ["--public-url", front])
}

async function restart(): Promise<void> {
  const gone = once(relay.child, "exit")
  relay.child.kill("SIGTERM")
  await gone
  relay = await start()
  // A relay that listens may still be starting, and what it answers then says nothing of the proof.
  while ((await (await fetch(`${relay.url}/healthz`)).text()) !== "ok\n");
}

describe("a proof made just before the relay restarted", () => {
  it("of one who opens an inbox is made again, once, and the inbox opened", async () => {
    beforeProof = restart
    proofs = 0
    const init = await workshop.run("first", ["init", "--relay", front, "--no-passphrase"])
    expect(init).toMatchObject({ code: 0 })
    expect(proofs).toBe(2)
  })

  it("of one who picks up is made again, once, and the delivery received", async () => {
    const init = await workshop.run("second", ["init", "--relay", front, "--no-passphrase"])
    const note = ["send", "--note", "still here", "-r", init.stdout.trim()]
    expect(await workshop.run("sender", note)).toMatchObject({ code: 0 })
    beforeProof = restart
    proofs = 0
    const into = path.join(workshop.folder, "into")
    const received = await workshop.run("second", ["receive", "-o", into])
    expect(received).toMatchObject({ code: 0 })
    expect(received.stderr).toContain("still here")
    expect(proofs).toBe(2)
  })
})
