// Every value in the vector files: made from what was drawn, byte for byte, and read back.
import { describe, expect, test } from "vitest"
import { argon2id } from "../../protocol/crypto/argon2id.js"
import { rsaUnwrap } from "../../protocol/crypto/rsa.js"
import { deriveEnvelopeKeys } from "../../protocol/envelope.js"
import {
  type Authentication,
  bodyRoot,
  chainHead,
  checkPaths,
  composeMegaKey,
  concatBytes,
  decryptMegaFile,
  deriveDeliveryKeys,
  encodeEntry,
  encodeHead,
  encodeHeader,
  encodeLinkFragment,
  encodeReceipt,
  encodeReport,
  encodeStamp,
  encryptMegaFile,
  ed25519PublicKey,
  entryBlinding,
  entryLeaf,
  entryLeaves,
  envelopeHash,
  envelopeLength,
  envelopeSuite,
  FormatError,
  fromHex,
  gcmOpen,
  gridCount,
  gridOffset,
  headerHash,
  hkdfSha256,
  hmacSha256,
  type Identity,
  label,
  leafHash,
  linkAccess,
  linkInboxId,
  makeReport,
  metaMac,
  noteBlinding,
  noteLeaf,
  openDelivery,
  openLink,
  openManifest,
  openRootOf,
  openStampSource,
  paddedBodyLength,
  paddedManifestLength,
  paddingBytes,
  parseAddress,
  parseBundle,
  parseEntry,
  parseEnvelope,
  parseHead,
  parseHeader,
  parseLink,
  parseLinkFragment,
  parseReceipt,
  parseReport,
  parseStamp,
  type PayloadFields,
  sealEnvelope,
  sealLink,
  sealManifest,
  type Sender,
  sha256,
  toBase64url,
  toHex,
  treeRoot,
  u16,
  utf8,
  verifyHead,
  verifyReceipt,
  verifyReport,
  verifyStamp,
  x25519,
} from "../../protocol/index.js"
import { deriveLinkKeys } from "../../protocol/link.js"
import {
  contentOf,
  deliveryOf,
  type DeliveryVector,
  drawFrom,
  entriesOf,
  identityOf,
  named,
  readingAll,
  readVectors,
  type SealedVector,
  type VectorFile,
} from "./vector-file.js"

for (const name of ["format-vectors.json", "independent-vectors.json"]) {
  describe(name, () => checkFile(readVectors(name)))
}

function checkFile(file: VectorFile): void {
  for (const [name, person] of Object.entries(file.people)) {
    test(`the bundle and address of ${name} follow from its keys`, async () => {
      await readingAll(person, async (p) => {
        const { bundle, ...secrets } = await identityOf(file, name)
        expect(toHex(bundle.bytes)).toBe(p.bundle)
        expect(toHex(bundle.fingerprint)).toBe(p.fp)
        expect(bundle.address).toBe(p.address)
        expect(parseBundle(fromHex(p.bundle))).toEqual(bundle)
        expect(toHex(parseAddress(p.address).inboxId)).toBe(p.fp.slice(0, 40))
        expect(toHex(secrets.rsaPkcs8)).toBe(p.rsa_pkcs8)
        expect(toHex(secrets.authSeed)).toBe(p.x25519_seed)
        expect(hexOrNull(secrets.xwingSeed)).toBe(p.xwing_seed)
        expect(hexOrNull(secrets.signSeed)).toBe(p.ed25519_seed)
      })
    })
  }
  for (const delivery of file.deliveries) {
    describe(`delivery ${delivery.name}`, () => checkDelivery(file, delivery))
  }
  describe("records", () => checkRecords(file))
  for (const { accepted, why, entries } of file.paths) {
    test(`T13 paths are ${accepted ? "accepted" : "refused"}: ${why}`, () => {
      const paths = entries.map(([type, path]) => ({
        type: type === "dir" ? ("directory" as const) : type,
        path: fromHex(path),
      }))
      if (accepted) checkPaths(paths)
      else expect(() => checkPaths(paths)).toThrow(FormatError)
    })
  }
}

