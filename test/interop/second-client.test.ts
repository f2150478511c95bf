import { spawn, execFile, type ChildProcess } from "node:child_process"
import { createHash, randomBytes } from "node:crypto"
import { once } from "node:events"
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises"
import { createServer, type Server } from "node:http"
import { createServer as createTcpServer, type AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import {
  connect,
  discard,
  listInbox,
  logIn,
  makeIdentity,
  receive,
  register,
  send,
  type Session,
  type Waiting,
} from "./second-client.js"

// The relay and the first client are the built program, as an operator runs it; the second client
// knows it only through HTTP.
const PROGRAM = fileURLToPath(new URL("../../dist/client/main.js", import.meta.url))

let folder: string
let relayProcess: ChildProcess
let origin: string
let cut = 0
const fresh = (): string => join(folder, `out-${(cut += 1)}`)

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "knothole-interop-"))
  const listen = `127.0.0.1:${await freePort()}`
  origin = `http://${listen}`
  relayProcess = spawn(
    process.execPath,
    [PROGRAM, "relay", "--listen", listen, "--data", join(folder, "relay")],
    { stdio: ["ignore", "ignore", "pipe"] },
  )
  await said(relayProcess, "listening on")
  await plant(join(folder, "source"))
})

afterAll(async () => {
  if (relayProcess.exitCode === null) {
    relayProcess.kill("SIGTERM")
    await once(relayProcess, "exit")
  }
  await rm(folder, { recursive: true, force: true })
})

async function freePort(): Promise<number> {
  const server = createTcpServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const port = portOf(server.address())
  server.close()
  await once(server, "close")
  return port
}

function portOf(address: AddressInfo | string | null): number {
  if (address === null || typeof address === "string") throw new TypeError("not a TCP server")
  return address.port
}

/** Resolves when the process has written `words` to stderr, and fails when it ends before. */
async function said(child: ChildProcess, words: string): Promise<void> {
  let heard = ""
  await new Promise<void>((resolve, reject) => {
    child.stderr?.on("data", (piece: Buffer) => {
      heard += piece.toString()
      if (heard.includes(words)) resolve()
    })
    child.once("exit", () => reject(new Error(`the relay ended: ${heard}`)))
  })
}

/** Every size at which the grid turns a corner, and a tree. */
async function plant(root: string): Promise<void> {
  const sizes = { empty: 0, one: 1, cell: 131_072, "cell and one": 131_073, large: 5_300_017 }
  await mkdir(root)
  for (const [name, size] of Object.entries(sizes))
    await writeFile(join(root, name), randomBytes(size))
  const tree = join(root, "tree")
  await mkdir(join(tree, "empty folder"), { recursive: true })
  await mkdir(join(tree, "deep", "é"), { recursive: true })
  await writeFile(join(tree, "deep", "é", "letter.txt"), "to whom it may concern")
  await writeFile(join(tree, "run"), "#!/bin/sh\n")
  await chmod(join(tree, "run"), 0o755)
}

const planted = async (): Promise<string[]> =>
  (await readdir(join(folder, "source"))).map((name) => join(folder, "source", name))

/** What is in a folder: the path of each entry, and the hash and the mode of each file. */
async function contents(root: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {}
  for (const path of await readdir(root, { recursive: true })) {
    const full = join(root, path)
    const about = await stat(full)
    found[path] = about.isDirectory()
      ? "folder"
      : `${await hashOf(full)}, ${about.mode & 0o100 ? "executable" : "plain"}`
  }
  return found
}

const hashOf = async (path: string): Promise<string> =>
  createHash("sha256")
    .update(await readFile(path))
    .digest("hex")

/** A second client of its own, with its inbox. */
async function someone(suite: 1 | 2): Promise<{ address: string; session: Session }> {
  const relay = await connect(origin)
  const identity = await makeIdentity(suite)
  const address = await register(relay, identity)
  return { address, session: await logIn(relay, identity) }
}

async function onlyOne(session: Session): Promise<Waiting> {
  const { waiting } = await listInbox(session)
  const [one] = waiting
  if (one === undefined || waiting.length > 1) throw new Error(`${waiting.length} deliveries wait`)
  return one
}

/** The first client: the program, at home in a folder of its own. */
const program =
  (home: string) =>
  async (...words: string[]): Promise<string> => {
    const env = { PATH: process.env["PATH"], KNOTHOLE_HOME: home }
    const { stdout } = await promisify(execFile)(process.execPath, [PROGRAM, ...words], { env })
    return stdout.trim()
  }

/** What a relay that lies makes of an answer. */
type Lie = (path: string, answer: Buffer) => Buffer

/** Hands everything on to the relay, except that `lie` may change what comes back. */
async function lyingProxy(lie: Lie): Promise<Server> {
  const server = createServer((request, response) => {
    const path = request.url ?? "/"
    const headers = { authorization: request.headers.authorization ?? "" }
    fetch(origin + path, { headers })
      .then(async (answer) => {
        const changed = lie(path, Buffer.from(await answer.arrayBuffer()))
        response.writeHead(answer.status).end(changed)
      })
      .catch(() => response.destroy())
  }).listen(0, "127.0.0.1")
  await once(server, "listening")
  return server
}

/** The same session, asked for through a proxy that lies. */
async function through<T>(
  session: Session,
  lie: Lie,
  use: (session: Session) => Promise<T>,
): Promise<T> {
  const proxy = await lyingProxy(lie)
  try {
    const behind = { ...session.relay, origin: `http://127.0.0.1:${portOf(proxy.address())}` }
    return await use({ ...session, relay: behind })
  } finally {
    proxy.closeAllConnections()
    proxy.close()
  }
}

