// Who shall be able to open a delivery, from the command line and from files.
import { readFileSync } from "node:fs"
import { text as readAll } from "node:stream/consumers"
import { FormatError, hostOf, originOf, parseAddress } from "../../protocol/index.js"
import { showText } from "./display.js"
import { UsageError, withoutField } from "./errors.js"

interface Named {
  readonly address: string
  /** Where it was written, for whoever has to correct it. */
  readonly place: string
}

export async function readRecipients(options: {
  recipients: readonly string[]
  recipientFiles: readonly string[]
  relay: string | undefined
  stdin: AsyncIterable<Uint8Array>
}): Promise<string[]> {
  const named: Named[] = options.recipients.map((address) => ({ address, place: "" }))
  for (const file of options.recipientFiles) {
    const text = file === "-" ? await readAll(options.stdin) : readFileSync(file, "utf8")
    named.push(...parseRecipientsFile(text, file === "-" ? "stdin" : file))
  }
  if (named.length === 0) {
    throw new UsageError("to whom? Give one address or more with -r, or a file of them with -R")
  }
  const problems = named.flatMap(({ address, place }) => {
    const problem = addressProblem(address, options.relay)
    return problem === undefined ? [] : [`${place}'${showText(address)}': ${problem}`]
  })
  if (problems.length > 0) throw new UsageError(problems.join("\n"))
  return [...new Set(named.map(({ address }) => address))]
}

/** One address a line; blank lines and lines that begin with `#` are left out. */
export function parseRecipientsFile(text: string, file: string): Named[] {
  return text.split(/\r?\n/).flatMap((line, index) => {
    const address = line.trim()
    if (address === "" || address.startsWith("#")) return []
    return [{ address, place: `${file}, line ${index + 1}: ` }]
  })
}

function addressProblem(text: string, relay: string | undefined): string | undefined {
  try {
    const { host } = parseAddress(text)
    if (host !== undefined || relay !== undefined) return undefined
    return "it names no relay: write it as knot1…@host, or say --relay URL"
  } catch (error) {
    if (error instanceof FormatError) return withoutField(error)
    throw error
  }
}

/** The origin of a relay as it was written: a URL, or `host[:port]`. */
export function parseRelay(text: string): string {
  // A bare word would do as a host of the local network, and is more often a slip.
  if (!/[.:]|^localhost$/i.test(text)) throw notARelay(text, "it is a single word")
  try {
    return originOf(text.includes("://") ? hostOf(text) : text)
  } catch (error) {
    if (!(error instanceof FormatError)) throw error
    throw notARelay(text, withoutField(error))
  }
}

function notARelay(text: string, reason: string): UsageError {
  return new UsageError(
    `'${showText(text)}' is not the URL of a relay: ${reason}\nWrite it as https://host[:port]; http is for this machine and .onion hosts only.`,
  )
}
