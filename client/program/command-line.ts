// The words a person may write after `knothole`, turned into one value. Nothing is read or done here;
// `relay` takes its flags from the relay's own table (relay.ts), which is loaded only when it is asked for.
import { Argument, Command, CommanderError, Option } from "commander"
import { UsageError } from "./errors.js"
import type { OutputMode } from "./output.js"
import {
  parseCommand,
  parseContact,
  parseDeliveryId,
  parseDuration,
  parseEntryPath,
  parseIdentityName,
  parseSize,
} from "./quantities.js"
import { mayHoldPassword } from "./settings.js"
import type { Environment } from "./settings.js"

interface WithOutput {
  readonly output: OutputMode
  /** Without credentials: everybody on the machine can read a command line. */
  readonly proxy?: string
}

/** Which identity acts, and where its passphrase is. */
export interface IdentityChoice {
  readonly identity: string | undefined
  readonly passphraseFile: string | undefined
}

export interface InitRequest extends WithOutput {
  readonly command: "init"
  readonly relay: string | undefined
  readonly name: string | undefined
  readonly passphrase: boolean
  readonly passphraseFile: string | undefined
}

export interface AddressRequest extends WithOutput {
  readonly command: "address"
  readonly identity: string | undefined
  readonly qrCode: boolean
}

export interface SendRequest extends WithOutput, IdentityChoice {
  readonly command: "send"
  readonly paths: readonly string[]
  readonly recipients: readonly string[]
  readonly recipientFiles: readonly string[]
  readonly relay: string | undefined
  readonly note: string | undefined
  /** The name of what comes from stdin. */
  readonly name: string
  readonly mode: "anonymous" | "deniable" | "signature"
  readonly expiresMs: number | undefined
  readonly receiptFile: string | undefined
  readonly skipBadNames: boolean
  readonly times: boolean
  readonly fresh: boolean
}

export interface InboxRequest extends WithOutput, IdentityChoice {
  readonly command: "inbox"
  readonly relay: string | undefined
}

export interface ShowRequest extends WithOutput, IdentityChoice {
  readonly command: "show"
  readonly id: string
  readonly relay: string | undefined
}

export interface ReceiveRequest extends WithOutput, IdentityChoice {
  readonly command: "receive"
  readonly ids: readonly string[]
  readonly all: boolean
  /** Paths of the only entries that are wanted, as `show` writes them or as they are; none: all. */
  readonly entries: readonly string[]
  /** The most that a delivery nobody named by its id may hold when its sender is not known. */
  readonly maxSizeBytes: number | undefined
  readonly relay: string | undefined
  readonly folder: string
  readonly keep: boolean
  readonly onExisting: "fail" | "overwrite" | "rename"
  readonly executable: boolean
  readonly times: boolean
}

export interface WatchRequest extends WithOutput, IdentityChoice {
  readonly command: "watch"
  readonly relay: string | undefined
  readonly folder: string
  /** A program and its arguments, run for each delivery. */
  readonly exec: readonly string[] | undefined
  readonly maxSizeBytes: number | undefined
}

export interface SentRequest extends WithOutput {
  readonly command: "status" | "revoke" | "forget"
  readonly id: string
}

export interface DiscardRequest extends WithOutput, IdentityChoice {
  readonly command: "discard"
  readonly id: string
  readonly relay: string | undefined
}

export type ContactRequest = WithOutput & { readonly command: "contact" } & (
    | {
        readonly action: "add"
        readonly name: string
        readonly address: string
        readonly relay: string | undefined
        readonly replace: boolean
      }
    | { readonly action: "list" }
    | { readonly action: "remove"; readonly name: string }
    | {
        readonly action: "verify"
        readonly name: string
        /** As they were heard; none to be shown them and asked. */
        readonly words: readonly string[]
      }
  )

export type IdentityRequest = WithOutput & { readonly command: "identity" } & (
    | { readonly action: "list" }
    | ({ readonly action: "export"; readonly file: string } & IdentityChoice)
    | {
        readonly action: "import"
        readonly file: string
        readonly name: string | undefined
        readonly relay: string | undefined
        readonly passphraseFile: string | undefined
      }
    | ({
        readonly action: "passphrase"
        /** False to have none. */
        readonly passphrase: boolean
        readonly newPassphraseFile: string | undefined
      } & IdentityChoice)
    | ({
        readonly action: "move"
        readonly relay: string
        readonly closeFormer: boolean
      } & IdentityChoice)
    | ({
        readonly action: "remove"
        /** Leave the inbox at its relay as it is. */
        readonly keepInbox: boolean
        readonly yes: boolean
      } & IdentityChoice)
  )

