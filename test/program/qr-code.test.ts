import { encode } from "uqr"
import { describe, expect, it } from "vitest"
import { drawQrCode } from "../../client/program/qr-code.js"

const link = `https://drop.example.org/to/knot1${"q".repeat(38)}`

/** The modules that a camera sees, dark ones true, from the half blocks that are bright. */
function seen(drawing: string): boolean[][] {
  return drawing.split("\n").flatMap((line) => {
    const blocks = Array.from(line)
    return [
      blocks.map((block) => !"█▀".includes(block)),
      blocks.map((block) => !"█▄".includes(block)),
    ]
  })
}

describe("a QR code", () => {
  it("has every module of the code, and four of light around it", () => {
    const { data, size } = encode(link, { ecc: "M", border: 0 })
    const modules = seen(drawQrCode(link, { coloured: false }))
    const width = size + 8
    expect(modules.length - width).toBeLessThanOrEqual(1)
    const expected = modules.map((_, row) =>
      Array.from({ length: width }, (_, column) => data[row - 4]?.[column - 4] ?? false),
    )
    expect(modules).toEqual(expected)
  })

  it("brings both of its colours along, on every line, where there are colours", () => {
    const bare = drawQrCode(link, { coloured: false }).split("\n")
    const coloured = drawQrCode(link, { coloured: true }).split("\n")
    expect(coloured).toEqual(bare.map((line) => `\u001B[38;5;231;48;5;16m${line}\u001B[0m`))
  })

  it("fits a terminal of eighty columns also for a long host", () => {
    const long = `https://${"a".repeat(56)}.onion/to/knot1${"q".repeat(38)}`
    const widths = drawQrCode(long, { coloured: false })
      .split("\n")
      .map((line) => line.length)
    expect(Math.max(...widths)).toBeLessThanOrEqual(80)
  })
})
