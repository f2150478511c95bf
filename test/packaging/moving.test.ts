// The page on moving an inbox, its commands as pasted, between two relays.
import { readdirSync, writeFileSync } from "node:fs"
import path from "node:path"
import { afterAll, expect, test } from "vitest"
import { Workshop } from "../program/processes.js"
import { checkout } from "./installed.js"
import { blocksOf } from "./pasted.js"

const workshop = new Workshop()
afterAll(() => workshop.close())

test("an inbox is moved by the commands of its page, and nothing sent to either address is lost", async () => {
  const [former, next] = [await workshop.startRelay("old"), await workshop.startRelay("new")]
  const page = path.join(checkout, "docs/moving.md")
  const pasted = blocksOf(page).flatMap((block) =>
    block.text
      .replaceAll("https://old.example.org", former.url)
      .replaceAll("https://new.example.org", next.url)
      .split("\n")
      .map((line) => line.trim().split(" ")),
  )
  const knothole = async (home: string, args: string[]) => {
    const run = await workshop.run(home, args)
    expect(run).toMatchObject({ code: 0 })
    return run.stdout.trim()
  }
  const before = await knothole("owner", ["init", "--relay", former.url, "--no-passphrase"])
  const letter = path.join(workshop.folder, "letter")
  const send = (text: string, address: string) => {
    writeFileSync(`${letter}-${text}`, text)
    return knothole("sender", ["send", `${letter}-${text}`, "-r", address])
  }
  await send("waiting", before)
  const [move = [], empty = []] = pasted.map(([program, ...args]) => {
    expect(program).toBe("knothole")
    return args
  })
  const after = await knothole("owner", move)
  expect(after.split("@")[0]).toBe(before.split("@")[0])
  expect(after).toContain(new URL(next.url).host)
  await send("late", before)
  await send("new", after)
  const fromOld = path.join(workshop.folder, "from-old")
  await knothole("owner", [...empty, "-o", fromOld])
  const inbox: unknown = JSON.parse(await knothole("owner", ["inbox", "--json"]))
  expect(inbox).toHaveLength(1)
  expect(readdirSync(fromOld)).toHaveLength(2)
  await knothole("owner", [...move, "--close-former"])
  const refused = await workshop.run("sender", ["send", `${letter}-late`, "-r", before, "--fresh"])
  expect(refused.code).toBe(3)
}, 120_000)
