import type { DiscardRequest } from "./command-line.js"
import { findWaiting, withInbox } from "./inbox.js"
import type { Context } from "./context.js"

export async function discard(request: DiscardRequest, context: Context): Promise<void> {
  const id = await withInbox(request, context, async (inbox, work) => {
    const [found = request.id] = await findWaiting([request.id], inbox, work)
    await inbox.discard(found, { signal: work.signal })
    return found
  })
  context.output.say(`${id} is deleted from this inbox.`)
  context.output.event("discarded", { id })
}
