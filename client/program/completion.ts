// Completions for shells. The scripts are written from the command tree itself, so a command or an
// option that exists is completed, and what does not exist is not. What changes from day to day
// (contacts, identities, ids of what was sent) a script asks the program for; nothing asks a relay.
import type { Command, Option } from "commander"
import { listSent, openState, readContacts } from "../index.js"
import { commandTree } from "./command-line.js"
import type { CompletionRequest } from "./command-line.js"
import { identityNames } from "./identities.js"
import type { ProgramPaths } from "./settings.js"

export type NameKind = Extract<CompletionRequest["wanted"], { kind: "names" }>["of"]

/** What may stand in the place of a value. */
export type ValueKind =
  | { readonly kind: "files" | "folders" | "anything" }
  | { readonly kind: "words"; readonly words: readonly string[] }
  | { readonly kind: "names"; readonly of: NameKind }

export interface CompletedOption {
  /** `-r`, `--recipient`. */
  readonly flags: readonly string[]
  readonly description: string
  /** Undefined for a switch. */
  readonly value: ValueKind | undefined
}

/** One command, as a script needs to know it. */
export interface CompletedCommand {
  /** Its words: "" for the program itself, "contact add". */
  readonly path: string
  readonly description: string
  readonly commands: readonly CompletedCommand[]
  readonly options: readonly CompletedOption[]
  readonly argument: ValueKind
}

export async function completion(
  { wanted }: CompletionRequest,
  surroundings: { readonly paths: ProgramPaths; readonly describeRelay: () => Promise<Command> },
): Promise<string> {
  if (wanted.kind === "names") {
    const names = await namesOf(wanted.of, surroundings.paths)
    return names.map((name) => `${name}\n`).join("")
  }
  const { describeRelayStatus } = await import("./relay-status.js")
  const { describeRelayClockOk } = await import("./relay-clock-ok.js")
  const relay = readCommand(await surroundings.describeRelay(), "relay", [
    readCommand(describeRelayStatus(), "relay status", []),
    readCommand(describeRelayClockOk(), "relay clock-ok", []),
  ])
  const tree = commandTree()
  const program = readCommand(
    tree,
    "",
    tree.commands.map((command) =>
      command.name() === "relay" ? relay : readCommand(command, command.name(), undefined),
    ),
  )
  const { writeScript } = await import("./completion-scripts.js")
  return writeScript(wanted.shell, program)
}

/** Whoever presses Tab wants no error in the line being written: what cannot be read has no names. */
async function namesOf(kind: NameKind, paths: ProgramPaths): Promise<string[]> {
  try {
    return await readNames[kind](paths)
  } catch {
    return []
  }
}

const readNames: Readonly<Record<NameKind, (paths: ProgramPaths) => Promise<string[]> | string[]>> =
  {
    contacts: ({ contactsFile }) => readContacts(contactsFile).map(({ name }) => name),
    identities: identityNames,
    sent: async ({ stateFolder }) =>
      (await listSent(openState(stateFolder))).map(({ id }) => id).reverse(),
  }

function readCommand(
  command: Command,
  path: string,
  subcommands: readonly CompletedCommand[] | undefined,
): CompletedCommand {
  const [argument] = command.registeredArguments
  return {
    path,
    description: command.summary() === "" ? command.description() : command.summary(),
    commands:
      subcommands ??
      command.commands.map((one) => readCommand(one, `${path} ${one.name()}`, undefined)),
    options: [...command.options.filter(({ hidden }) => !hidden).map(readOption), help],
    argument:
      argument === undefined
        ? anything
        : argument.argChoices === undefined
          ? valueOf(argument.name(), path)
          : { kind: "words", words: argument.argChoices },
  }
}

const help: CompletedOption = {
  flags: ["-h", "--help"],
  description: "print help",
  value: undefined,
}

function readOption(option: Option): CompletedOption {
  const { short, long, description, required, optional, argChoices } = option
  const placeholder = /[<[]([^>\].]+)/.exec(option.flags)?.[1] ?? ""
  return {
    flags: [short, long].filter((flag) => flag !== undefined),
    description,
    value:
      required || optional
        ? argChoices === undefined
          ? valueOf(placeholder, "")
          : { kind: "words", words: argChoices }
        : undefined,
  }
}

const anything: ValueKind = { kind: "anything" }

/** By the word that stands for the value in the help: what a person is told is what is completed. */
function valueOf(placeholder: string, path: string): ValueKind {
  switch (placeholder.toLowerCase()) {
    case "file":
    case "path":
    case "paths":
      return { kind: "files" }
    case "folder":
    case "dir":
      return { kind: "folders" }
    case "who":
    case "contact":
      return { kind: "names", of: "contacts" }
    case "identity":
      return { kind: "names", of: "identities" }
    case "id":
      // Ids of what waits in an inbox are known to its relay only.
      return sendersCommands.has(path) ? { kind: "names", of: "sent" } : anything
    default:
      return anything
  }
}

const sendersCommands = new Set(["status", "revoke", "forget"])
