import { encode } from "uqr"

/** Four modules of light all around, says the standard; readers do without less at their own risk. */
const quietModules = 4

/**
 * A QR code of `text` in half blocks, two rows of modules to a line. `coloured` draws black on white
 * whatever the terminal's own colours are. Without colours light modules are drawn and dark ones left
 * out, which is right on a dark terminal and inverted on a light one, and not every reader takes that.
 */
export function drawQrCode(text: string, { coloured }: { readonly coloured: boolean }): string {
  const { data, size } = encode(text, { ecc: "M", border: quietModules })
  const lines: string[] = []
  for (let row = 0; row < size; row += 2) {
    // A last row of its own has light below it.
    const below = data[row + 1] ?? []
    const line = (data[row] ?? []).map((isDark, column) =>
      halfBlock({ upper: !isDark, lower: below[column] !== true }),
    )
    lines.push(coloured ? `${whiteOnBlack}${line.join("")}${plain}` : line.join(""))
  }
  return lines.join("\n")
}

// Of the 256 colours, since "white" among the first 16 is often a grey of the theme's choosing.
const whiteOnBlack = "\u001b[38;5;231;48;5;16m"
const plain = "\u001b[0m"

function halfBlock(light: { readonly upper: boolean; readonly lower: boolean }): string {
  if (light.upper) return light.lower ? "█" : "▀"
  return light.lower ? "▄" : " "
}
