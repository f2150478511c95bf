// How values look to a person. Everything a sender, a relay or a file system named passes through
// `showText`, so that no name can move the cursor, hide, or turn the line around (T14).
import { isoTime } from "../iso-time.js"

// Controls, format characters (the bidirectional ones among them), lone surrogates, private and
// unassigned characters, line and paragraph separators, everything that is drawn as nothing, and
// every space but the plain one: two different names shall not look alike.
const unsafe = /[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]|[^\P{Zs} ]/gu

const named: Readonly<Record<string, string>> = {
  "\n": String.raw`\n`,
  "\r": String.raw`\r`,
  "\t": String.raw`\t`,
}

/**
 * Text that is safe on one line of a terminal: what is unsafe becomes `\n`, `\x1b` or `\u{202e}`, and a byte
 * that is not UTF-8 becomes `\xff`. A backslash stays one, so showing twice changes nothing more:
 * whoever prints may always escape. Exact names are what `--json` is for.
 */
export function showText(text: string | Uint8Array): string {
  return (typeof text === "string" ? text : decodeLossless(text)).replace(unsafe, escapeCharacter)
}

/** A message of ours may have several lines; what it quotes may not add any of its own. */
export function showLines(text: string): string {
  return text.split("\n").map(showText).join("\n")
}

/** JSON that survives a terminal: the same value when parsed, escapes for all that `showText` escapes. */
export function showJson(value: unknown): string {
  return JSON.stringify(value).replace(unsafe, (character) => {
    let escaped = ""
    for (let index = 0; index < character.length; index++) {
      escaped += `\\u${character.charCodeAt(index).toString(16).padStart(4, "0")}`
    }
    return escaped
  })
}

function escapeCharacter(character: string): string {
  const name = named[character]
  if (name !== undefined) return name
  const code = character.codePointAt(0) ?? 0
  return code < 0x80 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`
}

function decodeLossless(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    return decodeAround(bytes)
  }
}

/** Decodes sequence by sequence, so that one bad byte does not cost the name its other characters. */
function decodeAround(bytes: Uint8Array): string {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })
  let text = ""
  for (let at = 0; at < bytes.length;) {
    const first = bytes[at] ?? 0
    const length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4
    try {
      text += decoder.decode(bytes.subarray(at, at + length))
      at += length
    } catch {
      text += `\\x${first.toString(16).padStart(2, "0")}`
      at += 1
    }
  }
  return text
}

const sizeUnits = ["KiB", "MiB", "GiB", "TiB", "PiB"]

/** Three significant digits at most, never rounded up to the next unit's 1024. */
export function showSize(sizeBytes: number): string {
  if (sizeBytes < 1024) return `${Math.round(sizeBytes)} B`
  let value = sizeBytes
  let unit = ""
  for (const next of sizeUnits) {
    unit = next
    value /= 1024
    if (value < 1023.5) break
  }
  return `${value < 9.995 ? value.toFixed(2) : value < 99.95 ? value.toFixed(1) : value.toFixed(0)} ${unit}`
}

/** Local time with its zone: `2026-11-20 20:33 +01:00`. The zone follows `TZ`. */
export function showTime(timeMs: number): string {
  // A stranger's time may be beyond all that has a zone.
  const zoneMinutes = -new Date(isoTime(timeMs)).getTimezoneOffset()
  const local = isoTime(timeMs + zoneMinutes * 60_000)
  const zone = Math.abs(zoneMinutes)
  const sign = zoneMinutes < 0 ? "-" : "+"
  return `${local.slice(0, 10)} ${local.slice(11, 16)} ${sign}${two(Math.floor(zone / 60))}:${two(zone % 60)}`
}

/** A rough length of time, for waiting: `8 s`, `3 min 20 s`, `2 h 5 min`, `4 d 3 h`. */
export function showDuration(durationMs: number): string {
  const seconds = Math.round(durationMs / 1000)
  if (seconds < 60) return `${seconds} s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return pair(minutes, "min", seconds % 60, "s")
  const hours = Math.floor(minutes / 60)
  if (hours < 24) return pair(hours, "h", minutes % 60, "min")
  return pair(Math.floor(hours / 24), "d", hours % 24, "h")
}

export function showCount(count: number, one: string, many: string = `${one}s`): string {
  return `${count.toLocaleString("en-US")} ${count === 1 ? one : many}`
}

/** Shortens shown text to so many characters, with an ellipsis for what is missing. */
export function shorten(text: string, width: number): string {
  const characters = Array.from(text)
  return characters.length <= width ? text : `${characters.slice(0, width - 1).join("")}…`
}

/** Indented lines of at most so many characters, broken at spaces; a longer word stands alone. */
export function fold(text: string, width: number): string {
  const lines: string[] = []
  let line = ""
  for (const word of text.split(" ")) {
    if (line === "") line = `  ${word}`
    else if (line.length + 1 + word.length <= width) line += ` ${word}`
    else {
      lines.push(line)
      line = `    ${word}`
    }
  }
  return [...lines, line].join("\n")
}

/** One word of a POSIX shell. */
export function quoteForShell(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`
}

function pair(large: number, largeUnit: string, small: number, smallUnit: string): string {
  return small === 0 ? `${large} ${largeUnit}` : `${large} ${largeUnit} ${small} ${smallUnit}`
}

function two(value: number): string {
  return String(value).padStart(2, "0")
}
