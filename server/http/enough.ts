// When a request that waits for something has waited enough: its client is gone, or the relay stops.
import type { ServerResponse } from "node:http"

/**
 * Runs `work` with a signal of this request's own. One made by AbortSignal.any would leave something
 * behind in `stopping` for as long as the relay runs (Node 20).
 */
export async function untilEnough<T>(
  { res, stopping }: { readonly res: ServerResponse; readonly stopping: AbortSignal },
  work: (enough: AbortSignal) => Promise<T>,
): Promise<T> {
  const enough = new AbortController()
  const end = (): void => enough.abort()
  if (stopping.aborted || res.closed) end()
  stopping.addEventListener("abort", end)
  res.once("close", end)
  try {
    return await work(enough.signal)
  } finally {
    stopping.removeEventListener("abort", end)
    res.off("close", end)
  }
}
