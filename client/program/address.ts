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
  const link = key.relay === undefined ? undefined : `${key.relay}/to/${key.bundle.address}`
  const words = fingerprintWords(key.bundle.fingerprint)
  output.result(address)
  if (link !== undefined) output.say(`As a link, which 'knothole send -r' takes as well: ${link}`)
  output.say(`Words to compare by voice: ${words.join(" ")}`)
  if (host === undefined) {
    output.say(
      `This identity has no inbox yet; 'knothole init --name ${key.name} --relay URL' opens it.`,
    )
  }
  if (request.qrCode) {
    const { drawQrCode } = await import("./qr-code.js")
    output.drawing((options) => drawQrCode(link ?? address, options))
  }
  output.event("identity", {
    name: key.name,
    address,
    relay: key.relay ?? null,
    link: link ?? null,
    words,
    fingerprint: toHex(key.bundle.fingerprint),
  })
}
