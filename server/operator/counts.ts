// What happened since the relay started, in numbers. Labels are routes as the table has them, methods,
// status codes and reasons: a few of each, and nothing of anybody.
import type { TombstoneReason } from "../../protocol/index.js"
import type { Source } from "../http/source.js"

export interface RequestLabels {
  /** As the table of routes has it, or "unknown". */
  readonly route: string
  readonly method: string
  readonly status: string
}

export interface Counts {
  request(labels: RequestLabels): void
  requests(): readonly (RequestLabels & { readonly count: number })[]
  /** Places taken in inboxes. */
  delivered(count: number): void
  deliveries(): number
  ended(reason: TombstoneReason): void
  endings(): ReadonlyMap<TombstoneReason, number>
  /** How a request came. */
  came(proxy: Source["proxy"]): void
  /** Since the start some request came by a proxy that is not trusted, or that names too few. */
  proxyProblem(): "unset" | "wrong" | undefined
}

export function createCounts(): Counts {
  const requests = new Map<string, RequestLabels & { readonly count: number }>()
  const endings = new Map<TombstoneReason, number>()
  let deliveries = 0
  let proxyProblem: "unset" | "wrong" | undefined

  return {
    request(labels) {
      const key = JSON.stringify([labels.route, labels.method, labels.status])
      requests.set(key, { ...labels, count: (requests.get(key)?.count ?? 0) + 1 })
    },
    requests: () => [...requests.values()],
    delivered(count) {
      deliveries += count
    },
    deliveries: () => deliveries,
    ended(reason) {
      endings.set(reason, (endings.get(reason) ?? 0) + 1)
    },
    endings: () => endings,
    came(proxy) {
      if (proxy === "unset" || proxy === "wrong") proxyProblem = proxy
    },
    proxyProblem: () => proxyProblem,
  }
}