export interface DoctorRequest extends WithOutput {
  readonly command: "doctor"
  readonly relay: string | undefined
}

export const shells = ["bash", "zsh", "fish"] as const
/** What a script of completions asks the program for, because it changes. */
export const nameKinds = ["contacts", "identities", "sent"] as const

export interface CompletionRequest {
  readonly command: "completion"
  readonly wanted:
    | { readonly kind: "script"; readonly shell: (typeof shells)[number] }
    | { readonly kind: "names"; readonly of: (typeof nameKinds)[number] }
}

export interface RelayRequest {
  readonly command: "relay"
  readonly args: readonly string[]
}

export interface HelpRequest {
  readonly command: "help"
  readonly text: string
}

export interface VersionRequest {
  readonly command: "version"
}

export type Request =
  | InitRequest
  | AddressRequest
  | SendRequest
  | InboxRequest
  | ShowRequest
  | ReceiveRequest
  | WatchRequest
  | SentRequest
  | DiscardRequest
  | DoctorRequest
  | ContactRequest
  | IdentityRequest
  | CompletionRequest
  | RelayRequest
  | HelpRequest
  | VersionRequest

/** Throws UsageError for anything that cannot be meant. `args` leaves out node and the script. */
export function parseCommandLine(options: { args: readonly string[]; env: Environment }): Request {
  const { env } = options
  const args = [...options.args]
  if (args[0] === "-V" || args[0] === "--version") return { command: "version" }
  if (args[0] === "help" && args[1] === "relay") args.splice(0, 2, "relay", "--help")
  if (args[0] === "relay") return { command: "relay", args: args.slice(1) }

  let request: Request | undefined
  let written = ""
  const program = describeProgram({ env, args, chosen: (value) => (request = value) })
  for (const command of withSubcommands(program)) {
    command.exitOverride()
    command.configureOutput({
      writeOut: (text) => (written += text),
      // The error that is thrown carries the same words.
      writeErr: () => {},
    })
  }
  try {
    program.parse(args.length === 0 ? ["--help"] : args, { from: "user" })
  } catch (error) {
    if (error instanceof UsageError) throw new UsageError(withHelp(error.message, program, args))
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode === 0) return { command: "help", text: written }
    throw new UsageError(describeCommanderError(error, program, args))
  }
  if (request === undefined) throw new UsageError("which command? 'knothole --help' lists them")
  // As the option below declares it.
  const { proxy } = program.opts<{ proxy?: string }>()
  return proxy === undefined || !hasOutput(request) ? request : { ...request, proxy }
}

function hasOutput(request: Request): request is Extract<Request, WithOutput> {
  return "output" in request
}

function withSubcommands(command: Command): Command[] {
  return [command, ...command.commands.flatMap(withSubcommands)]
}

function describeCommanderError(
  error: CommanderError,
  program: Command,
  args: readonly string[],
): string {
  if (error.code === "commander.help") {
    const names = commandOf(program, args).commands.map((command) => command.name())
    return withHelp(`what of '${args[0]}'? There is ${names.join(", ")}`, program, args)
  }
  return withHelp(error.message.replace(/^error: /, ""), program, args)
}

function withHelp(message: string, program: Command, args: readonly string[]): string {
  const path = pathOf(commandOf(program, args))
  return `${message}\n'${path} --help' shows how it is written.`
}

/** The command that was meant, as far as its words are known. */
function commandOf(program: Command, args: readonly string[]): Command {
  let found = program
  for (const word of args.filter((word) => !word.startsWith("-"))) {
    const next = found.commands.find((command) => command.name() === word)
    if (next === undefined) break
    found = next
  }
  return found
}

function pathOf(command: Command): string {
  return command.parent === null ? command.name() : `${pathOf(command.parent)} ${command.name()}`
}

const helpWidth = 80

const subcommandTerm = (command: Command): string => command.name()

interface Description {
  readonly env: Environment
  readonly args: readonly string[]
  readonly chosen: (request: Request) => void
}

