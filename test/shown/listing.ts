/** A page of 1,000 waiting deliveries from the relay, and `knothole inbox` over them, first and again. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import path from "node:path"
import { type Identity, openIdentity, openState, send } from "knothole/client"
import {
  encodeSessionRequest,
  parseChallenge,
  parseInboxPage,
  parseSessionReply,
  proveLogin,
  toBase64url,
} from "knothole/protocol"
import { readFileSync, readdirSync } from "node:fs"
import {
  freePort,
  mustRun,
  personEnv,
  program,
  startServer,
  stopServer,
} from "../../bench/processes.js"
import { atMost, exactly, showFigures } from "./figures.js"

const deliveries = 1000
const work = mkdtempSync(path.join(tmpdir(), "knothole-listing-"))
const port = await freePort()
const origin = `http://127.0.0.1:${port}`
const relay = await startServer(
  process.execPath,
  [program, "relay", "--listen", `127.0.0.1:${port}`, "--data", path.join(work, "relay")],
  /listening on/,
)
try {
  const recipient = personEnv(path.join(work, "recipient"))
  const init = await mustRun(
    process.execPath,
    [program, "init", "--relay", origin, "--no-passphrase", "--quiet"],
    { env: recipient },
  )
  const state = openState(path.join(work, "sender"))
  const recipients = [init.stdout.trim()]
  for (let sent = 0; sent < deliveries; sent += 10) {
    await Promise.all(
      Array.from({ length: 10 }, async (_, lane) => {
        const text = new TextEncoder().encode(`delivery ${sent + lane}`)
        const stream = (async function* () {
          yield text
        })()
        await send({
          recipients,
          sources: [{ kind: "stream", name: `file ${sent + lane}.txt`, stream }],
          state,
          fresh: true,
        })
      }),
    )
    process.stderr.write(`\r${sent + 10} of ${deliveries} sent`)
  }
  process.stderr.write("\n")

  // The relay's own answer to a client that only reads it: the median of five.
  const keys = path.join(work, "recipient", "knothole")
  const keyFile = readdirSync(keys, { recursive: true, encoding: "utf8" }).find((name) =>
    name.endsWith(".key"),
  )
  if (keyFile === undefined) throw new Error("init left no key file")
  const identity = await openIdentity(readFileSync(path.join(keys, keyFile)), undefined)
  const token = await logIn(identity)
  const pageMs: number[] = []
  for (let round = 0; round < 5; round++) {
    const started = performance.now()
    const query = `after=0&limit=${deliveries}&envelopes=1`
    const reply = await fetch(`${origin}/v1/inbox?${query}`, {
      headers: { authorization: `Bearer ${toBase64url(token)}` },
    })
    const text = await reply.text()
    pageMs.push(performance.now() - started)
    const { entries } = parseInboxPage(JSON.parse(text))
    if (entries.length !== deliveries) throw new Error(`the page has ${entries.length} entries`)
  }
  pageMs.sort((a, b) => a - b)

  const first = await mustRun(process.execPath, [program, "inbox", "--json"], { env: recipient })
  const again = await mustRun(process.execPath, [program, "inbox", "--json"], { env: recipient })
  showFigures(
    "listing",
    [
      exactly("deliveries in the first listing", rows(first.stdout), deliveries),
      exactly("deliveries in the second listing", rows(again.stdout), deliveries),
      atMost(
        "relay's answer to a page of 1,000, ms (median of 5)",
        Math.round(pageMs[2] ?? Number.NaN),
        300,
        "ms",
      ),
      atMost("first `knothole inbox`, s", Number(first.seconds.toFixed(2)), 15, "s"),
      atMost("second `knothole inbox`, s", Number(again.seconds.toFixed(2)), 1, "s"),
    ],
    { pageMs },
  )
} finally {
  await stopServer(relay)
  rmSync(work, { recursive: true, force: true })
}

function rows(text: string): number {
  // Our own program's output; a length that differs is what this command would show.
  return (JSON.parse(text) as unknown[]).length
}

async function logIn(identity: Identity): Promise<Uint8Array> {
  const post = async (route: string, body: object | undefined): Promise<unknown> => {
    const reply = await fetch(`${origin}${route}`, {
      method: "POST",
      ...(body && {
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      }),
    })
    return reply.json()
  }
  const challenge = parseChallenge(await post("/v1/sessions/challenge", undefined))
  const attempt = proveLogin({ identity, origin, challenge })
  const { address } = identity.bundle
  const reply = await post("/v1/sessions", encodeSessionRequest({ address, proof: attempt.fields }))
  return attempt.finish(parseSessionReply(reply))
}
