import { DeliveryGone, deliveryStatus, openState, revokeDelivery, sentIds } from "../index.js"
import type { ClientState, DeliveryStatus } from "../index.js"
import { isoTime } from "../iso-time.js"
import type { SentRequest } from "./command-line.js"
import { showTime } from "./display.js"
import type { Context, WorkOptions } from "./context.js"
import { completeId, isWholeId } from "./quantities.js"

// The relay cannot tell the two apart: either way the recipient had it deleted.
const takenMeaning = "That means that the recipient picked it up, or discarded it."

export async function showStatus(request: SentRequest, context: Context): Promise<void> {
  const { output } = context
  const state = openState(context.paths.stateFolder)
  const id = await findSent(request.id, state)
  const status = await context.work((work) => askStatus(id, state, work))
  const { acceptedMs, expiresMs, recipients } = status
  const [only] = recipients.length === 1 ? recipients : []
  if (only !== undefined) output.result(only.state)
  else for (const { address, state: what } of recipients) output.result(`${what} ${address}`)
  if (recipients.some(({ state: what }) => what === "taken")) output.say(takenMeaning)
  output.say(`accepted ${showTime(acceptedMs)}, kept until ${showTime(expiresMs)} at the latest`)
  output.event("status", {
    id,
    accepted: isoTime(acceptedMs),
    expires: isoTime(expiresMs),
    recipients,
  })
}

export async function revoke(request: SentRequest, context: Context): Promise<void> {
  const { output } = context
  const state = openState(context.paths.stateFolder)
  const id = await findSent(request.id, state)
  const before = await context.work(async (work) => {
    const status = await askStatus(id, state, work)
    await revokeDelivery({ id, state, ...work })
    return status
  })
  const states = new Set(before.recipients.map((recipient) => recipient.state))
  if (!states.has("waiting") && !states.has("revoked")) {
    const all = states.size === 1 && states.has("taken")
    throw new DeliveryGone(
      id,
      all ? "taken" : "unknown",
      `nothing was left to delete: ${all ? "taken by all" : [...states].join(" or ")}`,
    )
  }
  output.result("revoked")
  output.say(`${id} is deleted at the relay. Who had taken it already keeps what they have.`)
  output.event("revoked", { id })
}

async function askStatus(
  id: string,
  state: ClientState,
  work: WorkOptions,
): Promise<DeliveryStatus> {
  try {
    return await deliveryStatus({ id, state, ...work })
  } catch (error) {
    if (!(error instanceof DeliveryGone)) throw error
    if ((await sentIds(state)).includes(id)) throw error
    throw notSentHere(id)
  }
}

export async function findSent(written: string, state: ClientState): Promise<string> {
  if (isWholeId(written)) return written
  const id = completeId(written, await sentIds(state))
  if (id === undefined) throw notSentHere(written)
  return id
}

export function notSentHere(id: string): DeliveryGone {
  return new DeliveryGone(
    id,
    "unknown",
    `nothing here is known of having sent ${id}: it was sent from another machine, account or KNOTHOLE_HOME, or it was forgotten here`,
  )
}
