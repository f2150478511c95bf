import { readFileSync } from "node:fs"
import { describe, expect, it } from "vitest"
import { parseRelayArgs } from "../../client/program/relay.js"
import {
  ConfigError,
  configSettings,
  type ConfigSources,
  loadConfig,
  showConfig,
} from "../../server/index.js"
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
      operatorListen: undefined,
      operatorSocket: undefined,
      publicOrigins: [],
      registration: "open",
      keepMs: 14 * 86_400_000,
      keepMaxMs: 30 * 86_400_000,
      deliveryBytes: 10 * 1024 ** 3,
      inboxBytes: 20 * 1024 ** 3,
      inboxDeliveries: 1000,
      diskHeadroomBytes: undefined,
      requestBytes: 4 * 1024 ** 2,
      tls: undefined,
      trustedProxies: undefined,
      logLevel: "info",
    })
  })

  it("offer requests that stock proxies let through as soon as there may be a proxy", () => {
    const { requestBytes } = load({ publicUrl: ["https://drop.example.org"] })
    expect(requestBytes).toBe(1024 ** 2)
  })

  it("let no sender have a delivery kept longer than the operator said, unless that is said as well", () => {
    const dayMs = 86_400_000
    expect(load({ keep: "2d" })).toMatchObject({ keepMs: 2 * dayMs, keepMaxMs: 2 * dayMs })
    const both = load({ keep: "2d", keepMax: "9d" })
    expect(both).toMatchObject({ keepMs: 2 * dayMs, keepMaxMs: 9 * dayMs })
    const most = load({ keepMax: "9d" })
    expect(most).toMatchObject({ keepMs: 9 * dayMs, keepMaxMs: 9 * dayMs })
    expect(load({ keepMax: "20d" })).toMatchObject({ keepMs: 14 * dayMs, keepMaxMs: 20 * dayMs })
  })

  it("put the data where the environment says that data goes", () => {
    expect(load({}, { ...home, XDG_DATA_HOME: "/data" }).dataFolder).toBe("/data/knothole/relay")
    expect(load({}, { ...home, KNOTHOLE_HOME: "/kh" }).dataFolder).toBe("/kh/relay")
    expect(load({}, { ...home, KNOTHOLE_DATA: "/d" }).dataFolder).toBe("/d")
    expect(load({ data: "/flag" }, { KNOTHOLE_DATA: "/d" }).dataFolder).toBe("/flag")
    // The XDG specification has a relative one ignored.
    expect(load({}, { ...home, XDG_DATA_HOME: "data" }).dataFolder).toBe(load().dataFolder)
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
      const problems = problemsOf({ flags: { listen }, env: home })
      expect(problems).toEqual([expect.stringContaining("--public-url")])
      expect(problems[0]).toContain(`--listen "${listen}"`)
      expect(problems[0]).toContain("--listen 127.0.0.1:8787")
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
        "--inbox-limitt": [],
      },
      env: { ...home, KNOTHOLE_INBOX_LIMIT: "lots", KNOTHOLE_KEPE: "7d", KNOTHOLE_RELAY: "x" },
    })
    expect(problems).toHaveLength(12)
    for (const [at, start] of [
      "--inbox-limitt: not a setting of the relay; did you mean --inbox-limit?",
      "KNOTHOLE_KEPE: not a setting of the relay; did you mean KNOTHOLE_KEEP?",
      "--listen",
      "--public-url",
      "--public-url",
      "--public-url",
      "--delivery-limit",
      "KNOTHOLE_INBOX_LIMIT",
      "--registration",
      "--keep",
      "--inbox-deliveries",
      "--request-size",
    ].entries()) {
      expect(problems[at]?.slice(0, start.length)).toBe(start)
    }
  })

  it("that contradict one another are a problem", () => {
    expect(problemsOf({ flags: { deliveryLimit: "2GiB", inboxLimit: "1GiB" }, env: home })).toEqual(
      [expect.stringContaining("--delivery-limit: more than --inbox-limit")],
    )
    expect(problemsOf({ flags: { keep: "3d", keepMax: "2d" }, env: home })).toEqual([
      expect.stringContaining("--keep: more than --keep-max"),
    ])
  })

  it("of TLS come in twos, with the https URL they are for", () => {
    const tls = { tlsCert: "/c.pem", tlsKey: "/k.pem" }
    expect(load({ ...tls, publicUrl: "https://relay.test" }).tls).toEqual({
      certFile: "/c.pem",
      keyFile: "/k.pem",
    })
    expect(problemsOf({ flags: { tlsKey: "/k.pem" }, env: home })).toEqual([
      "--tls-key: of no use without --tls-cert",
    ])
    expect(problemsOf({ flags: tls, env: home })).toEqual([
      expect.stringContaining("--public-url has to say which"),
    ])
  })

  it("come from a file under their variables' names, which flags and environment win over", () => {
    const text = [
      "# a comment",
      "; another",
      "",
      "KNOTHOLE_PUBLIC_URL=https://a.test  https://b.test",
      'KNOTHOLE_DATA = "/srv/knot hole"',
      "KNOTHOLE_KEEP='3d'",
      "KNOTHOLE_INBOX_LIMIT=1GiB",
      "KNOTHOLE_DELIVERY_LIMIT=",
    ].join("\r\n")
    const sources = {
      flags: { config: "/etc/knothole", keep: "5d" },
      env: { ...home, KNOTHOLE_INBOX_LIMIT: "2GiB", KNOTHOLE_KEEP: "4d" },
      readFile: (path: string) => (path === "/etc/knothole" ? text : ""),
    }
    expect(loadConfig(sources)).toMatchObject({
      publicOrigins: ["https://a.test", "https://b.test"],
      dataFolder: "/srv/knot hole",
      keepMs: 5 * 86_400_000,
      inboxBytes: 2 * 1024 ** 3,
      deliveryBytes: 10 * 1024 ** 3,
    })
    const byVariable = { flags: {}, env: { ...home, KNOTHOLE_RELAY_CONFIG: "/etc/knothole" } }
    expect(loadConfig({ ...sources, ...byVariable }).keepMs).toBe(3 * 86_400_000)
  })

  it("in a file that cannot be right are all reported, with their lines", () => {
    const text = [
      "KNOTHOLE_LISTN=127.0.0.1:1",
      "export KNOTHOLE_KEEP=1d",
      "KNOTHOLE_DATA=relative",
      "KNOTHOLE_KEEP=1d",
      "KNOTHOLE_KEEP=2d",
      "KNOTHOLE_RELAY_CONFIG=/other",
      "KNOTHOLE_INBOX_LIMIT=1GiB\\",
      "KNOTHOLE_REQUEST_SIZE=1KiB",
      "",
      "KNOTHOLE_TLS_CERT=/c.pem",
    ].join("\n")
    const flags = { config: "/f" }
    const problems = problemsOf({ flags, env: home, readFile: () => text })
    expect(problems).toEqual([
      "/f, line 1: KNOTHOLE_LISTN: not a setting of the relay; did you mean KNOTHOLE_LISTEN?",
      "/f, line 2: not NAME=VALUE, nor a comment",
      "/f, line 3: KNOTHOLE_DATA: not an absolute path, which a file needs",
      "/f, line 5: KNOTHOLE_KEEP: stands there twice",
      "/f, line 6: KNOTHOLE_RELAY_CONFIG: one file cannot name another",
      "/f, line 7: KNOTHOLE_INBOX_LIMIT: a value has no quotes or backslashes in it",
      '/f, line 8: KNOTHOLE_REQUEST_SIZE "1KiB": not 1MiB to 16MiB',
      "/f, line 10: KNOTHOLE_TLS_CERT: of no use without --tls-key",
    ])
    const keeps = "KNOTHOLE_KEEP_MAX=1h\nKNOTHOLE_KEEP=1d"
    expect(problemsOf({ flags, env: home, readFile: () => keeps })).toEqual([
      "/f, line 2: KNOTHOLE_KEEP: more than --keep-max",
    ])
    const missing = problemsOf({ flags: { config: "/is/not/there" }, env: home })
    expect(missing).toEqual(['--config "/is/not/there": there is no such file'])
    const env = { ...home, KNOTHOLE_RELAY_CONFIG: "/" }
    expect(problemsOf({ flags: {}, env })).toEqual([
      'KNOTHOLE_RELAY_CONFIG "/": that is a folder, not a file',
    ])
  })

  it("are shown as a file that gives the same again, each with where it is from", () => {
    const flags = { publicUrl: ["https://a.test", "https://b.test:444"], diskHeadroom: "0" }
    const sources = { flags, env: { ...home, KNOTHOLE_KEEP: "90m" } }
    const shown = showConfig(sources)
    expect(shown).toContain("# KNOTHOLE_KEEP\nKNOTHOLE_KEEP=90m\n")
    expect(shown).toContain(
      "# --public-url\nKNOTHOLE_PUBLIC_URL=https://a.test https://b.test:444\n",
    )
    expect(shown).toContain("# default\nKNOTHOLE_LISTEN=127.0.0.1:8787\n")
    const again = loadConfig({ flags: { config: "/f" }, env: {}, readFile: () => shown })
    expect(again).toEqual(loadConfig(sources))
  })

  it("are what docs/operating.md lists, and the other way round", () => {
    const page = readFileSync(new URL("../../docs/operating.md", import.meta.url), "utf8")
    const rows = page.split("\n").filter((line) => line.startsWith("| `--"))
    expect(rows).toEqual(
      configSettings.map(
        ({ flag, value, env, meaning, defaultText, bounds }) =>
          `| \`${flag} ${value.replaceAll("|", "\\|")}\` | \`${env}\` | ${meaning} | ${defaultText} | ${bounds} |`,
      ),
    )
  })

  it("are what --help lists, and the other way round", () => {
    const help = parseRelayArgs(configSettings, ["--help"])
    if (help.kind !== "help") throw new Error("not help")
    const lines = help.text.trimEnd().split("\n")
    expect(lines.length).toBeLessThanOrEqual(40)
    for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(80)
    const text = help.text.replace(/\s+/g, " ")
    for (const { flag, value, meaning, defaultText } of configSettings) {
      expect(text).toContain(`${flag} <${value}> ${meaning} [${defaultText}]`)
    }
    const listed = help.text.match(/(?<=^ {2}(?:-h, )?)--[a-z-]+/gm)
    const own = ["--print-config", "--help"]
    expect(listed).toEqual([...configSettings.map(({ flag }) => flag), ...own])
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
