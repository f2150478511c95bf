// What a newcomer does with the package, word for word from its pages.
import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import type { AddressInfo } from "node:net"
import { once } from "node:events"
import path from "node:path"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { checkout, install, type Packed, packInto, Person, signalAll } from "./installed.js"
import { blocksOf, blockWith } from "./pasted.js"

const timeoutMs = 300_000
let person: Person
let project = ""
let packed: Packed

beforeAll(async () => {
  person = new Person()
  project = person.makeFolder("project")
  writeFileSync(path.join(project, "package.json"), '{ "private": true }\n')
  person.own(path.join(project, "package.json"))
  packed = packInto(person.folder)
  console.log(`installed ${await install({ person, project, tarball: packed.tarball })}`)
}, timeoutMs)
afterAll(() => person.leave())

describe("the package", () => {
  test("is run by npx in an empty project, by somebody who is not root", async () => {
    const help = await person.run("npx", ["knothole", "--help"], { cwd: project })
    expect(help).toMatchObject({ code: 0 })
    expect(help.stdout).toContain("Usage: knothole COMMAND")
    const whose = await person.run(process.execPath, ["-p", "process.getuid()"], { cwd: project })
    expect(whose.stdout.trim()).not.toBe("0")
  })

  test("holds what runs, its types and its pages; no sources, tests or benches", () => {
    const names = packed.files.map((file) => file.path)
    const strange = names.filter(
      (name) =>
        !/^(dist\/(client|protocol|server)\/[\w./-]+\.(c?js|d\.ts)|docs\/[\w-]+\.md|docs\/images\/\w+\.svg|deploy\/[\w.]+|package\.json|(README|CHANGELOG)\.md|LICENSE)$/.test(
          name,
        ),
    )
    expect(strange).toEqual([])
    expect(names).toContain("dist/client/main.cjs")
    expect(names).not.toContain("dist/client/demo.js")
  })

  test("has every page and picture that its pages link to", () => {
    const inPackage = new Set(packed.files.map((file) => file.path))
    const pages = [...inPackage].filter((name) => name.endsWith(".md"))
    const broken = pages.flatMap((page) => {
      const text = readFileSync(path.join(checkout, page), "utf8")
      return [...text.matchAll(/\[[^\]]*\]\(([^)#:]+)(?:#[^)]*)?\)/g)].flatMap(([, link = ""]) => {
        const target = path.posix.join(path.posix.dirname(page), link)
        // The vectors stay with the sources: a second client's author has those.
        const isThere = target.endsWith("/")
          ? [...inPackage].some((name) => name.startsWith(target))
          : inPackage.has(target)
        return isThere || target.startsWith("test/vectors/") ? [] : [`${page}: ${link}`]
      })
    })
    expect(broken).toEqual([])
  })

  test("gives a strict TypeScript program under nodenext every face with its types", async () => {
    const guide = blockWith(blocksOf(path.join(checkout, "docs/library.md")), "createRelay(")
    write("guide.mts", guide)
    write(
      "faces.mts",
      `import { formatDeliveryId } from "./ids.mjs"
import type { Inbox, SendResult } from "knothole/client"
import type { Relay } from "knothole/server"
import { createServer } from "node:http"

export async function use(inbox: Inbox, relay: Relay, result: SendResult): Promise<string[]> {
  createServer(relay.app)
  const rows = await inbox.list()
  // @ts-expect-error -- were the types missing, everything would be any and this no error
  rows[0].colour
  return [...rows.map((row) => row.id), ...result.deliveries.map(({ id }) => formatDeliveryId(id))]
}
`,
    )
    write(
      "ids.mts",
      `import { parseId } from "knothole/protocol"
export const formatDeliveryId = (id: string): string => parseId(id)
`,
    )
    write(
      "tsconfig.json",
      JSON.stringify({
        compilerOptions: {
          module: "nodenext",
          target: "es2023",
          strict: true,
          skipLibCheck: false,
          noEmit: true,
          noUncheckedIndexedAccess: false,
          // The user's own tools, which are not the package's to bring.
          typeRoots: [path.join(checkout, "node_modules/@types")],
          types: ["node"],
        },
        files: ["guide.mts", "faces.mts"],
      }),
    )
    const tsc = path.join(checkout, "node_modules/typescript/bin/tsc")
    const run = await person.run(process.execPath, [tsc, "-p", "tsconfig.json"], { cwd: project })
    expect(run).toEqual({ code: 0, stdout: "", stderr: "" })
  }, 60_000)
})

function write(name: string, text: string): void {
  const file = path.join(project, name)
  writeFileSync(file, text)
  person.own(file)
}

describe("the library guide's program", () => {
  test("runs as pasted", async () => {
    const guide = blockWith(blocksOf(path.join(checkout, "docs/library.md")), "createRelay(")
    write("dead-drop.mjs", guide)
    const run = await person.run(process.execPath, ["dead-drop.mjs"], { cwd: project })
    expect(run).toMatchObject({ code: 0, stderr: "" })
    expect(run.stdout).toMatch(/^waiting: [0-9a-f]{32}, 2 entries, "two files"$/m)
    expect(run.stdout).toMatch(/^received 2 files, 53 bytes$/m)
    expect(run.stdout).toMatch(/^second time: taken$/m)
    expect(run.stdout).toContain("One line, then another.\n")
    expect(run.stdout).toMatch(/^relay stopped: RelayUnreachable, worth another try: true$/m)
  }, 60_000)
})

describe("the README's three recipes", () => {
  test("run as pasted, but for the port, with the address that was given", async () => {
    const blocks = blocksOf(path.join(checkout, "README.md")).filter(
      (block) => block.language === "sh" && /^(Run|Send|Pick)/.test(block.heading),
    )
    const port = await freePort()
    const shell = (text: string, cwd: string) =>
      person.start("sh", ["-e", "-c", text.replaceAll("127.0.0.1:8787", `127.0.0.1:${port}`)], {
        cwd,
        env: {
          PATH: `${path.join(project, "node_modules/.bin")}:${process.env["PATH"] ?? ""}`,
          // Where a person is asked for a passphrase, and where another program may have the port.
          KNOTHOLE_PASSPHRASE_FILE: passphraseFile,
          KNOTHOLE_LISTEN: `127.0.0.1:${port}`,
        },
      })
    write("passphrase", "a hollow in the old oak\n")
    const passphraseFile = path.join(project, "passphrase")

    const relay = shell(blockWith(blocks, "knothole relay"), project)
    let relaySaid = ""
    relay.child.stderr?.on("data", (text: string) => (relaySaid += text))
    await expect.poll(() => relaySaid, { timeout: 20_000 }).toContain("listening on")

    const init = await shell(blockWith(blocks, "knothole init"), project).ended
    expect(init).toMatchObject({ code: 0 })
    const address = init.stdout.trim()
    expect(address).toMatch(new RegExp(`^knot1[a-z0-9]+@127\\.0\\.0\\.1:${port}$`))

    const desk = person.makeFolder("desk")
    person.makeFolder("desk/photos")
    for (const name of ["report.pdf", "photos/owl.jpg"]) {
      writeFileSync(path.join(desk, name), `what is in ${name}\n`)
      person.own(path.join(desk, name))
    }
    const send = blockWith(blocks, "knothole send").replace(/knot1…@\S+/, address)
    expect(await shell(send, desk).ended).toMatchObject({ code: 0 })

    const pickUp = await shell(blockWith(blocks, "knothole receive"), desk).ended
    expect(pickUp).toMatchObject({ code: 0 })
    const downloads = path.join(person.home, "Downloads")
    expect(readdirSync(downloads).sort()).toEqual(["photos", "report.pdf"])
    expect(readFileSync(path.join(downloads, "photos/owl.jpg"), "utf8")).toBe(
      "what is in photos/owl.jpg\n",
    )

    signalAll(relay.child, "SIGTERM")
    expect((await relay.ended).stderr).toContain('"event":"stopped"')
  }, 120_000)
})

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  // A TCP server's address is an object with a port.
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, "close")
  return port
}
