/** Headers, envelopes, links, and the payload behind their seals. */
import { fromSketches, mutateBytes, sketch, type FieldKind, type Sketch } from "../mutate-bytes.js"
import { fromTexts } from "../mutate-text.js"
import { hex, type Subject, type Vectors } from "../subject.js"
import {
  judge,
  judgeLater,
  mustBeBytes,
  mustBeText,
  mustEqual,
  mustHold,
  type Target,
} from "../target.js"
import { personOf } from "./identity.js"
import { headerLayout } from "./records.js"

type Layout = readonly (readonly [FieldKind, number])[]

function headers({ header, errors }: Subject, vectors: Vectors): Target {
  const known = vectors.deliveries.map((delivery) => hex(delivery.header))
  const [first = new Uint8Array()] = known
  const largest = header.encodeHeader({
    ...header.parseHeader(first),
    bodyLength: 64 * 2 ** 30,
    partCount: 8 + Math.ceil((64 * 2 ** 30 - 4608 * 1024) / 2 ** 20),
    manifestLength: 64 * 2 ** 20 + 16,
    notAfterMs: 2 ** 53 - 1,
  })
  return {
    name: "header",
    ...fromSketches([...known, largest].map((bytes) => sketch(bytes, headerLayout))),
    run: (input) =>
      judge(
        [errors.FormatError],
        () => header.parseHeader(mustBeBytes(input)),
        (found) => mustEqual("header", header.encodeHeader(found), mustBeBytes(input)),
      ),
  }
}

function envelopeLayout(length: number): Layout {
  const suite2 = length > 1200
  return [
    ["magic", 4],
    ["version", 1],
    ["version", 1],
    ["flags", 2],
    ["opaque", 32],
    ["opaque", length - 40 - (suite2 ? 1120 : 0) - 560],
    ...(suite2
      ? ([
          ["opaque", 1088],
          ["opaque", 32],
        ] as const)
      : []),
    ["opaque", 32],
    ["opaque", 528],
  ]
}

const sketchEnvelope = (bytes: Uint8Array) => sketch(bytes, envelopeLayout(bytes.length))

function envelopeStructures(subject: Subject, vectors: Vectors): Target[] {
  const { envelope, identity, errors, bytes } = subject
  const people = ["full", "rsaOnly", "wide"] as const
  const sketches = vectors.deliveries.flatMap(({ envelopes }) =>
    envelopes.map((sealed) => ({ to: sealed.to, sketch: sketchEnvelope(hex(sealed.envelope)) })),
  )
  return people.map((name): Target => {
    const recipient = identity.parseBundle(hex(vectors.people[name].bundle))
    const all = sketches.map((one) => one.sketch)
    const own = sketches.filter(({ to }) => to === name).map((one) => one.sketch)
    return {
      name: `envelope to ${name}`,
      seeds: own.map((one) => one.bytes),
      make: (draws) => mutateBytes(draws, draws.pick(draws.chance(0.8) ? own : all), all),
      run: (input) =>
        judge(
          [errors.FormatError],
          () => envelope.parseEnvelope(mustBeBytes(input), recipient),
          (parts) => {
            const again = bytes.concatBytes(
              bytes.utf8("KNHE"),
              Uint8Array.of(1, parts.suite, 0, 0),
              parts.headerHash,
              parts.rsaCiphertext,
              parts.xwingCiphertext,
              parts.com,
              parts.sealedPayload,
            )
            mustEqual("envelope", again, mustBeBytes(input))
            mustHold("its length", again.length === envelope.envelopeLength(recipient))
          },
        ),
    }
  })
}

/** What is drawn while sealing is the same each time, so that a seed makes the same inputs again. */
const drawn = (length: number, name = "") => new Uint8Array(length).fill(name.length + 1)

/** Envelopes of our own over one header of the vectors, in every mode a sender has. */
async function sealedByUs(subject: Subject, vectors: Vectors, to: "full" | "rsaOnly") {
  const { envelope, identity } = subject
  const [delivery] = vectors.deliveries
  if (delivery === undefined) throw new TypeError("the vectors hold no delivery")
  const { full, sender } = vectors.people
  const senders = [
    undefined,
    { identity: await personOf(subject, full), mode: "deniable" as const },
    { identity: await personOf(subject, sender), mode: "signature" as const },
  ]
  const payload = {
    ds: hex(delivery.random["ds"] ?? ""),
    createdMs: 1_767_225_600_000,
    threadSeq: 2,
    threadPrev: new Uint8Array(32).fill(6),
    replyTo: { inboxId: new Uint8Array(20).fill(1), host: "relay.example" },
  }
  const envelopes = await Promise.all(
    senders.map((one) =>
      envelope.sealEnvelope({
        recipient: identity.parseBundle(hex(vectors.people[to].bundle)),
        headerHash: hex(delivery.H_hdr),
        payload,
        sender: one,
        random: drawn,
      }),
    ),
  )
  return { header: delivery.header, envelopes }
}

