// What the relay does by itself, and when. The only file that knows node-cron.
import { schedule } from "node-cron"

export interface Task<Name extends string> {
  readonly name: Name
  /** A cron expression. */
  readonly at: string
  readonly run: () => Promise<void>
}

/** Runs each task at its times, never twice at once. The result stops it and waits for what runs. */
export function startSchedule<Name extends string>(
  tasks: readonly Task<Name>[],
  onFailure: (name: Name, error: unknown) => void,
): () => Promise<void> {
  const running = new Set<Promise<void>>()
  const jobs = tasks.map(({ name, at, run }) =>
    schedule(
      at,
      async () => {
        const work = run().catch((error: unknown) => onFailure(name, error))
        running.add(work)
        await work
        running.delete(work)
      },
      { noOverlap: true },
    ),
  )
  return async () => {
    for (const job of jobs) await job.destroy()
    await Promise.all(running)
  }
}