function describeProgram({ env, args, chosen }: Description): Command {
  const program = new Command("knothole")
    .description(
      "Leaves sealed files on a relay for someone who is not there, and picks up what\nwas left for you.",
    )
    .usage("COMMAND [OPTIONS]")
    .option("-V, --version", "print the version")
    .option(
      "--proxy <url>",
      "reach relays through it: socks5h://, http:// or https://",
      parseProxyFlag,
    )
    .helpOption("-h, --help", "print help; 'knothole COMMAND --help' for one command")
    .helpCommand(false)
    .configureHelp({ helpWidth, subcommandTerm })
    .addHelpText(
      "after",
      `
Examples:
  knothole relay                                   run a relay on this machine
  knothole init --relay http://127.0.0.1:8787      open an inbox, get an address
  knothole send report.pdf photos/ -r knot1…@host  send files and folders
  knothole inbox                                   see what waits
  knothole receive -o ~/Downloads                  pick it up`,
    )

  const add = (
    name: string,
    summary: string,
    /** Its twins in the environment beside those of its output; undefined for one without output modes. */
    help: { examples: string[]; twins: string[] | undefined },
    parent: Command = program,
  ) =>
    parent
      .command(name)
      .description(`${summary[0]?.toUpperCase()}${summary.slice(1)}.`)
      .summary(summary)
      .helpOption("-h, --help", "print this")
      .configureHelp({ helpWidth })
      .addHelpText(
        "after",
        `${help.twins === undefined ? "" : `\nEnvironment (KNOTHOLE_…): ${[...help.twins, "JSON", "QUIET"].join(" ")}\n`}
Examples:
${help.examples.map((line) => `  ${line}`).join("\n")}`,
      )

  /** A command that has commands of its own. */
  const addGroup = (name: string, summary: string, examples: string[]) =>
    program
      .command(name)
      .description(`${summary[0]?.toUpperCase()}${summary.slice(1)}.`)
      .summary(summary)
      .usage("COMMAND [OPTIONS]")
      .helpOption("-h, --help", `print this; 'knothole ${name} COMMAND --help' for one`)
      .helpCommand(false)
      .configureHelp({ helpWidth, subcommandTerm })
      .addHelpText("after", `\nExamples:\n${examples.map((line) => `  ${line}`).join("\n")}`)

  // Only its name and summary: its flags are the relay's own.
  program.command("relay").description("run a relay in the foreground until SIGTERM")

  const init = add("init", "make an identity and open its inbox at a relay", {
    twins: ["RELAY", "PASSPHRASE_FILE"],
    examples: [
      "knothole init --relay https://drop.example.org",
      "knothole init --relay http://127.0.0.1:8787 --name work",
    ],
  })
    .option("--relay <url>", "the relay where the inbox shall be")
    .option("--name <name>", "what to call this identity (default: default)", parseIdentityName)
    .option("--no-passphrase", "protect the key file by its permissions only")
  addPassphraseFile(addOutput(init)).action((options: InitOptions) => {
    chosen({
      command: "init",
      relay: options.relay ?? twin(env, "KNOTHOLE_RELAY"),
      name: options.name,
      passphrase: options.passphrase,
      passphraseFile: options.passphraseFile ?? twin(env, "KNOTHOLE_PASSPHRASE_FILE"),
      output: outputMode(options, env),
    })
  })

  const address = add("address", "show your address and the words to compare it by", {
    twins: ["IDENTITY"],
    examples: ["knothole address", "knothole address -i work --qr"],
  }).option("--qr", "draw it as a QR code, too")
  addOutput(addIdentity(address)).action((options: CommonOptions & { qr?: boolean }) => {
    chosen({
      command: "address",
      identity: options.identity ?? identityTwin(env),
      qrCode: options.qr === true,
      output: outputMode(options, env),
    })
  })

  const send = add("send", "send files and folders; run again, it resumes", {
    twins: ["RELAY", "EXPIRES", ...identityTwins],
    examples: [
      "knothole send report.pdf photos/ -r knot1…@drop.example.org",
      "tar c . | knothole send - --name backup.tar -r knot1…@drop.example.org",
    ],
  })
    .argument("[paths...]", "files and folders; - is stdin")
    .option("-r, --recipient <who>", "who may open it: knot1…@host or a contact", collect)
    .option("-R, --recipients-file <file>", "recipients, one a line; - is stdin", collect)
    .option("--relay <url>", "the relay of recipients named without @host")
    .option("--note <text>", "a few words, sealed with the files")
    .option("--name <name>", "name for what stdin brings (default: stdin)")
    .option("--expires <time>", "how long it may wait: 12h, 7d, 2w", parseDuration)
    .addOption(
      new Option("--deniable", "prove who you are, to the recipient alone").conflicts("sign"),
    )
    .option("--sign", "prove it also to whomever they show it")
    .option("--times", "carry the files' modification times")
    .option("--skip-bad-names", "leave out names that are not UTF-8")
    .option("--receipt <file>", "keep the relay's signed receipts")
    .option("--fresh", "start over instead of resuming")
  addOutput(addIdentity(addPassphraseFile(send))).action(
    (paths: string[], options: SendOptions) => {
      if (paths.length === 0 && (options.note ?? "") === "") {
        throw new UsageError("nothing to send: name files or folders, - for stdin, or say --note")
      }
      if (options.name?.includes("/") === true) throw new UsageError("--name must not contain /")
      chosen({
        command: "send",
        paths,
        recipients: options.recipient ?? [],
        recipientFiles: options.recipientsFile ?? [],
        relay: options.relay ?? twin(env, "KNOTHOLE_RELAY"),
        note: options.note,
        name: options.name ?? "stdin",
        mode:
          options.sign === true
            ? "signature"
            : options.deniable === true
              ? "deniable"
              : "anonymous",
        expiresMs: options.expires ?? expiresTwin(env),
        receiptFile: options.receipt,
        skipBadNames: options.skipBadNames === true,
        times: options.times === true,
        fresh: options.fresh === true,
        identity: options.identity ?? identityTwin(env),
        passphraseFile: options.passphraseFile ?? twin(env, "KNOTHOLE_PASSPHRASE_FILE"),
        output: outputMode(options, env),
      })
    },
  )

  const inbox = add("inbox", "list what waits for you; with --json one array, no done event", {
    twins: ["RELAY", ...identityTwins],
    examples: ["knothole inbox", "knothole inbox --json | jq -r '.[] | select(.new) | .id'"],
  }).addOption(movedRelay())
  addOutput(addIdentity(addPassphraseFile(inbox))).action((options: CommonOptions & WithRelay) => {
    chosen({
      command: "inbox",
      relay: options.relay ?? twin(env, "KNOTHOLE_RELAY"),
      identity: options.identity ?? identityTwin(env),
      passphraseFile: options.passphraseFile ?? twin(env, "KNOTHOLE_PASSPHRASE_FILE"),
      output: outputMode(options, env),
    })
  })

  const show = add("show", "list what a delivery holds, without fetching it; --json: one object", {
    twins: ["RELAY", ...identityTwins],
    examples: [
      "knothole show 0f3c9a5be1d24c7788a1b2c3d4e5f607",
      "knothole show 0f3c9a --json | jq -r '.listing[].path'",
    ],
  })
    .argument("<id>", "the id that inbox shows, or its beginning", parseDeliveryId)
    .addOption(movedRelay())
  addOutput(addIdentity(addPassphraseFile(show))).action(
    (id: string, options: CommonOptions & WithRelay) => {
      chosen({
        command: "show",
        id,
        relay: options.relay ?? twin(env, "KNOTHOLE_RELAY"),
        identity: options.identity ?? identityTwin(env),
        passphraseFile: options.passphraseFile ?? twin(env, "KNOTHOLE_PASSPHRASE_FILE"),
        output: outputMode(options, env),
      })
    },
  )

  const receive = add("receive", "fetch, check and put files in place; run again, it resumes", {
    twins: ["RELAY", "MAX_SIZE", ...identityTwins],
    examples: [
      "knothole receive -o ~/Downloads",
      "knothole receive 0f3c9a5be1d24c7788a1b2c3d4e5f607 --entry photos/2026",
      "knothole receive --all -o drops",
    ],
  })
    .argument("[ids...]", "deliveries to receive (default: the only one)", collectIds)
    .option("--all", "receive everything that waits")
    .option("-o, --output <folder>", "where to put it, or them, each in a folder")
    .option("--entry <path>", "only this file or folder (repeatable)", collect)
    .addOption(maxSize())
    .option("--keep", "leave the relay's copy")
    .addOption(new Option("--overwrite", "replace files that exist").conflicts("rename"))
    .option("--rename", "find another name for what exists")
    .option("--executable", "let executable files be so here")
    .option("--times", "set the modification times the sender gave")
    .addOption(movedRelay())
  addOutput(addIdentity(addPassphraseFile(receive))).action(
    (ids: string[] | undefined, options: ReceiveOptions) => {
      if (options.all === true && ids !== undefined && ids.length > 0) {
        throw new UsageError("--all receives everything: leave out the ids, or --all")
      }
      const entries = (options.entry ?? []).map(parseEntryPath)
      if (entries.length > 0 && (options.all === true || (ids?.length ?? 0) > 1)) {
        throw new UsageError("--entry names something in one delivery: name the id of that one")
      }
      chosen({
        command: "receive",
        ids: ids ?? [],
        all: options.all === true,
        entries,
        maxSizeBytes: options.maxSize ?? maxSizeTwin(env),
        relay: options.relay ?? twin(env, "KNOTHOLE_RELAY"),
        folder: options.output ?? ".",
        keep: options.keep === true,
        onExisting:
          options.overwrite === true ? "overwrite" : options.rename === true ? "rename" : "fail",
        executable: options.executable === true,
        times: options.times === true,
        identity: options.identity ?? identityTwin(env),
        passphraseFile: options.passphraseFile ?? twin(env, "KNOTHOLE_PASSPHRASE_FILE"),
        output: outputMode(options, env),
      })
    },
  )

  const watch = add("watch", "wait for deliveries and receive each into a folder of its own", {
    twins: ["RELAY", "MAX_SIZE", ...identityTwins],
    examples: [
      "knothole watch -o ~/Drops",
      "knothole watch -o drops --max-size 1GiB --exec 'notify-send Delivery'",
      "knothole watch -o drops -- sh -c 'ls \"$KNOTHOLE_DIR\"'",
    ],
  })
    .usage("[options] [-- command...]")
    .argument("[command...]", "what to run for each delivery, word by word")
    .option("-o, --output <folder>", "where each is put, in a folder named by its id")
    .option("--exec <command>", "the same, split at spaces; no shell, no quotes")
    .addOption(maxSize())
    .addOption(movedRelay())
  addOutput(addIdentity(addPassphraseFile(watch))).action(
    (words: string[], options: WatchOptions) => {
      chosen({
        command: "watch",
        relay: options.relay ?? twin(env, "KNOTHOLE_RELAY"),
        folder: options.output ?? ".",
        exec: commandToRun({ words, exec: options.exec, args }),
        maxSizeBytes: options.maxSize ?? maxSizeTwin(env),
        identity: options.identity ?? identityTwin(env),
        passphraseFile: options.passphraseFile ?? twin(env, "KNOTHOLE_PASSPHRASE_FILE"),
        output: outputMode(options, env),
      })
    },
  )

  const sent = [
    { command: "status", summary: "say whether a delivery you sent waits, was taken or expired" },
    { command: "revoke", summary: "delete a delivery you sent, for all its recipients" },
    { command: "forget", summary: "erase what is kept here of a delivery you sent" },
  ] as const
  for (const { command, summary } of sent) {
    addOutput(
      add(command, summary, {
        twins: [],
        examples: [`knothole ${command} 0f3c9a5be1d24c7788a1b2c3d4e5f607`],
      }).argument("<id>", "the id that send printed", parseDeliveryId),
    ).action((id: string, options: CommonOptions) => {
      chosen({ command, id, output: outputMode(options, env) })
    })
  }

  const doctor = add("doctor", "find what is wrong between a relay and its users", {
    twins: ["RELAY"],
    examples: ["knothole doctor https://drop.example.org", "knothole doctor --json | jq .code"],
  })
    .argument("[relay]", "its URL (default: the relay of init)")
    .addHelpText(
      "after",
      `
Looks at name, certificate, clocks, limits and time-outs of proxies, disk and
index as any user meets them, in about 40 seconds; leaves nothing behind. Each
finding says what, why and how to mend it.
Exit: 0 nothing found, 1 findings, 5 no relay there.`,
    )
  addOutput(doctor).action((relay: string | undefined, options: CommonOptions) => {
    chosen({
      command: "doctor",
      relay: relay ?? twin(env, "KNOTHOLE_RELAY"),
      output: outputMode(options, env),
    })
  })

  const discard = add("discard", "delete a delivery from your inbox without receiving it", {
    twins: ["RELAY", ...identityTwins],
    examples: ["knothole discard 0f3c9a5be1d24c7788a1b2c3d4e5f607"],
  })
    .argument("<id>", "the id that inbox shows", parseDeliveryId)
    .addOption(movedRelay())
  addOutput(addIdentity(addPassphraseFile(discard))).action(
    (id: string, options: CommonOptions & WithRelay) => {
      chosen({
        command: "discard",
        id,
        relay: options.relay ?? twin(env, "KNOTHOLE_RELAY"),
        identity: options.identity ?? identityTwin(env),
        passphraseFile: options.passphraseFile ?? twin(env, "KNOTHOLE_PASSPHRASE_FILE"),
        output: outputMode(options, env),
      })
    },
  )
  const contact = addGroup("contact", "keep addresses of people you know, and compare words", [
    "knothole contact add anna knot1…@drop.example.org",
    "knothole contact verify anna",
    "knothole send report.pdf -r anna",
  ])
  const contactAdd = add(
    "add",
    "fetch somebody's keys and keep them under a name",
    {
      twins: ["RELAY"],
      examples: [
        "knothole contact add anna knot1…@drop.example.org",
        "knothole contact add anna knot1…@new.example.org --replace",
      ],
    },
    contact,
  )
    .argument("<name>", "what you call them; 'send -r NAME' sends to it", parseContact)
    .argument("<address>", "knot1…@host, or the link of a drop page")
    .option("--relay <url>", "the relay of an address without @host")
    .option("--replace", "let the name stand for another address than before")
  addOutput(contactAdd).action(
    (name: string, address: string, options: CommonOptions & WithRelay & WithReplace) => {
      chosen({
        command: "contact",
        action: "add",
        name,
        address,
        relay: options.relay ?? twin(env, "KNOTHOLE_RELAY"),
        replace: options.replace === true,
        output: outputMode(options, env),
      })
    },
  )
  const contactList = add(
    "list",
    "list whom you know; with --json one array, no done event",
    { twins: [], examples: ["knothole contact list"] },
    contact,
  )
  addOutput(contactList).action((options: CommonOptions) => {
    chosen({ command: "contact", action: "list", output: outputMode(options, env) })
  })
  const contactVerify = add(
    "verify",
    "compare words with a contact, and remember that they agreed",
    {
      twins: [],
      examples: [
        "knothole contact verify anna",
        "knothole contact verify anna WORD1 WORD2 … WORD8   as she read them out",
      ],
    },
    contact,
  )
    .argument("<contact>", "their name here", parseContact)
    .argument("[words...]", "the eight words that their 'knothole address' shows")
  addOutput(contactVerify).action(
    (name: string, words: string[] | undefined, options: CommonOptions) => {
      chosen({
        command: "contact",
        action: "verify",
        name,
        words: (words ?? []).flatMap((text) => text.split(/[\s,]+/)).filter((word) => word !== ""),
        output: outputMode(options, env),
      })
    },
  )
  const contactRemove = add(
    "remove",
    "forget a contact; what they sent stays",
    { twins: [], examples: ["knothole contact remove anna"] },
    contact,
  ).argument("<contact>", "their name here", parseContact)
  addOutput(contactRemove).action((name: string, options: CommonOptions) => {
    chosen({ command: "contact", action: "remove", name, output: outputMode(options, env) })
  })

  const identity = addGroup("identity", "back up, move and end the identities you have", [
    "knothole identity export /media/usb/knothole-backup",
    "knothole identity import /media/usb/knothole-backup",
    "knothole identity move --relay https://new.example.org",
  ])
  const choice = (options: CommonOptions) => ({
    identity: options.identity ?? identityTwin(env),
    passphraseFile: options.passphraseFile ?? twin(env, "KNOTHOLE_PASSPHRASE_FILE"),
    output: outputMode(options, env),
  })
  const identityList = add(
    "list",
    "list the identities here; with --json one array, no done event",
    { twins: [], examples: ["knothole identity list"] },
    identity,
  )
  addOutput(identityList).action((options: CommonOptions) => {
    chosen({ command: "identity", action: "list", output: outputMode(options, env) })
  })
  const identityExport = add(
    "export",
    "write a sealed backup of a key and where its inbox is",
    { twins: identityTwins, examples: ["knothole identity export /media/usb/knothole-backup"] },
    identity,
  ).argument("<file>", "the backup; never written over")
  addOutput(addIdentity(addPassphraseFile(identityExport))).action(
    (file: string, options: CommonOptions) => {
      chosen({ command: "identity", action: "export", file, ...choice(options) })
    },
  )
  const identityImport = add(
    "import",
    "bring an identity back from its backup",
    {
      twins: ["PASSPHRASE_FILE"],
      examples: ["knothole identity import /media/usb/knothole-backup"],
    },
    identity,
  )
    .argument("<file>", "what 'knothole identity export' wrote")
    .option("--name <name>", "what to call it here (default: as before)", parseIdentityName)
    .option("--relay <url>", "where its inbox is, if elsewhere than the backup says")
  addOutput(addPassphraseFile(identityImport)).action(
    (file: string, options: CommonOptions & WithRelay & { name?: string }) => {
      const { passphraseFile, output } = choice(options)
      const { name, relay } = options
      chosen({ command: "identity", action: "import", file, name, relay, passphraseFile, output })
    },
  )
  const identityPassphrase = add(
    "passphrase",
    "change the passphrase of a key, or have none",
    { twins: identityTwins, examples: ["knothole identity passphrase -i work"] },
    identity,
  )
    .option("--new-passphrase-file <file>", "read the new one here instead of asking")
    .addOption(
      new Option("--no-passphrase", "protect the key file by its permissions only").conflicts(
        "newPassphraseFile",
      ),
    )
  addOutput(addIdentity(addPassphraseFile(identityPassphrase))).action(
    (options: CommonOptions & { passphrase: boolean; newPassphraseFile?: string }) => {
      const { passphrase, newPassphraseFile } = options
      const asked = { passphrase, newPassphraseFile, ...choice(options) }
      chosen({ command: "identity", action: "passphrase", ...asked })
    },
  )
  const identityMove = add(
    "move",
    "open the same inbox at another relay; the old one goes on receiving",
    { twins: identityTwins, examples: ["knothole identity move --relay https://new.example.org"] },
    identity,
  )
    .requiredOption("--relay <url>", "the relay where the inbox shall be from now on")
    .option("--close-former", "close the old inbox, if nothing waits there any more")
  addOutput(addIdentity(addPassphraseFile(identityMove))).action(
    (options: CommonOptions & { relay: string; closeFormer?: boolean }) => {
      const { relay } = options
      const closeFormer = options.closeFormer === true
      chosen({ command: "identity", action: "move", relay, closeFormer, ...choice(options) })
    },
  )
  const identityRemove = add(
    "remove",
    "close an inbox, with what waits in it, and destroy its key",
    { twins: identityTwins, examples: ["knothole identity remove -i work"] },
    identity,
  )
    .option("--keep-inbox", "leave the relay alone: where it is gone or the passphrase is lost")
    .option("--yes", "do not ask for the name to be typed")
  addOutput(addIdentity(addPassphraseFile(identityRemove))).action(
    (options: CommonOptions & { keepInbox?: boolean; yes?: boolean }) => {
      const asked = { keepInbox: options.keepInbox === true, yes: options.yes === true }
      chosen({ command: "identity", action: "remove", ...asked, ...choice(options) })
    },
  )

  add("completion", "print a script that completes commands in your shell", {
    twins: undefined,
    examples: [
      'eval "$(knothole completion bash)"                   in ~/.bashrc',
      "knothole completion zsh > ~/.zfunc/_knothole         a folder in $fpath",
      "knothole completion fish > ~/.config/fish/completions/knothole.fish",
    ],
  })
    .addArgument(new Argument("[shell]", "which shell").choices(shells))
    .addOption(new Option("--names <kind>").choices(nameKinds).hideHelp())
    .action(
      (
        shell: (typeof shells)[number] | undefined,
        { names }: { names?: (typeof nameKinds)[number] },
      ) => {
        if (names !== undefined) {
          chosen({ command: "completion", wanted: { kind: "names", of: names } })
        } else if (shell !== undefined) {
          chosen({ command: "completion", wanted: { kind: "script", shell } })
        } else throw new UsageError(`for which shell? There is ${shells.join(", ")}`)
      },
    )
  return program
}

