// The relay's own secrets, each in a file of keys/ and each for one job. They are made once, on the
// first start, and are synced before anything is signed or sealed under them.
import { join } from "node:path"
import {
  ed25519PublicKey,
  hkdfSha256,
  type Random,
  stampEpoch,
  utf8,
} from "../../protocol/index.js"
import { type Disk, readSmallFile, unlessMissing, writeSyncedFile } from "../disk.js"
import type { DataFolder } from "./data-folder.js"

const keyBytes = 32
const dayMs = 86_400_000
/** After this many days nobody, the relay included, can read where a delivery came from. */
const sourceKeyDays = 30

export interface RelayKeys {
  /** Which of each kind of key is in use; the only one so far. */
  readonly kid: number
  /** Ed25519: receipts, heads, minutes. */
  readonly signSeed: Uint8Array
  readonly signingKey: Uint8Array
  /** MACs stamps. */
  readonly frankKey: Uint8Array
  /** Upload tokens are derived from it. */
  readonly tokenKey: Uint8Array
  /** MACs the records of the blob store. */
  readonly recordKey: Uint8Array
  /** Seals the source in the stamps of the day that `acceptedMs` lies in. */
  sourceKey(acceptedMs: number): Promise<Uint8Array>
  /** Destroys the source keys that are too old. */
  forgetSourceKeys(nowMs: number): Promise<void>
}

export async function openRelayKeys(input: {
  readonly disk: Disk
  readonly folder: DataFolder
  readonly random: Random
}): Promise<RelayKeys> {
  const { disk, folder, random } = input
  const ensure = (name: string) => ensureKey({ disk, random, folder: folder.keys, name })
  const signSeed = await ensure("sign-1")
  const sourceKeys = new Map<number, Promise<Uint8Array>>()
  return {
    kid: 1,
    signSeed,
    signingKey: ed25519PublicKey(signSeed),
    frankKey: await ensure("frank-1"),
    tokenKey: await ensure("token-1"),
    recordKey: await ensure("record-1"),
    sourceKey(acceptedMs) {
      const epoch = stampEpoch(acceptedMs)
      let key = sourceKeys.get(epoch)
      if (key === undefined) {
        key = folder.locks.run("keys", () => ensure(`source-${epoch}`))
        sourceKeys.set(epoch, key)
        // A full disk today shall not be remembered tomorrow.
        key.catch(() => sourceKeys.delete(epoch))
      }
      return key
    },
    async forgetSourceKeys(nowMs) {
      const oldest = stampEpoch(nowMs - sourceKeyDays * dayMs)
      for (const name of await disk.list(folder.keys)) {
        const epoch = /^source-([0-9]+)$/.exec(name)?.[1]
        if (epoch === undefined || Number(epoch) >= oldest) continue
        await unlessMissing(disk.unlink(join(folder.keys, name)), undefined)
        sourceKeys.delete(Number(epoch))
      }
    },
  }
}

interface KeyPlace {
  readonly disk: Disk
  readonly folder: string
  readonly name: string
}

/** One caller at a time for each name. */
async function ensureKey(place: KeyPlace & { readonly random: Random }): Promise<Uint8Array> {
  const { disk, folder, name, random } = place
  const known = await readKey(place)
  if (known !== undefined) return known
  const temporary = join(folder, `new-${name}`)
  await unlessMissing(disk.unlink(temporary), undefined)
  const key = random(keyBytes)
  await writeSyncedFile(disk, temporary, key)
  await disk.rename(temporary, join(folder, name))
  await disk.syncFolder(folder)
  return key
}

async function readKey({ disk, folder, name }: KeyPlace): Promise<Uint8Array | undefined> {
  const bytes = await readSmallFile(disk, join(folder, name), keyBytes)
  if (bytes !== undefined && bytes.length !== keyBytes) {
    throw new Error(`the key ${name} is damaged: restore keys/ from a backup`)
  }
  return bytes
}

/** The token of an upload: the same again for a retry, and never stored. */
export function uploadToken(input: {
  readonly tokenKey: Uint8Array
  readonly id: Uint8Array
  /** SHA-256 of the idempotency key. */
  readonly keyHash: Uint8Array
}): Uint8Array {
  return hkdfSha256({
    ikm: input.tokenKey,
    salt: input.keyHash,
    info: new Uint8Array([...utf8("upload token "), ...input.id]),
    length: 32,
  })
}

/** The id of the upload that a request with this idempotency key starts. */
export function uploadId(input: {
  readonly tokenKey: Uint8Array
  readonly keyHash: Uint8Array
}): Uint8Array {
  return hkdfSha256({
    ikm: input.tokenKey,
    salt: input.keyHash,
    info: utf8("upload id"),
    length: 16,
  })
}
