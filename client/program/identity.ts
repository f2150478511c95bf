// The owner's own identities: backups, passphrases, moving house, and their end.
import { existsSync, readFileSync, statSync } from "node:fs"
import path from "node:path"
import {
  encodeAddress,
  FormatError,
  fingerprintWords,
  hostOf,
  OpenError,
  openIdentity,
  RelayRefusal,
  sealIdentity,
  toHex,
} from "../../protocol/index.js"
import type { Bundle, Identity } from "../../protocol/index.js"
import {
  closeInbox,
  encodeBackup,
  forgetInboxes,
  openBackup,
  openInbox,
  openState,
  registerInbox,
  relayInfo,
  UnknownInbox,
} from "../index.js"
import type { OpenedBackup } from "../index.js"
import { backupInfo } from "../backup.js"
import { checkFolderOf, placePrivateFile } from "../private-files.js"
import type { IdentityRequest } from "./command-line.js"
import type { Context } from "./context.js"
import { quoteForShell, showCount, showText } from "./display.js"
import { KeyProblem, NameTaken, PartlyDone, UsageError } from "./errors.js"
import { explainFailure } from "./failures.js"
import {
  destroyKeyFile,
  firstIdentity,
  identityNames,
  identityStage,
  keyFilePath,
  loadKeyFile,
  othersMean,
  rememberHome,
  replaceKeyFile,
  saveKeyFile,
  unlock,
} from "./identities.js"
import type { KeyFile } from "./identities.js"
import { choosePassphrase, openTerminal, openWithPassphrase, terminalOrRefuse } from "./prompts.js"
import { parseIdentityName } from "./quantities.js"
import { parseRelay } from "./recipients.js"
import { readConfig, writeConfig } from "./settings.js"

type Of<Action> = Extract<IdentityRequest, { readonly action: Action }>

export async function manageIdentities(request: IdentityRequest, context: Context): Promise<void> {
  switch (request.action) {
    case "list":
      return listIdentities(context)
    case "export":
      return exportIdentity(request, context)
    case "import":
      return importIdentity(request, context)
    case "passphrase":
      return changePassphrase(request, context)
    case "move":
      return moveIdentity(request, context)
    case "remove":
      return removeIdentity(request, context)
  }
}

function addressOf({ bundle, relay }: { bundle: Bundle; relay: string | undefined }): string {
  return encodeAddress(bundle.inboxId, relay === undefined ? undefined : hostOf(relay))
}

function loadKey(name: string | undefined, { paths }: Context): KeyFile {
  return loadKeyFile({ paths, config: readConfig(paths), name })
}

function listIdentities({ paths, output }: Context): void {
  const config = readConfig(paths)
  const chosen = config.identity ?? firstIdentity
  const names = identityNames(paths)
  const width = Math.max(0, ...names.map((name) => name.length))
  const rows = names.map((name) => {
    const isDefault = name === chosen
    try {
      const key = loadKeyFile({ paths, config, name })
      return { name, isDefault, key, problem: undefined }
    } catch (error) {
      // One that is damaged does not hide the others.
      if (!(error instanceof KeyProblem) && !(error instanceof UsageError)) throw error
      return { name, isDefault, key: undefined, problem: error.message }
    }
  })
  for (const { name, isDefault, key, problem } of rows) {
    const mark = isDefault ? "*" : " "
    const facts =
      key === undefined
        ? `(${problem?.split("\n")[0] ?? ""})`
        : [
            addressOf(key),
            ...(key.sealed ? [] : ["no passphrase"]),
            ...(key.relay === undefined ? ["no inbox yet"] : []),
            ...key.formerRelays.map((relay) => `formerly at ${relay}`),
          ].join("  ")
    output.result(showText(`${mark} ${name.padEnd(width)}  ${facts}`))
  }
  output.list(
    rows.map(({ name, isDefault, key, problem }) => ({
      name,
      default: isDefault,
      ...(key !== undefined && {
        address: addressOf(key),
        relay: key.relay ?? null,
        former_relays: key.formerRelays,
        sealed: key.sealed,
        words: fingerprintWords(key.bundle.fingerprint),
        fingerprint: toHex(key.bundle.fingerprint),
        key_file: key.file,
      }),
      ...(problem !== undefined && { problem }),
    })),
  )
  if (rows.length === 0) {
    output.say("There is no identity here yet; 'knothole init --relay URL' makes one.")
  } else {
    output.say("* is meant where no -i NAME is given.")
  }
}

