// What a reader copies out of a page: its fenced blocks, by the heading they stand under.
import { readFileSync } from "node:fs"

export interface Block {
  readonly heading: string
  readonly language: string
  readonly text: string
}

export function blocksOf(page: string): Block[] {
  const blocks: Block[] = []
  let heading = ""
  let open: { language: string; lines: string[] } | undefined
  for (const line of readFileSync(page, "utf8").split("\n")) {
    const fence = /^ *```(\w*)$/.exec(line)
    if (open !== undefined && fence !== null) {
      blocks.push({ heading, language: open.language, text: open.lines.join("\n") })
      open = undefined
    } else if (open !== undefined) {
      open.lines.push(line)
    } else if (fence !== null) {
      open = { language: fence[1] ?? "", lines: [] }
    } else if (line.startsWith("#")) {
      heading = line.replace(/^#+ /, "")
    }
  }
  return blocks
}

/** The one block that holds this text. */
export function blockWith(blocks: readonly Block[], text: string): string {
  const found = blocks.filter((block) => block.text.includes(text))
  const [only] = found
  if (only === undefined || found.length > 1) {
    throw new Error(`${found.length} blocks hold ${JSON.stringify(text)}, one was expected`)
  }
  return only.text
}
