// The command tree in the words of each shell. All three find the command by the words before the
// cursor, then what may stand there: a value after an option that takes one, else an option, a command
// or an argument.
import type { CompletedCommand, CompletedOption, NameKind, ValueKind } from "./completion.js"
import type { CompletionRequest } from "./command-line.js"

export type Shell = Extract<CompletionRequest["wanted"], { kind: "script" }>["shell"]

export function writeScript(shell: Shell, program: CompletedCommand): string {
  return writers[shell](withAll(program))
}

const writers: Readonly<Record<Shell, (commands: readonly CompletedCommand[]) => string>> = {
  bash: bashScript,
  zsh: zshScript,
  fish: fishScript,
}

/** How a shell completes each kind of value. */
interface ValueWords {
  readonly files: string
  readonly folders: string
  readonly anything: string
  readonly words: (words: readonly string[]) => string
  readonly names: (of: NameKind) => string
}

function valueIn(shell: ValueWords, value: ValueKind): string {
  if (value.kind === "words") return shell.words(value.words)
  if (value.kind === "names") return shell.names(value.of)
  return shell[value.kind]
}

function withAll(command: CompletedCommand): CompletedCommand[] {
  return [command, ...command.commands.flatMap(withAll)]
}

function lastWord(path: string): string {
  return path.slice(path.lastIndexOf(" ") + 1)
}

/** One word of any of the three shells, whatever is in it. */
function quote(text: string): string {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`
}

/** `contact|add) path='contact add' ;;`, for each command below another. */
function pathCases(commands: readonly CompletedCommand[]): string {
  return commands
    .flatMap(({ path, commands: below }) =>
      below.map(
        (one) => `      ${quote(`${path}|${lastWord(one.path)}`)}) path=${quote(one.path)} ;;`,
      ),
    )
    .join("\n")
}

/** `'send|-r'|'send|--recipient') values contacts ;;`, for each option that takes a value. */
function valueCases(commands: readonly CompletedCommand[], shell: ValueWords): string {
  return commands
    .flatMap(({ path, options }) =>
      options.flatMap(({ flags, value }) =>
        value === undefined
          ? []
          : [
              `    ${flags.map((flag) => quote(`${path}|${flag}`)).join("|")}) ${valueIn(shell, value)}; return ;;`,
            ],
      ),
    )
    .join("\n")
}

function bashScript(commands: readonly CompletedCommand[]): string {
  const cases = (line: (command: CompletedCommand) => string) =>
    commands.map((command) => `    ${quote(command.path)}) ${line(command)} ;;`).join("\n")
  return `# knothole completions for bash
_knothole_names() {
  COMPREPLY=($(compgen -W "$("\${COMP_WORDS[0]}" completion --names "$1" 2>/dev/null)" -- "$cur"))
}
_knothole_words() { COMPREPLY=($(compgen -W "$1" -- "$cur")); }
_knothole_files() {
  compopt -o filenames 2>/dev/null
  local name
  # Not mapfile, which the bash of macOS does not have.
  while IFS= read -r name; do COMPREPLY+=("$name"); done < <(compgen "$1" -- "$cur")
}
_knothole() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} path= i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$path|\${COMP_WORDS[i]}" in
${pathCases(commands)}
    esac
  done
  case "$path|$prev" in
${valueCases(commands, bashValues)}
  esac
  if [[ $cur == -* ]]; then
    case "$path" in
${cases(({ options }) => `_knothole_words ${quote(allFlags(options).join(" "))}`)}
    esac
    return
  fi
  case "$path" in
${cases(({ commands: below, argument }) =>
  below.length > 0
    ? `_knothole_words ${quote(below.map(({ path }) => lastWord(path)).join(" "))}`
    : valueIn(bashValues, argument),
)}
  esac
}
complete -F _knothole knothole
`
}

const bashValues: ValueWords = {
  files: "_knothole_files -f",
  folders: "_knothole_files -d",
  anything: ":",
  words: (words) => `_knothole_words ${quote(words.join(" "))}`,
  names: (of) => `_knothole_names ${of}`,
}

function zshScript(commands: readonly CompletedCommand[]): string {
  const cases = (line: (command: CompletedCommand) => string) =>
    commands.map((command) => `    ${quote(command.path)}) ${line(command)} ;;`).join("\n")
  return `#compdef knothole
