// The address book: who is meant by a name, and whether the words were compared.
import { equalBytes, fingerprintWords, originOf, toHex } from "../../protocol/index.js"
import {
  changeContacts,
  contactAddress,
  contactOf,
  fetchBundle,
  findContact,
  openState,
  readContacts,
} from "../index.js"
import type { Contact } from "../index.js"
import { isoTime } from "../iso-time.js"
import type { ContactRequest } from "./command-line.js"
import type { Context } from "./context.js"
import { showTime } from "./display.js"
import { NameTaken, UsageError, WordsDiffer } from "./errors.js"
import { terminalOrRefuse } from "./prompts.js"
import { parseRecipient, parseRelay, refuseUnknownContact } from "./recipients.js"
import { readConfig } from "./settings.js"

type Of<Action> = Extract<ContactRequest, { readonly action: Action }>

export async function manageContacts(request: ContactRequest, context: Context): Promise<void> {
  switch (request.action) {
    case "add":
      return addContact(request, context)
    case "list":
      return listContacts(context)
    case "verify":
      return verifyContact(request, context)
    case "remove":
      return removeContact(request, context)
  }
}

async function addContact(request: Of<"add">, context: Context): Promise<void> {
  const { paths, output } = context
  const { name } = request
  // A book that cannot be used is found out before the relay is asked.
  readContacts(paths.contactsFile)
  const written = request.relay ?? readConfig(paths).relay
  const recipient = parseRecipient(
    request.address,
    written === undefined ? undefined : parseRelay(written),
  )
  const bundle = await context.work((work) =>
    fetchBundle({
      relay: originOf(recipient.host),
      address: recipient.address,
      state: openState(paths.stateFolder),
      ...work,
    }),
  )
  let contact: Contact = { name, host: recipient.host, bundle, comparedMs: undefined }
  let before: Contact | undefined
  await changeContacts(paths.contactsFile, (contacts) => {
    before = findContact(contacts, name)
    const namesake = contactOf(contacts, bundle.fingerprint)
    if (namesake !== undefined && namesake !== before) {
      throw new NameTaken(
        `that is the address of '${namesake.name}' already\nUse that name, or take it away with 'knothole contact remove ${namesake.name}'.`,
      )
    }
    if (before === undefined) return [...contacts, contact]
    const isSameKey = equalBytes(before.bundle.fingerprint, bundle.fingerprint)
    if (isSameKey) contact = { ...contact, name: before.name, comparedMs: before.comparedMs }
    if (contactAddress(before) !== contactAddress(contact) && !request.replace) {
      throw new NameTaken(otherAddress(before, contact))
    }
    return contacts.map((known) => (known === before ? contact : known))
  })
  const words = wordsOf(contact)
  output.result(words.join(" "))
  const isNew = before === undefined || contactAddress(before) !== contactAddress(contact)
  const became = before === undefined ? "added" : isNew ? "changed" : "here already"
  output.say(
    contact.comparedMs === undefined
      ? `'${contact.name}' is ${became}, and not compared yet: the address could be another's than you think.\nAsk them, by voice or in person, for the words of their 'knothole address'. If they are these, run:\n  knothole contact verify ${contact.name}`
      : `'${contact.name}' has the key you compared words for; nothing needs to be compared again.`,
  )
  output.event("contact", contactForPrograms(contact))
}

function otherAddress(before: Contact, after: Contact): string {
  return [
    `the contact '${before.name}' has another address; nothing was changed`,
    `  kept:  ${contactAddress(before)}`,
    `  given: ${contactAddress(after)}`,
    "If they told you themselves that theirs is a new one, run the same with --replace; else keep both under two names.",
  ].join("\n")
}

function listContacts({ paths, output }: Context): void {
  const contacts = readContacts(paths.contactsFile)
  const width = Math.max(0, ...contacts.map(({ name }) => name.length))
  for (const contact of contacts) {
    output.result(
      `${contact.name.padEnd(width)}  ${contactAddress(contact)}  ${comparedText(contact)}\n${" ".repeat(width)}  ${wordsOf(contact).join(" ")}`,
    )
  }
  output.list(contacts.map(contactForPrograms))
  if (contacts.length === 0) {
    output.say("You have no contacts yet; 'knothole contact add NAME ADDRESS' makes one.")
  }
}

