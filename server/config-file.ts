// A file of settings: `NAME=VALUE` lines under the names the environment has them by. It is what
// systemd reads as an EnvironmentFile and means the same there, so that one file, and one set of
// names, does for both; whatever systemd would read in another way is refused here.
//
//   # or ; begins a comment, on a line of its own
//   KNOTHOLE_PUBLIC_URL=https://drop.example.org https://drop.example.net
//   KNOTHOLE_DATA="/srv/knot hole"

export interface FileEntry {
  readonly name: string
  readonly value: string
  readonly line: number
}

/** Reads all of it; `problems` has what cannot be read, each with its line. */
export function parseConfigFile(text: string): {
  readonly entries: readonly FileEntry[]
  readonly problems: readonly { readonly line: number; readonly problem: string }[]
} {
  const entries: FileEntry[] = []
  const problems: { line: number; problem: string }[] = []
  for (const [at, whole] of text
    .replace(/^\uFEFF/, "")
    .split(/\r?\n/)
    .entries()) {
    const line = at + 1
    const written = whole.trim()
    if (written === "" || /^[#;]/.test(written)) continue
    const parsed = parseLine(written)
    if (typeof parsed === "string") problems.push({ line, problem: parsed })
    else entries.push({ ...parsed, line })
  }
  return { entries, problems }
}

function parseLine(written: string): { readonly name: string; readonly value: string } | string {
  const [, name, text = ""] = /^([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)$/u.exec(written) ?? []
  if (name === undefined) return "not NAME=VALUE, nor a comment"
  const [, , quoted] = /^(["'])(.*)\1$/u.exec(text) ?? []
  const value = quoted ?? text
  // A quote or backslash inside means several things to several programs.
  if (/["'\\]/.test(value)) return `${name}: a value has no quotes or backslashes in it`
  return { name, value }
}