/** All commands with their options, for whoever wants to know what may be written. */
export function commandTree(): Command {
  return describeProgram({ env: {}, args: [], chosen: () => {} })
}

// The shapes commander fills, as the options above declare them.
interface CommonOptions {
  readonly json?: boolean
  readonly quiet?: boolean
  readonly identity?: string
  readonly passphraseFile?: string
}
interface WithRelay {
  readonly relay?: string
}
interface WithReplace {
  readonly replace?: boolean
}
interface InitOptions extends CommonOptions, WithRelay {
  readonly name?: string
  readonly passphrase: boolean
}
interface SendOptions extends CommonOptions, WithRelay {
  readonly recipient?: string[]
  readonly recipientsFile?: string[]
  readonly note?: string
  readonly name?: string
  readonly expires?: number
  readonly deniable?: boolean
  readonly sign?: boolean
  readonly skipBadNames?: boolean
  readonly times?: boolean
  readonly receipt?: string
  readonly fresh?: boolean
}
interface ReceiveOptions extends CommonOptions, WithRelay {
  readonly all?: boolean
  readonly output?: string
  readonly entry?: string[]
  readonly maxSize?: number
  readonly keep?: boolean
  readonly overwrite?: boolean
  readonly rename?: boolean
  readonly executable?: boolean
  readonly times?: boolean
}

