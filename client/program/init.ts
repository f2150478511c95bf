import {
  createIdentity,
  encodeAddress,
  hostOf,
  RelayRefusal,
  sealIdentity,
} from "../../protocol/index.js"
import type { Identity } from "../../protocol/index.js"
import { openState, registerInbox, relayInfo } from "../index.js"
import type { InitRequest } from "./command-line.js"
import { NameTaken, UsageError } from "./errors.js"
import {
  firstIdentity,
  identityStage,
  keyFilePath,
  loadKeyFile,
  othersMean,
  rememberHome,
  saveKeyFile,
  unlock,
} from "./identities.js"
import { choosePassphrase, openTerminal } from "./prompts.js"
import { parseRelay } from "./recipients.js"
import type { Context } from "./context.js"
import { readConfig, writeConfig } from "./settings.js"

/**
 * Key first, then the inbox: nobody shall learn an address whose key is not on the disk. A run that
 * ended between the two is continued with the key it made.
 */
export async function init(request: InitRequest, context: Context): Promise<void> {
  const { paths, output } = context
  const config = readConfig(paths)
  const name = request.name ?? firstIdentity
  const written = request.relay ?? config.relay
  if (written === undefined) {
    throw new UsageError(
      "at which relay? Give --relay URL; 'knothole relay' runs one on this machine, at http://127.0.0.1:8787",
    )
  }
  const relay = parseRelay(written)
  const stage = identityStage(paths, name)
  const keyFile = keyFilePath(paths, name)
  if (stage === "at home") {
    throw new NameTaken(
      `identity '${name}' exists already (${keyFile})\n'knothole address${name === firstIdentity ? "" : ` -i ${name}`}' shows its address; --name NAME makes another one.`,
    )
  }
  const state = openState(paths.stateFolder)
  // Asked first, so that a mistyped relay costs nobody a passphrase.
  const facts = await context.work((work) => relayInfo({ relay, state, ...work }))
  if (facts.registration === "closed" && stage === "none") {
    throw new RelayRefusal("registration_closed", {
      detail: `${facts.origin} takes no new inboxes`,
    })
  }
  const { identity, sealed } =
    stage === "none"
      ? await makeIdentity(request, context, name)
      : await continueIdentity(request, context, name)
  await context.work((work) => registerInbox({ identity, relay, state, ...work }))
  await rememberHome({ paths, name, relay, formerRelays: [] })
  await writeConfig(paths, {
    relay: config.relay ?? relay,
    identity: config.identity ?? name,
  })

  const address = encodeAddress(identity.bundle.inboxId, hostOf(relay))
  const meant = config.identity ?? name
  const which = name === meant ? "" : ` -i ${name}`
  output.say(
    [
      `Your inbox is open at ${relay}. Whoever has this address can leave files in it.`,
      "",
      `The key that opens it is in ${keyFile}`,
      "Keep a copy of it somewhere safe: without it nobody can open what was sent to you.",
      sealed
        ? "A lost passphrase cannot be recovered, by anyone."
        : "It has no passphrase: whoever reads that file can open everything.",
      `A sealed backup is made by:\n  knothole identity export${which} /a/safe/place/knothole-backup`,
      ...(name === meant ? [] : [othersMean(meant, name)]),
      "",
    ].join("\n"),
  )
  const elsewhere = facts.origins.filter((origin) => !isLoopback(origin))
  if (isLoopback(relay) && elsewhere.length > 0) {
    output.note(
      `this address works on this machine only; from elsewhere the relay goes by ${elsewhere.join(", ")}`,
    )
  }
  output.result(address)
  output.event("identity", { name, address, relay, key_file: keyFile, sealed })
}

function isLoopback(origin: string): boolean {
  return /^http:\/\/(localhost|127(\.\d+){3}|\[::1\])(:\d+)?$/.test(origin)
}

interface Opened {
  readonly identity: Identity
  readonly sealed: boolean
}

async function makeIdentity(request: InitRequest, context: Context, name: string): Promise<Opened> {
  const passphrase = request.passphrase
    ? await choosePassphrase(
        {
          file: request.passphraseFile,
          terminal: request.passphraseFile === undefined ? openTerminal() : undefined,
        },
        `identity '${name}'`,
      )
    : undefined
  context.output.say("Making the keys, which takes a moment.")
  return context.work(async () => {
    const identity = await createIdentity()
    const bytes = await sealIdentity(identity, passphrase)
    await saveKeyFile({ paths: context.paths, name, bytes })
    return { identity, sealed: request.passphrase }
  })
}

async function continueIdentity(
  request: InitRequest,
  context: Context,
  name: string,
): Promise<Opened> {
  const { paths, output } = context
  const key = loadKeyFile({ paths, config: readConfig(paths), name })
  output.say(
    `An earlier 'init' made ${key.file} and did not get to open its inbox; going on with it.`,
  )
  return { identity: await unlock(key, request.passphraseFile), sealed: key.sealed }
}