function hexOrNull(bytes: Uint8Array | undefined): string | null {
  return bytes === undefined ? null : toHex(bytes)
}

function checkDelivery(file: VectorFile, vector: DeliveryVector): void {
  const ds = fromHex(named(vector.random, "ds"))
  const deliveryId = fromHex(named(vector.random, "delivery_id"))
  const keys = deriveDeliveryKeys({ ds, deliveryId })

  test("there is no field beyond those checked here", () =>
    readingAll(vector, (d) => {
      const inHeader = [d.not_after_ms, d.body_root, d.manifest_sha256, d.manifest_len, d.H_hdr]
      const inKeys = [d.K_commit, d.K_manifest, d.K_open, d.K_pad, d.random]
      const inBody = [d.content_len, d.body_len, d.body_sha256, d.leaves, d.leaf_tree, d.entries]
      const inCommitment = [d.r_note, d.nleaf, d.oleaf_tree, d.open_root, d.note]
      const inPlaintext = [d.manifest_plain_sha256, d.manifest_plain_used, d.manifest_plain_len]
      const inPayload = [d.created_ms, d.thread_seq, d.thread_prev, d.reply_inbox, d.reply_host]
      const inEnvelopes = [d.mode, d.sender, d.envelopes, d.links, d.name, d.header]
      return [inHeader, inKeys, inBody, inCommitment, inPlaintext, inPayload, inEnvelopes]
    }))

  test("the delivery secret gives its keys", () => {
    expect(toHex(keys.commit)).toBe(vector.K_commit)
    expect(toHex(keys.manifest)).toBe(vector.K_manifest)
    expect(toHex(keys.blinding)).toBe(vector.K_open)
    expect(toHex(keys.padding)).toBe(vector.K_pad)
  })

  test("the body is the files' ciphertexts and padding, under its leaves and root", async () => {
    const pieces: Uint8Array[] = []
    let bodyOffset = 0
    for (const [index, entryVector] of vector.entries.entries()) {
      await readingAll(entryVector, (e) => {
        expect(e.body_off).toBe(bodyOffset)
        expect(toHex(utf8(e.path))).toBe(e.path_bytes)
        const entry = entriesOf(vector)[index]
        if (entry === undefined) throw new RangeError("fewer entries than vectors")
        const encoded = encodeEntry(entry, bodyOffset)
        expect(toHex(encoded)).toBe(e.entry)
        const parsed = parseEntry(fromHex(e.entry))
        expect(parsed).toMatchObject({ ...entry, bodyOffset })
        const r = entryBlinding(keys.blinding, index)
        expect(toHex(r)).toBe(e.r)
        expect(toHex(entryLeaf({ index, r, entry: encoded }))).toBe(e.oleaf)
        expect(entry.type === "file" ? "file" : "dir").toBe(e.type)
        expect(entry.mtimeMs).toBe(e.mtime_ms)
        if (parsed.type === "directory" || entry.type === "directory") {
          expect([e.size, e.executable, e.m, e.chunk_macs]).toEqual([0, false, "0".repeat(16), []])
          expect(e.ciphertext_sha256).toBe(toHex(sha256()))
          return
        }
        const content = contentOf(e)
        expect(content).toHaveLength(e.size)
        expect(e.executable).toBe(parsed.executable)
        if (e.content_sha256 !== undefined) expect(toHex(sha256(content))).toBe(e.content_sha256)
        const sealed = encryptMegaFile(content, entry)
        expect(sealed.chunkMacs.map(toHex)).toEqual(e.chunk_macs)
        expect(toHex(sealed.metaMac)).toBe(e.m)
        expect(toHex(parsed.metaMac)).toBe(e.m)
        expect(toHex(metaMac(entry))).toBe(e.m)
        expect(toBase64url(sealed.composedKey)).toBe(e.mega_key)
        expect(toBase64url(composeMegaKey(parsed))).toBe(e.mega_key)
        expect(toHex(sha256(sealed.ciphertext))).toBe(e.ciphertext_sha256)
        const opened = decryptMegaFile(sealed.ciphertext, sealed.composedKey)
        expect(toHex(sha256(opened))).toBe(toHex(sha256(content)))
        pieces.push(sealed.ciphertext)
        bodyOffset += e.size
      })
    }
    expect(bodyOffset).toBe(vector.content_len)
    const bodyLength = paddedBodyLength(bodyOffset)
    expect(bodyLength).toBe(vector.body_len)
    const length = bodyLength - bodyOffset
    const body = concatBytes(...pieces, paddingBytes({ key: keys.padding, offset: 0, length }))
    expect(toHex(sha256(body))).toBe(vector.body_sha256)
    const leaves = Array.from({ length: gridCount(bodyLength) }, (_, index) =>
      leafHash({ index, part: body.subarray(gridOffset(index), gridOffset(index + 1)) }),
    )
    expect(leaves.map(toHex)).toEqual(vector.leaves)
    expect(toHex(treeRoot(leaves))).toBe(vector.leaf_tree)
    expect(toHex(bodyRoot({ bodyLength, leaves }))).toBe(vector.body_root)
  })

  const header = parseHeader(fromHex(vector.header))
  const sealed = () => {
    const entries = entriesOf(vector)
    const root = fromHex(vector.body_root)
    return sealManifest({ ds, deliveryId, bodyRoot: root, note: vector.note, entries })
  }

  test("the manifest seals to the bytes given and opens to what went in", () => {
    const { ciphertext, manifestHash, openRoot, contentLength } = sealed()
    expect(ciphertext).toHaveLength(vector.manifest_len)
    expect(toHex(manifestHash)).toBe(vector.manifest_sha256)
    expect(toHex(sha256(ciphertext))).toBe(vector.manifest_sha256)
    expect(toHex(openRoot)).toBe(vector.open_root)
    expect(contentLength).toBe(vector.content_len)

    const aad = concatBytes(label("manif"), deliveryId, fromHex(vector.body_root), openRoot)
    const plaintext = gcmOpen({ key: keys.manifest, aad, ciphertext })
    const used = fromHex(vector.manifest_plain_used)
    expect(toHex(plaintext.subarray(0, used.length))).toBe(vector.manifest_plain_used)
    expect(toHex(sha256(plaintext))).toBe(vector.manifest_plain_sha256)
    expect(plaintext).toHaveLength(vector.manifest_plain_len)
    expect(paddedManifestLength(used.length)).toBe(vector.manifest_plain_len)

    const opened = openManifest({ ds, header, ciphertext })
    expect(opened.note).toBe(vector.note)
    expect(opened.contentLength).toBe(vector.content_len)
    expect(opened.entries).toEqual(vector.entries.map((e) => parseEntry(fromHex(e.entry))))
  })

  test("the open root commits to the note and each entry", () => {
    const { ciphertext } = sealed()
    const r = noteBlinding(keys.blinding)
    expect(toHex(r)).toBe(vector.r_note)
    const leafOfNote = noteLeaf({ r, note: utf8(vector.note) })
    expect(toHex(leafOfNote)).toBe(vector.nleaf)
    const { entries } = openManifest({ ds, header, ciphertext })
    const leaves = entryLeaves(keys.blinding, entries)
    expect(toHex(leaves)).toBe(vector.entries.map((e) => e.oleaf).join(""))
    const entriesRoot = treeRoot(leaves)
    expect(toHex(entriesRoot)).toBe(vector.oleaf_tree)
    const root = openRootOf({ entryCount: entries.length, noteLeaf: leafOfNote, entriesRoot })
    expect(toHex(root)).toBe(vector.open_root)
  })

  test("the header encodes and parses", () => {
    const { ciphertext, manifestHash, openRoot } = sealed()
    const encoded = encodeHeader({
      deliveryId,
      bodyLength: vector.body_len,
      partCount: vector.leaves.length,
      manifestLength: ciphertext.length,
      bodyRoot: fromHex(vector.body_root),
      manifestHash,
      openRoot,
      keyCommit: keys.commit,
      notAfterMs: vector.not_after_ms,
    })
    expect(toHex(encoded)).toBe(vector.header)
    expect(toHex(encodeHeader(header))).toBe(vector.header)
    expect(toHex(headerHash(encoded))).toBe(vector.H_hdr)
  })

  const payload: PayloadFields = {
    ds,
    createdMs: vector.created_ms,
    threadSeq: vector.thread_seq,
    threadPrev: fromHex(vector.thread_prev),
    replyTo: /^0*$/.test(vector.reply_inbox)
      ? undefined
      : { inboxId: fromHex(vector.reply_inbox), host: vector.reply_host },
  }
  const hash = fromHex(vector.H_hdr)

  for (const envelopeVector of vector.envelopes) {
    test(`the envelope to ${envelopeVector.to} seals to the bytes given and opens`, () =>
      readingAll(envelopeVector, async (e) => {
        const recipient = await identityOf(file, e.to)
        const { bundle } = recipient
        const sender = await senderOf(file, vector)
        const envelope = await sealEnvelope({
          recipient: bundle,
          headerHash: hash,
          payload,
          sender,
          random: drawFrom(vector.random, `${e.to}/`),
        })
        expect(toHex(envelope)).toBe(e.envelope)
        expect(toHex(envelopeHash(envelope))).toBe(e.envelope_sha256)
        expect(envelope).toHaveLength(envelopeLength(bundle))
        expect(envelopeSuite(bundle)).toBe(e.suite)

        const parts = parseEnvelope(envelope, bundle)
        expect(parts.suite).toBe(e.suite)
        expect(toHex(parts.headerHash)).toBe(vector.H_hdr)
        expect(toHex(parts.rsaCiphertext)).toBe(e.ct_rsa)
        expect(toHex(parts.xwingCiphertext)).toBe(e.ct_xw ?? "")
        expect(toHex(parts.com)).toBe(e.com)

        const r = await rsaUnwrap({
          key: recipient.expanded.rsa,
          label: label("wrap"),
          wrapped: parts.rsaCiphertext,
        })
        const xwingSecret = recipient.expanded.xwing?.decapsulate(parts.xwingCiphertext)
        expect(hexOrNull(r)).toBe(named(vector.random, `${e.to}/r`))
        expect(hexOrNull(xwingSecret)).toBe(e.ss_xw)
        const secrets = [r, xwingSecret].filter((secret) => secret !== undefined)
        const ikm = concatBytes(...secrets.flatMap((secret) => [u16(secret.length), secret]))
        expect(toHex(ikm)).toBe(e.ikm)
        const info = concatBytes(
          label("wrap"),
          Uint8Array.of(e.suite),
          bundle.fingerprint,
          hash,
          sha256(parts.rsaCiphertext),
          sha256(parts.xwingCiphertext),
        )
        expect(toHex(info)).toBe(e.info)
        expect(toHex(hkdfSha256({ ikm, salt: label("wrap"), info, length: 64 }))).toBe(
          e.kek + e.com,
        )
        const { kek, com } = deriveEnvelopeKeys({
          ...parts,
          r: r ?? new Uint8Array(0),
          xwingSecret,
          fingerprint: bundle.fingerprint,
        })
        expect(toHex(kek)).toBe(e.kek)
        expect(toHex(com)).toBe(e.com)

        const plain = gcmOpen({ key: kek, aad: parts.aad, ciphertext: parts.sealedPayload })
        checkPayload(plain, e, { vector, fingerprint: bundle.fingerprint, com, sender })
        if (sender?.mode === "deniable") {
          const dh = x25519(sender.identity.authSeed, bundle.authKey)
          expect(toHex(dh)).toBe(e.dh)
          expect(toHex(x25519(recipient.authSeed, sender.identity.bundle.authKey))).toBe(e.dh)
          const ends = concatBytes(sender.identity.bundle.fingerprint, bundle.fingerprint)
          const tagInfo = concatBytes(label("auth-dh"), ends)
          const tagKey = hkdfSha256({ ikm: dh, salt: com, info: tagInfo, length: 32 })
          expect(toHex(tagKey)).toBe(e.tag_key)
          const tag = hmacSha256(tagKey, hash, fromHex(e.payload_hash))
          expect(toHex(plain.subarray(148, 180))).toBe(toHex(tag))
        } else {
          expect([e.dh, e.tag_key]).toEqual([undefined, undefined])
        }

        const opened = await openDelivery({
          identity: recipient,
          header: fromHex(vector.header),
          envelope,
        })
        expect(opened.header).toEqual(header)
        expect(toHex(opened.headerHash)).toBe(vector.H_hdr)
        expect(opened.payload).toEqual(payload)
        await checkSender(file, opened.authentication, sender)
      }))
  }

  vector.links.forEach((linkVector, index) => {
    test(`link ${index} seals to the bytes given and opens`, () =>
      readingAll(linkVector, async (link) => {
        const sender = await senderOf(file, link)
        const password = link.password ?? undefined
        const { linkId, secret, envelope } = await sealLink({
          headerHash: hash,
          payload,
          password,
          signer: sender?.identity,
          random: drawFrom(vector.random, `link${index}/`),
        })
        expect(toHex(envelope)).toBe(link.envelope)
        expect(envelope).toHaveLength(616)

        const salt = fromHex(named(vector.random, `link${index}/salt`))
        const parts = parseLink(envelope)
        expect(parts.hasPassword).toBe(link.password !== null)
        expect(toHex(parts.salt)).toBe(toHex(salt))
        const stretched =
          password === undefined
            ? undefined
            : await argon2id({
                password: utf8(password.normalize("NFC")),
                salt,
                memoryKib: 64 * 1024,
                passes: 3,
                lanes: 1,
                length: 32,
              })
        expect(hexOrNull(stretched)).toBe(link.argon2)
        const secrets = [secret, stretched].filter((piece) => piece !== undefined)
        const ikm = concatBytes(...secrets.flatMap((piece) => [u16(piece.length), piece]))
        expect(toHex(ikm)).toBe(link.ikm)
        const info = concatBytes(label("link"), Uint8Array.of(stretched ? 1 : 0), hash)
        expect(toHex(info)).toBe(link.info)
        expect(toHex(hkdfSha256({ ikm, salt: label("wrap"), info, length: 64 }))).toBe(
          link.kek + link.com,
        )
        const { kek, com } = await deriveLinkKeys({ secret, password, salt, headerHash: hash })
        expect([toHex(kek), toHex(com)]).toEqual([link.kek, link.com])
        expect(toHex(parts.com)).toBe(link.com)
        const plain = gcmOpen({ key: kek, aad: parts.aad, ciphertext: parts.sealedPayload })
        const fingerprint = new Uint8Array(32)
        checkPayload(plain, link, { vector, fingerprint, com, sender })

        const access = linkAccess({ secret, linkId })
        expect(toHex(access)).toBe(link.access)
        expect(toHex(sha256(access))).toBe(link.access_sha256)
        expect(toHex(linkInboxId(linkId))).toBe(link.stamp_inbox)
        expect(encodeLinkFragment(secret)).toBe(link.fragment)
        expect(parseLinkFragment(link.fragment)).toEqual(secret)

        const opened = await openLink({ secret, password, envelope, headerHash: hash })
        expect(opened.payload).toEqual(payload)
        await checkSender(file, opened.authentication, sender)
      }))
  })
}