interface WatchOptions extends CommonOptions, WithRelay {
  readonly output?: string
  readonly exec?: string
  readonly maxSize?: number
}

function commandToRun(written: {
  words: readonly string[]
  exec: string | undefined
  args: readonly string[]
}): readonly string[] | undefined {
  const { words, exec, args } = written
  if (words.length > 0 && !args.includes("--")) {
    throw new UsageError(
      `watch receives all that comes and takes no '${words[0]}'; a command to run for each goes after --`,
    )
  }
  if (exec === undefined) return words.length > 0 ? words : undefined
  if (words.length > 0) throw new UsageError("say the command once: after --exec or after --")
  return parseCommand(exec)
}

function movedRelay(): Option {
  return new Option("--relay <url>", "where the inbox is, if elsewhere than at init")
}

function maxSize(): Option {
  return new Option(
    "--max-size <size>",
    "leave what unknown senders send above, as 500MiB",
  ).argParser(parseSize)
}

function maxSizeTwin(env: Environment): number | undefined {
  const text = twin(env, "KNOTHOLE_MAX_SIZE")
  return text === undefined ? undefined : parseSize(text)
}

function addIdentity(command: Command): Command {
  return command.option("-i, --identity <identity>", "which of your identities", parseIdentityName)
}

const identityTwins = ["IDENTITY", "PASSPHRASE_FILE"]

