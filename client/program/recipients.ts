// Who shall be able to open a delivery, from the command line and from files.
import { readFileSync } from "node:fs"
import { text as readAll } from "node:stream/consumers"
import { FormatError, hostOf, originOf, parseAddress } from "../../protocol/index.js"
import { parseContactName } from "../contact-name.js"
import { contactAddress, findContact, readContacts } from "../contacts.js"
import type { Contact } from "../contacts.js"
import { showText } from "./display.js"
import { UsageError, withoutField } from "./errors.js"

interface Named {
  /** An address, a drop page's link, or the name of a contact. */
  readonly who: string
  /** Where it was written, for whoever has to correct it. */
  readonly place: string
}

/** Addresses, in the order they were named, with contacts' names replaced. One bad line refuses all. */
export async function readRecipients(options: {
  recipients: readonly string[]
  recipientFiles: readonly string[]
  relay: string | undefined
  contactsFile: string
  stdin: AsyncIterable<Uint8Array>
}): Promise<string[]> {
  const named: Named[] = options.recipients.map((who) => ({ who, place: "" }))
  for (const file of options.recipientFiles) {
    const text = file === "-" ? await readAll(options.stdin) : readFileSync(file, "utf8")
    named.push(...parseRecipientsFile(text, file === "-" ? "stdin" : file))
  }
  if (named.length === 0) {
    throw new UsageError("to whom? Give one address or more with -r, or a file of them with -R")
  }
  // Who uses no contacts is not kept from sending by what is wrong with the address book.
  const contacts = named.some(({ who }) => parseContactName(who) !== undefined)
    ? readContacts(options.contactsFile)
    : []
  const addresses = new Set<string>()
  const problems: string[] = []
  for (const { who, place } of named) {
    try {
      addresses.add(resolve(who, contacts, options.relay))
    } catch (error) {
      if (!(error instanceof UsageError)) throw error
      problems.push(`${place}${error.message}`)
    }
  }
  if (problems.length > 0) throw new UsageError(problems.join("\n"))
  return [...addresses]
}

/** One recipient a line; blank lines and lines that begin with `#` are left out. */
export function parseRecipientsFile(text: string, file: string): Named[] {
  return text.split(/\r?\n/).flatMap((line, index) => {
    const who = (index === 0 ? line.replace(/^\uFEFF/, "") : line).trim()
    if (who === "" || who.startsWith("#")) return []
    return [{ who, place: `${showText(file)}, line ${index + 1}: ` }]
  })
}

function resolve(who: string, contacts: readonly Contact[], relay: string | undefined): string {
  const contact = parseContactName(who) && findContact(contacts, who)
  if (contact !== undefined && contact !== "") return contactAddress(contact)
  // Nearly as long as an address, it was meant as one: then the address says what is wrong with it.
  if (parseContactName(who) !== undefined && who.length < shortestSlip) {
    refuseUnknownContact(who, contacts)
  }
  const { address, host } = parseRecipient(who, relay)
  return `${address}@${host}`
}

const shortestSlip = 30

export function refuseUnknownContact(name: string, contacts: readonly Contact[]): never {
  const names = contacts.map((contact) => contact.name)
  const near = names.filter((known) =>
    known.toLowerCase().startsWith(name.slice(0, 2).toLowerCase()),
  )
  const listed = (near.length > 0 ? near : names).slice(0, 10)
  throw new UsageError(
    `'${showText(name)}': it is no address, and there is no contact of that name${listed.length === 0 ? "" : `; there is ${listed.join(", ")}`}`,
  )
}

/** Throws UsageError for what is mistyped and for what names no relay when there is no other word of one. */
export function parseRecipient(
  text: string,
  relay: string | undefined,
): { readonly address: string; readonly host: string } {
  try {
    const { address, host } = parseAddress(text)
    if (host !== undefined) return { address, host }
    if (relay !== undefined) return { address, host: hostOf(relay) }
  } catch (error) {
    if (!(error instanceof FormatError)) throw error
    throw new UsageError(`'${showText(text)}': ${withoutField(error)}`)
  }
  throw new UsageError(
    `'${showText(text)}': it names no relay: write it as knot1…@host, or say --relay URL`,
  )
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