/**
 * A key that has a passphrase keeps it in its backup, once it has been shown that the owner still has
 * it: a backup that nobody can open is found out now.
 */
async function exportIdentity(request: Of<"export">, context: Context): Promise<void> {
  const { output } = context
  const { file } = request
  const key = loadKey(request.identity, context)
  if (existsSync(file)) throw backupTaken(file)
  checkFolderOf(file)
  const identity = await unlock(key, request.passphraseFile)
  const keyFile = key.sealed
    ? key.bytes
    : await sealIdentity(
        identity,
        await chooseNew(request.passphraseFile, `the backup of '${key.name}'`, false),
      )
  const backup = encodeBackup({ identity, keyFile, home: key })
  if (!(await placePrivateFile(file, backup))) throw backupTaken(file)
  output.result(file)
  output.say(
    `The backup of '${key.name}' is sealed under ${key.sealed ? "the passphrase of its key" : "the passphrase you gave"}; without that nobody can open it. Keep it on another machine or medium.\nIt comes back with: knothole identity import ${quoteForShell(path.basename(file))}`,
  )
  output.event("exported", { name: key.name, address: addressOf(key), file })
}

function backupTaken(file: string): NameTaken {
  return new NameTaken(`${file} exists already, and was left alone; name another file`)
}

function chooseNew(file: string | undefined, what: string, mayBeNone: boolean): Promise<string> {
  const terminal = file === undefined ? openTerminal() : undefined
  return choosePassphrase({ file, terminal }, what, { mayBeNone })
}

async function importIdentity(request: Of<"import">, context: Context): Promise<void> {
  const { paths, output } = context
  const { file } = request
  const bytes = readBackup(file)
  const { bundle } = readable(file, () => backupInfo(bytes))
  const config = readConfig(paths)
  const namesake = identityNames(paths).find((name) => isIdentity(name, bundle, context))
  if (namesake !== undefined) {
    throw new NameTaken(`this identity is here already, as '${namesake}'; nothing was changed`)
  }
  const { home, keyFile, identity } = await openTheBackup(file, bytes, request.passphraseFile)
  const name = request.name ?? parseIdentityName(home.name)
  if (identityStage(paths, name) !== "none") {
    throw new NameTaken(
      `there is another identity '${name}' here; give this one another name with --name NAME`,
    )
  }
  const relay = request.relay === undefined ? home.relay : parseRelay(request.relay)
  const { formerRelays } = home
  await saveKeyFile({ paths, name, bytes: keyFile })
  await rememberHome({ paths, name, relay, formerRelays })
  await writeConfig(paths, {
    relay: config.relay ?? relay,
    identity: config.identity ?? name,
  })
  output.say(
    `The key of '${name}' is in ${keyFilePath(paths, name)}, under the backup's passphrase.`,
  )
  if (relay === undefined) {
    output.say(`It has no inbox yet; 'knothole init --name ${name} --relay URL' opens one.`)
  } else {
    // The key is what an import is for; a relay that is away now can be asked later.
    try {
      const state = openState(paths.stateFolder)
      const { created } = await context.work((work) =>
        registerInbox({ identity, relay, state, ...work }),
      )
      output.say(
        `Its inbox is at ${relay}${created ? ", opened anew: there was none any more" : ""}.`,
      )
    } catch (error) {
      const { message, exit } = explainFailure(error)
      if (exit === 130) throw error
      output.warn(`the key is in place, but ${relay} could not be asked for its inbox: ${message}`)
    }
  }
  const meant = config.identity ?? name
  if (meant !== name) output.say(othersMean(meant, name))
  const address = addressOf({ bundle, relay })
  output.result(address)
  output.event("identity", { name, address, relay: relay ?? null, sealed: true })
}

function isIdentity(name: string, bundle: Bundle, context: Context): boolean {
  try {
    return loadKey(name, context).bundle.address === bundle.address
  } catch (error) {
    // What cannot be read cannot be the same; its own commands say what is wrong with it.
    if (error instanceof KeyProblem || error instanceof UsageError) return false
    throw error
  }
}

const mostBackupBytes = 1024 * 1024

function readBackup(file: string): Uint8Array {
  const { size } = statSync(file)
  if (size > mostBackupBytes) throw damagedBackup(file)
  return readFileSync(file)
}

