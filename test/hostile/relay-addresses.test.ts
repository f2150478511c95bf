// Where a relay could keep from whom a request came, and does not: its log at its most talkative, every
// file it has, what it tells its operator.
import { once } from "node:events"
import http from "node:http"
import { connect } from "node:net"
import { text } from "node:stream/consumers"
import { join } from "node:path"
import { afterAll, afterEach, describe, expect, it } from "vitest"
import { encodeBearer, random } from "../../protocol/index.js"
import { parseRedisUrl } from "../../server/stores/redis-url.js"
import { hasRedis, type RedisServer, RedisServers } from "../redis/servers.js"
import { personAt } from "../server/people.js"
import {
  makeDelivery,
  openRelay,
  type RelayUnderTest,
  SmallClient,
} from "../server/relay-under-test.js"
import { answerOn } from "./raw-connection.js"
import { contentsUnder, spellings } from "./spellings.js"

/** Nobody else's on this machine. */
const peer = "127.77.3.9"
/** Whom a proxy names. */
const forwarded = ["203.0.113.77", "2001:db8:77:3::9"]

function spellingsOf(address: string): Buffer[] {
  const words = [Buffer.from(address), Buffer.from(`::ffff:${address}`)]
  if (address.includes(":")) return words.flatMap(spellings)
  const four = Uint8Array.from(address.split(".").map(Number))
  const number = Buffer.from(four).readUInt32BE()
  const swapped = Buffer.from(four).readUInt32LE()
  // Four bytes in base64 are too few to be looked for.
  return [
    ...words.flatMap(spellings),
    Buffer.from(four),
    Buffer.from(four).reverse(),
    ...[number, swapped].flatMap((value) => [
      Buffer.from(String(value)),
      Buffer.from(value.toString(16).padStart(8, "0")),
    ]),
  ]
}

/** What it is asked it asks of that port, from the peer's address. */
function fromPeer(port: number): SmallClient {
  return new SmallClient({
    app(req, res) {
      const { method, url: path, headers } = req
      const where = { host: "127.0.0.1", port, localAddress: peer }
      const onward = http.request({ ...where, method, path, headers }, (answer) => {
        res.writeHead(answer.statusCode ?? 502, answer.headers)
        answer.pipe(res)
      })
      req.pipe(onward)
    },
  })
}

async function fetched(url: string, socketPath?: string): Promise<string> {
  const asking = http.get(url, socketPath === undefined ? {} : { socketPath })
  const [answer] = await once(asking, "response")
  return text(answer)
}

/** Every key with its value, as the server itself writes them to its disk. */
async function dumpOf({ admin }: RedisServer): Promise<Buffer[]> {
  const keys = await admin.keysBuffer("*")
  expect(keys.length).toBeGreaterThan(5)
  const values = await Promise.all(keys.map((key) => admin.dumpBuffer(key)))
  return [...keys, ...values].filter((bytes) => bytes !== null)
}

const canUseRedis = hasRedis("T41 on the index on Redis")
const servers = new RedisServers()

afterAll(() => servers.close())

describe("a full run with everything logged", () => {
  let under: RelayUnderTest
  let client: SmallClient | undefined

  afterEach(async () => {
    client?.close()
    await under.remove()
  })

  it("comes from the address that is looked for", async () => {
    under = await openRelay()
    const echo = http.createServer((req, res) => res.end(req.socket.remoteAddress))
    await once(echo.listen(0, "127.0.0.1"), "listening")
    const address = echo.address()
    client = fromPeer(typeof address === "object" ? (address?.port ?? 0) : 0)
    expect((await client.get("/")).text).toBe(peer)
    echo.close()
  })

  for (const [how, hops, where] of [
    ["it comes from itself", 0, "embedded"],
    ["a proxy names", 1, "embedded"],
    ["it comes from, its index being on Redis", 0, "redis"],
  ] as const) {
    it.runIf(where === "embedded" || canUseRedis)(
      `T41: leaves no word of the address that ${how}, in the log, on the disk, in the index or with the operator`,
      async () => {
        // Plain, so that what is in it can be found.
        const redis = where === "redis" ? await servers.server({ rdbcompression: "no" }) : undefined
        under = await openRelay({
          config: {
            redis: redis === undefined ? undefined : parseRedisUrl(redis.url),
            logLevel: "debug",
            operatorListen: { host: "127.0.0.1", port: 0 },
            trustedProxies: hops === 0 ? undefined : { kind: "hops", hops },
          },
        })
        const { url } = await under.relay.start()
        const port = Number(new URL(url).port)
        client = fromPeer(port)
        const [alice, bob] = [await personAt(0), await personAt(1)]
        await client.register(alice)
        await client.register(bob)
        const sent = await client.send(makeDelivery([alice, bob], { bodyLength: 200_000 }))
        const revoked = await client.send(makeDelivery([alice]))
        const open = await client.start([alice])
        await client.putPart(open, 0, random(1000)).expect(200)
        const givenUp = await client.start([alice])
        const bearer = encodeBearer(givenUp.token)
        await client.delete(`/v1/uploads/${givenUp.id}`, bearer).expect(204)
        const session = await client.login(alice)
        await client.list(session, "?envelopes=1")
        for (const piece of ["header", "envelope", "manifest", "leaves", "body"]) {
          await client.get(`/v1/deliveries/${sent.id}/${piece}`, session).expect(200)
        }
        await client.delete(`/v1/deliveries/${revoked.id}`, encodeBearer(revoked.deleteCap))
        await client.delete(`/v1/deliveries/${sent.id}`, session).expect(204)
        // What goes wrong is logged as well.
        for (const named of forwarded) {
          await client
            .get("/v1/relay")
            .set("X-Forwarded-For", named)
            .set("Forwarded", `for=${named}`)
          await client.get(`/v1/inboxes/${named}`).set("X-Forwarded-For", named).expect(404)
          await client.putPart(open, 0, random(1000)).set("X-Forwarded-For", named).expect(409)
          await client.get("/v1/inbox", encodeBearer(random(32))).set("X-Forwarded-For", named)
        }
        for (const words of ["no HTTP at all\r\n\r\n", `GET /${peer} HTTP/1.1\r\n`]) {
          const socket = connect({ port, host: "127.0.0.1", localAddress: peer })
          const answer = answerOn(socket)
          socket.end(words)
          await answer
        }
        await under.relay.sweep()
        await under.relay.reconcile()
        const told = [await fetched("http://relay/status", join(under.folder, "operator.sock"))]
        const metrics = under.log.find(({ event }) => event === "metrics_listening")
        told.push(await fetched(`${String(metrics?.url)}/metrics`))
        await under.relay.stop()

        const places = [
          ...contentsUnder(under.folder),
          Buffer.from(JSON.stringify(under.log)),
          ...told.map((one) => Buffer.from(one)),
          ...(redis === undefined ? [] : await dumpOf(redis)),
        ]
        expect(places.length).toBeGreaterThan(15)
        expect(under.log.filter(({ event }) => event === "request").length).toBeGreaterThan(30)
        for (const address of [peer, ...forwarded]) {
          for (const spelling of spellingsOf(address)) {
            const where = places.findIndex((place) => place.includes(spelling))
            expect([address, spelling.toString("latin1"), where]).toEqual([
              address,
              spelling.toString("latin1"),
              -1,
            ])
          }
        }
        // The search finds what is there.
        expect(places.some((place) => place.includes("KNHE"))).toBe(true)
        expect(places.some((place) => place.includes('"route":"/v1/uploads"'))).toBe(true)
      },
    )
  }
})
