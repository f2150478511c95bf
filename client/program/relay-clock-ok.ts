// `knothole relay clock-ok`: the operator's word, to the relay on this machine, that the clock is right.
import type { Command } from "commander"
import { parseClockReply } from "../../protocol/index.js"
import { exitCodes } from "./exit-codes.js"
import type { ExitCode } from "./exit-codes.js"
import { askOperator, describeOperatorCommand, parseOperatorArgs } from "./operator-command.js"
import { Output } from "./output.js"
import type { RelayFlags, RelayOptions } from "./relay.js"

const described = {
  name: "clock-ok",
  description:
    "Say that this machine's clock is right, after it jumped. The relay then deletes\n" +
    "what has expired again, which it does by itself an hour after the jump.",
  help: `
Look at the clock first: what has expired by it is gone for good.
Only the user that runs the relay may say so. Without one it ends with 5.
Environment (KNOTHOLE_…): DATA OPERATOR_SOCKET RELAY_CONFIG

Examples:
  date && knothole relay clock-ok
  knothole relay clock-ok --data /var/lib/knothole`,
}

/** `socketOf` finds the operator's socket by the relay's own settings. */
export async function confirmRelayClock(
  options: RelayOptions,
  socketOf: (flags: RelayFlags) => string,
): Promise<ExitCode> {
  const { args, env, stdout, stderr } = options
  const parsed = parseOperatorArgs(described, args)
  if (parsed.kind === "help") {
    stdout.write(parsed.text)
    return exitCodes.done
  }
  const mode = { json: parsed.json, quiet: false }
  const output = new Output({ mode, stdout, stderr, env, isList: false })
  const { wasDoubted } = await askOperator(socketOf(parsed.flags), {
    method: "POST",
    path: "/clock",
    parse: parseClockReply,
  })
  output.result(
    wasDoubted
      ? "the relay believes the clock again, and deletes what has expired by it"
      : "the relay believed the clock already",
  )
  output.event("relay clock-ok", { was_doubted: wasDoubted })
  output.end({ exit: exitCodes.done })
  return exitCodes.done
}

export function describeRelayClockOk(): Command {
  return describeOperatorCommand(described)
}
