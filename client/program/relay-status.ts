// `knothole relay status`: what the relay on this machine says about itself, through its operator's socket.
import type { Command } from "commander"
import { parseRelayStatus, type ProxyProblem, type RelayStatus } from "../../protocol/index.js"
import { isoTime } from "../iso-time.js"
import { showCount, showDuration, showSize, showText, showTime } from "./display.js"
import { exitCodes } from "./exit-codes.js"
import type { ExitCode } from "./exit-codes.js"
import { askOperator, describeOperatorCommand, parseOperatorArgs } from "./operator-command.js"
import { Output } from "./output.js"
import type { RelayFlags, RelayOptions } from "./relay.js"

/** `socketOf` finds the operator's socket by the relay's own settings. */
export async function showRelayStatus(
  options: RelayOptions,
  socketOf: (flags: RelayFlags) => string,
): Promise<ExitCode> {
  const { args, env, stdout, stderr } = options
  const parsed = parseOperatorArgs(describe, args)
  if (parsed.kind === "help") {
    stdout.write(parsed.text)
    return exitCodes.done
  }
  const mode = { json: parsed.json, quiet: false }
  const output = new Output({ mode, stdout, stderr, env, isList: false })
  const status = await askOperator(socketOf(parsed.flags), {
    method: "GET",
    path: "/status",
    parse: parseRelayStatus,
  })
  for (const line of statusLines(status, Date.now())) output.result(line)
  output.event("relay status", statusFields(status))
  output.end({ exit: exitCodes.done })
  return exitCodes.done
}

const describe = {
  name: "status",
  description: "Show how the relay on this machine is doing.",
  help: `
Only the user that runs the relay may ask. It ends with 5 where no relay runs.
Environment (KNOTHOLE_…): DATA OPERATOR_SOCKET RELAY_CONFIG

Examples:
  knothole relay status
  knothole relay status --data /var/lib/knothole --json`,
}

export function describeRelayStatus(): Command {
  return describeOperatorCommand(describe)
}

function statusLines(status: RelayStatus, nowMs: number): string[] {
  const { disk, waiting, index, lastSweepMs, restoration } = status
  const usedBytes = disk.totalBytes - disk.freeBytes
  const roomBytes = disk.freeBytes - disk.headroomBytes
  const rows: (readonly [string, string])[] = [
    ["version", `${showText(status.version)}, up for ${showDuration(status.uptimeMs)}`],
    ["listens on", showText(status.url)],
    ["public URLs", status.publicUrls.map((url) => showText(url)).join(" ") || "none"],
    [
      "disk",
      `${showSize(usedBytes)} used, ${showSize(disk.freeBytes)} free, head-room ${showSize(disk.headroomBytes)}`,
    ],
    [
      "room",
      roomBytes > 0 ? `${showSize(roomBytes)} for uploads` : "none for uploads: they are refused",
    ],
    ["inboxes", status.inboxes.toLocaleString("en-US")],
    [
      "waiting",
      `${showCount(waiting.deliveries, "delivery", "deliveries")}, ${showSize(waiting.bytes)}`,
    ],
    ["uploads", `${status.openUploads.toLocaleString("en-US")} under way`],
    ["connections", status.connections.toLocaleString("en-US")],
    [
      "last sweep",
      lastSweepMs === undefined
        ? "none since the start"
        : `${showTime(lastSweepMs)}, ${showDuration(Math.max(0, nowMs - lastSweepMs))} ago`,
    ],
    ["index", `${index.kind}, ${indexMeanings[index.state]}${showRebuilt(index)}`],
    ["clock", status.clockAlarm ? clockMeaning : "steady"],
    ["proxies", proxyMeanings[status.proxyProblem ?? "none"]],
    ...(restoration === undefined
      ? []
      : [
          [
            "restored",
            `${showTime(restoration.restoredMs)}, from a backup of about ${showTime(restoration.backupMs)}`,
          ] as const,
        ]),
  ]
  return rows.map(([name, value]) => `${name.padEnd(12)} ${value}`)
}

const indexMeanings: Readonly<Record<RelayStatus["index"]["state"], string>> = {
  ready: "ready",
  rebuilding: "being rebuilt: clients are asked to wait",
  away: "cannot be reached: clients are asked to wait",
  failed: "could not be rebuilt: the log says why, and clients are turned away",
}

function showRebuilt({ rebuilt }: RelayStatus["index"]): string {
  if (rebuilt === undefined) return ""
  const [done, total] = [rebuilt.done, rebuilt.total].map((count) => count.toLocaleString("en-US"))
  return `, ${done} of ${total} deliveries so far`
}

const proxyMeanings: Readonly<Record<ProxyProblem | "none", string>> = {
  none: "nothing amiss",
  unset: "one speaks and --trusted-proxies is not set: all whom it asks for count as one",
  wrong: "one names fewer than --trusted-proxies says: all whom it asks for count as one",
}

const clockMeaning =
  "jumped: nothing is deleted for its age until it has kept step for an hour, or 'relay clock-ok'"

function statusFields(status: RelayStatus): object {
  const { disk, waiting, index, lastSweepMs, restoration } = status
  return {
    version: status.version,
    uptime_seconds: Math.floor(status.uptimeMs / 1000),
    url: status.url,
    public_urls: status.publicUrls,
    disk: {
      used: disk.totalBytes - disk.freeBytes,
      free: disk.freeBytes,
      headroom: disk.headroomBytes,
    },
    inboxes: status.inboxes,
    waiting,
    open_uploads: status.openUploads,
    connections: status.connections,
    last_sweep: lastSweepMs === undefined ? null : isoTime(lastSweepMs),
    index: { kind: index.kind, state: index.state, rebuilt: index.rebuilt ?? null },
    clock_alarm: status.clockAlarm,
    proxy_problem: status.proxyProblem ?? null,
    restored: restoration
      ? { at: isoTime(restoration.restoredMs), backup: isoTime(restoration.backupMs) }
      : null,
  }
}
