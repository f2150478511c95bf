import { chmodSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import path from "node:path"
import { describe, expect, test } from "vitest"
import {
  changeContacts,
  type Contact,
  findContact,
  knownSenders,
  parseContactName,
  readContacts,
  UnusableContacts,
} from "../../client/index.js"
import { createIdentity, encodeAddress, toBase64url } from "../../protocol/index.js"
import { scratchFolder } from "./folders.js"
import { someIdentity } from "./setting.js"

async function aContact(name: string): Promise<Contact> {
  const { bundle } = await someIdentity()
  return { name, host: "relay.example", bundle, comparedMs: undefined }
}

function aBook(): string {
  return path.join(scratchFolder(), "folder", "contacts.json")
}

describe("the address book", () => {
  test("is empty where there is none, and gives back what was put in", async () => {
    const file = aBook()
    expect(readContacts(file)).toEqual([])
    const anna = { ...(await aContact("anna")), comparedMs: 7 }
    const bob = await aContact("Bob")
    await changeContacts(file, () => [bob, anna])
    expect(readContacts(file)).toEqual([anna, bob])
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(readdirSync(path.dirname(file))).toEqual(["contacts.json"])
  })

  test("finds a name in either case, however its accents are written", async () => {
    const [zoe] = [await aContact("Zoë")]
    expect(findContact([zoe], "zoe\u0308")).toBe(zoe)
    expect(findContact([zoe], "zoe")).toBeUndefined()
  })

  test("knows a sender by the fingerprint of the whole bundle", async () => {
    const anna = await aContact("anna")
    const known = knownSenders([anna])
    expect(known(anna.bundle.fingerprint)).toBe(anna.bundle)
    const [first = 0, ...rest] = anna.bundle.fingerprint
    expect(known(Uint8Array.of(first ^ 1, ...rest))).toBeUndefined()
  })

  test("takes changes by many at once, one after the other", async () => {
    const file = aBook()
    const contacts = await Promise.all(Array.from({ length: 8 }, (_, at) => aContact(`c${at}`)))
    await Promise.all(contacts.map((one) => changeContacts(file, (known) => [...known, one])))
    expect(readContacts(file)).toEqual(contacts)
  })

  test("stays as it is when a change is refused", async () => {
    const file = aBook()
    const anna = await aContact("anna")
    await changeContacts(file, () => [anna])
    const refused = changeContacts(file, () => {
      throw new RangeError("no")
    })
    await expect(refused).rejects.toThrow("no")
    expect(readContacts(file)).toEqual([anna])
    expect(readdirSync(path.dirname(file))).toEqual(["contacts.json"])
  })

  test("that is damaged is an error that names it, and is never written over", async () => {
    const file = aBook()
    const anna = await aContact("anna")
    await changeContacts(file, () => [anna])
    const whole = readFileSync(file, "utf8")
    const other = await createIdentity()
    const damaged = [
      "",
      whole.slice(0, -20),
      whole.replace('"v": 1', '"v": 2'),
      whole.replace('"anna"', '"-anna"'),
      whole.replace("@relay.example", ""),
      whole.replace('"name"', '"ticket": "x", "name"'),
      // Another's key beside a known address.
      whole.replace(toBase64url(anna.bundle.bytes), toBase64url(other.bundle.bytes)),
      whole.replace(anna.bundle.address, encodeAddress(other.bundle.inboxId)),
      JSON.stringify({
        v: 1,
        contacts: [JSON.parse(whole).contacts[0], JSON.parse(whole).contacts[0]],
      }),
    ]
    for (const text of damaged) {
      expect(text).not.toBe(whole)
      writeFileSync(file, text)
      expect(() => readContacts(file), text.slice(0, 60)).toThrow(UnusableContacts)
      expect(() => readContacts(file)).toThrow(file)
      await expect(changeContacts(file, () => [])).rejects.toThrow(UnusableContacts)
      expect(readFileSync(file, "utf8")).toBe(text)
    }
  })

  test("that others may write to is not believed", async () => {
    const file = aBook()
    await changeContacts(file, () => [])
    chmodSync(file, 0o620)
    expect(() => readContacts(file)).toThrow("chmod 600")
  })
})

describe("a contact's name", () => {
  test("is letters, digits and a few signs, in one form", () => {
    for (const name of ["anna", "Ann-Marie_2", "j.doe", "中村", "Zoë"]) {
      expect(parseContactName(name), name).toBe(name)
    }
    expect(parseContactName("Zoe\u0308")).toBe("Zoë")
  })

  test("is nothing that could be taken for something else", () => {
    const not = ["", "-r", "#anna", "a b", "anna@host", "https://h/to/x", "knot1anna", "KNOT1x"]
    for (const name of [...not, "a\u202eb", "a\u200bb", "a/b", "a\n", "x".repeat(64)]) {
      expect(parseContactName(name), name).toBeUndefined()
    }
  })
})
