/** What an owner keeps and may lose or get back damaged: the address book, and a backup of the identity. */
import { rmSync, writeFileSync } from "node:fs"
import path from "node:path"
import { mutateBytes, sketch } from "../mutate-bytes.js"
import { fromJson, type Json } from "../mutate-json.js"
import type { Draws } from "../random.js"
import type { Subject, Vectors } from "../subject.js"
import {
  judge,
  judgeLater,
  mustBeBytes,
  mustBeText,
  mustEqual,
  mustHold,
  type Target,
} from "../target.js"
import { filled, scratchFolder } from "./client.js"
import { personOf, sketchKeyFile } from "./identity.js"

function addressBooks({ contacts, identity, clientErrors }: Subject, vectors: Vectors): Target {
  const file = path.join(scratchFolder(), "contacts.json")
  const { full, rsaOnly, sender } = vectors.people
  const row = (name: string, { address, bundle }: typeof full, more: { compared_ms?: number }) => ({
    name,
    address: `${address}@relay.example`,
    bundle: Buffer.from(bundle, "hex").toString("base64url"),
    ...more,
  })
  const rows = [
    row("anna", full, { compared_ms: 1_767_225_600_000 }),
    row("Bj\u00f6rn", rsaOnly, {}),
    row("carol.2", sender, {}),
  ]
  const books: Json[] = [
    { v: 1, contacts: rows },
    { v: 1, contacts: rows.slice(1) },
    { v: 1, contacts: [] },
  ]
  return {
    name: "address book",
    seeds: ["", ...fromJson(books).seeds],
    make: fromJson(books).make,
    // Bundles are parsed and hashed, and what was accepted is written and read once more.
    allocation: { perByte: 256, fixed: 1024 * 1024 },
    run: async (input) => {
      // Nobody is known yet.
      if (mustBeText(input) === "") rmSync(file, { force: true })
      else writeFileSync(file, mustBeText(input), { mode: 0o600 })
      let known: ReturnType<typeof contacts.readContacts> = []
      const verdict = judge(
        [clientErrors.UnusableContacts],
        () => contacts.readContacts(file),
        (read) => {
          known = read
          for (const contact of read) {
            const { inboxId } = identity.parseAddress(contacts.contactAddress(contact))
            mustHold("the keys of the address", identity.isBundleOf(contact.bundle, inboxId))
            mustHold("found by its name", contacts.findContact(read, contact.name) === contact)
          }
        },
      )
      if (verdict === "refused") return verdict
      await contacts.changeContacts(file, (same) => same)
      const told = (all: typeof known) =>
        all.map((one) => [one.name, contacts.contactAddress(one), one.comparedMs].join(" ")).sort()
      const again = contacts.readContacts(file)
      mustHold("written again it says the same", told(again).join() === told(known).join())
      return verdict
    },
  }
}

const passphrase = "a passphrase for the fuzzer"
/** A backup's own fields before the key file. */
const keyFileAt = 7
/** What a length of two bytes can say, less the tag of what is sealed. */
const mostFieldBytes = 65_535 - 16

async function backups(subject: Subject, vectors: Vectors): Promise<Target> {
  const { backup, keyFile, identity, errors, provider, bytes } = subject
  const { concatBytes, u16, utf8 } = bytes
  const owner = await personOf(subject, vectors.people.rsaOnly)
  const options = { logN: 10, random: (length: number) => filled(length, 7) }
  const sealedKey = await keyFile.sealIdentity(owner, passphrase, options)
  const plainKey = await keyFile.sealIdentity(owner, undefined)
  const nonce = filled(12, 3)
  const key = provider.hkdfSha256({
    ikm: owner.authSeed,
    salt: new Uint8Array(0),
    info: utf8("knothole client backup v1"),
    length: 32,
  })
  const digested = (file: Uint8Array) => concatBytes(file, provider.sha256(file))
  const digestedAnew = (file: Uint8Array) =>
    digested(file.subarray(0, Math.max(0, file.length - 32)))
  const encode = (wholeKey: Uint8Array, home: string) => {
    const ownKey = wholeKey.subarray(0, mostFieldBytes)
    const plaintext = new Uint8Array(Buffer.from(home)).subarray(0, mostFieldBytes)
    const open = concatBytes(utf8("KNHU"), Uint8Array.of(1), u16(ownKey.length), ownKey, nonce)
    const ciphertext = provider.gcmSeal({ key, nonce, aad: open, plaintext })
    return digested(concatBytes(open, u16(ciphertext.length), ciphertext))
  }
  const homes = fromJson([
    {
      name: "default",
      relay: "https://relay.example",
      former_relays: ["https://old.example:8443", "http://localhost:8787"],
    },
    { name: "work-2", former_relays: [] },
  ])
  const seeds = homes.seeds.map((home) => encode(sealedKey, home))
  const sketches = seeds.map((file) =>
    sketch(file, [
      ["magic", 4],
      ["version", 1],
      ["number", 2],
      ["opaque", sealedKey.length],
      ["opaque", 12],
      ["number", 2],
      ["opaque", file.length - keyFileAt - sealedKey.length - 12 - 2 - 32],
      ["opaque", 32],
    ]),
  )
  const keys = [sealedKey, plainKey].map(sketchKeyFile)
  return {
    name: "backup",
    seeds,
    make: (draws: Draws) => {
      switch (draws.below(3)) {
        case 0:
          return encode(sealedKey, homes.make(draws))
        case 1: {
          const changed = mutateBytes(draws, draws.pick(keys), keys)
          const own = draws.chance(0.9) ? digestedAnew(changed) : changed
          return encode(own, homes.seeds[0] ?? "")
        }
        default: {
          const file = mutateBytes(draws, draws.pick(sketches), sketches)
          return draws.chance(0.9) ? digestedAnew(file) : file
        }
      }
    },
    allocation: { perByte: 256, fixed: 4 * 1024 * 1024 },
    run: (input) => {
      const file = mustBeBytes(input)
      // scrypt takes what the file asks for, up to its cap; that is not the parser's work.
      if ((file[keyFileAt + 6] ?? 0) > 11) {
        return judge(
          [errors.FormatError],
          () => backup.backupInfo(file),
          ({ sealed }) => mustHold("a backup is sealed", sealed),
        )
      }
      return judgeLater(
        [errors.FormatError, errors.OpenError],
        () => backup.openBackup(file, passphrase),
        (opened) => {
          const length = opened.keyFile.length
          mustEqual("key file", opened.keyFile, file.subarray(keyFileAt, keyFileAt + length))
          const { sealed, bundle } = backup.backupInfo(file)
          mustHold("a backup is sealed", sealed)
          mustEqual("the owner's", opened.identity.bundle.bytes, owner.bundle.bytes)
          mustEqual("told without its passphrase", bundle.bytes, owner.bundle.bytes)
          const { relay, formerRelays } = opened.home
          for (const origin of [...formerRelays, ...(relay === undefined ? [] : [relay])]) {
            mustHold("an origin", identity.originOf(identity.hostOf(origin)) === origin)
          }
        },
      )
    },
  }
}

export async function ownerTargets(subject: Subject, vectors: Vectors): Promise<Target[]> {
  return [addressBooks(subject, vectors), await backups(subject, vectors)]
}
