import type { DiscardRequest } from "./command-line.js"
import { withInbox } from "./inbox.js"
import type { Context } from "./context.js"

export async function discard(request: DiscardRequest, context: Context): Promise<void> {
  const { id } = request
  await withInbox(request, context, (inbox, { signal }) => inbox.discard(id, { signal }))
  context.output.say(`${id} is deleted from this inbox.`)
  context.output.event("discarded", { id })
}