/** A delivery as it arrives, header and envelope: nothing but the sealed one opens. */
async function deliveries(
  subject: Subject,
  vectors: Vectors,
  name: "full" | "rsaOnly",
): Promise<Target> {
  const { envelope, errors, identity } = subject
  const own = await personOf(subject, vectors.people[name])
  const { header, envelopes } = await sealedByUs(subject, vectors, name)
  const senders = Object.values(vectors.people).map(({ bundle }) =>
    identity.parseBundle(hex(bundle)),
  )
  const good = vectors.deliveries
    .flatMap((delivery) =>
      delivery.envelopes
        .filter(({ to }) => to === name)
        .map((sealed) => hex(delivery.header + sealed.envelope)),
    )
    .concat(envelopes.map((bytes) => new Uint8Array(Buffer.concat([hex(header), bytes]))))
  return {
    name: `delivery, opened by ${name}`,
    ...fromSketches(
      good.map((bytes) => sketch(bytes, [...headerLayout, ...envelopeLayout(bytes.length - 184)])),
    ),
    run: (input) => {
      const bytes = mustBeBytes(input)
      return judgeLater(
        [errors.OpenError],
        () =>
          envelope.openDelivery({
            identity: own,
            header: bytes.subarray(0, 184),
            envelope: bytes.subarray(184),
          }),
        ({ authentication }) => {
          const isGood = good.some((one) => Buffer.compare(one, bytes) === 0)
          mustHold("opened although nobody sealed it", isGood)
          const { mode } = authentication
          const proven = senders.filter((one) => mode !== "none" && authentication.verify(one))
          mustHold("a claim proves one sender", proven.length === (mode === "none" ? 0 : 1))
        },
      )
    },
  }
}

const payloadLayout: Layout = [
  ["version", 1],
  ["number", 1],
  ["reserved", 2],
  ["opaque", 32],
  ["number", 8],
  ["number", 8],
  ["opaque", 32],
  ["opaque", 32],
  ["opaque", 32],
  ["opaque", 32],
  ["reserved", 32],
  ["opaque", 20],
  ["number", 1],
  ["opaque", 16],
  ["reserved", 263],
]

/** A claim is opaque to the parser, its mode is not. */
const claimFrom = 84

function payloadSketches(subject: Subject, vectors: Vectors): Sketch[] {
  const { payload } = subject
  const known = vectors.deliveries
    .flatMap(({ envelopes, links }) => [...envelopes, ...links])
    .map((sealed) => new Uint8Array(Buffer.concat([hex(sealed.payload)], 512)))
  const own = payload.encodePayload({
    ds: new Uint8Array(32).fill(5),
    createdMs: 2 ** 53 - 1,
    threadSeq: 2,
    threadPrev: new Uint8Array(32).fill(6),
    replyTo: { inboxId: new Uint8Array(20).fill(1), host: "relay.example:8443" },
  })
  const full = payload.encodePayload({
    ds: new Uint8Array(32),
    createdMs: 0,
    threadSeq: 1,
    threadPrev: new Uint8Array(32),
    replyTo: { inboxId: new Uint8Array(20).fill(1), host: "h".repeat(255) },
  })
  return [...known, own, full].map((bytes) => sketch(bytes, payloadLayout))
}

/** What an accepted payload encodes to: the fields, and the claim as it stands. */
function payloadAgain(
  { payload }: Subject,
  found: ReturnType<Subject["payload"]["parsePayload"]>,
  bytes: Uint8Array,
): Uint8Array {
  const again = payload.encodePayload(found.fields)
  const { claim } = found
  if (claim === undefined) return again
  again[1] = claim.mode === "deniable" ? 1 : 2
  again.set(claim.senderFingerprint, claimFrom)
  again.set(claim.senderKey, claimFrom + 32)
  const tagLength = claim.mode === "deniable" ? 32 : 64
  again.set(bytes.subarray(148, 148 + tagLength), 148)
  return again
}

function payloads(subject: Subject, vectors: Vectors): Target {
  const { payload, errors } = subject
  return {
    name: "payload",
    ...fromSketches(payloadSketches(subject, vectors)),
    run: (input) =>
      judge(
        [errors.FormatError],
        () => payload.parsePayload(mustBeBytes(input)),
        (found) =>
          mustEqual(
            "payload",
            payloadAgain(subject, found, mustBeBytes(input)),
            mustBeBytes(input),
          ),
      ),
  }
}

