/**
 * The people an owner knows: a name of the owner's own choosing, an address, and the bundle that was
 * held against that address when it was fetched. Because each bundle is checked again whenever the file
 * is read, a changed file can drop a contact or swap one for another, but never put another's key
 * beside an address.
 */
import path from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import {
  type Bundle,
  encodeAddress,
  equalBytes,
  FormatError,
  isBundleOf,
  JsonReader,
  maxBundleBytes,
  parseAddress,
  parseBundle,
  parseUtf8,
  toBase64url,
  utf8,
} from "../protocol/index.js"
import { parseContactName } from "./contact-name.js"
import type { KnownSenders } from "./delivery.js"
import { Locked, UnusableContacts } from "./errors.js"
import { makePrivateFolder, readPrivateFile, replacePrivateFile } from "./private-files.js"
import { type Lock, takeLock } from "./state.js"

export interface Contact {
  readonly name: string
  /** `host[:port]` of the relay where this contact has its inbox. */
  readonly host: string
  readonly bundle: Bundle
  /** When the owner found the words of both sides to be the same; undefined until then. */
  readonly comparedMs: number | undefined
}

/** `knot1…@host`, as it is sent to. */
export function contactAddress({ bundle, host }: Contact): string {
  return encodeAddress(bundle.inboxId, host)
}

/** Upper and lower case are one name: a person who types one means the other. */
export function findContact(contacts: readonly Contact[], name: string): Contact | undefined {
  const wanted = nameKey(name)
  return contacts.find((contact) => nameKey(contact.name) === wanted)
}

function nameKey(name: string): string {
  return name.normalize("NFC").toLowerCase()
}

/** For `openInbox`: whose fingerprint a sender claims. */
export function knownSenders(contacts: readonly Contact[]): KnownSenders {
  return (fingerprint) => contactOf(contacts, fingerprint)?.bundle
}

export function contactOf(
  contacts: readonly Contact[],
  fingerprint: Uint8Array,
): Contact | undefined {
  return contacts.find(({ bundle }) => equalBytes(bundle.fingerprint, fingerprint))
}

/** None when there is no file. Throws UnusableContacts for one that is damaged or open to others. */
export function readContacts(file: string): Contact[] {
  const bytes = readBook(file)
  if (bytes === undefined) return []
  try {
    return parseContacts(bytes)
  } catch (error) {
    if (!(error instanceof FormatError) && !(error instanceof SyntaxError)) throw error
    throw new UnusableContacts(
      file,
      `the address book ${file} is damaged: ${error.message}\nNothing in it was changed. Correct it, put a backup in its place, or move it away and add your contacts again.`,
      { cause: error },
    )
  }
}

/** Some 10,000 contacts. */
const mostBookBytes = 32 * 1024 * 1024

function readBook(file: string): Uint8Array | undefined {
  return readPrivateFile(file, {
    mostBytes: mostBookBytes,
    refuse: (trouble) =>
      new UnusableContacts(
        file,
        trouble === "too large"
          ? `the address book ${file} is too large to be one`
          : // Who may write it decides whose signature counts as whose; who may read it learns whom one knows.
            `others on this machine may read or change the address book ${file}\nTake that right away (chmod 600), and compare words again with those who matter if others may have written to it.`,
      ),
  })
}

/** Long enough for any change by another process, which takes milliseconds. */
const lockPatienceMs = 5_000
const lockAgainAfterMs = 50

/**
 * Replaces the contacts by what `change` makes of them; durable when this ends. Changes by several
 * processes come one after the other. When `change` throws, the file stays as it is.
 */
export async function changeContacts(
  file: string,
  change: (contacts: readonly Contact[]) => readonly Contact[],
): Promise<void> {
  await makePrivateFolder(path.dirname(file))
  const lock = await takeLockPatiently(`${file}.lock`)
  try {
    await replacePrivateFile(file, encodeContacts(change(readContacts(file))))
  } finally {
    await lock.release()
  }
}

async function takeLockPatiently(file: string): Promise<Lock> {
  for (let waitedMs = 0; ; waitedMs += lockAgainAfterMs) {
    try {
      return await takeLock(file, "changing the address book")
    } catch (error) {
      if (!(error instanceof Locked) || waitedMs >= lockPatienceMs) throw error
    }
    await sleep(lockAgainAfterMs)
  }
}

const mostContacts = 10_000

function encodeContacts(contacts: readonly Contact[]): Uint8Array {
  const rows = [...contacts]
    .sort((a, b) => (nameKey(a.name) < nameKey(b.name) ? -1 : 1))
    .map((contact) => ({
      name: contact.name,
      address: contactAddress(contact),
      bundle: toBase64url(contact.bundle.bytes),
      ...(contact.comparedMs !== undefined && { compared_ms: contact.comparedMs }),
    }))
  return utf8(`${JSON.stringify({ v: 1, contacts: rows }, null, 2)}\n`)
}

/** A member that is not known is refused: to write the file again would lose it. */
function parseContacts(bytes: Uint8Array): Contact[] {
  const value: unknown = JSON.parse(parseUtf8(bytes, "contacts"))
  const reader = new JsonReader(value, "contacts")
  const version = reader.count("v")
  if (version !== 1) reader.refuse("v", `version ${version}, which this program does not know`)
  const contacts = reader.list("contacts", mostContacts, parseContact)
  reader.end()
  for (const [at, { name }] of contacts.entries()) {
    const first = findContact(contacts, name)
    if (first !== contacts[at]) reader.refuse(`contacts.${at}.name`, "a name that is there twice")
  }
  return contacts
}

function parseContact(item: unknown, at: number): Contact {
  const reader: JsonReader = new JsonReader(item, `contacts.${at}`)
  const name = parseContactName(reader.text("name"))
  if (name === undefined) reader.refuse("name", "not a name")
  const { inboxId, host } = parseAddress(reader.text("address"))
  if (host === undefined) reader.refuse("address", "it names no relay")
  const bundle = parseBundle(reader.bytesUpTo("bundle", maxBundleBytes))
  if (!isBundleOf(bundle, inboxId)) reader.refuse("bundle", "not the keys of this address")
  const comparedMs = reader.has("compared_ms") ? reader.count("compared_ms") : undefined
  reader.end()
  return { name, host, bundle, comparedMs }
}
