// Where the program keeps things, and the little it remembers between runs.
import { readFileSync, statSync } from "node:fs"
import path from "node:path"
import { errorCode } from "../error-code.js"
import { isOpenToOthers, makePrivateFolder, replacePrivateFile } from "../private-files.js"
import { quoteForShell } from "./display.js"
import { UsageError } from "./errors.js"

export type Environment = Readonly<Record<string, string | undefined>>

export interface ProgramPaths {
  readonly configFile: string
  readonly contactsFile: string
  readonly identitiesFolder: string
  readonly stateFolder: string
}

/**
 * `KNOTHOLE_HOME` holds everything when set. Otherwise the XDG folders do; a relative one must be
 * ignored, says their specification, and an empty one counts as unset.
 */
export function programPaths(env: Environment, homeFolder: string): ProgramPaths {
  const home = env["KNOTHOLE_HOME"]
  if (home !== undefined && home !== "") {
    const folder = path.resolve(home)
    return {
      configFile: path.join(folder, "config.json"),
      contactsFile: path.join(folder, "contacts.json"),
      identitiesFolder: path.join(folder, "identities"),
      stateFolder: path.join(folder, "state"),
    }
  }
  const xdg = (name: string, fallback: string) => {
    const given = env[name]
    const base =
      given !== undefined && path.isAbsolute(given) ? given : path.join(homeFolder, fallback)
    return path.join(base, "knothole")
  }
  const config = xdg("XDG_CONFIG_HOME", ".config")
  return {
    configFile: path.join(config, "config.json"),
    contactsFile: path.join(config, "contacts.json"),
    identitiesFolder: path.join(xdg("XDG_DATA_HOME", ".local/share"), "identities"),
    stateFolder: xdg("XDG_STATE_HOME", ".local/state"),
  }
}

/** What `init` remembers for the commands after it. */
export interface Config {
  /** The relay of recipients that are named without one. */
  readonly relay: string | undefined
  /** The identity used without `-i`. */
  readonly identity: string | undefined
}

/** Written into the file by hand. One with a password is taken only where that is as well kept as the keys are. */
export function readProxy({ configFile }: ProgramPaths): string | undefined {
  const value = readJsonFile(configFile)
  const proxy = value && textField(configFile, value, "proxy")
  if (proxy === undefined || !mayHoldPassword(proxy)) return proxy
  if (isOpenToOthers(statSync(configFile))) {
    throw new UsageError(
      `others on this machine may read or change ${configFile}, and with it the password of the proxy\nRun: chmod 600 ${quoteForShell(configFile)}\nWhoever read it may have the password.`,
    )
  }
  return proxy
}

/** Anything before an @ counts as one, whatever else is wrong with the URL. */
export function mayHoldPassword(proxy: string): boolean {
  return proxy.includes("@")
}

export function readConfig(paths: ProgramPaths): Config {
  const value = readJsonFile(paths.configFile)
  if (value === undefined) return { relay: undefined, identity: undefined }
  return {
    relay: textField(paths.configFile, value, "relay"),
    identity: textField(paths.configFile, value, "identity"),
  }
}

export async function writeConfig(paths: ProgramPaths, config: Config): Promise<void> {
  await makePrivateFolder(path.dirname(paths.configFile))
  await writeJsonFile(paths.configFile, {
    // What was written by hand stays.
    ...readJsonFile(paths.configFile),
    relay: config.relay,
    identity: config.identity,
  })
}

export async function writeJsonFile(file: string, fields: object): Promise<void> {
  const text = JSON.stringify({ v: 1, ...fields }, null, 2)
  await replacePrivateFile(file, new TextEncoder().encode(`${text}\n`))
}

/** The parsed object of one of our own files, or undefined when there is no such file. */
export function readJsonFile(file: string): object | undefined {
  let text: string
  try {
    text = readFileSync(file, "utf8")
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined
    throw error
  }
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === "object" && value !== null) return value
  } catch {
    // Told below, in words that name the file.
  }
  throw damagedSettings(file, "it is not a JSON object")
}

export function textField(file: string, value: object, field: string): string | undefined {
  const found = new Map<string, unknown>(Object.entries(value)).get(field)
  if (found === undefined || typeof found === "string") return found
  throw damagedSettings(file, `"${field}" is not a text`)
}

export function textsField(file: string, value: object, field: string): string[] {
  const found = new Map<string, unknown>(Object.entries(value)).get(field)
  if (found === undefined) return []
  if (Array.isArray(found) && found.every((item) => typeof item === "string")) return found
  throw damagedSettings(file, `"${field}" is not a list of texts`)
}

function damagedSettings(file: string, reason: string): UsageError {
  return new UsageError(
    `cannot use the settings in ${file}: ${reason}\nCorrect the file, or remove it and run 'knothole init' again.`,
  )
}
