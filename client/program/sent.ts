import { deliveryStatus, openState, revokeDelivery } from "../index.js"
import type { SentRequest } from "./command-line.js"
import { isoTime, showTime } from "./display.js"
import type { Context } from "./context.js"

export async function showStatus({ id }: SentRequest, context: Context): Promise<void> {
  const { output } = context
  const state = openState(context.paths.stateFolder)
  const status = await context.work((work) => deliveryStatus({ id, state, ...work }))
  const { acceptedMs, expiresMs, recipients } = status
  const only = recipients.length === 1
  for (const { address, state: what } of recipients) {
    output.result(only ? what : `${what} ${address}`)
  }
  output.say(`accepted ${showTime(acceptedMs)}, kept until ${showTime(expiresMs)} at the latest`)
  output.event("status", {
    id,
    accepted: isoTime(acceptedMs),
    expires: isoTime(expiresMs),
    recipients,
  })
}

export async function revoke({ id }: SentRequest, context: Context): Promise<void> {
  const { output } = context
  const state = openState(context.paths.stateFolder)
  await context.work((work) => revokeDelivery({ id, state, ...work }))
  output.result("revoked")
  output.say(`${id} is deleted at the relay. Who had taken it already keeps what they have.`)
  output.event("revoked", { id })
}
