import { encodeAddress, fingerprintWords, hostOf, toHex } from "../../protocol/index.js"
import type { AddressRequest } from "./command-line.js"
import { loadKeyFile } from "./identities.js"
import type { Context } from "./context.js"
import { readConfig } from "./settings.js"

/** The public part of a key file is readable without its passphrase, so none is asked for. */
export async function showAddress(request: AddressRequest, context: Context): Promise<void> {
  const { paths, output } = context
  const key = loadKeyFile({ paths, config: readConfig(paths), name: request.identity })
  const host = key.relay === undefined ? undefined : hostOf(key.relay)
  const address = encodeAddress(key.bundle.inboxId, host)
  const words = fingerprintWords(key.bundle.fingerprint)
  output.result(address)
  output.say(`Words to compare by voice: ${words.join(" ")}`)
  if (host === undefined) {
    output.say(
      `This identity has no inbox yet; 'knothole init --name ${key.name} --relay URL' opens it.`,
    )
  }
  output.event("identity", {
    name: key.name,
    address,
    relay: key.relay ?? null,
    words,
    fingerprint: toHex(key.bundle.fingerprint),
  })
}
