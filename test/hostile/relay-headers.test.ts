import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { encodeBearer, type Identity } from "../../protocol/index.js"
import { personAt } from "../server/people.js"
import { makeDelivery, openRelay, type RelayUnderTest } from "../server/relay-under-test.js"

const methods = ["get", "put", "post", "delete", "options", "head", "patch"] as const
type Method = (typeof methods)[number]

/** On every answer there is, with exactly these values. */
const common: Readonly<Record<string, string>> = {
  "access-control-allow-origin": "*",
  "access-control-expose-headers": "Content-Range, Retry-After, Accept-Ranges",
  "cache-control": "no-store",
  "content-security-policy": "sandbox; default-src 'none'",
  "cross-origin-resource-policy": "cross-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
}

/** What Node adds. */
const transport = ["connection", "date", "keep-alive"]

/** What an answer may have besides, by what kind of answer it is. */
const allowed: Readonly<Record<string, readonly string[]>> = {
  empty: ["connection", "date", "keep-alive"],
  json: ["content-length", "content-type"],
  page: ["content-length", "content-type"],
  problem: ["content-length", "content-type"],
  data: ["content-disposition", "content-length", "content-type"],
}

describe("every route with every method", () => {
  let under: RelayUnderTest
  let alice: Identity
  let session: string
  let capability: string
  let id: string
  let table: Readonly<Record<string, readonly Method[]>>

  beforeEach(async () => {
    under = await openRelay()
    alice = await personAt(0)
    await under.client.register(alice)
    const sent = await under.client.send(makeDelivery([alice]))
    session = await under.client.login(alice)
    capability = encodeBearer(sent.deleteCap)
    ;({ id } = sent)
    table = {
      "/healthz": ["get"],
      [`/to/${alice.bundle.address}`]: ["get"],
      "/v1/relay": ["get"],
      "/v1/probe": ["get", "put"],
      "/v1/sessions/challenge": ["post"],
      [`/v1/inboxes/${alice.bundle.address}`]: ["get", "put", "delete"],
      "/v1/sessions": ["get", "post"],
      [`/v1/sessions/${"0".repeat(32)}`]: ["delete"],
      "/v1/uploads": ["post"],
      [`/v1/uploads/${id}`]: ["get", "delete"],
      [`/v1/uploads/${id}/extend`]: ["post"],
      [`/v1/uploads/${id}/parts/0`]: ["put"],
      [`/v1/uploads/${id}/finish`]: ["post"],
      "/v1/inbox": ["get"],
      [`/v1/deliveries/${id}/header`]: ["get"],
      [`/v1/deliveries/${id}/envelope`]: ["get"],
      [`/v1/deliveries/${id}/manifest`]: ["get"],
      [`/v1/deliveries/${id}/leaves`]: ["get"],
      [`/v1/deliveries/${id}/body`]: ["get"],
      [`/v1/deliveries/${id}/parts/0`]: ["get"],
      [`/v1/deliveries/${id}/status`]: ["get"],
      [`/v1/deliveries/${id}`]: ["delete"],
    }
  })

  afterEach(() => under.remove())

  it("T51: answers with the allowed headers and no other, and with 405 where there is nothing to do", async () => {
    for (const [path, allowedMethods] of Object.entries(table)) {
      for (const method of methods) {
        const reply = await under.client.http[method](path)
        const where = `${method} ${path}`
        const headers: Record<string, string> = reply.headers
        if (method === "options") {
          expect([where, reply.status]).toEqual([where, 204])
          const list = [...allowedMethods.map((each) => each.toUpperCase()), "OPTIONS"].join(", ")
          expect(headers).toMatchObject({
            allow: list,
            "access-control-allow-methods": list,
            "access-control-allow-headers": "Authorization, Content-Type, Range, Idempotency-Key",
            "access-control-max-age": "86400",
          })
          expectHeaders(where, headers, [
            "allow",
            "access-control-allow-methods",
            "access-control-allow-headers",
            "access-control-max-age",
          ])
        } else if (allowedMethods.includes(method)) {
          expect([where, reply.status]).not.toEqual([where, 405])
          expectHeaders(where, headers, where === "get /v1/probe" ? ["accept-ranges"] : [])
        } else {
          expect([where, reply.status]).toEqual([where, 405])
          expect(headers["allow"]).toBe(
            [...allowedMethods.map((each) => each.toUpperCase()), "OPTIONS"].join(", "),
          )
          expectHeaders(where, headers, ["allow"])
        }
      }
    }
  })

  it("T51: the same holds for answers that give something, and for a range", async () => {
    for (const path of Object.keys(table)) {
      if (!/^\/v1\/(inbox$|deliveries\/.*\/)/.test(path)) continue
      const reply = await under.client.get(path, path.endsWith("status") ? capability : session)
      expect([path, reply.status]).toEqual([path, 200])
      expectHeaders(path, reply.headers, path.endsWith("body") ? ["accept-ranges"] : [])
    }
    const body = `/v1/deliveries/${id}/body`
    const part = await under.client.get(body, session).set("Range", "bytes=0-9")
    expectHeaders(body, part.headers, ["accept-ranges", "content-range"])
    const beyond = await under.client.get(body, session).set("Range", "bytes=9999999-")
    expectHeaders(body, beyond.headers, ["content-range"])
  })

  it("T51: a path that is not there is 404 for every method, with the same headers", async () => {
    for (const path of [
      "/",
      "/v1",
      "/v1/",
      "/v1/relay/",
      "/V1/relay",
      "/metrics",
      "/v1/deliveries",
      "/.env",
    ]) {
      for (const method of methods) {
        const reply = await under.client.http[method](path)
        expect([method, path, reply.status]).toEqual([method, path, 404])
        expectHeaders(`${method} ${path}`, reply.headers)
      }
    }
  })
})

function kindOf(headers: Record<string, string>): string {
  const type = headers["content-type"] ?? ""
  if (type === "application/octet-stream") return "data"
  if (type === "application/problem+json") return "problem"
  if (type === "text/html; charset=utf-8") return "page"
  return type === "" ? "empty" : "json"
}

function expectHeaders(where: string, headers: Record<string, string>, more: string[] = []): void {
  const kind = kindOf(headers)
  for (const [name, value] of Object.entries(common)) {
    expect([where, name, headers[name]]).toEqual([where, name, value])
  }
  const known = new Set([...Object.keys(common), ...transport, ...(allowed[kind] ?? []), ...more])
  const others = Object.keys(headers).filter((name) => !known.has(name))
  expect([where, others]).toEqual([where, []])
  if (kind === "data") expect(headers["content-disposition"]).toBe("attachment")
  // No banner of any kind.
  expect(headers).not.toHaveProperty("server")
  expect(headers).not.toHaveProperty("x-powered-by")
  expect(headers).not.toHaveProperty("etag")
}
