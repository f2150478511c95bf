import { describe, expect, it } from "vitest"
import * as client from "../../client/index.js"
import * as programErrors from "../../client/program/errors.js"
import { errorKinds, explainFailure, refusals } from "../../client/program/failures.js"
import { withFullDisk } from "../../client/program/inbox.js"
import * as protocol from "../../protocol/index.js"
import { refusalStatus, RelayRefusal } from "../../protocol/index.js"
import type { RefusalCode } from "../../protocol/index.js"

function isErrorClass(value: unknown): value is new (...args: never[]) => Error {
  return typeof value === "function" && value.prototype instanceof Error
}

/** Every error class that the library, the protocol and the program let out. */
const exported: unknown[] = Object.values({ ...protocol, ...client, ...programErrors })
const errorClasses = exported.filter(isErrorClass)

// The product's table, written down a second time so that a slip in the program's own shows.
const exitOfKind: Record<string, number> = {
  UsageError: 2,
  Interrupted: 130,
  KeyProblem: 4,
  NameTaken: 1,
  WordsDiffer: 4,
  NothingWaits: 3,
  PartlyDone: 1,
  CannotStart: 1,
  FindingsRemain: 1,
  ProxyNotUsable: 2,
  RelayUnreachable: 5,
  NotARelay: 5,
  UnknownInbox: 3,
  DeliveryGone: 3,
  UnknownEntry: 3,
  Untrustworthy: 4,
  UnusableContacts: 1,
  SourceChanged: 1,
  SourceUnusable: 1,
  DestinationExists: 1,
  DestinationNotFolder: 1,
  CannotMakeFolder: 1,
  DiskFull: 8,
  Locked: 1,
  OpenError: 4,
  FormatError: 4,
}

const exit = (code: RefusalCode) => explainFailure(new RelayRefusal(code)).exit

const specimens: Error[] = [
  new programErrors.UsageError("m"),
  new programErrors.Interrupted(),
  new programErrors.KeyProblem("m"),
  new programErrors.NameTaken("m"),
  new programErrors.WordsDiffer("m"),
  new programErrors.NothingWaits("m"),
  new programErrors.PartlyDone("m"),
  new programErrors.CannotStart("m"),
  new programErrors.FindingsRemain("m"),
  new client.ProxyNotUsable("m"),
  new client.RelayUnreachable("https://h", "m", { retryable: true }),
  new client.NotARelay("https://h", "m"),
  new client.UnknownInbox("knot1x", "https://h"),
  new client.DeliveryGone("0".repeat(32), "expired", "m"),
  new client.UnknownEntry("0".repeat(32), "fiel", ["file"]),
  new client.Untrustworthy("m", { proofFile: "/p" }),
  new client.UnusableContacts("/c", "m"),
  new client.SourceChanged("/f"),
  new client.SourceUnusable([{ path: "/f", reason: "r" }]),
  new client.DestinationExists(["/f"]),
  new client.DestinationNotFolder("/f"),
  new client.CannotMakeFolder("/d/f", "/d"),
  new client.DiskFull("here", "m", { neededBytes: 2048, freeBytes: 1024 }),
  new client.Locked("/l", 7, "sending this"),
  new protocol.OpenError(),
  new protocol.FormatError("field", "reason"),
]

describe("the table of exit codes", () => {
  it("has a row for every class of error that can come out", () => {
    const known = new Set<unknown>(errorKinds.map(({ type }) => type))
    for (const errorClass of errorClasses) expect(known, errorClass.name).toContain(errorClass)
  })

  it("gives each kind the exit code it has in the product", () => {
    for (const error of specimens) {
      expect(explainFailure(error).exit, error.name).toBe(exitOfKind[error.name])
      expect(explainFailure(error).message, error.name).not.toBe("")
    }
    expect(new Set(specimens.map(({ name }) => name))).toEqual(
      new Set(errorClasses.map(({ name }) => name).filter((name) => name !== "RelayRefusal")),
    )
  })

  it("gives every refusal a code and a remedy", () => {
    expect(new Set(Object.keys(refusals))).toEqual(new Set(Object.keys(refusalStatus)))
    // The keys of a Record<RefusalCode, …> are refusal codes.
    for (const code of Object.keys(refusalStatus) as RefusalCode[]) {
      const failure = explainFailure(new RelayRefusal(code))
      expect([1, 3, 4, 5, 8], code).toContain(failure.exit)
      expect(failure.code).toBe(code)
      expect(failure.remedy, code).toMatch(/[a-z].*\.$/s)
    }
  })

  it("tells full, gone, refused and busy apart", () => {
    expect(
      ["relay_full", "inbox_full", "too_large"].map((code) => exit(code as RefusalCode)),
    ).toEqual([8, 8, 8])
    expect([exit("not_found"), exit("no_such_inbox"), exit("expired")]).toEqual([3, 3, 3])
    expect([exit("unauthorized"), exit("wrong_origin")]).toEqual([4, 4])
    expect([exit("busy"), exit("rebuilding"), exit("too_many_requests")]).toEqual([5, 5, 5])
  })
})

