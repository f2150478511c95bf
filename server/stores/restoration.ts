// That this folder is a backup that was put back, in the operator's word. From then on the relay signs
// it in every head, so that a client that has seen more than there is now need not take the relay for
// one that rewrites its history (docs/protocol.md §9).
import { join } from "node:path"
import { type Restoration, utf8 } from "../../protocol/index.js"
import { readNotedTime } from "../clock-watch.js"
import type { RelayConfig } from "../config.js"
import { type Disk, readSmallFile, unlessMissing, writeSyncedFile } from "../disk.js"
import { nodeDisk } from "../node-disk.js"
import { systemRandomness } from "../randomness.js"
import { type DataFolder, openDataFolder } from "./data-folder.js"
import { DataFolderError } from "./folder-lock.js"
import { DamagedRecord, encodeRecord, openRecord } from "./maced-record.js"
import { openRelayKeys } from "./relay-keys.js"
import { Fields } from "./record-fields.js"

const fileName = "restored"
const mostBytes = 1000

/** Undefined in a folder that is no restored backup. */
export async function readRestoration(
  disk: Disk,
  folder: DataFolder,
  recordKey: Uint8Array,
): Promise<Restoration | undefined> {
  const bytes = await readSmallFile(disk, join(folder.path, fileName), mostBytes)
  if (bytes === undefined) return undefined
  try {
    return openRecord({ key: recordKey, kind: "restored.v1", name: fileName }, bytes, (value) => {
      const fields = new Fields(value, fileName)
      return { backupMs: fields.count("backup_ms"), restoredMs: fields.count("restored_ms") }
    })
  } catch (error) {
    if (!(error instanceof DamagedRecord)) throw error
    throw new DataFolderError(
      `${join(folder.path, fileName)} was not written by this relay: remove it, and run 'knothole relay restored' if this is a backup`,
      { cause: error },
    )
  }
}

/**
 * Declares the folder of a relay that does not run to be a restored backup. Without `backupMs` the
 * backup was made when the relay last noted the time. The index is rebuilt at the next start, and
 * what the copy has in part only is dropped then. Throws DataFolderError.
 */
export async function declareRestored(
  { dataFolder }: Pick<RelayConfig, "dataFolder">,
  backupMs?: number,
): Promise<Restoration> {
  const disk = nodeDisk
  for (const name of ["version", join("keys", "record-1")]) {
    const facts = await unlessMissing(disk.stat(join(dataFolder, name)), undefined)
    if (facts?.kind === "file") continue
    throw new DataFolderError(
      `${dataFolder} holds no relay's data: ${name} is missing. Put the whole backup there first, or name its folder with --data`,
    )
  }
  const folder = await openDataFolder({ disk, path: dataFolder, random: systemRandomness })
  try {
    const { recordKey } = await openRelayKeys({ disk, folder, random: systemRandomness })
    const { notedMs } = await readNotedTime(disk, folder.path)
    const { modifiedMs } = await disk.stat(join(folder.path, "version"))
    const restoration = {
      backupMs: backupMs ?? (notedMs > 0 ? notedMs : Math.floor(modifiedMs)),
      // Not before what the relay signed last, wherever the clock of this machine stands.
      restoredMs: Math.max(Date.now(), notedMs),
    }
    const record = encodeRecord(
      { key: recordKey, kind: "restored.v1", name: fileName },
      { backup_ms: restoration.backupMs, restored_ms: restoration.restoredMs },
    )
    // First this: should it end here, the index is rebuilt once too often.
    await unlessMissing(disk.unlink(join(folder.path, "shared-index")), undefined)
    await replaceFile(disk, folder, "index-state", utf8(copiedIndexState))
    await replaceFile(disk, folder, fileName, record)
    return restoration
  } finally {
    await folder.release()
  }
}

/** The state of an index that belongs to another folder (folder-index.ts). */
const copiedIndexState = JSON.stringify({
  marker: "",
  clean: false,
  boot: "",
  index: "",
  folder: "another",
})

async function replaceFile(
  disk: Disk,
  folder: DataFolder,
  name: string,
  bytes: Uint8Array,
): Promise<void> {
  const path = join(folder.path, name)
  await unlessMissing(disk.unlink(`${path}.new`), undefined)
  await writeSyncedFile(disk, `${path}.new`, bytes)
  await disk.rename(`${path}.new`, path)
  await disk.syncFolder(folder.path)
}
