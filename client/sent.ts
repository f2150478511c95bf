/** What stays of a delivery at its sender: enough to ask about it and to take it back. */
import { readFile, rm } from "node:fs/promises"
import path from "node:path"
import {
  equalBytes,
  FormatError,
  fromBase64url,
  parseId,
  parseStatusReply,
  RelayRefusal,
  type StatusReply,
  toBase64url,
  utf8,
} from "../protocol/index.js"
import { DeliveryGone, Untrustworthy } from "./errors.js"
import { errorCode } from "./error-code.js"
import {
  makePrivateFolder,
  placePrivateFile,
  replacePrivateFile,
  syncFolder,
} from "./private-files.js"
import type { CallOptions } from "./progress.js"
import { callOf } from "./relay.js"
import { RelayClient } from "./relay-client.js"
import { type ClientState, namesIn, takeLock } from "./state.js"
import { uploadOf } from "./upload-journal.js"

export interface SentRecord {
  readonly id: string
  readonly origin: string
  readonly addresses: readonly string[]
  readonly receipts: readonly { readonly address: string; readonly receipt: Uint8Array }[]
  readonly acceptedMs: number
  readonly expiresMs: number
  readonly entries: number
  readonly contentBytes: number
}

export interface SentOptions extends CallOptions {
  id: string
  state: ClientState
}

export type DeliveryStatus = StatusReply

interface StoredRecord extends SentRecord {
  readonly deleteCapability: Uint8Array
}

function folderOf(state: ClientState): string {
  return path.join(state.folder, "sent")
}

function fileOf(state: ClientState, id: string): string {
  return path.join(folderOf(state), parseId(id))
}

export async function keepSent(
  state: ClientState,
  record: SentRecord,
  deleteCapability: Uint8Array,
): Promise<void> {
  await makePrivateFolder(folderOf(state))
  const stored = {
    v: 1,
    ...record,
    receipts: record.receipts.map(({ address, receipt }) => ({
      address,
      receipt: toBase64url(receipt),
    })),
    deleteCapability: toBase64url(deleteCapability),
  }
  const file = fileOf(state, record.id)
  const content = utf8(`${JSON.stringify(stored)}\n`)
  if (await placePrivateFile(file, content)) return
  const known = await readSent(state, record.id)
  // Any relay may choose any id. With its record a delivery would be out of its sender's reach.
  if (known.origin !== record.origin || !equalBytes(known.deleteCapability, deleteCapability)) {
    throw new Untrustworthy(
      `${record.origin} gave this delivery the id ${record.id} of one sent before; do not count on it`,
    )
  }
  await replacePrivateFile(file, content)
}

/** Of everything that was sent from here and not forgotten, in no order; damaged records count. */
export async function sentIds(state: ClientState): Promise<string[]> {
  return (await namesIn(folderOf(state))).filter((name) => /^[0-9a-f]{32}$/.test(name))
}

/** Oldest first. */
export async function listSent(state: ClientState): Promise<SentRecord[]> {
  const records: SentRecord[] = []
  for (const id of await sentIds(state)) {
    const { deleteCapability: _, ...record } = await readSent(state, id)
    records.push(record)
  }
  return records.sort((a, b) => a.acceptedMs - b.acceptedMs)
}

/** What the relay tells a sender about its delivery. */
export async function deliveryStatus(options: SentOptions): Promise<DeliveryStatus> {
  return askAsSender(options, (client, request) =>
    client.json(
      { ...request, method: "GET", path: `/v1/deliveries/${options.id}/status` },
      parseStatusReply,
    ),
  )
}

/** Deletes the delivery for all its recipients. */
export async function revokeDelivery(options: SentOptions): Promise<void> {
  await askAsSender(options, (client, request) =>
    client.nothing({ ...request, method: "DELETE", path: `/v1/deliveries/${options.id}` }),
  )
}

/**
 * Erases the local record: receipts, capability, and the journal with its secrets if a crash left one.
 * The delivery stays at the relay, out of this client's reach. False when nothing was known of it.
 */
export async function forgetSent(options: { id: string; state: ClientState }): Promise<boolean> {
  const { id, state } = options
  // The journal first: the record is what another run would find it by.
  const forgotJournal = await forgetJournal(id, path.join(state.folder, "uploads"))
  return (await erase(fileOf(state, id))) || forgotJournal
}

async function forgetJournal(id: string, folder: string): Promise<boolean> {
  let forgot = false
  for (const name of await namesIn(folder)) {
    const file = path.join(folder, name)
    if (!/^[0-9a-f]{32}$/.test(name) || (await uploadOf(file)) !== id) continue
    const lock = await takeLock(`${file}.lock`, "sending this")
    try {
      forgot = await erase(file)
    } finally {
      await lock.release()
    }
  }
  return forgot
}

/** Durable when this ends: what was forgotten does not come back with the power. */
async function erase(file: string): Promise<boolean> {
  try {
    await rm(file)
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false
    throw error
  }
  await syncFolder(path.dirname(file))
  return true
}

async function askAsSender<T>(
  options: SentOptions,
  ask: (client: RelayClient, request: CallOptions & { credential: Uint8Array }) => Promise<T>,
): Promise<T> {
  const { origin, deleteCapability } = await readSent(options.state, options.id)
  const client = new RelayClient({ origin, proxies: options.proxies })
  try {
    return await ask(client, { credential: deleteCapability, ...callOf(options) })
  } catch (error) {
    if (error instanceof RelayRefusal && error.code === "not_found") {
      throw new DeliveryGone(
        options.id,
        "unknown",
        `${origin} no longer knows this delivery; a relay forgets one 30 days after its end`,
      )
    }
    throw error
  } finally {
    client.close()
  }
}

async function readSent(state: ClientState, id: string): Promise<StoredRecord> {
  let text: string
  try {
    text = await readFile(fileOf(state, id), "utf8")
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error
    throw new DeliveryGone(
      id,
      "unknown",
      `no delivery ${id} was sent from here; list what was sent`,
    )
  }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw new FormatError("sent record", `${fileOf(state, id)} is damaged`, { cause: error })
  }
  try {
    return parseStored(value)
  } catch (error) {
    if (!(error instanceof FormatError)) throw error
    throw new FormatError("sent record", `${fileOf(state, id)} is damaged`, { cause: error })
  }
}

function parseStored(value: unknown): StoredRecord {
  const object = objectOf(value) ?? {}
  const text = (field: string) => {
    const found = object[field]
    if (typeof found !== "string") throw damaged(field)
    return found
  }
  const count = (field: string) => {
    const found = object[field]
    if (typeof found !== "number") throw damaged(field)
    return found
  }
  const list = (field: string): unknown[] => {
    const found = object[field]
    if (!Array.isArray(found)) throw damaged(field)
    return found
  }
  return {
    id: parseId(text("id")),
    origin: text("origin"),
    addresses: list("addresses").filter((address) => typeof address === "string"),
    receipts: list("receipts").map((item) => {
      const { address, receipt } = objectOf(item) ?? {}
      if (typeof address !== "string" || typeof receipt !== "string") throw damaged("receipts")
      return { address, receipt: fromBase64url(receipt) }
    }),
    acceptedMs: count("acceptedMs"),
    expiresMs: count("expiresMs"),
    entries: count("entries"),
    contentBytes: count("contentBytes"),
    deleteCapability: fromBase64url(text("deleteCapability")),
  }
}

function damaged(field: string): FormatError {
  return new FormatError(`sent record.${field}`, "damaged")
}

function objectOf(value: unknown): Record<string, unknown> | undefined {
  return typeof value === "object" && value !== null ? { ...value } : undefined
}
