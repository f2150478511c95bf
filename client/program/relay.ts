// `knothole relay`: the relay in the foreground, from its start until a signal asks it to drain and end.
import { Command, CommanderError, Option } from "commander"
import type { Restoration } from "../../protocol/index.js"
import { CannotStart, UsageError } from "./errors.js"
import { exitCodes } from "./exit-codes.js"
import type { ExitCode } from "./exit-codes.js"
import type { Environment } from "./settings.js"

/** What the program needs to know of the relay; the program's entry file hands it in (main.ts). */
export interface RelayFace<Config> {
  readonly configSettings: readonly RelaySetting[]
  /** Throws `ConfigError` with everything that is wrong. */
  readonly loadConfig: (sources: RelaySources) => Config
  /** The settings in use, each with where it is from. Throws as `loadConfig` does. */
  readonly showConfig: (sources: RelaySources) => string
  /** Where a relay with these settings is to listen, as `--listen` has it. */
  readonly listenTextOf: (config: Config) => string
  /** Where a relay with these settings has its operator's socket. Throws as `loadConfig` does. */
  readonly findOperatorSocket: (sources: RelaySources) => string
  readonly createRelay: (
    config: Config,
    ports: { readonly writeLog: (line: string) => void },
  ) => Promise<RunningRelay>
  /** The data folder is a backup that was put back, made then if that is known. */
  readonly declareRestored: (config: Config, backupMs: number | undefined) => Promise<Restoration>
  readonly ConfigError: ErrorClass
  /** Of a data folder that cannot be used, saying what to do about it. */
  readonly DataFolderError: ErrorClass
}

export interface RelaySources {
  readonly flags: Readonly<Record<string, string | readonly string[] | undefined>>
  readonly env: Environment
}

type ErrorClass = abstract new (...args: never[]) => Error

export interface RelaySetting {
  readonly name: string
  readonly flag: string
  readonly value: string
  readonly env: string
  readonly repeatable: boolean
  readonly meaning: string
  readonly defaultText: string
}

export interface RunningRelay {
  readonly start: () => Promise<{ readonly url: string }>
  /** Absent where there is nothing to read again. */
  readonly reload?: () => Promise<void>
  /** Ends when what was under way is done. */
  readonly stop: () => Promise<void>
}

export interface RelayOptions {
  readonly args: readonly string[]
  readonly env: Environment
  readonly stdout: NodeJS.WriteStream
  readonly stderr: NodeJS.WriteStream
}

export async function runRelay<Config>(
  face: RelayFace<Config>,
  options: RelayOptions,
): Promise<ExitCode> {
  const { args, env, stdout, stderr } = options
  if (args[0] === "status") {
    const { showRelayStatus } = await import("./relay-status.js")
    return showRelayStatus({ ...options, args: args.slice(1) }, (flags) =>
      readConfig(face, () => face.findOperatorSocket({ flags, env })),
    )
  }
  if (args[0] === "clock-ok") {
    const { confirmRelayClock } = await import("./relay-clock-ok.js")
    return confirmRelayClock({ ...options, args: args.slice(1) }, (flags) =>
      readConfig(face, () => face.findOperatorSocket({ flags, env })),
    )
  }
  if (args[0] === "restored") {
    const { declareRelayRestored } = await import("./relay-restored.js")
    return declareRelayRestored({ ...options, args: args.slice(1) }, (flags, backupMs) => {
      const config = readConfig(face, () => face.loadConfig({ flags, env }))
      return orCannotStart(face, () => face.declareRestored(config, backupMs))
    })
  }
  const parsed = parseRelayArgs(face.configSettings, args)
  if (parsed.kind === "help") {
    stdout.write(parsed.text)
    return exitCodes.done
  }
  const sources = { flags: parsed.flags, env }
  if (parsed.kind === "print config") {
    stdout.write(readConfig(face, () => face.showConfig(sources)))
    return exitCodes.done
  }
  // Listened for from the beginning: whoever starts a relay may stop it at any moment.
  const stopSignal = nextStopSignal()
  const log = new LogAfterGreeting((text) => stderr.write(text))
  try {
    const config = readConfig(face, () => face.loadConfig(sources))
    const relay = await begin(face, config, (line) => log.write(line))
    // On a terminal, with nothing to read again, a hang-up means what it always does: the terminal is gone.
    const { reload } = relay
    if (reload !== undefined || !stderr.isTTY) process.on("SIGHUP", () => void reload?.())
    const { url } = await startRelay(face, relay, config)
    log.greet(`listening on ${url}\n`)
    await stopSignal
    await relay.stop()
    return exitCodes.done
  } finally {
    // Where the start failed, what was logged until then says why.
    log.greet("")
  }
}

/** Whoever started the relay waits for its first line: the log comes after it. */
class LogAfterGreeting {
  readonly #output: (text: string) => void
  #waiting: string[] | undefined = []

  constructor(output: (text: string) => void) {
    this.#output = output
  }

