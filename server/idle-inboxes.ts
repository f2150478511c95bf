// Inboxes whose owners stay away. After 180 days without a login an inbox takes nothing new; what waits
// in it expires at its time, like everything; and when nothing is left in its chain, the inbox goes as
// well. Until then a login makes it what it was. Days are those the relay was there (served-days.ts).
import { inboxIdleDays } from "../protocol/index.js"
import type { InboxId } from "./ids.js"
import { failureFields, type Log } from "./log.js"
import type { FolderLocks } from "./stores/folder-locks.js"
import type { InboxLogs } from "./stores/inbox-log.js"
import type { LoginRecords } from "./stores/login-records.js"
import { readOrAlarm } from "./stores/maced-record.js"
import type { RelayIndex } from "./stores/relay-index.js"
import type { ServedDays } from "./stores/served-days.js"

/**
 * An upload that began before the inbox was closed has ended by then: it lasts 72 hours and a finish
 * under way, and so many days that were counted are at least a day less of time.
 */
const lastUploadsDays = 7

export interface IdleInboxes {
  /**
   * The owner was here; false when the inbox is not, because a removal came first. Recorded once a day;
   * without room for that the login is good all the same.
   */
  noteLogin(inbox: InboxId): Promise<boolean>
  /** Whether it takes nothing new: its owner closed it, or has stayed away. */
  isClosed(inbox: InboxId): Promise<boolean>
  /** Once for each day that is counted, and after a start: removes what is idle and empty. */
  sweep(nowMs: number): Promise<void>
}

export interface IdleInboxesNeeds {
  readonly index: RelayIndex
  readonly logs: Pick<InboxLogs, "isClosed">
  readonly records: LoginRecords
  readonly days: ServedDays
  readonly locks: FolderLocks
  readonly log: Log
}

export function createIdleInboxes(needs: IdleInboxesNeeds): IdleInboxes {
  const { index, logs, records, days, locks, log } = needs
  // A login and a removal of one inbox take turns.
  const inTurn = <T>(inbox: InboxId, work: () => Promise<T>) => locks.run(`login-${inbox}`, work)
  let lookedAt: number | undefined

  /** For how many days; undefined when that is not known, or from a count that was begun anew since. */
  async function awayDays(inbox: InboxId): Promise<number | undefined> {
    const last = await readOrAlarm(log, () => records.last(inbox))
    return last === undefined || last > days.count ? undefined : days.count - last
  }

  async function look(inbox: InboxId): Promise<void> {
    // Removed by a relay that ended before it came to the index.
    if (!(await records.has(inbox))) {
      await forget(inbox)
      return
    }
    const away = await awayDays(inbox)
    // What is not known to be long is counted from today.
    if (away === undefined) await records.save(inbox, days.count)
    if (away === undefined || away <= inboxIdleDays + lastUploadsDays) return
    const chain = await index.chain(inbox)
    if (chain === undefined || chain.seq > chain.floorSeq) return
    // The disk first: what it still has would come back into the index.
    await records.remove(inbox)
    await forget(inbox)
  }

  async function forget(inbox: InboxId): Promise<void> {
    await index.removeInbox(inbox)
    log("inbox_removed")
  }

  return {
    noteLogin(inbox) {
      return inTurn(inbox, async () => {
        // Asked here: what the index said before was said before this login's turn.
        if (!(await records.has(inbox))) {
          if ((await index.bundle(inbox)) !== undefined) await forget(inbox)
          return false
        }
        if ((await awayDays(inbox)) === 0) return true
        try {
          await records.save(inbox, days.count)
        } catch (error) {
          log("login_not_recorded", failureFields(error), "warning")
        }
        return true
      })
    },

    async isClosed(inbox) {
      return (await logs.isClosed(inbox)) || ((await awayDays(inbox)) ?? 0) > inboxIdleDays
    },

    async sweep(nowMs) {
      try {
        await locks.run("days", () => days.note(nowMs))
      } catch (error) {
        log("day_not_counted", failureFields(error), "warning")
        return
      }
      if (lookedAt === days.count) return
      lookedAt = days.count
      for (const inbox of await index.inboxes()) {
        try {
          await inTurn(inbox, () => look(inbox))
        } catch (error) {
          log("inbox_sweep_failed", failureFields(error), "alarm")
        }
      }
    },
  }
}