async function senderOf(
  file: VectorFile,
  { mode, sender }: { mode: 0 | 1 | 2; sender: string | null },
): Promise<Sender | undefined> {
  if (mode === 0 || sender === null) {
    expect([mode, sender]).toEqual([0, null])
    return undefined
  }
  return { identity: await identityOf(file, sender), mode: mode === 1 ? "deniable" : "signature" }
}

function checkPayload(
  plain: Uint8Array,
  sealed: SealedVector,
  context: {
    vector: DeliveryVector
    fingerprint: Uint8Array
    com: Uint8Array
    sender: Sender | undefined
  },
): void {
  expect(plain).toHaveLength(512)
  expect(toHex(plain)).toBe(sealed.payload.padEnd(1024, "0"))
  const untagged = plain.slice()
  untagged.fill(0, 148, 212)
  expect(toHex(sha256(untagged))).toBe(sealed.payload_hash)
  const message = concatBytes(
    label("auth-sig"),
    context.fingerprint,
    context.com,
    fromHex(context.vector.H_hdr),
    fromHex(sealed.payload_hash),
  )
  expect(sealed.message).toBe(context.sender?.mode === "signature" ? toHex(message) : undefined)
}

async function checkSender(
  file: VectorFile,
  authentication: Authentication,
  sender: Sender | undefined,
): Promise<void> {
  expect(authentication.mode).toBe(sender?.mode ?? "none")
  if (authentication.mode === "none" || sender === undefined) return
  const { bundle } = sender.identity
  expect(authentication.senderFingerprint).toEqual(bundle.fingerprint)
  for (const name of Object.keys(file.people)) {
    const candidate = (await identityOf(file, name)).bundle
    expect(authentication.verify(candidate)).toBe(candidate.address === bundle.address)
  }
}

