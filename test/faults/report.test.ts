import { mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, expect, test } from "vitest"
import { FaultReport } from "./report.js"

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "knothole-report-"))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

test("what earlier runs counted is added up, and their seeds are not used again", () => {
  const first = new FaultReport(folder)
  expect(first.takeSeed("kills")).toBe(1)
  expect(first.takeSeed("kills")).toBe(2)
  first.count("kills", 7)
  first.save()
  const second = new FaultReport(folder)
  expect(second.takeSeed("kills")).toBe(3)
  expect(second.takeSeed("deaths")).toBe(1)
  second.count("kills")
  expect(second.total("kills")).toBe(8)
  second.save()
  expect(new FaultReport(folder).totals()).toEqual({ kills: 8 })
})

test("a run that ends without saving loses its own counts at most", () => {
  const first = new FaultReport(folder)
  first.count("kills")
  first.save()
  const killed = new FaultReport(folder)
  killed.count("kills")
  expect(new FaultReport(folder).total("kills")).toBe(1)
})

test("two runs beside each other lose nothing of each other", () => {
  const [one, other] = [new FaultReport(folder), new FaultReport(folder)]
  one.count("kills", 2)
  other.count("kills", 3)
  one.save()
  other.save()
  one.save()
  expect(new FaultReport(folder).total("kills")).toBe(5)
  expect(readdirSync(folder)).toHaveLength(2)
})

test("a violation is kept at once, with what replays it", () => {
  const violation = { kind: "kills", seed: 3, step: "7", problem: "lost", replay: "npm run …" }
  new FaultReport(folder).violation(violation)
  expect(new FaultReport(folder).violations()).toEqual([violation])
})
