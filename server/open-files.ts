// How many files and sockets the system lets this process have open at once.
import { readFileSync } from "node:fs"

/** Undefined where the system cannot be asked or sets no limit. Node raises it to the hard one itself. */
export function openFilesAtMost(): number | undefined {
  try {
    const limits = readFileSync("/proc/self/limits", "utf8")
    const [, text] = /^Max open files\s+([0-9]{1,15})\s/m.exec(limits) ?? []
    return text === undefined ? undefined : Number(text)
  } catch {
    return undefined
  }
}
