/** What most tests of the client begin with: a relay, an inbox on it, and folders for both sides. */
import path from "node:path"
import { onTestFinished } from "vitest"
import {
  type ClientState,
  type Inbox,
  openInbox,
  type OpenInboxOptions,
  openState,
  send,
  type SendOptions,
  type SentDelivery,
} from "../../client/index.js"
import { createIdentity, type Identity } from "../../protocol/index.js"
import { scratchFolder } from "./folders.js"
import { found, SmallRelay } from "./small-relay.js"

let shared: Promise<Identity> | undefined

/** Making an RSA key takes most of a second, and one serves all tests of a file. */
export function someIdentity(): Promise<Identity> {
  return (shared ??= createIdentity())
}

export interface Setting {
  relay: SmallRelay
  identity: Identity
  folder: string
  sender: ClientState
  owner: ClientState
  /** `knot1…@host` of the inbox. */
  address: string
  send: (options: Partial<SendOptions>) => Promise<SentDelivery>
  open: (options?: Partial<OpenInboxOptions>) => Promise<Inbox>
}

export async function makeSetting(): Promise<Setting> {
  const identity = await someIdentity()
  const relay = await new SmallRelay().start()
  onTestFinished(() => relay.stop())
  relay.addInbox(identity.bundle)
  const folder = scratchFolder()
  const sender = openState(path.join(folder, "sender"))
  const owner = openState(path.join(folder, "owner"))
  const address = `${identity.bundle.address}@${relay.host}`
  return {
    relay,
    identity,
    folder,
    sender,
    owner,
    address,
    send: async (options) => {
      const { deliveries } = await send({
        recipients: [address],
        sources: [],
        state: sender,
        ...options,
      })
      return found(deliveries[0])
    },
    open: async (options) => {
      const inbox = await openInbox({ identity, relay: relay.origin, state: owner, ...options })
      onTestFinished(() => inbox.close())
      return inbox
    },
  }
}
