import { readFileSync } from "node:fs"
import { describe, expect, it } from "vitest"
import { ConfigError, configSettings, type ConfigSources, loadConfig } from "../../server/index.js"
import { version } from "../../server/version.js"

const home = { HOME: "/home/somebody" }

function load(flags: ConfigSources["flags"] = {}, env: ConfigSources["env"] = home) {
  return loadConfig({ flags, env })
}

function problemsOf(sources: ConfigSources): readonly string[] {
  try {
    loadConfig(sources)
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
  return []
}

describe("the relay's settings", () => {
  it("have the defaults the documents name", () => {
    expect(load()).toEqual({
      listen: { host: "127.0.0.1", port: 8787 },
      dataFolder: "/home/somebody/.local/share/knothole/relay",
      publicOrigins: [],
      registration: "open",
      keepMs: 14 * 86_400_000,
      deliveryBytes: 10 * 1024 ** 3,
      inboxBytes: 20 * 1024 ** 3,
      inboxDeliveries: 1000,
      diskHeadroomBytes: undefined,
      requestBytes: 4 * 1024 ** 2,
    })
  })

  it("offer requests that stock proxies let through as soon as there may be a proxy", () => {
    const { requestBytes } = load({ publicUrl: ["https://drop.example.org"] })
    expect(requestBytes).toBe(1024 ** 2)
  })

  it("put the data where the environment says that data goes", () => {
    expect(load({}, { ...home, XDG_DATA_HOME: "/data" }).dataFolder).toBe("/data/knothole/relay")
    expect(load({}, { ...home, KNOTHOLE_HOME: "/kh" }).dataFolder).toBe("/kh/relay")
    expect(load({}, { ...home, KNOTHOLE_DATA: "/d" }).dataFolder).toBe("/d")
    expect(load({ data: "/flag" }, { KNOTHOLE_DATA: "/d" }).dataFolder).toBe("/flag")
    expect(problemsOf({ flags: {}, env: {} })).toEqual([expect.stringContaining("--data")])
  })

  it("read sizes, durations and addresses", () => {
    expect(
      load({
        listen: "[::1]:0",
        deliveryLimit: "64GiB",
        inboxLimit: "1 TiB",
        requestSize: "16mib",
        diskHeadroom: "0",
        keep: "90m",
        inboxDeliveries: "5",
      }),
    ).toMatchObject({
      listen: { host: "::1", port: 0 },
      deliveryBytes: 64 * 1024 ** 3,
      inboxBytes: 1024 ** 4,
      requestBytes: 16 * 1024 ** 2,
      diskHeadroomBytes: 0,
      keepMs: 90 * 60_000,
      inboxDeliveries: 5,
    })
  })

  it("open registration on loopback and close it elsewhere, unless told", () => {
    const local = ["http://127.0.0.1:8787", "http://localhost", "http://[::1]:1"]
    expect(load({ publicUrl: local }).registration).toBe("open")
    expect(load({ publicUrl: [...local, "https://relay.test"] }).registration).toBe("closed")
    expect(load({ publicUrl: "https://relay.test", registration: "open" }).registration).toBe(
      "open",
    )
    expect(load({ registration: "closed" }).registration).toBe("closed")
    const env = { ...home, KNOTHOLE_PUBLIC_URL: "https://a.test https://b.test:444" }
    expect(load({}, env)).toMatchObject({
      publicOrigins: ["https://a.test", "https://b.test:444"],
      registration: "closed",
    })
  })

  it("name the URL that others reach the relay by, as soon as others can", () => {
    for (const listen of ["0.0.0.0:8787", "[::]:8787", "relay.test:80"]) {
      expect(problemsOf({ flags: { listen }, env: home })).toEqual([
        expect.stringContaining("--public-url"),
      ])
      expect(load({ listen, publicUrl: "https://relay.test" }).registration).toBe("closed")
    }
  })

  it("report every problem at once, each with its flag or variable and what is wrong", () => {
    const problems = problemsOf({
      flags: {
        listen: "8787",
        publicUrl: ["http://relay.test", "https://relay.test/path", "nonsense"],
        registration: "maybe",
        keep: "31d",
        deliveryLimit: "65GiB",
        requestSize: "512KiB",
        inboxDeliveries: "0",
        unheardOf: "1",
      },
      env: { ...home, KNOTHOLE_INBOX_LIMIT: "lots" },
    })
    expect(problems).toHaveLength(11)
    for (const [at, start] of [
      "--listen",
      "--public-url",
      "--public-url",
      "--public-url",
      "--registration",
      "--keep",
      "--delivery-limit",
      "KNOTHOLE_INBOX_LIMIT",
      "--inbox-deliveries",
      "--request-size",
      "unheardOf",
    ].entries()) {
      expect(problems[at]).toMatch(new RegExp(`^${start}`))
    }
  })

  it("each have a flag, a variable and a meaning of their own", () => {
    for (const key of ["name", "flag", "env", "meaning"] as const) {
      expect(new Set(configSettings.map((one) => one[key])).size).toBe(configSettings.length)
    }
    expect(configSettings.filter(({ repeatable }) => repeatable).map(({ flag }) => flag)).toEqual([
      "--public-url",
    ])
  })

  it("go with the version that the package has", () => {
    const manifest = JSON.parse(
      readFileSync(new URL("../../package.json", import.meta.url), "utf8"),
    )
    expect(version).toBe(manifest.version)
  })
})
