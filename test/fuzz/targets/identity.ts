/** Bundles, addresses and key files. */
import type { Draws } from "../random.js"
import { fromSketches, mutateBytes, sketch, type Sketch } from "../mutate-bytes.js"
import { fromTexts } from "../mutate-text.js"
import { hex, type Person, type Subject, type Vectors } from "../subject.js"
import {
  judge,
  judgeLater,
  mustBeBytes,
  mustBeText,
  mustEqual,
  mustHold,
  type Target,
} from "../target.js"

function seedOf(text: string | null): Uint8Array | undefined {
  return text === null ? undefined : hex(text)
}

export async function personOf({ identity }: Subject, person: Person) {
  return identity.identityFromKeys({
    rsaPkcs8: hex(person.rsa_pkcs8),
    authSeed: hex(person.x25519_seed),
    xwingSeed: seedOf(person.xwing_seed),
    signSeed: seedOf(person.ed25519_seed),
  })
}

function sketchBundle(bytes: Uint8Array): Sketch {
  const flags = bytes[5] ?? 0
  const modulusLength = 256 * (bytes[6] ?? 0) + (bytes[7] ?? 0)
  return sketch(bytes, [
    ["magic", 4],
    ["version", 1],
    ["flags", 1],
    ["number", 2],
    ["flags", 1],
    ["opaque", modulusLength - 2],
    ["flags", 1],
    ["opaque", 32],
    ["opaque", (flags & 1) * 1184],
    ["opaque", (flags & 1) * 32],
    ["opaque", (flags >> 1) * 32],
  ])
}

function bundles({ identity, errors, bytes }: Subject, vectors: Vectors): Target {
  const { concatBytes, u16, utf8, isZero } = bytes
  const sketches = Object.values(vectors.people).map(({ bundle }) => sketchBundle(hex(bundle)))
  return {
    name: "bundle",
    ...fromSketches(sketches),
    run: (input) =>
      judge(
        [errors.FormatError],
        () => identity.parseBundle(mustBeBytes(input)),
        (bundle) => {
          const { modulus, authKey, xwingKey, signKey } = bundle
          const none = new Uint8Array(0)
          const again = concatBytes(
            utf8("KNHB"),
            Uint8Array.of(1, (xwingKey ? 1 : 0) + (signKey ? 2 : 0)),
            u16(modulus.length),
            modulus,
            authKey,
            xwingKey ?? none,
            signKey ?? none,
          )
          mustEqual("bundle", again, mustBeBytes(input))
          mustEqual("bundle.bytes", bundle.bytes, mustBeBytes(input))
          mustHold("eight words", identity.fingerprintWords(bundle.fingerprint).length === 8)
          mustHold("its own inbox", identity.isBundleOf(bundle, bundle.inboxId))
          mustHold("a zero auth key", !isZero(authKey))
          mustHold("an even modulus", (modulus.at(-1) ?? 0) % 2 === 1)
          mustHold("a short modulus", (modulus[0] ?? 0) >= 0x80)
        },
      ),
  }
}

function addresses({ identity, errors, bytes }: Subject, vectors: Vectors): Target {
  const bare = Object.values(vectors.people).map(({ address }) => address)
  const hosts = ["relay.example", "relay.example:8443", "localhost:8787", "127.0.0.1", "[::1]:80"]
  const seeds = [
    ...bare,
    ...hosts.map((host) => `${bare[0]}@${host}`),
    `https://relay.example/to/${bare[1]}`,
    `http://localhost:8787/to/${bare[2]}/`,
    `http://${"a".repeat(56)}.onion/to/${bare[2]}`,
  ]
  return {
    name: "address",
    ...fromTexts(seeds),
    // A mistyped one is tried with every other character at every place, to say where the slip is.
    allocation: { perByte: 4096, fixed: 8 * 1024 * 1024 },
    run: (input) =>
      judge(
        [errors.FormatError],
        () => identity.parseAddress(mustBeText(input)),
        (address) => {
          const text = mustBeText(input)
          mustHold("the address is in the text", text.includes(address.address))
          const canonical = identity.encodeAddress(address.inboxId, address.host)
          mustHold("the bare address", identity.encodeAddress(address.inboxId) === address.address)
          const again = identity.parseAddress(canonical)
          mustEqual("inbox", again.inboxId, address.inboxId)
          mustHold("the host keeps", again.host === address.host)
          mustHold("characters of a host", /^[a-z0-9.\-_:[\]]*$/.test(address.host ?? ""))
          if (!text.includes("@") && !text.includes("/")) {
            mustEqual("one spelling", bytes.utf8(text), bytes.utf8(canonical))
          }
        },
      ),
  }
}

