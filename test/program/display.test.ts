import * as fc from "fast-check"
import { describe, expect, it } from "vitest"
import {
  quoteForShell,
  fold,
  shorten,
  showDuration,
  showJson,
  showLines,
  showSize,
  showText,
  showTime,
} from "../../client/program/display.js"
import { isoTime } from "../../client/iso-time.js"

const dangerous = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u
const anyText = fc.string({ unit: "binary" })
// Half of it well-formed, so that both ways through the decoder are taken.
const anyBytes = fc.oneof(
  fc.uint8Array(),
  anyText.map((text) => new TextEncoder().encode(text)),
)

describe("what a sender wrote, as it is shown", () => {
  it("never contains a control, a format character or a separator of lines", () => {
    fc.assert(fc.property(anyText, (text) => !dangerous.test(showText(text))))
    fc.assert(fc.property(anyBytes, (bytes) => !dangerous.test(showText(bytes))))
  })

  it("changes no more when it is shown again", () => {
    fc.assert(
      fc.property(anyText, (text) => {
        expect(showText(showText(text))).toBe(showText(text))
      }),
    )
  })

  it("is the same for a text and for its UTF-8 bytes", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), (text) => {
        expect(showText(new TextEncoder().encode(text))).toBe(showText(text))
      }),
    )
  })

  it("leaves ordinary names in any script alone", () => {
    for (const name of [
      "report.pdf",
      "größe (1).txt",
      "отчёт",
      "写真.jpg",
      String.raw`a\b`,
      "🙂",
    ]) {
      expect(showText(name)).toBe(name)
    }
  })

  it("makes the usual tricks visible", () => {
    expect(showText("invoice\u202Efdp.exe")).toBe(String.raw`invoice\u{202e}fdp.exe`)
    expect(showText("\u001B[2Jgone")).toBe(String.raw`\x1b[2Jgone`)
    expect(showText("a\nb\tc\r")).toBe(String.raw`a\nb\tc\r`)
    expect(showText("two\u00A0words")).toBe(String.raw`two\u{a0}words`)
    expect(showText("no\u200Bthing\u3164")).toBe(String.raw`no\u{200b}thing\u{3164}`)
    expect(showText("half \uD83D")).toBe(String.raw`half \u{d83d}`)
    expect(showText("c1 \u009B1m")).toBe(String.raw`c1 \u{9b}1m`)
  })

  it("shows bytes that are not UTF-8 one by one and keeps the characters around them", () => {
    expect(showText(Uint8Array.of(0x61, 0xff, 0xc3, 0xa9, 0xc3))).toBe(String.raw`a\xffé\xc3`)
    // An overlong slash, and a surrogate.
    expect(showText(Uint8Array.of(0xc0, 0xaf))).toBe(String.raw`\xc0\xaf`)
    expect(showText(Uint8Array.of(0xed, 0xa0, 0x80))).toBe(String.raw`\xed\xa0\x80`)
  })

  it("keeps the lines of a message of ours and nothing else that moves the cursor", () => {
    expect(showLines("one\ntwo\u001B[A")).toBe("one\n" + String.raw`two\x1b[A`)
  })
})

describe("JSON for programs", () => {
  it("parses to the same value and is safe on a terminal", () => {
    fc.assert(
      fc.property(fc.jsonValue(), anyText, (value, text) => {
        const shown = showJson({ value, text })
        expect(dangerous.test(shown)).toBe(false)
        expect(JSON.parse(shown)).toEqual(JSON.parse(JSON.stringify({ value, text })))
      }),
    )
  })
})

describe("quantities", () => {
  it("come in binary units with three digits at most", () => {
    expect([0, 1, 1023, 1024, 1536, 131072, 1024 ** 2 - 1].map(showSize)).toEqual([
      "0 B",
      "1 B",
      "1023 B",
      "1.00 KiB",
      "1.50 KiB",
      "128 KiB",
      "1.00 MiB",
    ])
    expect(showSize(10 * 1024 ** 3)).toBe("10.0 GiB")
    expect(showSize(5 * 1024 ** 5)).toBe("5.00 PiB")
    expect(showSize(5000 * 1024 ** 5)).toBe("5000 PiB")
  })

  it("never show four digits before the largest unit", () => {
    fc.assert(
      fc.property(fc.nat({ max: 2 ** 40 }), (sizeBytes) => {
        const [number = ""] = showSize(sizeBytes).split(" ")
        expect(Number(number)).toBeLessThan(1024)
      }),
    )
  })

  it("name lengths of time by their two largest units", () => {
    const second = 1000
    expect(showDuration(8.4 * second)).toBe("8 s")
    expect(showDuration(200 * second)).toBe("3 min 20 s")
    expect(showDuration(7200 * second)).toBe("2 h")
    expect(showDuration(99 * 3600 * second)).toBe("4 d 3 h")
  })

  it("give times with the zone they are in", () => {
    const timeMs = Date.UTC(2026, 10, 20, 19, 33)
    const shown = showTime(timeMs)
    expect(shown).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d [+-]\d\d:\d\d$/)
    expect(Date.parse(`${shown.slice(0, 10)}T${shown.slice(11, 16)}${shown.slice(17)}`)).toBe(
      timeMs,
    )
  })

  it("are given also for times beyond the calendar, in the same form", () => {
    for (const timeMs of [0, Date.UTC(10_000, 0), 8.64e15 + 1, Number.MAX_SAFE_INTEGER]) {
      expect(isoTime(timeMs)).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
      expect(showTime(timeMs)).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d [+-]\d\d:\d\d$/)
    }
    expect(isoTime(Number.MAX_SAFE_INTEGER)).toBe("9999-12-31T23:59:59.999Z")
  })
})

it("folded text keeps its width, and a word that is too long stands alone", () => {
  expect(fold("one two three", 80)).toBe("  one two three")
  expect(fold("one two three four", 11)).toBe("  one two\n    three\n    four")
  expect(fold(`a ${"b".repeat(20)} c`, 10)).toBe(`  a\n    ${"b".repeat(20)}\n    c`)
})

it("shortened text keeps its width and says that it was shortened", () => {
  expect(shorten("abcdef", 6)).toBe("abcdef")
  expect(shorten("abcdefg", 6)).toBe("abcde…")
})

it("a quoted word reads back as itself in a shell", () => {
  expect(quoteForShell("a/b-c.txt")).toBe("a/b-c.txt")
  expect(quoteForShell("it's here")).toBe(String.raw`'it'\''s here'`)
  expect(quoteForShell("")).toBe("''")
})
