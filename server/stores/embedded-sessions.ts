// Sessions and what is spent once, in the embedded index; secrets, in memory alone.
import { equalBytes, toHex } from "../../protocol/index.js"
import type { InboxId } from "../ids.js"
import {
  type Embedded,
  named,
  type Reclaims,
  snapshot,
  type StoredSession,
} from "./embedded-tables.js"
import type { SessionIndex } from "./relay-index.js"

/** A session's last use is noted no more often: a page of pieces would else be a page of writes. */
const noteUseEveryMs = 15_000

export function embeddedSessions({ db, now, step }: Embedded): SessionIndex & Reclaims {
  const secrets = new Map<string, { readonly value: Uint8Array; readonly untilMs: number }>()

  function hasEnded(session: StoredSession): boolean {
    return now() >= Math.min(session.absoluteMs, session.lastUsedMs + session.idleMs)
  }

  function dropSession(inbox: InboxId, id: string): void {
    void db.sessions.remove(id)
    void db.sessionsOf.remove([inbox, id])
  }

  return {
    addSession(session) {
      return step(() => {
        const id = sessionId(session.tokenHash)
        void db.sessions.put(id, session)
        void db.sessionsOf.put([session.inbox, id], true)
      })
    },

    useSession(use) {
      return step(() => {
        const id = sessionId(use.tokenHash)
        const session = db.sessions.get(id)
        if (session === undefined || !equalBytes(session.tokenHash, use.tokenHash)) return undefined
        if (hasEnded(session)) return undefined
        const lastUsedMs = now()
        if (lastUsedMs - session.lastUsedMs >= noteUseEveryMs) {
          void db.sessions.put(id, { ...session, lastUsedMs, idleMs: use.idleMs })
        }
        return session
      })
    },

    sessions(inbox) {
      return step(() =>
        [...db.sessionsOf.getKeys(named(inbox))].flatMap(([, id]) => {
          const session = db.sessions.get(id)
          return session === undefined || hasEnded(session) ? [] : [session]
        }),
      )
    },

    endSession({ inbox, id }) {
      return step(() => {
        if (db.sessions.get(id)?.inbox === inbox) dropSession(inbox, id)
      })
    },

    spend({ value, untilMs }) {
      return step(() => {
        const key = toHex(value)
        if ((db.spent.get(key) ?? 0) > now()) return false
        void db.spent.put(key, untilMs)
        return true
      })
    },

    sharedSecret(secret) {
      const known = secrets.get(secret.name)
      if (known !== undefined && known.untilMs > now()) return Promise.resolve(known.value)
      const value = new Uint8Array(secret.candidate)
      secrets.set(secret.name, { value, untilMs: secret.untilMs })
      return Promise.resolve(value)
    },

    reclaimNow() {
      for (const [name, secret] of secrets) if (secret.untilMs <= now()) secrets.delete(name)
      for (const { key, value } of snapshot(db.spent.getRange({}))) {
        if (value <= now()) void db.spent.remove(key)
      }
      for (const { key, value } of snapshot(db.sessions.getRange({}))) {
        if (hasEnded(value)) dropSession(value.inbox, key)
      }
    },
  }
}

function sessionId(tokenHash: Uint8Array): string {
  return toHex(tokenHash.subarray(0, 16))
}