function comparedText({ comparedMs }: Contact): string {
  return comparedMs === undefined ? "not compared yet" : `verified ${showTime(comparedMs)}`
}

async function verifyContact(request: Of<"verify">, context: Context): Promise<void> {
  const { paths, output } = context
  const contact = contactNamed(request.name, context)
  const words = wordsOf(contact)
  const { name } = contact
  if (request.words.length > 0) compareWords(request.words, contact)
  else await askAboutWords(contact, context)
  const comparedMs = Date.now()
  await changeContacts(paths.contactsFile, (contacts) => {
    const known = findContact(contacts, name)
    // Another process may have given the name to somebody else while this one was asking.
    if (known === undefined || !equalBytes(known.bundle.fingerprint, contact.bundle.fingerprint)) {
      throw new NameTaken(`'${name}' was changed meanwhile; nothing was recorded. Compare again`)
    }
    return contacts.map((other) => (other === known ? { ...known, comparedMs } : other))
  })
  output.say(`'${name}' is verified. What comes from this key is shown as from them.`)
  output.event("contact", contactForPrograms({ ...contact, comparedMs }))
  output.result(words.join(" "))
}

function compareWords(heard: readonly string[], contact: Contact): void {
  const words = wordsOf(contact)
  if (heard.length !== words.length) {
    throw new UsageError(
      `${heard.length} words where ${words.length} are compared; give all of them`,
    )
  }
  const wrong = words.flatMap((word, at) => (heard[at]?.toLowerCase() === word ? [] : [at + 1]))
  if (wrong.length === 0) return
  throw new WordsDiffer(
    `${wrong.length === words.length ? "none of the words is" : `word ${wrong.join(", ")} is not`} that of '${contact.name}'; it stays as it was\n${afterDifference(contact)}`,
  )
}

async function askAboutWords(contact: Contact, { output }: Context): Promise<void> {
  const { name } = contact
  const terminal = terminalOrRefuse(
    `Give the words as they were read out: knothole contact verify ${name} WORD1 … WORD8`,
  )
  output.say(`Ask '${name}', by voice or in person, for the words of their 'knothole address'.`)
  terminal.say(`  ${wordsOf(contact).join(" ")}\n`)
  const answer = await terminal.ask("Are theirs exactly these? (yes or no) ")
  if (/^y(es)?$/i.test(answer.trim())) return
  throw new WordsDiffer(
    `'${name}' is not recorded as verified; it stays as it was\n${afterDifference(contact)}`,
  )
}

function afterDifference({ name }: Contact): string {
  return `If the words differ, this is not their address: ask them for it again, and take this one away with 'knothole contact remove ${name}'.`
}

async function removeContact(request: Of<"remove">, context: Context): Promise<void> {
  const { paths, output } = context
  const { name } = contactNamed(request.name, context)
  await changeContacts(paths.contactsFile, (contacts) => {
    const known = findContact(contacts, name)
    return contacts.filter((contact) => contact !== known)
  })
  output.say(`'${name}' is forgotten. What comes from this key is shown as unverified again.`)
  output.event("contact_removed", { name })
}

function contactNamed(name: string, { paths }: Context): Contact {
  const contacts = readContacts(paths.contactsFile)
  return findContact(contacts, name) ?? refuseUnknownContact(name, contacts)
}

function wordsOf({ bundle }: Contact): string[] {
  return fingerprintWords(bundle.fingerprint)
}

function contactForPrograms(contact: Contact): object {
  const { name, bundle, comparedMs } = contact
  return {
    name,
    address: contactAddress(contact),
    verified: comparedMs !== undefined,
    ...(comparedMs !== undefined && { compared: isoTime(comparedMs) }),
    words: wordsOf(contact),
    fingerprint: toHex(bundle.fingerprint),
  }
}
