// /metrics, in the text form that Prometheus reads, on a listener of its own. A scrape reads counts that
// are kept as things change, and the disk's free space: it costs the same however much is stored.
import express, { type Express } from "express"
import { collectDefaultMetrics, Counter, Gauge, Registry } from "prom-client"
import type { RelayStatus } from "../../protocol/index.js"
import { mount } from "../http/method-table.js"
import type { Counts } from "./counts.js"

export interface MetricsNeeds {
  readonly status: () => Promise<RelayStatus>
  readonly counts: Counts
}

interface Metric {
  readonly name: string
  readonly help: string
  readonly of: (status: RelayStatus) => number
}

const gauges: readonly Metric[] = [
  {
    name: "knothole_uptime_seconds",
    help: "Time since the relay started.",
    of: ({ uptimeMs }) => uptimeMs / 1000,
  },
  {
    name: "knothole_disk_total_bytes",
    help: "Size of the file system the data folder is on.",
    of: ({ disk }) => disk.totalBytes,
  },
  {
    name: "knothole_disk_free_bytes",
    help: "What is free on it.",
    of: ({ disk }) => disk.freeBytes,
  },
  {
    name: "knothole_disk_headroom_bytes",
    help: "What uploads leave free.",
    of: ({ disk }) => disk.headroomBytes,
  },
  {
    name: "knothole_inboxes",
    help: "Inboxes that were opened here.",
    of: ({ inboxes }) => inboxes,
  },
  {
    name: "knothole_waiting_deliveries",
    help: "Deliveries waiting, one for each recipient.",
    of: ({ waiting }) => waiting.deliveries,
  },
  {
    name: "knothole_waiting_bytes",
    help: "What they take of their inboxes' quotas.",
    of: ({ waiting }) => waiting.bytes,
  },
  {
    name: "knothole_open_uploads",
    help: "Uploads under way.",
    of: ({ openUploads }) => openUploads,
  },
  {
    name: "knothole_connections",
    help: "Open connections to the public listener.",
    of: ({ connections }) => connections,
  },
  {
    name: "knothole_last_sweep_timestamp_seconds",
    help: "When the last sweep ended; 0 before the first.",
    of: ({ lastSweepMs }) => (lastSweepMs ?? 0) / 1000,
  },
  {
    name: "knothole_index_ready",
    help: "1 when the index is whole, 0 while it is rebuilt or could not be.",
    of: ({ index }) => (index.state === "ready" ? 1 : 0),
  },
  {
    name: "knothole_index_rebuilt_ratio",
    help: "While the index is rebuilt, the share of the stored deliveries that is in it; else 1.",
    of: ({ index: { rebuilt } }) =>
      rebuilt === undefined ? 1 : rebuilt.done / Math.max(rebuilt.total, 1),
  },
  {
    name: "knothole_clock_alarm",
    help: "1 while the clock is not believed and nothing is deleted for its age.",
    of: ({ clockAlarm }) => (clockAlarm ? 1 : 0),
  },
  {
    name: "knothole_proxy_alarm",
    help: "1 when a proxy speaks that --trusted-proxies does not cover.",
    of: ({ proxyProblem }) => (proxyProblem === undefined ? 0 : 1),
  },
]

export function createMetricsApp({ status, counts }: MetricsNeeds): Express {
  const registry = new Registry()
  const registers = [registry]
  collectDefaultMetrics({ register: registry })
  const shown = gauges.map(({ name, help, of }) => ({
    of,
    gauge: new Gauge({ name, help, registers }),
  }))
  const info = new Gauge({
    name: "knothole_info",
    help: "The relay's version.",
    labelNames: ["version"],
    registers,
  })
  const deliveries = new Counter({
    name: "knothole_deliveries_total",
    help: "Deliveries accepted, one for each recipient.",
    registers,
  })
  const endings = new Counter({
    name: "knothole_deliveries_ended_total",
    help: "Deliveries that wait no longer, one for each recipient.",
    labelNames: ["reason"],
    registers,
  })
  const requests = new Counter({
    name: "knothole_requests_total",
    help: "Requests to the public listener.",
    labelNames: ["route", "method", "status"],
    registers,
  })

  async function scrape(): Promise<string> {
    const now = await status()
    for (const { gauge, of } of shown) gauge.set(of(now))
    info.set({ version: now.version }, 1)
    for (const counter of [deliveries, endings, requests]) counter.reset()
    deliveries.inc(counts.deliveries())
    for (const [reason, count] of counts.endings()) endings.inc({ reason }, count)
    for (const { count, ...labels } of counts.requests()) requests.inc(labels, count)
    return registry.metrics()
  }

  // Two scrapes at once would reset the counters under one another.
  let last: Promise<unknown> = Promise.resolve()
  const app = express()
  app.disable("x-powered-by")
  app.disable("etag")
  mount(app, [
    {
      path: "/metrics",
      methods: {
        async GET(_req, res) {
          const text = last.then(scrape)
          last = text.catch(() => undefined)
          res.type(registry.contentType).send(await text)
        },
      },
    },
  ])
  return app
}