function readable<T>(file: string, read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (error instanceof FormatError) throw damagedBackup(file)
    throw error
  }
}

function damagedBackup(file: string): KeyProblem {
  return new KeyProblem(
    `${file} is damaged, or is no backup made by 'knothole identity export'\nNothing was changed. Try another copy of it.`,
  )
}

async function openTheBackup(
  file: string,
  bytes: Uint8Array,
  passphraseFile: string | undefined,
): Promise<OpenedBackup> {
  const source = {
    file: passphraseFile,
    terminal: passphraseFile === undefined ? openTerminal() : undefined,
  }
  const opened = await openWithPassphrase(source, "the backup", async (passphrase) => {
    try {
      return await openBackup(bytes, passphrase)
    } catch (error) {
      if (error instanceof OpenError) return undefined
      if (error instanceof FormatError) throw damagedBackup(file)
      throw error
    }
  })
  if (opened !== undefined) return opened
  throw new KeyProblem(
    `the passphrase does not open ${file}; nothing was changed\nIt is the one that the key had, or that was chosen, when the backup was made.`,
  )
}

async function changePassphrase(request: Of<"passphrase">, context: Context): Promise<void> {
  const { output } = context
  const key = loadKey(request.identity, context)
  const identity = await unlock(key, request.passphraseFile)
  const passphrase = request.passphrase
    ? await chooseNew(request.newPassphraseFile, `identity '${key.name}'`, true)
    : undefined
  const bytes = await sealIdentity(identity, passphrase)
  // What cannot be opened again must not take the place of what can.
  await openIdentity(bytes, passphrase)
  await replaceKeyFile(key, bytes)
  output.say(
    passphrase === undefined
      ? `The key of '${key.name}' has no passphrase now: whoever reads ${key.file} can open everything.`
      : `The key of '${key.name}' has another passphrase now. A lost passphrase cannot be recovered, by anyone.`,
  )
  output.say("Backups made before keep the passphrase they were made with.")
  output.event("passphrase", { name: key.name, sealed: passphrase !== undefined })
}

/** Inbox first, then the note of it here: a run that ends between the two is made good by another. */
async function moveIdentity(request: Of<"move">, context: Context): Promise<void> {
  const { paths, output } = context
  const key = loadKey(request.identity, context)
  const { name, bundle } = key
  const relay = parseRelay(request.relay)
  if (key.relay === undefined) {
    throw new UsageError(
      `identity '${name}' has no inbox to move from\nOpen its first with 'knothole init --name ${name} --relay URL'.`,
    )
  }
  const state = openState(paths.stateFolder)
  const facts = await context.work((work) => relayInfo({ relay, state, ...work }))
  if (facts.registration === "closed" && relay !== key.relay) {
    throw new RelayRefusal("registration_closed", {
      detail: `${facts.origin} takes no new inboxes; nothing was moved`,
    })
  }
  const identity = await unlock(key, request.passphraseFile)
  await context.work((work) => registerInbox({ identity, relay, state, ...work }))
  const formerRelays = [...new Set([...key.formerRelays, key.relay])].filter(
    (origin) => origin !== relay,
  )
  await rememberHome({ paths, name, relay, formerRelays })
  const waiting = request.closeFormer
    ? await closeEmpty({ key, identity, relay, formerRelays }, context)
    : undefined
  const left = waiting === undefined ? formerRelays : [...waiting.keys()]
  const address = addressOf({ bundle, relay })
  const which = name === (readConfig(paths).identity ?? firstIdentity) ? "" : ` -i ${name}`
  const receiveFrom = (origin: string) => `  knothole receive${which} --all --relay ${origin}`
  output.event("identity", {
    name,
    address,
    relay,
    former_relays: left,
    sealed: key.sealed,
  })
  const isDone = waiting === undefined || waiting.size === 0
  if (isDone || relay !== key.relay) {
    output.result(address)
    output.say(
      [
        `Your inbox is at ${relay} from now on, with the same key. Give the new address to those who send to you; whoever has you as a contact adds it with --replace and need not compare words again.`,
        ...(isDone ? left : []).map(
          (origin) =>
            `What is sent to the old address waits at ${origin} as before. Look there until nothing comes any more, then close it:\n${receiveFrom(origin)}\n  knothole identity move${which} --relay ${relay} --close-former`,
        ),
      ].join("\n"),
    )
  }
  if (isDone) return
  const notClosed = [...waiting].map(
    ([origin, count]) =>
      `the inbox at ${origin} is not closed: ${showCount(count, "delivery still waits", "deliveries still wait")} there\nReceive or discard ${count === 1 ? "it" : "them"}, then run this again:\n${receiveFrom(origin)}`,
  )
  throw new PartlyDone(notClosed.join("\n"))
}

