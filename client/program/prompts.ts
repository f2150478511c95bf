// Secrets come from a file or from the terminal, never from the command line, where `ps` shows them.
import { constants, openSync, readFileSync, writeSync } from "node:fs"
import type { Readable } from "node:stream"
import { StringDecoder } from "node:string_decoder"
import { ReadStream } from "node:tty"
import { errorCode } from "../error-code.js"
import { showText } from "./display.js"
import { Interrupted, UsageError } from "./errors.js"

/** Where a person can be asked although stdin and stdout are taken. */
export interface Terminal {
  readonly say: (text: string) => void
  /** Answers one line that is not shown while it is typed. */
  readonly askHidden: (question: string) => Promise<string>
  /** Answers one line that is seen while it is typed. */
  readonly ask: (question: string) => Promise<string>
}

export interface PassphraseSource {
  /** `--passphrase-file` or its environment twin. */
  readonly file: string | undefined
  /** Undefined where there is no terminal. */
  readonly terminal: Terminal | undefined
}

/** Where a decision cannot be left to a file: the terminal, or a refusal that says what to write instead. */
export function terminalOrRefuse(remedy: string): Terminal {
  const terminal = openTerminal()
  if (terminal !== undefined) return terminal
  throw new UsageError(`there is no terminal to ask at\n${remedy}`)
}

/** The passphrase of a key that exists. `what` names the key in the question. */
export async function readPassphrase(source: PassphraseSource, what: string): Promise<string> {
  if (source.file !== undefined) return readPassphraseFile(source.file)
  if (source.terminal === undefined) {
    throw new UsageError(
      `the passphrase of ${what} is needed, and there is no terminal to ask at\nGive it with --passphrase-file FILE or KNOTHOLE_PASSPHRASE_FILE.`,
    )
  }
  return source.terminal.askHidden(`Passphrase of ${what}: `)
}

const mostAttempts = 3

/** What `open` makes of the passphrase; one that is typed may be typed again. Undefined when none was right. */
export async function openWithPassphrase<T>(
  source: PassphraseSource,
  what: string,
  open: (passphrase: string) => Promise<T | undefined>,
): Promise<T | undefined> {
  for (let attempt = 1; ; attempt++) {
    const opened = await open(await readPassphrase(source, what))
    if (opened !== undefined || source.file !== undefined || attempt === mostAttempts) return opened
    source.terminal?.say("That passphrase does not open it.\n")
  }
}

/** A new passphrase, typed twice: nobody sees a slip, and nothing can undo one later. */
export async function choosePassphrase(
  source: PassphraseSource,
  what: string,
  { mayBeNone }: { readonly mayBeNone: boolean } = { mayBeNone: true },
): Promise<string> {
  if (source.file !== undefined) return readPassphraseFile(source.file)
  const { terminal } = source
  if (terminal === undefined) {
    throw new UsageError(
      `a passphrase for ${what} is needed, and there is no terminal to ask at\nGive it with --passphrase-file FILE or KNOTHOLE_PASSPHRASE_FILE${mayBeNone ? ", or write --no-passphrase to keep the key unprotected" : ""}.`,
    )
  }
  for (let attempt = 0; attempt < mostAttempts; attempt++) {
    const passphrase = await terminal.askHidden(`New passphrase for ${what}: `)
    if (passphrase === "") {
      throw new UsageError(
        `an empty passphrase protects nothing: choose one${mayBeNone ? ", or write --no-passphrase" : ""}`,
      )
    }
    if ((await terminal.askHidden("The same again: ")) === passphrase) return passphrase
    terminal.say("The two were not the same.\n")
  }
  throw new UsageError("no passphrase was typed the same way twice: nothing was made")
}

/** The file's text without one newline at its end, which editors add and nobody means. */
export function readPassphraseFile(file: string): string {
  const bytes = readNamedFile(file)
  let text: string
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw new UsageError(`the passphrase in ${file} is not UTF-8 text`)
  }
  const passphrase = text.replace(/\r?\n$/, "")
  if (passphrase === "") throw new UsageError(`the passphrase file ${file} is empty`)
  return passphrase
}

const unreadable: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file",
  EISDIR: "it is a folder",
  ENOTDIR: "a part of its path is no folder",
  EACCES: "you may not read it",
}

function readNamedFile(file: string): Uint8Array {
  try {
    return readFileSync(file)
  } catch (error) {
    const reason = unreadable[errorCode(error) ?? ""]
    if (reason === undefined) throw error
    throw new UsageError(`the passphrase file ${file} cannot be read: ${reason}`)
  }
}

