// The blob store on one file system (blob-store.ts is the contract, data-folder.ts the layout). The
// order of every step is the point of this file: bytes, then the name, then the folder that holds the
// name, and only then whatever relies on them.
import { join } from "node:path"
import {
  fromHex,
  gridLength,
  maxParts,
  parseHeader,
  type Random,
  toHex,
} from "../../protocol/index.js"
import {
  type Disk,
  type DiskFile,
  discardFile,
  hasCode,
  isDiskFull,
  readSmallFile,
  unlessMissing,
  writeSyncedFile,
} from "../disk.js"
import { Gate } from "../gate.js"
import { type DeliveryId, isDeliveryId } from "../ids.js"
import type {
  BlobReader,
  BlobStore,
  Commit,
  Ended,
  Link,
  ManifestFile,
  PartPlace,
  StoredDelivery,
  StoredLink,
  WrittenPart,
} from "./blob-store.js"
import type { DataFolder } from "./data-folder.js"
import {
  encodeCommit,
  encodeEnded,
  encodeLink,
  encodeSlots,
  encodeUpload,
  parseCommit,
  parseEnded,
  parseSlot,
  parseUpload,
  slotBytes,
  slotOffset,
} from "./delivery-records.js"
import type { OpenUpload, PartEntry } from "./relay-index.js"

const uploadName = "upload.v1"
const commitName = "commit.v1"
const linksName = "links.v1"
const leavesName = "leaves"
const manifestName = "manifest"
const partPattern = /^p(0|[1-9][0-9]{0,9})-([0-9a-f]{64})$/
const leafBytes = 32
/** Commit, ended and upload records name at most so many inboxes. */
const maxLinks = 255
const maxRecordBytes = 256 * 1024

// Node does file work on a pool of threads (16 in the program). Many syncs at once share the commits of
// the file system; the rest of the threads are left for what clients wait for.
const syncsAtOnce = 12
/** Parts written and not yet durable: each keeps a file open. */
const openPartsAtMost = 64

export interface DiskBlobStoreOptions {
  readonly disk: Disk
  readonly folder: DataFolder
  readonly recordKey: Uint8Array
  readonly random: Random
}

export class DiskBlobStore implements BlobStore {
  readonly #disk: Disk
  readonly #folder: DataFolder
  readonly #key: Uint8Array
  readonly #random: Random
  readonly #syncing = new Gate(syncsAtOnce)
  readonly #openParts = new Gate(openPartsAtMost)
  /** For each upload, by file name, whether the part could be made durable. */
  readonly #synced = new Map<DeliveryId, Map<string, Promise<boolean>>>()
  readonly #removing = new Gate(1)

  constructor({ disk, folder, recordKey, random }: DiskBlobStoreOptions) {
    this.#disk = disk
    this.#folder = folder
    this.#key = recordKey
    this.#random = random
  }

  // Uploads