/** The same bytes sealed with the right key, so that the whole way to them is taken. */
async function sealedPayloads(subject: Subject, vectors: Vectors): Promise<Target> {
  const { envelope, errors, provider, identity, bytes, payload } = subject
  const recipient = await personOf(subject, vectors.people.rsaOnly)
  const senders = Object.values(vectors.people).map(({ bundle }) =>
    identity.parseBundle(hex(bundle)),
  )
  const sealed = vectors.deliveries
    .flatMap(({ envelopes }) => envelopes)
    .find(({ to }) => to === "rsaOnly")
  if (sealed === undefined) throw new TypeError("the vectors hold no envelope of suite 1")
  const known = hex(sealed.envelope)
  const aad = known.subarray(0, -528)
  const headerHash = known.subarray(8, 40)
  const sketches = payloadSketches(subject, vectors)
  const mine = Buffer.concat([hex(sealed.payload)], 512)
  return {
    name: "payload, sealed",
    ...fromSketches(sketches),
    run: (input) => {
      const plaintext = mustBeBytes(input)
      const sealedPayload = provider.gcmSeal({ key: hex(sealed.kek), aad, plaintext })
      return judgeLater(
        [errors.OpenError],
        () =>
          envelope.openEnvelope({
            identity: recipient,
            envelope: bytes.concatBytes(aad, sealedPayload),
            headerHash,
          }),
        ({ payload: fields, authentication }) => {
          const claim = authentication.mode === "none" ? undefined : authentication
          mustEqual("payload", payloadAgain(subject, { fields, claim }, plaintext), plaintext)
          const isMine = mine.equals(plaintext)
          for (const sender of senders) {
            // Whatever was mutated, a proof fits only the payload it was made for.
            mustHold("a claim that nobody made", claim?.verify(sender) !== true || isMine)
          }
          mustEqual("parsed alike", payload.parsePayload(plaintext).fields.ds, fields.ds)
        },
      )
    },
  }
}

const linkLayout: Layout = [
  ["magic", 4],
  ["version", 1],
  ["flags", 1],
  ["reserved", 2],
  ["opaque", 16],
  ["opaque", 32],
  ["opaque", 32],
  ["opaque", 528],
]

async function links(subject: Subject, vectors: Vectors): Promise<Target[]> {
  const { link, errors, bytes, provider, identity } = subject
  const all = vectors.deliveries.flatMap((delivery) => delivery.links)
  const open = all.find(({ password }) => password === null)
  if (open === undefined) throw new TypeError("the vectors hold no link without a password")
  const known = hex(open.envelope)
  const secret = link.parseLinkFragment(open.fragment)
  const senders = Object.values(vectors.people).map(({ bundle }) =>
    identity.parseBundle(hex(bundle)),
  )
  const signed = await link.sealLink({
    headerHash: known.subarray(24, 56),
    payload: {
      ds: new Uint8Array(32).fill(5),
      createdMs: 0,
      threadSeq: 0,
      threadPrev: new Uint8Array(32),
    },
    signer: await personOf(subject, vectors.people.sender),
    // The secret of the link in the vectors: whoever opens here has one.
    random: (length, name) => (name === "secret" ? secret : drawn(length, name)),
  })
  const sketches = all
    .map(({ envelope }) => hex(envelope))
    .concat(signed.envelope)
    .map((bytes) => sketch(bytes, linkLayout))
  const payloadOfLink = Buffer.concat([hex(open.payload)], 512)
  const withoutPassword = sketches.filter(({ bytes: of }) => of[5] === 0)
  return [
    {
      name: "link",
      ...fromSketches(sketches),
      run: (input) =>
        judge(
          [errors.FormatError],
          () => link.parseLink(mustBeBytes(input)),
          (parts) => {
            const again = bytes.concatBytes(
              bytes.utf8("KNHL"),
              Uint8Array.of(1, parts.hasPassword ? 1 : 0, 0, 0),
              parts.salt,
              parts.headerHash,
              parts.com,
              parts.sealedPayload,
            )
            mustEqual("link", again, mustBeBytes(input))
          },
        ),
    },
    {
      name: "link, opened",
      ...fromSketches(withoutPassword),
      seeds: [known, signed.envelope],
      run: (input) =>
        judgeLater(
          [errors.OpenError],
          () =>
            link.openLink({
              secret,
              // Asked for one, it has none: Argon2id takes 64 MiB, which is not the parser's doing.
              password: undefined,
              envelope: mustBeBytes(input),
              headerHash: known.subarray(24, 56),
            }),
          ({ authentication }) => {
            const isSigned = authentication.mode === "signature"
            mustEqual("what was sealed", mustBeBytes(input), isSigned ? signed.envelope : known)
            const proven = senders.filter((one) => isSigned && authentication.verify(one))
            mustHold("a signature proves one sender", proven.length === (isSigned ? 1 : 0))
          },
        ),
    },
    {
      name: "payload, sealed in a link",
      ...fromSketches(payloadSketches(subject, vectors).filter((one) => one.bytes[1] !== 1)),
      run: (input) => {
        const plaintext = mustBeBytes(input)
        const aad = known.subarray(0, 88)
        const sealedPayload = provider.gcmSeal({ key: hex(open.kek), aad, plaintext })
        return judgeLater(
          [errors.OpenError],
          () =>
            link.openLink({
              secret,
              password: undefined,
              envelope: bytes.concatBytes(aad, sealedPayload),
              headerHash: known.subarray(24, 56),
            }),
          ({ payload: fields, authentication }) => {
            const claim = authentication.mode === "none" ? undefined : authentication
            mustHold("no deniable sender", authentication.mode !== "deniable")
            mustEqual("payload", payloadAgain(subject, { fields, claim }, plaintext), plaintext)
            const isMine = payloadOfLink.equals(plaintext)
            for (const sender of senders) {
              mustHold("a claim that nobody made", claim?.verify(sender) !== true || isMine)
            }
          },
        )
      },
    },
    linkWithPassword(subject, vectors),
    linkUrls(
      subject,
      all.map(({ fragment }) => fragment),
    ),
  ]
}