/** How many wait in each of the former inboxes that were not closed because of it. */
async function closeEmpty(
  options: {
    readonly key: KeyFile
    readonly identity: Identity
    readonly relay: string
    readonly formerRelays: readonly string[]
  },
  context: Context,
): Promise<Map<string, number>> {
  const { key, identity, relay, formerRelays } = options
  const { paths, output } = context
  const notClosed = new Map<string, number>()
  let left = [...formerRelays]
  for (const former of formerRelays) {
    const waiting = await countWaiting(identity, former, context)
    if (waiting > 0) {
      notClosed.set(former, waiting)
      continue
    }
    await close(identity, former, context)
    left = left.filter((origin) => origin !== former)
    await rememberHome({ paths, name: key.name, relay, formerRelays: left })
    output.say(`The inbox at ${former} is closed: who sends to the old address is told so.`)
  }
  return notClosed
}

async function countWaiting(
  identity: Identity,
  relay: string,
  { work, paths }: Context,
): Promise<number> {
  return work(async (options) => {
    const state = openState(paths.stateFolder)
    const inbox = await openInbox({ identity, relay, state, ...options })
    try {
      return (await inbox.list(options)).length
    } catch (error) {
      // Closed before, by a run that got no further.
      if (error instanceof UnknownInbox) return 0
      throw error
    } finally {
      inbox.close()
    }
  })
}

async function close(identity: Identity, relay: string, { work, paths }: Context): Promise<void> {
  const state = openState(paths.stateFolder)
  await work((options) => closeInbox({ identity, relay, state, ...options }))
}

/** The inbox is closed while there is a key to do it with, and the key goes last. */
async function removeIdentity(request: Of<"remove">, context: Context): Promise<void> {
  const { paths, output } = context
  const key = loadKey(request.identity, context)
  const { name } = key
  const relays = request.keepInbox
    ? []
    : [...(key.relay === undefined ? [] : [key.relay]), ...key.formerRelays]
  const identity = relays.length === 0 ? undefined : await unlock(key, request.passphraseFile)
  context.canResume(
    "The key is still there. Run the same again, or with --keep-inbox if that relay is gone for good.",
  )
  let waiting = 0
  if (identity !== undefined) {
    for (const relay of relays) waiting += await countWaiting(identity, relay, context)
  }
  if (!request.yes) await confirmRemoval({ key, relays, waiting })
  if (identity !== undefined) {
    for (const relay of relays) await close(identity, relay, context)
  }
  await destroyKeyFile(paths, name)
  await forgetInboxes({ state: openState(paths.stateFolder), inboxId: key.bundle.inboxId })
  const config = readConfig(paths)
  if (config.identity === name) await writeConfig(paths, { ...config, identity: undefined })
  output.say(
    `${relays.map((relay) => `The inbox at ${relay} is closed.\n`).join("")}The key of '${name}' is destroyed. Without a backup, nobody can open any more what was sent to it.`,
  )
  output.event("identity_removed", { name, address: addressOf(key), closed: relays })
}

async function confirmRemoval(facts: {
  readonly key: KeyFile
  readonly relays: readonly string[]
  readonly waiting: number
}): Promise<void> {
  const { key, relays, waiting } = facts
  const terminal = terminalOrRefuse(
    "Write --yes to remove it without being asked; make a backup first with 'knothole identity export FILE'.",
  )
  terminal.say(
    [
      `This destroys the key of '${key.name}', ${addressOf(key)}.`,
      ...relays.map(
        (relay) => `The inbox at ${relay} is closed for ever unless there is a backup.`,
      ),
      ...(waiting > 0
        ? [`${showCount(waiting, "delivery waits", "deliveries wait")} there and will be deleted.`]
        : []),
      "",
    ].join("\n"),
  )
  const typed = await terminal.ask("Type its name to do so: ")
  if (typed.trim() !== key.name) {
    throw new UsageError(`that is not '${key.name}': nothing was removed`)
  }
}
