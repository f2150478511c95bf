// What the operator's commands have in common: their flags, and asking the relay on this machine through
// its operator's socket.
import { Command, CommanderError } from "commander"
import { type IncomingMessage, request as startRequest } from "node:http"
import { text as readAll } from "node:stream/consumers"
import { FormatError } from "../../protocol/index.js"
import { errorCode } from "../error-code.js"
import { NotARelay, RelayUnreachable } from "../errors.js"
import { showText } from "./display.js"
import { UsageError } from "./errors.js"
import type { RelayFlags } from "./relay.js"

const answerWithinMs = 10_000
const helpWidth = 80

export interface OperatorCommand {
  /** After `knothole relay`. */
  readonly name: string
  readonly description: string
  /** What stands below the options. */
  readonly help: string
}

type OperatorArgs =
  | { readonly kind: "run"; readonly json: boolean; readonly flags: RelayFlags }
  | { readonly kind: "help"; readonly text: string }

export function describeOperatorCommand({ name, description, help }: OperatorCommand): Command {
  return new Command(`knothole relay ${name}`)
    .description(description)
    .option("--data <dir>", "the relay's data folder, if it is not the usual one")
    .option("--operator-socket <file>", "its operator's socket, if that is not in the data folder")
    .option("--config <file>", "the relay's file of settings, to find them in")
    .option("--json", "print events as JSON, one a line")
    .helpOption("-h, --help", "print this")
    .configureHelp({ helpWidth })
    .allowExcessArguments(false)
    .addHelpText("after", help)
}

export function parseOperatorArgs(
  described: OperatorCommand,
  args: readonly string[],
): OperatorArgs {
  let text = ""
  const command = describeOperatorCommand(described)
    .exitOverride()
    .configureOutput({ writeOut: (written) => (text += written), writeErr: () => {} })
  try {
    command.parse(args, { from: "user" })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode === 0) return { kind: "help", text }
    throw new UsageError(
      `${error.message.replace(/^error: /, "")}\n'knothole relay ${described.name} --help' shows how it is written.`,
    )
  }
  const { json, ...flags } = command.opts<{ readonly json?: true } & Record<string, string>>()
  return { kind: "run", json: json ?? false, flags: renamed(flags) }
}

function renamed({ data, operatorSocket, config }: Record<string, string>): RelayFlags {
  return {
    ...(data !== undefined && { data }),
    ...(operatorSocket !== undefined && { operatorSocket }),
    ...(config !== undefined && { config }),
  }
}

/** `socketPath` is the operator's socket of the relay that is asked. */
export async function askOperator<T>(
  socketPath: string,
  question: {
    readonly method: "GET" | "POST"
    readonly path: string
    readonly parse: (value: unknown) => T
  },
): Promise<T> {
  const answer = await ask(socketPath, question)
  const text = await readAll(answer)
  try {
    if (answer.statusCode !== 200) throw new FormatError("answer", `HTTP ${answer.statusCode}`)
    return question.parse(JSON.parse(text))
  } catch (error) {
    if (!(error instanceof FormatError) && !(error instanceof SyntaxError)) throw error
    throw new NotARelay(
      showText(socketPath),
      `what answers on ${showText(socketPath)} is no relay of this version; restart the relay after an upgrade`,
    )
  }
}

function ask(
  socketPath: string,
  { method, path }: { readonly method: string; readonly path: string },
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(answerWithinMs)
    const request = startRequest({ socketPath, method, path, signal }, resolve)
    request.once("error", (cause) => {
      const shown = showText(socketPath)
      const reason = askProblems[errorCode(cause) ?? ""] ?? `it does not answer (${cause.message})`
      reject(new RelayUnreachable(shown, `${shown}: ${reason}`, { retryable: true, cause }))
    })
    request.end()
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