  async saveUpload(upload: OpenUpload): Promise<void> {
    const folder = this.#spool(upload.id)
    let isNew = true
    try {
      await this.#disk.makeFolder(folder)
    } catch (error) {
      if (!hasCode(error, "EEXIST")) throw error
      isNew = false
    }
    const fresh = join(folder, this.#temporaryName())
    try {
      await writeSyncedFile(this.#disk, fresh, encodeUpload(this.#key, upload))
      await this.#disk.rename(fresh, join(folder, uploadName))
      await this.#disk.syncFolder(folder)
      await this.#disk.syncFolder(this.#folder.spool)
    } catch (error) {
      await discardFile(this.#disk, fresh)
      if (isNew) await this.#discardNewFolder(folder)
      throw error
    }
  }

  async readUpload(id: DeliveryId): Promise<OpenUpload | undefined> {
    const bytes = await readSmallFile(this.#disk, join(this.#spool(id), uploadName), maxRecordBytes)
    return bytes && parseUpload(this.#key, id, bytes)
  }

  uploads(): Promise<DeliveryId[]> {
    return this.#idsIn(this.#folder.spool)
  }

  async uploadChangedMs(id: DeliveryId): Promise<number | undefined> {
    return (await unlessMissing(this.#disk.stat(this.#spool(id)), undefined))?.modifiedMs
  }

  async writePart(part: PartPlace & { readonly bytes: Uint8Array }): Promise<WrittenPart> {
    await this.#openParts.enter()
    const folder = this.#spool(part.id)
    const temporary = join(folder, this.#temporaryName())
    const name = partName(part)
    let opened: DiskFile | undefined
    let written: DiskFile
    try {
      written = opened = await this.#disk.create(temporary)
      await written.write(part.bytes, 0)
      // Under its name it may replace the same part of another process, which that one knows to be synced.
      if (this.#folder.isShared) await this.#syncing.run(() => written.sync())
      await this.#disk.rename(temporary, join(folder, name))
    } catch (error) {
      if (opened !== undefined) await this.#closeQuietly(opened)
      await discardFile(this.#disk, temporary)
      this.#openParts.leave()
      throw error
    }
    const leave = async (): Promise<void> => {
      await this.#closeQuietly(written)
      this.#openParts.leave()
    }
    return {
      keep: () => {
        if (this.#folder.isShared) {
          void leave()
          return
        }
        const synced = this.#syncAndClose(written).finally(() => this.#openParts.leave())
        this.#syncsOf(part.id).set(name, synced)
      },
      leave,
      discard: async () => {
        await leave()
        if (this.#synced.get(part.id)?.has(name) !== true)
          await discardFile(this.#disk, join(folder, name))
      },
    }
  }

  async partsOf(id: DeliveryId): Promise<PartPlace[]> {
    const names = await unlessMissing(this.#disk.list(this.#spool(id)), [])
    return names.flatMap((name) => {
      const [, index, leaf] = partPattern.exec(name) ?? []
      if (index === undefined || leaf === undefined || Number(index) >= maxParts) return []
      return [{ id, index: Number(index), leaf: fromHex(leaf) }]
    })
  }

  async syncParts(id: DeliveryId, parts: readonly PartEntry[]): Promise<PartEntry[]> {
    const syncs = this.#syncsOf(id)
    // Whoever broke off over a part may have removed one that counts.
    const there = new Set(await unlessMissing(this.#disk.list(this.#spool(id)), []))
    const outcomes = parts.map((part) => {
      const name = partName(part)
      if (!there.has(name)) return false
      // Written by another process, or before this one started: whether it was synced is not known.
      const synced = syncs.get(name) ?? this.#syncByName(join(this.#spool(id), name))
      syncs.set(name, synced)
      return synced
    })
    const failed: PartEntry[] = []
    for (const [at, part] of parts.entries()) {
      if ((await outcomes[at]) === true) continue
      // After a failed sync the kernel may call the pages clean although they never reached the disk:
      // syncing again would succeed and mean nothing. The part has to be sent again.
      failed.push(part)
      await this.removePart({ id, ...part })
    }
    // Another process may finish the upload, or end it, and this one would remember it for ever.
    if (this.#folder.isShared) this.#synced.delete(id)
    return failed
  }

  async removePart(part: PartPlace): Promise<void> {
    const name = partName(part)
    this.#syncsOf(part.id).delete(name)
    await unlessMissing(this.#disk.unlink(join(this.#spool(part.id), name)), undefined)
  }

  async stageManifest(id: DeliveryId): Promise<ManifestFile> {
    // A name of its own: two attempts to finish one upload must not touch each other's manifest.
    const path = join(this.#spool(id), this.#temporaryName())
    const file = await this.#disk.create(path)
    let position = 0
    return {
      write: async (bytes) => {
        await file.write(bytes, position)
        position += bytes.length
      },
      finish: async () => {
        try {
          await file.sync()
        } finally {
          await file.close()
        }
      },
      place: async () => {
        const { sizeBytes } = await this.#disk.stat(path)
        if (sizeBytes !== position) throw new Error("a manifest is not as long as it was written")
        await this.#disk.rename(path, join(this.#spool(id), manifestName))
      },
      discard: async () => {
        await this.#closeQuietly(file)
        await discardFile(this.#disk, path)
      },
    }
  }

  async commit(input: {
    readonly commit: Commit
    readonly parts: readonly PartEntry[]
    readonly envelopes: readonly Uint8Array[]
  }): Promise<Commit> {
    const { commit, parts, envelopes } = input
    const { id } = commit
    const earlier = await this.readCommit(id)
    if (earlier !== undefined) return this.#named(earlier)
    const folder = this.#spool(id)
    await this.#removeStrays(folder, new Set([uploadName, manifestName, ...parts.map(partName)]))
    const files: readonly (readonly [string, Uint8Array])[] = [
      [leavesName, joinLeaves(parts)],
      [linksName, encodeSlots(envelopes)],
      [commitName, encodeCommit(this.#key, commit)],
    ]
    await allSettled(
      files.map(([name, bytes]) => writeSyncedFile(this.#disk, join(folder, name), bytes)),
    )
    await this.#disk.syncFolder(folder)
    try {
      await this.#disk.rename(folder, this.#store(id))
    } catch (error) {
      const first = await this.readCommit(id)
      if (first === undefined) throw error
      return this.#named(first)
    }
    await this.#named(commit)
    this.#synced.delete(id)
    if (this.#folder.isShared) {
      // What other processes were about to write when the folder was renamed under them.
      const names = [...files.map(([name]) => name), uploadName, manifestName]
      await this.#removeStrays(this.#store(id), new Set([...names, ...parts.map(partName)]))
    }
    return commit
  }

  /** Makes the delivery's name durable: without that a power cut could undo the rename. */
  async #named(commit: Commit): Promise<Commit> {
    await this.syncStore()
    return commit
  }

  async syncStore(): Promise<void> {
    await allSettled([
      this.#disk.syncFolder(this.#folder.store),
      this.#disk.syncFolder(this.#folder.spool),
    ])
  }

  async dropUpload(id: DeliveryId): Promise<void> {
    this.#synced.delete(id)
    await this.#trash(this.#spool(id), id)
  }

  // Deliveries

  deliveries(): Promise<DeliveryId[]> {
    return this.#idsIn(this.#folder.store)
  }

  async isDelivery(id: DeliveryId): Promise<boolean> {
    return (await unlessMissing(this.#disk.stat(this.#store(id)), undefined)) !== undefined
  }

  async isWhole(id: DeliveryId): Promise<boolean> {
    const commit = await this.readCommit(id)
    if (commit === undefined) return false
    const { bodyLength, partCount, manifestLength } = parseHeader(commit.header)
    const leaves = await unlessMissing(
      this.readLeaves(id, { from: 0, to: partCount * leafBytes }),
      new Uint8Array(0),
    )
    const files: (readonly [string, number])[] = [
      [manifestName, manifestLength],
      [linksName, commit.links.length * slotBytes],
      [leavesName, partCount * leafBytes],
    ]
    for (let index = 0; (index + 1) * leafBytes <= leaves.length; index++) {
      const leaf = leaves.subarray(index * leafBytes, (index + 1) * leafBytes)
      files.push([partName({ index, leaf }), gridLength(index, bodyLength)])
    }
    for (const [name, sizeBytes] of files) {
      const facts = await unlessMissing(this.#disk.stat(join(this.#store(id), name)), undefined)
      if (facts?.sizeBytes !== sizeBytes) return false
    }
    return true
  }

  async readCommit(id: DeliveryId): Promise<Commit | undefined> {
    const bytes = await readSmallFile(this.#disk, join(this.#store(id), commitName), maxRecordBytes)
    return bytes && parseCommit(this.#key, id, bytes)
  }

  async readLinks(commit: Commit): Promise<StoredLink[]> {
    const path = join(this.#store(commit.id), linksName)
    const slots = await readSmallFile(this.#disk, path, commit.links.length * slotBytes)
    return this.#parseLinks(commit, slots)
  }

  #parseLinks({ id, links }: Commit, slots: Uint8Array | undefined): StoredLink[] {
    if (slots === undefined) throw new Error("a delivery without its links")
    return links.map((link, slot) => parseSlot(this.#key, { id, slot }, slots, link))
  }

  async readDeliveries(ids: readonly DeliveryId[]): Promise<(() => StoredDelivery | undefined)[]> {
    const read = (name: string, mostBytes: number) =>
      this.#disk.readSmallFiles(
        ids.map((id) => join(this.#store(id), name)),
        mostBytes,
      )
    // The links first: a delivery that is removed meanwhile has no commit then.
    const links = await read(linksName, maxLinks * slotBytes)
    const commits = await read(commitName, maxRecordBytes)
    return ids.map((id, at) => () => {
      const bytes = commits[at]
      if (bytes === undefined) return undefined
      const commit = parseCommit(this.#key, id, bytes)
      return { commit, links: this.#parseLinks(commit, links[at]) }
    })
  }

  async saveLink(id: DeliveryId, slot: number, link: Link): Promise<void> {
    const file = await this.#disk.open(join(this.#store(id), linksName), "update")
    try {
      await file.write(encodeLink(this.#key, { id, slot }, link), slotOffset(slot))
      await this.#syncing.run(() => file.sync())
    } finally {
      await file.close()
    }
  }

  async readLeaves(
    id: DeliveryId,
    { from, to }: { readonly from: number; readonly to: number },
  ): Promise<Uint8Array> {
    const file = await this.#disk.open(join(this.#store(id), leavesName), "read")
    try {
      const leaves = new Uint8Array(to - from)
      return leaves.subarray(0, await file.read(leaves, from))
    } finally {
      await file.close()
    }
  }

  async openManifest(id: DeliveryId): Promise<BlobReader> {
    return this.#disk.open(join(this.#store(id), manifestName), "read")
  }

  async openPart(part: PartPlace, where: "spool" | "store"): Promise<BlobReader> {
    const folder = where === "spool" ? this.#spool(part.id) : this.#store(part.id)
    return this.#disk.open(join(folder, partName(part)), "read")
  }

  async dropDelivery(id: DeliveryId): Promise<void> {
    await this.#trash(this.#store(id), id)
  }

  async end(ended: Ended): Promise<void> {
    const { id } = ended.commit
    try {
      await this.#saveEnded(ended)
    } catch (error) {
      if (!isDiskFull(error)) throw error
      // The one thing that must work on a full disk is making room on it.
      const trashed = await this.#trash(this.#store(id), id)
      if (trashed !== undefined) await this.#remove(trashed)
      await this.#saveEnded(ended)
    }
    await this.#trash(this.#store(id), id)
  }

  async #saveEnded(ended: Ended): Promise<void> {
    const { id } = ended.commit
    const fresh = join(this.#folder.ended, `new-${this.#temporaryName()}`)
    try {
      await writeSyncedFile(this.#disk, fresh, encodeEnded(this.#key, ended))
      await this.#disk.rename(fresh, join(this.#folder.ended, id))
    } catch (error) {
      await discardFile(this.#disk, fresh)
      throw error
    }
    await this.#disk.syncFolder(this.#folder.ended)
  }

  async readEnded(id: DeliveryId): Promise<Ended | undefined> {
    const bytes = await readSmallFile(this.#disk, join(this.#folder.ended, id), maxRecordBytes)
    return bytes && parseEnded(this.#key, id, bytes)
  }

  endedDeliveries(): Promise<DeliveryId[]> {
    return this.#idsIn(this.#folder.ended)
  }

  async forgetEnded(id: DeliveryId): Promise<void> {
    await unlessMissing(this.#disk.unlink(join(this.#folder.ended, id)), undefined)
  }

  async removeLeftovers(olderThanMs: number): Promise<number> {
    let removed = 0
    for (const name of await this.#disk.list(this.#folder.trash)) {
      await this.#remove(join(this.#folder.trash, name))
      removed += 1
    }
    for (const folder of [this.#folder.ended, this.#folder.inboxes]) {
      for (const name of await this.#disk.list(folder)) {
        if (!name.startsWith("new-")) continue
        const path = join(folder, name)
        const facts = await unlessMissing(this.#disk.stat(path), undefined)
        if (facts === undefined || facts.modifiedMs >= olderThanMs) continue
        await this.#remove(path)
        removed += 1
      }
    }
    return removed
  }

  space(): ReturnType<Disk["space"]> {
    return this.#disk.space(this.#folder.path)
  }

  async probe(): Promise<void> {
    const path = join(this.#folder.trash, this.#temporaryName())
    const file = await this.#disk.create(path)
    try {
      await file.write(Uint8Array.of(1), 0)
    } finally {
      await file.close()
      // A sweep may have emptied the trash meanwhile.
      await unlessMissing(this.#disk.unlink(path), undefined)
    }
  }

  /** Waits for what runs in the background. */
  async settle(): Promise<void> {
    await Promise.all([...this.#synced.values()].flatMap((syncs) => [...syncs.values()]))
    await this.#removing.run(() => Promise.resolve())
  }

  #spool(id: DeliveryId): string {
    return join(this.#folder.spool, id)
  }

  #store(id: DeliveryId): string {
    return join(this.#folder.store, id)
  }

  #temporaryName(): string {
    return `t-${toHex(this.#random(12))}`
  }

  async #idsIn(folder: string): Promise<DeliveryId[]> {
    return (await this.#disk.list(folder)).filter(isDeliveryId)
  }

  #syncsOf(id: DeliveryId): Map<string, Promise<boolean>> {
    const syncs = this.#synced.get(id) ?? new Map<string, Promise<boolean>>()
    this.#synced.set(id, syncs)
    return syncs
  }

  /** Never rejects: whoever waits for the part's durability asks for the outcome. */
  async #syncAndClose(file: DiskFile): Promise<boolean> {
    try {
      await this.#syncing.run(() => file.sync())
      return true
    } catch {
      return false
    } finally {
      await this.#closeQuietly(file)
    }
  }

  async #syncByName(path: string): Promise<boolean> {
    return this.#openParts.run(async () => {
      try {
        return await this.#syncAndClose(await this.#disk.open(path, "read"))
      } catch {
        return false
      }
    })
  }

  async #closeQuietly(file: DiskFile): Promise<void> {
    try {
      await file.close()
    } catch {
      // What was to be durable has been synced before; nothing hangs on the close.
    }
  }

  async #discardNewFolder(folder: string): Promise<void> {
    try {
      for (const name of await this.#disk.list(folder)) await this.#disk.unlink(join(folder, name))
      await this.#disk.removeFolder(folder)
    } catch {
      // An upload without a record; the sweep removes it.
    }
  }

  /** What failed writers and other attempts left in the upload's folder. */
  async #removeStrays(folder: string, expected: ReadonlySet<string>): Promise<void> {
    for (const name of await this.#disk.list(folder)) {
      if (expected.has(name)) continue
      await unlessMissing(this.#disk.unlink(join(folder, name)), undefined)
    }
  }

  /** Moves a folder out of the way at once; its files are unlinked in the background. */
  async #trash(folder: string, id: DeliveryId): Promise<string | undefined> {
    const target = join(this.#folder.trash, `${id}-${toHex(this.#random(8))}`)
    try {
      await this.#disk.rename(folder, target)
    } catch (error) {
      if (hasCode(error, "ENOENT")) return undefined
      throw error
    }
    // What fails here is done by the next sweep, which empties the trash.
    void this.#removing.run(() => this.#remove(target)).catch(() => undefined)
    return target
  }

  async #remove(path: string): Promise<void> {
    const facts = await unlessMissing(this.#disk.stat(path), undefined)
    if (facts === undefined) return
    if (facts.kind !== "folder") {
      await unlessMissing(this.#disk.unlink(path), undefined)
      return
    }
    for (const name of await unlessMissing(this.#disk.list(path), [])) {
      await unlessMissing(this.#disk.unlink(join(path, name)), undefined)
    }
    await unlessMissing(this.#disk.removeFolder(path), undefined)
  }
}

function partName({ index, leaf }: { readonly index: number; readonly leaf: Uint8Array }): string {
  return `p${index}-${toHex(leaf)}`
}

function joinLeaves(parts: readonly PartEntry[]): Uint8Array {
  const leaves = new Uint8Array(parts.length * 32)
  parts.forEach(({ leaf }, at) => leaves.set(leaf, at * 32))
  return leaves
}

/** Waits for all, also when one fails, so that nothing is still at work when the failure is handled. */
async function allSettled(work: readonly Promise<void>[]): Promise<void> {
  for (const outcome of await Promise.allSettled(work)) {
    if (outcome.status === "rejected") throw outcome.reason
  }
}
