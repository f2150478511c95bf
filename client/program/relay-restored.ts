// `knothole relay restored`: the operator's word that a data folder is a backup that was put back.
import { Command, CommanderError } from "commander"
import type { Restoration } from "../../protocol/index.js"
import { isoTime } from "../iso-time.js"
import { showTime } from "./display.js"
import { UsageError } from "./errors.js"
import { exitCodes } from "./exit-codes.js"
import type { ExitCode } from "./exit-codes.js"
import { Output } from "./output.js"
import type { RelayFlags, RelayOptions } from "./relay.js"

const helpWidth = 96

export async function declareRelayRestored(
  options: RelayOptions,
  declare: (flags: RelayFlags, backupMs: number | undefined) => Promise<Restoration>,
): Promise<ExitCode> {
  const { args, env, stdout, stderr } = options
  const parsed = parseRestoredArgs(args)
  if (parsed.kind === "help") {
    stdout.write(parsed.text)
    return exitCodes.done
  }
  const mode = { json: parsed.json, quiet: false }
  const output = new Output({ mode, stdout, stderr, env, isList: false })
  const { backupMs, restoredMs } = await declare(parsed.flags, parsed.backupMs)
  output.result(`restored from a backup made about ${showTime(backupMs)}`)
  output.say("Start the relay now: it rebuilds its index, and tells its clients.")
  output.event("relay restored", { backup: isoTime(backupMs), at: isoTime(restoredMs) })
  output.end({ exit: exitCodes.done })
  return exitCodes.done
}

type RestoredArgs =
  | {
      readonly kind: "restored"
      readonly json: boolean
      readonly flags: RelayFlags
      readonly backupMs: number | undefined
    }
  | { readonly kind: "help"; readonly text: string }

function parseRestoredArgs(args: readonly string[]): RestoredArgs {
  let text = ""
  const command = new Command("knothole relay restored")
    .description(
      "Say that the data folder is a backup that was put back, before the relay\n" +
        "starts in it. The relay then says so to clients that have seen more, which\n" +
        "would otherwise report it for rewriting their history.",
    )
    .option("--data <dir>", "the relay's data folder, if it is not the usual one")
    .option("--config <file>", "the relay's file of settings, to find it in")
    .option("--made <time>", "when the backup was made (default: as its files tell)", parseMade)
    .option("--json", "print events as JSON, one a line")
    .helpOption("-h, --help", "print this")
    .configureHelp({ helpWidth, minWidthToWrap: 20 })
    .allowExcessArguments(false)
    .exitOverride()
    .configureOutput({ writeOut: (written) => (text += written), writeErr: () => {} })
    .addHelpText(
      "after",
      `
Environment (KNOTHOLE_…): DATA RELAY_CONFIG

Examples:
  knothole relay restored
  knothole relay restored --data /var/lib/knothole --made 2026-11-20T03:00Z`,
    )
  try {
    command.parse(args, { from: "user" })
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return { kind: "help", text }
    if (!(error instanceof CommanderError || error instanceof UsageError)) throw error
    throw new UsageError(
      `${error.message.replace(/^error: /, "")}\n'knothole relay restored --help' shows how it is written.`,
    )
  }
  const { json, made, data, config } = command.opts<{
    readonly json?: true
    readonly made?: number
    readonly data?: string
    readonly config?: string
  }>()
  const flags = { ...(data !== undefined && { data }), ...(config !== undefined && { config }) }
  return { kind: "restored", json: json ?? false, flags, backupMs: made }
}

const timePattern =
  /^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2})?)?$/

/** Local time where no zone is given. */
function parseMade(text: string): number {
  const [day, rest = ""] = timePattern.test(text) ? [text.slice(0, 10), text.slice(11)] : []
  const timeMs = Date.parse(`${day}T${rest === "" ? "00:00" : rest}`)
  if (Number.isNaN(timeMs)) {
    throw new UsageError(`--made '${text}': not a time such as 2026-11-20T03:00Z or 2026-11-20`)
  }
  if (timeMs > Date.now()) throw new UsageError(`--made '${text}': that is still to come`)
  return timeMs
}