let opened: { readonly terminal: Terminal | undefined } | undefined

/**
 * The terminal this process belongs to, wherever its standard streams lead. There is one for all
 * questions: of two readers of a terminal either may get what was typed for the other.
 */
export function openTerminal(): Terminal | undefined {
  opened ??= { terminal: findTerminal() }
  return opened.terminal
}

function findTerminal(): Terminal | undefined {
  let descriptor: number
  try {
    descriptor = openSync("/dev/tty", constants.O_RDWR | constants.O_NOCTTY)
  } catch {
    // ENXIO without a controlling terminal, ENOENT where there is no such device: either way, nobody to ask.
    return undefined
  }
  return terminalOf(new ReadStream(descriptor), (text) => {
    writeSync(descriptor, text)
  })
}

/** What of a terminal's reading side is needed here. */
export interface Keyboard extends Readable {
  setRawMode(isRaw: boolean): unknown
  ref(): unknown
  unref(): unknown
}

export function terminalOf(input: Keyboard, say: (text: string) => void): Terminal {
  // Nothing is read, and the process may end, until a question is asked.
  input.pause()
  input.unref()
  // What was typed or pasted ahead of its question waits here for it.
  let ahead = ""
  const askLine = (question: string, show: (line: HiddenLine) => void) => {
    const line = new HiddenLine()
    const decoder = new StringDecoder("utf8")
    return new Promise<string>((resolve, reject) => {
      if (input.readableEnded || input.destroyed) {
        reject(terminalClosed())
        return
      }
      const release = () => {
        input.off("data", take)
        input.off("end", lost)
        input.off("error", lost)
      }
      const lost = () => {
        release()
        reject(terminalClosed())
      }
      const end = () => {
        input.setRawMode(false)
        release()
        input.pause()
        input.unref()
        say("\n")
      }
      const typed = (text: string) => {
        const { state, rest } = line.type(text)
        show(line)
        if (state === "typing") return
        ahead = rest
        end()
        if (state === "entered") resolve(line.text)
        else reject(new Interrupted())
      }
      const take = (bytes: Buffer) => typed(decoder.write(bytes))
      input.once("end", lost)
      input.once("error", lost)
      // Silent before it asks: who answers at once is not shown either.
      input.setRawMode(true)
      say(question)
      input.ref()
      input.on("data", take)
      input.resume()
      const before = ahead
      ahead = ""
      typed(before)
    })
  }
  return {
    say,
    askHidden: (question) => askLine(question, () => {}),
    // Without an echo of the terminal's own, the whole line is written anew after each key.
    ask: (question) =>
      askLine(question, ({ text }) => say(`\r\u001b[K${question}${showText(text)}`)),
  }
}

/** Nobody will ever answer there. */
function terminalClosed(): UsageError {
  return new UsageError(
    "the terminal closed before the question was answered\nRun this again at one that stays open; a passphrase can be given with --passphrase-file FILE.",
  )
}

export interface TypedSoFar {
  readonly state: "typing" | "entered" | "interrupted"
  /** What followed the end of the line. */
  readonly rest: string
}

// Arrow keys and their kin arrive as these; left alone they would become part of a passphrase, unseen.
// oxlint-disable-next-line no-control-regex -- the escape character is what is looked for
const escapeSequence = /\u001b(?:\[[0-?]*[ -/]*[@-~]|O.|.)?/gu

/** The editing a terminal does by itself until it is told not to show what is typed. */
export class HiddenLine {
  #characters: string[] = []

  get text(): string {
    return this.#characters.join("")
  }

  type(input: string): TypedSoFar {
    const typed = Array.from(input.replace(escapeSequence, ""))
    for (const [index, character] of typed.entries()) {
      const rest = () => typed.slice(index + 1).join("")
      switch (character) {
        case "\r":
        case "\n":
          return { state: "entered", rest: rest() }
        case "\u0003":
          return { state: "interrupted", rest: rest() }
        case "\u0004":
          // End of input: an answer when something was typed, otherwise the wish to leave.
          return { state: this.#characters.length > 0 ? "entered" : "interrupted", rest: rest() }
        case "\u007f":
        case "\b":
          this.#characters.pop()
          break
        case "\u0015":
          this.#characters = []
          break
        default:
          if (character >= " ") this.#characters.push(character)
      }
    }
    return { state: "typing", rest: "" }
  }
}
