import { forgetSent, openState } from "../index.js"
import type { SentRequest } from "./command-line.js"
import type { Context } from "./context.js"
import { findSent, notSentHere } from "./sent.js"

/** Asks no relay: what is erased is here, and it shall go also when the relay is gone for good. */
export async function forget(request: SentRequest, context: Context): Promise<void> {
  const { output } = context
  const state = openState(context.paths.stateFolder)
  const id = await findSent(request.id, state)
  if (!(await forgetSent({ id, state }))) throw notSentHere(id)
  output.say(
    [
      `${id} is forgotten here: its receipt is erased, and what it took to ask about it or to revoke it.`,
      "The delivery itself was not touched. If it still waits, its recipient can pick it up until it expires, and nobody can take it back any more.",
    ].join("\n"),
  )
  output.event("forgotten", { id })
}
