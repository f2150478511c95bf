/**
 * A terminal's screen as an SVG picture, from what `tmux capture-pane -e` says of it: lines of text with
 * escape sequences for colours and weight (ECMA-48 §8.3.117, "select graphic rendition").
 */

export interface Picture {
  readonly title: string
  readonly screen: string
  readonly columns: number
}

interface Look {
  readonly bold: boolean
  readonly dim: boolean
  readonly inverse: boolean
  readonly colour: string | undefined
}

interface Run {
  readonly column: number
  readonly text: string
  readonly look: Look
}

const plain: Look = { bold: false, dim: false, inverse: false, colour: undefined }
const cell = { width: 8.4, height: 18 }
const margin = 14
const titleHeight = 30
const ground = "#14171c"
const ink = "#d8dee6"
/** The eight colours of SGR 30 to 37, and of 90 to 97. */
const colours = "#5c6370 #e06c75 #98c379 #e5c07b #61afef #c678dd #56b6c2 #d8dee6".split(" ")

export function drawTerminal({ title, screen, columns }: Picture): string {
  const lines = screen.replace(/\n+$/, "").split("\n")
  const width = Math.ceil(columns * cell.width + 2 * margin)
  const height = Math.ceil(titleHeight + lines.length * cell.height + 2 * margin)
  const rows = lines.flatMap((line, row) =>
    readRuns(line).map((run) => drawRun(run, titleHeight + margin + (row + 1) * cell.height - 5)),
  )
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img">
<title>${escapeXml(title)}</title>
<rect width="${width}" height="${height}" rx="8" fill="${ground}"/>
<text x="${width / 2}" y="20" fill="#7f8896" font-family="sans-serif" font-size="12" text-anchor="middle">${escapeXml(title)}</text>
<g font-family="ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace" font-size="14">
${rows.join("\n")}
</g>
</svg>
`
}

/** The words of one line, together as far as they look alike and one blank is between them. */
function readRuns(line: string): Run[] {
  const runs: Run[] = []
  let look = plain
  let column = 0
  // oxlint-disable-next-line no-control-regex -- the escape character is what is looked for
  for (const piece of line.split(/(\u001b\[[0-9;]*m)/)) {
    if (piece.startsWith("\u001b[")) {
      look = changedLook(look, piece.slice(2, -1).split(";").map(Number))
      continue
    }
    // Each run of words stands at its own column, because readers of SVG join blanks together.
    for (const { 0: text, index } of piece.matchAll(/\S+(?: \S+)*/gu)) {
      runs.push({ column: column + Array.from(piece.slice(0, index)).length, text, look })
    }
    column += Array.from(piece).length
  }
  return runs
}

function changedLook(before: Look, codes: readonly number[]): Look {
  let look = before
  for (const code of codes) {
    if (code === 0) look = plain
    else if (code === 1) look = { ...look, bold: true }
    else if (code === 2) look = { ...look, dim: true }
    else if (code === 7) look = { ...look, inverse: true }
    else if (code === 22) look = { ...look, bold: false, dim: false }
    else if (code === 27) look = { ...look, inverse: false }
    else if (code === 39) look = { ...look, colour: undefined }
    else if (code >= 30 && code <= 37) look = { ...look, colour: colours[code - 30] }
    else if (code >= 90 && code <= 97) look = { ...look, colour: colours[code - 90] }
  }
  return look
}

/** Each run stands on the grid by itself and is as wide as its cells, whatever font the reader has. */
function drawRun({ column, text, look }: Run, baseline: number): string {
  const x = (margin + column * cell.width).toFixed(1)
  const width = (Array.from(text).length * cell.width).toFixed(1)
  const colour = look.colour ?? ink
  const back = look.inverse
    ? `<rect x="${x}" y="${baseline - 13}" width="${width}" height="${cell.height}" fill="${colour}"/>`
    : ""
  const weight = look.bold ? ' font-weight="bold"' : ""
  const opacity = look.dim ? ' opacity="0.6"' : ""
  const fill = look.inverse ? ground : colour
  return `${back}<text x="${x}" y="${baseline}" textLength="${width}" lengthAdjust="spacingAndGlyphs" fill="${fill}"${weight}${opacity}>${escapeXml(text)}</text>`
}

function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;")
}