/** Changes one bit of what is asked for under a path that ends like this. */
const damage =
  (ending: string): Lie =>
  (path, answer) => {
    const middle = answer.length >> 1
    if (path.endsWith(ending)) answer.writeUInt8(answer.readUInt8(middle) ^ 1, middle)
    return answer
  }

const hideTheLast: Lie = (_, answer) => {
  const page: { entries: unknown[] } = JSON.parse(answer.toString())
  return Buffer.from(JSON.stringify({ ...page, entries: page.entries.slice(0, -1) }))
}

describe("a client written from docs/protocol.md alone", () => {
  it.each([1, 2] as const)("receives what it sent, in suite %i", async (suite) => {
    const { address, session } = await someone(suite)
    await send(session.relay, { to: [address], paths: await planted(), note: "for myself" })
    const out = fresh()
    const received = await receive(session, await onlyOne(session), out)
    expect(received.note).toBe("for myself")
    expect(received.failed).toEqual([])
    expect(await contents(out)).toEqual(await contents(join(folder, "source")))
  })

  it("sends one delivery to recipients of both suites", async () => {
    const [first, second] = [await someone(1), await someone(2)]
    const paths = [join(folder, "source", "one")]
    await send(first.session.relay, { to: [first.address, second.address], paths })
    for (const { session } of [first, second]) {
      const out = fresh()
      await receive(session, await onlyOne(session), out)
      expect(await readFile(join(out, "one"))).toEqual(await readFile(paths[0] ?? ""))
    }
  })

  it("sends a note alone", async () => {
    const { address, session } = await someone(1)
    await send(session.relay, { to: [address], paths: [], note: "nothing but words ✓" })
    const received = await receive(session, await onlyOne(session), fresh())
    expect(received).toEqual({ note: "nothing but words ✓", written: [], failed: [] })
  })

  it("sends what the program receives", async () => {
    const run = program(fresh())
    const address = await run("init", "--relay", origin, "--no-passphrase", "--quiet")
    await send(await connect(origin), { to: [address], paths: await planted() })
    const out = fresh()
    await run("receive", "-o", out, "--executable", "--quiet")
    expect(await contents(out)).toEqual(await contents(join(folder, "source")))
  })

  it.each([1, 2] as const)("receives what the program sends, in suite %i", async (suite) => {
    const run = program(fresh())
    await run("init", "--relay", origin, "--no-passphrase", "--quiet")
    const { address, session } = await someone(suite)
    await run("send", ...(await planted()), "-r", address, "--quiet")
    const out = fresh()
    expect((await receive(session, await onlyOne(session), out)).failed).toEqual([])
    expect(await contents(out)).toEqual(await contents(join(folder, "source")))
  })

  it("follows the chain over deliveries that were taken", async () => {
    const { address, session } = await someone(1)
    const paths = [join(folder, "source", "one")]
    await send(session.relay, { to: [address], paths })
    const before = await listInbox(session)
    const [taken] = before.waiting
    if (taken === undefined) throw new Error("nothing waits")
    await discard(session, taken)
    await send(session.relay, { to: [address], paths })
    const after = await listInbox(session, before.seen)
    expect(after.waiting).toHaveLength(1)
    expect(after.waiting[0]?.id).not.toBe(taken.id)
    expect(after.seen.sequence).toBe(2)
  })

  it("refuses a part that was damaged on the way, and leaves no file of it", async () => {
    const { address, session } = await someone(1)
    await send(session.relay, { to: [address], paths: [join(folder, "source", "cell")] })
    const one = await onlyOne(session)
    const out = fresh()
    await expect(
      through(session, damage("/parts/0"), async (via) => receive(via, one, out)),
    ).rejects.toThrow("part 0 is not what was sent")
    expect(await readdir(out)).toEqual([])
  })

  it.each(["manifest", "leaves"])(
    "refuses damage to the %s before it asks for parts",
    async (piece) => {
      const { address, session } = await someone(1)
      await send(session.relay, { to: [address], paths: [join(folder, "source", "one")] })
      const one = await onlyOne(session)
      const asked: string[] = []
      const lie: Lie = (path, answer) => {
        asked.push(path)
        return damage(piece)(path, answer)
      }
      const refused = through(session, lie, async (via) => receive(via, one, fresh()))
      await expect(refused).rejects.toMatchObject({ name: "FormatError" })
      expect(asked.filter((path) => path.includes("/parts/"))).toEqual([])
    },
  )

  it("refuses a listing that leaves the last delivery out", async () => {
    const { address, session } = await someone(1)
    for (const name of ["one", "empty"])
      await send(session.relay, { to: [address], paths: [join(folder, "source", name)] })
    await expect(through(session, hideTheLast, async (via) => listInbox(via))).rejects.toThrow(
      "not the signed chain",
    )
  })

  it("refuses a listing from before the one it has seen", async () => {
    const { address, session } = await someone(1)
    const paths = [join(folder, "source", "one")]
    await send(session.relay, { to: [address], paths })
    let old: Buffer | undefined
    await through(
      session,
      (_, answer) => (old = answer),
      async (via) => listInbox(via),
    )
    await send(session.relay, { to: [address], paths })
    const { seen } = await listInbox(session)
    const replay = (_: string, answer: Buffer) => old ?? answer
    await expect(through(session, replay, async (via) => listInbox(via, seen))).rejects.toThrow(
      "went back",
    )
  })
})