# knothole completions for zsh
_knothole_names() { compadd -- \${(f)"$($words[1] completion --names $1 2>/dev/null)"} }
_knothole() {
  local cur=$words[CURRENT] prev=$words[CURRENT-1] path_= i
  local -a known
  for ((i = 2; i < CURRENT; i++)); do
    case "$path_|$words[i]" in
${pathCases(commands).replaceAll(") path=", ") path_=")}
    esac
  done
  case "$path_|$prev" in
${valueCases(commands, zshValues)}
  esac
  if [[ $cur == -* ]]; then
    case "$path_" in
${cases(
  ({ options }) =>
    `known=(${options.flatMap(({ flags, description }) => flags.map((flag) => described(flag, description))).join(" ")}); _describe -o option known`,
)}
    esac
    return
  fi
  case "$path_" in
${cases(({ commands: below, argument }) =>
  below.length > 0
    ? `known=(${below.map(({ path, description }) => described(lastWord(path), description)).join(" ")}); _describe command known`
    : valueIn(zshValues, argument),
)}
  esac
}
if [[ $funcstack[1] == _knothole ]]; then _knothole "$@"; else compdef _knothole knothole; fi
`
}

function described(word: string, description: string): string {
  return quote(`${word}:${description}`)
}

const zshValues: ValueWords = {
  files: "_files",
  folders: "_files -/",
  anything: ":",
  words: (words) => `compadd -- ${words.map(quote).join(" ")}`,
  names: (of) => `_knothole_names ${of}`,
}

function fishScript(commands: readonly CompletedCommand[]): string {
  const lines = commands.flatMap((command) => {
    const here = `complete -c knothole -n ${quote(`__knothole_at ${quoteInside(command.path)}`)}`
    return [
      ...command.commands.map(
        ({ path, description }) =>
          `${here} -f -a ${quote(lastWord(path))} -d ${quote(description)}`,
      ),
      ...(command.commands.length > 0 ? [] : [`${here} ${valueIn(fishValues, command.argument)}`]),
      ...command.options.map((option) => `${here} ${fishOption(option)}`),
    ]
  })
  return `# knothole completions for fish
function __knothole_at
    set -l path ''
    for word in (commandline -opc)[2..-1]
        switch "$path|$word"
${commands
  .flatMap(({ path, commands: below }) =>
    below.map(
      (one) =>
        `            case ${quote(`${path}|${lastWord(one.path)}`)}\n                set path ${quote(one.path)}`,
    ),
  )
  .join("\n")}
        end
    end
    test "$path" = "$argv[1]"
end
function __knothole_names
    set -l program (commandline -opc)[1]
    $program completion --names $argv[1] 2>/dev/null
end
complete -c knothole -f
${lines.join("\n")}
`
}

/** Inside what is quoted already. Paths are plain words. */
function quoteInside(path: string): string {
  return `"${path}"`
}

function fishOption({ flags, description, value }: CompletedOption): string {
  const names = flags.map((flag) =>
    flag.startsWith("--") ? `-l ${quote(flag.slice(2))}` : `-s ${quote(flag.slice(1))}`,
  )
  const taken = value === undefined ? "" : ` -r ${valueIn(fishValues, value)}`
  return `${names.join(" ")}${taken} -d ${quote(description)}`
}

const fishValues: ValueWords = {
  files: "-F",
  folders: "-f -a '(__fish_complete_directories)'",
  anything: "-f",
  words: (words) => `-f -a ${quote(words.join(" "))}`,
  names: (of) => `-f -a '(__knothole_names ${of})'`,
}

function allFlags(options: readonly CompletedOption[]): string[] {
  return options.flatMap(({ flags }) => flags)
}