function hosts({ identity, errors }: Subject): Target {
  const seeds = ["relay.example", "relay.example:8443", "localhost", "127.0.0.1:8787", "[::1]:8787"]
  seeds.push(`${"b".repeat(56)}.onion`, "[2001:db8::1]:444", "xn--bcher-kva.example")
  const origins = seeds.map((host) => (/^(l|1|\[::|b)/.test(host) ? "http://" : "https://") + host)
  return {
    name: "host and origin",
    ...fromTexts([...seeds, ...origins]),
    run: (input) =>
      judge(
        [errors.FormatError],
        () => {
          const text = mustBeText(input)
          if (text.includes("://")) return identity.hostOf(text)
          identity.originOf(text)
          return text.toLowerCase()
        },
        (host) => {
          const origin = identity.originOf(host)
          const canonical = identity.hostOf(origin)
          mustHold("an origin comes back", identity.originOf(canonical) === origin)
          const url = new URL(origin)
          mustHold("an origin only", url.origin === origin || !origin.startsWith("http"))
          mustHold("nothing but a host", url.username + url.search + url.hash === "")
        },
      ),
  }
}

export function sketchKeyFile(bytes: Uint8Array): Sketch {
  const bundleLength = 256 * (bytes[24] ?? 0) + (bytes[25] ?? 0)
  const secretsLength = bytes.length - 28 - bundleLength - 32
  const plain = bytes[5] === 0
  const bundleFields = sketchBundle(bytes.subarray(26, 26 + bundleLength)).fields
  return sketch(bytes, [
    ["magic", 4],
    ["version", 1],
    ["flags", 1],
    ["number", 1],
    ["reserved", 1],
    [plain ? "reserved" : "opaque", 16],
    ["number", 2],
    ...bundleFields.map(({ kind, length }) => [kind, length] as const),
    ["number", 2],
    // Unsealed, the secrets begin with the length of the PKCS#8.
    ["number", 2],
    ["opaque", secretsLength - 2],
    ["opaque", 32],
  ])
}

const sevens = (length: number) => new Uint8Array(length).fill(7)

const passphrase = "a passphrase for the fuzzer"

async function keyFiles(subject: Subject, vectors: Vectors): Promise<Target> {
  const { keyFile, errors, provider } = subject
  const { full, rsaOnly, sender } = vectors.people
  const files = await Promise.all([
    keyFile.sealIdentity(await personOf(subject, full), undefined),
    keyFile.sealIdentity(await personOf(subject, rsaOnly), undefined),
    keyFile.sealIdentity(await personOf(subject, sender), passphrase, { logN: 10, random: sevens }),
  ])
  const sketches = files.map(sketchKeyFile)
  // Without a right digest nothing behind it is reached.
  const digested = (file: Uint8Array) => {
    const open = file.subarray(0, Math.max(0, file.length - 32))
    return new Uint8Array(Buffer.concat([open, provider.sha256(open)]))
  }
  return {
    name: "key file",
    seeds: files,
    make: (draws: Draws) => {
      const file = mutateBytes(draws, draws.pick(sketches), sketches)
      return draws.chance(0.9) ? digested(file) : file
    },
    allocation: { perByte: 256, fixed: 4 * 1024 * 1024 },
    run: (input) => {
      const file = mustBeBytes(input)
      // scrypt takes what the file asks for, up to its cap; that is not the parser's work.
      if ((file[6] ?? 0) > 11) {
        return judge(
          [errors.FormatError],
          () => keyFile.identityFileInfo(file),
          ({ sealed }) => mustHold("a work factor is of a sealed file", sealed),
        )
      }
      return judgeLater(
        [errors.FormatError, errors.OpenError],
        async () => {
          const { sealed } = keyFile.identityFileInfo(file)
          const opened = await keyFile.openIdentity(file, sealed ? passphrase : undefined)
          return keyFile.sealIdentity(opened, sealed ? passphrase : undefined, {
            ...(sealed && { logN: file[6] ?? 0 }),
            random: () => file.slice(8, 24),
          })
        },
        (again) => mustEqual("key file", again, file),
      )
    },
  }
}

export async function identityTargets(subject: Subject, vectors: Vectors): Promise<Target[]> {
  return [
    bundles(subject, vectors),
    addresses(subject, vectors),
    hosts(subject),
    await keyFiles(subject, vectors),
  ]
}
