/**
 * The signing key of each relay, kept from the first meeting. Receipts, heads and login challenges are
 * worth what this key is worth, so a different one later is refused until the owner says yes.
 */
import { readFile, rm } from "node:fs/promises"
import path from "node:path"
import { equalBytes, fromBase64url, parseUtf8, toBase64url, utf8 } from "../protocol/index.js"
import { Untrustworthy } from "./errors.js"
import { errorCode } from "./error-code.js"
import { makePrivateFolder, placePrivateFile } from "./private-files.js"
import { type ClientState, nameFor } from "./state.js"

function pinFile(state: ClientState, origin: string): string {
  return path.join(state.folder, "pins", nameFor(origin))
}

/** Keeps `signingKey` when it is the first one met at `origin`; refuses another one. */
export async function checkPin(
  state: ClientState,
  origin: string,
  signingKey: Uint8Array,
): Promise<void> {
  const file = pinFile(state, origin)
  let pinned = await readPin(file)
  if (pinned === undefined) {
    await makePrivateFolder(path.dirname(file))
    await placePrivateFile(file, utf8(`${origin} ${toBase64url(signingKey)}\n`))
    // Another process may have met this relay at the same moment; what it kept counts.
    pinned = await readPin(file)
  }
  if (pinned === undefined || !equalBytes(pinned, signingKey)) {
    throw new Untrustworthy(
      `${origin} shows another signing key than when it was first met. Either its operator made a new one ` +
        `or something stands between you and the relay: ask the operator, and only then forget the old key`,
    )
  }
}

export async function forgetPin(options: { relay: string; state: ClientState }): Promise<void> {
  await rm(pinFile(options.state, options.relay), { force: true })
}

async function readPin(file: string): Promise<Uint8Array | undefined> {
  let text: string
  try {
    text = parseUtf8(await readFile(file), "pin")
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined
    throw error
  }
  return fromBase64url(text.trim().split(" ")[1] ?? "", "pin")
}