describe("the words of a failure", () => {
  it("name the limit, the names of the relay and how long it asks to wait", () => {
    const large = new RelayRefusal("too_large", { extras: { limit: 10_737_418_240 } })
    expect(explainFailure(large).message).toContain("10,737,418,240")
    const origin = new RelayRefusal("wrong_origin", { extras: { origins: ["https://a.example"] } })
    expect(explainFailure(origin).message).toContain("https://a.example")
    const busy = new RelayRefusal("busy", { retryAfterSeconds: 90 })
    expect(explainFailure(busy).message).toContain("1 min 30 s")
  })

  it("show names without what could deceive, and not more than a screen of them", () => {
    const paths = Array.from({ length: 30 }, (_, index) => `/in/\u202E${index}\n`)
    const { message } = explainFailure(new client.DestinationExists(paths))
    expect(message).toContain(String.raw`/in/\u{202e}0\n`)
    expect(message).toContain("and 10 more")
    expect(message.split("\n")).toHaveLength(22)
  })

  it("do not say that nothing was put in place when something was", () => {
    const nothing = explainFailure(new client.DestinationExists(["/in/a"]))
    expect(nothing.message).toContain("nothing was put in place")
    const some = explainFailure(new client.DestinationExists(["/in/a"], { isPartlyThere: true }))
    expect(some.message).not.toContain("nothing")
    expect(some.remedy).toContain("What is in place stays")
  })

  it("do not advise --overwrite where it replaces nothing, and name what is kept", () => {
    const unlike = new Map([["/in/a", { here: "a folder", sent: "a file" } as const]])
    const failure = explainFailure(
      new client.DestinationExists(["/in/a"], { unlike, kept: "/in/.knothole-7" }),
    )
    expect(failure.message).toContain("/in/a: a folder here, a file in the delivery")
    expect(failure.message).toContain("What was fetched is kept in /in/.knothole-7")
    expect(failure.remedy).toContain("--overwrite replaces files only")
    expect(failure.remedy).toContain("--rename")
  })

  it("explain what the system only abbreviates", () => {
    const full = Object.assign(new Error("ENOSPC: no space"), { code: "ENOSPC", path: "/d/x" })
    expect(explainFailure(full)).toMatchObject({ exit: 8, code: "enospc" })
    const missing = Object.assign(new Error("ENOENT"), { code: "ENOENT", path: "/no\u001B[m" })
    expect(explainFailure(missing)).toMatchObject({ exit: 1 })
    expect(explainFailure(missing).message).toBe(
      String.raw`/no\x1b[m: there is no such file or folder`,
    )
  })

  it("name a source that changed within one line", () => {
    const { message } = explainFailure(new client.SourceChanged("/a\nknothole: all is well"))
    expect(message).toContain(String.raw`/a\nknothole: all is well changed`)
  })

  it("say that the folder one is in is gone, and not of nothing that it is not there", () => {
    const gone = Object.assign(new Error("ENOENT: process.cwd failed"), {
      code: "ENOENT",
      syscall: "uv_cwd",
    })
    expect(explainFailure(gone)).toMatchObject({ exit: 1, code: "enoent" })
    expect(explainFailure(gone).message).toContain("the folder you are in no longer exists")
  })

  it("name the folder whose disk is full where the system does not", () => {
    const full = Object.assign(new Error("ENOSPC: no space"), { code: "ENOSPC" })
    const failure = explainFailure(withFullDisk(full, "/home/ann/state"))
    expect(failure).toMatchObject({ exit: 8, code: "disk_full" })
    expect(failure.message).toContain("/home/ann/state")
    const other = new Error("other")
    expect(withFullDisk(other, "/home/ann/state")).toBe(other)
  })

  it("own up to what nobody foresaw, whatever was thrown", () => {
    for (const thrown of [new TypeError("x is not a function"), "text", undefined, null, 7]) {
      expect(explainFailure(thrown)).toMatchObject({ exit: 1, code: "failure" })
      expect(explainFailure(thrown).remedy).toContain("report")
    }
  })
})
