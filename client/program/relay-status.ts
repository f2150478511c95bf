// `knothole relay status`: what the relay on this machine says about itself, through its operator's socket.
import { Command, CommanderError } from "commander"
import { get, type IncomingMessage } from "node:http"
import { text as readAll } from "node:stream/consumers"
import {
  FormatError,
  parseRelayStatus,
  type ProxyProblem,
  type RelayStatus,
} from "../../protocol/index.js"
import { errorCode } from "../error-code.js"
import { NotARelay, RelayUnreachable } from "../errors.js"
import { isoTime } from "../iso-time.js"
import { showCount, showDuration, showSize, showText, showTime } from "./display.js"
import { UsageError } from "./errors.js"
import { exitCodes } from "./exit-codes.js"
import type { ExitCode } from "./exit-codes.js"
import { Output } from "./output.js"
import type { RelayFlags, RelayOptions } from "./relay.js"

const answerWithinMs = 10_000
const helpWidth = 80

/** `socketOf` finds the operator's socket by the relay's own settings. */
export async function showRelayStatus(
  options: RelayOptions,
  socketOf: (flags: RelayFlags) => string,
): Promise<ExitCode> {
  const { args, env, stdout, stderr } = options
  const parsed = parseStatusArgs(args)
  if (parsed.kind === "help") {
    stdout.write(parsed.text)
    return exitCodes.done
  }
  const mode = { json: parsed.json, quiet: false }
  const output = new Output({ mode, stdout, stderr, env, isList: false })
  const status = await askStatus(socketOf(parsed.flags))
  for (const line of statusLines(status, Date.now())) output.result(line)
  output.event("relay status", statusFields(status))
  output.end({ exit: exitCodes.done })
  return exitCodes.done
}

type StatusArgs =
  | { readonly kind: "status"; readonly json: boolean; readonly flags: RelayFlags }
  | { readonly kind: "help"; readonly text: string }

export function describeRelayStatus(): Command {
  return new Command("knothole relay status")
    .description("Show how the relay on this machine is doing.")
    .option("--data <dir>", "the relay's data folder, if it is not the usual one")
    .option("--operator-socket <file>", "its operator's socket, if that is not in the data folder")
    .option("--config <file>", "the relay's file of settings, to find them in")
    .option("--json", "print events as JSON, one a line")
    .helpOption("-h, --help", "print this")
    .configureHelp({ helpWidth })
    .allowExcessArguments(false)
    .addHelpText(
      "after",
      `
Only the user that runs the relay may ask. It ends with 5 where no relay runs.
Environment (KNOTHOLE_…): DATA OPERATOR_SOCKET RELAY_CONFIG

Examples:
  knothole relay status
  knothole relay status --data /var/lib/knothole --json`,
    )
}

function parseStatusArgs(args: readonly string[]): StatusArgs {
  let text = ""
  const command = describeRelayStatus()
    .exitOverride()
    .configureOutput({ writeOut: (written) => (text += written), writeErr: () => {} })
  try {
    command.parse(args, { from: "user" })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode === 0) return { kind: "help", text }
    throw new UsageError(
      `${error.message.replace(/^error: /, "")}\n'knothole relay status --help' shows how it is written.`,
    )
  }
  const { json, ...flags } = command.opts<{ readonly json?: true } & Record<string, string>>()
  return { kind: "status", json: json ?? false, flags: renamed(flags) }
}

function renamed({ data, operatorSocket, config }: Record<string, string>): RelayFlags {
  return {
    ...(data !== undefined && { data }),
    ...(operatorSocket !== undefined && { operatorSocket }),
    ...(config !== undefined && { config }),
  }
}

async function askStatus(socket: string): Promise<RelayStatus> {
  const answer = await ask(socket)
  const text = await readAll(answer)
  try {
    if (answer.statusCode !== 200) throw new FormatError("status", `HTTP ${answer.statusCode}`)
    return parseRelayStatus(JSON.parse(text))
  } catch (error) {
    if (!(error instanceof FormatError) && !(error instanceof SyntaxError)) throw error
    throw new NotARelay(
      showText(socket),
      `what answers on ${showText(socket)} is no relay of this version; restart the relay after an upgrade`,
    )
  }
}

function ask(socketPath: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(answerWithinMs)
    const request = get({ socketPath, path: "/status", signal }, resolve)
    request.once("error", (cause) => {
      const shown = showText(socketPath)
      const reason = askProblems[errorCode(cause) ?? ""] ?? `it does not answer (${cause.message})`
      reject(new RelayUnreachable(shown, `${shown}: ${reason}`, { retryable: true, cause }))
    })
  })
}

const nobodyThere =
  "no relay is running here; start one with 'knothole relay', or name another one's folder with --data"

const askProblems: Readonly<Record<string, string>> = {
  ENOENT: nobodyThere,
  ENOTDIR: nobodyThere,
  ECONNREFUSED: nobodyThere,
  EACCES: "only the user that runs the relay may ask it; become that user",
  ABORT_ERR: "the relay did not answer within ten seconds; its log may say why",
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
    ["index", `${index.kind}, ${indexMeanings[index.state]}`],
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
  failed: "could not be rebuilt: the log says why, and clients are turned away",
}

const proxyMeanings: Readonly<Record<ProxyProblem | "none", string>> = {
  none: "nothing amiss",
  unset: "one speaks and --trusted-proxies is not set: all whom it asks for count as one",
  wrong: "one names fewer than --trusted-proxies says: all whom it asks for count as one",
}

const clockMeaning = "jumped: nothing is deleted for its age until it has kept step for an hour"

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
    index,
    clock_alarm: status.clockAlarm,
    proxy_problem: status.proxyProblem ?? null,
    restored: restoration
      ? { at: isoTime(restoration.restoredMs), backup: isoTime(restoration.backupMs) }
      : null,
  }
}
