import { once } from "node:events"
import http from "node:http"
import { afterEach, expect, test } from "vitest"
import { readingAgent, takeAtOnce } from "../../client/reading-agent.js"
import { patternBytes } from "./folders.js"

const body = patternBytes(3_000_000, 7)
const ended: (() => void)[] = []

afterEach(() => {
  for (const end of ended.splice(0)) end()
})

async function ask(): Promise<http.IncomingMessage> {
  const server = http.createServer((_, res) => res.end(body)).listen(0, "127.0.0.1")
  await once(server, "listening")
  const address = server.address()
  if (address === null || typeof address === "string") throw new Error("no port")
  const agent = readingAgent({ secure: false, keepAlive: true })
  ended.push(
    () => agent.destroy(),
    () => server.close(),
  )
  const request = http.get({ host: "127.0.0.1", port: address.port, agent })
  request.on("error", () => undefined)
  const [incoming] = (await once(request, "response")) as [http.IncomingMessage]
  return incoming
}

test("a reader that says nothing may keep every chunk", async () => {
  const chunks: Uint8Array[] = []
  for await (const chunk of await ask()) {
    if (chunk instanceof Uint8Array) chunks.push(chunk)
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
  expect(Buffer.concat(chunks).equals(body)).toBe(true)
})

test("a reader that copies each chunk at once gets every byte", async () => {
  const incoming = await ask()
  const copies: Uint8Array[] = []
  incoming.once("data", () => takeAtOnce(incoming))
  incoming.on("data", (chunk: Uint8Array) => copies.push(chunk.slice()))
  await once(incoming, "end")
  expect(Buffer.concat(copies).equals(body)).toBe(true)
})

test("a reader that promised to take chunks at once and pauses loses the connection, not bytes", async () => {
  const incoming = await ask()
  const failed = once(incoming, "error")
  incoming.once("data", () => {
    takeAtOnce(incoming)
    incoming.pause()
  })
  expect(String(await failed)).toMatch(/aborted|not taken at once/)
})
