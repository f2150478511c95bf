// Quantities as people write them on a command line.
import { parseContactName } from "../contact-name.js"
import { showText } from "./display.js"
import { UsageError } from "./errors.js"

const unitMs = new Map([
  ["m", 60_000],
  ["h", 3_600_000],
  ["d", 86_400_000],
  ["w", 604_800_000],
])

/** `90m`, `36h`, `7d`, `2w`, in milliseconds. A bare number is refused: nobody agrees on its unit. */
export function parseDuration(text: string): number {
  const match = /^([1-9][0-9]{0,4})([mhdw])$/.exec(text)
  const unit = unitMs.get(match?.[2] ?? "")
  if (match === null || unit === undefined) {
    throw new UsageError(
      `'${text}' is not a length of time: write a whole number and a unit, as in 90m, 36h, 7d or 2w`,
    )
  }
  return Number(match[1]) * unit
}

const sizeUnits = new Map([
  ["", 1],
  ["kib", 1024],
  ["mib", 1024 ** 2],
  ["gib", 1024 ** 3],
  ["tib", 1024 ** 4],
])

/** `4096`, `500MiB`, `2GiB`, in bytes. A unit that could mean thousands is refused. */
export function parseSize(text: string): number {
  const match = /^([0-9]{1,12})([a-z]*)$/i.exec(text)
  const unit = sizeUnits.get(match?.[2]?.toLowerCase() ?? "none")
  const sizeBytes = unit === undefined ? NaN : Number(match?.[1]) * unit
  if (Number.isSafeInteger(sizeBytes)) return sizeBytes
  throw new UsageError(
    `'${text}' is not a size: write a whole number of bytes, or one with a unit, as in 500MiB or 2GiB`,
  )
}

/** A program and its arguments, apart at each run of spaces. What a shell would do more is refused. */
export function parseCommand(text: string): string[] {
  if (/["'\\`$|&;<>*?]/.test(text)) {
    throw new UsageError(
      `--exec '${text}': quotes, $ and the other signs of a shell mean nothing here, where no shell runs\nWrite the command after -- instead, word by word: knothole watch -- sh -c '…'`,
    )
  }
  const words = text.split(" ").filter((word) => word !== "")
  if (words.length > 0) return words
  throw new UsageError("--exec is empty: name a program, with its arguments behind it")
}

/** Of an entry, as `show` writes it; a folder's may end in a slash. */
export function parseEntryPath(text: string): string {
  const path = text.replace(/\/+$/, "")
  if (path !== "") return path
  throw new UsageError("--entry is empty: name a file or folder as 'knothole show ID' lists it")
}

/** Ids of deliveries are 32 lower-case hex characters wherever people meet them; who types one may end early. */
export function parseDeliveryId(text: string): string {
  if (/^[0-9a-f]{6,32}$/.test(text)) return text
  throw new UsageError(
    `'${text}' is not a delivery id: an id is 32 characters of 0-9 and a-f, as 'knothole send' and 'knothole inbox' print it, or at least the first 6 of them`,
  )
}

export function isWholeId(id: string): boolean {
  return id.length === 32
}

/** The one of `ids` that begins with what was typed; undefined when none does. */
export function completeId(begun: string, ids: readonly string[]): string | undefined {
  const found = ids.filter((id) => id.startsWith(begun))
  if (found.length <= 1) return found[0]
  throw new UsageError(
    `more than one id begins with '${begun}'; write more of it:\n${found.map((id) => `  ${id}`).join("\n")}`,
  )
}

/** Names of identities become file names. */
export function parseIdentityName(text: string): string {
  if (/^[a-z0-9][a-z0-9_-]{0,62}$/.test(text)) return text
  throw new UsageError(
    `'${text}' cannot name an identity: use lower-case letters, digits, '-' and '_', at most 63 of them, beginning with a letter or digit`,
  )
}

/** The name a person gives to somebody they know. */
export function parseContact(text: string): string {
  const name = parseContactName(text)
  if (name !== undefined) return name
  throw new UsageError(
    `'${showText(text)}' cannot name a contact: use letters, digits, '.', '-' and '_', at most 63 of them, beginning with a letter or digit and not with knot1`,
  )
}
