// Domain separation: every hash and key derivation begins with, or is salted by, one of these.
import { utf8 } from "./bytes.js"

/** `wrap` and `link` serve several places of one construction each; every other one serves one. */
export type LabelName =
  | "leaf"
  | "node"
  | "root"
  | "empty"
  | "header"
  | "bundle"
  | "wrap"
  | "ds"
  | "manif"
  | "link"
  | "oleaf"
  | "oroot"
  | "auth-dh"
  | "auth-sig"
  | "stamp"
  | "chain"
  | "receipt"
  | "head"
  | "chal"
  | "minute"

const known = new Map<LabelName, Uint8Array>()

/** `kh/v1/<name>` in ASCII, zero-padded to 16 bytes. Shared: callers read it and never write. */
export function label(name: LabelName): Uint8Array {
  let bytes = known.get(name)
  if (bytes === undefined) {
    bytes = new Uint8Array(16)
    bytes.set(utf8(`kh/v1/${name}`))
    known.set(name, bytes)
  }
  return bytes
}