  write(line: string): void {
    if (this.#waiting === undefined) this.#output(line)
    else this.#waiting.push(line)
  }

  greet(text: string): void {
    const waiting = this.#waiting
    if (waiting === undefined) return
    this.#waiting = undefined
    this.#output([text, ...waiting].join(""))
  }
}

function readConfig<Config, T>(face: RelayFace<Config>, read: () => T): T {
  try {
    return read()
  } catch (error) {
    throw error instanceof face.ConfigError ? unusableSettings(error) : error
  }
}

function unusableSettings({ message }: Error): UsageError {
  return new UsageError(
    `the relay's settings cannot be used:\n${message}\n'knothole relay --help' shows how they are written.`,
  )
}

async function begin<Config>(
  face: RelayFace<Config>,
  config: Config,
  writeLog: (line: string) => void,
): Promise<RunningRelay> {
  return orCannotStart(face, () => face.createRelay(config, { writeLog }))
}

async function orCannotStart<Config, T>(
  face: RelayFace<Config>,
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (error instanceof face.ConfigError) throw unusableSettings(error)
    if (error instanceof face.DataFolderError) throw new CannotStart(error.message)
    throw error
  }
}

const listenProblems: Readonly<Record<string, string>> = {
  EADDRINUSE: "another program listens there already; stop it, or choose another --listen",
  EADDRNOTAVAIL: "this machine does not have that address; choose another --listen",
  EACCES: "the system does not let you listen there; choose a port above 1023 with --listen",
  ENOTFOUND: "there is no host of that name; choose another --listen",
  EAI_AGAIN: "the name of that host cannot be looked up; choose another --listen",
}

async function startRelay<Config>(
  face: RelayFace<Config>,
  relay: RunningRelay,
  config: Config,
): Promise<{ readonly url: string }> {
  try {
    return await relay.start()
  } catch (error) {
    // What it took is given back: its lock would lie in the data folder for as long as none follows.
    await relay.stop()
    if (error instanceof face.DataFolderError) throw new CannotStart(error.message)
    const code = error instanceof Error && "code" in error ? String(error.code) : ""
    const problem = listenProblems[code]
    if (problem !== undefined) {
      throw new CannotStart(`cannot listen on ${face.listenTextOf(config)}: ${problem}`)
    }
    throw error
  }
}

const stopSignals = ["SIGTERM", "SIGINT"] as const

/** A second signal meets the system's default, which ends the process without draining. */
function nextStopSignal(): Promise<void> {
  return new Promise((resolve) => {
    const stop = () => {
      for (const name of stopSignals) process.removeListener(name, stop)
      resolve()
    }
    for (const name of stopSignals) process.on(name, stop)
  })
}

export type RelayFlags = Readonly<Record<string, string | readonly string[]>>

type RelayArgs =
  | { readonly kind: "run" | "print config"; readonly flags: RelayFlags }
  | { readonly kind: "help"; readonly text: string }

const helpWidth = 80

/** The flags of `knothole relay`, by the relay's own table. */
export function describeRelay(settings: readonly RelaySetting[]): Command {
  const command = new Command("knothole relay")
    .description("Run a relay in the foreground; SIGTERM or Ctrl-C lets it finish and ends it.")
    .helpOption("-h, --help", "print this")
    .configureHelp({ helpWidth, minWidthToWrap: 20 })
    .allowExcessArguments(false)
    .addHelpText(
      "after",
      `
In brackets: what holds without it. Each has a twin in the environment and in
the file: --public-url is KNOTHOLE_PUBLIC_URL. docs/operating.md says more.
'knothole relay status' asks a running relay how it is; 'relay clock-ok' says
that its clock is right, 'relay restored' that its data is a backup. Example:
  knothole relay --listen 127.0.0.1:9000 --public-url https://drop.example.org`,
    )
  for (const setting of settings) command.addOption(optionFor(setting))
  command.option("--print-config", "print the settings in use, and end")
  return command
}

/** Reads the arguments by the relay's own table. The values stay as written: the relay judges them. */
export function parseRelayArgs(
  settings: readonly RelaySetting[],
  args: readonly string[],
): RelayArgs {
  let text = ""
  const command = describeRelay(settings)
    .exitOverride()
    .configureOutput({
      writeOut: (written) => (text += written),
      writeErr: () => {},
    })
  const unknown: string[] = []
  try {
    // Not `parse`, which would end at the first flag it does not know.
    const read = command.parseOptions([...args])
    if (read.unknown.includes("--help") || read.unknown.includes("-h")) {
      command.outputHelp()
      return { kind: "help", text }
    }
    const [extra] = read.operands
    if (extra !== undefined) command.error(`relay takes no arguments, but was given '${extra}'`)
    unknown.push(...read.unknown.filter((word) => word.startsWith("-")))
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    throw new UsageError(
      `${error.message.replace(/^error: /, "")}\n'knothole relay --help' shows how it is written.`,
    )
  }
  // Each option collects texts, as optionFor says.
  const { printConfig, ...values } = command.opts<
    { readonly printConfig?: true } & Record<string, string[] | undefined>
  >()
  const flags: Record<string, string | readonly string[]> = {}
  for (const setting of settings) {
    const given = values[attributeOf(setting)]
    const last = given?.at(-1)
    if (given === undefined || last === undefined) continue
    flags[setting.name] = setting.repeatable ? given : last
  }
  // The relay names these along with everything else that is wrong.
  for (const word of unknown) flags[word.replace(/=.*$/s, "")] = []
  return { kind: printConfig === true ? "print config" : "run", flags }
}

function optionFor({ flag, value, meaning, defaultText, repeatable }: RelaySetting): Option {
  return new Option(`${flag} <${value}>`, `${meaning} [${defaultText}]`).argParser(
    (text: string, before: string[] | undefined) =>
      repeatable ? [...(before ?? []), text] : [text],
  )
}

function attributeOf(setting: RelaySetting): string {
  return optionFor(setting).attributeName()
}
