// The key files of this person, one for each identity, and at which relay each has its inbox.
import { existsSync, readdirSync } from "node:fs"
import { rm } from "node:fs/promises"
import path from "node:path"
import { identityFileInfo, openIdentity, FormatError, OpenError } from "../../protocol/index.js"
import type { Bundle, Identity } from "../../protocol/index.js"
import {
  makePrivateFolder,
  placePrivateFile,
  readPrivateFile,
  replacePrivateFile,
  syncFolder,
} from "../private-files.js"
import { quoteForShell } from "./display.js"
import { KeyProblem, NameTaken, UsageError } from "./errors.js"
import { openTerminal, openWithPassphrase } from "./prompts.js"
import { readJsonFile, textField, textsField, writeJsonFile } from "./settings.js"
import type { Config, ProgramPaths } from "./settings.js"

export interface KeyFile {
  readonly name: string
  readonly file: string
  readonly bytes: Uint8Array
  readonly sealed: boolean
  readonly bundle: Bundle
  /** The origin where this identity has its inbox, when known. */
  readonly relay: string | undefined
  /** Where it had its inbox before it was moved. */
  readonly formerRelays: readonly string[]
}

export const firstIdentity = "default"

export function keyFilePath(paths: ProgramPaths, name: string): string {
  return path.join(paths.identitiesFolder, `${name}.key`)
}

function homeFilePath(paths: ProgramPaths, name: string): string {
  return path.join(paths.identitiesFolder, `${name}.json`)
}

/** Reads the key file of the named identity, or of the one the settings name. It stays sealed. */
export function loadKeyFile(options: {
  paths: ProgramPaths
  config: Config
  name: string | undefined
}): KeyFile {
  const { paths, config } = options
  const name = options.name ?? config.identity ?? firstIdentity
  const file = keyFilePath(paths, name)
  const bytes = readKeyFile(file) ?? refuseMissing(paths, name)
  const { sealed, bundle } = parseKeyFile(file, bytes)
  return { name, file, bytes, sealed, bundle, ...readHome(paths, name) }
}

/** Refuses a name that no identity here has, where its key is not needed. */
export function checkIdentity(paths: ProgramPaths, name: string): void {
  if (identityStage(paths, name) === "none") refuseMissing(paths, name)
}

/** Opens the key, asking for the passphrase when it has one. */
export async function unlock(key: KeyFile, passphraseFile: string | undefined): Promise<Identity> {
  const open = async (passphrase: string | undefined) => {
    try {
      return await openIdentity(key.bytes, passphrase)
    } catch (error) {
      if (error instanceof OpenError) return undefined
      if (error instanceof FormatError) throw damaged(key.file)
      throw error
    }
  }
  const source = {
    file: passphraseFile,
    terminal: key.sealed && passphraseFile === undefined ? openTerminal() : undefined,
  }
  const identity = key.sealed
    ? await openWithPassphrase(source, `identity '${key.name}'`, open)
    : await open(undefined)
  if (identity !== undefined) return identity
  throw new KeyProblem(
    `the passphrase does not open ${key.file}\nType it again; if it is lost, the key is lost with it.`,
  )
}

/** Durable when this ends; never replaces a key. */
export async function saveKeyFile(options: {
  paths: ProgramPaths
  name: string
  bytes: Uint8Array
}): Promise<void> {
  await makePrivateFolder(options.paths.identitiesFolder)
  const file = keyFilePath(options.paths, options.name)
  if (!(await placePrivateFile(file, options.bytes))) {
    throw new NameTaken(`${file} was made by another process meanwhile; nothing was replaced`)
  }
}

/** Whether a key exists, and whether its inbox was opened. */
export function identityStage(paths: ProgramPaths, name: string): "none" | "key only" | "at home" {
  if (!existsSync(keyFilePath(paths, name))) return "none"
  return readHome(paths, name).relay === undefined ? "key only" : "at home"
}

/** Where an identity has its inbox, and where it had it before. */
interface Home {
  readonly relay: string | undefined
  readonly formerRelays: readonly string[]
}

export async function rememberHome(
  options: { readonly paths: ProgramPaths; readonly name: string } & Home,
): Promise<void> {
  const { paths, name, relay, formerRelays } = options
  await writeJsonFile(homeFilePath(paths, name), {
    relay,
    ...(formerRelays.length > 0 && { former_relays: formerRelays }),
  })
}

function readHome(paths: ProgramPaths, name: string): Home {
  const file = homeFilePath(paths, name)
  const value = readJsonFile(file)
  if (value === undefined) return { relay: undefined, formerRelays: [] }
  return {
    relay: textField(file, value, "relay"),
    formerRelays: textsField(file, value, "former_relays"),
  }
}

/** Another file in the place of a key; durable when this ends. */
export async function replaceKeyFile(key: KeyFile, bytes: Uint8Array): Promise<void> {
  await replacePrivateFile(key.file, bytes)
}

/** The key goes first: without it the rest is of no use to anybody. */
export async function destroyKeyFile(paths: ProgramPaths, name: string): Promise<void> {
  await rm(keyFilePath(paths, name), { force: true })
  await syncFolder(paths.identitiesFolder)
  await rm(homeFilePath(paths, name), { force: true })
}

function parseKeyFile(file: string, bytes: Uint8Array): { sealed: boolean; bundle: Bundle } {
  try {
    return identityFileInfo(bytes)
  } catch (error) {
    if (error instanceof FormatError || error instanceof OpenError) throw damaged(file)
    throw error
  }
}

function damaged(file: string): KeyProblem {
  return new KeyProblem(
    `the key file ${file} is damaged\nPut your backup of it in its place; without one this inbox cannot be opened any more.`,
  )
}

function refuseMissing(paths: ProgramPaths, name: string): never {
  const others = identityNames(paths)
  if (others.length > 0) {
    throw new UsageError(
      `there is no identity '${name}' here; there is ${others.join(", ")}\nChoose one with -i NAME, or make it with 'knothole init --name ${name} --relay URL'.`,
    )
  }
  throw new UsageError(
    `there is no identity here yet (looked for ${keyFilePath(paths, name)})\nMake one with 'knothole init --relay URL'.`,
  )
}

/** Of all identities here, whether or not their files are whole. */
export function identityNames(paths: ProgramPaths): string[] {
  try {
    return readdirSync(paths.identitiesFolder)
      .filter((file) => file.endsWith(".key"))
      .map((file) => file.slice(0, -".key".length))
      .sort()
  } catch {
    // No folder, no identities; a folder that may not be read says so when its key is read.
    return []
  }
}

// A sealed RSA-4096 identity takes some 5 KiB.
const mostKeyFileBytes = 64 * 1024

function readKeyFile(file: string): Uint8Array | undefined {
  return readPrivateFile(file, {
    mostBytes: mostKeyFileBytes,
    refuse: (trouble) =>
      new KeyProblem(
        trouble === "too large"
          ? `the key file ${file} is damaged (too large to be one)`
          : `others on this machine may read or change the key file ${file}\nRun: chmod 600 ${quoteForShell(file)}\nWhoever read it may have your key; if that can be, make a new identity.`,
      ),
  })
}

/** Said where an identity comes beside one that is there. */
export function othersMean(meant: string, name: string): string {
  return `Commands without -i go on meaning '${meant}'; use -i ${name} for this one.`
}