/** Argon2id takes its 64 MiB for each try, whatever was changed. */
function linkWithPassword({ link, errors }: Subject, vectors: Vectors): Target {
  const sealed = vectors.deliveries
    .flatMap((delivery) => delivery.links)
    .find((one) => one.password !== null && one.password !== "")
  if (sealed === undefined) throw new TypeError("the vectors hold no link with a password")
  const known = hex(sealed.envelope)
  const secret = link.parseLinkFragment(sealed.fragment)
  return {
    name: "link with a password, opened",
    slow: true,
    ...fromSketches([sketch(known, linkLayout)]),
    run: (input) =>
      judgeLater(
        [errors.OpenError],
        () =>
          link.openLink({
            secret,
            password: sealed.password ?? "",
            envelope: mustBeBytes(input),
            headerHash: known.subarray(24, 56),
          }),
        () => mustEqual("the one that was sealed", mustBeBytes(input), known),
      ),
  }
}

/** A host is lowered and loses a default port; all behind it has one spelling, but for one sign. */
const behindHost = (url: string) => url.replace("%23", "#").slice(url.indexOf("/l/"))

function linkUrls({ link, errors, bytes }: Subject, fragments: readonly string[]): Target {
  const id = "0123456789abcdef0123456789abcdef"
  const urls = fragments.flatMap((fragment) => [
    `https://relay.example/l/${id}#${fragment}`,
    `http://localhost:8787/l/${id}%23${fragment}`,
  ])
  return {
    name: "link URL and fragment",
    ...fromTexts([...urls, ...fragments]),
    run: (input) => {
      const text = mustBeText(input)
      if (!text.includes("/")) {
        return judge(
          [errors.FormatError],
          () => link.parseLinkFragment(text),
          (secret) =>
            mustEqual("fragment", bytes.utf8(link.encodeLinkFragment(secret)), bytes.utf8(text)),
        )
      }
      return judge(
        [errors.FormatError],
        () => link.parseLinkUrl(text),
        (url) => {
          const again = link.encodeLinkUrl(url)
          mustEqual("link URL", bytes.utf8(behindHost(again)), bytes.utf8(behindHost(text)))
          mustHold("a fixed point", link.encodeLinkUrl(link.parseLinkUrl(again)) === again)
          mustHold("what the relay asks for", link.linkAccess(url).length === 32)
          mustHold("its stamp's inbox", link.linkInboxId(url.linkId).length === 20)
        },
      )
    },
  }
}

export async function envelopeTargets(subject: Subject, vectors: Vectors): Promise<Target[]> {
  return [
    headers(subject, vectors),
    ...envelopeStructures(subject, vectors),
    await deliveries(subject, vectors, "rsaOnly"),
    await deliveries(subject, vectors, "full"),
    payloads(subject, vectors),
    await sealedPayloads(subject, vectors),
    ...(await links(subject, vectors)),
  ]
}
