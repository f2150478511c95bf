import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import path from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { startSocks5, startConnectProxy } from "../client/proxy-servers.js"
import { makeAuthority } from "../fronts/certificates.js"
import { type Started, Workshop } from "./processes.js"

const workshop = new Workshop()
let relay: Started

beforeAll(async () => {
  const args = ["--public-url", "http://abc.onion", "--registration", "open"]
  relay = await workshop.startRelay("relay", args)
})
afterAll(() => workshop.close())

const portOf = (url: string) => Number(new URL(url).port)

describe("the program behind a proxy", () => {
  it("opens an inbox, sends and receives through it, with nothing going around it", async () => {
    const proxy = await startSocks5({ port: portOf(relay.url) })
    const env = { KNOTHOLE_PROXY: `socks5://${proxy.host}` }
    const init = ["init", "--relay", "http://abc.onion", "--no-passphrase", "-q"]
    const opened = await workshop.run("ann", init, { env })
    expect(opened).toMatchObject({ code: 0 })
    const file = path.join(workshop.folder, "letter.txt")
    writeFileSync(file, "dear Ann")
    const address = opened.stdout.trim()
    expect(address).toMatch(/@abc\.onion$/)
    const flag = ["--proxy", `socks5h://${proxy.host}`]
    const sent = await workshop.run("bob", ["send", file, "-r", address, "-q", ...flag])
    expect(sent).toMatchObject({ code: 0 })
    const state = await workshop.run("bob", [...flag, "status", sent.stdout.trim(), "-q"])
    expect(state.stdout).toBe("waiting\n")
    const into = path.join(workshop.folder, "received")
    expect(await workshop.run("ann", ["receive", "-o", into], { env })).toMatchObject({ code: 0 })
    expect(readFileSync(path.join(into, "letter.txt"), "utf8")).toBe("dear Ann")
    expect(new Set(proxy.asked)).toEqual(new Set(["name abc.onion:80"]))
  })

  it("finds the proxy and its password in config.json, which init leaves there", async () => {
    const credentials = { user: "eve", password: "pw" }
    const proxy = await startConnectProxy({ port: portOf(relay.url), credentials })
    const home = path.join(workshop.folder, "eve")
    mkdirSync(home)
    const written = { v: 1, proxy: `http://eve:pw@${proxy.host}` }
    writeFileSync(path.join(home, "config.json"), JSON.stringify(written), { mode: 0o600 })
    const init = ["init", "--relay", "http://abc.onion", "--no-passphrase"]
    expect(await workshop.run("eve", init)).toMatchObject({ code: 0 })
    expect(JSON.parse(readFileSync(path.join(home, "config.json"), "utf8"))).toMatchObject(written)
    expect(await workshop.run("eve", ["inbox"])).toMatchObject({ code: 0 })
  })

  it("takes no password from a config.json that others can read, and needs none there to be private", async () => {
    const home = path.join(workshop.folder, "ida")
    const file = path.join(home, "config.json")
    mkdirSync(home)
    const init = ["init", "--relay", "http://abc.onion", "--no-passphrase"]
    writeFileSync(file, JSON.stringify({ v: 1, proxy: "http://ida:s3cret@127.0.0.1:9" }))
    chmodSync(file, 0o644)
    const open = await workshop.run("ida", init)
    expect(open).toMatchObject({ code: 2, stdout: "" })
    expect(open.stderr).toContain(`chmod 600 ${file}`)
    expect(open.stderr).not.toContain("s3cret")
    const proxy = await startConnectProxy({ port: portOf(relay.url) })
    writeFileSync(file, JSON.stringify({ v: 1, proxy: `http://${proxy.host}` }))
    expect(await workshop.run("ida", init)).toMatchObject({ code: 0 })
  })

  it("says what an onion service needs, and exits as unreachable", async () => {
    const ended = await workshop.run("carl", ["init", "--relay", "abc.onion", "--no-passphrase"])
    expect(ended.code).toBe(5)
    expect(ended.stderr).toContain("--proxy socks5h://127.0.0.1:9050")
  })

  it("trusts a relay's certificate, and no other, behind either kind of proxy", async () => {
    const { rootFile, whole } = makeAuthority(workshop.folder)
    const file = (name: string, text: string) => {
      const place = path.join(workshop.folder, name)
      writeFileSync(place, text, { mode: 0o600 })
      return place
    }
    const tls = ["--tls-cert", file("chain.pem", whole.certificate)]
    tls.push("--tls-key", file("key.pem", whole.key))
    const open = ["--public-url", "https://relay.test", "--registration", "open"]
    const secure = await workshop.startRelay("secure", [...open, ...tls])
    const port = portOf(secure.url)
    const init = ["init", "--relay", "https://relay.test", "--no-passphrase", "-q"]
    for (const [home, start] of [
      ["fay", startSocks5],
      ["gil", startConnectProxy],
    ] as const) {
      const proxy = await start({ port })
      const scheme = start === startSocks5 ? "socks5h" : "http"
      const env = { KNOTHOLE_PROXY: `${scheme}://${proxy.host}` }
      const refused = await workshop.run(home, init, { env })
      expect(refused.code).toBe(5)
      expect(refused.stderr).toContain("shows a certificate that does not verify")
      const trusting = { ...env, NODE_EXTRA_CA_CERTS: rootFile }
      expect(await workshop.run(home, init, { env: trusting })).toMatchObject({ code: 0 })
      expect(proxy.asked.every((asked) => /\brelay\.test:443$/.test(asked))).toBe(true)
    }
  })

  it("takes no password on the command line, and shows none of a proxy that cannot be meant", async () => {
    const named = ["inbox", "--proxy", "http://u:s3cret@127.0.0.1:9"]
    const ended = await workshop.run("carl", named)
    expect(ended.code).toBe(2)
    expect(ended.stderr).toContain("KNOTHOLE_PROXY")
    expect(ended.stderr).not.toContain("s3cret")
    const init = ["init", "--relay", "http://abc.onion", "--no-passphrase"]
    const env = { KNOTHOLE_PROXY: "ftp://u:s3cret@127.0.0.1:9" }
    const other = await workshop.run("carl", init, { env })
    expect(other.code).toBe(2)
    expect(other.stderr).not.toContain("s3cret")
  })
})
