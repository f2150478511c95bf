// A relay that is asked to end while people are at it.
import { once } from "node:events"
import { Agent, request } from "node:http"
import { connect } from "node:net"
import path from "node:path"
import { text } from "node:stream/consumers"
import { afterAll, describe, expect, it } from "vitest"
import { Workshop } from "./processes.js"

const workshop = new Workshop()

afterAll(async () => {
  await workshop.close()
})

/** What was answered, whole; undefined where nobody was there to answer. */
async function ask(url: string, agent: Agent | false = false): Promise<string | undefined> {
  const asking = request(url, { agent })
  asking.end()
  let answer
  try {
    ;[answer] = await once(asking, "response")
  } catch {
    return undefined
  }
  return `${answer.statusCode} ${await text(answer)}`
}

describe("a relay that gets SIGTERM", () => {
  it("answers what it was asked, sends away who keeps asking, and ends with 0 as soon as it can", async () => {
    const relay = await workshop.startRelay("busy")
    const asked = await Promise.all(
      Array.from({ length: 8 }, async () => {
        const agent = new Agent({ keepAlive: true, maxSockets: 1 })
        await ask(`${relay.url}/v1/relay`, agent)
        return agent
      }),
    )
    const isEnded = new AbortController()
    void relay.ended.then(() => isEnded.abort())
    const slow = ask(`${relay.url}/v1/probe?pause=1500`)
    const answers: string[] = []
    const keepAsking = async (agent: Agent): Promise<void> => {
      for (;;) {
        const answer = await ask(`${relay.url}/v1/relay`, agent)
        if (answer === undefined) return agent.destroy()
        expect(answer).toMatch(/^200 \{.*\}$/)
        answers.push(answer)
      }
    }
    const busy = asked.map(keepAsking)
    while (answers.length < 100) await new Promise((resolve) => setImmediate(resolve))
    const beganMs = performance.now()
    relay.child.kill("SIGTERM")
    await Promise.all(busy)
    // The rest of the answer that was under way comes whole; nobody new is let in meanwhile.
    expect(await ask(`${relay.url}/v1/relay`)).toBe(undefined)
    expect((await slow)?.length).toBe("200 ".length + 32 * 1024)
    expect(await relay.ended).toMatchObject({ code: 0 })
    // Long before it would cut anybody off.
    expect(performance.now() - beganMs).toBeLessThan(9_000)
  })

  it("twice ends at once, whoever is at it, and the next one starts as if nothing had been", async () => {
    const relay = await workshop.startRelay("twice")
    const init = ["init", "--relay", relay.url, "--no-passphrase"]
    const address = (await workshop.run("alice", init)).stdout.trim()
    const note = ["send", "--note", "still here", "-r", address]
    expect(await workshop.run("bob", note)).toMatchObject({ code: 0 })
    const { hostname, port } = new URL(relay.url)
    const socket = connect(Number(port), hostname)
    socket.on("error", () => undefined)
    socket.write("PUT /v1/probe HTTP/1.1\r\nHost: relay.test\r\nContent-Length: 1000\r\n")
    socket.write("Content-Type: application/octet-stream\r\n\r\nx")
    expect(await ask(`${relay.url}/v1/relay`)).toMatch(/^200 /)
    relay.child.kill("SIGTERM")
    await relay.stderr.waitFor(/"event":"stopping"/)
    relay.child.kill("SIGTERM")
    const [code, signal] = await once(relay.child, "exit")
    expect([code, signal]).toEqual([null, "SIGTERM"])
    socket.destroy()
    await workshop.startRelay("twice", ["--listen", `127.0.0.1:${port}`])
    const into = path.join(workshop.folder, "into")
    const received = await workshop.run("alice", ["receive", "-o", into])
    expect(received).toMatchObject({ code: 0 })
    expect(received.stderr).toContain("still here")
  })
})
