import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { UsageError } from "../../client/program/errors.js"
import { programPaths, readConfig, writeConfig } from "../../client/program/settings.js"

let folder: string
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "knothole-test-"))
})
afterEach(() => {
  rmSync(folder, { recursive: true })
})

describe("where things are kept", () => {
  it("is one folder where KNOTHOLE_HOME names it", () => {
    const env = { KNOTHOLE_HOME: "/srv/knot", XDG_CONFIG_HOME: "/elsewhere" }
    expect(programPaths(env, "/home/ann")).toEqual({
      configFile: "/srv/knot/config.json",
      contactsFile: "/srv/knot/contacts.json",
      identitiesFolder: "/srv/knot/identities",
      stateFolder: "/srv/knot/state",
    })
  })

  it("follows the XDG folders, and their defaults where they are unset, empty or relative", () => {
    expect(
      programPaths(
        { XDG_CONFIG_HOME: "/c", XDG_DATA_HOME: "/d", XDG_STATE_HOME: "/s" },
        "/home/ann",
      ),
    ).toEqual({
      configFile: "/c/knothole/config.json",
      contactsFile: "/c/knothole/contacts.json",
      identitiesFolder: "/d/knothole/identities",
      stateFolder: "/s/knothole",
    })
    expect(
      programPaths(
        { KNOTHOLE_HOME: "", XDG_CONFIG_HOME: "", XDG_DATA_HOME: "relative" },
        "/home/ann",
      ),
    ).toEqual({
      configFile: "/home/ann/.config/knothole/config.json",
      contactsFile: "/home/ann/.config/knothole/contacts.json",
      identitiesFolder: "/home/ann/.local/share/knothole/identities",
      stateFolder: "/home/ann/.local/state/knothole",
    })
  })
})

describe("the settings file", () => {
  it("remembers the relay and the identity, for its owner only", async () => {
    const paths = programPaths({ KNOTHOLE_HOME: path.join(folder, "new") }, folder)
    expect(readConfig(paths)).toEqual({ relay: undefined, identity: undefined })
    await writeConfig(paths, { relay: "http://127.0.0.1:8787", identity: "work" })
    expect(readConfig(paths)).toEqual({ relay: "http://127.0.0.1:8787", identity: "work" })
    expect(statSync(paths.configFile).mode & 0o777).toBe(0o600)
    expect(statSync(path.dirname(paths.configFile)).mode & 0o777).toBe(0o700)
  })

  it("that is damaged is named, and what to do about it", () => {
    const paths = programPaths({ KNOTHOLE_HOME: folder }, folder)
    for (const content of ["{", "[", "3", '{"relay":7}']) {
      writeFileSync(paths.configFile, content)
      expect(() => readConfig(paths), content).toThrow(UsageError)
      expect(() => readConfig(paths), content).toThrow(paths.configFile)
    }
  })
})
