import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { PassThrough } from "node:stream"
import { afterEach, beforeEach, describe, expect, it } from "vitest"
import { UsageError } from "../../client/program/errors.js"
import {
  choosePassphrase,
  HiddenLine,
  openWithPassphrase,
  readPassphrase,
  readPassphraseFile,
  terminalOf,
} from "../../client/program/prompts.js"
import type { Terminal } from "../../client/program/prompts.js"

let folder: string
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "knothole-test-"))
})
afterEach(() => {
  rmSync(folder, { recursive: true })
})

function fileOf(content: string | Uint8Array): string {
  const file = path.join(folder, "passphrase")
  writeFileSync(file, content)
  return file
}

function openRight(passphrase: string): Promise<number | undefined> {
  return Promise.resolve(passphrase === "right" ? 7 : undefined)
}

function terminalWith(answers: string[]) {
  const said: string[] = []
  const ask = (question: string) => {
    said.push(question)
    const answer = answers.shift()
    return answer === undefined
      ? Promise.reject(new Error("asked too often"))
      : Promise.resolve(answer)
  }
  const terminal: Terminal = { say: (text) => said.push(text), askHidden: ask, ask }
  return { terminal, said }
}

describe("a passphrase", () => {
  it("from a file loses one newline at its end and nothing else", () => {
    expect(readPassphraseFile(fileOf("correct horse\n"))).toBe("correct horse")
    expect(readPassphraseFile(fileOf("correct horse\r\n"))).toBe("correct horse")
    expect(readPassphraseFile(fileOf(" a \n\n"))).toBe(" a \n")
    expect(readPassphraseFile(fileOf("none"))).toBe("none")
  })

  it("from a file that is empty or no text is refused", () => {
    expect(() => readPassphraseFile(fileOf("\n"))).toThrow(UsageError)
    expect(() => readPassphraseFile(fileOf(Uint8Array.of(0xff, 0xfe)))).toThrow("UTF-8")
  })

  it("is not asked for where a file is named", async () => {
    const { terminal, said } = terminalWith([])
    expect(await readPassphrase({ file: fileOf("x"), terminal }, "key")).toBe("x")
    expect(said).toEqual([])
  })

  it("cannot be asked for without a terminal, and the refusal says what to do", async () => {
    const source = { file: undefined, terminal: undefined }
    await expect(readPassphrase(source, "key")).rejects.toThrow("--passphrase-file")
    await expect(choosePassphrase(source, "key")).rejects.toThrow("--no-passphrase")
    await expect(choosePassphrase(source, "key")).rejects.toThrow(UsageError)
    const must = choosePassphrase(source, "the backup", { mayBeNone: false })
    await expect(must).rejects.toThrow(/^(?!.*--no-passphrase)/s)
  })

  it("that is wrong can be typed three times, and is read from a file once", async () => {
    const third = terminalWith(["a", "b", "right"])
    const typed = { file: undefined, terminal: third.terminal }
    expect(await openWithPassphrase(typed, "key", openRight)).toBe(7)
    expect(third.said.filter((text) => text.includes("does not open"))).toHaveLength(2)
    const never = { file: undefined, terminal: terminalWith(["a", "b", "c", "right"]).terminal }
    expect(await openWithPassphrase(never, "key", openRight)).toBeUndefined()
    const file = { file: fileOf("wrong"), terminal: undefined }
    expect(await openWithPassphrase(file, "key", openRight)).toBeUndefined()
  })

  it("that is new is typed twice, and again when the two differ", async () => {
    const { terminal, said } = terminalWith(["one", "two", "three", "three"])
    expect(await choosePassphrase({ file: undefined, terminal }, "key")).toBe("three")
    expect(said.filter((text) => text.includes("not the same"))).toHaveLength(1)
  })

  it("that is new cannot be empty, nor be missed for ever", async () => {
    const empty = terminalWith([""])
    await expect(
      choosePassphrase({ file: undefined, terminal: empty.terminal }, "key"),
    ).rejects.toThrow(UsageError)
    const clumsy = terminalWith(["a", "b", "a", "b", "a", "b"])
    await expect(
      choosePassphrase({ file: undefined, terminal: clumsy.terminal }, "key"),
    ).rejects.toThrow(UsageError)
  })
})

class FakeKeyboard extends PassThrough {
  setRawMode(): void {}
  ref(): void {}
  unref(): void {}
}

describe("a terminal that hangs up", () => {
  it("is an answer to the question that was asked, and to each one after it", async () => {
    const keyboard = new FakeKeyboard()
    const terminal = terminalOf(keyboard, () => {})
    const asked = terminal.askHidden("Passphrase: ")
    keyboard.end()
    await expect(asked).rejects.toThrow(UsageError)
    await expect(asked).rejects.toThrow("--passphrase-file")
    await expect(terminal.ask("Sure? ")).rejects.toThrow(UsageError)
  })

  it("with an error is the same", async () => {
    const keyboard = new FakeKeyboard()
    const asked = terminalOf(keyboard, () => {}).askHidden("Passphrase: ")
    keyboard.destroy(new Error("EIO"))
    await expect(asked).rejects.toThrow(UsageError)
  })

  it("takes nothing from a question that was answered before", async () => {
    const keyboard = new FakeKeyboard()
    const terminal = terminalOf(keyboard, () => {})
    keyboard.write("first\rsecond\r")
    expect(await terminal.askHidden("Passphrase: ")).toBe("first")
    expect(await terminal.askHidden("Again: ")).toBe("second")
    keyboard.end()
  })
})

describe("a line that is not shown while it is typed", () => {
  it("ends at Return and keeps what was typed ahead", () => {
    const line = new HiddenLine()
    expect(line.type("pass").state).toBe("typing")
    expect(line.type("word\rnext")).toEqual({ state: "entered", rest: "next" })
    expect(line.text).toBe("password")
  })

  it("can be corrected: Backspace takes a whole character, Ctrl-U all of them", () => {
    const line = new HiddenLine()
    line.type("a🙂\u007Fb")
    expect(line.text).toBe("ab")
    line.type("\u0015xy\bz")
    expect(line.text).toBe("xz")
  })

  it("takes no part of an arrow key into the passphrase", () => {
    const line = new HiddenLine()
    line.type("a\u001B[A\u001BOBb\u001B[1;5Cc\u0001")
    expect(line.text).toBe("abc")
  })

  it("can be left with Ctrl-C, and with Ctrl-D while it is empty", () => {
    expect(new HiddenLine().type("\u0003").state).toBe("interrupted")
    expect(new HiddenLine().type("\u0004").state).toBe("interrupted")
    expect(new HiddenLine().type("x\u0004").state).toBe("entered")
  })
})
