/**
 * A folder with those above it. Not by the recursive mkdir of Node: where a system answers that there is
 * no such file although the folder above is there, as /proc does and a link that leads nowhere, that one
 * tries again for ever and hears no signal meanwhile.
 */
import { mkdirSync, statSync } from "node:fs"
import path from "node:path"
import { errorCode } from "./error-code.js"
import { CannotMakeFolder } from "./errors.js"

/** Leaves alone one that is there. Throws CannotMakeFolder, or what the system says. */
export function makeFolder(folder: string, mode?: number): void {
  if (tryToMake(folder, mode)) return
  const above = path.dirname(path.resolve(folder))
  makeFolder(above, mode)
  if (!tryToMake(folder, mode)) throw new CannotMakeFolder(folder, above)
}

/** False when the folder above is not there, as far as the system says. */
function tryToMake(folder: string, mode: number | undefined): boolean {
  try {
    mkdirSync(folder, { mode })
    return true
  } catch (error) {
    if (isFolder(folder)) return true
    if (errorCode(error) === "ENOENT") return false
    throw error
  }
}

function isFolder(folder: string): boolean {
  return statSync(folder, { throwIfNoEntry: false })?.isDirectory() === true
}