function checkRecords(file: VectorFile): void {
  const { records } = file
  const delivery = deliveryOf(file, records.of)
  const [envelope] = delivery.envelopes
  if (envelope === undefined) throw new RangeError("the records' delivery has an envelope")
  const recipient = (): Promise<Identity> => identityOf(file, envelope.to)
  const ds = fromHex(named(delivery.random, "ds"))
  const header = fromHex(delivery.header)
  const drawn = (name: string): Uint8Array => fromHex(named(records.random, name))
  const accepted = {
    kid: records.kid,
    headerHash: fromHex(delivery.H_hdr),
    envelopeHash: fromHex(envelope.envelope_sha256),
    acceptedMs: records.accepted_ms,
    expiresMs: records.expires_ms,
  }
  const stamping = {
    source: {
      lane: records.lane,
      lineage: drawn("lineage"),
      sourcePseudonym: new Uint8Array(16),
    },
    kFrank: drawn("K_frank"),
    kSrc: drawn("K_src"),
    random: drawFrom(records.random),
  }
  const manifest = () => {
    const sealed = sealManifest({
      ds,
      deliveryId: fromHex(named(delivery.random, "delivery_id")),
      bodyRoot: fromHex(delivery.body_root),
      note: delivery.note,
      entries: entriesOf(delivery),
    })
    return sealed.ciphertext
  }
  const reason = (["spam", "malware", "unlawful", "harassment", "other"] as const)[
    records.reason - 1
  ]

  test("there is no field beyond those checked here", () =>
    readingAll(records, (r) => [
      [r.of, r.kid, r.accepted_ms, r.expires_ms, r.seq, r.lane, r.reason, r.as_of_ms, r.floor_seq],
      [r.head_0, r.head_1, r.stamp, r.stamp_record36, r.receipt, r.head_record, r.link_stamp],
      [r.report_whole, r.report_entry_3, r.report_note, r.receipt_public_key, r.random],
    ]))

  test("the chain goes on from one head to the next", () => {
    const link = { ...accepted, previous: fromHex(records.head_0), seq: records.seq }
    expect(toHex(chainHead(link))).toBe(records.head_1)
  })

  test("the stamp is made, parsed, verified, and its source opened", async () => {
    const { inboxId } = (await recipient()).bundle
    const stamp = { ...accepted, inboxId, seq: records.seq, head: fromHex(records.head_1) }
    const bytes = encodeStamp({ ...stamp, ...stamping })
    expect(toHex(bytes)).toBe(records.stamp)
    expect(parseStamp(bytes)).toEqual(stamp)
    expect(verifyStamp(bytes, stamping.kFrank)).toBe(true)
    expect(openStampSource(bytes, stamping.kSrc)).toEqual(stamping.source)
    const record = gcmOpen({
      key: stamping.kSrc,
      nonce: drawn("src_nonce"),
      aad: bytes.subarray(0, 148),
      ciphertext: bytes.subarray(160, 212),
    })
    expect(toHex(record)).toBe(records.stamp_record36)
  })

  test("a link's stamp stands in no chain", () => {
    const links = deliveryOf(file, "links")
    const link = links.links[1]
    if (link === undefined) throw new RangeError("the links have a second one")
    const bytes = encodeStamp({
      ...accepted,
      ...stamping,
      headerHash: fromHex(links.H_hdr),
      envelopeHash: envelopeHash(fromHex(link.envelope)),
      inboxId: fromHex(link.stamp_inbox),
      seq: 0,
      head: new Uint8Array(32),
    })
    expect(toHex(bytes)).toBe(records.link_stamp)
  })

  test("receipt and head are signed by the relay's key", async () => {
    const { inboxId } = (await recipient()).bundle
    const signSeed = drawn("receipt_key")
    const publicKey = ed25519PublicKey(signSeed)
    expect(toHex(publicKey)).toBe(records.receipt_public_key)
    const receipt = encodeReceipt({ ...accepted, inboxId, signSeed })
    expect(toHex(receipt)).toBe(records.receipt)
    expect(parseReceipt(receipt)).toEqual({ ...accepted, inboxId })
    expect(verifyReceipt(receipt, publicKey)).toBe(true)
    const head = {
      kid: records.kid,
      inboxId,
      asOfMs: records.as_of_ms,
      seq: records.seq,
      head: fromHex(records.head_1),
      floorSeq: records.floor_seq,
      restored: false,
    }
    const signed = encodeHead({ ...head, signSeed })
    expect(toHex(signed)).toBe(records.head_record)
    expect(parseHead(signed)).toEqual(head)
    expect(verifyHead(signed, publicKey)).toBe(true)
  })

  test.each([
    ["a whole delivery", { kind: "delivery" }, "report_whole"],
    ["one entry", { kind: "entry", index: 3 }, "report_entry_3"],
    ["the note", { kind: "note" }, "report_note"],
  ] as const)("a report of %s is made, parsed and verified", (_, about, field) => {
    if (reason === undefined) throw new RangeError("the reason is one of five")
    const stamp = fromHex(records.stamp)
    const opened = openManifest({ ds, header: parseHeader(header), ciphertext: manifest() })
    const report = makeReport({ reason, stamp, header, ds, manifest: opened, about })
    const bytes = encodeReport(report)
    expect(toHex(bytes)).toBe(records[field])
    expect(parseReport(bytes)).toEqual(report)
    const verified = verifyReport({
      report: bytes,
      frankKey: (kid) => (kid === records.kid ? stamping.kFrank : undefined),
      manifest: manifest(),
    })
    expect(verified).toMatchObject({ ...about, reason, header: parseHeader(header) })
    if (verified.kind === "note") expect(verified.note).toBe(delivery.note)
    if (verified.kind === "entry") expect(verified.entry).toEqual(opened.entries[3])
    if (verified.kind === "delivery") expect(verified.manifest).toEqual(opened)
  })
}
