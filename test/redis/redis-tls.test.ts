/** The built relay on a Redis by TLS, as a user with a password. */
import path from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { writeSelfSigned } from "../fronts/certificates.js"
import { Workshop } from "../program/processes.js"
import { hasRedis, type RedisServer, RedisServers, until } from "./servers.js"

describe.runIf(hasRedis("a Redis by TLS"))("a Redis by TLS", () => {
  const servers = new RedisServers()
  const workshop = new Workshop()
  const cert = path.join(workshop.folder, "redis.pem")
  const key = path.join(workshop.folder, "redis.key")
  let server: RedisServer
  let url = ""

  beforeAll(async () => {
    writeSelfSigned({ cert, key }, { name: "localhost", days: 2 })
    server = await servers.server({
      "tls-cert-file": cert,
      "tls-key-file": key,
      "tls-auth-clients": "no",
    })
    await server.admin.call("acl", "setuser", "relay", "on", ">pass/word", "~*", "&*", "+@all")
    const port = await servers.openTls(server)
    url = `rediss://relay:pass%2Fword@localhost:${port}`
  })

  afterAll(async () => {
    await workshop.close()
    await servers.close()
  })

  it("is used where its certificate is trusted", async () => {
    const env = { KNOTHOLE_REDIS: url, NODE_EXTRA_CA_CERTS: cert }
    const relay = await workshop.startRelay("trusting", [], env)
    const answer = await fetch(`${relay.url}/healthz`)
    expect(answer.status).toBe(200)
    // Its index is there when all else has been done that a start does.
    await until(async () => (await server.admin.keys("knothole:*marker*")).length === 1)
    expect(relay.stderr.text).not.toContain("word")
  })

  it("is refused where its certificate is not, in words that name the way out", async () => {
    const where = ["--data", path.join(workshop.folder, "data"), "--listen", "127.0.0.1:0"]
    const ended = await workshop.run("wary", ["relay", ...where], { env: { KNOTHOLE_REDIS: url } })
    expect(ended.code).toBe(1)
    expect(ended.stderr).toContain("NODE_EXTRA_CA_CERTS")
    expect(ended.stderr).not.toContain("word")
  })
})