function addPassphraseFile(command: Command): Command {
  return command.option("--passphrase-file <file>", "read the passphrase here instead of asking")
}

function addOutput(command: Command): Command {
  return command
    .option("--json", "print events as JSON, one a line")
    .option("-q, --quiet", "print only the result")
}

function parseProxyFlag(text: string): string {
  if (mayHoldPassword(text)) {
    throw new UsageError(
      "--proxy must not hold a password, which everybody on this machine could read; put the URL into KNOTHOLE_PROXY",
    )
  }
  return text
}

function outputMode(options: CommonOptions, env: Environment): OutputMode {
  return {
    json: options.json ?? isSwitchedOn(env, "KNOTHOLE_JSON"),
    quiet: options.quiet ?? isSwitchedOn(env, "KNOTHOLE_QUIET"),
  }
}

// Flags win over their twins in the environment; an empty twin counts as none.
function twin(env: Environment, name: string): string | undefined {
  const value = env[name]
  return value === "" ? undefined : value
}

function identityTwin(env: Environment): string | undefined {
  const name = twin(env, "KNOTHOLE_IDENTITY")
  return name === undefined ? undefined : parseIdentityName(name)
}

function expiresTwin(env: Environment): number | undefined {
  const text = twin(env, "KNOTHOLE_EXPIRES")
  return text === undefined ? undefined : parseDuration(text)
}

function isSwitchedOn(env: Environment, name: string): boolean {
  const value = env[name] ?? ""
  if (value === "1" || value === "true") return true
  if (value === "" || value === "0" || value === "false") return false
  throw new UsageError(`${name} is '${value}': it can be 1 or 0`)
}

function collect(value: string, before: string[] | undefined): string[] {
  return [...(before ?? []), value]
}

function collectIds(value: string, before: string[] | undefined): string[] {
  return [...(before ?? []), parseDeliveryId(value)]
}
